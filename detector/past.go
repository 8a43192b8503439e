package detector

import (
	"slices"
	"time"
)

// Past is what is remembered of a GPU beyond its faults. It goes with the GPU, by
// UUID, when that is not listed for a while or moves to another slot.
type Past struct {
	// Ignored are the reasons that are no conditions for a while, by name.
	Ignored []Ignored `json:"ignored,omitempty"`
	// Offences are when its last hardware and link incidents began.
	Offences []time.Time `json:"offences,omitempty"`
	// Tenants are the application faults that may become a suspicion.
	Tenants []TenantSign `json:"tenants,omitempty"`
}

// absent is the past of a GPU that is not listed at present.
type absent struct {
	UUID string `json:"uuid"`
	Past
}

func (p *Past) empty() bool {
	return len(p.Ignored) == 0 && len(p.Offences) == 0 && len(p.Tenants) == 0
}

// store keeps the past of a GPU that goes. The oldest is forgotten first.
func (f *folding) store(g *GPU) {
	if g.UUID == "" || g.empty() {
		return
	}
	all := append(slices.Clip(f.next.Absent), absent{UUID: g.UUID, Past: g.Past})
	f.next.Absent = all[max(0, len(all)-maxGPUs):]
}

// recall gives a GPU that is found its past, as far as it is not over.
func (f *folding) recall(g *GPU) {
	i := slices.IndexFunc(f.next.Absent, func(a absent) bool { return a.UUID == g.UUID })
	if g.UUID == "" || i < 0 {
		return
	}
	g.Past = f.next.Absent[i].Past
	g.Ignored = slices.DeleteFunc(slices.Clone(g.Ignored), func(is Ignored) bool { return !is.Until.After(f.next.Time) })
	f.next.Absent = slices.Delete(slices.Clone(f.next.Absent), i, i+1)
}
