package detector

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gpuvet.dev/detector/kmsg"
	"gpuvet.dev/detector/xid"
	"gpuvet.dev/internal/faultpoint"
)

// KernelLog is the source that reads the kernel log. Only what the kernel
// itself wrote counts: a line of another facility that looks like ours was
// written by a process.
type KernelLog struct {
	// AcceptUser takes lines of any facility, for tests that write them.
	AcceptUser bool
	// Has, if set, says which GPUs the lines must be about: the machine has one
	// kernel log, and tests that play different GPUs share it. A line that names
	// none counts.
	Has func(pci string) bool
	// Behind, if set, gives the GPUs at or behind a PCI address, as
	// [PCITree.Behind] does. A PCIe error then finds the GPU that it is about, and
	// one that is about none is passed by. Without it an error has the address
	// that the kernel names, which may be a bridge's.
	Behind func(pci string) []string
	// Series is the part of the events' IDs that says whose numbers they have:
	// SourceKernelLog if empty. Records that come another way, as from the
	// journal, are numbered otherwise and need a series of their own.
	Series string
	// Loaded, if set, is called when the log tells that the driver was loaded.
	Loaded func()

	joiner  xid.Joiner
	records atomic.Uint64
	spoofed atomic.Uint64
	open    atomic.Bool
	caught  chan struct{}
	once    sync.Once // closes caught: a reader that was opened again catches up again
}

// NewKernelLog makes the source.
func NewKernelLog() *KernelLog { return &KernelLog{caught: make(chan struct{})} }

// CaughtUp is closed when everything that the log held at the start is folded.
func (k *KernelLog) CaughtUp() <-chan struct{} { return k.caught }

// Records counts the records read since the start.
func (k *KernelLog) Records() uint64 { return k.records.Load() }

// Spoofed counts the records that looked like the driver's and were not the
// kernel's.
func (k *KernelLog) Spoofed() uint64 { return k.spoofed.Load() }

// Reading reports whether the log is being read.
func (k *KernelLog) Reading() bool { return k.open.Load() }

// records is a kernel log that can be read: a [kmsg.Reader], or the journal's.
type records interface {
	Boot() string
	Run(ctx context.Context, h kmsg.Handler) error
}

// Run reads until ctx ends. moved is told of each record that was read and, if
// it was an event, folded.
func (k *KernelLog) Run(ctx context.Context, r records, emit func(Event), moved func(kmsg.Cursor)) error {
	k.open.Store(true)
	defer k.open.Store(false)
	boot := r.Boot()
	return r.Run(ctx, kmsg.Handler{
		Record: func(rec kmsg.Record) {
			k.record(boot, rec, emit)
			moved(kmsg.Cursor{Boot: boot, Seq: rec.Seq})
		},
		Gap: func(g kmsg.Gap) {
			k.joiner = xid.Joiner{}
			emit(Event{
				ID: fmt.Sprintf("%s/%s-gap/%d", boot, cmp.Or(k.Series, SourceKernelLog), g.Next), Boot: boot, Source: SourceLogGap, Kind: KindLogGap,
				Fields: map[string]string{"lost": strconv.FormatUint(g.Lost, 10)},
			})
		},
		CaughtUp: k.catchUp,
	})
}

func (k *KernelLog) catchUp() { k.once.Do(func() { close(k.caught) }) }

func (k *KernelLog) record(boot string, rec kmsg.Record, emit func(Event)) {
	k.records.Add(1)
	e, ok := k.read(rec)
	if !ok {
		return
	}
	faultpoint.Hit("kmsg-read")
	e.ID = fmt.Sprintf("%s/%s/%d", boot, cmp.Or(k.Series, SourceKernelLog), rec.Seq)
	e.Boot, e.Time, e.Mono = boot, rec.Time, rec.Mono
	emit(e)
}

// read gives the event that a record completes. What a process wrote never
// reaches the joiner: it could complete a line of the kernel's.
func (k *KernelLog) read(rec kmsg.Record) (Event, bool) {
	if rec.Facility == kmsg.Kern || k.AcceptUser {
		e, ok := k.event(rec.Text)
		return e, ok && k.concerns(&e)
	}
	if _, ours := xid.Parse(rec.Text); ours {
		k.spoofed.Add(1)
	}
	return Event{}, false
}

// event is the event that a text completes.
func (k *KernelLog) event(text []byte) (Event, bool) {
	if version, ok := xid.Loading(text); ok {
		return k.loading(version), true
	}
	line, _, ok := k.joiner.Next(text)
	if !ok {
		return Event{}, false
	}
	e := FromLine(line)
	return e, k.attribute(&e)
}

// loading tells that the driver is being loaded: those faults are over that a
// loading ends.
func (k *KernelLog) loading(version string) Event {
	if k.Loaded != nil {
		k.Loaded()
	}
	e := Event{Source: SourceKernelLog, Kind: KindLoading}
	if version != "" {
		e.Fields = map[string]string{"version": version}
	}
	return e
}

// attribute gives a PCIe error to the GPU that it is about, and reports whether
// there is one. The address that the kernel names is kept as "reporter", if it
// is another. An error of a bridge above several GPUs is about none of them
// alone: it has all of them in "gpus", with commas between.
func (k *KernelLog) attribute(e *Event) bool {
	if e.Kind != KindPCIe || k.Behind == nil {
		return true
	}
	gpus := k.Behind(e.GPU.PCI)
	if len(gpus) == 0 {
		return false
	}
	if len(gpus) == 1 && gpus[0] == e.GPU.PCI {
		return true
	}
	e.Fields["reporter"] = e.GPU.PCI
	e.GPU.PCI = ""
	if len(gpus) == 1 {
		e.GPU.PCI = gpus[0]
	} else {
		e.Fields["gpus"] = strings.Join(gpus, ",")
	}
	return true
}

// concerns reports whether an event is about one of the GPUs that the lines must
// be about, or names none.
func (k *KernelLog) concerns(e *Event) bool {
	switch {
	case k.Has == nil:
		return true
	case e.GPU.PCI != "":
		return k.Has(e.GPU.PCI)
	case e.Fields["gpus"] != "":
		return slices.ContainsFunc(strings.Split(e.Fields["gpus"], ","), k.Has)
	}
	return true
}

// Lines folds the kernel lines of a scripted driver: the fake's kernel log.
func (k *KernelLog) Lines(ctx context.Context, boot string, lines func(context.Context, func(time.Time, string)) error, emit func(Event)) error {
	k.open.Store(true)
	defer k.open.Store(false)
	k.catchUp()
	var last uint64
	return lines(ctx, func(at time.Time, text string) {
		k.records.Add(1)
		e, ok := k.event([]byte(text))
		if !ok {
			return
		}
		// A script has no sequence numbers, and must not use those of the real
		// log beside it.
		last = max(last+1, uint64(at.UnixNano()))
		e.ID = fmt.Sprintf("%s/%s/%d", boot, seriesScript, last)
		e.Boot, e.Time = boot, at
		emit(e)
	})
}

const seriesScript = "script"
