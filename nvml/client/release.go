package client

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/wire"
)

// Release ends every worker that answers and waits until those processes are
// gone, so that the driver can be unloaded or a GPU reset. Calls that come
// meanwhile fail with [nvml.ErrPaused], and event streams break with it; later
// ones start workers again. The error names the processes that still hold the
// driver, and the GPU that each is stuck over: those are not ended, as that could
// make things worse.
func (c *Client) Release(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.releases++
	defer func() { c.releases-- }()
	c.failWaiting(nvml.ErrPaused, func(*call) bool { return true })
	for w := range c.workers {
		c.leave(w)
	}
	for _, g := range c.gpus {
		g.awake = false
	}
	for c.holding() > 0 {
		moved := c.moved
		c.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
		}
		c.mu.Lock()
		if err := expired(ctx); err != nil && c.holding() > 0 {
			return fmt.Errorf("release the driver: %w: held by %s", err, c.holders())
		}
	}
	if len(c.workers) == 0 {
		return nil
	}
	cause := nvml.ErrStuck
	for _, g := range c.gpus {
		if g.probe != nil {
			cause = nvml.ErrTimeout
		}
	}
	return fmt.Errorf("release the driver: %w: held by %s", cause, c.holders())
}

// holders names the processes that are not gone, and what each is at; the lock is
// held.
func (c *Client) holders() string {
	var all []string
	for w := range c.workers {
		text := fmt.Sprintf("process %d", w.pid())
		switch {
		case w.listener != nil:
			text += " (events)"
		case w.call != nil:
			text += fmt.Sprintf(" (%s)", strings.TrimSpace(string(w.call.Ask)+" "+w.call.GPU))
		}
		all = append(all, text)
	}
	slices.Sort(all)
	if c.launching > 0 {
		all = append(all, "a process that is being started")
	}
	return strings.Join(all, ", ")
}

// holding counts the processes that are expected to end; the lock is held.
func (c *Client) holding() int {
	n := c.launching
	for w := range c.workers {
		if !w.stuck {
			n++
		}
	}
	return n
}

// Close ends every worker, kills those that are stuck or do not end, and
// returns after a second at most, whether or not they are gone. Every call fails
// from then on.
func (c *Client) Close() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	c.failWaiting(errClosed, func(*call) bool { return true })
	for w := range c.workers {
		if w.call != nil {
			w.call.finish(wire.Answer{}, errClosed)
		}
		if w.stuck {
			c.kill(w)
		}
		c.dismiss(w)
	}
	c.mu.Unlock()

	gone := make(chan struct{})
	go func() { // stays behind with what the kernel does not let go
		c.running.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return
	case <-time.After(grace * 3 / 4):
	}
	c.mu.Lock()
	for w := range c.workers {
		c.kill(w)
	}
	c.mu.Unlock()
	select {
	case <-gone:
		return
	case <-time.After(grace / 4):
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.workers {
		if err := abandon(w.pid()); err != nil {
			c.log.Warn("a worker keeps the pod", zap.Error(err))
		}
	}
}
