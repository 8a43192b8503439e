package detector

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"gpuvet.dev/detector/xid"
)

// Policy says what every fault means here. It is data: the fold reads it and
// decides nothing of its own.
type Policy struct {
	// Reasons has one row per reason.
	Reasons map[Reason]Row `json:"reasons"`
	// Xids has one verdict per Xid of NVIDIA's catalogue.
	Xids map[int]Verdict `json:"xids"`
}

// Row is how a fault of one reason behaves from its first sign to its end.
type Row struct {
	Reason Reason   `json:"reason"`
	Scope  Scope    `json:"scope"`
	Taint  TaintKey `json:"taint,omitempty"`
	// Hold is how long the fault must last before anyone sees it; zero: at once.
	Hold time.Duration `json:"hold,omitempty"`
	// Clear is the evidence that ends it.
	Clear Clear `json:"clear"`
	// Quiet is the time without new evidence that ends it, for ClearQuiet.
	Quiet time.Duration `json:"quiet,omitempty"`
	// Source says where the rule comes from.
	Source string `json:"source"`
}

// Clear names the evidence that ends a fault.
type Clear string

// The kinds of evidence.
const (
	// ClearReset: the node was booted or the driver loaded again since the last
	// sign, the GPU answers, it asks for no recovery, and no row remap waits.
	ClearReset Clear = "reset"
	// ClearLevel: the fact is no longer so.
	ClearLevel Clear = "level"
	// ClearQuiet: no sign for Row.Quiet.
	ClearQuiet Clear = "quiet"
	// ClearHand: a person says so.
	ClearHand Clear = "hand"
)

// Verdict is what one code means: whose fault, what it does, what to do.
type Verdict struct {
	Reason Reason `json:"reason,omitempty"` // empty: recorded only
	Class  Class  `json:"class"`
	Effect Effect `json:"effect,omitempty"`
	Action Action `json:"action"`
}

// quietHour ends what is told and does not fence.
const quietHour = time.Hour

// DefaultPolicy is what NVIDIA's catalogue says, read by the rules below.
func DefaultPolicy() *Policy {
	rows := []Row{
		{Reason: GPULost, Scope: ScopeGPU, Taint: TaintLost, Clear: ClearReset, Source: "catalogue: Xid 79 RESTART_BM; nvml.h ERROR_GPU_IS_LOST"},
		{Reason: ResetRequired, Scope: ScopeGPU, Taint: TaintResetRequired, Clear: ClearReset, Source: "catalogue: RESET_GPU; recovery actions 1, 4 and 6"},
		{Reason: RebootRequired, Scope: ScopeGPU, Taint: TaintRebootRequired, Clear: ClearReset, Source: "catalogue: RESTART_VM; recovery actions 2 and 7"},
		{Reason: UncorrectableMemory, Scope: ScopeGPU, Taint: TaintMemory, Clear: ClearReset, Source: "catalogue: WORKFLOW_XID_48, FOLLOW_XID_48, Xids 64, 95, 140"},
		{Reason: RowRemapFailed, Scope: ScopeGPU, Taint: TaintMemory, Clear: ClearHand, Source: "NVIDIA GPU memory error management: no spare row is left"},
		{Reason: LinkFault, Scope: ScopeGPU, Taint: TaintLink, Clear: ClearReset, Source: "catalogue: WORKFLOW_NVLINK_ERR, WORKFLOW_NVLINK5_ERR; recovery action 3"},
		{Reason: ThermalFault, Scope: ScopeGPU, Taint: TaintThermal, Clear: ClearReset, Source: "catalogue: CHECK_MECHANICALS"},
		{Reason: Unresponsive, Scope: ScopeGPU, Taint: TaintUnresponsive, Hold: time.Minute, Clear: ClearLevel, Source: "calls to the driver that do not return"},
		{Reason: DriverFault, Scope: ScopeGPU, Taint: TaintResetRequired, Clear: ClearReset, Source: "the driver's own line: RmInitAdapter failed"},
		{Reason: DriverStuck, Scope: ScopeNode, Taint: TaintUnresponsive, Clear: ClearLevel, Source: "a driver that answers no question about any GPU"},
		{Reason: FabricFault, Scope: ScopeNode, Taint: TaintLink, Clear: ClearReset, Source: "Fabric Manager guide: fatal SXid"},

		{Reason: RowRemapPending, Scope: ScopeGPU, Clear: ClearLevel, Source: "NVIDIA GPU memory error management: a reset will remap; until then the GPU may work on"},
		{Reason: ContainedMemoryError, Scope: ScopeGPU, Clear: ClearQuiet, Quiet: quietHour, Source: "catalogue: Xid 94 ends one process; 95 or 154 would say more"},
		{Reason: HardwareWarning, Scope: ScopeGPU, Clear: ClearQuiet, Quiet: quietHour, Source: "catalogue: RESTART_APP, category hardware"},
		{Reason: LinkWarning, Scope: ScopeGPU, Clear: ClearQuiet, Quiet: quietHour, Source: "catalogue: CHECK_UVM; a non-fatal NVLink report"},
		{Reason: DriverWarning, Scope: ScopeGPU, Clear: ClearQuiet, Quiet: quietHour, Source: "catalogue: RESTART_APP, category driver; UPDATE_SWFW"},
		{Reason: FabricWarning, Scope: ScopeNode, Clear: ClearQuiet, Quiet: quietHour, Source: "Fabric Manager guide: non-fatal SXid"},
		{Reason: Unmonitored, Scope: ScopeGPU, Taint: TaintUnmonitored, Clear: ClearLevel, Source: "a pause that somebody asked for"},
		{Reason: ApplicationFault, Scope: ScopeWorkload, Clear: ClearQuiet, Quiet: 10 * time.Minute, Source: "catalogue: RESTART_APP, category user-app or software"},
	}
	p := &Policy{Reasons: map[Reason]Row{}, Xids: map[int]Verdict{}}
	for _, r := range rows {
		p.Reasons[r.Reason] = r
	}
	for _, e := range xid.All() {
		p.Xids[e.Code] = verdict(e)
	}
	return p
}

// Alertable lists, in order, the Xids that every GPU has a counter for from
// the start: all that fence, and the common ones that do not. An increase from
// nothing is invisible to PromQL, one from zero is not.
func (p *Policy) Alertable() []int {
	codes := []int{13, 31, 43, 45, 63, 94}
	for code, v := range p.Xids {
		if v.Effect.Fences() && !slices.Contains(codes, code) {
			codes = append(codes, code)
		}
	}
	slices.Sort(codes)
	return codes
}

// Digest identifies the policy by its content.
func (p *Policy) Digest() string {
	data, err := json.Marshal(p)
	if err != nil {
		panic(fmt.Sprintf("a policy is plain data: %v", err))
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// Worse orders faults as a node's taint does: by effect, then by key.
func Worse(a, b Condition) int {
	return cmp.Or(
		cmp.Compare(b.Effect.rank(), a.Effect.rank()),
		cmp.Compare(severity[a.Taint], severity[b.Taint]),
		cmp.Compare(a.Reason, b.Reason),
	)
}

var severity = ranks(TaintRebootRequired, TaintLost, TaintResetRequired, TaintMemory, TaintLink, TaintUnresponsive, TaintThermal, TaintUnmonitored, "")

func ranks(keys ...TaintKey) map[TaintKey]int {
	m := make(map[TaintKey]int, len(keys))
	for i, k := range keys {
		m[k] = i
	}
	return m
}
