package detector

import (
	"testing"

	"gpuvet.dev/nvml"
)

// polls are the answers of one GPU, one every ten seconds from the tenth on.
func (s *script) polls(answers ...*nvml.Health) {
	s.t.Helper()
	facts := NewFacts(nvml.DefaultFreshness, func(e Event) { s.t.Helper(); s.fold(e) })
	inventory := &nvml.Inventory{Load: "a", DriverVersion: "570.195.03", GPUs: []nvml.GPU{{PCI: gpuA, UUID: "GPU-" + gpuA}}}
	for i, answer := range answers {
		now := at(float64(10 * (i + 1)))
		facts.Observe(nvml.Observation{Time: now, Inventory: inventory})
		if answer == nil {
			facts.Observe(nvml.Observation{Time: now, PCI: gpuA, Err: nvml.ErrTimeout})
			continue
		}
		facts.Observe(nvml.Observation{Time: now, PCI: gpuA, Health: answer})
	}
	s.rest(float64(10*len(answers) + 1))
}

// repeated is an answer given so often.
func repeated(h *nvml.Health, times int) []*nvml.Health {
	var all []*nvml.Health
	for range times {
		all = append(all, h)
	}
	return all
}

func working(change func(*nvml.Health)) *nvml.Health {
	h := &nvml.Health{
		PerformanceState: nvml.Some(0), ClockReasons: nvml.Some([]nvml.ClockReason{}),
		PCIe: nvml.PCIe{Width: nvml.Some(16), WidthMax: nvml.Some(16), Generation: nvml.Some(5), GenerationMax: nvml.Some(5)},
		NVLinks: []nvml.NVLink{
			{Number: 0, State: nvml.NVLinkActive, RecoveriesFailed: nvml.Some(uint64(7))}, {Number: 1, State: nvml.NVLinkInactive},
		},
	}
	if change != nil {
		change(h)
	}
	return h
}

func TestWhatNVMLSaysIsAmissShowsWhenItLasts(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*nvml.Health)
		want   string
	}{
		{"nothing", nil, ""},
		{"fewer lanes", func(h *nvml.Health) { h.PCIe.Width = nvml.Some(8) }, "PCIeDegraded raised: the PCIe link is slower than it can be (width 8 of 16)"},
		{"a lower generation at work", func(h *nvml.Health) { h.PCIe.Generation = nvml.Some(1) }, "PCIeDegraded raised: the PCIe link is slower than it can be (generation 1 of 5)"},
		{"a lower generation at rest", func(h *nvml.Health) {
			h.PCIe.Generation, h.ClockReasons = nvml.Some(1), nvml.Some([]nvml.ClockReason{nvml.ClockIdle})
		}, ""},
		{"heat", func(h *nvml.Health) { h.ClockReasons = nvml.Some([]nvml.ClockReason{nvml.ClockHWThermal}) }, "ThermalSlowdown raised: slowed down by heat"},
		{"the power limit", func(h *nvml.Health) { h.ClockReasons = nvml.Some([]nvml.ClockReason{nvml.ClockPowerCap}) }, ""},
		{"the power supply", func(h *nvml.Health) { h.ClockReasons = nvml.Some([]nvml.ClockReason{nvml.ClockHWPowerBrake}) }, "PowerBrake raised: slowed down by the power supply"},
		{"a link", func(h *nvml.Health) { h.NVLinks[0].State = nvml.NVLinkInactive }, "LinkDown raised: an NVLink is down (link 0)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad, well := working(tt.change), working(nil)
			play := func(answers ...*nvml.Health) *script {
				s := newScript(t)
				s.polls(append([]*nvml.Health{well}, answers...)...)
				return s
			}
			var want, gone []string
			is := Healthy
			if tt.want != "" {
				want, is = []string{gpuA + " " + tt.want}, Degraded
			}
			s := play(repeated(bad, 4)...)
			s.says(want...)
			s.status(gpuA, is)

			s = play(append(repeated(bad, 4), well)...)
			if tt.want != "" {
				gone = append(gone, want...)
				gone = append(gone, gpuA+" "+string(s.reason(tt.want))+" cleared: no longer so")
			}
			s.says(gone...)

			play(append(repeated(bad, 2), well, bad, well, bad)...).says()
		})
	}
}

// reason is the first word of what is told.
func (s *script) reason(told string) Reason {
	for i := range told {
		if told[i] == ' ' {
			return Reason(told[:i])
		}
	}
	return ""
}

func TestPollWithoutAnAnswerIsNoSign(t *testing.T) {
	s := newScript(t)
	bad := working(func(h *nvml.Health) { h.PCIe.Width = nvml.Some(8) })
	s.polls(working(nil), bad, nil, nil, nil, bad)
	s.says()
	s.rest(91)
	s.says(gpuA + " PCIeDegraded raised: the PCIe link is slower than it can be (width 8 of 16)")
}

func TestWhatWaitsForAResetAndWhatFieldDiagnosticsFail(t *testing.T) {
	s := newScript(t)
	s.polls(working(func(h *nvml.Health) { h.PageRetirementPending = nvml.Some(true) }), working(func(h *nvml.Health) { h.PageRetirementPending = nvml.Some(false) }))
	s.says(gpuA+" RetirementPending raised: a retired page waits for a reset", gpuA+" RetirementPending cleared: no longer so")
	s = newScript(t)
	s.polls(working(func(h *nvml.Health) { h.SRAMThresholdExceeded = nvml.Some(true) }))
	s.says(gpuA + " SRAMThreshold raised: too many uncorrected errors in the SRAM")
	s.status(gpuA, Unhealthy)
	s.fold(Event{Source: SourceHand, Kind: KindClear, Time: at(30), GPU: Device{PCI: gpuA}})
	s.status(gpuA, Healthy)
}

func TestLinkThatRecoversAgainAndAgainIsUnstable(t *testing.T) {
	after := func(recoveries uint64) *nvml.Health {
		return working(func(h *nvml.Health) { h.NVLinks[0].RecoveriesFailed = nvml.Some(recoveries) })
	}
	s := newScript(t)
	s.polls(after(7), after(8), after(8), after(9))
	s.says()
	s = newScript(t)
	s.polls(after(7), after(8), after(8), after(9), after(12))
	s.says(gpuA + " LinkUnstable raised: NVLink trouble")
}
