//go:build journal && cgo

package journal

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/sdjournal"

	"gpuvet.dev/detector/kmsg"
)

// Reader reads the kernel's records of one boot. Not safe for concurrent use.
//
// A record's Seq is the journal's own number of its entry. It grows, but the
// entries of other programs are counted too: a jump is no gap. A gap is what
// journald itself says that it missed, or that the entry of the cursor is gone
// (rotated away): then at least one record is lost, and nobody knows how many.
type Reader struct {
	journal *sdjournal.Journal
	boot    string
	after   kmsg.Cursor

	next     uint64 // the number that is due
	newest   uint64 // the number read last, due or not
	lost     uint64 // records that are missing before it
	caughtUp bool
}

// ErrAnew is the error of Run when journald begins to count its entries anew,
// as after its files were removed. A Reader opened again goes on from there.
var ErrAnew = errors.New("its entries are counted anew")

// missed is the id of journald's message about records that it could not read
// (SD_MESSAGE_JOURNAL_MISSED in sd-messages.h).
const missed = "e9bf28e6e834481bb6f48f548ad13606"

// wake is how long a wait for new entries lasts at most: it cannot be ended.
const wake = 500 * time.Millisecond

// userFacility stands for a facility that the journal does not tell: such a
// record must not pass for the kernel's.
const userFacility = 1

// Open opens the journal in a folder, or the machine's own if dir is empty, for
// the boot that is running, behind after. Close it when its Run has returned.
func Open(dir string, after kmsg.Cursor) (*Reader, error) {
	boot, err := kmsg.BootID()
	if err != nil {
		return nil, err
	}
	return OpenBoot(dir, boot, after)
}

// OpenBoot is [Open] for any boot that the journal holds.
func OpenBoot(dir, boot string, after kmsg.Cursor) (*Reader, error) {
	open := sdjournal.NewJournal
	if dir != "" {
		open = func() (*sdjournal.Journal, error) { return sdjournal.NewJournalFromDir(dir) }
	}
	j, err := open()
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	r := &Reader{journal: j, boot: boot, after: after}
	if err := r.seek(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// seek selects the entries and goes before the first of them.
func (r *Reader) seek() error {
	id := "_BOOT_ID=" + strings.ReplaceAll(r.boot, "-", "")
	for _, step := range []func() error{
		func() error { return r.journal.AddMatch(id) },
		func() error { return r.journal.AddMatch("_TRANSPORT=kernel") },
		r.journal.AddDisjunction,
		func() error { return r.journal.AddMatch(id) },
		func() error { return r.journal.AddMatch("_TRANSPORT=driver") },
		func() error { return r.journal.AddMatch("MESSAGE_ID=" + missed) },
		r.journal.SeekHead,
	} {
		if err := step(); err != nil {
			return fmt.Errorf("select the kernel's entries of boot %s: %w", r.boot, err)
		}
	}
	if r.after.Boot == r.boot {
		r.next = r.after.Seq + 1
	}
	return nil
}

// Boot is the boot id that a Cursor on this log must carry.
func (r *Reader) Boot() string { return r.boot }

// Close gives the journal back. Not during Run.
func (r *Reader) Close() error {
	if err := r.journal.Close(); err != nil {
		return fmt.Errorf("close the journal: %w", err)
	}
	return nil
}

// Run delivers records until ctx ends, and then returns nil within half a
// second. Run again, it goes on where it stopped.
func (r *Reader) Run(ctx context.Context, h kmsg.Handler) error {
	if h.Gap == nil {
		h.Gap = func(kmsg.Gap) {}
	}
	if h.CaughtUp == nil {
		h.CaughtUp = func() {}
	}
	for ctx.Err() == nil {
		n, err := r.journal.Next()
		if err != nil {
			return fmt.Errorf("read the journal: %w", err)
		}
		if n == 0 {
			if r.after.Boot == r.boot && r.newest > 0 && r.newest < r.after.Seq {
				// The cursor lies beyond the journal: it was begun anew and counts
				// from the start again.
				r.after, r.next = kmsg.Cursor{}, 0
				if err := r.journal.SeekHead(); err != nil {
					return fmt.Errorf("go to the head of the journal: %w", err)
				}
				continue
			}
			if !r.caughtUp {
				r.caughtUp = true
				h.CaughtUp()
			}
			r.journal.Wait(wake)
			continue
		}
		entry, err := r.journal.GetEntry()
		if err != nil {
			return fmt.Errorf("read the journal's entry: %w", err)
		}
		if err := r.deliver(entry, &h); err != nil {
			return err
		}
	}
	return nil
}

func (r *Reader) deliver(entry *sdjournal.JournalEntry, h *kmsg.Handler) error {
	seq, err := number(entry.Cursor)
	if err != nil {
		return err
	}
	r.newest = seq
	if seq < r.next {
		if r.caughtUp {
			return fmt.Errorf("read the journal: %w", ErrAnew)
		}
		if seq+1 == r.next {
			r.after = kmsg.Cursor{} // met again: nothing is missing behind it
		}
		return nil
	}
	if r.after.Boot == r.boot { // the first entry behind the cursor, and the cursor's own is gone
		r.lost++
	}
	r.after, r.next = kmsg.Cursor{}, seq+1
	if entry.Fields["_TRANSPORT"] == "driver" {
		r.lost += max(count(entry.Fields["MESSAGE"]), 1)
		return nil
	}
	if r.lost > 0 {
		h.Gap(kmsg.Gap{Lost: r.lost, Next: seq})
		r.lost = 0
	}
	h.Record(record(entry, seq, !r.caughtUp))
	return nil
}

func record(entry *sdjournal.JournalEntry, seq uint64, backlog bool) kmsg.Record {
	rec := kmsg.Record{
		Seq:      seq,
		Mono:     time.Duration(entry.MonotonicTimestamp) * time.Microsecond,
		Time:     time.UnixMicro(int64(entry.RealtimeTimestamp)),
		Facility: userFacility,
		Backlog:  backlog,
		Text:     []byte(entry.Fields["MESSAGE"]),
	}
	// When the kernel wrote it, rather than when journald read it.
	if written, err := strconv.ParseInt(entry.Fields["_SOURCE_MONOTONIC_TIMESTAMP"], 10, 64); err == nil {
		source := time.Duration(written) * time.Microsecond
		rec.Time, rec.Mono = rec.Time.Add(source-rec.Mono), source
	}
	if facility, err := strconv.Atoi(entry.Fields["SYSLOG_FACILITY"]); err == nil {
		rec.Facility = facility
	}
	if level, err := strconv.Atoi(entry.Fields["PRIORITY"]); err == nil {
		rec.Level = level
	}
	return rec
}

// number is the entry's number, which stands in its cursor as i=<hex>
// (systemd.journal-fields(7), __CURSOR). libsystemd has a call for it only
// since version 254.
func number(cursor string) (uint64, error) {
	for part := range strings.SplitSeq(cursor, ";") {
		if hex, ok := strings.CutPrefix(part, "i="); ok {
			if n, err := strconv.ParseUint(hex, 16, 64); err == nil {
				return n, nil
			}
		}
	}
	return 0, fmt.Errorf("read the journal's cursor %q: no number", cursor)
}

// count is the number in "Missed 12 kernel messages".
func count(message string) uint64 {
	for word := range strings.FieldsSeq(message) {
		if n, err := strconv.ParseUint(word, 10, 64); err == nil {
			return n
		}
	}
	return 0
}
