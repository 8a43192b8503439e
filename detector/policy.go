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
	// Xids has one row per Xid of NVIDIA's catalogue, and per one that a user's
	// row names.
	Xids map[int]XidRow `json:"xids"`
	// Events has the rows for what NVML tells as an event that is no Xid: the first
	// that fits decides.
	Events         []EventRow     `json:"events"`
	RepeatOffender RepeatOffender `json:"repeatOffender"`
	Suspicion      Suspicion      `json:"suspicion"`
	// Rows are those of the user, by which this policy differs from the default.
	Rows []PolicyRow `json:"rows,omitempty"`
	// Parameters are those that the user has set.
	Parameters PolicyParameters `json:"parameters,omitzero"`
}

// Row is how a fault of one reason behaves from its first sign to its end.
type Row struct {
	Reason Reason   `json:"reason"`
	Scope  Scope    `json:"scope"`
	Taint  TaintKey `json:"taint,omitempty"`
	// Class, Effect and Action are those of a sign that has no code, and of a
	// code that says nothing else.
	Class  Class  `json:"class"`
	Effect Effect `json:"effect,omitempty"`
	Action Action `json:"action"`
	// Hold is how long the fault must last before anyone sees it; zero: at once.
	Hold time.Duration `json:"hold,omitempty"`
	// Repeat: nobody sees the fault before it was told so often; zero: at once.
	Repeat Repeat `json:"repeat,omitzero"`
	// Polled: every poll of NVML tells whether it is so, and its hold counts only
	// while the GPU answers.
	Polled bool `json:"polled,omitempty"`
	// Clear is the evidence that ends it.
	Clear Clear `json:"clear"`
	// Quiet is the time without new evidence that ends it, for ClearQuiet.
	Quiet time.Duration `json:"quiet,omitempty"`
	// Settle is how long the GPU must have answered well before a reset or its
	// answers end the fault.
	Settle time.Duration `json:"settle,omitempty"`
	// Ignore: signs are counted and recorded, and are never a condition.
	Ignore bool `json:"ignore,omitempty"`
	// Source says where the rule comes from: the catalogue, another document, or
	// a user's file.
	Source string `json:"source,omitempty"`
}

// Repeat is how often a fault must be told, each time within a while of the time
// before. Codes that the driver itself prints less often than they happen are
// told at once.
type Repeat struct {
	Count  int           `json:"count"`
	Within time.Duration `json:"within"`
}

// rateLimited are the Xids of which the driver prints one in thirty ("Rate
// limiting GSP RPC error prints", kernel_gsp.c), and those beside them: how many
// lines there are says nothing.
var rateLimited = map[int]bool{119: true, 120: true}

// XidRow is the verdict on one Xid, and where it comes from.
type XidRow struct {
	Verdict
	// Ignore: it is counted and recorded, and is never a condition.
	Ignore bool   `json:"ignore,omitempty"`
	Source string `json:"source,omitempty"`
	// Note says, where the systems in use disagree, who decides otherwise and
	// why we do as we do.
	Note string `json:"note,omitempty"`
}

// Clear names the evidence that ends a fault.
type Clear string

// The kinds of evidence.
const (
	// ClearReset: the node was booted, the driver loaded again or the GPU reset
	// since the last sign, the GPU answers, it asks for no recovery, and no row
	// remap waits, all that for Row.Settle.
	ClearReset Clear = "reset"
	// ClearBoot: the same, and only a boot of the node will do.
	ClearBoot Clear = "boot"
	// ClearAnswer: the GPU answers again, it asks for no recovery, and no row remap
	// waits, all that for Row.Settle.
	ClearAnswer Clear = "answer"
	// ClearLevel: the fact is no longer so.
	ClearLevel Clear = "level"
	// ClearQuiet: no sign for Row.Quiet. What fences ends only while the GPU answers
	// and asks for nothing, and a reset ends it as with ClearReset.
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

// pollHold is how long a fact that each poll tells must be so before anyone sees
// it: three polls.
const pollHold = 30 * time.Second

// fabricHold is how long a GPU may take to be registered with its fabric: at a boot
// the Fabric Manager starts after the driver, and trains every link of the node.
const fabricHold = 5 * time.Minute

// settleTime is how long a GPU must answer well after a reset: three polls. A
// fault that the reset has not cured shows again meanwhile.
const settleTime = 30 * time.Second

// DefaultPolicy is what NVIDIA's catalogue says, read by the rules below.
func DefaultPolicy() *Policy {
	const gpu, node, work = ScopeGPU, ScopeNode, ScopeWorkload
	rows := []Row{
		{Reason: GPULost, Scope: gpu, Taint: TaintLost, Class: Hardware, Effect: NoSchedule, Action: ActRebootNode, Clear: ClearAnswer, Settle: settleTime, Source: "catalogue RESTART_BM; nvml.h ERROR_GPU_IS_LOST"},
		{Reason: ResetRequired, Scope: gpu, Taint: TaintResetRequired, Class: Driver, Effect: NoSchedule, Action: ActResetGPU, Clear: ClearReset, Settle: settleTime, Source: "catalogue RESET_GPU; recovery actions 1, 4 and 6"},
		{Reason: RebootRequired, Scope: gpu, Taint: TaintRebootRequired, Class: Driver, Effect: NoSchedule, Action: ActRebootNode, Clear: ClearBoot, Settle: settleTime, Source: "catalogue RESTART_VM; recovery actions 2 and 7"},
		{Reason: UncorrectableMemory, Scope: gpu, Taint: TaintMemory, Class: Hardware, Effect: NoSchedule, Action: ActResetGPU, Clear: ClearReset, Settle: settleTime, Source: "catalogue WORKFLOW_XID_48, FOLLOW_XID_48; Xids 64, 95, 140"},
		{Reason: RowRemapFailed, Scope: gpu, Taint: TaintMemory, Class: Hardware, Effect: NoSchedule, Action: ActContactSupport, Clear: ClearHand, Source: "NVIDIA GPU memory error management: no spare row is left"},
		{Reason: SRAMThreshold, Scope: gpu, Taint: TaintMemory, Class: Hardware, Effect: NoSchedule, Action: ActContactSupport, Clear: ClearHand, Source: "nvml.h nvmlEccSramErrorStatus_v1_t.bThresholdExceeded: field diagnostics fail such a GPU, as one with a failed row remap"},
		{Reason: LinkFault, Scope: gpu, Taint: TaintLink, Class: Link, Effect: NoSchedule, Action: ActResetGPU, Clear: ClearQuiet, Quiet: quietHour, Settle: settleTime, Source: "catalogue WORKFLOW_NVLINK_ERR, WORKFLOW_NVLINK5_ERR; recovery action 3"},
		{Reason: ThermalFault, Scope: gpu, Taint: TaintThermal, Class: Hardware, Effect: NoSchedule, Action: ActCheckHardware, Clear: ClearReset, Settle: settleTime, Source: "catalogue CHECK_MECHANICALS"},
		{Reason: Unresponsive, Scope: gpu, Taint: TaintUnresponsive, Class: Driver, Effect: NoSchedule, Action: ActRebootNode, Hold: time.Minute, Clear: ClearLevel, Source: "calls to the driver that do not return"},
		{Reason: DriverFault, Scope: gpu, Taint: TaintResetRequired, Class: Driver, Effect: NoSchedule, Action: ActResetGPU, Clear: ClearReset, Settle: settleTime, Source: "the driver's own line: RmInitAdapter failed"},
		{Reason: DriverStuck, Scope: node, Taint: TaintUnresponsive, Class: Driver, Effect: NoSchedule, Action: ActRebootNode, Clear: ClearLevel, Source: "a driver that answers no question about any GPU"},
		{Reason: FabricFault, Scope: node, Taint: TaintLink, Class: Fabric, Effect: NoSchedule, Action: ActRebootNode, Clear: ClearReset, Source: "Fabric Manager guide: fatal SXid"},
		{Reason: FabricNotReady, Scope: gpu, Taint: TaintLink, Class: Fabric, Effect: NoSchedule, Action: ActRebootNode, Hold: fabricHold, Polled: true, Clear: ClearLevel, Source: "nvml.h NVML_GPU_FABRIC_STATE_NOT_STARTED, IN_PROGRESS: CUDA does not start on it (error 802) until the Fabric Manager has registered it"},
		{Reason: FabricRefused, Scope: gpu, Taint: TaintLink, Class: Fabric, Effect: NoSchedule, Action: ActRebootNode, Hold: pollHold, Polled: true, Clear: ClearLevel, Source: "nvml.h nvmlGpuFabricInfo_v2_t.status: the registration is complete, and is an error"},

		{Reason: RowRemapPending, Scope: gpu, Taint: TaintMemory, Class: Hardware, Action: ActDrainAndReset, Clear: ClearLevel, Source: "NVIDIA GPU memory error management: a reset will remap; until then the GPU may work on"},
		{Reason: RetirementPending, Scope: gpu, Taint: TaintMemory, Class: Hardware, Action: ActDrainAndReset, Clear: ClearLevel, Source: "NVIDIA dynamic page retirement, before Ampere: a reset will retire the page"},
		{Reason: LinkDown, Scope: gpu, Taint: TaintLink, Class: Link, Action: ActResetGPU, Hold: pollHold, Polled: true, Clear: ClearLevel, Source: "nvml.h NVML_FI_DEV_NVLINK_GET_STATE: a link that was active and is not; Xid 74 or 149, or the driver, says whether it is a fault"},
		{Reason: PCIeDegraded, Scope: gpu, Class: Hardware, Action: ActCheckHardware, Hold: pollHold, Polled: true, Clear: ClearLevel, Source: "nvml.h nvmlDeviceGetCurrPcieLinkWidth, Generation: less than card and slot can, under load"},
		{Reason: ThermalSlowdown, Scope: gpu, Taint: TaintThermal, Class: Hardware, Action: ActCheckHardware, Hold: pollHold, Polled: true, Clear: ClearLevel, Source: "nvml.h nvmlClocksEventReasonHwThermalSlowdown: too hot, clocks at half or less; the work goes on"},
		{Reason: PowerBrake, Scope: gpu, Class: Hardware, Action: ActCheckHardware, Hold: pollHold, Polled: true, Clear: ClearLevel, Source: "nvml.h nvmlClocksEventReasonHwPowerBrakeSlowdown: the power supply has the clocks at half or less"},
		{Reason: CorrectedErrors, Scope: gpu, Class: Hardware, Action: ActWatch, Repeat: Repeat{Count: 3, Within: time.Hour}, Clear: ClearQuiet, Quiet: quietHour, Source: "nvml.h nvmlEventTypeSingleBitEccErrorStorm; more than 10 corrected errors a minute, DCGM's DCGM_LIMIT_MAX_SBE_RATE"},
		{Reason: UncorrectedErrors, Scope: gpu, Class: Hardware, Action: ActWatch, Clear: ClearQuiet, Quiet: quietHour, Source: "nvml.h NVML_MEMORY_ERROR_TYPE_UNCORRECTED, volatile: a counter does not tell what was contained; Xid 48, 94 or 95, or the driver, says whether it is a fault"},
		{Reason: PCIeErrors, Scope: gpu, Class: Hardware, Action: ActCheckHardware, Repeat: Repeat{Count: 3, Within: time.Hour}, Clear: ClearQuiet, Quiet: quietHour, Source: "nvml.h NVML_FI_DEV_PCIE_COUNT_NON_FATAL_ERROR; _CORRECTABLE_ERRORS, more than one bit in 10^12 as in DCGM's health watch"},
		{Reason: FabricDegraded, Scope: gpu, Taint: TaintLink, Class: Fabric, Action: ActWatch, Hold: pollHold, Polled: true, Clear: ClearLevel, Source: "nvml.h NVML_GPU_FABRIC_HEALTH_MASK_*: NVLink works, with less of it; FabricRefused or the driver says if not"},
		{Reason: ContainedMemoryError, Scope: gpu, Class: Hardware, Action: ActRestartApp, Clear: ClearQuiet, Quiet: quietHour, Source: "catalogue: Xid 94 ends one process; 95 or 154 would say more"},
		{Reason: HardwareWarning, Scope: gpu, Class: Hardware, Action: ActRestartApp, Clear: ClearQuiet, Quiet: quietHour, Source: "catalogue RESTART_APP, category hardware"},
		{Reason: LinkWarning, Scope: gpu, Class: Link, Action: ActWatch, Clear: ClearQuiet, Quiet: quietHour, Source: "catalogue CHECK_UVM; a non-fatal NVLink report"},
		{Reason: LinkUnstable, Scope: gpu, Taint: TaintLink, Class: Link, Action: ActWatch, Repeat: Repeat{Count: 3, Within: time.Hour}, Clear: ClearQuiet, Quiet: quietHour, Source: "the driver's own lines about NVLink without an Xid, of which one comes at many a boot; counters of a link that grow, DCGM's hardware limits"},
		{Reason: DriverWarning, Scope: gpu, Class: Driver, Action: ActRestartApp, Clear: ClearQuiet, Quiet: quietHour, Source: "catalogue RESTART_APP, category driver; UPDATE_SWFW"},
		{Reason: SuspectedByTenants, Scope: gpu, Class: Hardware, Action: ActCheckHardware, Clear: ClearQuiet, Quiet: 24 * time.Hour, Source: "the same application fault from tenants that have nothing else in common"},
		{Reason: FabricWarning, Scope: node, Class: Fabric, Action: ActWatch, Clear: ClearQuiet, Quiet: quietHour, Source: "Fabric Manager guide: non-fatal SXid"},
		{Reason: Unmonitored, Scope: gpu, Taint: TaintUnmonitored, Class: Information, Effect: None, Action: ActNone, Clear: ClearLevel, Source: "a pause that somebody asked for"},
		{Reason: ApplicationFault, Scope: work, Class: Application, Action: ActRestartApp, Clear: ClearQuiet, Quiet: 10 * time.Minute, Source: "catalogue RESTART_APP, category user-app or software"},
	}
	p := &Policy{
		Reasons: map[Reason]Row{}, Xids: map[int]XidRow{}, Events: eventRows(),
		RepeatOffender: RepeatOffender{Count: 3, Within: month},
		Suspicion:      Suspicion{Tenants: 3, Within: 24 * time.Hour},
	}
	for _, r := range rows {
		p.Reasons[r.Reason] = r
	}
	for _, e := range xid.All() {
		p.Xids[e.Code] = XidRow{Verdict: verdict(e), Source: bucketSource(e), Note: disagreements[e.Code]}
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

// Digest identifies the policy by what it decides; where that comes from is left
// out.
func (p *Policy) Digest() string {
	plain := Policy{
		Reasons: make(map[Reason]Row, len(p.Reasons)), Xids: make(map[int]XidRow, len(p.Xids)),
		RepeatOffender: p.RepeatOffender, Suspicion: p.Suspicion,
	}
	for reason, row := range p.Reasons {
		row.Source = ""
		plain.Reasons[reason] = row
	}
	for code, row := range p.Xids {
		row.Source, row.Note = "", ""
		plain.Xids[code] = row
	}
	for _, row := range p.Events {
		row.Source = ""
		plain.Events = append(plain.Events, row)
	}
	data, err := json.Marshal(plain)
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
