package detector

import (
	"cmp"
	"slices"
	"time"
)

// ignore has the faults of one reason of a GPU be no conditions for a while: they
// are recorded and counted, and have no effect.
func (f *folding) ignore() {
	e := &f.event
	i, known := f.next.gpu(e.GPU.PCI)
	length, err := ParseIgnore(e.Fields["for"])
	if !known || err != nil || Ignorable(e.GPU.PCI, e.Fields["reason"]) != nil {
		return
	}
	g := f.own(i)
	is := Ignored{
		Reason: Reason(e.Fields["reason"]), Until: e.Time.Add(length), By: cmp.Or(e.Fields["by"], ByHand), Author: e.Fields["author"],
	}
	f.noteGPU(g, NotedIgnored, is.String())
	for _, c := range g.Conditions {
		if c.Reason == is.Reason && c.Visible() {
			f.tell(g.PCI, c, Cleared, is.String(), e.Time)
		}
	}
	at, again := g.ignored(is.Reason)
	g.Ignored = slices.Clone(g.Ignored)
	if again {
		g.Ignored[at] = is
	} else {
		g.Ignored = slices.Insert(g.Ignored, at, is)
	}
}

// unignore has the faults of a reason, or of all, be conditions again.
func (f *folding) unignore() {
	e := &f.event
	i, known := f.next.gpu(e.GPU.PCI)
	if !known {
		return
	}
	why := "not ignored any more, " + whose(cmp.Or(e.Fields["by"], ByHand), e.Fields["author"])
	reason := Reason(e.Fields["reason"])
	f.heed(i, func(is Ignored) bool { return reason == "" || is.Reason == reason }, why, e.Time)
}

// heed ends what over names of the things that are ignored.
func (f *folding) heed(i int, over func(Ignored) bool, why string, at time.Time) {
	if !slices.ContainsFunc(f.next.GPUs[i].Ignored, over) {
		return
	}
	g := f.own(i)
	was := g.Ignored
	g.Ignored = slices.DeleteFunc(slices.Clone(was), over)
	for _, is := range was {
		if !over(is) {
			continue
		}
		f.noteGPU(g, NotedHeeded, string(is.Reason)+": "+why)
		f.transitions[len(f.transitions)-1].Time = at
		for j := range g.Conditions {
			if c := g.Conditions[j]; c.Reason == is.Reason && c.Visible() {
				f.tell(g.PCI, c, Raised, because(c.Cause, why), at)
			}
		}
	}
}

// ignored gives the place of a reason among those that are ignored, and whether it
// is one of them.
func (g *GPU) ignored(reason Reason) (int, bool) {
	return slices.BinarySearchFunc(g.Ignored, reason, func(is Ignored, reason Reason) int { return cmp.Compare(is.Reason, reason) })
}

// heeded are the faults of a list that count, and unheeded those that are ignored
// for a while.
func (g *GPU) heeded(conditions []Condition) (heeded, unheeded []Condition) {
	for _, c := range conditions {
		if _, ignored := g.ignored(c.Reason); ignored {
			unheeded = append(unheeded, c)
		} else {
			heeded = append(heeded, c)
		}
	}
	return heeded, unheeded
}
