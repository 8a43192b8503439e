package detector

import (
	"fmt"
	"slices"
)

// inForce is the policy that a state goes on with: the default with the rows
// that its last policy event brought, or the given one if that brought none.
func (p *Policy) inForce(s *State) *Policy {
	if len(s.PolicyRows) == 0 {
		return p
	}
	// A row that this version does not know was refused by it, or is of another
	// version: the rest holds.
	policy, _ := NewPolicy(s.PolicyRows)
	return policy
}

// changePolicy takes the policy that an event brings. What stands from before
// follows it: effect, class, action, hold and end as the new rows say, and what
// is ignored from now on ends.
func (f *folding) changePolicy() {
	e, s, old := &f.event, f.next, f.policy
	before := s.Policy
	s.Policy = e.Fields["digest"]
	if s.Policy == before {
		return
	}
	s.PolicyRows = e.Policy
	f.policy = DefaultPolicy().inForce(s)
	if before != "" || len(s.PolicyRows) > 0 {
		differs := "the default"
		if n := len(s.PolicyRows); n > 0 {
			differs = fmt.Sprintf("rows that differ from the default: %d", n)
		}
		f.note(NotedPolicy, s.Policy+", "+differs, e.Time)
	}
	for i, g := range s.GPUs {
		if len(g.Conditions) > 0 {
			g = f.own(i)
			g.Conditions = f.follow(g, g.Conditions, old)
		}
	}
	s.Node = f.follow(nil, s.Node, old)
}

// follow gives the faults that stand as the policy of the fold has them, where
// it differs from the old one; g is nil for those of the node.
func (f *folding) follow(g *GPU, conditions []Condition, old *Policy) []Condition {
	conditions = slices.Clone(conditions)
	pci := ""
	if g != nil {
		pci = g.PCI
	}
	for i := range conditions {
		c := &conditions[i]
		if c.Reason == Unmonitored || f.policy.ignores(*c) {
			continue
		}
		was, is := old.standing(*c), f.policy.standing(*c)
		wasRow, row := old.Reasons[c.Reason], f.policy.Reasons[c.Reason]
		changed := was.Class != is.Class || was.Effect != is.Effect
		if was.Class != is.Class {
			c.Class = is.Class
		}
		if was.Effect != is.Effect {
			c.Effect = is.Effect
		}
		if was.Action != is.Action {
			c.Action = is.Action
		}
		c.Taint = row.Taint
		if c.Quiet = 0; row.Clear == ClearQuiet {
			c.Quiet = row.Quiet
		}
		if c.Held != nil {
			c.Held = new(*c.Held + row.Hold - wasRow.Hold)
		}
		if changed && c.Visible() {
			f.tell(pci, *c, Raised, byPolicy, f.event.Time)
		}
	}
	return f.without(g, conditions, f.policy.ignores, byPolicy)
}

// byPolicy is the cause of what a change of the policy changes.
const byPolicy = "policy"

// standing is the verdict on a fault under way: the hardest of what its codes
// say, and what its reason says where something else than a code told of it.
func (p *Policy) standing(c Condition) Verdict {
	row := p.Reasons[c.Reason]
	v := Verdict{Reason: c.Reason, Class: row.Class, Effect: row.Effect, Action: row.Action}
	fromCode := c.Fact == ""
	for _, code := range c.Xids {
		x := p.Xids[code]
		if x.Reason != c.Reason {
			continue
		}
		if fromCode || x.Effect.Harder(v.Effect) {
			v = x.Verdict
		}
		fromCode = false
	}
	return v
}

// ignores reports whether a fault under way is one that is only recorded now:
// its reason is ignored, or the Xid that it began with, and no fact and no other
// code stands for it.
func (p *Policy) ignores(c Condition) bool {
	if c.Reason == Unmonitored {
		return false
	}
	if p.Reasons[c.Reason].Ignore {
		return true
	}
	if c.Fact != "" || len(c.Xids) == 0 || c.Cause != fmt.Sprintf("Xid %d", c.Xids[0]) {
		return false
	}
	others := slices.ContainsFunc(c.Xids[1:], func(code int) bool { return p.Xids[code].Reason == c.Reason })
	return p.Xids[c.Xids[0]].Ignore && !others
}

// Unhides reports whether the policy shows faults of a reason that the one before
// it ignored: their sources have told of them, and will not again.
func (p *Policy) Unhides(before *Policy) bool {
	for reason, row := range before.Reasons {
		if row.Ignore && !p.Reasons[reason].Ignore {
			return true
		}
	}
	return false
}

// policyEvent is the event that brings a policy.
func policyEvent(p *Policy) Event {
	return Event{
		Source: SourceDaemon, Kind: KindPolicy, Fields: map[string]string{"digest": p.Digest()}, Policy: p.Rows,
	}
}

// SetPolicy has the fold go on with another policy, whole; it is in force when
// SetPolicy returns. The policy in force once more is recorded, and changes
// nothing.
func (d *Detector) SetPolicy(p *Policy) { d.Emit(policyEvent(p)) }
