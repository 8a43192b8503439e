package fake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gpuvet.dev/nvml"
)

// Driver plays a scenario. It is made by [New]; the timeline begins with
// [Driver.Run], and further steps can be given with [Driver.Apply].
type Driver struct {
	info     DriverInfo
	timeline []Step // by At
	repeat   time.Duration
	made     time.Time

	mu      sync.Mutex // guards all below
	gpus    []*gpu     // in PCI order; which they are does not change
	loaded  bool
	loads   int
	hang    hang      // of the whole driver
	last    time.Time // of what was told last
	kernel  kernelLog
	streams map[*stream]struct{}

	// What the library alone shows.
	initFail  failing
	latency   map[CallGroup]time.Duration
	excluded  []Excluded
	followers map[*follower]struct{}
}

var _ nvml.Driver = (*Driver)(nil)

// New makes the driver of a scenario, with every GPU as the scenario starts.
// The scenario is not kept.
func New(s *Scenario) *Driver {
	d := &Driver{
		info:     s.Driver,
		timeline: slices.Clone(s.Timeline),
		repeat:   s.Repeat,
		made:     time.Now(),
		loaded:   !s.Driver.Absent,
		hang:     newHang(),
		kernel:   newKernelLog(),
		streams:  map[*stream]struct{}{},

		latency:   maps.Clone(s.Driver.Latency),
		excluded:  slices.Clone(s.Driver.Excluded),
		followers: map[*follower]struct{}{},
	}
	if d.latency == nil {
		d.latency = map[CallGroup]time.Duration{}
	}
	d.info.Library = cmp.Or(d.info.Library, d.info.Version)
	if d.loaded {
		d.loads = 1
	}
	slices.SortStableFunc(d.timeline, func(a, b Step) int { return int(a.At - b.At) })
	for i, g := range s.GPUs {
		d.gpus = append(d.gpus, newGPU(i, g, d.made))
	}
	return d
}

// Run plays the timeline in real time, again and again if the scenario
// repeats, until ctx ends.
func (d *Driver) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for round := time.Now(); ; round = round.Add(d.repeat) {
		for _, step := range d.timeline {
			if !waitUntil(ctx, timer, round.Add(step.At)) {
				return nil
			}
			if err := d.Apply(step); err != nil {
				return fmt.Errorf("play step at %s: %w", step.At, err)
			}
		}
		if d.repeat <= 0 || !waitUntil(ctx, timer, round.Add(d.repeat)) {
			<-ctx.Done()
			return nil
		}
	}
}

func waitUntil(ctx context.Context, timer *time.Timer, t time.Time) bool {
	timer.Reset(time.Until(t))
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// Apply makes a step happen now, whatever its At.
func (d *Driver) Apply(s Step) error {
	if s.Do == nil {
		return errors.New("step does nothing")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.changed()
	switch {
	case ofNode(s.Do):
		s.Do.do(d, 0)
	case s.All:
		return d.doAll(s.Do)
	case s.GPU < 0 || s.GPU >= len(d.gpus):
		return fmt.Errorf("step %T of GPU %d: no such GPU", s.Do, s.GPU)
	default:
		return d.do(s.Do, s.GPU)
	}
	return nil
}

func (d *Driver) do(a Action, gpu int) error {
	if mig, ok := a.(MIG); ok {
		if _, err := mig.cut(d.gpus[gpu]); err != nil {
			return fmt.Errorf("step %T of GPU %d: %w", a, gpu, err)
		}
	}
	a.do(d, gpu)
	return nil
}

func ofNode(a Action) bool {
	switch a.(type) {
	case Kernel, Reload, Present, FailInit, Latency, Library:
		return true
	}
	return false
}

// doAll does to every GPU what is done to one; but a hang of all of them is one
// of the driver.
func (d *Driver) doAll(a Action) error {
	switch a := a.(type) {
	case Hang:
		d.hang.set(time.Now().Add(time.Duration(a)), false)
	case Uninterruptible:
		d.hang.set(time.Now().Add(time.Duration(a)), true)
	default:
		for i := range d.gpus {
			if err := d.do(a, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// Has reports whether the scenario has a GPU at this address, listed or not.
func (d *Driver) Has(pci string) bool {
	return slices.ContainsFunc(d.gpus, func(g *gpu) bool { return g.PCI == pci })
}

// Inventory implements [nvml.Driver]. A lost or hung GPU stays listed; a missing
// one is not.
func (d *Driver) Inventory(ctx context.Context) (nvml.Inventory, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.wait(ctx); err != nil {
		return nvml.Inventory{}, fmt.Errorf("inventory: %w", err)
	}
	inventory := nvml.Inventory{
		DriverVersion: d.info.Version,
		CUDAVersion:   d.info.CUDA,
		Load:          fmt.Sprintf("fake-%d", d.loads),
	}
	for _, g := range d.gpus {
		if g.listed() {
			inventory.GPUs = append(inventory.GPUs, d.described(g))
		}
	}
	return inventory, nil
}

// Readings implements [nvml.Driver].
func (d *Driver) Readings(ctx context.Context, pci string) (r nvml.Readings, err error) {
	err = d.ask(ctx, pci, func(g *gpu, now time.Time) { r = g.readings(now, now.Sub(d.made)) })
	if err != nil {
		return r, fmt.Errorf("readings of %s: %w", pci, err)
	}
	return r, nil
}

// Health implements [nvml.Driver].
func (d *Driver) Health(ctx context.Context, pci string) (h nvml.Health, err error) {
	err = d.ask(ctx, pci, func(g *gpu, now time.Time) { h = d.health(g, now) })
	if err != nil {
		return h, fmt.Errorf("health of %s: %w", pci, err)
	}
	return h, nil
}

// Events implements [nvml.Driver]. The stream breaks when the driver is
// unloaded, also by a reload.
func (d *Driver) Events(ctx context.Context, emit func(nvml.Event)) error {
	s, err := d.open(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("wait for events: %w", err)
	}
	defer d.close(s)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.more:
		}
		d.mu.Lock()
		events, broken := s.queue, s.broken
		s.queue = nil
		d.mu.Unlock()
		for _, e := range events {
			if ctx.Err() != nil {
				return nil
			}
			emit(e)
		}
		if broken != nil {
			return fmt.Errorf("wait for events: %w", broken)
		}
	}
}

// KernelLines calls emit for each line that the driver printed to the kernel
// log: first those that are kept (the newest 1000), then each as it is printed,
// in order, until ctx ends. Each call begins with the oldest line kept.
func (d *Driver) KernelLines(ctx context.Context, emit func(time.Time, string)) error {
	var next uint64
	for {
		d.mu.Lock()
		lines, more := d.kernel.from(next), d.kernel.more
		next = d.kernel.next
		d.mu.Unlock()
		for _, line := range lines {
			if ended := ctx.Err() != nil; ended {
				break
			}
			emit(line.time, line.text)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
	}
}

// ask calls answer, under the lock, once the GPU can be reached.
func (d *Driver) ask(ctx context.Context, pci string, answer func(*gpu, time.Time)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if err := d.wait(ctx); err != nil {
			return err
		}
		i := slices.IndexFunc(d.gpus, func(g *gpu) bool { return g.PCI == pci && g.listed() })
		if i < 0 {
			return nvml.ErrNotFound
		}
		g := d.gpus[i]
		if g.hang.wait(ctx, &d.mu) {
			continue
		}
		now := time.Now()
		if g.lost {
			return nvml.ErrLost
		}
		if failure := g.failing.at(now); failure != "" {
			return failure.err()
		}
		answer(g, now)
		return nil
	}
}

// wait is over when the driver answers, or when the context is.
func (d *Driver) wait(ctx context.Context) error {
	for {
		if err := d.answers(ctx); err != nil {
			return err
		}
		if !d.hang.wait(ctx, &d.mu) {
			return nil
		}
	}
}

func (d *Driver) answers(ctx context.Context) error {
	switch err := ctx.Err(); {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", nvml.ErrTimeout, err)
	case err != nil:
		return err
	case !d.loaded:
		return nvml.ErrNoDriver
	}
	return nil
}

// described is what a GPU is, as far as this driver tells it.
func (d *Driver) described(g *gpu) nvml.GPU {
	told := g.GPU
	told.Instances = slices.Clone(g.Instances)
	if d.branch() < 580 { // as the call is of CUDA 13.0
		told.AddressingMode = ""
	}
	return told
}

// health is that of a GPU, as far as this driver tells it.
func (d *Driver) health(g *gpu, now time.Time) nvml.Health {
	h := g.health(now)
	if !d.asksRecovery() {
		h.Recovery = nvml.Maybe[nvml.RecoveryAction]{}
		h.ResetRequired, h.DrainAndResetRequired = nvml.Maybe[bool]{}, nvml.Maybe[bool]{}
	}
	return h
}

// asksRecovery: the recovery action came with driver branch 570.
func (d *Driver) asksRecovery() bool { return d.branch() >= 570 }

// branch is that of the driver, 570 for "570.195.03".
func (d *Driver) branch() int {
	branch, _, _ := strings.Cut(d.info.Version, ".")
	n, _ := strconv.Atoi(branch) // a version that is none is an old one
	return n
}

// stamp is the time of what is told next: no two things have the same.
func (d *Driver) stamp() time.Time {
	now := time.Now()
	if !now.After(d.last) {
		now = d.last.Add(time.Nanosecond)
	}
	d.last = now
	return now
}
