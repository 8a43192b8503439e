package detector

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"gpuvet.dev/nvml"
)

// xid folds one report of an Xid: counted once whoever reports it, then put
// down to the fault that caused it, or to one of its own.
func (f *folding) xid() {
	e := &f.event
	g := f.at()
	if g == nil || e.Xid == nil {
		return
	}
	var news uint64
	g.Merging, news = merge(g.Merging, e.Xid.Code, e.Source, e.Time)
	if news > 0 {
		f.countXid(g, news)
	}
	major := f.next.Driver.Major()
	if e.Xid.NVLink != nil {
		if _, ok := e.Xid.NVLink.Decode(e.Xid.Code, major); !ok {
			f.next.Counters.Undecoded++
		}
	}
	verdict := f.policy.Xid(e.Xid, major)
	if e.Xid.Action != nil {
		// Xid 154 is the driver's own word, and overrides the catalogue.
		f.recovery(g, e.Xid.Action.To)
		return
	}
	cause := fmt.Sprintf("Xid %d", e.Xid.Code)
	if i, ok := f.symptomOf(g, verdict); ok {
		f.member(g, i, verdict, cause, news)
		return
	}
	if by := e.Xid.CausedBy; by != 0 && f.policy.Xids[by].Class != Application {
		// The driver names the cause, and it left no fault of this GPU.
		return
	}
	standing := slices.ContainsFunc(g.Conditions, func(c Condition) bool { return c.Reason == verdict.Reason })
	if news == 0 && (standing || !verdict.Effect.Fences()) {
		// The other reporter has told of it; this one may know what it did not.
		f.detail(g, verdict.Reason)
		return
	}
	f.escalate(g)
	if verdict.Reason == UncorrectableMemory && f.remapped(g) {
		verdict.Action = ActDrainAndReset
	}
	f.raise(g.PCI, verdict, cause, e.Xid.Text, false)
}

// escalate notes that a failed memory now also touched the row remapper: the
// work must leave before the reset (NVIDIA's workflow for Xid 48 with 63 or 64).
func (f *folding) escalate(g *GPU) {
	if code := f.event.Xid.Code; code != 63 && code != 64 {
		return
	}
	i := slices.IndexFunc(g.Conditions, func(c Condition) bool {
		return c.Reason == UncorrectableMemory && slices.ContainsFunc(c.Xids, func(x int) bool { return x == 48 || x == 171 || x == 172 })
	})
	if i < 0 || g.Conditions[i].Action == ActDrainAndReset {
		return
	}
	g.Conditions = slices.Clone(g.Conditions)
	c := &g.Conditions[i]
	c.Action = ActDrainAndReset
	c.Xids = with(c.Xids, f.event.Xid.Code)
	f.tell(g.PCI, *c, Folded, fmt.Sprintf("Xid %d", f.event.Xid.Code), f.event.Time)
}

// remapped reports whether the row remapper was at work just before.
func (f *folding) remapped(g *GPU) bool {
	return slices.ContainsFunc(g.Xids, func(x XidCount) bool {
		return (x.Code == 63 || x.Code == 64) && f.event.Time.Sub(x.Last).Abs() <= symptomSpan
	})
}

func (f *folding) countXid(g *GPU, news uint64) {
	code := f.event.Xid.Code
	g.Xids = slices.Clone(g.Xids)
	i, ok := slices.BinarySearchFunc(g.Xids, code, func(x XidCount, code int) int { return x.Code - code })
	if !ok {
		if len(g.Xids) >= maxCodes {
			return
		}
		g.Xids = slices.Insert(g.Xids, i, XidCount{Code: code})
	}
	g.Xids[i].Count += news
	if f.event.Time.After(g.Xids[i].Last) {
		g.Xids[i].Last = f.event.Time
	}
}

// symptomOf finds the fault that explains the report: Xid 45 after another
// fault, or named by the driver as caused by one; and whatever a lost GPU
// prints afterwards.
func (f *folding) symptomOf(g *GPU, v Verdict) (int, bool) {
	e := &f.event
	for i, c := range g.Conditions {
		switch {
		case c.Class == Application || c.Reason == v.Reason:
			continue
		case c.Reason == GPULost && !f.outlived(c) && e.Mono >= c.Mono && (!g.Fresh || e.Time.Sub(c.Last) <= symptomSpan):
			return i, true
		case e.Xid.Code != 45:
			continue
		case e.Xid.CausedBy != 0 && slices.Contains(c.Xids, e.Xid.CausedBy):
			return i, true
		case e.Time.Sub(c.Last).Abs() <= symptomSpan:
			return i, true
		}
	}
	return 0, false
}

// member adds a report to the fault that explains it.
func (f *folding) member(g *GPU, i int, v Verdict, cause string, news uint64) {
	g.Conditions = slices.Clone(g.Conditions)
	c := &g.Conditions[i]
	first := !slices.Contains(c.Xids, f.event.Xid.Code)
	c.Xids = with(c.Xids, f.event.Xid.Code)
	if f.event.Time.After(c.Last) {
		c.Last = f.event.Time
	}
	c.Mono, c.Boot = max(c.Mono, f.event.Mono), f.next.Boot
	if news == 0 || !first {
		return
	}
	folded := Condition{Reason: v.Reason, Class: v.Class, Effect: v.Effect, Action: v.Action, Incident: c.Incident}
	if folded.Reason == "" {
		folded.Reason = c.Reason
	}
	f.tell(g.PCI, folded, Folded, fmt.Sprintf("%s is a symptom of %s", cause, c.Cause), f.event.Time)
}

// detail lets the second reporter of a fault say what the first could not.
func (f *folding) detail(g *GPU, reason Reason) {
	i := slices.IndexFunc(g.Conditions, func(c Condition) bool { return c.Reason == reason && c.Message == "" })
	if i < 0 || f.event.Xid.Text == "" {
		return
	}
	g.Conditions = slices.Clone(g.Conditions)
	g.Conditions[i].Message = f.event.Xid.Text
}

// raise begins a fault, or adds a sign to one under way. With fact, the fault
// stands as long as its source says so; otherwise it ends by evidence.
func (f *folding) raise(pci string, v Verdict, cause, message string, fact bool) {
	v = f.policy.rule(v, &f.event)
	if v.Reason == "" {
		return
	}
	e, row := &f.event, f.policy.Reasons[v.Reason]
	if pci == "" && row.Scope != ScopeNode {
		return
	}
	conditions, ended := f.place(pci)
	if conditions == nil {
		return
	}
	if end, ok := ended[v.Reason]; ok && e.Mono <= end {
		f.next.Counters.Late++
		return
	}
	list := slices.Clone(*conditions)
	i := slices.IndexFunc(list, func(c Condition) bool { return c.Reason == v.Reason })
	if i < 0 {
		list = append(list, f.begin(v, row, cause, message))
		i = len(list) - 1
	}
	c := &list[i]
	before := c.Effect
	if v.Effect.Harder(c.Effect) {
		c.Effect, c.Class, c.Action = v.Effect, v.Class, v.Action
	}
	if e.Time.After(c.Last) {
		c.Last = e.Time
	}
	c.Mono = max(c.Mono, e.Mono)
	c.Count++
	c.Boot = f.next.Boot
	if fact {
		c.Fact = e.Source
	} else {
		c.Event = true
	}
	if e.Xid != nil {
		c.Xids = with(c.Xids, e.Xid.Code)
	}
	*conditions = list
	if c.Visible() && (c.Count == 1 || before != c.Effect) {
		f.tell(pci, *c, Raised, because(cause, why(e.Xid, f.next.Driver.Major())), e.Time)
	}
}

func (f *folding) begin(v Verdict, row Row, cause, message string) Condition {
	e := &f.event
	c := Condition{
		Reason: v.Reason, Class: v.Class, Scope: row.Scope, Effect: v.Effect, Action: v.Action, Taint: row.Taint,
		Cause: cause, Why: why(e.Xid, f.next.Driver.Major()), Since: e.Time, Last: e.Time, Message: message, Incident: e.ID,
	}
	if row.Clear == ClearQuiet {
		c.Quiet = row.Quiet
	}
	if row.Hold > 0 {
		until := f.next.Mono + row.Hold
		if p := f.next.Pause; p != nil {
			until = p.Ends + row.Hold
		}
		c.Held = &until
	}
	return c
}

// because is a cause with what has decided about it.
func because(cause, why string) string {
	if why == "" {
		return cause
	}
	return cause + ": " + why
}

// place is the list of faults at an address, or the node's.
func (f *folding) place(pci string) (*[]Condition, map[Reason]time.Duration) {
	if pci == "" {
		return &f.next.Node, nil
	}
	i, ok := f.next.gpu(pci)
	if !ok {
		return nil, nil
	}
	g := f.own(i)
	return &g.Conditions, g.Ended
}

// fact folds what NVML says about one GPU.
func (f *folding) fact() {
	e := &f.event
	g := f.at()
	if g == nil {
		return
	}
	switch e.Kind {
	case KindGPUFound:
		f.identify(g)
	case KindGPUMissing:
		g.Missing, g.Fresh = true, false
		f.raise(g.PCI, Verdict{Reason: GPULost, Class: Hardware, Effect: NoSchedule, Action: ActRebootNode}, "gone from the driver's list", "", true)
	case KindGPUBack:
		f.lower(g, GPULost)
	case KindFresh:
		g.Fresh = true
	case KindStale:
		g.Fresh = false
	case KindUnresponsive:
		g.Fresh = false
		f.raise(g.PCI, Verdict{Reason: Unresponsive, Class: Driver, Effect: NoSchedule, Action: ActRebootNode}, "driver calls do not return", "", true)
	case KindResponsive:
		f.lower(g, Unresponsive)
	case KindRecoveryAction:
		if action, err := strconv.Atoi(e.Fields["action"]); err == nil {
			f.recovery(g, action)
		}
	case KindRemapPending:
		g.Pending = e.Fields["pending"] == "true"
		f.level(g, g.Pending, Verdict{Reason: RowRemapPending, Class: Hardware, Action: ActDrainAndReset}, "a row remap waits for a reset")
	case KindRemapFailed:
		f.level(g, e.Fields["failed"] == "true", Verdict{Reason: RowRemapFailed, Class: Hardware, Effect: NoSchedule, Action: ActContactSupport}, "no spare row is left")
	}
}

func (f *folding) identify(g *GPU) {
	e := &f.event
	if e.GPU.UUID != "" && g.UUID != "" && g.UUID != e.GPU.UUID {
		// Another GPU sits at this address: the old one took its faults along.
		f.without(g, g.Conditions, func(Condition) bool { return true }, "another GPU is at this address")
		*g = GPU{PCI: g.PCI}
	}
	g.Missing, g.Index = false, integer(e.Fields["index"])
	// One that does not answer is listed all the same: what was known of it holds.
	g.UUID = cmp.Or(e.GPU.UUID, g.UUID)
	g.Name, g.Architecture = cmp.Or(e.Fields["name"], g.Name), cmp.Or(e.Fields["architecture"], g.Architecture)
	g.Serial, g.VBIOS = cmp.Or(e.Fields["serial"], g.Serial), cmp.Or(e.Fields["vbios"], g.VBIOS)
	g.Minor = cmp.Or(integer(e.Fields["minor"]), g.Minor)
	memory, _ := strconv.ParseUint(e.Fields["memoryBytes"], 10, 64)
	g.MemoryBytes = cmp.Or(memory, g.MemoryBytes)
}

func integer(s string) *int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return nil
	}
	return &n
}

func (f *folding) level(g *GPU, on bool, v Verdict, cause string) {
	waived := slices.Index(g.Waived, v.Reason)
	switch {
	case !on:
		f.lower(g, v.Reason)
		if waived >= 0 {
			g.Waived = slices.Delete(slices.Clone(g.Waived), waived, waived+1)
		}
	case waived < 0:
		f.raise(g.PCI, v, cause, "", true)
	}
}

// recoveryReasons are those that a recovery action stands for.
var recoveryReasons = []Reason{ResetRequired, RebootRequired, LinkFault}

// recovery folds what the driver asks for. Each action stands for one reason;
// what it asked for before is no longer a fact.
func (f *folding) recovery(g *GPU, action int) {
	g.Recovery = action
	v := recovery(action)
	for _, reason := range recoveryReasons {
		if reason != v.Reason {
			f.lower(g, reason)
		}
	}
	f.raise(g.PCI, v, "recovery action "+nvml.RecoveryAction(action).String(), "", true)
}

// lower says that a fault is no longer a fact. Whether it ends is settled with
// the rest of the evidence.
func (f *folding) lower(g *GPU, reason Reason) {
	i := slices.IndexFunc(g.Conditions, func(c Condition) bool { return c.Reason == reason && c.Fact != "" })
	if i < 0 {
		return
	}
	g.Conditions = slices.Clone(g.Conditions)
	g.Conditions[i].Fact = ""
}

// lowerNode is the same for a fault of the node.
func (f *folding) lowerNode(reason Reason) {
	i := slices.IndexFunc(f.next.Node, func(c Condition) bool { return c.Reason == reason && c.Fact != "" })
	if i < 0 {
		return
	}
	f.next.Node = slices.Clone(f.next.Node)
	f.next.Node[i].Fact = ""
}

func with(codes []int, code int) []int {
	if slices.Contains(codes, code) {
		return codes
	}
	return append(slices.Clone(codes), code)
}

// end notes that a fault ended, so that older signs raise nothing.
func (g *GPU) end(c Condition) {
	ended := make(map[Reason]time.Duration, len(g.Ended)+1)
	maps.Copy(ended, g.Ended)
	ended[c.Reason] = c.Mono
	g.Ended = ended
}
