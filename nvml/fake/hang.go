package fake

import (
	"context"
	"sync"
	"time"
)

// hang is a time in which calls do not come back. The driver's lock guards it.
type hang struct {
	ends            time.Time
	uninterruptible bool
	freed           chan struct{} // closed when it ends before its time
}

func newHang() hang { return hang{freed: make(chan struct{})} }

func (h *hang) set(until time.Time, uninterruptible bool) {
	h.ends, h.uninterruptible = until, uninterruptible
	close(h.freed)
	h.freed = make(chan struct{})
}

func (h *hang) kind(now time.Time) Hanging {
	switch {
	case !now.Before(h.ends):
		return Answers
	case h.uninterruptible:
		return HangsUninterruptibly
	}
	return Hangs
}

// wait lets go of the lock until the hang may be over. It reports whether there
// was anything to wait for.
func (h *hang) wait(ctx context.Context, lock *sync.Mutex) bool {
	now := time.Now()
	if !now.Before(h.ends) {
		return false
	}
	left, freed := h.ends.Sub(now), h.freed
	lock.Unlock()
	defer lock.Lock()
	select {
	case <-ctx.Done():
	case <-freed:
	case <-time.After(left):
	}
	return true
}

// failing is a failure for a time. Its zero value is none.
type failing struct {
	failure Failure
	ends    time.Time // zero: never
}

func newFailing(f Failure, d time.Duration) failing {
	if d == 0 {
		return failing{failure: f}
	}
	return failing{f, time.Now().Add(d)}
}

func (f failing) at(now time.Time) Failure {
	if !f.ends.IsZero() && !now.Before(f.ends) {
		return ""
	}
	return f.failure
}
