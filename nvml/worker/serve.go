//go:build cgo

package worker

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/wire"
)

// Options say where the driver is found.
type Options struct {
	Version string // of the build, for the hello
	Library string // path or name of the NVML library
	Sysfs   string // where the kernel shows its devices, /sys
}

const (
	waiting = 1024                   // requests that may wait
	grace   = 100 * time.Millisecond // from the end of the input, for what was asked before
)

// Serve answers the requests of one conversation, one at a time and in order. It
// returns soon after the input has ended, also while a call is stuck in the
// driver: the caller must then end the process, which is all that frees it. NVML
// is not shut down, as that may get stuck too.
func Serve(in io.Reader, out io.Writer, o Options) error {
	s := &session{o: o, gpus: map[string]*gpu{}, indexed: map[int]string{}, out: bufio.NewWriter(out)}
	s.encoder = json.NewEncoder(s.out)
	s.encoder.SetEscapeHTML(false)
	if err := s.write(wire.Hello{Protocol: wire.Protocol, Version: o.Version}); err != nil {
		return err
	}
	requests := make(chan request, waiting)
	ended := make(chan error, 1)
	go func() { ended <- s.serve(requests) }()
	read := make(chan error, 1)
	go func() { read <- receive(in, requests) }()
	select {
	case err := <-ended:
		return err
	case err := <-read:
		if err != nil {
			return err
		}
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(grace):
		return nil
	}
}

// session is one conversation.
type session struct {
	o       Options
	out     *bufio.Writer
	encoder *json.Encoder

	asked   bool // to open
	refused error
	lib     *library // nil until it is open
	loading module   // that was there when the library was opened

	gpus    map[string]*gpu
	indexed map[int]string // addresses by index, where there is no sysfs
	watched watched
}

func (s *session) serve(requests <-chan request) error {
	for r := range requests {
		var a wire.Answer
		err := r.err
		switch {
		case err != nil:
		case r.Ask == wire.AskEvents && s.lib != nil:
			if err := s.stream(); err != nil {
				return err
			}
			// It is the input that ends a worker: one that ends by itself looks as if
			// it had died.
			for range requests {
			}
			return nil
		default:
			a, err = s.answer(r.Request)
		}
		if err != nil {
			a = wire.Answer{Error: answerOf(err)}
		}
		if err := s.write(a); err != nil {
			return err
		}
	}
	return nil
}

// write puts one value out at once.
func (s *session) write(v any) error {
	err := s.encoder.Encode(v)
	if err == nil {
		err = s.out.Flush()
	}
	if err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}

func (s *session) answer(r wire.Request) (a wire.Answer, err error) {
	if err := s.refuse(r); err != nil {
		return a, err
	}
	switch r.Ask {
	case wire.AskOpen:
		err = s.open()
	case wire.AskList:
		a.List, err = s.list()
	case wire.AskDescribe:
		a.GPU, err = s.describe(r.GPU)
	case wire.AskReadings:
		a.Readings, err = s.readings(r.GPU)
	case wire.AskHealth:
		a.Health, err = s.health(r.GPU)
	case wire.AskWatch:
		err = s.watch(r.GPU)
	case wire.AskEvents: // is many answers
	}
	return a, err
}

var (
	aboutNode = []wire.Ask{wire.AskOpen, wire.AskList, wire.AskEvents}
	aboutGPU  = []wire.Ask{wire.AskDescribe, wire.AskReadings, wire.AskHealth, wire.AskWatch}
)

// refuse says why a question cannot be asked, here or now.
func (s *session) refuse(r wire.Request) error {
	switch ofGPU := slices.Contains(aboutGPU, r.Ask); {
	case !ofGPU && !slices.Contains(aboutNode, r.Ask):
		return fmt.Errorf("ask: %q: expected one of %q", r.Ask, slices.Concat(aboutNode, aboutGPU))
	case r.Ask == wire.AskOpen:
	case s.refused != nil:
		return s.refused
	case s.lib == nil:
		return fmt.Errorf("ask: %q: expected open before it", r.Ask)
	case ofGPU && !addressForm.MatchString(r.GPU):
		return fmt.Errorf("gpu: %q: expected a PCI address such as 0000:3b:00.0", r.GPU)
	}
	return nil
}

// open loads the library, once: a second attempt could call what is not there.
func (s *session) open() error {
	if s.asked {
		if s.refused != nil {
			return s.refused
		}
		return errors.New("open: is open already")
	}
	s.asked = true
	s.loading = loading(s.o.Sysfs)
	s.lib, s.refused = openLibrary(s.o.Library, s.o.Sysfs)
	return s.refused
}

// stream tells events until the wait for them fails, which is told too, or
// nobody reads them.
func (s *session) stream() error {
	var lost error
	err := s.events(func(e *nvml.Event) error {
		lost = s.write(wire.Answer{Event: e})
		return lost
	})
	if lost != nil {
		return lost
	}
	return s.write(wire.Answer{Error: answerOf(err)})
}
