package fakelib

import (
	"strconv"
	"strings"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

// kindOfEvent is how NVML tells an event.
type kindOfEvent struct {
	bit      uint64 // nvmlEventType*
	severity uint32 // NVML_OPERATIONAL_EVENT_SEVERITY_*
	logLevel uint32 // NVML_GPU_OPERATIONAL_EVENT_LOG_LEVEL_*
	since    int    // the branch of the driver; 0: it has always been there
}

func kindsOfEvent() map[nvml.EventType]kindOfEvent {
	const (
		informational, corrected, recoverable, fatal = 10, 20, 30, 40
		notice, warning, failed                      = 30, 40, 50
	)
	return map[nvml.EventType]kindOfEvent{
		nvml.EventSingleBitECC:     {0x0001, corrected, notice, 0},
		nvml.EventDoubleBitECC:     {0x0002, recoverable, failed, 0},
		nvml.EventXid:              {0x0008, recoverable, failed, 0},
		nvml.EventMIGConfiguration: {0x0100, informational, notice, 0},
		nvml.EventSingleBitStorm:   {0x0200, corrected, warning, 560},
		nvml.EventRetirement:       {0x0400, corrected, notice, 560},
		nvml.EventRetirementFailed: {0x0800, recoverable, failed, 560},
		nvml.EventContainedPoison:  {0x1000, recoverable, failed, 560},
		nvml.EventFatalPoison:      {0x2000, fatal, failed, 560},
		nvml.EventUnavailable:      {0x4000, fatal, failed, 570},
		nvml.EventRecovery:         {0x8000, informational, notice, 570},
	}
}

// eventTypes are those that a driver tells of a GPU.
func eventTypes(version string, g *fake.GPUState) uint64 {
	const performanceState, clock, powerSource = 0x4, 0x10, 0x80
	number, _, _ := strings.Cut(version, ".")
	branch, _ := strconv.Atoi(number) // the scenario was decoded strictly
	bits := uint64(performanceState | clock | powerSource)
	for kind, told := range kindsOfEvent() {
		if branch >= told.since && (kind != nvml.EventMIGConfiguration || g.MIG.OK) {
			bits |= told.bit
		}
	}
	return bits
}

// eventOf gives an event as it stands in the page, but for its number.
func eventOf(t *fake.Told, numbers map[string]uint32) (event, bool) {
	const bind, unbind = 2, 1
	number, ok := numbers[t.Event.PCI]
	kind, known := kindsOfEvent()[t.Event.Type]
	e := event{
		GPU: number, Load: uint32(t.Load), Time: uint64(t.Event.Time.UnixMicro()), Data: uint64(t.Event.Xid),
		GI: instanceID(t.Event.GPUInstance), CI: instanceID(t.Event.ComputeInstance),
	}
	switch {
	case t.Bound:
		e.Kind, e.Type = eventSystem, bind
	case t.Unbound:
		e.Kind, e.Type = eventSystem, unbind
	case known:
		e.Kind, e.Type, e.Severity, e.LogLevel = eventGPU, kind.bit, kind.severity, kind.logLevel
	default:
		return event{}, false
	}
	return e, ok
}
