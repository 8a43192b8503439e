package detector

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// inForce is the policy that a state goes on with: the default with what its
// last policy event brought, or the given one if that brought nothing.
func (p *Policy) inForce(s *State) *Policy {
	if len(s.PolicyRows) == 0 && s.PolicyParameters == (PolicyParameters{}) {
		return p
	}
	// What this version does not know was refused by it, or is of another version:
	// the rest holds.
	policy, _ := PolicyConfig{Rows: s.PolicyRows, PolicyParameters: s.PolicyParameters}.Policy()
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
	s.PolicyRows, s.PolicyParameters = e.Policy, e.Parameters
	f.policy = DefaultPolicy().inForce(s)
	if differs := f.policy.differs(); before != "" || differs != "the default" {
		f.note(NotedPolicy, s.Policy+", "+differs, e.Time)
	}
	f.forgetTenants(old)
	for i, g := range s.GPUs {
		if len(g.Conditions) > 0 {
			g = f.own(i)
			g.Conditions = f.follow(g, g.Conditions, old)
		}
	}
	s.Node = f.follow(nil, s.Node, old)
}

// differs says for people what a user has changed.
func (p *Policy) differs() string {
	var all []string
	if n := len(p.Rows); n > 0 {
		all = append(all, fmt.Sprintf("rows that differ from the default: %d", n))
	}
	if names := p.Parameters.names(); len(names) > 0 {
		all = append(all, "parameters: "+strings.Join(names, ", "))
	}
	return cmp.Or(strings.Join(all, "; "), "the default")
}

// forgetTenants forgets whose application faults the GPUs had if tenants are told
// apart by something else now: one of them would be taken for two.
func (f *folding) forgetTenants(old *Policy) {
	s := f.next
	if f.policy.Suspicion.NamespaceLabel == old.Suspicion.NamespaceLabel {
		return
	}
	for i := range s.GPUs {
		f.own(i).Tenants = nil
	}
	s.Absent = slices.Clone(s.Absent)
	for i := range s.Absent {
		s.Absent[i].Tenants = nil
	}
	s.Absent = slices.DeleteFunc(s.Absent, func(a absent) bool { return a.empty() })
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
		cause := byPolicy
		if c.Repeat > 0 {
			changed = f.repeated(g, conditions, i, row.Repeat)
			cause = because(c.Cause, cmp.Or(c.Why, byPolicy))
		}
		if changed && c.Visible() {
			f.tell(pci, *c, Raised, cause, f.event.Time)
		}
	}
	if g != nil && f.policy.RepeatOffender != old.RepeatOffender {
		f.judgeAgain(g, conditions)
	}
	return f.without(g, conditions, f.policy.ignores, byPolicy)
}

// repeated has a fault that was not told often enough follow another count, and
// reports whether it was told often enough for that one.
func (f *folding) repeated(g *GPU, conditions []Condition, i int, r Repeat) bool {
	c := &conditions[i]
	if c.Repeat = r.Count; uint64(r.Count) > c.Count {
		return false
	}
	c.Repeat = 0
	if g != nil {
		f.offends(g, conditions, i, f.event.Time)
	}
	return true
}

// byPolicy is the cause of what a change of the policy changes.
const byPolicy = "policy"

// standing is the verdict on a fault under way: the hardest of what its codes
// say, and what its reason says where something else than a code told of it.
func (p *Policy) standing(c Condition) Verdict {
	row := p.Reasons[c.Reason]
	v := Verdict{Reason: c.Reason, Class: row.Class, Effect: row.Effect, Action: row.Action}
	fromCode := c.Fact == ""
	for _, code := range c.codes() {
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
// code stands for it. A suspicion is, if nothing is suspected.
func (p *Policy) ignores(c Condition) bool {
	if c.Reason == Unmonitored {
		return false
	}
	if p.Reasons[c.Reason].Ignore || c.Reason == SuspectedByTenants && p.Suspicion.Tenants == 0 {
		return true
	}
	codes := c.codes()
	if c.Fact != "" || len(codes) == 0 || c.Cause != fmt.Sprintf("Xid %d", codes[0]) && !strings.HasPrefix(c.Cause, byEvent) {
		return false
	}
	others := slices.ContainsFunc(codes[1:], func(code int) bool { return p.Xids[code].Reason == c.Reason })
	return p.Xids[codes[0]].Ignore && !others
}

// codes are the Xids of a fault, and those that the driver events of it stand for.
func (c *Condition) codes() []int {
	codes := c.Xids
	for _, m := range c.Members {
		if m.Kind == KindDriverEvent && m.Code != 0 {
			codes = with(codes, m.Code)
		}
	}
	return codes
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
		Source: SourceDaemon, Kind: KindPolicy, Fields: map[string]string{"digest": p.Digest()}, Policy: p.Rows, Parameters: p.Parameters,
	}
}

// SetPolicy has the fold go on with another policy, whole; it is in force when
// SetPolicy returns. The policy in force once more is recorded, and changes
// nothing.
func (d *Detector) SetPolicy(p *Policy) { d.Emit(policyEvent(p)) }
