package detector

import (
	"strings"
	"testing"
)

const day = 86400

// incident lets a GPU have a fault, and ends it by a reload.
func (s *script) incident(seconds float64, pci string, code int, load string) {
	s.t.Helper()
	s.xid(seconds, pci, code, "x")
	s.driver(seconds+10, load)
	s.rest(seconds + 41)
}

func TestThirdIncidentOfHardwareOrLinkStaysUntilAPersonClearsIt(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.incident(100, gpuA, 95, "b")
	s.incident(10*day, gpuA, 74, "c")
	s.start(15*day, "boot-2")
	s.driver(15*day+1, "d")
	s.told = nil
	s.incident(20*day, gpuA, 79, "e")
	s.says(gpuA + " GPULost raised: Xid 79: incident 3 within 30 days, stays until it is cleared by hand")
	s.start(21*day, "boot-3")
	s.driver(21*day+1, "f")
	s.rest(22 * day)
	s.says()
	s.status(gpuA, Unhealthy)
	s.fold(Event{Source: SourceHand, Kind: KindClear, Time: at(22 * day), GPU: Device{PCI: gpuA}})
	s.says(gpuA + " GPULost cleared: by hand")
	s.incident(23*day, gpuA, 79, "g")
	s.says(gpuA+" GPULost raised: Xid 79", gpuA+" GPULost cleared: driver was loaded again")
}

func TestWhatDoesNotCountAgainstAGPU(t *testing.T) {
	for name, play := range map[string]func(*script){
		"the third came late": func(s *script) { s.incident(40*day, gpuA, 95, "d") },
		"the driver's":        func(s *script) { s.incident(20*day, gpuA, 119, "d") },
		"an application's":    func(s *script) { s.incident(20*day, gpuA, 31, "d") },
		"another GPU's":       func(s *script) { s.incident(20*day, gpuB, 95, "d") },
		"a warning":           func(s *script) { s.incident(20*day, gpuA, 94, "d") },
		"one that was cleared by hand between": func(s *script) {
			s.xid(11*day, gpuA, 119, "x")
			s.fold(Event{Source: SourceHand, Kind: KindClear, Time: at(11*day + 5), GPU: Device{PCI: gpuA}})
		},
		"one that is ignored": func(s *script) {
			s.ignore(19*day, gpuA, map[string]string{"reason": "UncorrectableMemory", "for": "48h"})
			s.incident(20*day, gpuA, 95, "d")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			s.driver(1, "a")
			s.incident(100, gpuA, 95, "b")
			s.incident(10*day, gpuA, 74, "c")
			play(s)
			for _, told := range s.told {
				if strings.Contains(told, "incident 3") {
					t.Error(told)
				}
			}
		})
	}
}

func TestFaultsThatStandTogetherAreOneIncident(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 95, "x")
	s.xid(3, gpuA, 74, "x")
	s.xid(4, gpuA, 79, "x")
	if g := s.state.GPUs[0]; len(g.Offences) != 1 || len(g.Conditions) != 3 {
		t.Errorf("%d incidents of %d faults", len(g.Offences), len(g.Conditions))
	}
}

func TestOffencesFollowTheGPUToAnotherSlot(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.incident(100, gpuA, 95, "b")
	s.incident(1000, gpuA, 95, "c")
	s.start(2000, "boot-2")
	s.fold(Event{Source: SourceState, Kind: KindDriverLoaded, Time: at(2001), Fields: map[string]string{"load": "d"}})
	s.fold(Event{Source: SourceState, Kind: KindGPUFound, Time: at(2001), GPU: Device{PCI: gpuB, UUID: "GPU-" + gpuA}})
	s.well(2001, gpuB)
	s.told = nil
	s.xid(2002, gpuB, 95, "x")
	s.says(gpuB + " UncorrectableMemory raised: Xid 95: incident 3 within 30 days, stays until it is cleared by hand")
}

func TestOffencesAreBounded(t *testing.T) {
	s := newScript(t)
	s.policy.RepeatOffender.Count = 1000
	s.driver(1, "a")
	for i := range 40 {
		s.incident(float64(100*(i+1)), gpuA, 95, strings.Repeat("b", i+1))
	}
	if n := len(s.state.GPUs[0].Offences); n != maxOffences {
		t.Errorf("%d, want %d", n, maxOffences)
	}
}
