package publish

import (
	"sync"
	"time"

	"gpuvet.dev/dra/pool"
)

// readiness asks whether containers can be given devices. The answer is looked for in
// files of others, on file systems that may hang: each device has a goroutine of its
// own for it, so that no other device waits. One that hangs cannot be ended, and is
// not waited for.
type readiness struct {
	ask  func(pool.Device) error // nil: they can
	tell func()                  // called after each answer

	mu    sync.Mutex // guards what follows
	looks map[string]*look
}

// look is what is known of a device.
type look struct {
	asked    time.Time
	asking   bool
	answered bool  // once, at least
	err      error // the last answer
}

// of is what is known of a device at present. It asks if that is due.
func (r *readiness) of(d pool.Device, now time.Time) look {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, known := r.looks[d.Name]
	if !known {
		l = &look{}
		r.looks[d.Name] = l
	}
	if !l.asking && !l.asked.Add(lookAgain).After(now) {
		l.asked, l.asking = now, true
		go r.look(d, l)
	}
	return *l
}

func (r *readiness) look(d pool.Device, l *look) {
	err := r.ask(d)
	r.mu.Lock()
	l.asking, l.answered, l.err = false, true, err
	r.mu.Unlock()
	r.tell()
}

// keep forgets the devices that are not asked for any more.
func (r *readiness) keep(wanted map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, l := range r.looks {
		if !wanted[name] && !l.asking {
			delete(r.looks, name)
		}
	}
}

// ready reports whether containers can be given the device.
func (l look) ready() bool { return l.answered && l.err == nil }

// missing says why they cannot; empty while nothing is known and that has not lasted.
func (l look) missing(name string, now time.Time) string {
	switch {
	case l.err != nil:
		return l.err.Error()
	case l.asked.Add(lookAgain).After(now):
		return ""
	default:
		return "it takes long to find out whether a container could be given " + name + "; a file system may hang"
	}
}
