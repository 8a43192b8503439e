package trail

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
)

// chain follows the lines of a trail and holds each against what the line
// before it promised.
type chain struct {
	due  Position // number of the next record
	last Position // of the last record that was read
	sum  [sha256.Size]byte
	// trusted says that sum and due can be held against the next line. They
	// cannot at the start, and behind a damaged line, which was reported
	// already.
	trusted bool
}

// step is one line: a header or an entry, or where a fault shows.
type step struct {
	header *header
	entry  Entry // with a fault, the Position alone
	line   int   // counted from where the reading began
	offset int64 // of the line's first byte
}

// file follows one segment from an offset at which a line starts up to end.
func (c *chain) file(s segment, offset, end int64) iter.Seq2[step, error] {
	return func(yield func(step, error) bool) {
		f, err := os.Open(s.path)
		if err != nil {
			c.trusted = false
			yield(step{}, err)
			return
		}
		defer f.Close()
		for step, err := range c.lines(s.path, io.NewSectionReader(f, offset, end-offset), offset) {
			if !yield(step, err) {
				return
			}
		}
	}
}

// lines follows the lines of r, which starts at an offset of its file: at 0
// with the header. A break of the chain is given before the line that shows
// it, with that line's position. Errors other than ErrBroken end the sequence.
func (c *chain) lines(path string, r io.Reader, offset int64) iter.Seq2[step, error] {
	return func(yield func(step, error) bool) {
		reader := lineReader{buffered: bufio.NewReaderSize(r, 64<<10)}
		for n := 1; ; n++ {
			text, size, err := reader.next()
			if errors.Is(err, io.EOF) {
				return
			}
			at := step{line: n, offset: offset}
			shows := c.due // the position at which a fault shows
			offset += size
			var broken error
			switch {
			case errors.Is(err, errLong):
				broken = c.damaged(text, err)
			case err != nil:
				if errors.Is(err, ErrTorn) {
					err = fmt.Errorf("%s at byte %d: %w", path, at.offset, err)
				}
				at.entry.Position = shows
				yield(at, err)
				return
			case at.offset == 0:
				at.header, broken = c.head(text)
				shows = c.due
			default:
				at.entry, broken = c.record(text)
				shows = max(shows, at.entry.Position)
			}
			if errors.Is(broken, ErrNewer) {
				yield(at, fmt.Errorf("%s: %w", path, broken))
				return
			}
			if broken != nil {
				fault := step{line: at.line, offset: at.offset, entry: Entry{Position: shows}}
				if !yield(fault, fmt.Errorf("%s at byte %d: %w: %w", path, at.offset, ErrBroken, broken)) {
					return
				}
			}
			if (at.header != nil || at.entry.Position != 0) && !yield(at, nil) {
				return
			}
		}
	}
}

// head takes the header of a segment; it is nil if the line is none.
func (c *chain) head(line []byte) (*header, error) {
	var h header
	err := json.Unmarshal(line, &h)
	switch {
	case err == nil && h.Version > Version:
		return nil, fmt.Errorf("%w: it has version %d and this gpuvet reads up to %d; run the newer gpuvet again, or move the folder away to start afresh", ErrNewer, h.Version, Version)
	case err != nil || h.Version < 1 || h.First < 1:
		c.sum, c.trusted = sha256.Sum256(line), false
		return nil, errors.New("the header of the segment cannot be read")
	}
	var broken error
	follows := c.trusted && h.Prev == c.hash()
	if c.trusted {
		broken = c.compare(h.Prev, h.First, fmt.Sprintf("the segment of record %d", c.due))
	}
	if !follows { // else the count so far is worth more than the header's word
		c.due = max(h.First, c.last+1)
	}
	c.sum, c.trusted = sha256.Sum256(line), true
	return &h, broken
}

// record takes a record; its position is 0 if the line is none.
func (c *chain) record(line []byte) (Entry, error) {
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return Entry{}, c.damaged(line, err)
	}
	if r.ID == "" || r.Number == 0 {
		return Entry{}, c.damaged(line, errors.New("it has no id or number"))
	}
	position := c.due
	var broken error
	switch {
	case c.trusted:
		broken = c.compare(r.Prev, r.Number, fmt.Sprintf("record %d", c.due))
		if follows := r.Prev == c.hash(); !follows && r.Number > c.last {
			position = r.Number
		}
	case r.Number > c.last:
		position = r.Number // a damaged line may have been half a record, or several
	default:
		broken = fmt.Errorf("the record has number %d, behind %d", r.Number, c.last)
	}
	c.due, c.last = position+1, position
	c.sum, c.trusted = sha256.Sum256(line), true
	return Entry{position, Record{r.ID, r.Kind, r.Time, r.Data}}, broken
}

// compare holds the hash and the number of a line against what is due.
func (c *chain) compare(prev string, number Position, what string) error {
	switch same := prev == c.hash(); {
	case same && number == c.due:
		return nil
	case same:
		return fmt.Errorf("%s has number %d", what, number)
	case number > c.due:
		return fmt.Errorf("records %d to %d are missing", c.due, number-1)
	default:
		return fmt.Errorf("%s does not follow from the line before it: one of them was changed", what)
	}
}

// damaged passes over a line that cannot be read, and counts it as one record.
func (c *chain) damaged(line []byte, cause error) error {
	c.sum, c.trusted = sha256.Sum256(line), false
	c.due++
	return fmt.Errorf("record %d cannot be read: %w", c.due-1, cause)
}

func (c *chain) hash() string { return hex.EncodeToString(c.sum[:]) }
