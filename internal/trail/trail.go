// Package trail keeps the history of one node: records in the order in which
// they came, appended and never changed, each with the hash of the one before.
//
// [Open] makes a [Trail] ready for one writer, [Trail.Append] adds a record
// unless its id was met before, and [Trail.Read] gives readers what lies
// behind their [Position], while the writer goes on. [Scan] and [Verify] read
// a trail that somebody else writes, or a copy of one.
//
// # Files
//
// A trail is a folder of numbered segments, 00000001.jsonl and so on, each a
// text file with one JSON value per line. The first line is the header of the
// segment: version, boot, number and id of its first record, the hash of the
// last line of the segment before, and the ids met so far. Every other line is
// a record with the hash of the line before it. A hash is the SHA-256, in hex,
// of a line without its newline. A changed line is thus betrayed by the line
// after it; the last line of a trail is vouched for by nothing.
//
// A segment is closed when it is full, a day old or of another boot. Old
// segments are removed whole, and never the newest one, when their last record
// is older than the retention or when the next segment would not fit into the
// bytes allowed. Both are looked at when a segment is begun and at Open.
//
// # Ids
//
// An id BOOT/SOURCE/N, where one source's N only grow, is known if an N as
// high was met. The highest N of the 1,024 sources that spoke last are
// remembered and written to each header, so that Open needs the newest
// segments alone. Other ids are known while they are among the last 4,096 of
// their kind, and after a restart while they are in the two newest segments.
//
// # Crashes
//
// A record is written with one write(2) and not forced to the disk: it
// survives the death of the process but not that of the machine. Whoever
// stores a Position elsewhere calls [Trail.Sync] first, or a record that comes
// after a power failure can have a number that was given before it.
package trail

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// Version is the version of the segments that this program writes, and the
// highest that it reads.
const Version = 1

// What can be amiss with a trail. The errors are wrapped with the file and,
// where there is one, its line.
var (
	// ErrNewer: a segment was written by a newer gpuvet.
	ErrNewer = errors.New("trail was written by a newer gpuvet")
	// ErrBroken: a line is damaged, changed or missing. What follows is read
	// all the same.
	ErrBroken = errors.New("trail is broken")
	// ErrTorn: the last line of a file has no end. A crash, or a record that
	// is being written at this moment.
	ErrTorn = errors.New("last line is torn")
	// ErrRemoved: records were asked for that are no longer kept.
	ErrRemoved = errors.New("records are no longer kept")
	// ErrAhead: a position is behind the last record, so it belongs to
	// another trail, or to this one before it was lost.
	ErrAhead = errors.New("position is ahead of the trail")
)

// Record is one thing that happened.
type Record struct {
	ID   string          // deterministic: the same thing has the same id when it is seen again
	Kind string          // names the shape of Data
	Time time.Time       // when it happened; kept in UTC with nanoseconds
	Data json.RawMessage // any JSON value, or nothing; kept without insignificant white space
}

// Position is the number of a record. Numbers start at 1 and go up by 1; the
// zero Position is before everything.
type Position uint64

// Entry is a record at its position.
type Entry struct {
	Position Position
	Record
}

// Options bound a trail. Zero values mean the defaults.
type Options struct {
	MaxSegmentBytes int64         // a segment is closed before it is longer; 8 MiB, at most a quarter of MaxBytes
	MaxSegmentAge   time.Duration // a segment is closed when it is as old; 24 h
	Retention       time.Duration // how long a closed segment is kept; 720 h
	MaxBytes        int64         // all segments together; 256 MiB
	Boot            string        // this boot's id; another one begins a segment
}

func (o Options) withDefaults() Options {
	if o.MaxSegmentAge <= 0 {
		o.MaxSegmentAge = 24 * time.Hour
	}
	if o.Retention <= 0 {
		o.Retention = 720 * time.Hour
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 256 << 20
	}
	if o.MaxSegmentBytes <= 0 {
		o.MaxSegmentBytes = 8 << 20
	}
	o.MaxSegmentBytes = min(o.MaxSegmentBytes, o.MaxBytes/4)
	return o
}

// Trail is an open trail. Its methods are safe for concurrent use; that no
// other process writes to the folder is up to the caller.
type Trail struct {
	dir     string
	options Options
	opened  Opened

	mu       sync.Mutex // guards the fields below
	segments []segment  // oldest first
	file     *os.File   // the last of them; nil before the first record and after Close
	boot     string     // of the last segment
	last     Position
	sum      [sha256.Size]byte // of the last line
	known    memory
	index    []waypoint // into the last segment
	tail     bool       // bytes of a failed write may lie behind the end of file
	closed   bool
	synced   uint64 // number of the last segment that Sync has seen; those before it are on the disk
	line     []byte
	data     bytes.Buffer
}

// Opened says what Open found amiss. The zero Opened is a clean trail.
type Opened struct {
	TornFile  string // the segment whose torn end was cut off
	TornBytes int64  // how much was cut off
	Broken    error  // where the newest segments are broken
}

// Open makes the folder if it is not there (mode 0700), cuts off what a crash
// left half written, and reads as much of the newest segments as it needs to
// know the ids that were met. A segment of a newer gpuvet gives ErrNewer.
func Open(dir string, o Options) (*Trail, error) {
	t := &Trail{dir: dir, options: o.withDefaults(), known: newMemory()}
	if err := t.open(); err != nil {
		return nil, fmt.Errorf("open trail: %w", err)
	}
	return t, nil
}

func (t *Trail) open() error {
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return err
	}
	segments, err := list(t.dir)
	if err != nil {
		return err
	}
	if t.segments, err = t.trim(segments); err != nil {
		return err
	}
	for i := range t.segments {
		if err := t.segments[i].readHead(); err != nil {
			return err
		}
	}
	if err := t.recall(); err != nil {
		return err
	}
	if n := len(t.segments); n > 0 {
		if t.file, err = os.OpenFile(t.segments[n-1].path, os.O_RDWR, 0); err != nil {
			return err
		}
		t.synced = t.segments[0].number
	}
	// A segment that cannot be removed now stops nobody; the Append that
	// begins the next one tries again and says so.
	_ = t.retire(time.Now())
	return nil
}

// trim cuts off what lies behind the last newline of the newest segment, and
// removes the segment if nothing is left of it.
func (t *Trail) trim(segments []segment) ([]segment, error) {
	for len(segments) > 0 {
		newest := &segments[len(segments)-1]
		end, err := lastNewline(newest.path, newest.bytes)
		if err != nil {
			return nil, err
		}
		if torn := newest.bytes - end; torn > 0 {
			t.opened.TornFile = newest.path
			t.opened.TornBytes += torn
			if err := os.Truncate(newest.path, end); err != nil {
				return nil, err
			}
		}
		if newest.bytes = end; end > 0 {
			break
		}
		if err := os.Remove(newest.path); err != nil {
			return nil, err
		}
		segments = segments[:len(segments)-1]
	}
	return segments, nil
}

// recall rebuilds the memory from the two newest segments, or from more if
// their headers cannot be read.
func (t *Trail) recall() error {
	from := max(0, len(t.segments)-2)
	for from > 0 && !t.segments[from].headed {
		from--
	}
	c := chain{due: 1}
	var broken []error
	for _, s := range t.segments[from:] {
		t.index, t.boot = nil, s.boot
		for step, err := range c.file(s, 0, s.bytes) {
			switch {
			case errors.Is(err, ErrBroken), errors.Is(err, ErrTorn):
				broken = append(broken, err)
			case err != nil:
				return err
			case step.header != nil:
				t.known.restore(step.header.Marks, step.header.First)
			default:
				t.known.add(step.entry.ID, step.entry.Position)
				t.mark(step.entry.Position, step.offset)
			}
		}
	}
	t.last, t.sum = c.due-1, c.sum
	t.opened.Broken = summary(broken)
	return nil
}

// Opened says what Open found amiss.
func (t *Trail) Opened() Opened { return t.opened }

// Last is the position of the last record, or 0 if there is none yet.
func (t *Trail) Last() Position {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// Sync returns once every record that was added before the call is on the
// disk. Append does not wait for it.
func (t *Trail) Sync() error {
	t.mu.Lock()
	var paths []string
	newest := t.synced
	for _, s := range t.segments {
		if s.number >= t.synced {
			paths = append(paths, s.path)
			newest = s.number
		}
	}
	t.mu.Unlock()

	for _, path := range append(paths, t.dir) {
		if err := syncFile(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // retention may have been here
			return fmt.Errorf("sync trail: %w", err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.synced = max(t.synced, newest)
	return nil
}

// Close forces the records to the disk and ends the trail: Append gives
// os.ErrClosed from then on.
func (t *Trail) Close() error {
	err := t.Sync()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file != nil {
		err = errors.Join(err, t.file.Close())
	}
	t.file, t.closed = nil, true
	return err
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
