package detector

import (
	"fmt"
	"slices"
	"time"
)

// RepeatOffender says when a GPU stays fenced whatever it shows later: when it had
// so many hardware or link incidents that fence, within so long by the wall clock.
type RepeatOffender struct {
	Count  int           `json:"count"`
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
	limit := f.policy.RepeatOffender
	old := func(t time.Time) bool { return at.Sub(t) > limit.Within }
	offences := append(slices.DeleteFunc(slices.Clone(g.Offences), old), at)
	g.Offences = offences[max(0, len(offences)-maxOffences):]
	if limit.Count > 0 && len(g.Offences) >= limit.Count {
		c.Sticky = true
		c.Why = fmt.Sprintf("incident %d within %s, stays until it is cleared by hand", len(g.Offences), days(limit.Within))
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
