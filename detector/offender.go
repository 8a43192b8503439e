package detector

import (
	"fmt"
	"slices"
	"time"
)

// RepeatOffender says when a GPU stays fenced whatever it shows later: when it had
// so many hardware or link incidents that fence, within so long by the wall clock.
type RepeatOffender struct {
	Count  int           `json:"count"` // 0: it never does
	Within time.Duration `json:"within"`
}

// maxOffences bounds what is remembered of one GPU.
const maxOffences = 16

// offends counts a fault that has become visible, as an incident of its GPU. One
// that begins while another stands is a part of that one. The last straw stays
// until a person clears it.
func (f *folding) offends(g *GPU, conditions []Condition, i int, at time.Time) {
	c := &conditions[i]
	_, ignored := g.ignored(c.Reason)
	if c.Counted || ignored || !c.offence() || !c.Visible() {
		return
	}
	c.Counted = true
	if slices.ContainsFunc(conditions, func(o Condition) bool { return o.Reason != c.Reason && o.Counted }) {
		return
	}
	offences := append(slices.Clone(g.Offences), at)
	g.Offences = offences[max(0, len(offences)-maxOffences):]
	f.policy.RepeatOffender.judge(c, g.Offences)
}

// judge says whether the newest incident of a GPU stays until a person clears it;
// c is the fault that it began with.
func (o RepeatOffender) judge(c *Condition, offences []time.Time) {
	last, n := offences[len(offences)-1], 0
	for _, t := range offences {
		if last.Sub(t) <= o.Within {
			n++
		}
	}
	switch {
	case o.Count > 0 && n >= o.Count:
		c.Sticky = true
		c.Why = fmt.Sprintf("incident %d within %s, stays until it is cleared by hand", n, days(o.Within))
	case c.Sticky:
		c.Sticky, c.Why = false, ""
	}
}

// judgeAgain does the same for the incident that stands when the policy has
// another limit. One that stays no longer ends by its own evidence.
func (f *folding) judgeAgain(g *GPU, conditions []Condition) {
	i := slices.IndexFunc(conditions, func(c Condition) bool { return c.Sticky })
	if i < 0 {
		i = slices.IndexFunc(conditions, func(c Condition) bool { return c.Counted && c.offence() })
	}
	if i < 0 || len(g.Offences) == 0 {
		return
	}
	c := &conditions[i]
	before := c.Sticky
	if f.policy.RepeatOffender.judge(c, g.Offences); c.Sticky && !before {
		f.tell(g.PCI, *c, Raised, because(byPolicy, c.Why), f.event.Time)
	}
}

// offence reports whether a fault is one that counts against the GPU: that of an
// application never does, nor the driver's.
func (c *Condition) offence() bool {
	return c.Effect.Fences() && (c.Class == Hardware || c.Class == Link)
}

// forgive forgets what counts against a GPU, as a person clears a fault of it that
// counted.
func (f *folding) forgive(g *GPU, named func(Condition) bool) {
	i := slices.IndexFunc(g.Conditions, func(c Condition) bool { return named(c) && c.Counted })
	if i < 0 {
		return
	}
	g.Offences = nil
	g.Conditions = slices.Clone(g.Conditions)
	for i := range g.Conditions {
		if c := &g.Conditions[i]; named(*c) && c.Sticky {
			c.Sticky, c.Why = false, ""
		}
	}
}

// days is a duration in days, if it is a whole number of them.
func days(d time.Duration) string {
	if day := 24 * time.Hour; d > 0 && d%day == 0 {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.String()
}
