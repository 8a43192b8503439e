package client

import (
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/wire"
)

// probe is a worker that is stuck over something, from which it tells by its
// return whether that is well again.
type probe struct {
	worker *worker
	since  time.Time // of the question
	err    error     // what others fail with meanwhile; it says nothing that passes
}

// overdue makes a worker stuck whose call has not come back by its deadline.
func (c *Client) overdue(w *worker, q *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.call != q {
		return
	}
	p := &probe{worker: w, since: q.sent}
	p.err = fmt.Errorf("%w: asked for %s at %s", nvml.ErrTimeout, q.Ask, q.sent.Format(time.RFC3339))
	if q.GPU != "" {
		c.gpu(q.GPU).probe = p
		c.log.Warn("call about a GPU does not return; other workers ask about the others", zap.String("gpu", q.GPU), zap.String("ask", string(q.Ask)), zap.Int("pid", w.pid()))
	}
	c.keep(w)
	if q.GPU == "" && c.stuck != nil {
		p.err = c.stuck
	}
	q.finish(wire.Answer{}, p.err)
	c.dispatch()
}

// keep makes a worker stuck: to be kept for a while, or killed if there are too
// many. The lock is held.
func (c *Client) keep(w *worker) {
	w.stuck = true
	if len(c.kept) < c.o.MaxStuck {
		c.kept = append(c.kept, w)
		c.killAfter(w, c.o.Probation)
	} else {
		c.excess = true
		c.kill(w)
	}
	c.judge()
	c.signal()
}

// unstick says whether a worker was stuck; it is not any more. The lock is held.
func (c *Client) unstick(w *worker) bool {
	if !w.stuck {
		return false
	}
	w.stuck = false
	if !w.ended {
		w.timer.Stop()
	}
	if i := slices.Index(c.kept, w); i >= 0 {
		c.kept = slices.Delete(c.kept, i, i+1)
		c.excess = false
	}
	if c.silent != nil && c.silent.worker == w {
		c.silent = nil
	}
	for pci, g := range c.gpus {
		if g.probe != nil && g.probe.worker == w {
			c.tellReturn(w, pci, g.probe.since)
			g.probe, g.well = nil, time.Now()
		}
	}
	c.judge()
	c.signal()
	return true
}

// tellReturn tells that a GPU may be asked again, and why: that a stuck worker is
// gone says nothing of how the GPU is. The lock is held.
func (c *Client) tellReturn(w *worker, pci string, since time.Time) {
	gpu, after := zap.String("gpu", pci), zap.Duration("after", about(time.Since(since)))
	switch {
	case c.closed:
	case w.how != nil:
		c.log.Info("stuck worker is gone; GPU is asked again", gpu, after)
	default:
		c.log.Info("stuck worker has come back; GPU is asked again", gpu, after)
	}
}

// about rounds a time for people.
func about(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(time.Second)
}

// judge decides whether the driver as a whole is stuck; the lock is held.
func (c *Client) judge() {
	const stamp = time.RFC3339
	var err error
	whole := slices.IndexFunc(c.kept, func(w *worker) bool { return w.call != nil && w.call.GPU == "" })
	switch {
	case whole >= 0:
		q := c.kept[whole].call
		err = fmt.Errorf("%w: worker %d was asked to %s at %s", nvml.ErrStuck, c.kept[whole].pid(), q.Ask, q.sent.Format(stamp))
	case c.excess:
		err = fmt.Errorf("%w: %d calls have not come back, and one more was given up at %s", nvml.ErrStuck, len(c.kept), time.Now().Format(stamp))
	}
	switch {
	case err != nil && c.stuck == nil:
		c.stuck, c.since = err, time.Now()
		c.log.Warn("nothing is asked at present", zap.Error(err))
	case err == nil && c.stuck != nil:
		if !c.closed {
			c.log.Info("driver is asked again", zap.Duration("after", about(time.Since(c.since))))
		}
		c.stuck, c.since = nil, time.Time{}
	}
}
