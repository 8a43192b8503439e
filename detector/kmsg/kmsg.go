// Package kmsg reads the kernel log record by record, in order, and says
// exactly what it could not read.
//
// [Open] gives a [Reader] on /dev/kmsg that goes on behind a [Cursor]; its Run
// delivers the records of this boot that the ring still holds, then new ones
// as they are written. Each record has a sequence number: a jump is reported
// as a [Gap] with its exact size. [Text] reads saved logs (dmesg, syslog,
// journal text, raw records) in the same form.
//
// The format is Documentation/ABI/testing/dev-kmsg of the kernel.
package kmsg

import "time"

// Kern is the facility of the kernel itself (syslog facility 0). The kernel
// changes facility 0 to 1 in whatever a process writes to /dev/kmsg, so a
// record of facility Kern was made by the kernel.
const Kern = 0

// Record is one record of the kernel log. Text is valid only until the
// callback that received the record returns.
type Record struct {
	Seq      uint64        // the kernel's sequence number, counted from boot
	Mono     time.Duration // time since boot on CLOCK_MONOTONIC; from a FIFO, as it is written there
	Time     time.Time     // wall-clock time
	Facility int           // Kern, or another syslog facility
	Level    int           // syslog level, 0 emergency to 7 debug
	Backlog  bool          // was in the ring before the reader started
	Text     []byte        // the message: escapes undone, no trailing newline, without KEY=value lines
}

// Gap says that records were overwritten before they could be read.
type Gap struct {
	Lost uint64 // how many
	Next uint64 // sequence number of the first record that is there again
}

// Cursor is a place in the kernel log of one boot: everything up to Seq was
// delivered. The zero Cursor is before everything.
type Cursor struct {
	Boot string `json:"boot,omitempty"` // /proc/sys/kernel/random/boot_id
	Seq  uint64 `json:"seq"`
}
