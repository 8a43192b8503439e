package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/wire"
)

// call is one question on its way to a worker and back.
type call struct {
	wire.Request
	line []byte
	to   *worker // who is to be asked; nil: whoever is idle

	queued  time.Time
	sent    time.Time
	timer   *time.Timer // of the deadline
	retried bool
	left    bool // nobody waits for it

	done   chan struct{} // closed once one of these is set
	answer wire.Answer
	err    error
}

// ask puts a question to a worker, or to whichever is idle, and waits for its
// outcome or for ctx to end. A question that was sent goes on without ctx.
func (c *Client) ask(ctx context.Context, r wire.Request, to *worker) (wire.Answer, error) {
	if err := expired(ctx); err != nil {
		return wire.Answer{}, err
	}
	q := c.put(r, to)
	select {
	case <-q.done:
		return q.answer, q.err
	case <-ctx.Done():
		c.mu.Lock()
		q.left = true
		c.mu.Unlock()
		return wire.Answer{}, expired(ctx)
	}
}

// put puts a question without waiting for its outcome.
func (c *Client) put(r wire.Request, to *worker) *call {
	q := &call{Request: r, line: lineOf(r), to: to, queued: time.Now(), done: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, q)
	c.dispatch()
	return q
}

func lineOf(r wire.Request) []byte {
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // two strings
	}
	return append(line, '\n')
}

// expired is why ctx has ended, in the terms of package nvml.
func expired(ctx context.Context) error {
	err := ctx.Err()
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", nvml.ErrTimeout, err)
	}
	return err
}

// finish gives a call its outcome, if it has none yet; the lock of the client is
// held.
func (q *call) finish(a wire.Answer, err error) {
	select {
	case <-q.done:
	default:
		q.answer, q.err = a, err
		close(q.done)
	}
}

// fits says whether an answer is one to this question.
func (q *call) fits(a *wire.Answer) bool {
	switch q.Ask {
	case wire.AskOpen, wire.AskWatch:
		return true
	case wire.AskList:
		return a.List != nil
	case wire.AskDescribe:
		return a.GPU != nil && a.GPU.PCI == q.GPU
	case wire.AskReadings:
		return a.Readings != nil
	case wire.AskHealth:
		return a.Health != nil
	case wire.AskEvents: // has many answers; see stream
	}
	return false
}

// gpu is what calls know of one GPU.
type gpu struct {
	call  *call  // about it, sent and not answered
	probe *probe // not nil: it is not asked
	hold  hold
	awake bool      // something about it was answered while workers held the driver
	bad   bool      // the last answer about it was an error
	well  time.Time // since when it has answered well
	known *nvml.GPU // under this loading of the driver; nil: nothing
}

// gpu is the one at an address; the lock is held.
func (c *Client) gpu(pci string) *gpu {
	g := c.gpus[pci]
	if g == nil {
		g = &gpu{}
		c.gpus[pci] = g
	}
	return g
}

// take keeps what an answer tells of a GPU, and says whether it is well again;
// the lock of the client is held.
func (g *gpu) take(q *call, a *wire.Answer) (recovered bool) {
	g.hold, g.awake = hold{}, true
	was := g.bad
	if g.bad = a.Error != nil; g.bad {
		return false
	}
	if was {
		g.well = time.Now()
	}
	if q.Ask == wire.AskDescribe {
		g.known = a.GPU
	}
	return was
}
