package detector

import "time"

// Change says what happened to a fault.
type Change string

// The changes.
const (
	Raised  Change = "raised"  // it is visible from now on
	Cleared Change = "cleared" // evidence has ended it
	Folded  Change = "folded"  // a sign was put down to another fault
	Passed  Change = "ignored" // it has changed, and is ignored for a while: nobody need act
	Noted   Change = "noted"   // no fault: the driver, or who watches it, has changed
)

// What is noted, in the place of a reason.
const (
	NotedLoaded   Reason = "DriverLoaded"   // the driver was there from the start
	NotedArrived  Reason = "DriverArrived"  // it was missing
	NotedMissing  Reason = "DriverMissing"  // there is none, or none any more
	NotedReloaded Reason = "DriverReloaded" // it was loaded again
	NotedReplaced Reason = "DriverReplaced" // it was, in another version
	NotedReset    Reason = "GPUReset"
	NotedSilent   Reason = "GPUSilent"  // it does not answer, which is no fault yet
	NotedAnswers  Reason = "GPUAnswers" // it does again
	NotedIgnored  Reason = "Ignored"    // the faults of a reason are, for a while
	NotedHeeded   Reason = "Heeded"     // they are not any more
	NotedPaused   Reason = "Paused"
	NotedResumed  Reason = "Resumed"
	NotedPolicy   Reason = "PolicyChanged" // other rows decide from now on
	// NotedApplication is of a claim, as the next; Holders has it.
	NotedApplication Reason = "ApplicationXid" // its work raised an Xid that is no fault of the GPU
	NotedRefused     Reason = "ClaimRefused"   // it does not get the device that was allocated to it
)

// headlines are the messages of the log for what people look for by its words.
var headlines = map[Reason]string{NotedSilent: "GPU does not answer", NotedAnswers: "GPU answers again"}

// Transition is one change of what people see, and why.
type Transition struct {
	Seq       uint64    `json:"seq"` // of the event
	Time      time.Time `json:"time"`
	PCI       string    `json:"pci,omitempty"` // empty: the node
	UUID      string    `json:"uuid,omitempty"`
	GPU       *int      `json:"gpu,omitempty"` // index
	Condition Reason    `json:"condition"`     // or what is noted
	Status    Change    `json:"status"`
	Class     Class     `json:"class"`
	Effect    Effect    `json:"effect"`
	Action    Action    `json:"action"`
	Cause     string    `json:"cause"`              // what raised, ended or explains it
	Incident  string    `json:"incident,omitempty"` // of a fault
	// The MIG instance that the fault stays with; nil: it is the whole GPU's.
	GPUInstance     *int `json:"gi,omitempty"`
	ComputeInstance *int `json:"ci,omitempty"`
	// Holders are those who held the GPU or instance, as far as that is known.
	Holders []Holder `json:"holders,omitempty"`
}
