//go:build cgo

package worker_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
	"gpuvet.dev/nvml/fakelib/compile"
	"gpuvet.dev/nvml/wire"
)

// What the worker says is what the script says, in the units of package nvml.
func TestValuesAreThoseOfTheDriver(t *testing.T) {
	s := node(t, 3)
	steps := []fake.Step{cut(2, "3g.40gb", "1c.2g.20gb", "1c.2g.20gb", "1g.10gb")}
	for _, do := range []fake.Action{
		fake.Set{
			fake.Temperature: nvml.Some(71.0), fake.MemoryTemperature: nvml.Some(83.0),
			fake.Power: nvml.Some(612.5), fake.PowerLimit: nvml.Some(700.0),
			fake.Utilization: nvml.Some(0.97), fake.MemoryUtilization: nvml.Some(0.41),
			fake.MemoryUsed: nvml.Some(float64(40 << 30)), fake.PCIeReplays: nvml.Some(7.0),
		},
		fake.ECC{Corrected: 5, Location: "sram"},
		fake.ECC{Uncorrected: 2},
		fake.RowsRemapped{Correctable: 1, Uncorrectable: 3},
		fake.RemapPending(true), fake.Recovery(nvml.RecoverDrainAndReset),
	} {
		steps = append(steps, fake.Step{GPU: 1, Do: do})
	}
	m := running(t, s, steps...)
	c := opened(t, m)
	state := m.driver.State()
	for i, pci := range m.addresses[:2] {
		readings := *c.ask(wire.AskReadings, pci).Readings
		// Energy goes on meanwhile; clocks are told in whole MHz.
		if diff := cmp.Diff(state.GPUs[i].Readings, readings, cmpopts.IgnoreFields(nvml.Readings{}, "Time", "Energy"), cmpopts.EquateApprox(0, 1e6)); diff != "" {
			t.Errorf("readings of %s (-driver +worker):\n%s", pci, diff)
		}
		if !readings.Energy.OK || !readings.Time.After(state.Time) {
			t.Errorf("energy of %s is %v, its time %s", pci, readings.Energy, readings.Time)
		}
	}
	for i, pci := range m.addresses {
		health := *c.ask(wire.AskHealth, pci).Health
		order := cmpopts.SortSlices(func(a, b nvml.ECCCount) bool { return a.Location < b.Location })
		if diff := cmp.Diff(state.GPUs[i].Health, health, cmpopts.IgnoreFields(nvml.Health{}, "Time"), order); diff != "" {
			t.Errorf("health of %s (-driver +worker):\n%s", pci, diff)
		}
	}
	for i, pci := range m.addresses {
		if diff := cmp.Diff(state.GPUs[i].GPU, *c.ask(wire.AskDescribe, pci).GPU); diff != "" {
			t.Errorf("GPU %s (-driver +worker):\n%s", pci, diff)
		}
	}
	if n := len(state.GPUs[2].Instances); n != 4 {
		t.Errorf("%d MIG devices are told apart, want 4", n)
	}
	list := *c.ask(wire.AskList, "").List
	if list.Driver != state.Driver.Version || list.CUDA != state.Driver.CUDA || list.Load == "" {
		t.Errorf("%+v: want driver %s and CUDA %s", list, state.Driver.Version, state.Driver.CUDA)
	}
}

// A library may lack any function but those to begin and to find a GPU: what it
// cannot say in one way is said in another, or is absent.
func TestMissingFunctionsCostNoMoreThanTheirValues(t *testing.T) {
	s := node(t, 1)
	mig := cut(0, "3g.40gb", "1c.2g.20gb")
	var whole, less nvml.Readings
	var wholeHealth, lessHealth nvml.Health
	var wholeGPU, lessGPU nvml.GPU
	take := func(library string, r *nvml.Readings, h *nvml.Health, g *nvml.GPU) {
		c := opened(t, runningOver(t, s, library))
		*r, *h = *c.ask(wire.AskReadings, s.GPUs[0].PCI).Readings, *c.ask(wire.AskHealth, s.GPUs[0].PCI).Health
		*g = *opened(t, runningOver(t, s, library, mig)).ask(wire.AskDescribe, s.GPUs[0].PCI).GPU
	}
	take(libraries.current(t), &whole, &wholeHealth, &wholeGPU)
	take(libraries.without(t, "less", compile.Options{Without: []string{
		"nvmlDeviceGetFieldValues", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetTemperatureV", "nvmlDeviceGetMemoryErrorCounter",
		"nvmlDeviceGetMaxClockInfo", "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetSerial", "nvmlDeviceGetName", "nvmlDeviceGetGpuInstanceById",
		"nvmlDeviceGetGpuFabricInfoV", "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetMarginTemperature",
		"nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetDriverVersion", "nvmlGetExcludedDeviceCount", "nvmlInitWithFlags",
	}}), &less, &lessHealth, &lessGPU)

	want := whole
	want.Time, want.Energy, want.MaxClocks = less.Time, less.Energy, nil
	want.MemoryTemperature, want.MemoryReserved = nvml.Maybe[float64]{}, nvml.Maybe[uint64]{}
	want.MemoryUsed = nvml.Some(whole.MemoryUsed.Value + whole.MemoryReserved.Value) // the older call does not tell them apart
	want.Utilization, want.MemoryUtilization = nvml.Maybe[float64]{}, nvml.Maybe[float64]{}
	if diff := cmp.Diff(want, less); diff != "" || !less.Energy.OK {
		t.Errorf("readings (-want +got):\n%s", diff)
	}
	wantHealth := wholeHealth
	wantHealth.Time, wantHealth.Recovery = lessHealth.Time, nvml.Maybe[nvml.RecoveryAction]{}
	wantHealth.ResetRequired, wantHealth.DrainAndResetRequired = nvml.Maybe[bool]{}, nvml.Maybe[bool]{}
	wantHealth.ClockTimes, wantHealth.NVLinks = nil, nil
	wantHealth.Thermal = nvml.Thermal{Slowdown: wholeHealth.Thermal.Slowdown, Shutdown: wholeHealth.Thermal.Shutdown}
	wantHealth.Fabric = nvml.Some(nvml.Fabric{State: nvml.FabricCompleted})
	link := &wantHealth.PCIe
	*link = nvml.PCIe{
		Generation: link.Generation, GenerationMax: link.GenerationMax, GenerationMaxGPU: link.GenerationMaxGPU,
		Width: link.Width, WidthMax: link.WidthMax, Replays: link.Replays,
	}
	wantHealth.ECC = []nvml.ECCCount{
		{Location: "all"}, {Aggregate: true, Location: "all"}, {Uncorrected: true, Location: "all"}, {Uncorrected: true, Aggregate: true, Location: "all"},
	}
	if diff := cmp.Diff(wantHealth, lessHealth); diff != "" {
		t.Errorf("health (-want +got):\n%s", diff)
	}
	wantGPU := wholeGPU
	wantGPU.Name, wantGPU.Serial = "", ""
	wantGPU.Instances = slices.Clone(wholeGPU.Instances)
	for i := range wantGPU.Instances {
		wantGPU.Instances[i].Start, wantGPU.Instances[i].Size = nvml.Maybe[int]{}, nvml.Maybe[int]{}
	}
	if diff := cmp.Diff(wantGPU, lessGPU); diff != "" {
		t.Errorf("GPU (-want +got):\n%s", diff)
	}
}

func TestLostGPUSaysSoAndComesBack(t *testing.T) {
	m := running(t, node(t, 2))
	c := opened(t, m)
	c.ask(wire.AskReadings, m.addresses[0])
	m.apply(t, 0, fake.Lost(true))
	eventually(t, "GPU is lost", func() bool { return c.fails(wire.AskReadings, m.addresses[0]) })
	for range 2 {
		for _, ask := range []wire.Ask{wire.AskReadings, wire.AskHealth, wire.AskDescribe, wire.AskWatch} {
			if e := c.refused(ask, m.addresses[0]); e.Kind != wire.KindLost {
				t.Errorf("%s: %+v, want lost", ask, e)
			}
			c.ask(ask, m.addresses[1])
		}
	}
	if list := c.ask(wire.AskList, "").List; !cmp.Equal(list.GPUs, m.addresses) {
		t.Errorf("list %v, want %v: a lost GPU stays", list.GPUs, m.addresses)
	}
	m.apply(t, 0, fake.Lost(false))
	eventually(t, "GPU is back", func() bool { return !c.fails(wire.AskReadings, m.addresses[0]) })
}

// A GPU of which single values are absent must not look like one that is well.
func TestLostGPUThatGivesLittleIsLost(t *testing.T) {
	m := running(t, mute(node(t, 1)))
	c := opened(t, m)
	c.ask(wire.AskReadings, m.addresses[0])
	m.apply(t, 0, fake.Lost(true))
	eventually(t, "GPU is lost", func() bool { return c.fails(wire.AskReadings, m.addresses[0]) })
	if e := c.refused(wire.AskReadings, m.addresses[0]); e.Kind != wire.KindLost {
		t.Errorf("%+v, want lost", e)
	}
}

// mute gives a node whose GPUs have no sensor.
func mute(s *fake.Scenario) *fake.Scenario {
	for _, g := range s.GPUs {
		for q := range g.Start {
			g.Start[q] = nvml.Maybe[float64]{}
		}
	}
	return s
}

// All of these are absent, whether the driver says so by a code, by all ones or
// by NaN: none of them is zero.
func TestWhatTheDriverCannotSayIsAbsent(t *testing.T) {
	for name, sentinels := range map[string]bool{"by code": false, "by sentinel": true} {
		t.Run(name, func(t *testing.T) {
			s := mute(node(t, 1))
			s.Driver.Sentinels = sentinels
			m := running(t, s)
			state := m.driver.State().GPUs[0].Readings
			r := opened(t, m).ask(wire.AskReadings, m.addresses[0]).Readings
			want := nvml.Readings{Time: r.Time, Clocks: r.Clocks, MaxClocks: state.MaxClocks}
			if sentinels {
				want.MemoryTotal = state.MemoryTotal // otherwise one call gives all or nothing
			}
			if diff := cmp.Diff(want, *r); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestFailuresOfOneGPUAreToldApart(t *testing.T) {
	for _, test := range []struct {
		failure fake.Failure
		want    wire.Kind
		text    string
	}{
		{"gpu-is-lost", wire.KindLost, ": GPU is lost"},
		{"not-found", wire.KindNotFound, ": no such GPU"},
		{"invalid-argument", wire.KindNotFound, ": no such GPU"},
		{"uninitialized", wire.KindRenewed, "not initialised"},
		{"driver-not-loaded", wire.KindRenewed, "driver is not loaded"},
		{"lib-rm-mismatch", wire.KindRenewed, "differ in version"},
		{"unknown", wire.KindOther, "internal driver error"},
		{"no-permission", wire.KindOther, "no permission"},
	} {
		m := running(t, node(t, 2))
		c := opened(t, m)
		for _, ask := range []wire.Ask{wire.AskReadings, wire.AskHealth, wire.AskDescribe} {
			c.ask(ask, m.addresses[0])
		}
		m.apply(t, 0, fake.Fail{With: test.failure})
		eventually(t, string(test.failure), func() bool { return c.fails(wire.AskReadings, m.addresses[0]) })
		for _, ask := range []wire.Ask{wire.AskReadings, wire.AskHealth, wire.AskDescribe} {
			e := c.refused(ask, m.addresses[0])
			if e.Kind != test.want || !contains(e.Text, "nvmlDeviceGet", test.text) {
				t.Errorf("%s: %s: %+v, want %s with the call and %q", test.failure, ask, e, test.want, test.text)
			}
			c.ask(ask, m.addresses[1])
		}
	}
}

// Before 570 the driver asks for a reset by the error alone.
func TestGPUThatRequiresAResetSaysSo(t *testing.T) {
	m := running(t, node(t, 1))
	c := opened(t, m)
	c.ask(wire.AskHealth, m.addresses[0])
	m.apply(t, 0, fake.Fail{With: "reset-required"})
	eventually(t, "GPU fails", func() bool { return c.fails(wire.AskReadings, m.addresses[0]) })
	for range 2 {
		h := c.ask(wire.AskHealth, m.addresses[0]).Health
		if diff := cmp.Diff(nvml.Health{Time: h.Time, Recovery: nvml.Some(nvml.RecoverGPUReset)}, *h); diff != "" || h.Time.IsZero() {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for _, ask := range []wire.Ask{wire.AskReadings, wire.AskDescribe} {
			if e := c.refused(ask, m.addresses[0]); e.Kind != wire.KindOther || !contains(e.Text, "requires a reset") {
				t.Errorf("%s: %+v", ask, e)
			}
		}
	}
}

func TestGPUThatIsNotThereIsNotFound(t *testing.T) {
	m := running(t, node(t, 2))
	c := opened(t, m)
	for _, pci := range []string{"ffff:ff:1f.7", "0000:00:00.0"} {
		if e := c.refused(wire.AskReadings, pci); e.Kind != wire.KindNotFound {
			t.Errorf("%s: %+v, want not found", pci, e)
		}
	}
	m.apply(t, 0, fake.Missing(true))
	eventually(t, "GPU is not listed", func() bool { return cmp.Equal(c.ask(wire.AskList, "").List.GPUs, m.addresses[1:]) })
	eventually(t, "GPU is not found", func() bool { return c.fails(wire.AskReadings, m.addresses[0]) })
}

func TestExcludedGPUIsNotListed(t *testing.T) {
	s := node(t, 3)
	s.Driver.Excluded = []fake.Excluded{{PCI: s.GPUs[1].PCI, UUID: s.GPUs[1].UUID}}
	m := running(t, s)
	want := []string{m.addresses[0], m.addresses[2]}
	if list := opened(t, m).ask(wire.AskList, "").List; !cmp.Equal(list.GPUs, want) {
		t.Errorf("list %v, want %v", list.GPUs, want)
	}
}

// Where the kernel does not show its devices, GPUs are listed by asking them.
func TestGPUsAreListedWithoutSysfs(t *testing.T) {
	m := running(t, node(t, 3))
	c := talk(t, m.env, "--library", libraries.current(t), "--sysfs", t.TempDir())
	c.ask(wire.AskOpen, "")
	list := *c.ask(wire.AskList, "").List
	version := m.driver.State().Driver.Version
	if !cmp.Equal(list.GPUs, m.addresses) || list.Load != version {
		t.Errorf("%+v, want %v, and the version as the only mark of the load", list, m.addresses)
	}
	m.apply(t, 1, fake.Lost(true))
	eventually(t, "GPU is lost", func() bool { return c.fails(wire.AskReadings, m.addresses[1]) })
	if list := c.ask(wire.AskList, "").List; !cmp.Equal(list.GPUs, m.addresses) {
		t.Errorf("list %v, want %v: a lost GPU stays", list.GPUs, m.addresses)
	}
}

func TestNodeWithoutGPUsIsWell(t *testing.T) {
	m := running(t, node(t, 0))
	if list := opened(t, m).ask(wire.AskList, "").List; list.GPUs == nil || len(list.GPUs) > 0 {
		t.Errorf("%+v, want an empty list", list)
	}
}

func TestDriverReplacedUnderTheWorkerIsRenewed(t *testing.T) {
	m := running(t, node(t, 2))
	c, other := opened(t, m), opened(t, m)
	before := c.ask(wire.AskList, "").List.Load
	if load := other.ask(wire.AskList, "").List.Load; load != before {
		t.Errorf("loads %q and %q: want the same in each process", before, load)
	}
	c.ask(wire.AskReadings, m.addresses[0])
	m.apply(t, 0, fake.Reload{})
	eventually(t, "driver is another", func() bool { return c.fails(wire.AskReadings, m.addresses[0]) })
	for _, ask := range []wire.Ask{wire.AskReadings, wire.AskList, wire.AskDescribe} {
		pci := m.addresses[0]
		if ask == wire.AskList {
			pci = ""
		}
		if e := c.refused(ask, pci); e.Kind != wire.KindRenewed {
			t.Errorf("%s: %+v, want renewed", ask, e)
		}
	}
	if load := opened(t, m).ask(wire.AskList, "").List.Load; load == before || load == "" {
		t.Errorf("load %q after a reload, was %q", load, before)
	}
}

// A loading that looks like another one would end the faults of the one before.
func TestLoadingIsTheSameWhateverSysfsTellsOfIt(t *testing.T) {
	m := running(t, node(t, 1))
	c := opened(t, m)
	want := c.ask(wire.AskList, "").List.Load
	if err := os.Remove(filepath.Join(m.sysfs, "module/nvidia/version")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*conversation{"as before": c, "of another worker": opened(t, m)} {
		if load := c.ask(wire.AskList, "").List.Load; load != want {
			t.Errorf("load %s is %q, want %q", name, load, want)
		}
	}
}

// The packages were upgraded, and the driver of before is still loaded.
func TestLibraryOfAnotherVersionSaysSo(t *testing.T) {
	m := running(t, node(t, 1), fake.Step{Do: fake.Library("580.65.06")})
	installed := filepath.Join(t.TempDir(), "libnvidia-ml.so.580.65.06")
	if err := os.Link(libraries.current(t), installed); err != nil {
		t.Fatal(err)
	}
	c := talk(t, m.env, "--library", installed, "--sysfs", m.sysfs)
	e := c.refused(wire.AskOpen, "")
	if e.Kind != wire.KindRenewed || !contains(e.Text, "580.65.06", m.driver.State().Driver.Version) {
		t.Errorf("%+v, want renewed, with both versions", e)
	}
	if again := c.refused(wire.AskList, ""); again != e {
		t.Errorf("%+v after %+v", again, e)
	}
}

func TestHungGPUHidesNoOther(t *testing.T) {
	m := running(t, node(t, 2), fake.Step{GPU: 0, Do: fake.Hang(time.Hour)})
	stuck, well := opened(t, m), opened(t, m)
	stuck.send(wire.AskReadings, m.addresses[0])
	if list := well.ask(wire.AskList, "").List; !cmp.Equal(list.GPUs, m.addresses) {
		t.Errorf("list %v, want %v", list.GPUs, m.addresses)
	}
	well.ask(wire.AskReadings, m.addresses[1])
	m.apply(t, 0, fake.Hang(0))
	if a := stuck.answer(); a.Readings == nil {
		t.Errorf("%+v after the hang, want the late readings", a)
	}
}
