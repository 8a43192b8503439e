package fake

import (
	"context"
	"maps"
	"slices"
	"time"

	"gpuvet.dev/nvml"
)

// State is the whole driver at one time: what a second face of it needs to play
// the same. It belongs to who gets it.
type State struct {
	Time     time.Time
	Driver   DriverInfo // as loaded, or as last loaded
	Loaded   bool
	Load     int // number of this loading, from 1
	Hanging  Hanging
	InitFail Failure // what new users of the library meet
	Latency  map[CallGroup]time.Duration
	Excluded []Excluded
	GPUs     []GPUState // in PCI order, also those that are lost or missing
	Events   []Told     // since the State before, in order
}

// Hanging says whether calls come back.
type Hanging int

// Calls come back; or wait; or wait so that nothing can end them.
const (
	Answers Hanging = iota
	Hangs
	HangsUninterruptibly
)

// GPUState is one GPU at one time.
type GPUState struct {
	nvml.GPU
	Model         Model
	Lost, Missing bool
	Unbound       bool // from the driver
	Hanging       Hanging
	Failure       Failure

	Readings nvml.Readings
	Health   nvml.Health
	Detail
}

// Told is one thing that the driver told: an event of a GPU, or that the driver
// was bound to it or unbound from it.
type Told struct {
	Load  int
	Event nvml.Event // of a GPU, unless Bound or Unbound
	Bound,
	Unbound bool
}

// follower is who gets each State. The driver's lock guards it.
type follower struct {
	told []Told
	more chan struct{} // has a token when something changed
}

// Follow calls show with the State of the driver: at once, after each step, and
// at least every so often, until ctx ends. Steps that come while it runs are
// shown together.
func (d *Driver) Follow(ctx context.Context, every time.Duration, show func(State)) error {
	f := &follower{more: make(chan struct{}, 1)}
	d.mu.Lock()
	d.followers[f] = struct{}{}
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.followers, f)
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.more:
		case <-timer.C:
		}
		d.mu.Lock()
		state := d.state()
		state.Events, f.told = f.told, nil
		next := d.nextEnd(state.Time.Add(every))
		d.mu.Unlock()
		show(state)
		timer.Reset(time.Until(next))
	}
}

// State is the driver as it is now, without what it told before.
func (d *Driver) State() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state()
}

func (d *Driver) state() State {
	now := time.Now()
	s := State{
		Time: now, Driver: d.info, Loaded: d.loaded, Load: d.loads,
		Hanging: d.hang.kind(now), InitFail: d.initFail.at(now),
		Latency: maps.Clone(d.latency), Excluded: slices.Clone(d.excluded),
	}
	for _, g := range d.gpus {
		health := d.health(g, now)
		shown := GPUState{
			GPU: d.described(g), Model: g.model, Lost: g.lost, Missing: g.missing, Unbound: g.unbound,
			Hanging: g.hang.kind(now), Failure: g.failing.at(now),
			Readings: g.readings(now, now.Sub(d.made)), Health: health, Detail: g.detail.clone(),
		}
		s.GPUs = append(s.GPUs, shown)
	}
	return s
}

// nextEnd is when the state changes by itself, or else latest.
func (d *Driver) nextEnd(latest time.Time) time.Time {
	now := time.Now()
	ends := []time.Time{d.hang.ends, d.initFail.ends}
	for _, g := range d.gpus {
		ends = append(ends, g.hang.ends, g.failing.ends)
	}
	for _, end := range ends {
		if end.After(now) && end.Before(latest) {
			latest = end
		}
	}
	return latest
}

// changed has the followers look.
func (d *Driver) changed() {
	for f := range d.followers {
		select {
		case f.more <- struct{}{}:
		default:
		}
	}
}

// report tells the followers.
func (d *Driver) report(t Told) {
	t.Load = d.loads
	for f := range d.followers {
		f.told = append(f.told, t)
	}
}
