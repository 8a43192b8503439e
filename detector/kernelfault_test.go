package detector

import (
	"strings"
	"testing"
)

const (
	peerSide  = "RLW_SRC_TRACK Fatal XC1 i0 Link 12 (0x040988e2 0x00000008 0x00000000 0x00000000 0x00000000 0x00000000)"
	undecoded = "NEW_UNIT Nonfatal XC0 i0 Link 00 (0x00000000 0x00000000 0x00000000 0x00000000)"
)

func TestPeerSideReportNeverCondemnsTheReporter(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 145, peerSide)
	s.says(gpuA + " LinkWarning raised: Xid 145: the fault is at the other end of the link")
	s.status(gpuA, Degraded)
	if s.state.Counters.Undecoded != 0 {
		t.Error("counted as undecoded")
	}
}

func TestReportThatNoRuleFitsIsCountedAndItsOwnWordDecides(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 146, undecoded)
	s.xid(2, gpuB, 146, strings.Replace(undecoded, "Nonfatal", "Fatal", 1))
	s.says(gpuA+" LinkWarning raised: Xid 146: no rule fits, and the line says Non-fatal",
		gpuB+" LinkFault raised: Xid 146: no rule fits, and the line says Fatal")
	if got := s.state.Counters.Undecoded; got != 2 {
		t.Errorf("undecoded: %d, want 2", got)
	}
	s.start(100, "boot-2")
	if got := s.state.Counters.Undecoded; got != 0 {
		t.Errorf("undecoded after a boot: %d, want 0", got)
	}
}

func TestBusErrorsAreJudgedByWhatTheyTell(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		say        []string
		is         Status
	}{
		{"the slot's link is down", "pcieport " + gpuA + ": pciehp: Slot(3): Link Down", []string{gpuA + " GPULost raised: its slot is empty or has no link"}, Unhealthy},
		{"the card is gone", "pcieport " + gpuA + ": pciehp: Slot(3): Card not present", []string{gpuA + " GPULost raised: its slot is empty or has no link"}, Unhealthy},
		{"the slot's power failed", "pcieport " + gpuA + ": pciehp: Slot(3): Power fault", nil, Healthy},
		{"a fatal error", "pcieport 0000:00:02.0: AER: Uncorrected (Fatal) error received: " + gpuA, []string{gpuA + " HardwareWarning raised: PCIe error"}, Degraded},
		{"one that is not fatal", "pcieport 0000:00:02.0: AER: Uncorrected (Non-Fatal) error received: " + gpuA, nil, Healthy},
		{"a corrected one", "pcieport 0000:00:02.0: AER: Corrected error received: " + gpuA, nil, Healthy},
		{"of something else", "pcieport 0000:00:02.0: AER: Uncorrected (Fatal) error received: 0000:99:00.0", nil, Healthy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			s.driver(1, "a")
			s.line(2, tt.line)
			s.says(tt.say...)
			s.status(gpuA, tt.is)
			if len(s.state.GPUs) != 2 {
				t.Errorf("%d GPUs, want 2: a bridge is none", len(s.state.GPUs))
			}
		})
	}
}

func TestSlotAboveSeveralGPUsLosesThemAllAndABridgesErrorNone(t *testing.T) {
	above := func(text string) Event {
		return Event{
			Source: SourceKernelLog, Kind: KindPCIe, Time: at(2),
			Fields: map[string]string{"text": text, "severity": "Fatal", "reporter": "0000:10:00.0", "gpus": gpuA + "," + gpuB},
		}
	}
	s := newScript(t)
	s.driver(1, "a")
	s.fold(above("AER: Uncorrected (Fatal) error received"))
	s.says()
	s.fold(above("pciehp: Slot(3): Link Down"))
	s.says(gpuA+" GPULost raised: its slot is empty or has no link", gpuB+" GPULost raised: its slot is empty or has no link")
}

func TestFailedStartFindsItsGPUByTheMinorNumber(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.line(2, "NVRM: rm_init_adapter failed for device bearing minor number 1")
	s.line(3, "NVRM: rm_init_adapter failed for device bearing minor number 7")
	s.says(gpuB + " DriverFault raised: driver could not initialise it")
	if len(s.state.GPUs) != 2 {
		t.Errorf("%d GPUs, want 2", len(s.state.GPUs))
	}
}

func TestErrorOfTheSoftwareIsCountedAndDecidesNothing(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.fold(Event{Source: SourceKernelLog, Kind: KindSoftware, Time: at(2), Fields: map[string]string{"text": "API mismatch"}})
	s.says()
	if got := s.state.Counters.Events["kmsg/SoftwareError"]; got != 1 {
		t.Errorf("counted %d, want 1", got)
	}
}
