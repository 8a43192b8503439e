package kmsg

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// running is a Reader at work in a goroutine of its own.
type running struct {
	records  chan Record // Text is a copy
	gaps     chan Gap
	caughtUp chan struct{}
	stop     func() error
}

func run(t *testing.T, path string, after Cursor) *running {
	t.Helper()
	r, err := Open(path, after)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	run := &running{records: make(chan Record, 1<<12), gaps: make(chan Gap, 1<<12), caughtUp: make(chan struct{})}
	ended := make(chan error, 1)
	run.stop = func() error {
		cancel()
		select {
		case err := <-ended:
			ended <- err
			return err
		case <-time.After(10 * time.Second):
			return errors.New("Run did not end within 10 s of its context")
		}
	}
	t.Cleanup(func() {
		if err := run.stop(); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	go func() {
		ended <- r.Run(ctx, Handler{
			Record: func(rec Record) {
				rec.Text = []byte(string(rec.Text))
				select {
				case run.records <- rec:
				case <-ctx.Done():
				}
			},
			Gap: func(g Gap) {
				select {
				case run.gaps <- g:
				case <-ctx.Done():
				}
			},
			CaughtUp: func() { close(run.caughtUp) },
		})
	}()
	return run
}

// await gives the next value of a channel, or ends the test.
func await[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came for 20 s")
		panic("unreachable")
	}
}

func mkfifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kmsg")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFIFOIsReadLineByLine(t *testing.T) {
	path := mkfifo(t)
	run := run(t, path, Cursor{})
	await(t, run.caughtUp)
	for _, piece := range []string{
		"4,1,5,-;a\n SUBSYSTEM=pci\n4,2,5,-;b\n4,3,",
		"5,-;c\n\nno record\n4,4,5,-;",
		strings.Repeat("long ", bufferSize) + "\n4,5,5,-;",
		"d\n4,8,5,-;e\n",
	} {
		// A writer that goes away must not end the log.
		if err := os.WriteFile(path, []byte(piece), 0); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for range 5 {
		rec := await(t, run.records)
		got = append(got, string(rec.Text))
		if since := time.Since(rec.Time); since < 0 || since > 20*time.Second || rec.Backlog || rec.Mono != 5*time.Microsecond {
			t.Errorf("record %+v: arrived %v ago, want a live one that arrived just now", rec, since)
		}
	}
	if diff := cmp.Diff([]string{"a", "b", "c", "d", "e"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, want := range []Gap{{Lost: 1, Next: 5}, {Lost: 2, Next: 8}} {
		if got := await(t, run.gaps); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestRunEndsAtOnceWithItsContext(t *testing.T) {
	run := run(t, mkfifo(t), Cursor{})
	await(t, run.caughtUp) // it waits in poll now, or is about to
	start := time.Now()
	if err := run.stop(); err != nil {
		t.Fatal(err)
	}
	t.Logf("ended after %v", time.Since(start))
}

func TestRunWithAnEndedContextReadsNothingForever(t *testing.T) {
	r, err := Open(mkfifo(t), Cursor{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		if err := r.Run(ctx, Handler{Record: func(Record) {}}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenSaysWhyAPathIsNoKernelLog(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "dmesg.txt")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, c := range map[string]struct {
		is   error
		says string
	}{
		file:                       {ErrNotLog, "gpuvet replay or gpuvet parse"},
		dir:                        {ErrNotLog, "neither the kernel's log device nor a FIFO"},
		"/dev/null":                {ErrNotLog, "device 1:3"},
		filepath.Join(dir, "none"): {fs.ErrNotExist, "container"},
	} {
		_, err := Open(path, Cursor{})
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want %v that says %q", path, err, c.is, c.says)
		}
	}
	if err := openError("/dev/kmsg", unix.EPERM); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_SYSLOG") {
		t.Errorf("without the right: got %v, want it to name CAP_SYSLOG", err)
	}
}

func TestBootIDIsOfThisBoot(t *testing.T) {
	id, err := BootID()
	if err != nil {
		t.Fatal(err)
	}
	again, err := BootID()
	if err != nil || id != again || len(id) != len("01234567-89ab-cdef-0123-456789abcdef") {
		t.Errorf("got %q, then %q, %v; want one UUID", id, again, err)
	}
}
