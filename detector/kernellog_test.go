package detector

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"gpuvet.dev/detector/kmsg"
)

// wire is a kernel log that a test writes: raw records through a pipe.
type wire struct {
	*os.File
	log    *KernelLog
	events chan Event
	moved  chan kmsg.Cursor
}

func newWire(t *testing.T, log *KernelLog, after kmsg.Cursor) *wire {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kmsg")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := kmsg.Open(path, after)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{File: file, log: log, events: make(chan Event, 100), moved: make(chan kmsg.Cursor, 100)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- log.Run(ctx, r, func(e Event) { w.events <- e }, func(c kmsg.Cursor) { w.moved <- c })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.Close()
		file.Close()
	})
	return w
}

// record writes one record and waits until it was read.
func (w *wire) record(t *testing.T, facility int, seq int, text string) {
	t.Helper()
	if _, err := fmt.Fprintf(w, "%d,%d,%d,-;%s\n", facility<<3|4, seq, seq*1000, text); err != nil {
		t.Fatal(err)
	}
	select {
	case c := <-w.moved:
		if c.Seq != uint64(seq) {
			t.Fatalf("read record %d, wrote %d", c.Seq, seq)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("record was not read")
	}
}

func (w *wire) kinds() []string {
	var kinds []string
	for len(w.events) > 0 {
		e := <-w.events
		kinds = append(kinds, strings.TrimSpace(string(e.Kind)+" "+e.GPU.PCI))
	}
	return kinds
}

const (
	fallen = "NVRM: Xid (PCI:0000:18:00): 79, GPU has fallen off the bus."
	user   = 1
)

func TestOnlyWhatTheKernelWroteCounts(t *testing.T) {
	w := newWire(t, NewKernelLog(), kmsg.Cursor{})
	w.record(t, user, 1, fallen)
	w.record(t, user, 2, "someone's own business")
	w.record(t, kmsg.Kern, 3, "usb 1-1: new device")
	if got := w.kinds(); got != nil {
		t.Errorf("events: %v", got)
	}
	w.record(t, kmsg.Kern, 4, fallen)
	if diff := cmp.Diff([]string{"Xid " + gpuA}, w.kinds()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if w.log.Spoofed() != 1 || w.log.Records() != 4 {
		t.Errorf("spoofed %d of %d", w.log.Spoofed(), w.log.Records())
	}
}

func TestProcessCannotCompleteALineOfTheKernels(t *testing.T) {
	w := newWire(t, NewKernelLog(), kmsg.Cursor{})
	w.record(t, kmsg.Kern, 1, "NVRM: The NVIDIA GPU 0000:b3:00.0")
	w.record(t, kmsg.Kern, 2, "NVRM: (PCI ID: 10de:26b5) installed in this system has")
	w.record(t, user, 3, "NVRM: fallen off the bus and is not responding to commands.")
	if got := w.kinds(); got != nil {
		t.Errorf("events: %v", got)
	}
	w.record(t, kmsg.Kern, 4, "NVRM: fallen off the bus and is not responding to commands.")
	if diff := cmp.Diff([]string{"GPULost 0000:b3:00.0"}, w.kinds()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTestSwitchTakesLinesOfAnyFacility(t *testing.T) {
	log := NewKernelLog()
	log.AcceptUser = true
	w := newWire(t, log, kmsg.Cursor{})
	w.record(t, user, 1, fallen)
	if diff := cmp.Diff([]string{"Xid " + gpuA}, w.kinds()); diff != "" || log.Spoofed() != 0 {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLinesOfOtherGPUsBelongToOtherTests(t *testing.T) {
	log := NewKernelLog()
	log.AcceptUser, log.Has = true, func(pci string) bool { return pci == gpuA }
	w := newWire(t, log, kmsg.Cursor{})
	w.record(t, user, 1, strings.Replace(fallen, strings.TrimSuffix(gpuA, ".0"), strings.TrimSuffix(gpuB, ".0"), 1))
	w.record(t, user, 2, fallen)
	if diff := cmp.Diff([]string{"Xid " + gpuA}, w.kinds()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRecordsCarryTheirNumberAndGapsTheirSize(t *testing.T) {
	boot, err := kmsg.BootID()
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(t, NewKernelLog(), kmsg.Cursor{Boot: boot, Seq: 10})
	w.record(t, kmsg.Kern, 11, fallen)
	w.record(t, kmsg.Kern, 20, fallen)
	var got []string
	for len(w.events) > 0 {
		e := <-w.events
		got = append(got, fmt.Sprint(strings.TrimPrefix(e.ID, boot), " ", e.Fields["lost"]))
	}
	if diff := cmp.Diff([]string{"/kmsg/11 ", "/kmsg-gap/20 8", "/kmsg/20 "}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLogOpenedAgainCatchesUpAgain(t *testing.T) {
	log := NewKernelLog()
	log.catchUp()
	log.catchUp()
	select {
	case <-log.CaughtUp():
	default:
		t.Error("not caught up")
	}
}

func TestScriptedLogDoesNotHideTheRealOneBesideIt(t *testing.T) {
	d := New(Config{Policy: DefaultPolicy(), Boot: "boot-1"})
	script := func(_ context.Context, emit func(time.Time, string)) error {
		emit(time.Now(), fallen)
		return nil
	}
	if err := NewKernelLog().Lines(t.Context(), "boot-1", script, d.Emit); err != nil {
		t.Fatal(err)
	}
	d.Emit(lost(gpuB, 7))
	if got := len(d.Snapshot().GPUs); got != 2 {
		t.Errorf("%d GPUs have a fault, want 2", got)
	}
}

// What a record that is not ours costs behind the reader: facility, rejection
// and the place in the log.
func BenchmarkRecordOfOthers(b *testing.B) {
	d := New(Config{Policy: DefaultPolicy(), Boot: "boot-1"})
	log := NewKernelLog()
	rec := kmsg.Record{Text: []byte("usb 1-1: New USB device found, idVendor=1d6b, idProduct=0002, bcdDevice= 6.18")}
	b.ReportAllocs()
	for b.Loop() {
		rec.Seq++
		log.record("boot-1", rec, d.Emit)
		d.SetCursor("kmsg", Cursor{Boot: "boot-1", Seq: rec.Seq})
	}
}

func TestRecordsOfAnotherLogHaveASeriesOfTheirOwn(t *testing.T) {
	log := NewKernelLog()
	log.Series = "journal"
	w := newWire(t, log, kmsg.Cursor{})
	w.record(t, kmsg.Kern, 7, fallen)
	if e := <-w.events; !strings.HasSuffix(e.ID, "/journal/7") || e.Source != SourceKernelLog {
		t.Errorf("event %s of %s", e.ID, e.Source)
	}
}
