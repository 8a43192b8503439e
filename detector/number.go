package detector

import (
	"fmt"
	"slices"
)

// decided puts a line of the kernel log about NVLink in the place of the number by
// which NVML told of the same report before: the line alone says what it means. It
// reports whether there was such a number.
func (f *folding) decided(g *GPU, v Verdict, cause string) bool {
	x := f.event.Xid
	told := func(c Condition) bool { return c.Reason == LinkWarning && c.bare(x.Code) >= 0 }
	i := slices.IndexFunc(g.Conditions, told)
	if x.NVLink == nil || i < 0 {
		return false
	}
	if v.Reason == LinkWarning {
		g.Conditions = slices.Clone(g.Conditions)
		c := &g.Conditions[i]
		c.Members = slices.Clone(c.Members)
		c.Members[c.bare(x.Code)].Bare--
		if len(c.Members) == 1 {
			c.Action = v.Action
		}
		f.detail(g, v.Reason)
		return true
	}
	f.raise(g.PCI, v, cause, x.Text, false)
	i = slices.IndexFunc(g.Conditions, told)
	g.Conditions = slices.Clone(g.Conditions)
	c := g.Conditions[i]
	if c.without(x.Code); len(c.Members) > 0 {
		g.Conditions[i] = c
		return true
	}
	g.Conditions = slices.Delete(g.Conditions, i, i+1)
	if !c.Visible() {
		return true
	}
	change := Cleared
	if at := slices.IndexFunc(g.Conditions, func(o Condition) bool { return o.Reason == v.Reason }); at >= 0 {
		change, c.Incident = Folded, g.Conditions[at].Incident
	}
	f.tell(g.PCI, c, change, cause+": its line in the kernel log decides", f.event.Time)
	return true
}

// bare is the place of the member that has reports of a code by number alone; -1 if
// there are none.
func (c *Condition) bare(code int) int {
	return slices.IndexFunc(c.Members, func(m Member) bool { return m.Code == code && m.Bare > 0 })
}

// without takes one report that was told by number alone out of a condition that is
// the fold's own.
func (c *Condition) without(code int) {
	i := c.bare(code)
	c.Count--
	c.Members = slices.Clone(c.Members)
	m := &c.Members[i]
	if m.Count, m.Bare = m.Count-1, m.Bare-1; m.Count > 0 {
		return
	}
	c.Members = slices.Delete(c.Members, i, i+1)
	c.Xids = slices.DeleteFunc(slices.Clone(c.Xids), func(x int) bool { return x == code })
	if len(c.Xids) > 0 {
		c.Cause = fmt.Sprintf("Xid %d", c.Xids[0])
	}
}
