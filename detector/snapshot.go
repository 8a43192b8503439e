package detector

import (
	"slices"
	"time"
)

// Snapshot is what outputs see: immutable, and numbered so that each of them
// can say how far it has come.
type Snapshot struct {
	Seq    uint64      `json:"seq"`
	Time   time.Time   `json:"time"`
	Boot   string      `json:"boot,omitempty"`
	Driver DriverState `json:"driver"`
	GPUs   []GPUView   `json:"gpus"` // by PCI address
	// Node holds the faults whose scope is the node or its fabric.
	Node   []Condition `json:"node,omitempty"`
	Pause  *Pause      `json:"pause,omitempty"`  // the one in force; nil: none
	Claims []*Claim    `json:"claims,omitempty"` // that hold devices of this node, by UID
	// Released are those that were given back within the last minute.
	Released    []ReleasedClaim `json:"released,omitempty"`
	Requests    Requests        `json:"requests,omitzero"`
	Counters    Counters        `json:"counters"`
	Applied     Applied         `json:"applied"`
	Policy      string          `json:"policy"`
	Transitions []Transition    `json:"transitions,omitempty"` // the last ones, oldest first
}

// GPUView is one GPU as people see it.
type GPUView struct {
	PCI          string `json:"pci"`
	UUID         string `json:"uuid,omitempty"`
	Index        *int   `json:"index,omitempty"`
	Name         string `json:"name,omitempty"`
	Architecture string `json:"architecture,omitempty"`
	Serial       string `json:"serial,omitempty"`
	VBIOS        string `json:"vbios,omitempty"`
	Minor        *int   `json:"minor,omitempty"`
	MemoryBytes  uint64 `json:"memoryBytes,omitempty"`
	Build
	Status     Status      `json:"status"`
	Fresh      bool        `json:"fresh"`
	Missing    bool        `json:"missing,omitempty"`
	Recovery   *int        `json:"recovery,omitempty"`   // NVML field 230; nil: it was not told
	Conditions []Condition `json:"conditions,omitempty"` // the visible ones, worst first
	Ignored    []Ignored   `json:"ignored,omitempty"`    // what is no condition for a while
	Unheeded   []Condition `json:"unheeded,omitempty"`   // the faults that stand and are ignored, worst first: they have no effect
	Refusals   []Refusal   `json:"refusals,omitempty"`   // its devices that a claim did not get
	Xids       []XidCount  `json:"xids,omitempty"`       // since the boot, by code
}

// Ready reports whether the inventory was attempted: "no driver", "0 GPUs",
// "driver stuck" and "paused" are answers.
func (s *Snapshot) Ready() bool { return s.Driver.Asked || s.Pause != nil }

// GPU is the view of the GPU at an address.
func (s *Snapshot) GPU(pci string) (*GPUView, bool) {
	for i := range s.GPUs {
		if s.GPUs[i].PCI == pci {
			return &s.GPUs[i], true
		}
	}
	return nil, false
}

// InstanceConditions are the faults that concern one MIG instance, worst first: its
// own, and those of the GPU.
func (g *GPUView) InstanceConditions(gi, ci int) []Condition {
	var all []Condition
	for i := range g.Conditions {
		if g.Conditions[i].reaches(Device{GPUInstance: &gi, ComputeInstance: &ci}) {
			all = append(all, g.Conditions[i])
		}
	}
	return all
}

// InstanceStatus answers "is it fit?" of one MIG instance, as [GPU.Status] does of
// the whole GPU.
func (g *GPUView) InstanceStatus(gi, ci int) Status {
	degraded := false
	for _, c := range g.InstanceConditions(gi, ci) {
		switch {
		case c.Class == Application:
		case c.Effect.Fences():
			return Unhealthy
		default:
			degraded = true
		}
	}
	switch {
	case !g.Fresh:
		return Unknown
	case degraded:
		return Degraded
	default:
		return Healthy
	}
}

// view is the snapshot of a state.
func view(s *State) *Snapshot { return nextView(s, &State{}, &Snapshot{}) }

// nextView is the snapshot of a state that follows another: what did not
// change is shared with the snapshot before.
func nextView(s, before *State, seen *Snapshot) *Snapshot {
	v := &Snapshot{
		Seq: s.Seq, Time: s.Time, Boot: s.Boot, Driver: s.Driver, Node: visible(s.Node), Pause: s.Pause, Requests: s.Requests,
		Claims: s.Claims, Released: s.Released,
		Counters: s.Counters, Applied: s.Applied, Policy: s.Policy, Transitions: s.Recent,
		GPUs: make([]GPUView, len(s.GPUs)),
	}
	for i, g := range s.GPUs {
		if i < len(before.GPUs) && before.GPUs[i] == g {
			v.GPUs[i] = seen.GPUs[i]
			continue
		}
		heeded, unheeded := g.heeded(visible(g.Conditions))
		v.GPUs[i] = GPUView{
			PCI: g.PCI, UUID: g.UUID, Index: g.Index, Name: g.Name, Architecture: g.Architecture, Serial: g.Serial,
			VBIOS: g.VBIOS, Minor: g.Minor, MemoryBytes: g.MemoryBytes, Build: g.Build, Status: g.Status(), Fresh: g.answers(),
			Missing: g.Missing, Recovery: g.Recovery, Conditions: heeded, Ignored: g.Ignored, Unheeded: unheeded,
			Refusals: g.Refusals, Xids: g.Xids,
		}
	}
	return v
}

func visible(conditions []Condition) []Condition {
	var seen []Condition
	for _, c := range conditions {
		if c.Visible() {
			seen = append(seen, c)
		}
	}
	slices.SortFunc(seen, Worse)
	return seen
}
