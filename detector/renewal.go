package detector

import (
	"maps"
	"slices"
)

// Scripted is the value of the field gpus of KindBoot for GPUs of a script.
const Scripted = "scripted"

// boot starts a boot, or goes on in the same one. Nothing that was seen before
// the start is fresh after it.
func (f *folding) boot() {
	e := &f.event
	s := f.next
	renewed := s.Boot != e.Boot
	if renewed {
		s.Boot = e.Boot
		f.handled(ByUpgrade, "", "")
		if s.Pause != nil {
			f.endPause("node was rebooted", e.Time, e.Mono)
		}
		s.Counters = Counters{Events: map[string]uint64{e.Source + "/" + string(e.Kind): 1}}
		series, _, _ := number(e.ID)
		s.Folded = maps.Clone(s.Folded)
		maps.DeleteFunc(s.Folded, func(key string, _ uint64) bool { return key != series })
		s.Driver, s.Forgotten = DriverState{}, nil
		// A GPU that was well and is not there any more was taken out.
		s.GPUs = slices.DeleteFunc(s.GPUs, func(g *GPU) bool {
			out := len(g.Conditions) == 0 && len(g.Waived) == 0
			if out {
				f.store(g)
			}
			return out
		})
		for i := range s.GPUs {
			g := f.own(i)
			g.Ended, g.Xids, g.Merging, g.Sign, g.Index, g.Missing, g.Recovery, g.Pending = nil, nil, nil, nil, nil, false, nil, false
			g.Retiring, g.Well, g.Reset, g.Silent = false, 0, 0, 0
			g.Conditions = afterBoot(g.Conditions)
		}
		s.Node = afterBoot(s.Node)
	}
	s.Driver.Asked, s.Scripted = false, e.Fields["gpus"] == Scripted
	if !renewed {
		s.Driver.Started = f.before
	}
	for i := range s.GPUs {
		f.own(i).Fresh = false
	}
}

// afterBoot is what a boot leaves of the faults before it: what was only a
// fact is told anew if it is still one.
func afterBoot(conditions []Condition) []Condition {
	var kept []Condition
	for _, c := range conditions {
		// The boot's clock began anew, and so does the quiet that ends it.
		c.Fact, c.Mono = "", 0
		c.Ends, c.Ending = 0, ""
		kept = append(kept, c)
	}
	return kept
}
