package kmsg

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"
)

// TextRecord is one record of a saved log.
type TextRecord struct {
	Line     int           // physical line where it begins, from 1
	Time     time.Time     // wall-clock time; zero if the log does not tell it
	Mono     time.Duration // time since boot; -1 if the log does not tell it
	Facility int           // Kern or another syslog facility; -1 if the log does not tell it
	Text     []byte        // the message, the caller's to keep; \n between the lines of one record
}

// ErrLongLine comes with a record whose text was cut at 1 MiB. Reading goes on.
var ErrLongLine = errors.New("line longer than 1 MiB was cut")

const maxLine = 1 << 20

// Text reads a saved kernel log of any common form, each line by itself:
//
//	12,2001,99999999,-;NVRM: …                                  /dev/kmsg
//	[ 1843.308145] NVRM: …                                      dmesg, console; also with a caller: [ 1843.308145][  T123]
//	[Sun Feb 23 16:24:24 2025] NVRM: …                          dmesg -T
//	[Feb23 16:24] NVRM: …    [  +0.000001] NVRM: …              dmesg -H
//	2025-02-23T16:24:24,435595+00:00 NVRM: …                    dmesg --time-format iso
//	<4>[ 1843.308145] NVRM: …                                   dmesg -r
//	kern  :warn  : [ 1843.308145] NVRM: …                       dmesg -x
//	Feb 23 16:24:24 node kernel: [ 1843.308145] NVRM: …         syslog, journalctl short and short-precise
//	2025-02-23T16:24:24.435595+00:00 node kernel: NVRM: …       syslog with RFC 3339 time, journalctl short-iso
//	<4>1 2025-02-23T16:24:24Z node kernel - - - NVRM: …         syslog of RFC 5424
//	Sun 2025-02-23 16:24:24 UTC node kernel: NVRM: …            journalctl short-full
//	1740327864.435595 node kernel: NVRM: …                      journalctl short-unix
//	[ 1843.308145] node kernel: NVRM: …                         journalctl short-monotonic
//	{"MESSAGE":"NVRM: …","_TRANSPORT":"kernel", …}              journalctl -o json
//	kernel: NVRM: …    NVRM: …                                  quoted without its header
//
// Lines that say they are of another program than the kernel are left out. A
// line that is indented as dmesg and journalctl indent what follows a newline
// inside a message is joined to the record it belongs to, so that nobody who
// can put a newline into a message can make a record of his own. A record is
// therefore delivered when the next one begins. Empty lines, NUL bytes, carriage
// returns before a newline, colours and a byte order mark are left out.
//
// Times without a zone are taken in the zone of the machine, and times without
// a year in the latest year that does not put them more than a day after now;
// [TextAt] sets both. The error is ErrLongLine, with a record that can be
// used, or the reader's, after which nothing follows.
func Text(r io.Reader) iter.Seq2[TextRecord, error] {
	return func(yield func(TextRecord, error) bool) {
		TextAt(r, time.Now())(yield)
	}
}

// TextAt is [Text] for a log that was saved at the given time: its location is
// the zone of times without one, and it decides the year of times without one.
func TextAt(r io.Reader, saved time.Time) iter.Seq2[TextRecord, error] {
	return func(yield func(TextRecord, error) bool) {
		in := &lineReader{in: bufio.NewReaderSize(r, 64<<10)}
		var open openRecord
		for {
			line, cut, err := in.next()
			if err != nil {
				if open.close(yield) && !errors.Is(err, io.EOF) {
					yield(TextRecord{}, fmt.Errorf("read line %d: %w", in.number, err))
				}
				return
			}
			indent := len(line) - len(bytes.TrimLeft(line, " \t"))
			if open.owns(indent) {
				open.join(line[indent:], cut)
				continue
			}
			e := parseEntry(line[indent:], saved)
			if !e.headed && open.entry.headed && open.begun && indent > open.indent {
				open.join(line[indent:], cut)
				continue
			}
			if !open.close(yield) {
				return
			}
			if indent < len(line) {
				open.begin(in.number, e, indent, len(line)-len(e.text), cut)
			}
		}
	}
}

// openRecord is the record that the next line may still continue.
type openRecord struct {
	begun  bool
	entry  entry
	line   int
	cut    bool
	indent int // blanks before its first line
	column int // where the text begins in its first line
}

func (o *openRecord) begin(line int, e entry, indent, column int, cut bool) {
	e.text = bytes.Clone(e.text)
	*o = openRecord{begun: true, entry: e, line: line, cut: cut, indent: indent, column: column}
}

// owns says that a line with this indentation belongs to o, whatever it holds:
// the dictionary of a raw record, or what stands exactly below the text of the
// first line. A header there was written by whoever wrote the message.
func (o *openRecord) owns(indent int) bool {
	return o.begun && indent > o.indent && (o.entry.raw || indent == o.column)
}

func (o *openRecord) join(text []byte, cut bool) {
	if o.entry.raw || o.entry.foreign {
		return
	}
	if room := maxLine - len(o.entry.text) - 1; len(text) > room {
		text, cut = text[:max(room, 0)], true
	}
	o.cut = o.cut || cut
	if len(o.entry.text) < maxLine {
		o.entry.text = append(append(o.entry.text, '\n'), text...)
	}
}

// close delivers the record, if there is one and it is the kernel's, and says
// whether the caller wants more.
func (o *openRecord) close(yield func(TextRecord, error) bool) bool {
	if !o.begun {
		return true
	}
	o.begun = false
	if o.entry.foreign {
		return true
	}
	var err error
	if o.cut {
		err = fmt.Errorf("read line %d: %w", o.line, ErrLongLine)
	}
	return yield(TextRecord{
		Line:     o.line,
		Time:     o.entry.time,
		Mono:     o.entry.mono,
		Facility: o.entry.facility,
		Text:     o.entry.text,
	}, err)
}

// lineReader reads lines of any length in bounded memory.
type lineReader struct {
	in     *bufio.Reader
	number int // of the line that next gave, from 1
	line   []byte
	err    error // comes when the line before it has been given
}

// next gives a line without its end, valid until the next call, and whether
// it was cut.
func (l *lineReader) next() (line []byte, cut bool, err error) {
	l.number++
	l.line = l.line[:0]
	if l.err != nil {
		return nil, false, l.err
	}
	for {
		piece, err := l.in.ReadSlice('\n')
		if room := maxLine - len(l.line); len(bytes.TrimRight(piece, "\r\n")) > room {
			piece, cut = piece[:room], true
		}
		l.line = append(l.line, piece...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case err != nil && len(l.line) == 0:
			return nil, false, err
		default:
			l.err = err
			return l.clean(), cut, nil
		}
	}
}

// clean takes away what terminals, crashes and other systems leave in a file.
func (l *lineReader) clean() []byte {
	line := bytes.TrimRight(l.line, "\r\n")
	if l.number == 1 {
		line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
	}
	if bytes.IndexByte(line, 0) >= 0 {
		line = bytes.ReplaceAll(line, []byte{0}, nil)
	}
	if bytes.IndexByte(line, '\x1b') >= 0 {
		line = uncolour(line)
	}
	return line
}

// uncolour removes the sequences that set colours: ESC [ digits and ; m.
func uncolour(line []byte) []byte {
	plain := make([]byte, 0, len(line))
	for {
		before, after, found := bytes.Cut(line, []byte("\x1b["))
		plain = append(plain, before...)
		if !found {
			return plain
		}
		line = bytes.TrimLeft(after, "0123456789;")
		if len(line) > 0 && line[0] == 'm' {
			line = line[1:]
			continue
		}
		plain = append(plain, "\x1b["...)
		line = after
	}
}
