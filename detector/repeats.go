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
	event    string // type and code of a driver event, severity and minor number of a line
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
	if counts(before.Node, after.Node) {
		return true
	}
	for _, g := range after.GPUs {
		var was []Condition
		if i, known := before.gpu(g.PCI); known {
			if before.GPUs[i] == g {
				continue
			}
			was = before.GPUs[i].Conditions
		}
		if counts(was, g.Conditions) {
			return true
		}
	}
	return false
}

// counts reports whether a fault that is not told often enough yet was told once more.
func counts(before, after []Condition) bool {
	return slices.ContainsFunc(after, func(c Condition) bool {
		same := func(o Condition) bool { return o.Reason == c.Reason && o.Incident == c.Incident && o.Count == c.Count }
		return c.Repeat > 0 && !slices.ContainsFunc(before, same)
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

// repeatedLines are the lines of the kernel log without a code that may come by the
// thousand. A client of another version than the driver brings one about each time
// that it starts.
var repeatedLines = []Kind{KindPCIe, KindLink, KindInit, KindGPULost, KindHang, KindRecovery, KindSoftware}

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
	case e.Source == SourceKernelLog && slices.Contains(repeatedLines, e.Kind):
		key.event = e.Fields["severity"] + "/" + e.Fields["minor"]
	default:
		return repeatKey{}, false
	}
	return key, true
}

// repeatable reports whether other events may be mere repetitions of this one.
func (e *Event) repeatable() bool {
	_, repeatable := keyOf(e)
	return repeatable
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
