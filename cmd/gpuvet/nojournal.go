//go:build !(journal && cgo)

package main

import (
	"errors"

	"gpuvet.dev/detector/kmsg"
)

// errNoJournal is why the journal cannot be read; nil: it can.
var errNoJournal = errors.New("this binary was built without the journal: build with -tags journal and cgo")

func openJournal(string, kmsg.Cursor) (recordReader, error) { return nil, errNoJournal }
