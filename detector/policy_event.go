package detector

import (
	"slices"
	"strconv"
	"strings"

	"gpuvet.dev/nvml"
)

// EventRow is the verdict on one kind of driver event that is no Xid.
type EventRow struct {
	Type nvml.EventType `json:"type"`
	// Severity and Attribute are what an operational event must have; empty:
	// whichever it has.
	Severity  string `json:"severity,omitempty"`
	Attribute string `json:"attribute,omitempty"`
	// Xid is the code that tells of the same fault; zero: none does. Its row
	// decides, and both are one incident.
	Xid int `json:"xid,omitempty"`
	Verdict
	Source string `json:"source,omitempty"`
}

// Key names the row: "event double-bit-ecc", "event operational, fatal".
func (r EventRow) Key() string {
	words := []string{"event " + string(r.Type)}
	for _, word := range []string{r.Severity, r.Attribute} {
		if word != "" {
			words = append(words, word)
		}
	}
	return strings.Join(words, ", ")
}

// eventRows are in order: the first that fits an event decides. An event that none
// fits is recorded only, and so are those that have the GPU asked at once.
func eventRows() []EventRow {
	recorded := Verdict{Class: Information, Action: ActNone}
	fatal := Verdict{Reason: ResetRequired, Class: Driver, Effect: NoSchedule, Action: ActResetGPU}
	warned := Verdict{Reason: HardwareWarning, Class: Hardware, Action: ActWatch}
	corrected := Verdict{Reason: CorrectedErrors, Class: Hardware, Action: ActWatch}
	const operational = nvml.EventOperational
	return []EventRow{
		{Type: nvml.EventDoubleBitECC, Xid: 48, Source: "nvml.h nvmlEventTypeDoubleBitEccError: what Xid 48 tells"},
		{Type: nvml.EventContainedPoison, Xid: 94, Source: "nvml.h nvmlEventTypeNonFatalPoisonError: what Xid 94 tells"},
		{Type: nvml.EventFatalPoison, Xid: 95, Source: "nvml.h nvmlEventTypeFatalPoisonError: what Xid 95 tells"},
		{Type: nvml.EventUnavailable, Xid: 79, Source: "nvml.h nvmlEventTypeGpuUnavailableError: what Xid 79 tells"},
		{Type: nvml.EventRetirement, Xid: 63, Source: "nvml.h nvmlEventTypeDramRetirementEvent: what Xid 63 tells"},
		{Type: nvml.EventRetirementFailed, Xid: 64, Source: "nvml.h nvmlEventTypeDramRetirementFailure: what Xid 64 tells"},
		{Type: nvml.EventSingleBitStorm, Verdict: corrected, Source: "nvml.h nvmlEventTypeSingleBitEccErrorStorm"},
		{Type: nvml.EventSingleBitECC, Verdict: recorded, Source: "nvml.h nvmlEventTypeSingleBitEccError: one error that was corrected; their rate is polled"},

		// An operational event that has an Xid is judged by that. nvml.h gives those
		// without one no other meaning than these words.
		{Type: operational, Attribute: "propagated", Verdict: recorded, Source: "nvml.h NVML_OPERATIONAL_EVENT_ATTR_PROPAGATED: its source is elsewhere, and tells of it"},
		{Type: operational, Severity: "fatal", Verdict: fatal, Source: "nvml.h NVML_OPERATIONAL_EVENT_SEVERITY_FATAL: the word decides, as with an NVLink report that no rule fits"},
		{Type: operational, Severity: "recoverable", Attribute: "uncontained", Verdict: fatal, Source: "nvml.h NVML_OPERATIONAL_EVENT_ATTR_UNCONTAINED: as Xid 95"},
		{Type: operational, Severity: "recoverable", Attribute: "component-reset", Verdict: warned, Source: "nvml.h NVML_OPERATIONAL_EVENT_ATTR_COMPONENT_RESET: the driver has reset a part of the GPU, and goes on"},
		{Type: operational, Severity: "recoverable", Attribute: "threshold-exceeded", Verdict: warned, Source: "nvml.h NVML_OPERATIONAL_EVENT_ATTR_THRESHOLD_EXCEEDED"},
		{Type: operational, Severity: "corrected", Attribute: "threshold-exceeded", Verdict: corrected, Source: "nvml.h NVML_OPERATIONAL_EVENT_ATTR_THRESHOLD_EXCEEDED: of errors that were corrected"},
	}
}

// Event is the row of a driver event, with the verdict that is in force; one
// without a reason is recorded only.
func (p *Policy) Event(e *Event) EventRow {
	attributes := strings.Split(e.Fields["attributes"], ",")
	fits := func(r EventRow) bool {
		return string(r.Type) == e.Fields["type"] && (r.Severity == "" || r.Severity == e.Fields["severity"]) &&
			(r.Attribute == "" || slices.Contains(attributes, r.Attribute))
	}
	row := EventRow{Type: nvml.EventType(e.Fields["type"]), Verdict: Verdict{Class: Information, Action: ActNone}}
	if code, err := strconv.Atoi(e.Fields["xid"]); err == nil && p.knows(code) {
		row.Xid = code
	} else if i := slices.IndexFunc(p.Events, fits); i >= 0 {
		row = p.Events[i]
	}
	return p.InForce(row)
}

// InForce is a row with the verdict of the Xid that it stands for, or as the user's
// row for its reason has it. What any process can bring about is told by its Xid, and
// by nothing else.
func (p *Policy) InForce(row EventRow) EventRow {
	switch row.Xid {
	case 0:
		row.Verdict = p.rule(row.Verdict, &Event{})
	default:
		row.Verdict = p.Xid(&Report{Code: row.Xid}, 0)
	}
	if row.Class == Application {
		row.Verdict = recordedOnly
	}
	return row
}

func (p *Policy) knows(code int) bool {
	_, known := p.Xids[code]
	return known
}
