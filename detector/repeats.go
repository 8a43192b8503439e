package detector

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// repeatSpan is how often what is repeated has a record.
const repeatSpan = time.Second

// repeats finds the events that only say again what has just been recorded:
// whoever can raise Xids at will must not flush the history with them, nor a
// PCIe link that reports its errors by the thousand.
type repeats map[repeatKey]*repeat

type repeatKey struct {
	kind     Kind
	pci      string
	code     int
	event    string // type and code of a driver event, severity of an error of a bus or link
	instance string // of a MIG device
	tenant   string
}

// maxRepeats bounds the map: namespaces come and go.
const maxRepeats = 4096

// repeat is the last record of its kind, and what came like it since.
type repeat struct {
	at    time.Duration // since boot
	count uint64
	last  *Event // the newest of those
	seen  uint64 // count, when it was looked at last
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
	key, repeatable := keyOf(e)
	if !repeatable {
		return false
	}
	last, ok := r[key]
	switch {
	case !ok:
		if len(r) < maxRepeats {
			r[key] = &repeat{at: e.Mono}
		}
		return false
	case (e.Mono - last.at).Abs() < repeatSpan:
		last.count, last.last = last.count+1, e
		return true
	default:
		entry.Repeats = last.count
		*last = repeat{at: e.Mono}
		return false
	}
}

// keyOf is what events have in common that repeat each other, if any may.
func keyOf(e *Event) (repeatKey, bool) {
	key := repeatKey{kind: e.Kind, pci: e.GPU.PCI, instance: e.GPU.instance(), tenant: e.Holder.tenant()}
	switch {
	case e.Kind == KindXid && e.Xid != nil:
		key.code = e.Xid.Code
	case e.Kind == KindSXid && e.SXid != nil:
		key.code, key.event = e.SXid.Code, e.SXid.Switch
	case e.Kind == KindDriverEvent:
		key.event = e.Fields["type"] + "/" + e.Fields["code"]
	case e.Source == SourceKernelLog && (e.Kind == KindPCIe || e.Kind == KindLink):
		key.event = e.Fields["severity"]
	default:
		return repeatKey{}, false
	}
	return key, true
}

// settle gives the records of those that none stands for and that nothing has
// followed since they were looked at last, or of all, in the order of their numbers:
// a record is of the newest, and counts those before it. It reports whether there
// are others. What was silent for as long as a record lasts, up to now, is forgotten.
func (r repeats) settle(now time.Duration, all bool) (entries []trailEntry, more bool) {
	var owed []*repeat
	for key, last := range r {
		switch {
		case last.count > 0 && (all || last.count == last.seen):
			owed = append(owed, last)
		case last.count > 0:
			last.seen, more = last.count, true
		case now-last.at >= repeatSpan:
			delete(r, key)
		}
	}
	slices.SortFunc(owed, func(a, b *repeat) int {
		x, m, _ := number(a.last.ID)
		y, n, _ := number(b.last.ID)
		return cmp.Or(cmp.Compare(x, y), cmp.Compare(m, n))
	})
	for _, o := range owed {
		e := *o.last
		// Others of its source may be in the trail with higher numbers, and the
		// trail would take it for one that it has.
		series, n, _ := number(e.ID)
		e.ID = fmt.Sprintf("%s-repeats/%d", series, n)
		entries = append(entries, trailEntry{
			id: e.ID, kind: string(e.Kind), at: e.Time, entry: Entry{Event: &e, Repeats: o.count - 1},
		})
		*o = repeat{at: e.Mono}
	}
	return entries, more
}
