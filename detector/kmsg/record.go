package kmsg

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"
)

// ErrNotRecord is the error of [ParseRecord] for bytes that have no header of
// a kernel record.
var ErrNotRecord = errors.New("not a kernel record")

// ParseRecord reads one record as /dev/kmsg gives it:
//
//	4,2001,99999999,-;NVRM: loading\x09the driver
//	 SUBSYSTEM=pci
//
// Text points into raw unless there were escapes to undo. Time stays zero: a
// record alone does not tell it. Header fields behind the flags are skipped,
// as the kernel's ABI document asks.
func ParseRecord(raw []byte) (Record, error) {
	var h header
	rest, ok := h.parse(raw)
	if !ok {
		return Record{}, fmt.Errorf("parse %.40q: %w", raw, ErrNotRecord)
	}
	rec := h.record()
	rec.Text, _ = text(rest, nil)
	return rec, nil
}

// header is what stands before the semicolon.
type header struct {
	priority uint64 // facility times 8 plus level
	seq      uint64
	usec     uint64
	numbered bool // seq was read, whatever became of the rest
}

// The kernel masks a priority with 0x3ff (LOG_FACMASK and LOG_PRIMASK).
const maxPriority = 0x3ff

// parse fills h from raw and gives what stands behind the semicolon.
func (h *header) parse(raw []byte) (rest []byte, ok bool) {
	var i int
	h.numbered = false
	if h.priority, i, ok = number(raw, 0); !ok || i == len(raw) || raw[i] != ',' {
		return nil, false
	}
	if h.seq, i, ok = number(raw, i+1); !ok || i == len(raw) || raw[i] != ',' || h.seq == math.MaxUint64 {
		return nil, false
	}
	h.numbered = true
	if h.usec, i, ok = number(raw, i+1); !ok || h.priority > maxPriority || h.usec > math.MaxInt64/1000 {
		return nil, false
	}
	// Nearly every record has a single flag; only newer fields need the search.
	if i+2 < len(raw) && raw[i] == ',' && raw[i+2] == ';' {
		return raw[i+3:], true
	}
	if i == len(raw) || (raw[i] != ',' && raw[i] != ';') {
		return nil, false
	}
	end := bytes.IndexByte(raw[i:], ';')
	if end < 0 || bytes.IndexByte(raw[i:i+end], '\n') >= 0 {
		return nil, false
	}
	return raw[i+end+1:], true
}

func (h *header) record() Record {
	return Record{
		Seq:      h.seq,
		Mono:     time.Duration(h.usec) * time.Microsecond,
		Facility: int(h.priority >> 3),
		Level:    int(h.priority & 7),
	}
}

// number reads decimal digits from raw[i] on and gives the place behind them.
func number(raw []byte, i int) (n uint64, end int, ok bool) {
	first := i
	for ; i < len(raw); i++ {
		d := uint64(raw[i] - '0')
		if d > 9 {
			break
		}
		if n > (math.MaxUint64-9)/10 {
			return 0, i, false
		}
		n = n*10 + d
	}
	return n, i, i > first
}

// text gives the message in what follows a header. Escapes are undone in
// scratch, which is returned, grown if need be, for the next record.
func text(rest, scratch []byte) (message, grown []byte) {
	if end := bytes.IndexByte(rest, '\n'); end >= 0 {
		rest = rest[:end]
	}
	escape := bytes.IndexByte(rest, '\\')
	if escape < 0 {
		return rest, scratch
	}
	scratch = unescape(append(scratch[:0], rest[:escape]...), rest[escape:])
	return scratch, scratch
}

// unescape appends s to dst with \xNN as the byte it stands for. A backslash
// that begins no such escape stays: the kernel escapes every backslash of a
// message, so this one was not made by it and nothing is known about it.
func unescape(dst, s []byte) []byte {
	for {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return append(dst, s...)
		}
		dst = append(dst, s[:i]...)
		s = s[i:]
		if len(s) >= 4 && s[1] == 'x' && hexDigit(s[2]) >= 0 && hexDigit(s[3]) >= 0 {
			dst = append(dst, byte(hexDigit(s[2])<<4|hexDigit(s[3])))
			s = s[4:]
			continue
		}
		dst = append(dst, '\\')
		s = s[1:]
	}
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
