package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/wire"
)

// Events implements [nvml.Driver]. When there is a GPU to be watched that is
// not, because it is new or has come back, a second worker takes over: it
// watches before the first one is ended. No event is lost by that, and one that
// happens meanwhile may be told twice. The stream breaks with [nvml.ErrTimeout]
// when its worker gives no sign of life; until that one comes back no other is
// started for events.
func (c *Client) Events(ctx context.Context, emit func(nvml.Event)) error {
	l := &listener{told: make(chan told), left: make(chan struct{})}
	defer close(l.left)
	err := c.events(ctx, l, emit)
	if ctx.Err() != nil {
		return nil
	}
	c.deafen(err)
	return fmt.Errorf("wait for events: %w", err)
}

// deafen tells once that no events are heard any more. That there is no driver
// says so too.
func (c *Client) deafen(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deaf || c.closed || errors.Is(cause, nvml.ErrNoDriver) {
		return
	}
	more, ok := c.breaks.take()
	if c.deaf = ok; ok {
		c.log.Warn("driver events are not heard", untold(more), zap.Error(cause))
	}
}

// hear takes down that a worker listens, and tells it if the contrary was told.
func (c *Client) hear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deaf {
		c.deaf = false
		c.log.Info("driver events are heard again")
	}
}

// listener is who takes the events of workers.
type listener struct {
	told chan told
	left chan struct{} // closed when nobody listens any more
}

type told struct {
	worker *worker
	answer wire.Answer
}

// stream is a worker that waits for events.
type stream struct {
	*worker
	load  string
	began time.Time       // before the first GPU was watched
	tried map[string]bool // each GPU that was to be watched, and whether it is
}

func (c *Client) events(ctx context.Context, l *listener, emit func(nvml.Event)) error {
	now, err := c.listen(ctx, l)
	if err != nil {
		return err
	}
	c.streams(1)
	defer c.streams(-1)

	var from *stream      // the worker before, which may still have something to tell
	var beats int         // heartbeats of it since
	var next chan outcome // of a move to another worker
	var tried time.Time   // when that began last
	var failed string     // why the last one failed; empty: it did not
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		if next != nil {
			c.quit((<-next).stream)
		}
		c.quit(from)
		c.quit(now)
	}()

	silence := time.NewTimer(c.o.Silence)
	defer silence.Stop()
	for {
		moved, behind, err := c.behind(now)
		if err != nil {
			return err
		}
		if behind && next == nil && from == nil && time.Since(tried) > longestHold {
			next, tried = make(chan outcome, 1), time.Now()
			go func() {
				s, err := c.listen(ctx, l)
				next <- outcome{s, err}
			}()
		}
		var fromLeft chan struct{}
		if from != nil {
			fromLeft = from.left
		}
		select {
		case <-ctx.Done():
			return nil
		case <-moved:
		case <-fromLeft:
			from = nil
		case <-now.left:
			return c.ending(now.worker)
		case <-silence.C:
			return c.hush(now)
		case o := <-next:
			next = nil
			if o.err != nil {
				if text := o.err.Error(); text != failed {
					failed = text
					c.log.Warn("some GPUs are not watched for events", zap.Error(o.err))
				}
				continue
			}
			from, now, beats, failed = now, o.stream, 0, ""
			silence.Reset(c.o.Silence)
		case t := <-l.told:
			if t.answer.Event != nil && ctx.Err() == nil {
				emit(*t.answer.Event)
			}
			switch err := t.answer.Error.Err(); {
			case t.worker != now.worker:
				if t.answer.Event != nil {
					continue
				}
				// The first may have been on its way before the other worker watched;
				// at the second, all that happened until then has been told.
				if beats++; beats == 2 || err != nil {
					c.quit(from)
					from = nil
				}
			case err != nil:
				return err
			default:
				c.hear()
				silence.Reset(c.o.Silence)
			}
		}
	}
}

type outcome struct {
	stream *stream
	err    error
}

// behind says whether there is a GPU to be watched that the stream does not,
// and gives what is closed when that may have changed. It fails when the stream
// is one of a driver that is not there any more.
func (c *Client) behind(s *stream) (moved <-chan struct{}, behind bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.load != s.load {
		return nil, false, wire.ErrRenewed
	}
	for _, pci := range c.listed {
		g := c.gpu(pci)
		watched, tried := s.tried[pci]
		if g.probe == nil && !watched && (!tried || g.well.After(s.began)) {
			behind = true
		}
	}
	return c.moved, behind, nil
}

// listen has a worker wait for the events of every GPU that can be reached. One
// that takes the worker with it is left out by the next.
func (c *Client) listen(ctx context.Context, l *listener) (*stream, error) {
	for {
		c.mu.Lock()
		silent := c.silent
		c.mu.Unlock()
		if silent != nil {
			return nil, silent.err
		}
		w, err := c.open(ctx.Done(), true)
		if err != nil {
			return nil, err
		}
		s := &stream{worker: w, began: time.Now(), tried: map[string]bool{}}
		err = c.watch(ctx, s)
		if err == nil {
			err = c.attend(s, l)
		}
		c.mu.Lock()
		usable := w.usable()
		if err != nil {
			c.leave(w)
		}
		c.mu.Unlock()
		if err == nil || usable || ctx.Err() != nil {
			return s, err
		}
	}
}

// watch has a worker watch every GPU. It fails where that concerns all of them.
func (c *Client) watch(ctx context.Context, s *stream) error {
	a, err := c.ask(ctx, wire.Request{Ask: wire.AskList}, s.worker)
	if err != nil {
		return err
	}
	c.mu.Lock()
	addresses := c.list(a.List)
	c.mu.Unlock()
	s.load = a.List.Load
	for _, pci := range addresses {
		_, err := c.ask(ctx, wire.Request{Ask: wire.AskWatch, GPU: pci}, s.worker)
		c.mu.Lock()
		usable, probed := s.usable(), c.gpu(pci).probe != nil
		c.mu.Unlock()
		switch {
		case err == nil:
			s.tried[pci] = true
		case !usable || ctx.Err() != nil || aboutAll(err):
			return err
		case probed: // it will be told when it comes back
		default:
			s.tried[pci] = false
			c.log.Debug("GPU is not watched for events", zap.String("gpu", pci), zap.Error(err))
		}
	}
	return nil
}

// attend has a worker tell the events to who listens.
func (c *Client) attend(s *stream, l *listener) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.usable() {
		return s.reason()
	}
	if err := s.send(lineOf(wire.Request{Ask: wire.AskEvents})); err != nil {
		c.end(s.worker)
		return err
	}
	s.listener = l
	return nil
}

// hand gives what a worker says to who listens to its events.
func (c *Client) hand(w *worker, l *listener, line []byte) error {
	var a wire.Answer
	if err := json.Unmarshal(line, &a); err != nil {
		return fmt.Errorf("worker wrote what is no answer: %w", err)
	}
	select {
	case l.told <- told{w, a}:
		return nil
	case <-w.left:
		return nil
	case <-l.left:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unstick(w)
	c.dismiss(w)
	return nil
}

// hush makes a worker stuck that has given no sign of life.
func (c *Client) hush(s *stream) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.usable() {
		return s.reason()
	}
	since := time.Now().Add(-c.o.Silence)
	c.silent = &probe{worker: s.worker, since: since}
	c.silent.err = fmt.Errorf("%w: no heartbeat of worker %d since %s", nvml.ErrTimeout, s.pid(), since.Format(time.RFC3339))
	err := c.silent.err
	c.keep(s.worker)
	return err
}

// quit ends the worker of a stream; nil: there is none.
func (c *Client) quit(s *stream) {
	if s == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave(s.worker)
}

func (c *Client) streams(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listening += n
}
