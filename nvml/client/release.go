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
// ones start workers again. The error names the GPUs whose stuck workers still
// hold the driver: those are not ended, as that could make things worse.
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
			return fmt.Errorf("release the driver: %w: %d workers have not ended", err, c.holding())
		}
	}
	if len(c.workers) == 0 {
		return nil
	}
	var who []string
	for pci, g := range c.gpus {
		if g.probe != nil {
			who = append(who, pci)
		}
	}
	slices.Sort(who)
	if len(who) == 0 {
		return fmt.Errorf("release the driver: %w: %d stuck workers still hold it", nvml.ErrStuck, len(c.workers))
	}
	return fmt.Errorf("release the driver: %w: held by calls about %s", nvml.ErrTimeout, strings.Join(who, ", "))
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
