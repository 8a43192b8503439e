package nvml

import "context"

// Begin takes one inventory, outside of Run.
func (s *Sampler) Begin(ctx context.Context) {
	s.tellInventory(ctx, s.inventory.call(ctx), func(Observation) {})
}

// Tick takes the readings of every GPU once, one after the other.
func (s *Sampler) Tick(ctx context.Context) {
	for _, g := range s.gpus {
		s.takeReadings(g, g.readings.call(ctx))
	}
}
