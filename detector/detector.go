// Package detector decides, with evidence, whether each GPU of the node is fit.
//
// Many small sources emit an [Event] each time they observe something. One pure
// function folds events into a [State] by the rules of a [Policy], and every
// change is published as an immutable [Snapshot]. Outputs watch snapshots:
// nothing else communicates.
//
// What is guaranteed: an event is folded once, whatever crashes in between, as
// long as its source can be read again or was told that it is saved; snapshots
// are numbered and never go back; a slow watcher sees the newest snapshot and
// delays nobody; detection waits for no disk and no API server. What is not: a
// watcher does not see every snapshot in between.
package detector

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Detector is the one owner of the state.
type Detector struct {
	boot   string
	epoch  time.Time // the wall-clock time at which the boot's clock was zero
	log    *zap.Logger
	keeper *keeper

	base    *Policy // without the rows of an event
	policy  atomic.Pointer[Policy]
	current atomic.Pointer[Snapshot]

	mu       sync.Mutex
	state    *State
	deadline time.Time     // zero before the first event: what was saved falls due at a start, not before it
	changed  chan struct{} // closed and replaced at each new snapshot
	wake     chan struct{} // the deadline has moved
}

// Config says what a detector works with.
type Config struct {
	// Policy holds until an event brings another, or the saved state has one.
	Policy *Policy
	Saved  Saved         // as restored; its zero value: nothing is known
	Boot   string        // boot id
	Uptime time.Duration // of the boot, now
	Store  Store         // nil: the state does not survive
	Trail  History       // nil: no history is kept
	Log    *zap.Logger
}

// New makes a detector. Nothing moves before Run.
func New(c Config) *Detector {
	if c.Saved.State == nil {
		c.Saved.State = &State{}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	d := &Detector{
		base: c.Policy, boot: c.Boot, epoch: time.Now().Add(-c.Uptime), log: c.Log,
		state:   c.Saved.State,
		changed: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	d.policy.Store(d.base.inForce(d.state))
	d.keeper = newKeeper(c)
	d.current.Store(view(c.Saved.State))
	return d
}

// Policy is the policy in force. It is never written again: a change brings
// another one.
func (d *Detector) Policy() *Policy { return d.policy.Load() }

// Snapshot is the newest one.
func (d *Detector) Snapshot() *Snapshot { return d.current.Load() }

// Emit folds an event. It returns when the event is part of the newest
// snapshot, and waits for nothing else. An event without an ID, a time or a
// boot gets the next of its source, now, and the present one.
func (d *Detector) Emit(e Event) { d.take(e) }

// Submit folds an event and returns the first snapshot that contains it, after
// it was saved where its kind demands that. The error is that of saving: the
// event is folded all the same.
func (d *Detector) Submit(ctx context.Context, e Event) (*Snapshot, error) {
	snapshot, version := d.take(e)
	if !e.saved() {
		return snapshot, nil
	}
	if err := d.keeper.wait(ctx, version); err != nil {
		return snapshot, fmt.Errorf("save %s: %w", e.Kind, err)
	}
	return snapshot, nil
}

func (d *Detector) take(e Event) (*Snapshot, uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.complete(&e)
	before := d.state.Seq
	next, transitions, deadline := fold(d.state, d.policy.Load(), e)
	if next.Seq == before {
		return d.current.Load(), d.keeper.version()
	}
	if next.Policy != d.state.Policy {
		d.policy.Store(d.base.inForce(next))
	}
	version := d.keeper.keep(next, &e, transitions)
	return d.publish(next, deadline), version
}

// complete fills in what a source leaves to us.
func (d *Detector) complete(e *Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if e.Boot == "" {
		e.Boot = d.boot
	}
	if e.Mono == 0 {
		e.Mono = d.sinceBoot(e.Time)
	}
	e.Time = e.Time.Round(0) // from here on the wall clock alone
	if e.ID == "" {
		// The clock since boot keeps numbers growing even if the state was lost
		// and the trail was not.
		series := e.Boot + "/" + e.Source
		e.ID = fmt.Sprintf("%s/%d", series, max(d.state.Folded[series]+1, uint64(e.Mono)))
	}
}

// sinceBoot is a time on the clock since boot: as long ago as the clock says now that
// the time was read from. One that another process has stamped has the wall clock
// alone, which may have been set since the start.
func (d *Detector) sinceBoot(at time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(d.epoch)-max(now.Sub(at), 0), 1)
}

// publish makes a state the newest snapshot. d.mu is held.
func (d *Detector) publish(next *State, deadline time.Time) *Snapshot {
	snapshot := nextView(next, d.state, d.current.Load())
	d.state = next
	d.current.Store(snapshot)
	if !deadline.Equal(d.deadline) {
		d.deadline = deadline
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
	close(d.changed)
	d.changed = make(chan struct{})
	return snapshot
}

// Run fires deadlines and keeps the state and the trail on disk, until ctx
// ends. On the way out it saves what is not yet saved.
func (d *Detector) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { d.keeper.run(ctx) })
	timer := time.NewTimer(longestWait)
	defer timer.Stop()
	for {
		d.expire()
		d.mu.Lock()
		due := d.deadline
		d.mu.Unlock()
		wait := longestWait
		if !due.IsZero() {
			wait = min(wait, max(time.Until(due), 0))
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-d.wake:
		}
	}
}

// longestWait is how often deadlines are looked at in any case: the wall clock
// may have been set.
const longestWait = 15 * time.Second

func (d *Detector) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deadline.IsZero() {
		return
	}
	now := time.Now()
	next, transitions, deadline := expire(d.state, d.policy.Load(), now.Round(0), max(now.Sub(d.epoch), 1))
	d.deadline = deadline
	if len(transitions) == 0 {
		return
	}
	d.keeper.keep(next, nil, transitions)
	d.publish(next, deadline)
}

// Watch yields the newest snapshot, and again each time there is a newer one,
// until ctx ends. Snapshots that come while the consumer is busy are skipped.
func (d *Detector) Watch(ctx context.Context) iter.Seq[*Snapshot] {
	return func(yield func(*Snapshot) bool) {
		for ctx.Err() == nil {
			d.mu.Lock()
			snapshot, changed := d.current.Load(), d.changed
			d.mu.Unlock()
			if !yield(snapshot) {
				return
			}
			select {
			case <-ctx.Done():
			case <-changed:
			}
		}
	}
}

// Alive fails if the fold is stuck: it is what liveness depends on, and
// nothing else.
func (d *Detector) Alive() error {
	for began := time.Now(); time.Since(began) < aliveLimit; time.Sleep(aliveStep) {
		if d.mu.TryLock() {
			d.mu.Unlock()
			return nil
		}
	}
	return errStuck
}

const (
	aliveLimit = 5 * time.Second
	aliveStep  = 5 * time.Millisecond
)

var errStuck = errors.New("the fold has not answered for 5 s")

// Kept tells how saving and the trail are doing.
func (d *Detector) Kept() Kept { return d.keeper.kept() }

// Cursor is a place that a reader of a source or of the trail has saved.
func (d *Detector) Cursor(name string) (Cursor, bool) { return d.keeper.cursor(name) }

// SetCursor moves a place; it is saved with the next state.
func (d *Detector) SetCursor(name string, c Cursor) { d.keeper.setCursor(name, c) }
