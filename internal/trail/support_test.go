package trail_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/internal/trail"
)

func open(t testing.TB, folder string, o trail.Options) *trail.Trail {
	t.Helper()
	tr, err := trail.Open(folder, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

func appendNew(t testing.TB, tr *trail.Trail, r trail.Record) {
	t.Helper()
	if added, err := tr.Append(r); err != nil || !added {
		t.Fatalf("Append(%.40s) = %v, %v", r.ID, added, err)
	}
}

func numbered(n uint64) trail.Record {
	return trail.Record{ID: fmt.Sprintf("boot/kmsg/%d", n), Kind: "Xid", Time: time.Unix(int64(n), 0).UTC()}
}

func wide(n uint64) trail.Record {
	r := numbered(n)
	r.Data = json.RawMessage(`"` + strings.Repeat("x", 3000) + `"`)
	return r
}

func fill(t testing.TB, tr *trail.Trail, from, to uint64) {
	t.Helper()
	for n := from; n <= to; n++ {
		appendNew(t, tr, numbered(n))
	}
}

// gather gives the positions of the entries and the texts of the errors.
func gather(entries iter.Seq2[trail.Entry, error]) (positions []trail.Position, faults []error) {
	for e, err := range entries {
		if err != nil {
			faults = append(faults, err)
			continue
		}
		positions = append(positions, e.Position)
	}
	return positions, faults
}

func upTo(from, to trail.Position) (positions []trail.Position) {
	for p := from; p <= to; p++ {
		positions = append(positions, p)
	}
	return positions
}

func wantEntries(t *testing.T, want []trail.Entry, got iter.Seq2[trail.Entry, error]) {
	t.Helper()
	var entries []trail.Entry
	for e, err := range got {
		if err != nil {
			t.Errorf("unexpected: %v", err)
			continue
		}
		entries = append(entries, e)
	}
	if diff := cmp.Diff(want, entries); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func wantPositions(t *testing.T, want []trail.Position, got iter.Seq2[trail.Entry, error]) {
	t.Helper()
	positions, faults := gather(got)
	if len(faults) > 0 {
		t.Errorf("unexpected: %v", faults)
	}
	if diff := cmp.Diff(want, positions); diff != "" {
		t.Errorf("positions (-want +got):\n%s", diff)
	}
}

func segments(t testing.TB, folder string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func wantSegments(t *testing.T, folder string, numbers ...int) {
	t.Helper()
	var want []string
	for _, n := range numbers {
		want = append(want, filepath.Join(folder, fmt.Sprintf("%08d.jsonl", n)))
	}
	if diff := cmp.Diff(want, segments(t, folder)); diff != "" {
		t.Errorf("segments (-want +got):\n%s", diff)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fillHashes replaces HASH-F-L by the SHA-256 of line L of file F.
func fillHashes(files map[string]string) {
	names := slices.Sorted(maps.Keys(files))
	for f, name := range names {
		for l := range strings.Count(files[name], "\n") {
			line := strings.Split(files[name], "\n")[l]
			for _, other := range names {
				files[other] = strings.ReplaceAll(files[other], fmt.Sprintf("HASH-%d-%d", f+1, l+1), fmt.Sprintf("%x", sha256.Sum256([]byte(line))))
			}
		}
	}
}

// tmpfs mounts a file system of 64 KiB.
func tmpfs(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=64k"); err != nil {
		if os.Getenv("GPUVET_REQUIRE") == "all" {
			t.Fatalf("mount a small file system: %v", err)
		}
		t.Skipf("needs the right to mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", folder, err)
		}
	})
	return folder
}
