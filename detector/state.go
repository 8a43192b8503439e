package detector

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"gpuvet.dev/nvml"
)

// State is everything that the fold knows. It is never written after it was
// returned: the next state shares what did not change.
type State struct {
	Seq  uint64        `json:"seq"`  // events folded, duplicates left out
	Time time.Time     `json:"time"` // of the newest event
	Mono time.Duration `json:"mono,omitempty"`
	Boot string        `json:"boot,omitempty"`
	// Scripted: the GPUs are those of a script, and nobody's hardware.
	Scripted bool `json:"scripted,omitempty"`

	Driver DriverState `json:"driver,omitzero"`
	GPUs   []*GPU      `json:"gpus,omitempty"` // by PCI address
	// Node holds the faults whose scope is the node or its fabric.
	Node []Condition `json:"node,omitempty"`
	// Absent has the pasts of GPUs that are not listed at present, oldest first.
	Absent []absent `json:"absent,omitempty"`
	// Forgotten are the addresses of GPUs that a person has had forgotten in this boot
	// and nobody has seen since: that one is missing is no news of it.
	Forgotten []string `json:"forgotten,omitempty"`
	// Pause is the one in force; nil: none.
	Pause    *Pause   `json:"pause,omitempty"`
	Requests Requests `json:"requests,omitzero"`

	// Claims are those that hold devices of this node, by UID.
	Claims   []*Claim        `json:"claims,omitempty"`
	Released []ReleasedClaim `json:"released,omitempty"` // oldest first

	// Folded has, for each <boot>/<source>, the highest number folded: an
	// observation met again is known by it.
	Folded   map[string]uint64 `json:"folded,omitempty"`
	Counters Counters          `json:"counters,omitzero"`
	Applied  Applied           `json:"applied,omitzero"`
	Policy   string            `json:"policy,omitempty"` // digest
	// PolicyRows are those by which it differs from the default.
	PolicyRows []PolicyRow `json:"policyRows,omitempty"`
	// PolicyParameters are those that it sets beside the rows.
	PolicyParameters PolicyParameters `json:"policyParameters,omitzero"`
	Recent           []Transition     `json:"recent,omitempty"` // the last ones, oldest first
}

// DriverState is the driver as last seen.
type DriverState struct {
	Version string `json:"version,omitempty"`
	CUDA    string `json:"cuda,omitempty"`
	Load    string `json:"load,omitempty"` // identity of this loading
	// Began is a time since boot at which this loading had not begun yet; exact
	// if the kernel log told of it. What happened before it is over for the GPU.
	Began time.Duration `json:"began,omitempty"`
	// Shown is when an inventory showed this loading first, since boot.
	Shown time.Duration `json:"shown,omitempty"`
	// Announced: the kernel log told of a loading that no inventory has shown yet.
	Announced bool `json:"announced,omitempty"`
	// Started is the last moment of the daemon's life before this one, since boot.
	Started time.Duration `json:"started,omitempty"`
	Missing string        `json:"missing,omitempty"` // why there is none; empty if there is one
	Absent  time.Duration `json:"absent,omitempty"`  // since when it is missing, since boot
	Stuck   bool          `json:"stuck,omitempty"`   // it answers no question
	Asked   bool          `json:"asked,omitempty"`   // an inventory was attempted under this start
	// Hang is the kernel log's newest line that the driver hangs, where it named no GPU.
	Hang *Sign `json:"hang,omitempty"`
}

// Major is the driver's branch, 570 for "570.195.03"; 0 if unknown.
func (d DriverState) Major() int {
	branch, _, _ := strings.Cut(d.Version, ".")
	n, err := strconv.Atoi(branch)
	if err != nil {
		return 0
	}
	return n
}

// GPU is one GPU as the fold knows it.
type GPU struct {
	PCI          string `json:"pci"`
	UUID         string `json:"uuid,omitempty"`
	Index        *int   `json:"index,omitempty"` // PCI order at the first inventory of the boot
	Name         string `json:"name,omitempty"`
	Architecture string `json:"architecture,omitempty"`
	Serial       string `json:"serial,omitempty"`
	VBIOS        string `json:"vbios,omitempty"`
	Minor        *int   `json:"minor,omitempty"`
	MemoryBytes  uint64 `json:"memoryBytes,omitempty"`
	Build

	Fresh    bool `json:"fresh,omitempty"`    // it answers
	Missing  bool `json:"missing,omitempty"`  // gone from the inventory
	Recovery *int `json:"recovery,omitempty"` // the action that the driver asks for, NVML field 230; nil: it was not told
	Pending  bool `json:"pending,omitempty"`  // a row remap waits
	Retiring bool `json:"retiring,omitempty"` // a retired page waits
	// Silent is since when it gives no answer, since boot, if people were told so; zero:
	// they were told of no silence that is not over.
	Silent time.Duration `json:"silent,omitempty"`
	// Well is since when it answers and asks for nothing, since boot; zero: it does not.
	Well time.Duration `json:"well,omitempty"`
	// Reset is a time since boot at which its newest reset under this loading of the
	// driver had not been yet. What happened before it is over.
	Reset time.Duration `json:"reset,omitempty"`

	Conditions []Condition `json:"conditions,omitempty"`
	Xids       []XidCount  `json:"xids,omitempty"` // by code
	// Ended has, for each reason that was ended in this boot, the time since
	// boot of its newest sign: older ones, arriving late, raise nothing.
	Ended map[Reason]time.Duration `json:"ended,omitempty"`
	// Refusals are devices of it that a claim did not get.
	Refusals []Refusal `json:"refusals,omitempty"`
	// Waived are facts that a person has declared over though they stand.
	Waived []Reason `json:"waived,omitempty"`
	Past
	// Sign is what the kernel log told of it last that explains a call which does
	// not return.
	Sign *Sign `json:"sign,omitempty"`
	// Merging holds the windows in which two reporters of one Xid are one.
	Merging []mergeWindow `json:"merging,omitempty"`
}

// Build is how a GPU is made, placed and divided, as far as that is known. It stays
// when the GPU is lost.
type Build struct {
	Brand             string `json:"brand,omitempty"`             // Tesla, GeForce, Nvidia
	ComputeCapability string `json:"computeCapability,omitempty"` // 9.0
	AddressingMode    string `json:"addressingMode,omitempty"`    // HMM, ATS, None
	NUMANode          *int   `json:"numaNode,omitempty"`
	PCIeRoot          string `json:"pcieRoot,omitempty"` // pci0000:64
	MIG               bool   `json:"mig,omitempty"`      // in MIG mode
	// Instances are its MIG devices, by GPU instance, then by compute instance.
	Instances []nvml.Instance `json:"instances,omitempty"`
}

// XidCount counts one Xid of one GPU since the boot.
type XidCount struct {
	Code  int       `json:"code"`
	Count uint64    `json:"count"`
	Last  time.Time `json:"last"`
}

// Condition is one fault of one GPU, or of the node: from its first sign to
// the evidence that ends it.
type Condition struct {
	Reason Reason   `json:"reason"`
	Class  Class    `json:"class"`
	Scope  Scope    `json:"scope"`
	Effect Effect   `json:"effect,omitempty"`
	Action Action   `json:"action"`
	Taint  TaintKey `json:"taint,omitempty"`
	// Cause is the first sign in words: "Xid 79", "recovery action gpu-reset".
	Cause string        `json:"cause"`
	Why   string        `json:"why,omitempty"` // what has decided, where Cause alone does not say
	Since time.Time     `json:"since"`
	Last  time.Time     `json:"last"` // newest sign
	Mono  time.Duration `json:"mono"` // newest sign, since boot
	Count uint64        `json:"count"`
	Xids  []int         `json:"xids,omitempty"` // codes that belong to it, by first appearance
	// Members are the signs of this incident, its symptoms among them, by first
	// appearance; at most 32 kinds.
	Members []Member `json:"members,omitempty"`
	// The MIG instance that the fault stays with; nil: it is the whole GPU's.
	GPUInstance     *int `json:"gi,omitempty"`
	ComputeInstance *int `json:"ci,omitempty"`
	// Message is the driver's text of the first sign, for people.
	Message string `json:"message,omitempty"`
	// Incident identifies this occurrence: the ID of the event that began it.
	Incident string `json:"incident"`

	// Fact is the source that sees the fault as something that is so, and not
	// only happened; empty if none does.
	Fact string `json:"fact,omitempty"`
	// Event is true if the fault was told by an event: it ends by evidence.
	Event bool `json:"event,omitempty"`
	// Counted: it is one of the incidents that count against the GPU, or a part of one.
	Counted bool `json:"counted,omitempty"`
	// Sticky: no evidence ends it, only a person.
	Sticky bool `json:"sticky,omitempty"`
	// Boot is that of the newest sign.
	Boot string `json:"boot,omitempty"`
	// Held until this time since boot; nobody sees it before.
	Held *time.Duration `json:"held,omitempty"`
	// Repeat: nobody sees it before so many signs; zero: they came.
	Repeat int `json:"repeat,omitempty"`
	// Polled: its hold stands still while the GPU does not answer.
	Polled bool `json:"polled,omitempty"`
	// Quiet is how long after the newest sign, or after a boot, it ends by
	// itself; zero: it does not.
	Quiet time.Duration `json:"quiet,omitempty"`
	// Ends is when it will end, since boot, if nothing happens before, and Ending
	// why; empty: no end is in sight.
	Ends   time.Duration `json:"ends,omitempty"`
	Ending string        `json:"ending,omitempty"`
}

// Visible reports whether the fault has outlasted its hold, and came often enough.
func (c Condition) Visible() bool { return c.Held == nil && c.Repeat == 0 }

// Counters count since the boot.
type Counters struct {
	Events map[string]uint64 `json:"events,omitempty"` // by <source>/<kind>
	Gaps   uint64            `json:"gaps,omitempty"`   // in the kernel log
	Lost   uint64            `json:"lost,omitempty"`   // kernel-log records
	// Late counts signs that came after the evidence that ended their fault.
	Late uint64 `json:"late,omitempty"`
	// Undecoded counts the reports of Xids 144 to 150 that no rule of the catalogue
	// fits: the line's own word has decided about them.
	Undecoded uint64 `json:"undecoded,omitempty"`
}

// Applied is what we have done to the cluster, and may undo.
type Applied struct {
	// Taint is the node taint that is ours; nil if none.
	Taint *AppliedTaint `json:"taint,omitempty"`
}

// AppliedTaint is our node taint. It is remembered before it is written, so
// that no crash makes ours a stranger's.
type AppliedTaint struct {
	Value    string    `json:"value"`
	Effect   Effect    `json:"effect"`
	Added    time.Time `json:"added"`    // whole seconds, as the API keeps it
	Accepted bool      `json:"accepted"` // the API server has it
	// Earlier ones, oldest first, may still be on the node until this one is
	// accepted.
	Earlier []AppliedTaint `json:"earlier,omitempty"`
}

// maxEarlierTaints bounds what is remembered while the API server accepts none.
const maxEarlierTaints = 8

// after is the taint t, intended while was stands: one more that may be found on
// the node. Of too many the oldest stays, for it alone was surely accepted.
func (t AppliedTaint) after(was *AppliedTaint) *AppliedTaint {
	switch {
	case was == nil:
		return &t
	case was.Value == t.Value && was.Effect == t.Effect && was.Added.Equal(t.Added):
		return was
	}
	last := *was
	last.Earlier = nil
	t.Earlier = append(slices.Clone(was.Earlier), last)
	if len(t.Earlier) > maxEarlierTaints {
		t.Earlier = slices.Delete(t.Earlier, 1, 2)
	}
	return &t
}

// gpu gives the place of the GPU at an address, and whether it is there.
func (s *State) gpu(pci string) (int, bool) {
	return slices.BinarySearchFunc(s.GPUs, pci, func(g *GPU, pci string) int { return strings.Compare(g.PCI, pci) })
}

// Status answers "is it fit?".
func (g *GPU) Status() Status {
	degraded := false
	for _, c := range g.Conditions {
		_, ignored := g.ignored(c.Reason)
		switch {
		case !c.Visible() || c.Class == Application || ignored:
		case c.Effect.Fences():
			return Unhealthy
		default:
			degraded = true
		}
	}
	switch {
	case !g.answers():
		return Unknown
	case degraded:
		return Degraded
	default:
		return Healthy
	}
}
