// Package xid reads what the NVIDIA driver prints to the kernel log, and knows
// what its error codes mean.
//
// [Parse] turns the text of one kernel record into a [Line]; [Lookup] and
// [LookupSwitch] give the catalogue entry of a code. Both are pure. A tenant
// chooses the name of his process, and that name stands in the line: the
// grammar is anchored so that no name can forge a code, an address or a second
// event.
package xid

// Kind says what a line reports.
type Kind uint8

// The kinds of line that are events.
const (
	None     Kind = iota // not an event
	Xid                  // NVRM: Xid (PCI:0000:3b:00): 79, …
	SXid                 // nvidia-nvswitch0: SXid (PCI:…): 20034, Fatal, …
	Lost                 // a GPU fell off the bus, told without an Xid
	Init                 // the driver could not initialise a GPU
	PCIe                 // an AER report that may concern a GPU
	Hang                 // the driver or the GPU's firmware does not answer
	Link                 // NVLink trouble told without an Xid
	Recovery             // the driver's own recovery
)

// String is the name that `gpuvet parse` prints.
func (k Kind) String() string {
	return [...]string{"", "xid", "sxid", "lost", "init", "pcie", "hang", "link", "recovery"}[k]
}

// Line is one event of the kernel log. Fields that the line does not give are
// zero, or nil where zero would be a value.
type Line struct {
	Kind Kind
	Code int    // Xid or SXid
	PCI  string // 0000:3b:00.0; empty if the line names no device

	GPUInstance, ComputeInstance *int   // MIG attribution
	PID                          *int   // nil if unknown, though the line may have a name
	Process                      string // chosen by whoever runs the process: never trust it

	Text string // the driver's message behind the fields above, at most 1 KiB

	CausedBy int     // Xid 45: "caused by previous Xid N"; 0 if it does not say
	Action   *Action // Xid 154: the recovery action, as told
	NVLink   *NVLink // Xid 144 to 150: the unit and its registers

	Switch   string // SXid: nvidia-nvswitch0
	Severity string // SXid, Xid 144 to 150: Fatal or Non-fatal; PCIe: Fatal, Non-fatal or Correctable; empty if untold
	Port     *int   // SXid: the switch's link
}

// Action is the change of recovery action that Xid 154 tells, in the numbers
// of NVML field 230.
type Action struct{ From, To int }

// NVLink holds the fields of an NVLink5 line (Xid 144 to 150).
type NVLink struct {
	Unit          string   // RLW_REMAP, NETIR_LINK_EVT, …
	Fatal         bool     // the line's own word
	CrossContain  bool     // XC1
	Injected      bool     // i1
	Link          int      // -1: not link specific
	InterruptInfo uint32   // first word
	ErrorStatus   uint32   // second word
	Debug         []uint32 // what follows, up to five words
}
