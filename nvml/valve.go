package nvml

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Valve is a [Driver] that can be closed, so that nothing of ours holds the
// driver while a GPU is reset or the driver is unloaded. A closed one answers
// every call with [ErrPaused]. It is closed at first: nothing is asked before
// it is known whether it may.
type Valve struct {
	driver  Driver
	release func(context.Context) error

	closing chan struct{} // holds a token while Close is at work

	mu      sync.Mutex // guards all below
	open    bool
	free    bool                             // closed, and nothing holds the driver
	held    error                            // why the last Close could not say so
	calls   map[*call]struct{}               // that are out
	emptied chan struct{}                    // closed when the last of them is back; nil: nobody waits
	streams map[*context.CancelFunc]struct{} // what ends them
}

// call is one that is out.
type call struct {
	what  string
	since time.Time
}

var _ Driver = (*Valve)(nil)

// NewValve makes a valve before a driver. release has it let go of everything
// that it keeps between calls; nil: it keeps nothing.
func NewValve(d Driver, release func(context.Context) error) *Valve {
	if release == nil {
		release = func(context.Context) error { return nil }
	}
	return &Valve{
		driver: d, release: release, closing: make(chan struct{}, 1),
		calls: map[*call]struct{}{}, streams: map[*context.CancelFunc]struct{}{},
	}
}

// Open lets calls through.
func (v *Valve) Open() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.open, v.free, v.held = true, false, nil
}

// Close refuses calls from now on, ends the event streams, waits for the calls
// that are out, and has the driver let go. The error says what still holds it;
// the valve is closed all the same, and Close can be called again to wait on.
// One that has succeeded does nothing more until Open.
func (v *Valve) Close(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("close NVML: %w", ctx.Err())
	case v.closing <- struct{}{}:
	}
	defer func() { <-v.closing }()
	done := v.shut()
	if done == nil {
		return nil
	}
	var err error
	select {
	case <-done:
		err = v.release(ctx)
	case <-ctx.Done():
		err = v.holding()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.open {
		return errors.New("close NVML: it was opened meanwhile")
	}
	v.free, v.held = err == nil, err
	if err != nil {
		return fmt.Errorf("close NVML: %w", err)
	}
	return nil
}

// shut closes the valve. What it gives is closed when no call is out; nil: there
// is nothing to wait for any more.
func (v *Valve) shut() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.open && v.free {
		return nil
	}
	v.open = false
	for cancel := range v.streams {
		(*cancel)()
	}
	v.emptied = make(chan struct{})
	if len(v.calls) == 0 {
		close(v.emptied)
		done := v.emptied
		v.emptied = nil
		return done
	}
	return v.emptied
}

// holding is an error that names the calls that are out.
func (v *Valve) holding() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []string
	for c := range v.calls {
		out = append(out, fmt.Sprintf("%s for %s", c.what, time.Since(c.since).Round(time.Second)))
	}
	slices.Sort(out)
	return fmt.Errorf("calls are still out: %s", strings.Join(out, ", "))
}

// Closed reports whether the driver is let go of, and what holds it if the valve
// is closed and something was found to. An open valve gives false and nil.
func (v *Valve) Closed() (bool, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.open && v.free, v.held
}

// begin notes a call, which ends with the function that it gives.
func (v *Valve) begin(what string, cancel context.CancelFunc) (func(), error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.open {
		return nil, fmt.Errorf("%s: %w", what, ErrPaused)
	}
	c := &call{what: what, since: time.Now()}
	v.calls[c] = struct{}{}
	if cancel != nil {
		v.streams[&cancel] = struct{}{}
	}
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.calls, c)
		delete(v.streams, &cancel)
		if len(v.calls) == 0 && v.emptied != nil {
			close(v.emptied)
			v.emptied = nil
		}
	}, nil
}

// Inventory implements [Driver].
func (v *Valve) Inventory(ctx context.Context) (Inventory, error) {
	end, err := v.begin("inventory", nil)
	if err != nil {
		return Inventory{}, err
	}
	defer end()
	return v.driver.Inventory(ctx)
}

// Readings implements [Driver].
func (v *Valve) Readings(ctx context.Context, pci string) (Readings, error) {
	end, err := v.begin("readings of "+pci, nil)
	if err != nil {
		return Readings{}, err
	}
	defer end()
	return v.driver.Readings(ctx, pci)
}

// Health implements [Driver].
func (v *Valve) Health(ctx context.Context, pci string) (Health, error) {
	end, err := v.begin("health of "+pci, nil)
	if err != nil {
		return Health{}, err
	}
	defer end()
	return v.driver.Health(ctx, pci)
}

// Events implements [Driver]. Closing the valve breaks the stream with
// [ErrPaused].
func (v *Valve) Events(ctx context.Context, emit func(Event)) error {
	if ended := ctx.Err() != nil; ended {
		return nil
	}
	streaming, cancel := context.WithCancel(ctx)
	defer cancel()
	end, err := v.begin("wait for events", cancel)
	if err != nil {
		return err
	}
	defer end()
	err = v.driver.Events(streaming, emit)
	if closed := streaming.Err() != nil && ctx.Err() == nil; closed {
		return fmt.Errorf("wait for events: %w", ErrPaused)
	}
	return err
}
