package classes

// Kept says whether a look-up of the class asks nobody, because its watch works.
func (c *Classes) Kept(namespace, name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.used[namespace][name]
	return e != nil && e.known && c.live(key{namespace, name})
}

// Sizes returns how many volumes, classes and watches are kept.
func (c *Classes) Sizes() (volumes, classes, watches int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, entries := range c.used {
		classes += len(entries)
	}
	return len(c.volumes), classes, len(c.feeds)
}

const MaxVolumes = maxVolumes

// KeptBytes returns how much memory all classes are believed to take.
func (c *Classes) KeptBytes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept
}
