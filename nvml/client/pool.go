package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/wire"
)

// dispatch sends what can be sent and has workers started for the rest; the lock
// is held.
func (c *Client) dispatch() {
	if err := c.refusal(); err != nil {
		c.failWaiting(err, func(*call) bool { return true })
		return
	}
	rest := c.waiting[:0]
	for _, q := range c.waiting {
		if !q.left && !c.place(q) {
			rest = append(rest, q)
		}
	}
	clear(c.waiting[len(rest):])
	c.waiting = rest
	c.hurry()
}

// refusal is why nothing is asked at present; the lock is held.
func (c *Client) refusal() error {
	switch {
	case c.closed:
		return errClosed
	case c.releases > 0:
		return nvml.ErrPaused
	}
	return c.stuck
}

func (c *Client) failWaiting(err error, which func(*call) bool) {
	rest := c.waiting[:0]
	for _, q := range c.waiting {
		if which(q) {
			q.finish(wire.Answer{}, err)
		} else {
			rest = append(rest, q)
		}
	}
	clear(c.waiting[len(rest):])
	c.waiting = rest
}

// place sends a call or fails it, and says whether it did either; the lock is
// held.
func (c *Client) place(q *call) bool {
	if q.to != nil && !q.to.usable() {
		q.finish(wire.Answer{}, q.to.reason())
		return true
	}
	var g *gpu
	if q.GPU != "" {
		g = c.gpu(q.GPU)
		switch {
		case g.probe != nil:
			q.finish(wire.Answer{}, g.probe.err)
			return true
		case g.hold.err() != nil:
			q.finish(wire.Answer{}, g.hold.err())
			return true
		case g.call != nil:
			return false
		}
	}
	w := q.to
	if w == nil {
		w = c.idle
	}
	if w == nil {
		return false
	}
	if err := w.send(q.line); err != nil {
		c.end(w) // and its reaper will say how it ended
		if q.to == nil {
			return false
		}
	}
	within := c.o.Deadline
	if q.Ask == wire.AskOpen || g != nil && !g.awake {
		within = c.o.OpenDeadline
	}
	q.sent = time.Now()
	if w == c.idle {
		c.idle, c.progress = nil, q.sent
	}
	w.call = q
	if g != nil {
		g.call = q
	}
	q.timer = time.AfterFunc(within, func() { c.overdue(w, q) })
	return true
}

// hurry starts a worker for calls that wait: at once if none is at work, else
// after a while in which none got idle. The lock is held.
func (c *Client) hurry() {
	var first *call
	for _, q := range c.waiting {
		if q.to == nil && (q.GPU == "" || c.gpu(q.GPU).call == nil) {
			first = q
			break
		}
	}
	if first == nil || c.starting {
		return
	}
	if c.atWork() {
		since := first.queued
		if c.progress.After(since) {
			since = c.progress
		}
		if left := c.o.Patience - time.Since(since); left > 0 {
			if c.patience == nil {
				c.patience = time.AfterFunc(left, func() {
					c.mu.Lock()
					defer c.mu.Unlock()
					c.dispatch()
				})
			} else {
				c.patience.Reset(left)
			}
			return
		}
	}
	c.startForCalls()
}

// atWork says whether a worker for questions is expected to answer one.
func (c *Client) atWork() bool {
	for w := range c.workers {
		if !w.events && w.usable() && w.call != nil {
			return true
		}
	}
	return false
}

func (c *Client) startForCalls() {
	c.starting = true
	c.progress = time.Now()
	c.running.Go(func() {
		w, err := c.open(nil, false)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.starting = false
		if err != nil {
			c.failWaiting(err, func(q *call) bool { return q.to == nil })
		} else {
			c.rest(w)
		}
		c.dispatch()
	})
}

// rest makes a worker the idle one, or ends it if it is one too many; the lock
// is held.
func (c *Client) rest(w *worker) {
	switch {
	case !w.usable():
	case w.doomed || w.events || c.idle != nil:
		c.dismiss(w)
	default:
		c.idle = w
	}
}

// heed takes a line that a worker wrote as the answer to what it was asked; an
// error means that the worker is broken.
func (c *Client) heed(w *worker, line []byte) error {
	var a wire.Answer
	if err := json.Unmarshal(line, &a); err != nil {
		return fmt.Errorf("worker wrote what is no answer: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	q := w.call
	switch {
	case q == nil && w.ended:
		return nil
	case q == nil:
		return errors.New("worker answered without being asked")
	case a.Error == nil && !q.fits(&a):
		return fmt.Errorf("worker's answer does not fit the question for %s", q.Ask)
	}
	late := c.unstick(w)
	c.detach(w)
	if q.GPU != "" {
		g := c.gpu(q.GPU)
		if g.take(q, &a) {
			c.signal()
		}
		if g.bad && !slices.Contains(c.listed, q.GPU) {
			delete(c.gpus, q.GPU) // anybody may ask about anything
		}
	}
	renewed := a.Error != nil && a.Error.Kind == wire.KindRenewed && q.Ask != wire.AskOpen
	// One that was asked under an earlier loading tells nothing of this one: those
	// that were asked meanwhile know.
	if renewed && !late && !w.doomed {
		c.renew()
	}
	if renewed && !late && !q.retried && q.to == nil {
		q.retried = true
		c.waiting = append([]*call{q}, c.waiting...)
	} else {
		q.finish(a, a.Error.Err())
	}
	switch useless := a.Error != nil && (q.Ask == wire.AskOpen || a.Error.Useless()); {
	case useless, w.doomed:
		c.dismiss(w)
	case !late && q.to != nil: // its owner goes on
	default:
		c.rest(w)
	}
	c.dispatch()
	return nil
}

// renew ends the workers that began under a driver which is not there any more;
// the lock is held.
func (c *Client) renew() {
	c.log.Info("driver was taken away, or loaded anew; workers are replaced")
	for w := range c.workers {
		opened := w == c.idle || w.call != nil && w.call.Ask != wire.AskOpen
		if opened && !w.events {
			c.leave(w)
		}
	}
}

// detach takes a worker's call from it; the lock is held.
func (c *Client) detach(w *worker) *call {
	q := w.call
	if q == nil {
		return nil
	}
	w.call = nil
	q.timer.Stop()
	if g := c.gpus[q.GPU]; g != nil && g.call == q {
		g.call = nil
	}
	return q
}

// blame tells of a worker that went wrong, and holds back what it went wrong
// over; the lock is held.
func (c *Client) blame(w *worker, q *call, message string, cause error) {
	h, gpu := &c.hold, zap.Skip()
	if q != nil && q.GPU != "" {
		g := c.gpu(q.GPU)
		g.bad = true
		h, gpu = &g.hold, zap.String("gpu", q.GPU)
	}
	h.fail(cause)
	if more, ok := c.wrongs.take(); ok {
		c.log.Warn(message, zap.Int("pid", w.pid()), gpu, untold(more), zap.Error(cause))
	}
}
