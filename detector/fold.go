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
	f.attribute()
	f.apply()
	f.mark()
	f.sign()
	f.corroborate()
	f.settle()
	f.forgetRefusals()
	f.remember()
	return f.next, f.transitions, f.next.deadline(f.next.Time, f.next.Mono)
}

// expire fires the deadlines up to a time, as the next event would. It ends
// nothing by evidence: the end of a pause is none, and only an event is.
func expire(s *State, p *Policy, at time.Time, mono time.Duration) (*State, []Transition, time.Time) {
	f := &folding{policy: p, event: Event{Time: at, Mono: mono, Boot: s.Boot}, next: shallow(s)}
	f.advance()
	f.forgetRefusals()
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
		f.byMinor()
		f.kernelFault()
	case KindLink:
		f.linkError()
	case KindPCIe:
		f.busError()
	case KindLogGap:
		lost, _ := strconv.ParseUint(e.Fields["lost"], 10, 64)
		f.next.Counters.Gaps++
		f.next.Counters.Lost += lost
	case KindGPUFound, KindGPUMissing, KindGPUBack, KindFresh, KindStale, KindUnresponsive, KindResponsive,
		KindRecoveryAction, KindRemapPending, KindRemapFailed, KindReset,
		KindWaits, KindSRAMThreshold, KindPCIeDegraded, KindThermal, KindPowerBrake, KindLinkDown,
		KindFabricNotReady, KindFabricRefused, KindFabricDegraded:
		f.fact()
	case KindCorrected, KindUncorrected, KindPCIeErrors:
		f.counted()
	case KindBoot:
		f.boot()
	case KindDriverLoaded:
		f.driverLoaded()
	case KindLoading:
		f.driverLoading()
	case KindDriverMissing:
		f.driverMissing()
	case KindDriverStuck:
		f.driverStuck()
	case KindDriverAnswers:
		f.driverAnswers()
	case KindPolicy:
		f.changePolicy()
	case KindPaused:
		f.pause()
	case KindResumed:
		f.resume()
	case KindPauseRefused:
		f.refuse()
	case KindHandled:
		f.requestHandled()
	case KindClear:
		f.clearByHand()
	case KindIgnore:
		f.ignore()
	case KindUnignore:
		f.unignore()
	case KindTaintIntended, KindTaintApplied, KindTaintRemoved:
		f.taint()
	case KindClaimIntended, KindClaimPrepared, KindClaimReleased, KindClaimRefused:
		f.claim()
	case KindDriverEvent:
		f.driverEvent()
	case KindHang, KindRecovery, KindSoftware:
		// Counted and kept; they decide nothing by themselves. Some are a sign.
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
		GPUInstance: c.GPUInstance, ComputeInstance: c.ComputeInstance,
	}
	if i, ok := f.next.gpu(pci); ok {
		g := f.next.GPUs[i]
		t.UUID, t.GPU = g.UUID, g.Index
		if _, ignored := g.ignored(c.Reason); ignored && change != Folded {
			t.Status, t.Effect, t.Cause = Passed, NoEffect, string(change)+": "+cause
		}
		if t.Class != Application {
			t.Holders = f.next.holders(Device{PCI: pci, GPUInstance: c.GPUInstance, ComputeInstance: c.ComputeInstance})
		}
	}
	f.transitions = append(f.transitions, t)
}

// note records a transition that is no fault's.
func (f *folding) note(what Reason, cause string, at time.Time) {
	f.transitions = append(f.transitions, Transition{
		Seq: f.next.Seq, Time: at, Condition: what, Status: Noted, Class: Information, Action: ActNone, Cause: cause,
	})
}

// noteGPU does the same for one about a GPU.
func (f *folding) noteGPU(g *GPU, what Reason, cause string) {
	f.note(what, cause, f.event.Time)
	t := &f.transitions[len(f.transitions)-1]
	t.PCI, t.UUID, t.GPU = g.PCI, g.UUID, g.Index
}

// remember keeps the last transitions for those who look.
func (f *folding) remember() {
	// Whether a GPU answers is in its status: it must not displace faults.
	told := slices.DeleteFunc(slices.Clone(f.transitions), func(t Transition) bool {
		return t.Condition == NotedSilent || t.Condition == NotedAnswers
	})
	if len(told) == 0 {
		return
	}
	recent := slices.Concat(f.next.Recent, told)
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
		f.next.Forgotten = slices.DeleteFunc(slices.Clone(f.next.Forgotten), func(forgotten string) bool { return forgotten == pci })
	}
	return f.own(i)
}
