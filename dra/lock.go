package dra

import (
	"context"
	"sync"
)

// locks are one lock for each claim that somebody works on.
type locks struct {
	mu   sync.Mutex // guards what follows
	held map[string]*lock
}

type lock struct {
	taken chan struct{} // holds one token while somebody has the lock
	users int           // who have it or wait for it
}

// lock waits until nobody else works on a claim, or ctx ends.
func (l *locks) lock(ctx context.Context, claim string) (unlock func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*lock{}
	}
	one, known := l.held[claim]
	if !known {
		one = &lock{taken: make(chan struct{}, 1)}
		l.held[claim] = one
	}
	one.users++
	l.mu.Unlock()

	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(l.held, claim)
		}
	}
	select {
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	case one.taken <- struct{}{}:
	}
	return func() {
		<-one.taken
		leave()
	}, nil
}

// calls are those under way. Once they are closed, no other begins.
type calls struct {
	mu     sync.Mutex // guards closed, and orders Add before Wait
	closed bool
	wg     sync.WaitGroup
}

// begin reports whether a call may begin; it then ends with end.
func (c *calls) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Add(1)
	return true
}

func (c *calls) end() { c.wg.Done() }

// close waits for the calls under way.
func (c *calls) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wg.Wait()
}
