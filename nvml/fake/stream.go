package fake

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gpuvet.dev/nvml"
)

// A stream is one listener to driver events. The driver's lock guards it.
type stream struct {
	queue  []nvml.Event
	broken error
	more   chan struct{} // has a token when there is something to take
}

const streamLength = 4096

func (d *Driver) open(ctx context.Context) (*stream, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.wait(ctx); err != nil {
		return nil, err
	}
	s := &stream{more: make(chan struct{}, 1)}
	d.streams[s] = struct{}{}
	return s, nil
}

func (d *Driver) close(s *stream) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.streams, s)
}

// tell tells an event of a GPU, since CUDA 13.4 in the structured form too.
func (d *Driver) tell(e nvml.Event) {
	d.report(Told{Event: e})
	d.emit(e)
	if d.tellsOperational() {
		d.emit(operational(e, d.stamp()))
	}
}

// emit gives an event to who listens.
func (d *Driver) emit(e nvml.Event) {
	for s := range d.streams {
		if len(s.queue) == streamLength {
			d.breakStream(s, errors.New("listener fell behind"))
			continue
		}
		s.queue = append(s.queue, e)
		s.wake()
	}
}

func (d *Driver) breakStream(s *stream, cause error) {
	s.broken = cause
	delete(d.streams, s)
	s.wake()
}

func (s *stream) wake() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// kernelLog is the fake kernel's ring of lines.
type kernelLog struct {
	lines []kernelLine
	next  uint64        // number of the next line
	more  chan struct{} // closed when it is printed
}

type kernelLine struct {
	time time.Time
	text string
}

const kernelLogLength = 1000

func newKernelLog() kernelLog { return kernelLog{more: make(chan struct{})} }

func (k *kernelLog) print(at time.Time, text string) {
	if len(k.lines) == kernelLogLength {
		k.lines = append(k.lines[:0:0], k.lines[1:]...)
	}
	k.lines = append(k.lines, kernelLine{at, text})
	k.next++
	close(k.more)
	k.more = make(chan struct{})
}

// from gives the lines from a number on, as far as they are kept.
func (k *kernelLog) from(number uint64) []kernelLine {
	oldest := k.next - uint64(len(k.lines))
	return append([]kernelLine(nil), k.lines[max(number, oldest)-oldest:]...)
}

// print puts a line into the kernel log.
func (d *Driver) print(text string) time.Time {
	at := d.stamp()
	d.kernel.print(at, text)
	return at
}

func (d *Driver) load() {
	d.loaded = true
	d.loads++
	d.print(fmt.Sprintf("NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  %s  Release Build  (fake)", d.info.Version))
	now := time.Now()
	for _, g := range d.gpus {
		g.reload(now)
	}
	d.reportAll(func(e nvml.Event) Told { return Told{Event: e, Bound: true} })
}

// reportAll reports something of each GPU that is there.
func (d *Driver) reportAll(told func(nvml.Event) Told) {
	for _, g := range d.gpus {
		if g.listed() {
			d.report(told(nvml.Event{PCI: g.PCI, UUID: g.UUID, Time: time.Now()}))
		}
	}
}

func (d *Driver) unload() {
	d.loaded = false
	for s := range d.streams {
		d.breakStream(s, fmt.Errorf("driver was unloaded: %w", nvml.ErrNoDriver))
	}
	d.hang.set(time.Time{}, false)
	for _, g := range d.gpus {
		g.hang.set(time.Time{}, false)
	}
	d.reportAll(func(e nvml.Event) Told { return Told{Event: e, Unbound: true} })
}
