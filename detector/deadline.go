package detector

import (
	"slices"
	"time"
)

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
		if due.Before(s.Time) {
			due = s.Time // a policy has made it due since
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

// forgetHeld drops what was never visible and only a fact: a start of the daemon
// looks anew. An event is not told again, and is held on; but a boot ends the
// clock of its hold, and drops it too. Nor does a fault end that only a GPU that
// answers can end: nobody has looked.
func (f *folding) forgetHeld() {
	renewed := f.event.Boot != f.next.Boot
	held := func(c Condition) bool { return !c.Visible() && (renewed || !c.Event) }
	if slices.ContainsFunc(f.next.Node, held) {
		f.next.Node = slices.DeleteFunc(slices.Clone(f.next.Node), held)
	}
	for i, g := range f.next.GPUs {
		if slices.ContainsFunc(g.Conditions, held) {
			g = f.own(i)
			g.Conditions = slices.DeleteFunc(slices.Clone(g.Conditions), held)
		}
		if slices.ContainsFunc(g.Conditions, Condition.guarded) {
			g = f.own(i)
			g.Conditions = slices.Clone(g.Conditions)
			for j := range g.Conditions {
				if c := &g.Conditions[j]; c.guarded() {
					c.Ends, c.Ending = 0, ""
				}
			}
		}
	}
}

// guarded reports whether the end of a fault is in sight, and comes only if the
// GPU goes on to answer well.
func (c Condition) guarded() bool { return c.Ends != 0 && c.Effect.Fences() }

// deadline is the earliest time at which something changes by itself, as the
// clocks stand; zero if nothing will.
func (s *State) deadline(now time.Time, mono time.Duration) time.Time {
	var first time.Time
	note := func(g *GPU, conditions []Condition) {
		for i := range conditions {
			if due := conditions[i].due(g, now, mono); !due.IsZero() && (first.IsZero() || due.Before(first)) {
				first = due
			}
		}
	}
	for _, g := range s.GPUs {
		note(g, g.Conditions)
		for _, is := range g.Ignored {
			if first.IsZero() || is.Until.Before(first) {
				first = is.Until
			}
		}
	}
	note(nil, s.Node)
	if s.Pause != nil {
		if due := now.Add(s.Pause.Ends - mono); first.IsZero() || due.Before(first) {
			first = due
		}
	}
	return first
}

// due is when a condition becomes visible or ends by itself. Both run on the
// clock since boot, and are told on the wall clock as both stand. g is nil for a
// fault of the node.
func (c *Condition) due(g *GPU, now time.Time, mono time.Duration) time.Time {
	switch {
	case c.Held != nil && c.Polled && g != nil && (!g.answers() || g.Missing):
		return time.Time{}
	case c.Held != nil:
		return now.Add(*c.Held - mono)
	case c.Ends != 0:
		return now.Add(c.Ends - mono)
	default:
		return time.Time{}
	}
}

// fire lets everything happen that is due at one moment.
func (f *folding) fire(due, now time.Time, mono time.Duration) {
	f.next.Seq++
	if p := f.next.Pause; p != nil && !now.Add(p.Ends-mono).After(due) {
		f.endPause("its time is over", due, p.Ends)
	}
	isDue := func(g *GPU, c *Condition) bool {
		at := c.due(g, now, mono)
		return !at.IsZero() && !at.After(due)
	}
	each := func(g *GPU, pci string, conditions []Condition) []Condition {
		var kept []Condition
		for _, c := range conditions {
			switch {
			case !isDue(g, &c):
				kept = append(kept, c)
			case c.Held != nil:
				c.Held = nil
				if kept = append(kept, c); !c.Visible() {
					continue
				}
				if g != nil {
					f.offends(g, kept, len(kept)-1, due)
				}
				f.tell(pci, c, Raised, because(c.Cause, kept[len(kept)-1].Why), due)
			default:
				if c.Visible() {
					f.tell(pci, c, Cleared, ended(c.Ending, c), due)
				}
				if g != nil {
					g.end(c)
				}
			}
		}
		return kept
	}
	for i := range f.next.GPUs {
		f.heed(i, func(is Ignored) bool { return !is.Until.After(due) }, "its time is over", due)
		g := f.next.GPUs[i]
		if slices.ContainsFunc(g.Conditions, func(c Condition) bool { return isDue(g, &c) }) {
			g = f.own(i)
			g.Conditions = each(g, g.PCI, g.Conditions)
		}
	}
	if slices.ContainsFunc(f.next.Node, func(c Condition) bool { return isDue(nil, &c) }) {
		f.next.Node = each(nil, "", f.next.Node)
	}
}
