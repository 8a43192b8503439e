package detector

import (
	"cmp"
	"slices"
)

// clearByHand ends the faults of one GPU, or those of the node, that a person
// names. What is a fact stays one until its source says otherwise, except where
// only a person can say that it does not matter any more. A GPU that is gone has
// no source left, and is forgotten with its last fault.
func (f *folding) clearByHand() {
	e := &f.event
	why := whose(cmp.Or(e.Fields["by"], ByHand), e.Fields["author"])
	named := func(c Condition) bool { return e.Fields["reason"] == "" || Reason(e.Fields["reason"]) == c.Reason }
	if e.GPU.PCI == "" {
		f.next.Node = f.without(nil, f.next.Node, func(c Condition) bool { return named(c) && c.Fact == "" }, why)
		return
	}
	i, ok := f.next.gpu(e.GPU.PCI)
	if !ok {
		return
	}
	g := f.own(i)
	f.forgive(g, named)
	if f.gone(g) {
		g.Conditions = f.without(g, g.Conditions, named, why)
		if len(g.Conditions) == 0 {
			f.next.GPUs = slices.Delete(f.next.GPUs, i, i+1)
			f.next.Forgotten = append(slices.Clip(f.next.Forgotten), g.PCI)
		}
		return
	}
	g.Conditions = slices.Clone(g.Conditions)
	for i := range g.Conditions {
		c := &g.Conditions[i]
		if !named(*c) || c.Fact == "" {
			continue
		}
		switch {
		case f.policy.Reasons[c.Reason].Clear == ClearHand:
			c.Fact = ""
			g.Waived = append(slices.Clone(g.Waived), c.Reason)
		case c.Fact == SourceKernelLog:
			c.Fact = "" // the kernel log may never take back what it said
			g.Recovery = nil
		default:
			c.Event = false // what is left of it ends with the fact
		}
	}
	g.Conditions = f.without(g, g.Conditions, func(c Condition) bool { return named(c) && c.Fact == "" }, why)
}

// gone reports whether the driver, which is there, does not list the GPU: not any
// more, or not since the boot.
func (f *folding) gone(g *GPU) bool {
	d := f.next.Driver
	return d.Asked && d.Missing == "" && !d.Stuck && (g.Missing || g.Index == nil)
}

// without ends the faults that over names; g is nil for those of the node.
func (f *folding) without(g *GPU, conditions []Condition, over func(Condition) bool, why string) []Condition {
	var kept []Condition
	for _, c := range conditions {
		if !over(c) {
			kept = append(kept, c)
			continue
		}
		pci := ""
		if g != nil {
			pci = g.PCI
			g.end(c)
		}
		if c.Visible() {
			f.tell(pci, c, Cleared, why, f.event.Time)
		}
	}
	return kept
}
