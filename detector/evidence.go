package detector

import (
	"fmt"
	"slices"
	"time"

	"gpuvet.dev/nvml"
)

// The evidence that ends a fault, in words.
const (
	endQuiet    = "quiet"
	endUnraised = "not repeated"
	endLevel    = "no longer so"
	endDriver   = "the driver no longer says so"
	endAnswers  = "it answers again"
	endReset    = "GPU was reset"
	endReload   = "driver was loaded again"
	endReboot   = "node was rebooted"
)

// settle notes which GPUs are well, and for each fault when it ends if nothing
// happens before; it ends those for which the evidence is complete.
func (f *folding) settle() {
	for i, g := range f.next.GPUs {
		if well := g.well(); well != (g.Well != 0) {
			g = f.own(i)
			g.Well = 0
			if well {
				g.Well = max(f.next.Mono, 1)
			}
		}
		changes := func(c Condition) bool {
			why, at := f.evidence(g, c)
			return why != c.Ending || at != c.Ends || why != "" && at <= f.next.Mono
		}
		if slices.ContainsFunc(g.Conditions, changes) {
			g = f.own(i)
			g.Conditions = f.end(g, g.Conditions)
		}
	}
	if len(f.next.Node) > 0 {
		f.next.Node = f.end(nil, f.next.Node)
	}
}

// end gives the faults that remain, each with its end as it is in sight; g is nil
// for those of the node.
func (f *folding) end(g *GPU, conditions []Condition) []Condition {
	var kept []Condition
	for _, c := range conditions {
		why, at := f.evidence(g, c)
		if why == "" || at > f.next.Mono {
			c.Ending, c.Ends = why, at
			kept = append(kept, c)
			continue
		}
		pci := ""
		if g != nil {
			pci = g.PCI
			g.end(c)
		}
		if c.Visible() {
			f.tell(pci, c, Cleared, ended(why, c), f.event.Time)
		}
	}
	return kept
}

// ended is the cause of an end, for people.
func ended(why string, c Condition) string {
	if why == endQuiet {
		return fmt.Sprintf("quiet for %s", c.Quiet)
	}
	return why
}

// well reports whether the GPU answers and asks for nothing.
func (g *GPU) well() bool {
	return g.answers() && !g.Missing && (g.Recovery == nil || *g.Recovery == 0) && !g.Pending && !g.Retiring
}

// pollAnew has the hold of what each poll tells begin with the first answer: a
// poll that had none is no sign. What the GPU asks for meanwhile makes no difference:
// a row remap that waits hides nothing else.
func (f *folding) pollAnew(g *GPU) {
	polled := func(c Condition) bool { return c.Polled && c.Held != nil }
	if !slices.ContainsFunc(g.Conditions, polled) {
		return
	}
	g.Conditions = slices.Clone(g.Conditions)
	for i := range g.Conditions {
		if c := &g.Conditions[i]; polled(*c) {
			c.Held = new(f.next.Mono + f.policy.Reasons[c.Reason].Hold)
		}
	}
}

// evidence says why a fault will be over, and at which time since boot; empty if
// no end is in sight. Staleness is never evidence: what fences ends only while
// the GPU answers well, and the driver's recovery action is the referee.
func (f *folding) evidence(g *GPU, c Condition) (why string, at time.Duration) {
	row := f.policy.Reasons[c.Reason]
	switch {
	case c.Fact != "", c.Sticky:
		return "", 0
	case c.Repeat > 0:
		return endUnraised, c.Mono + row.Repeat.Within
	case g == nil:
		return f.nodeEvidence(row, c)
	case row.Clear == ClearQuiet && !c.Effect.Fences():
		return endQuiet, c.Mono + row.Quiet
	case row.Clear == ClearLevel && g.answers() && !g.Missing:
		return endLevel, 0
	case row.Clear == ClearLevel, row.Clear == ClearHand, g.Well == 0:
		return "", 0
	}
	renewed := f.renewed(g, c)
	switch {
	case row.Clear != ClearAnswer && !c.Event:
		return endDriver, 0
	case row.Clear == ClearAnswer && renewed == "" && g.Well > c.Mono:
		return endAnswers, g.Well + row.Settle
	case row.Clear == ClearAnswer && renewed == "":
		// It was well before, too: an answer that it has given since would be stale
		// if there were none.
		return endAnswers, c.Mono + max(row.Settle, nvml.DefaultFreshness)
	case row.Clear == ClearQuiet && (renewed == "" || c.Mono+row.Quiet < g.Well+row.Settle):
		return endQuiet, max(c.Mono+row.Quiet, g.Well)
	case renewed != "":
		return renewed, g.Well + row.Settle
	default:
		return "", 0
	}
}

// nodeEvidence is the same for a fault of the node: it has no GPU to ask.
func (f *folding) nodeEvidence(row Row, c Condition) (why string, at time.Duration) {
	switch {
	case row.Clear == ClearReset, row.Clear == ClearBoot:
		return f.renewed(nil, c), 0
	case row.Clear == ClearLevel && f.next.Driver.Asked:
		return endLevel, 0
	case row.Clear == ClearQuiet:
		return endQuiet, c.Mono + row.Quiet
	default:
		return "", 0
	}
}

// renewed says whether the node was booted, the driver loaded again or the GPU
// reset since the newest sign of a fault. Where a boot is the only evidence, it is
// silent about the others.
func (f *folding) renewed(g *GPU, c Condition) string {
	s := f.next
	switch {
	case s.Driver.Load == "" || s.Driver.Missing != "" || !f.outlived(g, c):
		return ""
	case c.Boot != s.Boot:
		return endReboot
	case f.policy.Reasons[c.Reason].Clear == ClearBoot:
		return ""
	case c.Mono < s.Driver.Began:
		return endReload
	default:
		return endReset
	}
}

// outlived reports whether the newest sign of a fault is of another boot, of
// another loading of the driver, or of before the GPU was reset.
func (f *folding) outlived(g *GPU, c Condition) bool {
	return c.Boot != f.next.Boot || c.Mono < f.next.Driver.Began || g != nil && c.Mono < g.Reset
}
