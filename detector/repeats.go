package detector

import (
	"slices"
	"time"
)

// repeatSpan is how often an Xid or driver event that is repeated has a record.
const repeatSpan = time.Second

// repeats finds the events that only say again what has just been recorded:
// whoever can raise Xids at will must not flush the history with them.
type repeats map[repeatKey]*repeat

type repeatKey struct {
	pci      string
	code     int
	event    string // type and code of a driver event
	instance string // of a MIG device
	tenant   string
}

// maxRepeats bounds the map: namespaces come and go.
const maxRepeats = 4096

// repeat is the last record of its kind, and what came like it since.
type repeat struct {
	at    time.Duration // since boot
	count uint64
}

// awaited reports whether an event, from one state to the next, was one of the
// signs that a fault needs before it is seen: a replay has to count them too.
func awaited(before, after *State, e *Event) bool {
	if e == nil {
		return false
	}
	i, known := after.gpu(e.GPU.PCI)
	if !known {
		return false
	}
	var was []Condition
	if j, known := before.gpu(e.GPU.PCI); known {
		was = before.GPUs[j].Conditions
	}
	return slices.ContainsFunc(after.GPUs[i].Conditions, func(c Condition) bool {
		same := func(o Condition) bool { return o.Reason == c.Reason && o.Incident == c.Incident && o.Count == c.Count }
		return c.Repeat > 0 && !slices.ContainsFunc(was, same)
	})
}

// swallow reports whether an event needs no record of its own.
func (r repeats) swallow(e *Event, entry *Entry) bool {
	if e == nil || len(entry.Transitions) > 0 {
		return false
	}
	key := repeatKey{pci: e.GPU.PCI, instance: e.GPU.instance(), tenant: e.Holder.tenant()}
	switch {
	case e.Kind == KindXid && e.Xid != nil:
		key.code = e.Xid.Code
	case e.Kind == KindDriverEvent:
		key.event = e.Fields["type"] + "/" + e.Fields["code"]
	default:
		return false
	}
	last, ok := r[key]
	switch {
	case !ok:
		if len(r) >= maxRepeats {
			clear(r)
		}
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
