package detector

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

const (
	// maxGPUs bounds what lines of the kernel log can make up.
	maxGPUs = 128
	// maxCodes bounds the distinct Xids kept per GPU.
	maxCodes = 256
	// keptTransitions is how many of the last ones a snapshot shows.
	keptTransitions = 32
	// symptomSpan is how long after a fault its sympathetic Xid 45 comes.
	symptomSpan = time.Minute
)

// fold is the decision: it takes the state and one event, and gives the next
// state, what changed for people, and when to look again (zero: only at the
// next event). It is pure: time comes with the event. Every deadline up to the
// event's time fires before it, in order and with its own time, so that a live
// run, a restart and a replay agree. An event met before changes nothing.
func fold(s *State, p *Policy, e Event) (*State, []Transition, time.Time) {
	f := &folding{policy: p, event: e, next: shallow(s), before: s.Mono}
	if f.seen() {
		return s, nil, s.deadline(s.Time, s.Mono)
	}
	f.advance()
	f.next.Seq++
	f.count()
	f.apply()
	f.settle()
	f.remember()
	return f.next, f.transitions, f.next.deadline(f.next.Time, f.next.Mono)
}

// expire fires the deadlines up to a time, as the next event would.
func expire(s *State, p *Policy, at time.Time, mono time.Duration) (*State, []Transition, time.Time) {
	f := &folding{policy: p, event: Event{Time: at, Mono: mono, Boot: s.Boot}, next: shallow(s)}
	f.advance()
	f.settle()
	f.remember()
	return f.next, f.transitions, f.next.deadline(f.next.Time, f.next.Mono)
}

// folding is one fold under way. next is the state being built: its slices and
// maps are shared with the state before until they are cloned.
type folding struct {
	policy      *Policy
	event       Event
	next        *State
	before      time.Duration // the clock since boot before the event
	owned       []*GPU        // GPUs of next that are already its own
	transitions []Transition
}

// own gives a GPU to write to: the one of the state before stays as it is.
func (f *folding) own(i int) *GPU {
	g := f.next.GPUs[i]
	if slices.Contains(f.owned, g) {
		return g
	}
	copied := *g
	f.next.GPUs[i] = &copied
	f.owned = append(f.owned, &copied)
	return &copied
}

func shallow(s *State) *State {
	next := *s
	next.GPUs = slices.Clone(s.GPUs)
	return &next
}

// seen recognises an event by its ID, and notes it.
func (f *folding) seen() bool {
	series, n, ok := number(f.event.ID)
	if !ok {
		return false
	}
	if last, met := f.next.Folded[series]; met && n <= last {
		return true
	}
	folded := make(map[string]uint64, len(f.next.Folded)+1)
	maps.Copy(folded, f.next.Folded)
	folded[series] = n
	f.next.Folded = folded
	return false
}

// advance moves the clocks to the event, firing deadlines on the way. A late
// event turns neither back: a wall clock that was set back stands still until
// it has caught up, while the clock since boot goes on.
func (f *folding) advance() {
	e, s := &f.event, f.next
	if e.Kind == KindBoot {
		f.forgetHeld()
	}
	now, mono := s.Time, s.Mono
	if e.Time.After(now) {
		now = e.Time
	}
	renewed := s.Boot != "" && e.Boot != s.Boot
	switch {
	case renewed:
		// The clock of the boot before has ended.
	case e.Mono != 0:
		mono = max(mono, e.Mono)
	default:
		// A saved log may not tell it; time passes all the same.
		mono += now.Sub(s.Time)
	}
	for {
		due := s.deadline(now, mono)
		if due.IsZero() || due.After(now) {
			break
		}
		f.fire(due, now, mono)
	}
	s.Time, s.Mono = now, mono
	if renewed {
		s.Mono = e.Mono
	}
	if s.Boot == "" {
		s.Boot = e.Boot
	}
}

// forgetHeld drops what was never visible: a start of the daemon looks anew.
func (f *folding) forgetHeld() {
	held := func(c Condition) bool { return c.Held != nil }
	for i, g := range f.next.GPUs {
		if slices.ContainsFunc(g.Conditions, held) {
			g = f.own(i)
			g.Conditions = slices.DeleteFunc(slices.Clone(g.Conditions), held)
		}
	}
}

// deadline is the earliest time at which something changes by itself, as the
// clocks stand; zero if nothing will.
func (s *State) deadline(now time.Time, mono time.Duration) time.Time {
	var first time.Time
	note := func(conditions []Condition) {
		for _, c := range conditions {
			if due := c.due(now, mono); !due.IsZero() && (first.IsZero() || due.Before(first)) {
				first = due
			}
		}
	}
	for _, g := range s.GPUs {
		note(g.Conditions)
	}
	note(s.Node)
	return first
}

// due is when a condition becomes visible or ends by itself. Both run on the
// clock since boot, and are told on the wall clock as both stand.
func (c *Condition) due(now time.Time, mono time.Duration) time.Time {
	if c.Held != nil {
		return now.Add(*c.Held - mono)
	}
	if c.Quiet > 0 && c.Fact == "" {
		return now.Add(c.Mono + c.Quiet - mono)
	}
	return time.Time{}
}

// fire lets everything happen that is due at one moment.
func (f *folding) fire(due, now time.Time, mono time.Duration) {
	f.next.Seq++
	isDue := func(c Condition) bool {
		at := c.due(now, mono)
		return !at.IsZero() && !at.After(due)
	}
	each := func(g *GPU, pci string, conditions []Condition) []Condition {
		var kept []Condition
		for _, c := range conditions {
			switch {
			case !isDue(c):
				kept = append(kept, c)
			case c.Held != nil:
				c.Held = nil
				f.tell(pci, c, Raised, c.Cause, due)
				kept = append(kept, c)
			default:
				f.tell(pci, c, Cleared, fmt.Sprintf("quiet for %s", c.Quiet), due)
				if g != nil {
					g.end(c)
				}
			}
		}
		return kept
	}
	for i, g := range f.next.GPUs {
		if slices.ContainsFunc(g.Conditions, isDue) {
			g = f.own(i)
			g.Conditions = each(g, g.PCI, g.Conditions)
		}
	}
	if slices.ContainsFunc(f.next.Node, isDue) {
		f.next.Node = each(nil, "", f.next.Node)
	}
}

// count keeps the number of events by source and kind.
func (f *folding) count() {
	key := f.event.Source + "/" + string(f.event.Kind)
	events := make(map[string]uint64, len(f.next.Counters.Events)+1)
	maps.Copy(events, f.next.Counters.Events)
	events[key]++
	f.next.Counters.Events = events
}

// apply does what the event's kind asks for.
func (f *folding) apply() {
	e := &f.event
	switch e.Kind {
	case KindXid:
		f.xid()
	case KindSXid:
		if e.SXid != nil {
			f.raise("", f.policy.SXid(e.SXid), fmt.Sprintf("SXid %d", e.SXid.Code), e.SXid.Text, false)
		}
	case KindGPULost, KindInit:
		f.kernelFault()
	case KindLogGap:
		lost, _ := strconv.ParseUint(e.Fields["lost"], 10, 64)
		f.next.Counters.Gaps++
		f.next.Counters.Lost += lost
	case KindGPUFound, KindGPUMissing, KindGPUBack, KindFresh, KindStale, KindUnresponsive, KindResponsive,
		KindRecoveryAction, KindRemapPending, KindRemapFailed:
		f.fact()
	case KindBoot:
		f.boot()
	case KindDriverLoaded:
		f.driverLoaded()
	case KindLoading:
		f.driverLoading()
	case KindDriverMissing:
		f.next.Driver.Missing, f.next.Driver.Asked = e.Fields["cause"], true
		for i := range f.next.GPUs {
			f.own(i).Fresh = false
		}
	case KindPolicy:
		f.next.Policy = e.Fields["digest"]
	case KindClear:
		f.clearByHand()
	case KindTaintIntended, KindTaintApplied, KindTaintRemoved:
		f.taint()
	case KindPCIe, KindHang, KindLink, KindRecovery, KindDriverEvent:
		// Counted and kept; they decide nothing by themselves.
	}
}

// boot starts a boot, or goes on in the same one. Nothing that was seen before
// the start is fresh after it.
func (f *folding) boot() {
	e := &f.event
	s := f.next
	renewed := s.Boot != e.Boot
	if renewed {
		s.Boot = e.Boot
		s.Counters = Counters{Events: map[string]uint64{e.Source + "/" + string(e.Kind): 1}}
		series, _, _ := number(e.ID)
		s.Folded = maps.Clone(s.Folded)
		maps.DeleteFunc(s.Folded, func(key string, _ uint64) bool { return key != series })
		s.Driver = DriverState{}
		// A GPU that was well and is not there any more was taken out.
		s.GPUs = slices.DeleteFunc(s.GPUs, func(g *GPU) bool { return len(g.Conditions) == 0 && len(g.Waived) == 0 })
		for i := range s.GPUs {
			g := f.own(i)
			g.Ended, g.Xids, g.Merging, g.Index, g.Missing, g.Recovery, g.Pending = nil, nil, nil, nil, false, 0, false
			g.Conditions = afterBoot(g.Conditions)
		}
		s.Node = afterBoot(s.Node)
	}
	s.Driver.Asked = false
	if !renewed {
		s.Driver.Started = f.before
	}
	for i := range s.GPUs {
		f.own(i).Fresh = false
	}
}

// afterBoot is what a boot leaves of the faults before it: what was only a
// fact is told anew if it is still one.
func afterBoot(conditions []Condition) []Condition {
	var kept []Condition
	for _, c := range conditions {
		// The boot's clock began anew, and so does the quiet that ends it.
		c.Fact, c.Mono = "", 0
		kept = append(kept, c)
	}
	return kept
}

// driverLoaded takes the driver as an inventory shows it. Another loading than
// the one before ends what happened before it began. Where the kernel log did
// not tell when that was, it counts from the last time that the loading before
// was seen: rather too early, so that a fault of the new one is not ended.
func (f *folding) driverLoaded() {
	e, s := &f.event, f.next
	d := DriverState{
		Version: e.Fields["version"], CUDA: e.Fields["cuda"], Load: e.Fields["load"], Asked: true,
		Began: s.Driver.Began, Started: s.Driver.Started, Shown: s.Driver.Shown,
	}
	if s.Driver.Load != d.Load {
		d.Shown = e.Mono
	}
	if s.Driver.Load != "" && s.Driver.Load != d.Load {
		if !s.Driver.Announced {
			d.Began = max(d.Began, s.Driver.Started)
			if ago, err := time.ParseDuration(e.Fields["ago"]); err == nil {
				d.Began = max(d.Began, e.Mono-ago)
			}
		}
		f.driverRenewed()
	}
	s.Driver = d
}

// driverLoading takes the kernel's word that the driver is being loaded. It may
// come after an inventory has shown that loading.
func (f *folding) driverLoading() {
	d := &f.next.Driver
	if f.event.Mono <= d.Began {
		return
	}
	d.Began = f.event.Mono
	if d.Began > d.Shown {
		d.Announced = true
		f.driverRenewed()
	}
}

// driverRenewed forgets what the loading before has said: nothing of it need
// hold, and no GPU has answered yet.
func (f *folding) driverRenewed() {
	for i := range f.next.GPUs {
		g := f.own(i)
		g.Fresh, g.Pending, g.Recovery = false, false, 0
		for _, reason := range recoveryReasons {
			f.lower(g, reason)
		}
	}
}

func (f *folding) taint() {
	e := &f.event
	switch e.Kind {
	case KindTaintIntended:
		added, err := time.Parse(time.RFC3339, e.Fields["added"])
		if err != nil {
			return
		}
		intended := AppliedTaint{Value: e.Fields["value"], Effect: Effect(e.Fields["effect"]), Added: added}
		f.next.Applied.Taint = intended.after(f.next.Applied.Taint)
	case KindTaintApplied:
		if t := f.next.Applied.Taint; t != nil {
			accepted := *t
			accepted.Accepted, accepted.Earlier = true, nil
			f.next.Applied.Taint = &accepted
		}
	default:
		f.next.Applied.Taint = nil
	}
}

// tell records a transition.
func (f *folding) tell(pci string, c Condition, change Change, cause string, at time.Time) {
	t := Transition{
		Seq: f.next.Seq, Time: at, PCI: pci, Condition: c.Reason, Status: change,
		Class: c.Class, Effect: c.Effect, Action: c.Action, Cause: cause, Incident: c.Incident,
	}
	if i, ok := f.next.gpu(pci); ok {
		t.UUID, t.GPU = f.next.GPUs[i].UUID, f.next.GPUs[i].Index
	}
	f.transitions = append(f.transitions, t)
}

// remember keeps the last transitions for those who look.
func (f *folding) remember() {
	if len(f.transitions) == 0 {
		return
	}
	recent := slices.Concat(f.next.Recent, f.transitions)
	f.next.Recent = recent[max(0, len(recent)-keptTransitions):]
}

// at is the GPU of the event; it is made if the event is the first to name it.
// It is nil if the event names none, or names one too many.
func (f *folding) at() *GPU {
	pci := f.event.GPU.PCI
	if pci == "" {
		return nil
	}
	i, ok := f.next.gpu(pci)
	if !ok {
		if len(f.next.GPUs) >= maxGPUs {
			return nil
		}
		f.next.GPUs = slices.Insert(f.next.GPUs, i, &GPU{PCI: pci})
	}
	return f.own(i)
}
