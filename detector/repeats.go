package detector

import "time"

// repeatSpan is how often an Xid that is repeated has a record.
const repeatSpan = time.Second

// repeats finds the events that only say again what has just been recorded:
// whoever can raise Xids at will must not flush the history with them.
type repeats map[repeatKey]*repeat

type repeatKey struct {
	pci  string
	code int
}

// repeat is the last record of an Xid, and what came like it since.
type repeat struct {
	at    time.Duration // since boot
	count uint64
}

// swallow reports whether an event needs no record of its own.
func (r repeats) swallow(e *Event, entry *Entry) bool {
	if e == nil || e.Kind != KindXid || len(entry.Transitions) > 0 || e.Xid == nil {
		return false
	}
	key := repeatKey{e.GPU.PCI, e.Xid.Code}
	last, ok := r[key]
	switch {
	case !ok:
		r[key] = &repeat{at: e.Mono}
		return false
	case (e.Mono - last.at).Abs() < repeatSpan:
		last.count++
		return true
	default:
		entry.Repeats = last.count
		*last = repeat{at: e.Mono}
		return false
	}
}
