// Package xid reads what the NVIDIA driver prints to the kernel log, and knows
// what its error codes mean.
//
// [Parse] turns the text of one kernel record into a [Line]; a [Joiner] reads
// the records of a log in order, and makes one event of those that belong
// together. [Lookup] and [LookupSwitch] give the catalogue entry of a code, and
// [NVLink.Decode] that of an NVLink 5 error; [Loading] reads the line that the
// driver prints when it is loaded. All of them are pure: no I/O, no clock.
//
// # What a tenant can do
//
// A tenant chooses the name of his process (comm, at most 15 bytes, any but
// NUL), and the driver prints that name in the middle of the line. Whatever the
// name, Kind, Code, PCI, the MIG instances, PID, CausedBy, Action, NVLink and
// Severity are the driver's: the first five stand before the name, the others
// are read whole from behind the last ", ", which the driver prints behind
// the name and which none of those messages holds.
//
// What remains: where a name that holds ", " ends cannot be told from the
// text. Process may then have the first words of the driver's message at its
// end, and Text lack them; and a name that ends in ", Ch " and eight hex
// digits leaves these in Text. Nothing else of a name gets into Text, and
// nothing should be decided by Process. Xid 13, 31, 43 and the like are raised
// by tenants at will, without any forging. A name of more than 15 bytes, which
// no Linux process has, ends at its first ", ".
//
// A client of the driver also chooses the version that it claims to have, and
// "API mismatch" (Software) prints it: Text of that kind is partly the
// client's. It may hold newlines, so in a saved log that broke the record there
// a line of his may stand at the beginning of one. /dev/kmsg keeps it whole.
//
// Who wrote a record is not in its text: whoever may write to /dev/kmsg
// can print any line. The kernel marks such records with another facility, and
// package kmsg tells it.
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
	Software             // the driver's software is at odds with itself or with a client
)

// String is the name that `gpuvet parse` prints.
func (k Kind) String() string {
	return [...]string{"", "xid", "sxid", "lost", "init", "pcie", "hang", "link", "recovery", "software"}[k]
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
	Minor                        *int   // Init: the GPU's device minor number, where the line has one

	// Text is the driver's message behind the fields above: valid UTF-8 of at
	// most 1 KiB on one line, with ? for what a terminal should not get.
	// Process has the same form.
	Text string

	CausedBy int     // Xid 45: "caused by previous Xid N"; 0 if it does not say
	Action   *Action // Xid 154: the recovery action, as told
	NVLink   *NVLink // Xid 144 to 150: the unit and its registers

	Switch   string // SXid, and Link where a switch tells it: nvidia-nvswitch0
	Severity string // Xid 144 to 150: Fatal or Non-fatal; SXid and PCIe: Correctable too; Fatal for a slot that lost its card; empty if untold
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
