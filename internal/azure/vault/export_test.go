package vault

// Kept returns how many finished reads are held for others, how many bytes of them, and how many reads in all.
func (c *Client) Kept() (finished, bytes, all int) {
	c.shares.mu.Lock()
	defer c.shares.mu.Unlock()
	return c.shares.kept, c.shares.bytes, len(c.shares.reads)
}

// RememberedVaults returns of how many vaults anything is remembered.
func (c *Client) RememberedVaults() int {
	c.limits.mu.Lock()
	defer c.limits.mu.Unlock()
	return len(c.limits.vaults)
}
