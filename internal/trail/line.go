package trail

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"
)

// maxLine bounds a line, so that a lost newline cannot fill the memory of
// whoever reads on.
const maxLine = 1 << 20

// maxID bounds an id, so that a header with all the marks is not too long.
const maxID = 256

// header is the first line of a segment.
type header struct {
	Version int               `json:"gpuvet-trail"`
	Boot    string            `json:"boot"`
	First   Position          `json:"first"`
	FirstID string            `json:"firstID"`
	Created time.Time         `json:"created"`
	Prev    string            `json:"prev,omitempty"` // hash of the last line of the segment before
	Marks   map[string]uint64 `json:"marks,omitempty"`
}

// record is every other line.
type record struct {
	Number Position        `json:"n"`
	Prev   string          `json:"prev"`
	ID     string          `json:"id"`
	Kind   string          `json:"kind"`
	Time   time.Time       `json:"time"`
	Data   json.RawMessage `json:"data"`
}

// appendRecord appends the line of a record, newline included. It is written
// by hand because it is on the way of every event; the reader's struct above
// is what it must agree with.
func appendRecord(line []byte, n Position, prev [sha256.Size]byte, r Record, data []byte) []byte {
	line = append(line, `{"n":`...)
	line = strconv.AppendUint(line, uint64(n), 10)
	line = append(line, `,"prev":"`...)
	line = hex.AppendEncode(line, prev[:])
	line = append(line, `","id":`...)
	line = appendString(line, r.ID)
	line = append(line, `,"kind":`...)
	line = appendString(line, r.Kind)
	line = append(line, `,"time":"`...)
	line = r.Time.UTC().AppendFormat(line, time.RFC3339Nano)
	line = append(line, '"')
	if len(data) > 0 {
		line = append(line, `,"data":`...)
		line = append(line, data...)
	}
	return append(line, "}\n"...)
}

func appendString(line []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			quoted, _ := json.Marshal(s) // a string always has a JSON form
			return append(line, quoted...)
		}
	}
	line = append(line, '"')
	line = append(line, s...)
	return append(line, '"')
}

// validate says why a record could not be read back as it is.
func (r Record) validate() error {
	switch year := r.Time.UTC().Year(); {
	case r.ID == "":
		return errors.New("record has no id")
	case len(r.ID) > maxID:
		return fmt.Errorf("record has an id of %d bytes, at most %d are kept", len(r.ID), maxID)
	case !utf8.ValidString(r.ID) || !utf8.ValidString(r.Kind):
		return fmt.Errorf("record %q has an id or kind that is not UTF-8", r.ID)
	case year < 0 || year > 9999:
		return fmt.Errorf("record %s is of the year %d", r.ID, year)
	}
	return nil
}

// lineReader gives the lines of a file.
type lineReader struct {
	buffered *bufio.Reader
	long     []byte
}

var errLong = fmt.Errorf("line has more than %d bytes", maxLine)

// next gives a line without its newline, valid until the next call. At the end
// it gives io.EOF, and ErrTorn if there is text behind the last newline. A
// line that is too long is passed over with errLong. size is what was read,
// newline included.
func (l *lineReader) next() (line []byte, size int64, err error) {
	l.long = l.long[:0]
	for {
		part, err := l.buffered.ReadSlice('\n')
		size += int64(len(part))
		switch {
		case err == nil && size > maxLine:
			return nil, size, errLong
		case err == nil && len(l.long) == 0:
			return part[:len(part)-1], size, nil
		case err == nil:
			l.long = append(l.long, part[:len(part)-1]...)
			return l.long, size, nil
		case errors.Is(err, io.EOF) && size > 0:
			return nil, size, ErrTorn
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, size, err
		}
		if size <= maxLine {
			l.long = append(l.long, part...)
		}
	}
}
