package daemon

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Trail is the kinds of the records that the daemon's trail holds, oldest first,
// as they are on disk.
func (d *Daemon) Trail(t testing.TB) []string {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(d.dir, "state", "trail", "*.jsonl"))
	if err != nil {
		t.Fatalf("list trail: %v", err)
	}
	slices.Sort(segments)
	var kinds []string
	for _, segment := range segments {
		content, err := os.ReadFile(segment)
		if err != nil {
			t.Fatalf("read trail: %v", err)
		}
		for line := range bytes.Lines(content) {
			var record struct{ Kind string }
			// The header has no kind, and a crash may leave half a line.
			if json.Unmarshal(line, &record) == nil && record.Kind != "" {
				kinds = append(kinds, record.Kind)
			}
		}
	}
	return kinds
}
