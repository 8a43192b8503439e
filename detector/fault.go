package detector

import (
	"cmp"
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
	var adds news
	g.Merging, adds = merge(g.Merging, e.Xid.Code, e.reporter(), e.Time)
	if adds.xids > 0 {
		f.countXid(g, adds.xids)
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
	cause := e.cause()
	if i, ok := f.symptomOf(g, verdict); ok {
		f.symptom(g, i, verdict, cause, adds.faults)
		return
	}
	if by := e.Xid.CausedBy; by != 0 && f.policy.Xids[by].Class != Application {
		// The driver names the cause, and it left no fault of this GPU.
		return
	}
	if adds.faults == 0 && f.decided(g, verdict, cause) {
		return
	}
	standing := slices.ContainsFunc(g.Conditions, func(c Condition) bool { return c.Reason == verdict.Reason && c.at(f.where(verdict)) })
	if adds.faults == 0 && (standing || !verdict.Effect.Fences()) {
		// The other reporter has told of it; this one may know what it did not.
		f.detail(g, verdict.Reason)
		f.alike(g, verdict, adds)
		return
	}
	f.remaps(g)
	if verdict.Class == Application && adds.faults > 0 {
		f.suspect(g)
		f.blame(g)
	}
	if f.drains(g, verdict) {
		verdict.Action = ActDrainAndReset
	}
	f.raise(g.PCI, verdict, cause, e.Xid.Text, false)
	if verdict.Reason == UncorrectableMemory {
		f.remapped(g, cause)
	}
}

// detail lets the second reporter of a fault say what the first could not.
func (f *folding) detail(g *GPU, reason Reason) {
	i := slices.IndexFunc(g.Conditions, func(c Condition) bool { return c.Reason == reason && c.Message == "" })
	if i < 0 || f.event.Xid.Text == "" {
		return
	}
	g.Conditions = slices.Clone(g.Conditions)
	c := &g.Conditions[i]
	c.Message = f.event.Xid.Text
	c.Why = cmp.Or(c.Why, why(f.event.Xid, f.next.Driver.Major()))
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
	list, where := slices.Clone(*conditions), f.where(v)
	if where.GPUInstance != nil && len(list) >= maxConditions {
		where = Device{}
	}
	is := func(c Condition) bool { return c.Reason == v.Reason && c.at(where) }
	i := slices.IndexFunc(list, is)
	begins := i < 0
	if begins {
		list = append(list, f.begin(v, row, where, cause, message))
		i = len(list) - 1
	}
	c := &list[i]
	before, seen := c.Effect, c.Visible() && !begins
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
	c.join(e.member())
	// What is so at present, or is told less often than it happens, is not counted.
	if fact || uint64(c.Repeat) <= c.Count || e.Xid != nil && rateLimited[e.Xid.Code] {
		c.Repeat = 0
	}
	if at, known := f.next.gpu(pci); known {
		f.offends(f.own(at), list, i, e.Time)
	}
	if c.Visible() && (!seen || before != c.Effect) {
		said := why(e.Xid, f.next.Driver.Major())
		if c.Sticky {
			said = c.Why
		}
		f.tell(pci, *c, Raised, because(cause, said), e.Time)
	}
	if begins {
		list = f.adopt(pci, list, i)
	}
	*conditions = list
}

// maxConditions bounds the faults of one GPU that are kept apart by MIG instance.
const maxConditions = 64

// where is the MIG instance that a fault stays with: one that the driver has
// contained, or the work's own. Every other is the whole GPU's.
func (f *folding) where(v Verdict) Device {
	d := f.event.GPU
	if d.GPUInstance == nil || v.Class != Application && v.Reason != ContainedMemoryError {
		return Device{}
	}
	return Device{GPUInstance: d.GPUInstance, ComputeInstance: d.ComputeInstance}
}

func (f *folding) begin(v Verdict, row Row, where Device, cause, message string) Condition {
	e := &f.event
	c := Condition{
		Reason: v.Reason, Class: v.Class, Scope: row.Scope, Effect: v.Effect, Action: v.Action, Taint: row.Taint,
		GPUInstance: where.GPUInstance, ComputeInstance: where.ComputeInstance,
		Cause: cause, Why: why(e.Xid, f.next.Driver.Major()), Since: e.Time, Last: e.Time, Message: message, Incident: e.ID,
		Polled: row.Polled, Repeat: row.Repeat.Count,
	}
	if where.GPUInstance != nil {
		c.Scope = ScopeInstance
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
	absent := e.Kind == KindGPUMissing || e.Kind == KindStale
	if absent && slices.Contains(f.next.Forgotten, e.GPU.PCI) {
		return
	}
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
		if !g.Fresh {
			f.pollAnew(g)
		}
		f.answersAgain(g)
		g.Fresh = true
	case KindStale:
		f.tooOld(g)
		g.Fresh = false
	case KindUnresponsive:
		const cause = "driver calls do not return"
		f.fallsSilent(g, e.Mono, cause)
		g.Fresh = false
		f.raise(g.PCI, Verdict{Reason: Unresponsive, Class: Driver, Effect: NoSchedule, Action: ActRebootNode}, cause, "", true)
	case KindResponsive:
		f.lower(g, Unresponsive)
	case KindRecoveryAction:
		if action, err := strconv.Atoi(e.Fields["action"]); err == nil {
			f.recovery(g, action)
		}
	case KindReset:
		f.resets(g)
	case KindRemapPending:
		g.Pending = e.Fields["pending"] == "true"
		f.level(g, g.Pending, Verdict{Reason: RowRemapPending, Class: Hardware, Action: ActDrainAndReset}, "a row remap waits for a reset")
	case KindWaits, KindSRAMThreshold, KindPCIeDegraded, KindThermal, KindPowerBrake, KindLinkDown,
		KindFabricNotReady, KindFabricRefused, KindFabricDegraded:
		f.told(g)
	case KindRemapFailed:
		f.level(g, e.Fields["failed"] == "true", Verdict{Reason: RowRemapFailed, Class: Hardware, Effect: NoSchedule, Action: ActContactSupport}, "no spare row is left")
	}
}

func (f *folding) identify(g *GPU) {
	e := &f.event
	if e.GPU.UUID != "" && g.UUID != "" && g.UUID != e.GPU.UUID {
		// Another GPU sits at this address: the old one took its faults along.
		f.without(g, g.Conditions, func(Condition) bool { return true }, "another GPU is at this address")
		f.store(g)
		*g = GPU{PCI: g.PCI}
	}
	g.Missing, g.Index = false, integer(e.Fields["index"])
	// One that does not answer is listed all the same: what was known of it holds.
	g.UUID = cmp.Or(e.GPU.UUID, g.UUID)
	f.recall(g)
	g.Name, g.Architecture = cmp.Or(e.Fields["name"], g.Name), cmp.Or(e.Fields["architecture"], g.Architecture)
	g.Serial, g.VBIOS = cmp.Or(e.Fields["serial"], g.Serial), cmp.Or(e.Fields["vbios"], g.VBIOS)
	g.Minor = cmp.Or(integer(e.Fields["minor"]), g.Minor)
	memory, _ := strconv.ParseUint(e.Fields["memoryBytes"], 10, 64)
	g.MemoryBytes = cmp.Or(memory, g.MemoryBytes)
	g.learn(e)
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
	f.takenBack(g, g.Recovery, action)
	g.Recovery = &action
	v := recovery(action)
	f.asksNoMore(g, v.Reason)
	f.raise(g.PCI, v, "recovery action "+nvml.RecoveryAction(action).String(), "", true)
	// It is the referee: people do as it says, whatever has begun the fault.
	i := slices.IndexFunc(g.Conditions, func(c Condition) bool { return c.Reason == v.Reason && c.Fact != "" })
	if i >= 0 && g.Conditions[i].Action != v.Action {
		g.Conditions = slices.Clone(g.Conditions)
		g.Conditions[i].Action = v.Action
	}
}

// asksNoMore takes back what the driver has asked for, but for one reason. The advice
// is again that of the fault's codes, if it has any.
func (f *folding) asksNoMore(g *GPU, but Reason) {
	for _, reason := range recoveryReasons {
		i := slices.IndexFunc(g.Conditions, func(c Condition) bool { return c.Reason == reason && c.Fact != "" })
		if i < 0 || reason == but {
			continue
		}
		f.lower(g, reason)
		if c := &g.Conditions[i]; c.Event {
			c.Action = f.policy.standing(*c).Action
		}
	}
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
