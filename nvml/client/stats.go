package client

import "time"

// Stats are what the client has seen of its workers since it was made, and how
// things are now.
type Stats struct {
	Started uint64 // workers
	Died    uint64 // of them, those that ended though nobody wanted it
	Refused uint64 // of those that died, those that were ended because of what they said
	Killed  uint64 // by a signal: stuck for too long, one too many, or deaf

	Stuck       map[string]time.Time // since when a GPU has not answered, by PCI address
	DriverStuck time.Time            // since when nothing is asked; zero: the driver answers
	Events      bool                 // whether events are listened to
}

// Stats gives the counters as they are now.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.counts
	s.Stuck = map[string]time.Time{}
	for pci, g := range c.gpus {
		if g.probe != nil {
			s.Stuck[pci] = g.probe.since
		}
	}
	s.DriverStuck = c.since
	s.Events = c.listening > 0
	return s
}
