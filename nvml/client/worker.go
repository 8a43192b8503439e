package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/wire"
)

// worker is a process with what is known of it.
type worker struct {
	*process
	events bool // it is for an event stream

	greeted chan struct{} // closed once it has said hello
	left    chan struct{} // closed when nothing is expected from it any more
	drained chan struct{} // closed when its output has ended
	gone    chan struct{} // closed when its process is gone

	// Guarded by the lock of the client:

	call      *call
	listener  *listener   // of its events; nil: it is asked one question at a time
	stuck     bool        // its call is overdue, or its stream silent
	doomed    bool        // it is ended once it has answered
	ended     bool        // its input is closed
	dismissed bool        // and that was wanted
	killed    bool        // a signal was sent
	broken    error       // what it did wrong
	how       error       // it ended, once it is gone
	timer     *time.Timer // kills it
}

// usable says whether it can be asked; the lock is held.
func (w *worker) usable() bool { return !w.ended && !w.stuck }

// reason is why it cannot be asked any more; the lock is held.
func (w *worker) reason() error {
	switch {
	case w.broken != nil:
		return w.broken
	case w.stuck:
		return errors.New("worker is stuck")
	case w.how != nil:
		return w.how
	}
	return errors.New("worker was ended")
}

func (w *worker) pid() int { return w.cmd.Process.Pid }

// open starts a worker and has it open the driver. It fails when quit is closed.
func (c *Client) open(quit <-chan struct{}, events bool) (*worker, error) {
	w, err := c.start(events)
	if err != nil {
		return nil, err
	}
	late := time.NewTimer(c.o.StartDeadline)
	defer late.Stop()
	select {
	case <-w.greeted:
		q := c.put(wire.Request{Ask: wire.AskOpen}, w)
		select {
		case <-q.done:
			err = q.err
		case <-quit:
			err = errQuit
		}
	case <-w.left:
		err = c.ending(w)
	case <-quit:
		err = errQuit
	case <-late.C:
		err = fmt.Errorf("worker has not greeted within %s", c.o.StartDeadline)
		c.breakUp(w, err)
		c.mu.Lock()
		c.kill(w)
		c.mu.Unlock()
	}
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if events || !w.stuck { // one that comes back can be asked
			c.leave(w)
		}
		return nil, err
	}
	return w, nil
}

var errQuit = errors.New("worker is not needed any more")

// ending is why a worker ends that was still needed.
func (c *Client) ending(w *worker) error {
	c.mu.Lock()
	err := w.broken
	if err == nil && w.dismissed {
		err = c.refusal()
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-w.gone:
	case <-time.After(2 * grace): // it was killed meanwhile
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return w.reason()
}

// start starts the process of a worker, unless starts are held back.
func (c *Client) start(events bool) (*worker, error) {
	c.mu.Lock()
	err := c.refusal()
	if err == nil {
		err = c.hold.err()
	}
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	c.launching++
	c.running.Add(1)
	c.mu.Unlock()
	defer c.running.Done()

	p, err := c.launch()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.launching--
	c.signal()
	if err != nil {
		if _, ours := errors.AsType[*missingError](err); ours || !errors.Is(err, nvml.ErrNoDriver) {
			c.failStart(err)
		}
		return nil, err
	}
	c.unstarted = ""
	w := &worker{
		process: p, events: events,
		greeted: make(chan struct{}), left: make(chan struct{}), drained: make(chan struct{}), gone: make(chan struct{}),
	}
	c.workers[w] = struct{}{}
	c.counts.Started++
	c.log.Debug("worker started", zap.Int("pid", w.pid()), zap.Bool("events", events))
	c.running.Go(func() { c.read(w) })
	c.running.Go(func() { c.reap(w) })
	if err := c.refusal(); err != nil {
		c.dismiss(w)
		return nil, err
	}
	return w, nil
}

// failStart holds back further starts, and tells the cause where it is another
// one than the last time; the lock is held.
func (c *Client) failStart(cause error) {
	c.hold.fail(cause)
	if text := cause.Error(); text != c.unstarted {
		c.unstarted = text
		c.log.Warn("worker is not started", zap.Error(cause))
	}
}

func (c *Client) launch() (*process, error) {
	var args []string
	if c.o.Library != nil {
		library, err := c.library()
		if err != nil {
			return nil, err
		}
		if library != "" {
			args = append(args, "--library", library)
		}
	}
	if c.o.Sysfs != "" {
		args = append(args, "--sysfs", c.o.Sysfs)
	}
	return launch(c.o.Worker, args, c.o.Env)
}

// read takes what a worker says until its output ends.
func (c *Client) read(w *worker) {
	defer close(w.drained)
	hello := true
	err := w.lines(func(line []byte, more bool) error {
		c.mu.Lock()
		listener := w.listener
		c.mu.Unlock()
		switch {
		case listener != nil:
			return c.hand(w, listener, line)
		case more:
			return errors.New("worker wrote more than it was asked")
		case hello:
			hello = false
			return c.greet(w, line)
		}
		return c.heed(w, line)
	})
	if err != nil {
		c.breakUp(w, err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(w)
}

func (c *Client) greet(w *worker, line []byte) error {
	var hello wire.Hello
	if err := json.Unmarshal(line, &hello); err != nil {
		return fmt.Errorf("worker wrote what is no greeting: %w", err)
	}
	if hello.Protocol != wire.Protocol {
		return fmt.Errorf("worker %s (version %s) speaks protocol %d, and this is protocol %d: gpuvet and gpuvet-nvml must be of one release",
			c.o.Worker, hello.Version, hello.Protocol, wire.Protocol)
	}
	close(w.greeted)
	return nil
}

// breakUp ends a worker that cannot be understood.
func (c *Client) breakUp(w *worker, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.dismissed || w.broken != nil {
		return
	}
	w.broken = cause
	c.counts.Refused++
	c.unstick(w)
	q := c.detach(w)
	c.blame(w, q, "worker given up", cause)
	if q != nil {
		q.finish(wire.Answer{}, cause)
	}
	c.end(w)
	_ = w.out.Close()
	c.dispatch()
}

// leave ends a worker that is not needed any more: at once, or when it has
// answered what it was asked. The lock is held.
func (c *Client) leave(w *worker) {
	w.doomed = true
	if w.call == nil && w.usable() {
		c.dismiss(w)
	}
}

// dismiss ends a worker because that is wanted; the lock is held.
func (c *Client) dismiss(w *worker) {
	if !w.ended {
		w.dismissed = true
	}
	c.end(w)
}

// end closes a worker's input and gives it a while to end; the lock is held.
func (c *Client) end(w *worker) {
	if w.ended {
		return
	}
	w.ended = true
	if c.idle == w {
		c.idle = nil
	}
	close(w.left)
	_ = w.in.Close()
	c.killAfter(w, grace)
}

func (c *Client) killAfter(w *worker, d time.Duration) {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.timer = time.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if w.stuck || w.ended {
			c.kill(w)
		}
	})
}

// kill sends a worker the signal that it cannot ignore, once. That a stuck one
// ends of it is wanted. The lock is held.
func (c *Client) kill(w *worker) {
	if w.killed {
		return
	}
	w.killed = true
	w.dismissed = w.dismissed || w.stuck
	if w.cmd.Process.Kill() != nil {
		return
	}
	c.counts.Killed++
	if w.broken == nil { // or it was told already
		c.log.Warn("worker killed", zap.Int("pid", w.pid()), zap.Bool("stuck", w.stuck))
	}
}

// reap waits until the process of a worker is gone.
func (c *Client) reap(w *worker) {
	how := w.wait()
	// What it wrote before it ended counts; what others write does not.
	_ = w.out.SetReadDeadline(time.Now().Add(grace))
	<-w.drained
	_ = w.out.Close()

	c.mu.Lock()
	defer c.mu.Unlock()
	w.how = how
	delete(c.workers, w)
	c.end(w)
	w.timer.Stop()
	c.unstick(w)
	q := c.detach(w)
	if !w.dismissed {
		c.counts.Died++
		if w.broken == nil {
			c.blame(w, q, "worker died", how)
		}
	}
	if q != nil {
		q.finish(wire.Answer{}, how)
	}
	c.log.Debug("worker is gone", zap.Int("pid", w.pid()), zap.Error(how))
	close(w.gone)
	c.signal()
	c.dispatch()
}
