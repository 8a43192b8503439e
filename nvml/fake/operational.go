package fake

import (
	"strconv"
	"strings"
	"time"

	"gpuvet.dev/nvml"
)

// tellsOperational: the structured events came with CUDA 13.4.
func (d *Driver) tellsOperational() bool {
	major, minor, _ := strings.Cut(d.info.CUDA, ".")
	a, _ := strconv.Atoi(major) // the scenario was decoded strictly
	b, _ := strconv.Atoi(minor)
	return a > 13 || a == 13 && b >= 4
}

// operational is the structured form of an event.
func operational(e nvml.Event, at time.Time) nvml.Event {
	o := nvml.Operational{Severity: "informational", Level: "notice", Module: "RM", Code: uint32(e.Xid), Attributes: []string{"primary"}}
	switch e.Type {
	case nvml.EventXid, nvml.EventDoubleBitECC, nvml.EventRetirementFailed, nvml.EventContainedPoison:
		o.Severity, o.Level = "recoverable", "error"
	case nvml.EventFatalPoison, nvml.EventUnavailable:
		o.Severity, o.Level = "fatal", "error"
	case nvml.EventSingleBitECC, nvml.EventRetirement:
		o.Severity = "corrected"
	case nvml.EventSingleBitStorm:
		o.Severity, o.Level = "corrected", "warning"
	case nvml.EventRecovery, nvml.EventMIGConfiguration, nvml.EventBind, nvml.EventUnbind, nvml.EventOperational:
	}
	return nvml.Event{Type: nvml.EventOperational, Time: at, PCI: e.PCI, UUID: e.UUID, Xid: e.Xid, Operational: &o}
}
