package dra

import "errors"

// Kind says in one word why an operation failed: a label value.
type Kind string

// The kinds.
const (
	KindConfig  Kind = "config"  // what the claim says cannot be used
	KindUnknown Kind = "unknown" // a device that this node does not have
	KindUnfit   Kind = "unfit"   // a device has a fault
	KindSilent  Kind = "silent"  // a GPU did not answer
	KindHeld    Kind = "held"    // another claim has a device, or the call came late
	KindDisk    Kind = "disk"    // the claim could not be noted
	KindCDI     Kind = "cdi"     // the claim's CDI spec could not be made
	KindBusy    Kind = "busy"    // another call works on the claim, or the driver stops
	KindOther   Kind = "other"
)

// KindOf is the kind of an error that [Options.Begin] was told of; empty for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[kindError](err); ok {
		return e.kind
	}
	return KindOther
}

type kindError struct {
	kind Kind
	error
}

func (e kindError) Unwrap() error { return e.error }
