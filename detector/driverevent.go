package detector

import (
	"slices"
	"strconv"
	"strings"

	"gpuvet.dev/nvml"
)

// FromDriver makes the event that an event of the driver stands for. The caller
// adds ID and boot.
func FromDriver(e nvml.Event) Event {
	event := Event{
		Source: SourceEvents, Time: e.Time,
		GPU: Device{PCI: e.PCI, UUID: e.UUID, GPUInstance: e.GPUInstance, ComputeInstance: e.ComputeInstance},
	}
	if e.Type == nvml.EventXid {
		event.Kind, event.Xid = KindXid, &Report{Code: e.Xid}
		return event
	}
	event.Kind, event.Fields = KindDriverEvent, map[string]string{"type": string(e.Type)}
	if o := e.Operational; o != nil {
		event.Fields["severity"], event.Fields["level"], event.Fields["module"] = o.Severity, o.Level, o.Module
		event.Fields["code"] = strconv.FormatUint(uint64(o.Code), 10)
		event.Fields["category"] = strconv.FormatUint(uint64(o.Category), 10)
		event.Fields["attributes"] = strings.Join(o.Attributes, ",")
	}
	if e.Xid != 0 {
		event.Fields["xid"] = strconv.Itoa(e.Xid)
	}
	return event
}

// driverEvent folds what NVML tells as an event that is no Xid. One that stands for
// an Xid is folded as that, and is no Xid in any count.
func (f *folding) driverEvent() {
	e := &f.event
	row := f.policy.Event(e)
	if row.Reason == "" {
		return
	}
	if row.Xid != 0 {
		e.Xid = &Report{Code: row.Xid}
		f.xid()
		return
	}
	g := f.at()
	if g == nil {
		return
	}
	if i, ok := f.symptomOf(g, row.Verdict); ok {
		f.symptom(g, i, row.Verdict, e.cause(), 1)
		return
	}
	if i := slices.IndexFunc(g.Conditions, func(c Condition) bool { return f.sameFault(c, row.Verdict) }); i >= 0 {
		g.Conditions = slices.Clone(g.Conditions)
		g.Conditions[i].join(e.member())
		return
	}
	f.raise(g.PCI, row.Verdict, e.cause(), "", false)
}

// sameFault reports whether a fault, of which another event has just told, is that
// of the present one, which has no Xid to know it by: most of what happens is told
// as an operational event too. A fault that nobody sees yet hides no other, nor does
// a suspicion, which is of what tenants do.
func (f *folding) sameFault(c Condition, v Verdict) bool {
	shown := c.Visible() || c.Effect.Fences() || c.Reason == v.Reason
	return c.Event && shown && c.Reason != SuspectedByTenants && c.Class != Application && !v.Effect.Harder(c.Effect) && !f.outlived(nil, c) && f.event.Time.Sub(c.Last).Abs() <= mergeSpan
}

// alike adds to a fault that it was told in another form too: as an Xid, after an
// event that stands for it, or the other way round.
func (f *folding) alike(g *GPU, v Verdict, adds news) {
	e := &f.event
	i := slices.IndexFunc(g.Conditions, func(c Condition) bool { return c.Reason == v.Reason && c.at(f.where(v)) })
	if i < 0 || adds.xids == 0 && e.Kind != KindDriverEvent {
		return
	}
	if adds.xids > 0 {
		f.remaps(g)
	}
	g.Conditions = slices.Clone(g.Conditions)
	g.Conditions[i].join(e.member())
	if v.Reason == UncorrectableMemory {
		f.remapped(g, e.cause())
	}
}

// byEvent begins the cause of a fault that a driver event has told.
const byEvent = "NVML event "

// cause is the event in words, as the sign of a fault.
func (e *Event) cause() string {
	if e.Kind == KindXid {
		return "Xid " + strconv.Itoa(e.Xid.Code)
	}
	words := []string{byEvent + e.Fields["type"]}
	for _, word := range append([]string{e.Fields["severity"]}, strings.Split(e.Fields["attributes"], ",")...) {
		if word != "" && word != "primary" {
			words = append(words, word)
		}
	}
	return strings.Join(words, ", ")
}
