package trail_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"gpuvet.dev/internal/trail"
)

func TestReaderContinuesBehindItsPosition(t *testing.T) {
	folder := t.TempDir()
	tr := open(t, folder, trail.Options{Boot: "boot", MaxSegmentBytes: 40_000, MaxBytes: 1 << 20})
	fill(t, tr, 1, 600) // two segments of over 64 records, so that there are waypoints
	for _, tr := range []*trail.Trail{tr, open(t, folder, day)} {
		for after := trail.Position(0); after <= 600; after += 5 {
			wantPositions(t, upTo(after+1, 600), tr.Read(after))
		}
	}
}

func TestReaderEndsAtWhatWasTheLastRecord(t *testing.T) {
	tr := open(t, t.TempDir(), small)
	fill(t, tr, 1, 10)
	next := uint64(11)
	var seen int
	for _, err := range tr.Read(0) {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		appendNew(t, tr, numbered(next)) // the reader's loop may write
		next++
	}
	if seen != 10 {
		t.Errorf("read %d records, want the 10 that were there", seen)
	}
}

func TestReadersFollowAWriter(t *testing.T) {
	const n = 3000
	tr := open(t, t.TempDir(), trail.Options{Boot: "boot", MaxSegmentBytes: 20_000, MaxBytes: 1 << 22})
	done := make(chan error)
	for range 2 {
		go func() {
			var cursor trail.Position
			for cursor < n {
				for e, err := range tr.Read(cursor) {
					if err == nil && e.Position != cursor+1 {
						err = errors.New("a record was left out")
					}
					if err != nil {
						done <- err
						return
					}
					cursor = e.Position
				}
			}
			done <- nil
		}()
	}
	fill(t, tr, 1, n)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestReaderOfRemovedRecordsContinuesAtTheOldest(t *testing.T) {
	folder := t.TempDir()
	tr := open(t, folder, trail.Options{Boot: "boot", MaxBytes: 5000, MaxSegmentBytes: 1000})
	fill(t, tr, 1, 100)
	positions, faults := gather(tr.Read(3))
	if len(faults) != 1 || !errors.Is(faults[0], trail.ErrRemoved) {
		t.Fatalf("faults = %v, want ErrRemoved", faults)
	}
	oldest := positions[0]
	if oldest < 50 || positions[len(positions)-1] != 100 {
		t.Errorf("read %v, want the newest records", positions)
	}
	// Who has read up to the oldest has missed nothing.
	wantPositions(t, upTo(oldest, 100), tr.Read(oldest-1))
	wantPositions(t, upTo(oldest, 100), trail.Scan(folder))
}

func TestSegmentRemovedUnderAReaderIsReported(t *testing.T) {
	folder := t.TempDir()
	tr := open(t, folder, small)
	fill(t, tr, 1, 30)
	paths := segments(t, folder)
	var got []trail.Position
	var faults []error
	for e, err := range tr.Read(0) {
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if e.Position == 1 {
			if err := os.Remove(paths[1]); err != nil {
				t.Fatal(err)
			}
		}
		got = append(got, e.Position)
	}
	if len(faults) != 1 || !errors.Is(faults[0], trail.ErrRemoved) {
		t.Errorf("faults = %v, want ErrRemoved", faults)
	}
	if len(got) < 20 || len(got) >= 30 || got[len(got)-1] != 30 {
		t.Errorf("read %v, want all but one segment", got)
	}
}

func TestPositionOfALostTrailIsReported(t *testing.T) {
	tr := open(t, t.TempDir(), day)
	fill(t, tr, 1, 3)
	positions, faults := gather(tr.Read(4))
	if len(positions) != 0 || len(faults) != 1 || !errors.Is(faults[0], trail.ErrAhead) {
		t.Errorf("Read = %v, %v; want ErrAhead", positions, faults)
	}
}

func TestScanOfNothing(t *testing.T) {
	wantPositions(t, nil, trail.Scan(t.TempDir()))
	_, faults := gather(trail.Scan(filepath.Join(t.TempDir(), "none")))
	if len(faults) != 1 || !errors.Is(faults[0], os.ErrNotExist) {
		t.Errorf("faults = %v, want not exist", faults)
	}
}

func TestReaderMayStopAnywhere(t *testing.T) {
	folder := t.TempDir()
	tr := open(t, folder, small)
	fill(t, tr, 1, 20)
	for stop := range 20 {
		seen := 0
		for range tr.Read(0) {
			if seen == stop {
				break
			}
			seen++
		}
	}
}
