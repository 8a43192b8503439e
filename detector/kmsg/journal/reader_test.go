//go:build journal && cgo

package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/detector/kmsg"
)

const (
	boot  = "01234567-89ab-cdef-0123-456789abcdef"
	other = "fedcba98-7654-3210-fedc-ba9876543210"
)

// entry is one entry of a journal that a test writes.
type entry struct {
	boot, transport, facility, message string
	fields                             string
}

func kern(message string) entry { return entry{boot, "kernel", "0", message, ""} }

// write makes a journal of these entries, by systemd's own tool.
func write(t *testing.T, entries ...entry) string {
	t.Helper()
	const tool = "/lib/systemd/systemd-journal-remote"
	if _, err := os.Stat(tool); err != nil {
		if os.Getenv("GPUVET_REQUIRE") == "all" {
			t.Fatalf("needs systemd-journal-remote: %v", err)
		}
		t.Skipf("needs systemd-journal-remote: %v", err)
	}
	var export bytes.Buffer
	for i, e := range entries {
		fmt.Fprintf(&export, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%s\n_TRANSPORT=%s\n",
			1_700_000_000_000_000+i*1000, 5_000_000+i*1000, strings.ReplaceAll(e.boot, "-", ""), e.transport)
		if e.facility != "" {
			fmt.Fprintf(&export, "SYSLOG_FACILITY=%s\n", e.facility)
		}
		// The binary form: a length of 64 bits, for messages of several lines.
		fmt.Fprintf(&export, "PRIORITY=3\n%sMESSAGE\n", e.fields)
		length := make([]byte, 8)
		length[0], length[1] = byte(len(e.message)), byte(len(e.message)>>8)
		export.Write(length)
		fmt.Fprintf(&export, "%s\n\n", e.message)
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), tool, "-o", filepath.Join(dir, "test.journal"), "-")
	cmd.Stdin = &export
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("systemd-journal-remote: %v\n%s", err, out)
	}
	return dir
}

// read runs a reader to the end of the journal and tells what came.
func read(t *testing.T, dir string, after kmsg.Cursor) (diary []string, records []kmsg.Record) {
	t.Helper()
	r, err := OpenBoot(dir, boot, after)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err = r.Run(ctx, kmsg.Handler{
		Record: func(rec kmsg.Record) {
			records = append(records, rec)
			diary = append(diary, fmt.Sprint(rec.Facility, " ", string(rec.Text)))
		},
		Gap:      func(g kmsg.Gap) { diary = append(diary, fmt.Sprint("lost ", g.Lost)) },
		CaughtUp: func() { diary = append(diary, "caught up"); cancel() },
	})
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Fatal("never caught up")
	}
	return diary, records
}

func TestOnlyTheKernelsEntriesOfThisBootAreRecords(t *testing.T) {
	dir := write(t,
		entry{other, "kernel", "0", "of another boot", ""},
		kern("first"),
		entry{boot, "syslog", "0", "of a program that claims the kernel's facility", ""},
		entry{boot, "kernel", "1", "of a process that wrote to the kernel's log", ""},
		entry{boot, "kernel", "", "of nobody knows whom", ""},
		kern("two\nlines"),
	)
	diary, records := read(t, dir, kmsg.Cursor{})
	want := []string{"0 first", "1 of a process that wrote to the kernel's log", "1 of nobody knows whom", "0 two\nlines", "caught up"}
	if diff := cmp.Diff(want, diary); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for i, rec := range records {
		if !rec.Backlog || rec.Level != 3 || i > 0 && rec.Seq <= records[i-1].Seq {
			t.Errorf("record %d: %+v", i, rec)
		}
	}
}

func TestRecordHasTheTimeAtWhichTheKernelWroteIt(t *testing.T) {
	late := kern("late")
	late.fields = "_SOURCE_MONOTONIC_TIMESTAMP=4000000\n" // journald read it a second after
	_, records := read(t, write(t, kern("prompt"), late), kmsg.Cursor{})
	if len(records) != 2 {
		t.Fatalf("%d records", len(records))
	}
	start := time.UnixMicro(1_700_000_000_000_000)
	for i, want := range []kmsg.Record{{Mono: 5 * time.Second, Time: start}, {Mono: 4 * time.Second, Time: start.Add(time.Millisecond - 1001*time.Millisecond)}} {
		if got := records[i]; got.Mono != want.Mono || !got.Time.Equal(want.Time) {
			t.Errorf("record %d: %v at %v, want %v at %v", i, got.Mono, got.Time, want.Mono, want.Time)
		}
	}
}

func TestReaderGoesOnBehindItsCursor(t *testing.T) {
	dir := write(t, kern("a"), kern("b"), entry{boot, "syslog", "3", "of others", ""}, kern("c"))
	_, records := read(t, dir, kmsg.Cursor{})
	if len(records) != 3 {
		t.Fatalf("%d records", len(records))
	}
	for name, test := range map[string]struct {
		after kmsg.Cursor
		want  []string
	}{
		"the first":                {kmsg.Cursor{Boot: boot, Seq: records[0].Seq}, []string{"0 b", "0 c", "caught up"}},
		"before others":            {kmsg.Cursor{Boot: boot, Seq: records[1].Seq}, []string{"0 c", "caught up"}},
		"the last":                 {kmsg.Cursor{Boot: boot, Seq: records[2].Seq}, []string{"caught up"}},
		"of another boot":          {kmsg.Cursor{Boot: other, Seq: records[2].Seq}, []string{"0 a", "0 b", "0 c", "caught up"}},
		"beyond the journal":       {kmsg.Cursor{Boot: boot, Seq: records[2].Seq + 1000}, []string{"0 a", "0 b", "0 c", "caught up"}},
		"of an entry that is gone": {kmsg.Cursor{Boot: boot, Seq: records[1].Seq + 1}, []string{"lost 1", "0 c", "caught up"}},
	} {
		t.Run(name, func(t *testing.T) {
			diary, _ := read(t, dir, test.after)
			if diff := cmp.Diff(test.want, diary); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatJournaldMissedIsAGap(t *testing.T) {
	forged := entry{boot, "syslog", "3", "Missed 99 kernel messages", "MESSAGE_ID=" + missed + "\n"}
	diary, _ := read(t, write(t, kern("a"), entry{boot, "driver", "", "Missed 12 kernel messages", "MESSAGE_ID=" + missed + "\n"}, forged, kern("b")), kmsg.Cursor{})
	if diff := cmp.Diff([]string{"0 a", "lost 12", "0 b", "caught up"}, diary); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFolderWithoutJournalIsAnError(t *testing.T) {
	if r, err := OpenBoot(filepath.Join(t.TempDir(), "none"), boot, kmsg.Cursor{}); err == nil {
		t.Error(errors.Join(errors.New("no error"), r.Close()))
	}
}
