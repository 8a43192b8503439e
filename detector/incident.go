package detector

import (
	"fmt"
	"slices"
	"time"
)

// symptomSpan is how far a fault and its symptoms may be apart, in either order.
const symptomSpan = time.Minute

// maxMembers bounds what one incident lists.
const maxMembers = 32

// Member is one kind of sign that belongs to an incident.
type Member struct {
	Kind  Kind      `json:"kind"`
	Code  int       `json:"code,omitempty"` // Xid or SXid
	Count uint64    `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Symptom: the fault explains it, and it would be another fault alone.
	Symptom bool `json:"symptom,omitempty"`
	// Bare are those that NVML told by number alone, of a code whose line decides, as
	// long as the kernel log has not told that line.
	Bare uint64 `json:"bare,omitempty"`
}

// member is the event as one.
func (e *Event) member() Member {
	m := Member{Kind: e.Kind, Count: 1, First: e.Time, Last: e.Time}
	switch {
	case e.Xid != nil:
		m.Code = e.Xid.Code
		if e.Source == SourceEvents && e.Xid.NVLink == nil && m.Code >= firstNVLink5 && m.Code <= lastNVLink5 {
			m.Bare = 1
		}
	case e.SXid != nil:
		m.Code = e.SXid.Code
	}
	return m
}

// join adds a member to a condition that is the fold's own.
func (c *Condition) join(m Member) {
	if m.Kind == KindXid {
		c.Xids = with(c.Xids, m.Code)
	}
	i := slices.IndexFunc(c.Members, func(o Member) bool { return o.Kind == m.Kind && o.Code == m.Code })
	if i < 0 {
		if len(c.Members) < maxMembers {
			c.Members = append(slices.Clip(c.Members), m)
		}
		return
	}
	c.Members = slices.Clone(c.Members)
	o := &c.Members[i]
	o.Count, o.Bare = o.Count+m.Count, o.Bare+m.Bare
	if m.First.Before(o.First) {
		o.First = m.First
	}
	if m.Last.After(o.Last) {
		o.Last = m.Last
	}
}

// symptomOf finds the fault that explains a sign: Xid 45 near another fault, or
// named by the driver as caused by one; and whatever a lost GPU prints afterwards.
func (f *folding) symptomOf(g *GPU, v Verdict) (int, bool) {
	e := &f.event
	if i := slices.IndexFunc(g.Conditions, func(c Condition) bool { return c.Reason != v.Reason && f.swallows(g, c) }); i >= 0 {
		return i, true
	}
	if e.Xid == nil || e.Xid.Code != 45 {
		return 0, false
	}
	explains := func(c Condition) bool { return c.explains() && c.reaches(e.GPU) && !f.outlived(g, c) }
	by := e.Xid.CausedBy
	named := func(c Condition) bool { return explains(c) && slices.Contains(c.Xids, by) }
	if i := slices.IndexFunc(g.Conditions, named); by != 0 && i >= 0 {
		return i, true
	}
	if by != 0 && f.policy.Xids[by].Class == Application {
		return 0, false
	}
	i := slices.IndexFunc(g.Conditions, func(c Condition) bool { return explains(c) && c.near(e.Time) })
	return i, i >= 0
}

// near reports whether a time is near the fault, or near the last Xid 45 that it
// explains: a storm of them may go on for long.
func (c *Condition) near(at time.Time) bool {
	storm := func(m Member) bool { return m.Symptom && m.Code == 45 && at.Sub(m.Last).Abs() <= symptomSpan }
	return at.Sub(c.Last).Abs() <= symptomSpan || slices.ContainsFunc(c.Members, storm)
}

// swallows reports whether a fault is the loss of the GPU, and so explains the
// present sign.
func (f *folding) swallows(g *GPU, c Condition) bool {
	e := &f.event
	return c.Reason == GPULost && !f.outlived(g, c) && e.Mono >= c.Mono && (!g.Fresh || e.Time.Sub(c.Last) <= symptomSpan)
}

// explains reports whether others may be symptoms of a fault: one of a device,
// that an event or the driver's word has told of.
func (c *Condition) explains() bool {
	return c.Class != Application && c.Class != Information && !c.Polled && c.Reason != SuspectedByTenants && (c.Event || slices.Contains(recoveryReasons, c.Reason)) && c.Repeat == 0
}

// symptom adds the present event to the fault that explains it.
func (f *folding) symptom(g *GPU, i int, v Verdict, cause string, news uint64) {
	e := &f.event
	g.Conditions = slices.Clone(g.Conditions)
	c := &g.Conditions[i]
	m := e.member()
	m.Count, m.Symptom, m.Bare = news, true, 0
	first := !slices.ContainsFunc(c.Members, func(o Member) bool { return o.Kind == m.Kind && o.Code == m.Code })
	c.join(m)
	if v.Class != Application && v.Class != Information {
		// The device has told of it. What any process can bring about keeps no fault
		// from ending, and Xid 43, which one can, is no more than information.
		if e.Time.After(c.Last) {
			c.Last = e.Time
		}
		c.Mono, c.Boot = max(c.Mono, e.Mono), f.next.Boot
	}
	if news == 0 || !first {
		return
	}
	folded := Condition{
		Reason: v.Reason, Class: v.Class, Effect: v.Effect, Action: v.Action, Incident: c.Incident,
		GPUInstance: e.GPU.GPUInstance, ComputeInstance: e.GPU.ComputeInstance,
	}
	if folded.Reason == "" {
		folded.Reason = c.Reason
	}
	f.tell(g.PCI, folded, Folded, fmt.Sprintf("%s is a symptom of %s", cause, c.Cause), e.Time)
}

// adopt takes what came before the fault that explains it into that fault, which
// has just begun and stands at a place of the list.
func (f *folding) adopt(pci string, list []Condition, at int) []Condition {
	c := &list[at]
	if pci == "" || !c.explains() {
		return list
	}
	kept := list[:0]
	for i, o := range list {
		if i == at || !f.foreruns(o, *c) {
			continue
		}
		for _, m := range o.Members {
			m.Symptom = true
			c.join(m)
		}
		if o.Visible() {
			o.Incident = c.Incident
			f.tell(pci, o, Folded, fmt.Sprintf("%s is a symptom of %s", o.Cause, c.Cause), f.event.Time)
		}
		list[i].Reason = ""
	}
	for _, o := range list {
		if o.Reason != "" {
			kept = append(kept, o)
		}
	}
	return kept
}

// foreruns reports whether a fault was the first sign of another: an Xid 45 that
// nothing explained, or an error of the bus before the GPU was lost.
func (f *folding) foreruns(o, c Condition) bool {
	if c.Last.Sub(o.Last).Abs() > symptomSpan || !c.reaches(Device{GPUInstance: o.GPUInstance, ComputeInstance: o.ComputeInstance}) {
		return false
	}
	only := func(kind Kind, code int) bool {
		return !slices.ContainsFunc(o.Members, func(m Member) bool { return m.Kind != kind || m.Code != code })
	}
	switch {
	case only(KindDriverEvent, 0) && !o.Effect.Harder(c.Effect) && c.Last.Sub(o.Last).Abs() <= mergeSpan:
		return true // the operational form of what is told now
	case o.Class == Application:
		return only(KindXid, 45)
	case c.Reason == GPULost:
		return o.Reason == HardwareWarning && only(KindPCIe, 0) || o.Reason == PCIeErrors
	case o.Reason == UncorrectedErrors:
		return c.Reason == UncorrectableMemory || c.Reason == ContainedMemoryError
	default:
		return false
	}
}

// remaps notes that the row remapper was at work beside memory that failed: both
// are one incident, and the work must leave before the reset (NVIDIA's workflow
// for Xid 48 with 63 or 64).
func (f *folding) remaps(g *GPU) {
	e := &f.event
	if e.Xid.Code != 63 && e.Xid.Code != 64 {
		return
	}
	i := slices.IndexFunc(g.Conditions, func(c Condition) bool { return c.Reason == UncorrectableMemory && !f.outlived(g, c) })
	if i < 0 {
		return
	}
	g.Conditions = slices.Clone(g.Conditions)
	c := &g.Conditions[i]
	first := !slices.ContainsFunc(c.Members, func(o Member) bool { return o.Kind == e.Kind && o.Code == e.Xid.Code })
	if e.Xid.Code == 63 {
		c.join(e.member()) // 64 is a sign of its own
	}
	if c.beyondCorrection() {
		first = first || c.Action != ActDrainAndReset
		c.Action = ActDrainAndReset
	} else if e.Xid.Code == 64 {
		return
	}
	if first {
		f.tell(g.PCI, *c, Folded, e.cause(), e.Time)
	}
}

// drains reports whether the row remapper was at work before memory that has just
// failed: the work must leave then, too.
func (f *folding) drains(g *GPU, v Verdict) bool {
	failed := Condition{Xids: []int{f.event.Xid.Code}}
	return v.Reason == UncorrectableMemory && failed.beyondCorrection() && len(f.remapsNear(g)) > 0
}

// remapped adds to memory that has just failed what the row remapper did before.
func (f *folding) remapped(g *GPU, cause string) {
	i := slices.IndexFunc(g.Conditions, func(c Condition) bool { return c.Reason == UncorrectableMemory })
	near := f.remapsNear(g)
	if i < 0 || len(near) == 0 {
		return
	}
	g.Conditions = slices.Clone(g.Conditions)
	c := &g.Conditions[i]
	for _, x := range near {
		if x.Code == 63 && !slices.Contains(c.Xids, x.Code) {
			c.join(Member{Kind: KindXid, Code: x.Code, Count: 1, First: x.Last, Last: x.Last})
		}
	}
	if c.beyondCorrection() && c.Action != ActDrainAndReset {
		c.Action = ActDrainAndReset
		if c.Visible() {
			f.tell(g.PCI, *c, Folded, cause, f.event.Time)
		}
	}
}

// remapsNear are the codes by which the row remapper told of its work near the
// present sign.
func (f *folding) remapsNear(g *GPU) []XidCount {
	var near []XidCount
	for _, x := range g.Xids {
		if (x.Code == 63 || x.Code == 64) && f.event.Time.Sub(x.Last).Abs() <= symptomSpan {
			near = append(near, x)
		}
	}
	return near
}

// at reports whether a fault is that of a MIG instance; the zero Device stands for
// the whole GPU.
func (c *Condition) at(d Device) bool {
	return same(c.GPUInstance, d.GPUInstance) && same(c.ComputeInstance, d.ComputeInstance)
}

// reaches reports whether a fault concerns a MIG instance, or the whole GPU if
// the device names none: that of the GPU concerns all of them, that of a GPU
// instance all compute instances in it.
func (c *Condition) reaches(d Device) bool {
	return (c.GPUInstance == nil || same(c.GPUInstance, d.GPUInstance)) && (c.ComputeInstance == nil || same(c.ComputeInstance, d.ComputeInstance))
}

func same(a, b *int) bool { return a == b || a != nil && b != nil && *a == *b }

// beyondCorrection reports whether an error was found that could not be corrected.
func (c *Condition) beyondCorrection() bool {
	event := func(m Member) bool { return m.Kind == KindDriverEvent && m.Code == 48 }
	return slices.ContainsFunc(c.Xids, func(x int) bool { return x == 48 || x == 171 || x == 172 }) || slices.ContainsFunc(c.Members, event)
}
