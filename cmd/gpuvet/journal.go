//go:build journal && cgo

package main

import (
	"gpuvet.dev/detector/kmsg"
	"gpuvet.dev/detector/kmsg/journal"
)

// errNoJournal is why the journal cannot be read; nil: it can.
var errNoJournal error

// openJournal opens the journal in a folder, or the machine's own if dir is empty.
func openJournal(dir string, after kmsg.Cursor) (recordReader, error) {
	return journal.Open(dir, after)
}
