package trail

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// segment is one file of a trail.
type segment struct {
	number  uint64
	path    string
	bytes   int64 // up to the end of the last whole record
	headed  bool  // the header could be read; else the fields below are guesses
	boot    string
	first   Position  // 0 if not even a guess was possible
	created time.Time // when its first record was appended
}

const suffix = ".jsonl"

func segmentPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%08d%s", number, suffix))
}

// list gives the segments of a folder, oldest first, without their heads.
// Other files are left alone.
func list(dir string) ([]segment, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var segments []segment
	for _, f := range files {
		digits, ok := strings.CutSuffix(f.Name(), suffix)
		number, err := strconv.ParseUint(digits, 10, 64)
		if !ok || err != nil || segmentPath(dir, number) != filepath.Join(dir, f.Name()) {
			continue
		}
		info, err := f.Info()
		if err != nil {
			return nil, err
		}
		segments = append(segments, segment{number: number, path: filepath.Join(dir, f.Name()), bytes: info.Size()})
	}
	slices.SortFunc(segments, func(a, b segment) int { return cmp.Compare(a.number, b.number) })
	return segments, nil
}

// readHead takes boot, first number and age from the header. Of a segment with
// a damaged header it takes the first number from the first record that can be
// read, and the age from the file. ErrNewer is the only fault it reports: the
// others are found again when the segment is read.
func (s *segment) readHead() error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	s.created = info.ModTime()
	var c chain
	for step, err := range c.lines(s.path, f, 0) {
		switch {
		case errors.Is(err, ErrNewer):
			return err
		case err != nil:
		case step.header != nil:
			s.headed = true
			s.boot, s.first, s.created = step.header.Boot, step.header.First, step.header.Created
			return nil
		default:
			if before := Position(step.line - 2); before < step.entry.Position { // the header is line 1
				s.first = step.entry.Position - before
			}
			return nil
		}
	}
	return nil
}

// lastNewline is the offset behind the last newline of a file of this size.
func lastNewline(path string, size int64) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for end := size; end > 0; {
		start := max(0, end-int64(len(block)))
		n, err := f.ReadAt(block[:end-start], start)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if i := bytes.LastIndexByte(block[:n], '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		end = start
	}
	return 0, nil
}

// waypoint says where in the last segment a record starts, so that a reader
// who has read most of it need not start at its beginning.
type waypoint struct {
	position Position
	offset   int64
}

// stride is the number of records between waypoints: 64 are read past in
// about 0.2 ms.
const stride = 64

// mark remembers every 64th record of the last segment.
func (t *Trail) mark(p Position, offset int64) {
	if n := len(t.index); n == 0 || p >= t.index[n-1].position+stride {
		t.index = append(t.index, waypoint{p, offset})
	}
}
