package trail_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/internal/trail"
)

// A flip in the last line can go unseen, for nothing vouches for it; so the
// last line is left alone here, with the newline that parts it from the rest:
// a flipped newline makes one line of two.
func TestEveryFlippedBitIsFoundAndOtherRecordsAreRead(t *testing.T) {
	folder := t.TempDir()
	tr := open(t, folder, trail.Options{Boot: "boot", MaxSegmentBytes: 650, MaxBytes: 1 << 20})
	fill(t, tr, 1, 6)
	paths := segments(t, folder)
	if len(paths) != 2 {
		t.Fatalf("%d segments, want 2", len(paths))
	}
	for f, path := range paths {
		whole := read(t, path)
		end := len(whole)
		if f == len(paths)-1 {
			end = strings.LastIndexByte(whole[:end-1], '\n')
		}
		for i := range end {
			for bit := range 8 {
				flipped := []byte(whole)
				flipped[i] ^= 1 << bit
				write(t, path, string(flipped))
				positions, faults := gather(trail.Scan(folder))
				if len(faults) == 0 {
					t.Errorf("%s: flip of bit %d of byte %d (%q to %q) goes unseen", filepath.Base(path), bit, i, whole[i], flipped[i])
				}
				if newer := errors.Is(errors.Join(faults...), trail.ErrNewer); !newer && (len(positions) < 4 || positions[len(positions)-1] != 6) {
					t.Errorf("%s: flip of bit %d of byte %d: read %v, %v; want the undamaged records", filepath.Base(path), bit, i, positions, faults)
				}
				if !slices.IsSorted(positions) {
					t.Errorf("%s: flip of bit %d of byte %d: positions %v", filepath.Base(path), bit, i, positions)
				}
			}
		}
		write(t, path, whole)
	}
	if err := trail.Verify(folder); err != nil {
		t.Errorf("Verify of the restored trail: %v", err)
	}
}

func TestDamageIsReportedWhereItIs(t *testing.T) {
	line := func(text string, n int) string { return strings.SplitAfter(text, "\n")[n] }
	for name, c := range map[string]struct {
		damage func(string) string // of a segment: header, records 1 to 5
		want   []trail.Position
		says   []string
	}{
		"changed record": {
			func(s string) string { return strings.Replace(s, "boot/kmsg/3", "boot/kmsg/9", 1) },
			upTo(1, 5),
			[]string{"record 4 does not follow from the line before it"},
		},
		"unreadable record": {
			func(s string) string { return strings.Replace(s, `{"n":3`, `("n":3`, 1) },
			[]trail.Position{1, 2, 4, 5},
			[]string{"record 3 cannot be read"},
		},
		"removed record": {
			func(s string) string { return strings.Replace(s, line(s, 3), "", 1) },
			[]trail.Position{1, 2, 4, 5},
			[]string{"records 3 to 3 are missing"},
		},
		"doubled record": {
			func(s string) string { return strings.Replace(s, line(s, 3), line(s, 3)+line(s, 3), 1) },
			upTo(1, 6),
			[]string{"record 4 does not follow", "record 5 has number 4", "record 6 has number 5"},
		},
		"lost newline": {
			func(s string) string { return strings.Replace(s, line(s, 3), strings.TrimSuffix(line(s, 3), "\n"), 1) },
			[]trail.Position{1, 2, 5},
			[]string{"record 3 cannot be read"},
		},
		"endless line": {
			func(s string) string { return strings.Replace(s, `{"n":3`, strings.Repeat("x", 2<<20), 1) },
			[]trail.Position{1, 2, 4, 5},
			[]string{"record 3 cannot be read: line has more than 1048576 bytes"},
		},
		"unreadable header": {
			func(s string) string { return strings.Replace(s, "gpuvet-trail", "gpuvet-trial", 1) },
			upTo(1, 5),
			[]string{"the header of the segment cannot be read"},
		},
		"torn end": {
			func(s string) string { return s[:len(s)-10] },
			upTo(1, 4),
			[]string{"last line is torn"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			tr := open(t, folder, day)
			fill(t, tr, 1, 5)
			path := segments(t, folder)[0]
			write(t, path, c.damage(read(t, path)))

			positions, faults := gather(trail.Scan(folder))
			if diff := cmp.Diff(c.want, positions); diff != "" {
				t.Errorf("positions (-want +got):\n%s", diff)
			}
			if len(faults) != len(c.says) {
				t.Fatalf("faults = %v, want %q", faults, c.says)
			}
			for i, says := range c.says {
				if got := faults[i]; !strings.Contains(got.Error(), says) || !strings.Contains(got.Error(), path+" at byte ") {
					t.Errorf("fault = %v, want %q in %s", got, says, path)
				}
				if got := faults[i]; !errors.Is(got, trail.ErrBroken) && !errors.Is(got, trail.ErrTorn) {
					t.Errorf("fault = %v, want ErrBroken or ErrTorn", got)
				}
			}
			if err := trail.Verify(folder); err == nil {
				t.Error("Verify found nothing")
			}

			// The trail goes on behind the damage, and a reader that has read
			// past it hears of it no more.
			tr = open(t, folder, day)
			if o := tr.Opened(); o == (trail.Opened{}) {
				t.Error("Open found nothing amiss")
			}
			appendNew(t, tr, numbered(10))
			last := tr.Last()
			wantPositions(t, []trail.Position{last}, tr.Read(last-1))
			if added, err := tr.Append(numbered(5)); added || err != nil {
				t.Errorf("Append of a record met before the damage = %v, %v", added, err)
			}
		})
	}
}

func TestTornEndIsCutOffAndSaid(t *testing.T) {
	for name, torn := range map[string]string{
		"half a record": `{"n":3,"prev":"0123`,
		"zeros":         strings.Repeat("\x00", 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			fill(t, open(t, folder, day), 1, 2)
			path := segments(t, folder)[0]
			write(t, path, read(t, path)+torn)

			tr := open(t, folder, day)
			want := trail.Opened{TornFile: path, TornBytes: int64(len(torn))}
			if diff := cmp.Diff(want, tr.Opened()); diff != "" {
				t.Errorf("Opened (-want +got):\n%s", diff)
			}
			appendNew(t, tr, numbered(3))
			wantPositions(t, upTo(1, 3), trail.Scan(folder))
		})
	}
}

func TestHeaderDamageDoesNotForgetOlderIds(t *testing.T) {
	folder := t.TempDir()
	tr := open(t, folder, small)
	appendNew(t, tr, trail.Record{ID: "boot/boot/1"})
	fill(t, tr, 1, 40)
	paths := segments(t, folder)
	for _, path := range paths[len(paths)-2:] {
		write(t, path, strings.Replace(read(t, path), "gpuvet", "GPUVET-", 1))
	}
	tr = open(t, folder, small)
	if added, err := tr.Append(trail.Record{ID: "boot/boot/1"}); added || err != nil {
		t.Errorf("Append = %v, %v; want it recognised", added, err)
	}
	if got := tr.Last(); got != 41 {
		t.Errorf("Last = %d, want 41", got)
	}
	positions, _ := gather(tr.Read(39))
	if diff := cmp.Diff(upTo(40, 41), positions); diff != "" {
		t.Errorf("positions (-want +got):\n%s", diff)
	}
}

func TestMissingSegmentIsABreak(t *testing.T) {
	folder := t.TempDir()
	fill(t, open(t, folder, small), 1, 20)
	if err := os.Remove(segments(t, folder)[1]); err != nil {
		t.Fatal(err)
	}
	err := trail.Verify(folder)
	if !errors.Is(err, trail.ErrBroken) || !strings.Contains(err.Error(), "are missing") {
		t.Errorf("Verify = %v, want missing records", err)
	}
}

func TestVerifySaysTheFirstBreaksAndCountsTheRest(t *testing.T) {
	folder := t.TempDir()
	fill(t, open(t, folder, day), 1, 40)
	path := segments(t, folder)[0]
	write(t, path, strings.ReplaceAll(read(t, path), `{"n":1`, `("n":1`)) // 1 and 10 to 19
	err := trail.Verify(folder)
	if err == nil || strings.Count(err.Error(), "cannot be read") != 5 || !strings.Contains(err.Error(), "and 6 more") {
		t.Errorf("Verify = %v, want five breaks and six more", err)
	}
}

func TestNewerSegmentIsLeftAlone(t *testing.T) {
	folder := t.TempDir()
	fill(t, open(t, folder, small), 1, 20)
	path := segments(t, folder)[1]
	newer := strings.Replace(read(t, path), `"gpuvet-trail":1`, `"gpuvet-trail":4`, 1)
	write(t, path, newer)
	for name, err := range map[string]error{
		"Open":   func() error { _, err := trail.Open(folder, small); return err }(),
		"Verify": trail.Verify(folder),
	} {
		if !errors.Is(err, trail.ErrNewer) {
			t.Errorf("%s = %v, want ErrNewer", name, err)
			continue
		}
		for _, want := range []string{path, "version 4", "up to 1", "run the newer gpuvet"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s = %q, want %q in it", name, err, want)
			}
		}
	}
	if got := read(t, path); got != newer {
		t.Error("the newer segment was changed")
	}
}

func TestKilledWriterLeavesAWholeTrail(t *testing.T) {
	appender := filepath.Join(t.TempDir(), "appender")
	build := exec.Command("go", "build", "-tags", "faultpoints", "-o", appender, "./testdata/appender")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	for _, c := range []struct {
		point string
		last  trail.Position // how far the killed writer came
	}{
		{"trail-created:1", 0},    // the first segment is empty
		{"trail-rotated:1", 1},    // and has its first record
		{"trail-appended:3", 4},   // a record is in
		{"trail-created:3", 11},   // a later segment is empty
		{"trail-rotated:3", 12},   // it has a record, no old one is removed yet
		{"trail-rotated:9", 42},   // the same once there is something to remove
		{"trail-appended:30", 38}, // records are in the middle of a segment
	} {
		t.Run(c.point, func(t *testing.T) {
			folder := t.TempDir()
			args := []string{folder, "60", "1000", "5000"}
			cmd := exec.Command(appender, args...)
			cmd.Env = append(os.Environ(), "GPUVET_FAULTPOINT="+c.point)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("appender: %v, want it killed\n%s", err, out)
			}
			if err := trail.Verify(folder); err != nil && !errors.Is(err, trail.ErrTorn) {
				t.Errorf("Verify after the kill: %v", err)
			}
			tr := open(t, folder, small)
			if got := tr.Last(); got != c.last {
				t.Errorf("Last = %d, want %d", got, c.last)
			}
			if diff := cmp.Diff(trail.Opened{}, tr.Opened()); diff != "" {
				t.Errorf("Opened (-want +got):\n%s", diff)
			}
			_ = tr.Close()

			// The next run meets the same records, and adds the rest.
			if out, err := exec.Command(appender, args...).CombinedOutput(); err != nil {
				t.Fatalf("appender: %v\n%s", err, out)
			}
			if err := trail.Verify(folder); err != nil {
				t.Errorf("Verify: %v", err)
			}
			ids := map[string]bool{}
			for e, err := range trail.Scan(folder) {
				if err != nil {
					t.Fatal(err)
				}
				if want := numbered(uint64(e.Position)).ID; e.ID != want || ids[e.ID] {
					t.Errorf("record %d has id %s, want %s, once", e.Position, e.ID, want)
				}
				ids[e.ID] = true
			}
			if !ids[numbered(60).ID] {
				t.Error("the last record is missing")
			}
		})
	}
}
