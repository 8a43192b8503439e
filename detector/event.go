package detector

import (
	"strconv"
	"strings"
	"time"

	"gpuvet.dev/detector/xid"
	"gpuvet.dev/nvml"
)

// Event is one observation by one source: a plain value that the trail stores
// and that a replay feeds back.
type Event struct {
	// ID is <boot>/<source>/<n>: the same observation met again, after a crash
	// or in a replay, has the same ID and is folded once. n grows within one
	// boot and source.
	ID     string        `json:"id"`
	Source string        `json:"source"`
	Kind   Kind          `json:"kind"`
	Time   time.Time     `json:"time"` // wall clock
	Boot   string        `json:"boot,omitempty"`
	Mono   time.Duration `json:"mono,omitempty"` // since boot

	GPU    Device            `json:"gpu,omitzero"`
	Xid    *Report           `json:"xid,omitempty"`
	SXid   *Report           `json:"sxid,omitempty"`
	Fields map[string]string `json:"fields,omitempty"`
	Holder *Holder           `json:"holder,omitempty"`
	Claim  *Claim            `json:"claim,omitempty"`
	// Instances are the MIG devices of the GPU, where the field mig is true.
	Instances []nvml.Instance `json:"instances,omitempty"`
	// Policy has the rows by which a policy differs from the default.
	Policy []PolicyRow `json:"policy,omitempty"`
	// Parameters are those that a policy sets beside the rows.
	Parameters PolicyParameters `json:"parameters,omitzero"`
}

// Device names the GPU or MIG instance that an event is about. An event about
// the node has the zero Device.
type Device struct {
	PCI             string `json:"pci,omitempty"` // 0000:3b:00.0
	UUID            string `json:"uuid,omitempty"`
	GPUInstance     *int   `json:"gi,omitempty"`
	ComputeInstance *int   `json:"ci,omitempty"`
}

// instance names the MIG instance within its GPU; empty if there is none.
func (d Device) instance() string {
	switch {
	case d.GPUInstance == nil:
		return ""
	case d.ComputeInstance == nil:
		return strconv.Itoa(*d.GPUInstance)
	default:
		return strconv.Itoa(*d.GPUInstance) + "/" + strconv.Itoa(*d.ComputeInstance)
	}
}

// Report is an Xid or SXid as it was reported.
type Report struct {
	Code     int         `json:"code"`
	PID      *int        `json:"pid,omitempty"`
	Process  string      `json:"process,omitempty"` // chosen by a tenant
	Text     string      `json:"text,omitempty"`    // at most 1 KiB
	Severity string      `json:"severity,omitempty"`
	CausedBy int         `json:"causedBy,omitempty"` // the Xid that the driver names as the cause
	Action   *xid.Action `json:"action,omitempty"`
	NVLink   *xid.NVLink `json:"nvlink,omitempty"`
	Switch   string      `json:"switch,omitempty"`
	Port     *int        `json:"port,omitempty"`
}

// Holder is who held the GPU.
type Holder struct {
	Claim  string `json:"claim,omitempty"` // namespace/name, as those below
	Pod    string `json:"pod,omitempty"`
	PodUID string `json:"podUID,omitempty"`
	Owner  string `json:"owner,omitempty"`
	// Tenant is whose it is; empty: the namespace of the pod says it.
	Tenant string `json:"tenant,omitempty"`
}

// Kind says what was observed. Kinds that this version does not know are
// counted and kept, and change nothing.
type Kind string

// Kinds that come from the kernel log.
const (
	KindXid      Kind = "Xid"
	KindSXid     Kind = "SXid"
	KindGPULost  Kind = "GPULost"    // fell off the bus; also seen by NVML
	KindInit     Kind = "InitFailed" // the driver could not initialise the GPU
	KindPCIe     Kind = "PCIeError"
	KindHang     Kind = "DriverHang"
	KindLink     Kind = "LinkError"
	KindRecovery Kind = "Recovery"
	KindSoftware Kind = "SoftwareError" // versions that do not match, errors of peer memory; clients can cause it
	KindLogGap   Kind = "KernelLogGap"  // Fields: lost
	KindLoading  Kind = "DriverLoading" // the driver is being loaded, or loaded again
)

// Kinds that tell a fact about a GPU as NVML sees it. Each is emitted when the
// fact changes, and once after every start.
const (
	// KindGPUFound: Fields: index, name, architecture, serial, vbios, minor, memoryBytes,
	// brand, computeCapability, addressingMode, numaNode, pcieRoot, mig; Instances.
	KindGPUFound       Kind = "GPUFound"
	KindGPUMissing     Kind = "GPUMissing"        // was in the inventory, and is no more
	KindGPUBack        Kind = "GPUBack"           // answers, after it was lost
	KindFresh          Kind = "ReadingsFresh"     // the GPU answers
	KindStale          Kind = "ReadingsStale"     // the last answer is older than its freshness; Fields, unless nobody has asked: ago: how long ago it was, cause
	KindUnresponsive   Kind = "Unresponsive"      // calls about it do not return
	KindResponsive     Kind = "Responsive"        // they do again
	KindRecoveryAction Kind = "RecoveryAction"    // Fields: action, a number of NVML field 230
	KindReset          Kind = "GPUReset"          // it was reset since its answer before; Fields: sign, ago: how long ago that was
	KindRemapPending   Kind = "RemapPending"      // Fields: pending, true or false
	KindRemapFailed    Kind = "RemapFailed"       // Fields: failed, true or false
	KindWaits          Kind = "RetirementPending" // a retired page waits for a reset; Fields, of this and the next eight: so, true or false; detail
	KindSRAMThreshold  Kind = "SRAMThreshold"
	KindPCIeDegraded   Kind = "PCIeDegraded"
	KindThermal        Kind = "ThermalSlowdown"
	KindPowerBrake     Kind = "PowerBrake"
	KindLinkDown       Kind = "LinkDown"
	KindFabricNotReady Kind = "FabricNotReady"
	KindFabricRefused  Kind = "FabricRefused"
	KindFabricDegraded Kind = "FabricDegraded"
	KindCorrected      Kind = "CorrectedErrors"   // too many, by the counter; Fields, of this and the next two: text
	KindUncorrected    Kind = "UncorrectedErrors" // by the counter; Fields: ago: how long ago the answer before was
	KindPCIeErrors     Kind = "PCIeErrors"        // by the counters
	KindDriverEvent    Kind = "DriverEvent"       // an NVML event that is no Xid; Fields: type; of an operational one severity, level, module, code, category, attributes, xid
)

// Kinds that are about the node, or come from people and outputs.
const (
	KindBoot          Kind = "Boot"          // the daemon started under this boot; Fields: version; gpus: scripted
	KindDriverLoaded  Kind = "DriverLoaded"  // Fields: version, cuda, load; ago: how long ago the loading before was seen last
	KindDriverMissing Kind = "DriverMissing" // Fields: cause
	KindDriverStuck   Kind = "DriverStuck"   // it answers no question, whichever GPU that is about; Fields: cause
	KindDriverAnswers Kind = "DriverAnswers" // it does again
	KindPolicy        Kind = "Policy"        // Fields: digest; Policy, Parameters
	KindClear         Kind = "Clear"         // by hand; Fields: reason (empty: all), author; by: [ByAnnotation] if so
	KindIgnore        Kind = "Ignore"        // the reason is no condition for a while; Fields: reason, for, by, author
	KindUnignore      Kind = "Unignore"      // it is one again; Fields: reason, by, author
	KindPaused        Kind = "Paused"        // NVML is to be closed; Fields: for, by, author, why; value: of the annotation or label
	KindResumed       Kind = "Resumed"       // and opened again; Fields: by, author
	KindPauseRefused  Kind = "PauseRefused"  // the annotation cannot be used; Fields: value, cause
	KindHandled       Kind = "Handled"       // an annotation was dealt with; Fields: by ([ByClear], [ByIgnore]), value; cause: why it changed nothing
	KindTaintIntended Kind = "TaintIntended" // about to write the node taint; Fields: value, effect, added
	KindTaintApplied  Kind = "TaintApplied"  // the API server accepted it
	KindTaintRemoved  Kind = "TaintRemoved"  // ours is gone from the node
)

// Kinds that tell of claims. Claim has all of it in the first, and at least the UID
// in the others.
const (
	KindClaimIntended Kind = "ClaimIntended" // its devices are about to be prepared
	KindClaimPrepared Kind = "ClaimPrepared"
	KindClaimReleased Kind = "ClaimReleased" // Fields: undone, true: preparing has failed, and nobody had it
	KindClaimRefused  Kind = "ClaimRefused"  // a device of it is not fit; GPU; Fields: device, reason, action
)

// saved reports whether the event must be on disk before the one who submits
// it goes on: it cannot be read again from its source.
func (e *Event) saved() bool {
	switch e.Kind {
	case KindClear, KindIgnore, KindUnignore, KindPaused, KindResumed, KindPauseRefused, KindHandled, KindTaintIntended, KindTaintApplied, KindTaintRemoved,
		KindClaimIntended, KindClaimPrepared, KindClaimReleased, KindClaimRefused:
		return true
	case KindDriverEvent:
		// Errors that were corrected come by the thousand, and their counter tells of
		// them too.
		code, _ := strconv.Atoi(e.Fields["xid"])
		return e.Fields["type"] != string(nvml.EventSingleBitECC) && !raisedAtWill(code)
	case KindXid:
		return e.Source == SourceEvents && (e.Xid == nil || !raisedAtWill(e.Xid.Code))
	default:
		return e.Source == SourceEvents
	}
}

// raisedAtWill reports whether any process can bring about an Xid. It may do so by the
// thousand, and a fault of the hardware must not wait behind them for the disk; the
// kernel log, which can be read again, tells of them too.
func raisedAtWill(code int) bool {
	entry, known := xid.Lookup(code)
	return known && categoryClass(entry.Category) == Application
}

// number gives the n of an ID and the part that it counts within. An ID of
// another form counts as one of a kind.
func number(id string) (series string, n uint64, ok bool) {
	i := strings.LastIndexByte(id, '/')
	if i < 0 {
		return "", 0, false
	}
	n, err := strconv.ParseUint(id[i+1:], 10, 64)
	return id[:i], n, err == nil
}

// FromLine makes the event that one line of the kernel log stands for. The
// caller adds ID, boot and times.
func FromLine(l xid.Line) Event {
	e := Event{
		Source: SourceKernelLog,
		GPU:    Device{PCI: l.PCI, GPUInstance: l.GPUInstance, ComputeInstance: l.ComputeInstance},
	}
	report := &Report{
		Code: l.Code, PID: l.PID, Process: l.Process, Text: l.Text, Severity: l.Severity,
		CausedBy: l.CausedBy, Action: l.Action, NVLink: l.NVLink, Switch: l.Switch, Port: l.Port,
	}
	switch l.Kind {
	case xid.Xid:
		e.Kind, e.Xid = KindXid, report
	case xid.SXid:
		e.Kind, e.SXid = KindSXid, report
	case xid.Lost:
		e.Kind = KindGPULost
	case xid.Init:
		e.Kind = KindInit
	case xid.PCIe:
		e.Kind = KindPCIe
	case xid.Hang:
		e.Kind = KindHang
	case xid.Link:
		e.Kind = KindLink
	case xid.Recovery:
		e.Kind = KindRecovery
	case xid.Software:
		e.Kind = KindSoftware
	case xid.None:
	}
	if e.Xid == nil && e.SXid == nil {
		e.Fields = map[string]string{"text": l.Text}
		if l.Severity != "" {
			e.Fields["severity"] = l.Severity
		}
		if l.Minor != nil {
			e.Fields["minor"] = strconv.Itoa(*l.Minor)
		}
	}
	return e
}

// The sources of events.
const (
	SourceKernelLog = "kmsg" // the kernel log; n is the record's sequence number
	SourceLogGap    = "kmsg-gap"
	SourceEvents    = "nvml-events"
	SourceState     = "nvml-state"
	SourceDaemon    = "daemon"
	SourceHand      = "hand"
	SourceNode      = "node"
	SourceDRA       = "dra"
)
