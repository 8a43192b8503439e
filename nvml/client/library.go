package client

import (
	"errors"
	"fmt"
	"time"

	"gpuvet.dev/nvml"
)

// search is one call of Options.Library.
type search struct {
	done chan struct{} // closed once these are set
	path string
	err  error
}

// library asks for the path of the library. The folders of a node may be on a
// server that does not answer: then the search goes on, and is not begun again.
func (c *Client) library() (string, error) {
	c.mu.Lock()
	s := c.search
	if s == nil {
		s = &search{done: make(chan struct{})}
		c.search = s
		c.running.Go(func() { c.find(s) })
	}
	c.mu.Unlock()
	select {
	case <-s.done:
		return s.path, s.err
	case <-time.After(c.o.StartDeadline):
		return "", fmt.Errorf("find the driver's library: no answer of the file system within %s", c.o.StartDeadline)
	}
}

func (c *Client) find(s *search) {
	defer close(s.done)
	s.path, s.err = c.o.Library()
	if s.err != nil && !errors.Is(s.err, nvml.ErrNoDriver) {
		s.err = fmt.Errorf("%w: %w", nvml.ErrNoDriver, s.err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.search = nil
}
