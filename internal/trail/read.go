package trail

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
)

// Read gives the entries behind a position, in order, up to the one that is
// the last when the loop begins; the writer goes on meanwhile.
//
// Errors come among the entries. ErrRemoved says that the trail continues at
// its oldest record; ErrBroken says where the chain does not hold, and what
// can be read still follows. ErrAhead and all other errors end the sequence.
func (t *Trail) Read(after Position) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		segments, index, last := t.view()
		if after > last {
			yield(Entry{}, fmt.Errorf("read trail %s after %d, the last record is %d: %w", t.dir, after, last, ErrAhead))
			return
		}
		if after == last {
			return
		}
		if oldest := oldest(segments); oldest > after+1 {
			if !yield(Entry{}, fmt.Errorf("read trail %s after %d, the oldest record is %d: %w", t.dir, after, oldest, ErrRemoved)) {
				return
			}
		}
		start := startOf(segments, after)
		from := waypoint{position: max(1, segments[start].first)}
		if start == len(segments)-1 {
			from = nearest(index, after, from)
		}
		c := chain{due: from.position}
		for _, s := range segments[start:] {
			if !read(&c, s, from.offset, after, yield) {
				return
			}
			from.offset = 0
		}
	}
}

// view gives what there is to read at this moment. Nothing of it is written
// again: behind the last record of a segment come only more.
func (t *Trail) view() ([]segment, []waypoint, Position) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.segments), t.index, t.last
}

func oldest(segments []segment) Position {
	for _, s := range segments {
		if s.first != 0 {
			return s.first
		}
	}
	return 0
}

// startOf is the index of the segment that holds the record behind a position.
func startOf(segments []segment, after Position) int {
	for i, s := range slices.Backward(segments) {
		if s.first != 0 && s.first <= after+1 {
			return i
		}
	}
	return 0
}

// nearest is where in the newest segment to start to reach that record.
func nearest(index []waypoint, after Position, start waypoint) waypoint {
	for _, w := range slices.Backward(index) {
		if w.position <= after+1 {
			return w
		}
	}
	return start
}

// read gives the entries of one segment behind a position, and says whether to
// go on.
func read(c *chain, s segment, offset int64, after Position, yield func(Entry, error) bool) bool {
	for step, err := range c.file(s, offset, s.bytes) {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return yield(Entry{}, fmt.Errorf("read trail: %w: %w", ErrRemoved, err))
		case errors.Is(err, ErrBroken), errors.Is(err, ErrTorn):
			// What lies before the position was reported to the reader when
			// it got there.
			if step.entry.Position > after && !yield(Entry{}, fmt.Errorf("read trail: %w", err)) {
				return false
			}
		case err != nil:
			yield(Entry{}, fmt.Errorf("read trail: %w", err))
			return false
		case step.header == nil && step.entry.Position > after:
			if !yield(step.entry, nil) {
				return false
			}
		}
	}
	return true
}

// Scan gives the entries of a trail's folder, or of one segment, without
// touching it. Its errors are those of [Trail.Read], and ErrTorn where a file
// ends amid a line: in the newest segment of a trail in use that may be the
// record that is being written.
func Scan(path string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		segments, err := found(path)
		if err != nil {
			yield(Entry{}, fmt.Errorf("read trail: %w", err))
			return
		}
		c := chain{due: 1}
		for _, s := range segments {
			if !read(&c, s, 0, 0, yield) {
				return
			}
		}
	}
}

func found(path string) ([]segment, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return list(path)
	}
	return []segment{{path: path, bytes: info.Size()}}, nil
}

// Verify reads a folder or segment and says where its chain does not hold: the
// first places in full, and how many more there are.
func Verify(path string) error {
	var faults []error
	for _, err := range Scan(path) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	return summary(faults)
}

func summary(faults []error) error {
	const shown = 5
	if n := len(faults) - shown; n > 0 {
		faults = append(faults[:shown:shown], fmt.Errorf("and %d more: %w", n, ErrBroken))
	}
	return errors.Join(faults...)
}
