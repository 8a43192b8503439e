package nvml

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// kickGap is the least time between two polls that were asked for, so that a
// burst of errors does not keep the driver busy with questions about them.
const kickGap = 100 * time.Millisecond

// poll asks one question again and again. A call that does not come back is
// left behind at its deadline, and none is made while it is out: at most one
// call of a poll is stuck, whatever the driver does.
type poll[T any] struct {
	ask      func(context.Context) (T, error)
	deadline time.Duration
	// pause is the time from the beginning of a call to the next, by its outcome.
	pause func(error) time.Duration
	// idle says that there is nothing to ask at present; nil: there always is.
	idle func() bool

	kick  chan struct{} // room for one: ask at once
	stuck chan answer[T]
}

type answer[T any] struct {
	value   T
	err     error
	took    time.Duration
	skipped bool // no call was made: one is still out, or none may be
}

// run polls until ctx ends, and reports each outcome. While a call is stuck
// each poll reports ErrTimeout. A stuck call that comes back well makes room
// for a new one at once; its own answer is too old to be used.
func (p *poll[T]) run(ctx context.Context, report func(answer[T])) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var began time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.kick:
			timer.Reset(max(0, kickGap-time.Since(began)))
			continue
		case late := <-p.stuck:
			p.stuck = nil
			if late.err == nil {
				timer.Reset(0)
			}
			continue
		case <-timer.C:
		}
		began = time.Now()
		if p.idle != nil && p.idle() {
			timer.Reset(p.pause(nil))
			continue
		}
		a := p.call(ctx)
		if ctx.Err() != nil {
			return
		}
		report(a)
		timer.Reset(max(0, p.pause(a.err)-time.Since(began)))
	}
}

func (p *poll[T]) call(ctx context.Context) answer[T] {
	if p.stuck != nil {
		select {
		case <-p.stuck:
			p.stuck = nil
		default:
			return answer[T]{err: fmt.Errorf("%w: a call is still out", ErrTimeout), skipped: true}
		}
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, p.deadline)
	defer cancel()
	back := make(chan answer[T], 1)
	go func() {
		value, err := p.ask(limited)
		back <- answer[T]{value: value, err: err, took: time.Since(began)}
	}()
	select {
	case a := <-back:
		a.skipped = errors.Is(a.err, ErrPaused) // the driver was not asked
		if errors.Is(a.err, context.DeadlineExceeded) && !errors.Is(a.err, ErrTimeout) {
			a.err = fmt.Errorf("%w: %w", ErrTimeout, a.err)
		}
		return a
	case <-limited.Done():
		p.stuck = back
		return answer[T]{err: fmt.Errorf("%w (%s)", ErrTimeout, p.deadline), took: time.Since(began)}
	}
}

// count adds the call behind the answer, if there was one.
func (a answer[T]) count(c *CallCount) {
	if a.skipped {
		return
	}
	c.Count++
	c.Time += a.took
	if a.err != nil {
		c.Errors++
	}
}

// soon asks for a poll at once.
func (p *poll[T]) soon() {
	select {
	case p.kick <- struct{}{}:
	default: // one is asked for already
	}
}
