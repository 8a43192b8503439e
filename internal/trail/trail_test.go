package trail_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/internal/trail"
)

var day = trail.Options{Boot: "boot"}

// small gives segments of a few records each.
var small = trail.Options{Boot: "boot", MaxSegmentBytes: 1000, MaxBytes: 1 << 20}

func TestRecordsComeBackAsTheyWere(t *testing.T) {
	when := time.Date(2026, 11, 21, 12, 3, 4, 5, time.UTC)
	records := []trail.Record{
		{ID: "boot/kmsg/1", Kind: "Xid", Time: when, Data: json.RawMessage(`{"xid":79,"text":"a <b> \"c\""}`)},
		{ID: "boot/kmsg/2", Kind: "", Time: time.Time{}},
		{ID: "by hand", Kind: "quote \" back \\ tab \t bell \a é \u2028", Time: when, Data: json.RawMessage(`[1, null, "x"]`)},
		{ID: "null", Kind: "k", Time: when, Data: json.RawMessage("null")},
	}
	folder := t.TempDir()
	tr := open(t, folder, day)
	for _, r := range records {
		appendNew(t, tr, r)
	}
	var want []trail.Entry
	for i, r := range records {
		want = append(want, trail.Entry{Position: trail.Position(i + 1), Record: r})
	}
	want[2].Data = json.RawMessage(`[1,null,"x"]`)
	wantEntries(t, want, tr.Read(0))
	wantEntries(t, want[3:], tr.Read(3))
	wantEntries(t, nil, tr.Read(4))
	wantEntries(t, want, trail.Scan(folder))
	wantEntries(t, want, trail.Scan(filepath.Join(folder, "00000001.jsonl")))
	if err := trail.Verify(folder); err != nil {
		t.Errorf("Verify: %v", err)
	}
	if got := tr.Last(); got != 4 {
		t.Errorf("Last = %d, want 4", got)
	}
}

func TestTimeOfAnotherZoneIsKeptInUTC(t *testing.T) {
	folder := t.TempDir()
	tr := open(t, folder, day)
	when := time.Date(2026, 1, 1, 1, 0, 0, 7, time.FixedZone("", 3600))
	appendNew(t, tr, trail.Record{ID: "x", Time: when})
	for e := range tr.Read(0) {
		if !e.Time.Equal(when) || e.Time.Location() != time.UTC {
			t.Errorf("time = %v, want %v in UTC", e.Time, when)
		}
	}
}

// The format is read by tools that know nothing of this package.
func TestFormat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		folder := t.TempDir()
		tr := open(t, folder, day)
		appendNew(t, tr, trail.Record{ID: "boot/kmsg/1", Kind: "Xid", Time: time.Unix(1, 5), Data: json.RawMessage(`{"xid": 79}`)})
		appendNew(t, tr, numbered(2))
		second := open(t, folder, trail.Options{Boot: "next"})
		appendNew(t, second, numbered(3))

		// The hashes are those of sha256sum.
		want := map[string]string{
			"00000001.jsonl": `{"gpuvet-trail":1,"boot":"boot","first":1,"firstID":"boot/kmsg/1","created":"2000-01-01T00:00:00Z"}
{"n":1,"prev":"HASH-1-1","id":"boot/kmsg/1","kind":"Xid","time":"1970-01-01T00:00:01.000000005Z","data":{"xid":79}}
{"n":2,"prev":"HASH-1-2","id":"boot/kmsg/2","kind":"Xid","time":"1970-01-01T00:00:02Z"}
`,
			"00000002.jsonl": `{"gpuvet-trail":1,"boot":"next","first":3,"firstID":"boot/kmsg/3","created":"2000-01-01T00:00:00Z","prev":"HASH-1-3","marks":{"boot/kmsg":2}}
{"n":3,"prev":"HASH-2-1","id":"boot/kmsg/3","kind":"Xid","time":"1970-01-01T00:00:03Z"}
`,
		}
		fillHashes(want)
		for name, text := range want {
			if diff := cmp.Diff(text, read(t, filepath.Join(folder, name))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	})
}

func TestWhatCouldNotBeReadBackIsRefused(t *testing.T) {
	folder := t.TempDir()
	tr := open(t, folder, day)
	for name, r := range map[string]trail.Record{
		"no id":       {Kind: "k"},
		"long id":     {ID: strings.Repeat("x", 257)},
		"id bytes":    {ID: "\xff"},
		"kind bytes":  {ID: "i", Kind: "\xff"},
		"broken data": {ID: "i", Data: json.RawMessage(`{"a":`)},
		"two values":  {ID: "i", Data: json.RawMessage("1\n2")},
		"huge data":   {ID: "i", Data: json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`)},
		"far year":    {ID: "i", Time: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		t.Run(name, func(t *testing.T) {
			if added, err := tr.Append(r); added || err == nil {
				t.Errorf("Append = %v, %v; want an error", added, err)
			}
		})
	}
	appendNew(t, tr, trail.Record{ID: "i"})
	if err := trail.Verify(folder); err != nil {
		t.Errorf("Verify: %v", err)
	}
}

func TestLinesThatTheDataBringsDoNotEndTheRecord(t *testing.T) {
	folder := t.TempDir()
	tr := open(t, folder, day)
	appendNew(t, tr, trail.Record{ID: "x", Data: json.RawMessage("{\n  \"a\": 1\n}\n")})
	if got := strings.Count(read(t, filepath.Join(folder, "00000001.jsonl")), "\n"); got != 2 {
		t.Errorf("segment has %d lines, want 2", got)
	}
}

func TestRecordMetAgainIsRecognised(t *testing.T) {
	for name, c := range map[string]struct {
		met   []string
		again map[string]bool // id, and whether it is new
	}{
		"numbers of a source grow": {
			[]string{"b/kmsg/5"},
			map[string]bool{"b/kmsg/5": false, "b/kmsg/4": false, "b/kmsg/0": false, "b/kmsg/6": true, "b/nvml/5": true, "c/kmsg/5": true},
		},
		"a source may have slashes": {[]string{"b/nvml/0/5"}, map[string]bool{"b/nvml/0/4": false, "b/nvml/1/4": true}},
		"other ids are taken whole": {
			[]string{"command/7", "b/kmsg/x", "b/kmsg/007", "b/kmsg/18446744073709551616"},
			map[string]bool{
				"command/7": false, "command/6": true, "b/kmsg/x": false, "b/kmsg/007": false, "b/kmsg/7": true,
				"b/kmsg/18446744073709551616": false,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, restart := range []bool{false, true} {
				for id, fresh := range c.again {
					folder := t.TempDir()
					tr := open(t, folder, day)
					for _, id := range c.met {
						appendNew(t, tr, trail.Record{ID: id})
					}
					if restart {
						tr = open(t, folder, day)
					}
					added, err := tr.Append(trail.Record{ID: id})
					if err != nil || added != fresh {
						t.Errorf("Append(%s) after restart %v = %v, %v; want added %v", id, restart, added, err, fresh)
					}
				}
			}
		})
	}
}

func TestSourceThatFellSilentIsRememberedAcrossManySegments(t *testing.T) {
	folder := t.TempDir()
	tr := open(t, folder, small)
	appendNew(t, tr, trail.Record{ID: "boot/boot/1", Kind: "Boot"})
	fill(t, tr, 1, 60)
	if n := len(segments(t, folder)); n < 5 {
		t.Fatalf("%d segments, want many", n)
	}
	tr = open(t, folder, small)
	if added, err := tr.Append(trail.Record{ID: "boot/boot/1"}); added || err != nil {
		t.Errorf("Append = %v, %v; want it recognised", added, err)
	}
}

func TestMemoryOfIdsIsBounded(t *testing.T) {
	tr := open(t, t.TempDir(), day)
	for i := range 4097 {
		appendNew(t, tr, trail.Record{ID: fmt.Sprintf("command %d", i)})
	}
	for i := range 1025 {
		appendNew(t, tr, trail.Record{ID: fmt.Sprintf("boot/source%d/1", i)})
	}
	for id, want := range map[string]bool{
		"command 0": true, "command 2": false, "boot/source0/1": true, "boot/source2/1": false,
	} {
		if added, err := tr.Append(trail.Record{ID: id}); err != nil || added != want {
			t.Errorf("Append(%s) = %v, %v; want %v", id, added, err, want)
		}
	}
}

func TestSegmentIsClosedWhenFullOldOrOfAnotherBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		folder := t.TempDir()
		tr := open(t, folder, small)
		fill(t, tr, 1, 20)
		full := segments(t, folder)
		for _, s := range full {
			if size := len(read(t, s)); size > 1000 {
				t.Errorf("%s has %d bytes, want at most 1000", s, size)
			}
		}
		if len(full) < 4 || len(full) > 6 {
			t.Errorf("20 records are in %d segments, want about 5", len(full))
		}

		folder = t.TempDir()
		tr = open(t, folder, day)
		appendNew(t, tr, numbered(1))
		time.Sleep(24*time.Hour - 1)
		appendNew(t, tr, numbered(2))
		wantSegments(t, folder, 1)
		time.Sleep(time.Nanosecond)
		appendNew(t, tr, numbered(3))
		wantSegments(t, folder, 1, 2)

		tr = open(t, folder, day)
		appendNew(t, tr, numbered(4))
		wantSegments(t, folder, 1, 2)
		tr = open(t, folder, trail.Options{Boot: "another"})
		appendNew(t, tr, numbered(5))
		wantSegments(t, folder, 1, 2, 3)
		if err := trail.Verify(folder); err != nil {
			t.Errorf("Verify: %v", err)
		}
	})
}

func TestOldSegmentsAreRemovedButNeverTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		folder := t.TempDir()
		tr := open(t, folder, day)
		appendNew(t, tr, numbered(1))
		time.Sleep(24 * time.Hour)
		appendNew(t, tr, numbered(2)) // closes 1
		time.Sleep(720*time.Hour - 1)
		open(t, folder, day)
		wantSegments(t, folder, 1, 2)
		time.Sleep(time.Nanosecond)
		open(t, folder, day)
		wantSegments(t, folder, 2)
		time.Sleep(10000 * time.Hour)
		tr = open(t, folder, day)
		wantSegments(t, folder, 2)
		appendNew(t, tr, numbered(3)) // 2 was closed only now
		wantSegments(t, folder, 2, 3)
		if err := trail.Verify(folder); err != nil {
			t.Errorf("Verify: %v", err)
		}
	})
}

func TestTrailNeverTakesMoreThanItsBytes(t *testing.T) {
	folder := t.TempDir()
	o := trail.Options{Boot: "boot", MaxBytes: 5000, MaxSegmentBytes: 1000}
	tr := open(t, folder, o)
	for i := range uint64(200) {
		appendNew(t, tr, numbered(i+1))
		var total int
		for _, s := range segments(t, folder) {
			total += len(read(t, s))
		}
		if total > 5000 {
			t.Fatalf("after record %d the trail has %d bytes, want at most 5000", i+1, total)
		}
	}
	if n := len(segments(t, folder)); n < 4 {
		t.Errorf("%d segments are kept, want what fits", n)
	}
	if err := trail.Verify(folder); err != nil {
		t.Errorf("Verify: %v", err)
	}
}

func TestFullDiskLeavesNothingHalfWritten(t *testing.T) {
	mount := tmpfs(t)
	folder := filepath.Join(mount, "trail")
	tr := open(t, folder, day)
	appendNew(t, tr, numbered(1))
	ballast := filepath.Join(mount, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 40<<10), 0o600); err != nil {
		t.Fatal(err)
	}

	n := uint64(2)
	var full error
	for ; full == nil; n++ {
		_, full = tr.Append(wide(n))
	}
	n--
	if !strings.Contains(full.Error(), "00000001.jsonl: no space left") {
		t.Errorf("Append = %v, want no space left, naming the file", full)
	}
	if err := trail.Verify(folder); err != nil {
		t.Errorf("Verify on the full disk: %v", err)
	}
	if got := tr.Last(); got != trail.Position(n-1) {
		t.Errorf("Last = %d, want %d", got, n-1)
	}
	// A new segment has no room either, and leaves no empty file behind.
	other := open(t, folder, trail.Options{Boot: "next"})
	if added, err := other.Append(wide(n)); added || err == nil || !strings.Contains(err.Error(), "00000002.jsonl: no space left") {
		t.Errorf("Append = %v, %v; want no space left, naming the file", added, err)
	}
	wantSegments(t, folder, 1)

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	appendNew(t, tr, wide(n)) // it was not taken for met
	if err := trail.Verify(folder); err != nil {
		t.Errorf("Verify: %v", err)
	}
}

func TestClosedTrailTakesNothing(t *testing.T) {
	folder := t.TempDir()
	tr := open(t, folder, day)
	appendNew(t, tr, numbered(1))
	if err := tr.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	if added, err := tr.Append(numbered(2)); added || !errors.Is(err, os.ErrClosed) {
		t.Errorf("Append = %v, %v; want closed", added, err)
	}
}
