package kmsg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Handler receives what a Reader finds, one call at a time and in order. While
// it works nothing is read, and the kernel overwrites what it must: hand slow
// work to someone else. Gap and CaughtUp may be nil.
type Handler struct {
	Record   func(Record)
	Gap      func(Gap) // comes before the record that Gap.Next names
	CaughtUp func()    // once: everything that was there at the start has been delivered
}

// Reader reads the kernel log of this boot. It is not safe for concurrent use.
//
// What it guarantees: each record that the kernel still held when its turn
// came is delivered once; the number of those it did not is told exactly, when
// the next record shows it. What the kernel overwrote before the first start
// in this boot is not a gap: it was never ours to read. Behind a Cursor of
// this boot it is.
type Reader struct {
	path string
	boot string

	fd     int
	fifo   bool // lines from a pipe: no backlog, and the time is that of arrival
	read   func([]byte) (int, error)
	rewind func() error

	next     uint64 // sequence number that is due
	counting bool   // next is meant: false until the first record of a fresh start
	unproven bool   // next comes from a cursor that no record has confirmed
	newest   uint64 // sequence number read last, due or not
	seen     bool   // newest is meant
	caughtUp bool

	clock   clock
	start   time.Duration // when Run began, on the monotonic clock
	reads   uint          // since the start, to tick the clock under load
	prompt  bool          // the next record was waited for
	buffer  []byte
	filled  int  // bytes of an unfinished line in buffer (FIFO)
	discard bool // inside a line that is longer than buffer (FIFO)
	scratch []byte
}

// The kernel formats a record in 8 KiB (CONSOLE_EXT_LOG_MAX, later less).
const bufferSize = 8 << 10

// No ring holds this many records above bufferSize in a row: it is the read
// itself that the kernel refuses.
const maxOversized = 1000

func newReader(path, boot string, after Cursor) *Reader {
	r := &Reader{path: path, boot: boot, fd: -1, buffer: make([]byte, bufferSize), scratch: make([]byte, 0, bufferSize)}
	r.clock.measure = measureLag
	if after.Boot == boot {
		r.next, r.counting, r.unproven = after.Seq+1, true, true
	}
	return r
}

// Boot is the boot id that a Cursor on this log must carry.
func (r *Reader) Boot() string { return r.boot }

// Close gives the device back. Not during Run.
func (r *Reader) Close() error {
	if r.fd < 0 {
		return nil
	}
	err := unix.Close(r.fd)
	r.fd = -1
	if err != nil {
		return fmt.Errorf("close %s: %w", r.path, err)
	}
	return nil
}

// Run delivers records until ctx ends, and then returns nil at once, whether
// it was reading or waiting. Run again, it goes on where it stopped. It keeps an
// OS thread to itself and waits in poll(2): a ring is full within milliseconds
// in a burst, too short a time to queue for a turn of the Go scheduler.
func (r *Reader) Run(ctx context.Context, h Handler) error {
	if h.Gap == nil {
		h.Gap = func(Gap) {}
	}
	if h.CaughtUp == nil {
		h.CaughtUp = func() {}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	bell, err := newBell(ctx)
	if err != nil {
		return err
	}
	defer bell.close()
	if err := r.clock.start(); err != nil {
		return err
	}
	r.start = r.clock.now
	for oversized := 0; !bell.rung.Load(); {
		if r.reads++; r.reads%1024 == 0 {
			r.clock.tick()
		}
		n, err := r.read(r.buffer[r.filled:])
		if err == nil {
			oversized = 0
			if err := r.take(n, &h); err != nil {
				return err
			}
			continue
		}
		switch {
		case errors.Is(err, unix.EAGAIN):
			if r.staleCursor() {
				if err := r.rewind(); err != nil {
					return fmt.Errorf("seek %s to the oldest record: %w", r.path, err)
				}
				continue
			}
			r.endBacklog(&h)
			if err := bell.wait(r.fd); err != nil {
				return fmt.Errorf("poll %s: %w", r.path, err)
			}
			r.clock.tick()
			r.prompt = true
		case errors.Is(err, unix.EPIPE):
			// Overwritten: the next record's number tells how many are missing.
			r.prompt = false
		case errors.Is(err, unix.EINVAL) && oversized < maxOversized:
			// Larger than our buffer: the kernel has passed it over, and the
			// next record's number tells that it is missing.
			oversized++
			r.prompt = false
		case errors.Is(err, unix.EINTR):
		default:
			return fmt.Errorf("read %s: %w", r.path, err)
		}
	}
	return nil
}

// take handles what one read has brought.
func (r *Reader) take(n int, h *Handler) error {
	switch {
	case n == 0:
		return fmt.Errorf("read %s: %w", r.path, io.ErrUnexpectedEOF)
	case r.fifo:
		r.lines(n, h)
	default:
		r.record(r.buffer[:n], h)
	}
	return nil
}

// record delivers one raw record, if it is due and can be read.
func (r *Reader) record(raw []byte, h *Handler) {
	var head header
	rest, ok := head.parse(raw)
	if !ok {
		if head.numbered {
			r.due(head.seq, h)
		}
		return
	}
	rec := head.record()
	if r.prompt {
		r.clock.received(rec.Mono)
		r.prompt = false
	}
	if !r.caughtUp && !r.fifo && head.seq >= r.next {
		if rec.Backlog = rec.Mono+r.clock.lag < r.start; !rec.Backlog {
			r.endBacklog(h)
		}
	}
	if !r.due(head.seq, h) {
		return
	}
	if r.fifo {
		rec.Time = r.clock.wall
	} else {
		rec.Time = r.clock.at(rec.Mono)
		rec.Mono += r.clock.lag
	}
	rec.Text, r.scratch = text(rest, r.scratch)
	h.Record(rec)
}

// lines delivers the records among the lines that a FIFO gave; a read may end
// within a line.
func (r *Reader) lines(n int, h *Handler) {
	r.clock.tick()
	data := r.buffer[:r.filled+n]
	for {
		line, rest, found := bytes.Cut(data, []byte{'\n'})
		if !found {
			break
		}
		if !r.discard && len(line) > 0 && line[0] != ' ' {
			r.record(line, h)
		}
		r.discard = false
		data = rest
	}
	if r.discard = r.discard || len(data) == len(r.buffer); r.discard {
		data = nil
	}
	r.filled = copy(r.buffer, data)
}

// due keeps count: it tells a gap before seq, and whether seq is to be
// delivered.
func (r *Reader) due(seq uint64, h *Handler) bool {
	r.newest, r.seen = seq, true
	if r.counting {
		if seq < r.next {
			return false
		}
		if seq > r.next {
			h.Gap(Gap{Lost: seq - r.next, Next: seq})
		}
	}
	r.next, r.counting, r.unproven = seq+1, true, false
	return true
}

// staleCursor tells, at the end of the log, that the cursor lies beyond it: a
// machine restored from a snapshot has the boot id of its earlier self and
// counts records again from there. Such a cursor is of another boot in all but
// name, and is dropped.
func (r *Reader) staleCursor() bool {
	if r.fifo || !r.unproven || !r.seen {
		return false
	}
	r.unproven = false
	if r.newest+1 >= r.next {
		return false
	}
	r.next, r.counting = 0, false
	return true
}

func (r *Reader) endBacklog(h *Handler) {
	if !r.caughtUp {
		r.caughtUp = true
		h.CaughtUp()
	}
}
