//go:build cgo

package worker_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
	"gpuvet.dev/nvml/wire"
)

// Numbers of fields, and what the driver answers for them.
const (
	remapPending    = 144
	pcieCorrectable = 173
	linkState       = 165
	linkReplays     = 161
	slowdownLimit   = 194
)

// One odd answer about a link must not make a GPU look as if nobody knew of it;
// one about what decides must.
func TestFactThatFailsHidesNoOther(t *testing.T) {
	m := running(t, node(t, 1))
	c := opened(t, m)
	pci := m.addresses[0]
	want := *c.ask(wire.AskHealth, pci).Health
	m.apply(t, 0, fake.Fields{
		{ID: pcieCorrectable, Failure: "unknown"},
		{ID: linkReplays, Scope: 4, Failure: "timeout"},
		{ID: linkState, Scope: 5, Failure: "reset-required"},
		{ID: slowdownLimit, Failure: "not-ready"},
	})
	want.PCIe.CorrectableErrors, want.NVLinks[4].Replays = nvml.Maybe[uint64]{}, nvml.Maybe[uint64]{}
	want.Thermal.SlowdownMargin = nvml.Maybe[float64]{}
	var diff string
	eventually(t, "these facts alone are absent", func() bool {
		diff = cmp.Diff(want, *c.ask(wire.AskHealth, pci).Health, cmpopts.IgnoreFields(nvml.Health{}, "Time"))
		return diff == ""
	})
	m.apply(t, 0, fake.Fields{{ID: remapPending, Failure: "unknown"}})
	eventually(t, "health fails", func() bool { return c.fails(wire.AskHealth, pci) })
	// The driver's own word is heard all the same.
	m.apply(t, 0, fake.Recovery(nvml.RecoverGPUReset))
	eventually(t, "the recovery is told", func() bool { return !c.fails(wire.AskHealth, pci) })
}

// What is no value for a number is absent, in whatever form it comes.
func TestFactsThatAreSentinelsAreAbsent(t *testing.T) {
	m := running(t, node(t, 1), fake.Step{Do: fake.Fields{
		{ID: pcieCorrectable, Type: "uint", Bits: 0xffffffff},
		{ID: linkReplays, Scope: 4, Type: "ulonglong", Bits: ^uint64(0)},
		{ID: linkState, Scope: 5, Type: "uint", Bits: 77},
		{ID: slowdownLimit, Type: "double", Bits: 0x7ff8000000000001}, // NaN
	}}, fake.Step{Do: fake.PerformanceState{}})
	h := opened(t, m).ask(wire.AskHealth, m.addresses[0]).Health
	if h.PCIe.CorrectableErrors.OK || h.NVLinks[4].Replays.OK || h.NVLinks[5].State != "" || h.Thermal.SlowdownMargin.OK || h.PerformanceState.OK {
		t.Errorf("%+v %+v %+v %+v %+v: want nothing", h.PCIe, h.NVLinks[4], h.NVLinks[5], h.Thermal, h.PerformanceState)
	}
	if !h.PCIe.FatalErrors.OK || !h.NVLinks[3].Replays.OK || h.NVLinks[4].State != nvml.NVLinkActive || !h.Thermal.ShutdownMargin.OK {
		t.Errorf("%+v %+v %+v: want the others", h.PCIe, h.NVLinks[3:5], h.Thermal)
	}
}

// Drivers before 520 count the errors of the first twelve links alone.
func TestOldLibraryTellsWhatItKnowsOfHealth(t *testing.T) {
	m := runningOver(t, node(t, 1), libraries.old(t),
		fake.Step{Do: fake.NVLink{Number: 7, State: "inactive", Replays: 3, Recoveries: 4, CRCErrors: 5, CRCDataErrors: 6}})
	h := opened(t, m).ask(wire.AskHealth, m.addresses[0]).Health
	want := nvml.NVLink{
		Number: 7, State: nvml.NVLinkInactive, Remote: h.NVLinks[7].Remote, Replays: nvml.Some[uint64](3), Recoveries: nvml.Some[uint64](4),
		CRCFlitErrors: nvml.Some[uint64](5), CRCDataErrors: nvml.Some[uint64](6),
	}
	if diff := cmp.Diff(want, h.NVLinks[7]); diff != "" {
		t.Errorf("link (-want +got):\n%s", diff)
	}
	if last := h.NVLinks[17]; last.State != nvml.NVLinkActive || last.Replays.OK {
		t.Errorf("%+v, want its state alone", last)
	}
	if diff := cmp.Diff([]nvml.ClockReason{nvml.ClockIdle}, h.ClockReasons.Value); diff != "" || len(h.ClockTimes) != 5 {
		t.Errorf("clock reasons %v, times %v", h.ClockReasons, h.ClockTimes)
	}
	if h.Fabric.OK || h.RowBanks.OK || h.SRAMThresholdExceeded.OK || h.Thermal.Margin.OK || h.PCIe.CorrectableErrors.OK {
		t.Errorf("%+v: want nothing of what came later", h)
	}
	if !h.ECCMode.OK || !h.Thermal.Slowdown.OK || !h.PCIe.Generation.OK || !h.PCIe.Replays.OK || !h.MIGMode.OK || !h.Persistence.OK {
		t.Errorf("%+v: want what there has always been", h)
	}
}
