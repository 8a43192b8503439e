package kmsg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// step is what one read(2) of the device gives.
type step struct {
	raw string
	err error
}

func raw(seq int) step {
	return step{raw: fmt.Sprintf("4,%d,%d,-;r%d\n", seq, 1000+seq, seq)}
}

// scripted gives a Reader whose device answers with the steps, and then ends
// the context: EAGAIN within the steps is followed by a wake-up.
func scripted(t *testing.T, after Cursor, steps ...step) (*Reader, context.Context) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := newReader("kmsg", "boot", after)
	ready, err := unix.Eventfd(1, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	r.fd = ready
	t.Cleanup(func() { cancel(); r.Close() })
	r.clock.measure = func() (time.Duration, error) { return 0, nil }
	r.rewind = func() error { return errors.New("unexpected rewind") }
	r.read = func(b []byte) (int, error) {
		if len(steps) == 0 {
			cancel()
			return 0, unix.EAGAIN
		}
		s := steps[0]
		steps = steps[1:]
		return copy(b, s.raw), s.err
	}
	return r, ctx
}

// diary writes down what a handler hears.
func diary(entries *[]string) Handler {
	return Handler{
		Record: func(r Record) {
			kind := "live"
			if r.Backlog {
				kind = "old"
			}
			*entries = append(*entries, fmt.Sprintf("%s %d %s", kind, r.Seq, r.Text))
		},
		Gap:      func(g Gap) { *entries = append(*entries, fmt.Sprintf("lost %d before %d", g.Lost, g.Next)) },
		CaughtUp: func() { *entries = append(*entries, "caught up") },
	}
}

func TestReaderDeliversInOrderAndTellsGaps(t *testing.T) {
	const empty, overwritten, oversized = unix.EAGAIN, unix.EPIPE, unix.EINVAL
	for name, c := range map[string]struct {
		after Cursor
		steps []step
		want  []string
	}{
		"fresh start in a ring that has wrapped is no gap": {
			steps: []step{raw(7), raw(8)},
			want:  []string{"old 7 r7", "old 8 r8", "caught up"},
		},
		"overwritten between open and first read is no gap": {
			steps: []step{{err: overwritten}, raw(9)},
			want:  []string{"old 9 r9", "caught up"},
		},
		"overwritten later": {
			steps: []step{raw(0), {err: overwritten}, raw(5), raw(6)},
			want:  []string{"old 0 r0", "lost 4 before 5", "old 5 r5", "old 6 r6", "caught up"},
		},
		"overwritten twice before the next record is one gap": {
			steps: []step{raw(0), {err: overwritten}, {err: overwritten}, raw(100)},
			want:  []string{"old 0 r0", "lost 99 before 100", "old 100 r100", "caught up"},
		},
		"overwritten while live": {
			steps: []step{raw(0), {err: empty}, raw(1), {err: overwritten}, raw(3)},
			want:  []string{"old 0 r0", "caught up", "live 1 r1", "lost 1 before 3", "live 3 r3"},
		},
		"larger than the buffer is a gap of one": {
			steps: []step{raw(0), {err: oversized}, raw(2)},
			want:  []string{"old 0 r0", "lost 1 before 2", "old 2 r2", "caught up"},
		},
		"signals are nothing": {
			steps: []step{raw(0), {err: unix.EINTR}, raw(1)},
			want:  []string{"old 0 r0", "old 1 r1", "caught up"},
		},
		"odd record with a number is accounted for": {
			steps: []step{raw(0), {raw: "4,1,x,-;odd\n"}, raw(2)},
			want:  []string{"old 0 r0", "old 2 r2", "caught up"},
		},
		"odd record without a number shows as a gap": {
			steps: []step{raw(0), {raw: "odd\n"}, raw(2)},
			want:  []string{"old 0 r0", "lost 1 before 2", "old 2 r2", "caught up"},
		},
		"cursor of this boot": {
			after: Cursor{Boot: "boot", Seq: 1},
			steps: []step{raw(0), raw(1), raw(2)},
			want:  []string{"old 2 r2", "caught up"},
		},
		"cursor at the newest record": {
			after: Cursor{Boot: "boot", Seq: 1},
			steps: []step{raw(0), raw(1), {err: empty}, raw(2)},
			want:  []string{"caught up", "live 2 r2"},
		},
		"gap on resume": {
			after: Cursor{Boot: "boot", Seq: 1},
			steps: []step{raw(5)},
			want:  []string{"lost 3 before 5", "old 5 r5", "caught up"},
		},
		"gap on resume, first read overwritten": {
			after: Cursor{Boot: "boot", Seq: 1},
			steps: []step{{err: overwritten}, raw(5)},
			want:  []string{"lost 3 before 5", "old 5 r5", "caught up"},
		},
		"cursor at record 0 is not the zero cursor": {
			after: Cursor{Boot: "boot", Seq: 0},
			steps: []step{raw(0), raw(1)},
			want:  []string{"old 1 r1", "caught up"},
		},
		"cursor of another boot": {
			after: Cursor{Boot: "before", Seq: 100},
			steps: []step{raw(3), raw(4)},
			want:  []string{"old 3 r3", "old 4 r4", "caught up"},
		},
		"nothing there": {
			want: []string{"caught up"},
		},
		"caught up once": {
			steps: []step{{err: empty}, raw(0), {err: empty}, raw(1)},
			want:  []string{"caught up", "live 0 r0", "live 1 r1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, ctx := scripted(t, c.after, c.steps...)
			var got []string
			if err := r.Run(ctx, diary(&got)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestCursorBeyondTheLogIsDropped(t *testing.T) {
	r, ctx := scripted(t, Cursor{Boot: "boot", Seq: 50}, raw(1), raw(2), step{err: unix.EAGAIN}, raw(1), raw(2), raw(3))
	rewound := 0
	r.rewind = func() error { rewound++; return nil }
	var got []string
	if err := r.Run(ctx, diary(&got)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"old 1 r1", "old 2 r2", "old 3 r3", "caught up"}, got); diff != "" || rewound != 1 {
		t.Errorf("rewound %d times, want 1; (-want +got)\n%s", rewound, diff)
	}
}

func TestReaderRunsAgainWhereItStopped(t *testing.T) {
	r, ctx := scripted(t, Cursor{}, raw(0), raw(1), raw(4))
	once, cancel := context.WithCancel(ctx)
	var got []string
	h := diary(&got)
	record := h.Record
	h.Record = func(rec Record) { record(rec); cancel() }
	for _, c := range []context.Context{once, ctx} {
		if err := r.Run(c, h); err != nil {
			t.Fatal(err)
		}
	}
	// The first Run may have read more than one record before it heard.
	if diff := cmp.Diff([]string{"old 0 r0", "old 1 r1", "lost 2 before 4", "old 4 r4", "caught up"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestReaderStopsAtErrorsItCannotSurvive(t *testing.T) {
	endless := make([]step, maxOversized+1)
	for i := range endless {
		endless[i].err = unix.EINVAL
	}
	for name, c := range map[string]struct {
		steps []step
		want  error
	}{
		"end of file":        {[]step{{}}, io.ErrUnexpectedEOF},
		"input/output error": {[]step{raw(0), {err: unix.EIO}}, unix.EIO},
		"reads refused":      {endless, unix.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			r, ctx := scripted(t, Cursor{}, c.steps...)
			if err := r.Run(ctx, Handler{Record: func(Record) {}}); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestBacklogEndsWithTheFirstRecordAfterTheStart(t *testing.T) {
	// Under a storm the log never runs empty, and the daemon must become ready
	// all the same.
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	start := time.Duration(now.Nano())
	at := func(seq int, mono time.Duration) step {
		return step{raw: fmt.Sprintf("4,%d,%d,-;x\n", seq, mono.Microseconds())}
	}
	r, ctx := scripted(t, Cursor{}, at(0, 0), at(1, start-time.Millisecond), at(2, start+time.Minute), at(3, start+time.Minute))
	var got []string
	if err := r.Run(ctx, diary(&got)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"old 0 x", "old 1 x", "caught up", "live 2 x", "live 3 x"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestRecordsAllocateNothing(t *testing.T) {
	r := newReader("kmsg", "boot", Cursor{})
	h := Handler{Record: func(Record) {}, Gap: func(Gap) {}, CaughtUp: func() {}}
	for name, record := range map[string]string{
		"plain":        "6,1,5140900,-;usb 1-1: new high-speed USB device\n SUBSYSTEM=usb\n",
		"with escapes": `6,1,5140900,-;usb\x091-1: new\x0ahigh-speed` + "\n",
	} {
		raw := []byte(record)
		if n := testing.AllocsPerRun(100, func() { r.counting = false; r.record(raw, &h) }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}
