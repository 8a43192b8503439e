package nvml

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// SamplerOptions say how often a [Sampler] asks and how long it waits. Zero
// values are the defaults.
type SamplerOptions struct {
	Readings  time.Duration // between readings of a GPU; 1 s
	Health    time.Duration // between health polls of a GPU; 10 s
	Inventory time.Duration // between inventories; 30 s
	Deadline  time.Duration // of a call about one GPU; 2 s
	// InventoryDeadline is that of an inventory; 10 s, as the first one has the
	// driver initialise every GPU.
	InventoryDeadline time.Duration
	Freshness         time.Duration // see GPUSample.Fresh; [DefaultFreshness]
	// Index gives the indexes that were handed out since the node was booted,
	// by PCI address, for a sampler that takes over from another one. A GPU in
	// it that the inventory does not list is missing.
	Index map[string]int
}

// Sampler takes readings and health of every GPU, each GPU for itself: one
// that is lost or hangs delays no other. What it knows is in [Sampler.Latest].
type Sampler struct {
	driver    Driver
	o         SamplerOptions
	inventory *poll[Inventory]
	latest    atomic.Pointer[Sample]

	// observing holds a token from the outcome of a poll until it is told. It is
	// no mutex, so that a poll that waits for its turn can be cancelled.
	observing chan struct{}

	mu      sync.Mutex // guards all below, and that latest only goes forward
	observe func(Observation)
	gpus    []*sampled // by index
	index   map[string]int
	// unasked: what the last inventory failed with holds for every GPU, so none is
	// asked.
	unasked bool
}

// sampled is one GPU under the sampler's eyes.
type sampled struct {
	pci      string
	readings *poll[Readings]
	health   *poll[Health]
	state    GPUSample // guarded by the sampler's lock
}

// NewSampler makes a sampler of a driver's GPUs.
func NewSampler(d Driver, o SamplerOptions) *Sampler {
	o.Readings = cmp.Or(o.Readings, time.Second)
	o.Health = cmp.Or(o.Health, 10*time.Second)
	o.Inventory = cmp.Or(o.Inventory, 30*time.Second)
	o.Deadline = cmp.Or(o.Deadline, 2*time.Second)
	o.InventoryDeadline = cmp.Or(o.InventoryDeadline, 10*time.Second)
	o.Freshness = cmp.Or(o.Freshness, DefaultFreshness)
	s := &Sampler{driver: d, o: o, index: maps.Clone(o.Index), observing: make(chan struct{}, 1)}
	if s.index == nil {
		s.index = map[string]int{}
	}
	s.inventory = &poll[Inventory]{
		ask: d.Inventory, deadline: o.InventoryDeadline, pause: growing(o.Inventory), kick: make(chan struct{}, 1),
	}
	s.latest.Store(&Sample{})
	return s
}

// Latest is the newest sample; never nil.
func (s *Sampler) Latest() *Sample { return s.latest.Load() }

// Index is the index of each GPU that was ever listed, by PCI address: what
// SamplerOptions.Index of the next sampler of this boot needs.
func (s *Sampler) Index() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.index)
}

// Refresh has the health of a GPU taken at once; with an empty address, or one
// that was never listed, the inventory. Such polls are 100 ms apart at least.
func (s *Sampler) Refresh(pci string) {
	s.mu.Lock()
	g := s.known(pci)
	s.mu.Unlock()
	if g == nil {
		s.inventory.soon()
		return
	}
	g.health.soon()
}

// Look takes the health of a GPU now, beside the polls, and returns when what came of
// it was told: the error is that of the call. A GPU that is not asked, for it is
// missing or the driver is, is not asked here either. It waits no longer than ctx.
func (s *Sampler) Look(ctx context.Context, pci string) error {
	s.mu.Lock()
	g, observe := s.known(pci), s.observe
	var err error
	if g != nil && s.silent(g) {
		err = g.state.HealthErr
	}
	s.mu.Unlock()
	switch {
	case g == nil || observe == nil:
		return errMissing(pci)
	case err != nil:
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Deadline)
	defer cancel()
	back := make(chan answer[Health], 1)
	began := time.Now()
	go func() {
		value, err := s.driver.Health(ctx, pci)
		back <- answer[Health]{value: value, err: err, took: time.Since(began)}
	}()
	select {
	case a := <-back:
		// One that was late or given up says nothing: the polls have the patience to tell.
		if ctx.Err() == nil {
			s.tellHealth(ctx, g, a, observe)
		}
		return a.err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrTimeout, ctx.Err())
	}
}

// Run samples until ctx ends. It tells the outcome of each inventory and each
// health poll to observe, one at a time; a GPU is told in an inventory before
// it is told of. Observe must return quickly. Run is called once.
func (s *Sampler) Run(ctx context.Context, observe func(Observation)) error {
	var gpus sync.WaitGroup
	s.mu.Lock()
	s.observe = observe
	s.mu.Unlock()
	s.inventory.run(ctx, func(a answer[Inventory]) {
		for _, g := range s.tellInventory(ctx, a, observe) {
			gpus.Go(func() { g.readings.run(ctx, func(a answer[Readings]) { s.takeReadings(g, a) }) })
			gpus.Go(func() { g.health.run(ctx, func(a answer[Health]) { s.tellHealth(ctx, g, a, observe) }) })
		}
	})
	gpus.Wait()
	return nil
}

// tellInventory gives the GPUs that are to be polled from now on.
func (s *Sampler) tellInventory(ctx context.Context, a answer[Inventory], observe func(Observation)) []*sampled {
	if !s.turn(ctx) {
		return nil
	}
	defer func() { <-s.observing }()
	now := time.Now()
	if a.err != nil {
		s.failInventory(a, now)
		observe(Observation{Time: now, InventoryErr: a.err})
		return nil
	}
	found, missing := s.takeInventory(a, now)
	observe(Observation{Time: now, Inventory: &a.value, Indexes: s.Index()})
	for _, pci := range missing {
		observe(Observation{Time: now, PCI: pci, Missing: true, Err: errMissing(pci)})
	}
	return found
}

func (s *Sampler) tellHealth(ctx context.Context, g *sampled, a answer[Health], observe func(Observation)) {
	if !s.turn(ctx) {
		return
	}
	defer func() { <-s.observing }()
	now := time.Now()
	if !s.takeHealth(g, a, now) {
		return
	}
	o := Observation{Time: now, PCI: g.pci, Err: a.err}
	if a.err == nil {
		o.Health = &a.value
	}
	observe(o)
}

// turn waits until nothing else is told.
func (s *Sampler) turn(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case s.observing <- struct{}{}:
		return true
	}
}

func (s *Sampler) failInventory(a answer[Inventory], now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unasked = aboutAll(a.err); s.unasked {
		for _, g := range s.gpus {
			g.state.ReadingsErr, g.state.HealthErr = a.err, a.err
		}
	}
	s.publish(now, func(next *Sample) {
		next.InventoryErr, next.InventoryTime = a.err, now
		a.count(&next.InventoryCalls)
	})
}

// takeInventory gives the GPUs that were not known and the addresses of those
// that are missing.
func (s *Sampler) takeInventory(a answer[Inventory], now time.Time) (found []*sampled, missing []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// After a new loading of the driver nothing that was known need hold.
	anew := s.latest.Load().Inventory.Load != a.value.Load
	for i, gpu := range a.value.GPUs {
		g := s.known(gpu.PCI)
		if g != nil && gpu.UUID == "" && g.state.GPU.UUID != "" && !anew {
			gpu = g.state.GPU // one that is lost cannot say who it is
			a.value.GPUs[i] = gpu
		}
		switch {
		case g == nil:
			g = s.begin(gpu.PCI)
			found = append(found, g)
		case g.state.Missing, s.unasked, anew:
			g.readings.soon()
			g.health.soon()
		}
		g.state.GPU = gpu
	}
	for _, pci := range slices.Sorted(maps.Keys(s.index)) {
		if s.known(pci) == nil {
			found = append(found, s.begin(pci))
		}
	}
	for _, g := range s.gpus {
		g.state.Missing = !slices.ContainsFunc(a.value.GPUs, func(gpu GPU) bool { return gpu.PCI == g.pci })
		if g.state.Missing {
			g.state.ReadingsErr, g.state.HealthErr = errMissing(g.pci), errMissing(g.pci)
			missing = append(missing, g.pci)
		}
	}
	s.unasked = false
	s.publish(now, func(next *Sample) {
		next.Inventory, next.InventoryErr, next.InventoryTime = a.value, nil, now
		a.count(&next.InventoryCalls)
	})
	return found, missing
}

func errMissing(pci string) error { return fmt.Errorf("inventory without %s: %w", pci, ErrNotFound) }

// known is the GPU at an address, nil if it was never listed; the lock is held.
func (s *Sampler) known(pci string) *sampled {
	for _, g := range s.gpus {
		if g.pci == pci {
			return g
		}
	}
	return nil
}

// begin starts to know a GPU; the lock is held.
func (s *Sampler) begin(pci string) *sampled {
	index, ok := s.index[pci]
	if !ok {
		taken := slices.Collect(maps.Values(s.index))
		for slices.Contains(taken, index) {
			index++
		}
		s.index[pci] = index
	}
	g := &sampled{pci: pci, state: GPUSample{GPU: GPU{PCI: pci, Minor: -1}, Index: index, Freshness: s.o.Freshness}}
	idle := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.silent(g)
	}
	g.readings = &poll[Readings]{
		ask:      func(ctx context.Context) (Readings, error) { return s.driver.Readings(ctx, pci) },
		deadline: s.o.Deadline,
		pause:    func(error) time.Duration { return s.o.Readings },
		idle:     idle,
		kick:     make(chan struct{}, 1),
	}
	g.health = &poll[Health]{
		ask:      func(ctx context.Context) (Health, error) { return s.driver.Health(ctx, pci) },
		deadline: s.o.Deadline,
		pause:    func(error) time.Duration { return s.o.Health },
		idle:     idle,
		kick:     make(chan struct{}, 1),
	}
	s.gpus = append(s.gpus, g)
	slices.SortFunc(s.gpus, func(a, b *sampled) int { return a.state.Index - b.state.Index })
	return g
}

// silent says that there is no use in asking for a GPU, and that an answer to
// what was asked before has been overtaken; the lock is held.
func (s *Sampler) silent(g *sampled) bool { return g.state.Missing || s.unasked }

func (s *Sampler) takeReadings(g *sampled, a answer[Readings]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	a.count(&g.state.Calls.Readings)
	if s.silent(g) {
		return
	}
	// Readings are the fast poll: where their outcome changes, the slow ones
	// need not wait for their turn.
	switch {
	case sameCause(a.err, g.state.ReadingsErr):
	case aboutAll(a.err), errors.Is(a.err, ErrNotFound):
		s.inventory.soon()
	default:
		g.health.soon()
	}
	if a.err == nil && g.state.GPU.UUID == "" {
		s.inventory.soon() // it can say who it is by now
	}
	g.state.ReadingsErr = a.err
	if a.err == nil {
		g.state.Readings, g.state.ReadingsAnswered, g.state.Answered = a.value, now, now
	}
	s.publish(now, nil)
}

// takeHealth says whether the answer is news.
func (s *Sampler) takeHealth(g *sampled, a answer[Health], now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.count(&g.state.Calls.Health)
	if s.silent(g) {
		return false
	}
	g.state.HealthErr = a.err
	if a.err == nil {
		g.state.Health, g.state.HealthAnswered, g.state.Answered = a.value, now, now
	}
	s.publish(now, nil)
	return true
}

// publish makes the next sample out of the last one and the state of the GPUs;
// the lock is held.
func (s *Sampler) publish(now time.Time, change func(*Sample)) {
	next := *s.latest.Load()
	next.Time = now
	if change != nil {
		change(&next)
	}
	next.GPUs = make([]GPUSample, len(s.gpus))
	for i, g := range s.gpus {
		next.GPUs[i] = g.state
	}
	s.latest.Store(&next)
}

// aboutAll reports whether an error of one call holds for every GPU.
func aboutAll(err error) bool {
	return errors.Is(err, ErrNoDriver) || errors.Is(err, ErrStuck) || errors.Is(err, ErrPaused)
}

// sameCause compares errors by what a caller can tell apart.
func sameCause(a, b error) bool {
	for _, cause := range []error{ErrNoDriver, ErrLost, ErrTimeout, ErrNotFound, ErrStuck, ErrPaused} {
		if errors.Is(a, cause) != errors.Is(b, cause) {
			return false
		}
	}
	return (a == nil) == (b == nil)
}

// growing gives a steady pause after successes, and one that doubles while
// tries fail.
func growing(steady time.Duration) func(error) time.Duration {
	const first, longest = 100 * time.Millisecond, 5 * time.Second
	var pause time.Duration
	return func(err error) time.Duration {
		if err == nil {
			pause = 0
			return steady
		}
		pause = min(max(first, 2*pause), longest)
		return pause
	}
}
