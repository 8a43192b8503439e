package trail

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"gpuvet.dev/internal/faultpoint"
)

// Append adds a record behind the last one, unless its id was met before:
// then added is false. After an error with added false the trail is as it was,
// and the next Append tries again; this is how a full disk shows. With added
// true the record is in, and the error says which old segment could not be
// removed.
func (t *Trail) Append(r Record) (added bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known.met(r.ID) {
		return false, nil
	}
	if added, err = t.append(r); err != nil {
		err = fmt.Errorf("append to trail: %w", err)
	}
	return added, err
}

func (t *Trail) append(r Record) (bool, error) {
	if t.closed {
		return false, os.ErrClosed
	}
	if err := r.validate(); err != nil {
		return false, err
	}
	t.data.Reset()
	if len(r.Data) > 0 {
		// A newline between two tokens would end the line, and what is not
		// JSON could never be read back.
		if err := json.Compact(&t.data, r.Data); err != nil {
			return false, fmt.Errorf("data of record %s: %w", r.ID, err)
		}
	}
	t.line = appendRecord(t.line[:0], t.last+1, t.sum, r, t.data.Bytes())
	if len(t.line) > maxLine {
		return false, fmt.Errorf("record %s has %d bytes, at most %d are kept", r.ID, len(t.line), maxLine)
	}
	now := time.Now()
	if t.file == nil || t.full(now) {
		if err := t.begin(r, now); err != nil {
			return false, err
		}
		faultpoint.Hit("trail-rotated")
		return true, t.retire(now)
	}
	if err := t.write(); err != nil {
		return false, err
	}
	s := &t.segments[len(t.segments)-1]
	t.mark(t.last+1, s.bytes)
	s.bytes += int64(len(t.line))
	t.took(r, t.line)
	faultpoint.Hit("trail-appended")
	return true, nil
}

// write puts the line behind the end of the last segment, or nothing at all.
func (t *Trail) write() error {
	end := t.segments[len(t.segments)-1].bytes
	if t.tail {
		if err := t.file.Truncate(end); err != nil {
			return err
		}
		t.tail = false
	}
	if _, err := t.file.WriteAt(t.line, end); err != nil {
		t.tail = t.file.Truncate(end) != nil
		return err
	}
	return nil
}

// took notes that the record of this line is in.
func (t *Trail) took(r Record, line []byte) {
	t.last++
	t.sum = sha256.Sum256(line[:len(line)-1])
	t.known.add(r.ID, t.last)
}

// full says whether the line belongs into a new segment.
func (t *Trail) full(now time.Time) bool {
	s := t.segments[len(t.segments)-1]
	return s.bytes+int64(len(t.line)) > t.options.MaxSegmentBytes ||
		now.Sub(s.created) >= t.options.MaxSegmentAge ||
		t.boot != t.options.Boot
}

// begin makes a segment with this record as its first. The header and the
// record are written at once: a segment without a record would have no place
// among the others.
func (t *Trail) begin(r Record, now time.Time) error {
	s := segment{number: 1, headed: true, boot: t.options.Boot, first: t.last + 1, created: now}
	h := header{Version: Version, Boot: s.boot, First: s.first, FirstID: r.ID, Created: now.UTC(), Marks: t.known.marks()}
	if n := len(t.segments); n > 0 {
		s.number = t.segments[n-1].number + 1
		h.Prev = hex.EncodeToString(t.sum[:])
	}
	head, err := json.Marshal(h)
	if err != nil {
		return err
	}
	t.line = append(append(t.line[:0], head...), '\n')
	t.line = appendRecord(t.line, s.first, sha256.Sum256(head), r, t.data.Bytes())

	s.path, s.bytes = segmentPath(t.dir, s.number), int64(len(t.line))
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	faultpoint.Hit("trail-created")
	if _, err := f.WriteAt(t.line, 0); err != nil {
		_ = f.Close()
		return errors.Join(err, os.Remove(s.path))
	}
	if t.file != nil {
		_ = t.file.Close() // nothing is buffered, and Sync opens the file anew
	}
	t.file, t.boot, t.tail = f, s.boot, false
	t.segments = append(t.segments, s)
	t.index = nil // readers may hold the old one
	t.mark(s.first, int64(len(head)+1))
	t.took(r, t.line[len(head)+1:])
	return nil
}

// retire removes the oldest segments while they are out of date or in the way
// of the next one, and never the newest.
func (t *Trail) retire(now time.Time) error {
	var total int64
	for _, s := range t.segments {
		total += s.bytes
	}
	for len(t.segments) > 1 {
		oldest := t.segments[0]
		closed := t.segments[1].created
		if now.Sub(closed) < t.options.Retention && total-t.segments[len(t.segments)-1].bytes+t.options.MaxSegmentBytes <= t.options.MaxBytes {
			return nil
		}
		if err := os.Remove(oldest.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		total -= oldest.bytes
		t.segments = t.segments[1:]
	}
	return nil
}
