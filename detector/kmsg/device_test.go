package kmsg

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deviceWriter writes to the kernel's own log. Whatever else runs here writes
// to it too: every text begins with a marker of its own.
type deviceWriter struct {
	device *os.File
	marker string
}

// lacking skips a test, or fails it where everything is required.
func lacking(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("GPUVET_REQUIRE") == "all" {
		t.Fatalf("needs root's rights to the kernel: %v", err)
	}
	t.Skipf("needs root's rights to the kernel: %v", err)
}

const printkLimit = "/proc/sys/kernel/printk_devkmsg"

func openDevice(t testing.TB) *deviceWriter {
	t.Helper()
	device, err := os.OpenFile(DefaultPath, os.O_RDWR, 0)
	if err != nil {
		lacking(t, err)
	}
	t.Cleanup(func() { device.Close() })
	// Other tests change the limit and put it back as well: one at a time.
	if err := unix.Flock(int(device.Fd()), unix.LOCK_EX); err != nil {
		lacking(t, err)
	}
	limit, err := os.ReadFile(printkLimit)
	if err != nil {
		lacking(t, err)
	}
	if err := os.WriteFile(printkLimit, []byte("on\n"), 0); err != nil {
		lacking(t, err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(printkLimit, limit, 0); err != nil {
			t.Error(err)
		}
	})
	return &deviceWriter{device, "gpuvet-test-" + rand.Text()}
}

// write ends the text with a newline: without, the kernel keeps the record open
// for a continuation, and shows it only when the next one comes.
func (w *deviceWriter) write(t testing.TB, text string) {
	t.Helper()
	if _, err := fmt.Fprintf(w.device, "<4>%s %s\n", w.marker, text); err != nil {
		t.Fatal(err)
	}
}

// ours gives the text behind the marker.
func (w *deviceWriter) ours(rec Record) (text string, ok bool) {
	return strings.CutPrefix(string(rec.Text), w.marker+" ")
}

// next waits for the next record of ours.
func (w *deviceWriter) next(t *testing.T, run *running) (Record, string) {
	t.Helper()
	for {
		rec := await(t, run.records)
		if text, ok := w.ours(rec); ok {
			return rec, text
		}
	}
}

func TestLiveRecordArrivesWhole(t *testing.T) {
	w := openDevice(t)
	run := run(t, DefaultPath, Cursor{})
	await(t, run.caughtUp)
	for _, text := range []string{
		"plain",
		"tab\tnewline\nbackslash \\ \\x41 utf-8 é bytes \x01\x7f\xff",
	} {
		before := time.Now()
		w.write(t, text)
		after := time.Now()
		rec, got := w.next(t, run)
		if got != text {
			t.Errorf("got %q, want %q", got, text)
		}
		// The kernel makes 1 of the facility 0 that we asked for.
		if rec.Facility != 1 || rec.Level != 4 || rec.Backlog {
			t.Errorf("got %+v, want facility 1, level 4, live", rec)
		}
		if early, late := before.Sub(rec.Time), rec.Time.Sub(after); max(early, late) > 10*time.Millisecond {
			t.Errorf("got time %v, want within 10 ms of %v to %v", rec.Time, before, after)
		}
	}
}

func TestBacklogHasItsTime(t *testing.T) {
	w := openDevice(t)
	before := time.Now()
	w.write(t, "old")
	after := time.Now()
	run := run(t, DefaultPath, Cursor{})
	rec, _ := w.next(t, run)
	if !rec.Backlog {
		t.Errorf("got %+v, want a record of the backlog", rec)
	}
	if early, late := before.Sub(rec.Time), rec.Time.Sub(after); max(early, late) > 100*time.Millisecond {
		t.Errorf("got time %v, want within 100 ms of %v to %v", rec.Time, before, after)
	}
	await(t, run.caughtUp)
	w.write(t, "new")
	if rec, _ := w.next(t, run); rec.Backlog {
		t.Errorf("got %+v, want a live record", rec)
	}
}

func TestMeasuredLagIsThatOfLiveRecords(t *testing.T) {
	w := openDevice(t)
	lag, err := measureLag()
	if err != nil {
		lacking(t, err)
	}
	run := run(t, DefaultPath, Cursor{})
	await(t, run.caughtUp)
	var before, after unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
	w.write(t, "x")
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &after)
	rec, _ := w.next(t, run)
	// Records are stamped in µs, and told with the lag taken out.
	at := rec.Mono
	if at < time.Duration(before.Nano())-50*time.Microsecond || at > time.Duration(after.Nano())+50*time.Microsecond {
		t.Errorf("record at %v with lag %v, written between %v and %v",
			rec.Mono, lag, time.Duration(before.Nano()), time.Duration(after.Nano()))
	}
}

func TestRestartAtACursorLosesAndRepeatsNothing(t *testing.T) {
	w := openDevice(t)
	boot, err := BootID()
	if err != nil {
		t.Fatal(err)
	}
	const perRun, runs = 40, 5
	cursor := Cursor{}
	written, want := 0, 0
	for range runs {
		for ; written < want+2*perRun; written++ {
			w.write(t, fmt.Sprint(written))
		}
		func() {
			run := run(t, DefaultPath, cursor)
			defer run.stop()
			for range perRun {
				rec, text := w.next(t, run)
				if text != fmt.Sprint(want) {
					t.Fatalf("got record %s, want %d", text, want)
				}
				want++
				cursor = Cursor{Boot: boot, Seq: rec.Seq}
			}
			select {
			case g := <-run.gaps:
				t.Fatalf("got gap %+v, want none", g)
			default:
			}
		}()
	}
}

// burst writes n records as fast as it can while a Reader reads, and gives
// what the Reader made of them.
type burst struct {
	span      uint64 // records between the marks before and after, by sequence number
	delivered uint64 // of them
	ours      uint64 // of the delivered
	lost      uint64 // as told by gaps
	gaps      int
	disorder  bool
}

func runBurst(t testing.TB, w *deviceWriter, n int) burst {
	t.Helper()
	r, err := Open(DefaultPath, Cursor{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	var b burst
	var first, next uint64
	begin, end := []byte(w.marker+" begin"), []byte(w.marker+" end")
	begun, ended := make(chan struct{}), make(chan error, 1)
	marker := []byte(w.marker)
	go func() {
		ended <- r.Run(ctx, Handler{
			Record: func(rec Record) {
				switch {
				case first == 0 && bytes.Equal(rec.Text, begin):
					first, next = rec.Seq, rec.Seq+1
					close(begun)
				case first == 0:
				case bytes.Equal(rec.Text, end):
					b.span = rec.Seq - first - 1
					b.disorder = b.disorder || rec.Seq != next
					cancel()
				default:
					b.disorder = b.disorder || rec.Seq != next
					next = rec.Seq + 1
					b.delivered++
					if bytes.HasPrefix(rec.Text, marker) {
						b.ours++
					}
				}
			},
			Gap: func(g Gap) {
				if first != 0 {
					b.disorder = b.disorder || g.Next != next+g.Lost
					next = g.Next
					b.lost += g.Lost
					b.gaps++
				}
			},
		})
	}()
	w.write(t, "begin")
	<-begun
	line := []byte("<4>" + w.marker + " usb 1-1: new high-speed USB device number 7 using xhci_hcd, or so\n")
	for range n {
		if _, err := w.device.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	w.write(t, "end")
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if b.span == 0 {
		t.Fatal("the end of the burst never came")
	}
	return b
}

func TestBurstIsReadOrCountedAsLost(t *testing.T) {
	w := openDevice(t)
	const written = 100_000
	b := runBurst(t, w, written)
	if b.delivered+b.lost != b.span || b.disorder {
		t.Errorf("delivered %d and lost %d of %d records (disorder: %v)", b.delivered, b.lost, b.span, b.disorder)
	}
	// Others write to this log too, so the burst may be a part of the span.
	if others := b.delivered - b.ours; b.span < written+others || b.ours+b.lost < written {
		t.Errorf("got %d of ours, %d of others and %d lost in a span of %d, want %d of ours", b.ours, others, b.lost, b.span, written)
	}
	t.Logf("span %d, delivered %d, lost %d in %d gaps", b.span, b.delivered, b.lost, b.gaps)
}
