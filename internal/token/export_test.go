package token

const MaxProven = maxProven

// Watched says whether a watch keeps the CSIDriver object.
func (p *Prover) Watched() bool {
	p.driver.mu.Lock()
	defer p.driver.mu.Unlock()
	return p.driver.live
}

// Verdicts returns how many verdicts are kept.
func (p *Prover) Verdicts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.proven)
}
