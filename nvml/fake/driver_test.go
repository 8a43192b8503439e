package fake_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
	"gpuvet.dev/nvml/nvmltest"
)

func TestScriptedDriverConforms(t *testing.T) {
	nvmltest.Run(t, func(t *testing.T) nvml.Driver {
		t.Helper()
		d := fake.New(node(t, "h100", 8))
		apply(t, d, 7, fake.MIG{Enabled: true, Profiles: []string{"3g.40gb", "1c.2g.20gb", "1g.10gb"}})
		return losing{d}
	})
}

// losing is a driver that the conformance test may have lose a GPU.
type losing struct{ *fake.Driver }

// Lose implements [nvmltest.Loser].
func (l losing) Lose(t *testing.T, pci string) {
	t.Helper()
	inventory, err := l.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	apply(t, l.Driver, slices.IndexFunc(inventory.GPUs, func(g nvml.GPU) bool { return g.PCI == pci }), fake.Lost(true))
}

func node(t *testing.T, profile string, n int) *fake.Scenario {
	t.Helper()
	s, err := fake.Node(profile, n)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func apply(t *testing.T, d *fake.Driver, gpu int, actions ...fake.Action) {
	t.Helper()
	for _, action := range actions {
		if err := d.Apply(fake.Step{GPU: gpu, Do: action}); err != nil {
			t.Fatal(err)
		}
	}
}

func readings(t *testing.T, d *fake.Driver, pci string) nvml.Readings {
	t.Helper()
	r, err := d.Readings(t.Context(), pci)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func health(t *testing.T, d *fake.Driver, pci string) nvml.Health {
	t.Helper()
	h, err := d.Health(t.Context(), pci)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// told is all that a driver tells by itself, with the time since it was made.
type told struct {
	lines  []string
	events []string
	ended  error
}

// listen gathers what the driver tells until the end of the test.
func listen(t *testing.T, d *fake.Driver) *told {
	t.Helper()
	var all told
	made := time.Now()
	go func() {
		_ = d.KernelLines(t.Context(), func(at time.Time, line string) {
			all.lines = append(all.lines, fmt.Sprintf("%s %s", at.Sub(made).Truncate(time.Millisecond), line))
		})
	}()
	go func() {
		all.ended = d.Events(t.Context(), func(e nvml.Event) {
			all.events = append(all.events, fmt.Sprintf("%s %s %s %d", e.Time.Sub(made).Truncate(time.Millisecond), e.PCI, e.Type, e.Xid))
		})
	}()
	synctest.Wait()
	return &all
}

func play(t *testing.T, d *fake.Driver) {
	t.Helper()
	go func() {
		if err := d.Run(t.Context()); err != nil {
			t.Error(err)
		}
	}()
}

func TestErrorsAreToldAsTheDriverTellsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := fake.New(node(t, "h100", 8))
		got := listen(t, d)
		apply(t, d, 3, fake.Xid{Code: 79})
		apply(t, d, 5, fake.Xid{Code: 31, PID: 42, Process: "python3", Text: "Ch 00000008"})
		apply(t, d, 5, fake.Xid{Code: 43, GPUInstance: new(1), ComputeInstance: new(0)})
		apply(t, d, 0, fake.ECC{Corrected: 1}, fake.ECC{Uncorrected: 1})
		synctest.Wait()
		wantLines := []string{
			"0s NVRM: Xid (PCI:0000:5d:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
			"0s NVRM: Xid (PCI:0000:5d:00): 154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)",
			"0s NVRM: Xid (PCI:0000:ab:00): 31, pid=42, name=python3, Ch 00000008",
			"0s NVRM: Xid (PCI:0000:ab:00 GPU-I:01 GPU-CI:00): 43, pid='<unknown>', name=<unknown>, Ch 00000008",
		}
		if diff := cmp.Diff(wantLines, got.lines); diff != "" {
			t.Errorf("kernel lines (-want +got):\n%s", diff)
		}
		wantEvents := []string{"0s 0000:5d:00.0 xid 79", "0s 0000:5d:00.0 recovery 0", "0s 0000:ab:00.0 xid 31", "0s 0000:ab:00.0 xid 43", "0s 0000:18:00.0 double-bit-ecc 0"}
		if diff := cmp.Diff(wantEvents, got.events); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestXidChangesTheRecoveryAction(t *testing.T) {
	for _, test := range []struct {
		name  string
		steps []fake.Action
		want  nvml.RecoveryAction
	}{
		{"application fault: none", []fake.Action{fake.Xid{Code: 13}}, nvml.RecoverNone},
		{"row remap recorded: none", []fake.Action{fake.Xid{Code: 63}}, nvml.RecoverNone},
		{"double-bit error: reset", []fake.Action{fake.Xid{Code: 48}}, nvml.RecoverGPUReset},
		{"firmware does not answer: reset", []fake.Action{fake.Xid{Code: 119}}, nvml.RecoverGPUReset},
		{"off the bus: reboot", []fake.Action{fake.Xid{Code: 79}}, nvml.RecoverNodeReboot},
		{"worse replaces bad", []fake.Action{fake.Xid{Code: 48}, fake.Xid{Code: 79}}, nvml.RecoverNodeReboot},
		{"bad does not replace worse", []fake.Action{fake.Xid{Code: 79}, fake.Xid{Code: 48}}, nvml.RecoverNodeReboot},
		{"the step may say otherwise", []fake.Action{fake.Xid{Code: 48, Recovery: nvml.Some(nvml.RecoverNone)}}, nvml.RecoverNone},
		{"by itself", []fake.Action{fake.Recovery(nvml.RecoverDrainP2P)}, nvml.RecoverDrainP2P},
		{"none after a reload", []fake.Action{fake.Xid{Code: 79}, fake.Reload{}}, nvml.RecoverNone},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := node(t, "h100", 1)
			d := fake.New(s)
			apply(t, d, 0, test.steps...)
			if got := health(t, d, s.GPUs[0].PCI).Recovery; got != nvml.Some(test.want) {
				t.Errorf("recovery action %+v, want %s", got, test.want)
			}
		})
	}
}

func TestDriverBefore570HasNoRecoveryAction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := node(t, "h100", 1)
		s.Driver.Version = "550.54.15"
		d := fake.New(s)
		got := listen(t, d)
		apply(t, d, 0, fake.Xid{Code: 79})
		synctest.Wait()
		if r := health(t, d, s.GPUs[0].PCI).Recovery; r.OK || r.Value != 0 {
			t.Errorf("recovery action %+v, want absent", r)
		}
		if len(got.lines) != 1 || len(got.events) != 1 {
			t.Errorf("told %q and %q, want one line and one event", got.lines, got.events)
		}
	})
}

func TestDriverBefore580HasNoAddressingMode(t *testing.T) {
	s := node(t, "h100", 1)
	s.GPUs[0].AddressingMode = "ATS"
	d := fake.New(s)
	mode := func() string {
		inventory, err := d.Inventory(t.Context())
		if err != nil || inventory.GPUs[0].AddressingMode != d.State().GPUs[0].AddressingMode {
			t.Errorf("%+v, %v: want the mode that the state has", inventory, err)
		}
		return inventory.GPUs[0].AddressingMode
	}
	if got := mode(); got != "" {
		t.Errorf("%q under %s, want none", got, s.Driver.Version)
	}
	apply(t, d, 0, fake.Reload{Version: "580.65.06"})
	if got := mode(); got != "ATS" {
		t.Errorf("%q under 580, want ATS", got)
	}
}

func TestFourGPUsShareANUMANodeAndTwoARoot(t *testing.T) {
	for _, profile := range fake.Profiles() {
		nodes, roots := map[int]int{}, map[string]int{}
		for _, g := range node(t, profile, 16).GPUs {
			nodes[g.NUMANode.Value]++
			roots[g.PCIeRoot]++
			if before := g.PCIeRoot; len(before) != len("pci0000:64") || before[3:] > g.PCI {
				t.Errorf("%s: %s is below %s", profile, g.PCI, before)
			}
		}
		if diff := cmp.Diff(map[int]int{0: 4, 1: 4, 2: 4, 3: 4}, nodes); diff != "" {
			t.Errorf("%s: NUMA nodes (-want +got):\n%s", profile, diff)
		}
		for root, n := range roots {
			if len(roots) != 8 || n != 2 {
				t.Errorf("%s: %d GPUs below %s, one of %d roots: want 2 below each", profile, n, root, len(roots))
			}
		}
	}
}

func TestTimelineIsPlayedOnTimeAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := node(t, "h100", 1)
		s.Repeat = time.Minute
		s.Timeline = []fake.Step{
			{At: 10 * time.Second, Do: fake.Kernel("second")},
			{At: 0, Do: fake.Kernel("first")},
		}
		d := fake.New(s)
		got := listen(t, d)
		play(t, d)
		time.Sleep(2*time.Minute + time.Second)
		synctest.Wait()
		want := []string{"0s first", "10s second", "1m0s first", "1m10s second", "2m0s first"}
		if diff := cmp.Diff(want, got.lines); diff != "" {
			t.Errorf("kernel lines (-want +got):\n%s", diff)
		}
	})
}

func TestTimelineEndsWithoutRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := node(t, "h100", 1)
		s.Timeline = []fake.Step{{At: time.Second, Do: fake.Kernel("once")}}
		d := fake.New(s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		got := listen(t, d)
		if err := d.Run(ctx); err != nil {
			t.Errorf("run: %v, want nil at the end of its context", err)
		}
		synctest.Wait()
		if diff := cmp.Diff([]string{"1s once"}, got.lines); diff != "" {
			t.Errorf("kernel lines (-want +got):\n%s", diff)
		}
	})
}

func TestTwoThingsAreNeverToldAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := fake.New(node(t, "h100", 1))
		var last time.Time
		go func() {
			_ = d.KernelLines(t.Context(), func(at time.Time, _ string) {
				if !at.After(last) {
					t.Errorf("%s is not after %s", at, last)
				}
				last = at
			})
		}()
		for range 100 {
			apply(t, d, 0, fake.Kernel("line"))
		}
		synctest.Wait()
	})
}

func TestKernelLinesAreKeptForALateReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := fake.New(node(t, "h100", 1))
		for i := range 1100 {
			apply(t, d, 0, fake.Kernel(fmt.Sprint(i)))
		}
		for range 2 { // each reader begins with the oldest line
			ctx, cancel := context.WithCancel(t.Context())
			var got []string
			go func() {
				_ = d.KernelLines(ctx, func(_ time.Time, line string) { got = append(got, line) })
			}()
			synctest.Wait()
			cancel()
			if len(got) != 1000 || got[0] != "100" || got[999] != "1099" {
				t.Errorf("%d lines, want 1000: 100 to 1099", len(got))
			}
		}
	})
}

func TestRampLeadsInAStraightLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := node(t, "h100", 1)
		s.GPUs[0].Start[fake.Temperature] = nvml.Some(45.0)
		d := fake.New(s)
		apply(t, d, 0, fake.Ramp{To: fake.Values{fake.Temperature: nvml.Some(85.0)}, Over: 10 * time.Second})
		var got []float64
		for range 4 {
			got = append(got, readings(t, d, s.GPUs[0].PCI).Temperature.Value)
			time.Sleep(4 * time.Second)
		}
		if diff := cmp.Diff([]float64{45, 61, 77, 85}, got); diff != "" {
			t.Errorf("temperatures (-want +got):\n%s", diff)
		}
	})
}

func TestEnergyIsPowerOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := node(t, "h100", 1)
		pci := s.GPUs[0].PCI
		s.GPUs[0].Start[fake.Power] = nvml.Some(100.0)
		d := fake.New(s)
		time.Sleep(10 * time.Second) // 1000 J
		apply(t, d, 0, fake.Ramp{To: fake.Values{fake.Power: nvml.Some(300.0)}, Over: 10 * time.Second})
		time.Sleep(5 * time.Second) // 750 J, in two parts of the ramp
		readings(t, d, pci)
		time.Sleep(15 * time.Second) // 1250 J and 3000 J
		if got := readings(t, d, pci).Energy; math.Abs(got.Value-6000) > 1e-6 {
			t.Errorf("energy %+v, want 6000 J", got)
		}
		apply(t, d, 0, fake.Reload{})
		time.Sleep(time.Second)
		if got := readings(t, d, pci).Energy; math.Abs(got.Value-300) > 1e-6 {
			t.Errorf("energy %+v a second after the reload, want 300 J", got)
		}
	})
}

func TestReadingsSwingAroundTheScript(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := node(t, "h100", 2)
		for _, g := range s.GPUs {
			g.Start[fake.Utilization], g.Start[fake.Power], g.Start[fake.Wave] = nvml.Some(0.5), nvml.Some(400.0), nvml.Some(0.1)
		}
		first, second := fake.New(s), fake.New(s)
		seen := map[float64]bool{}
		for range 60 {
			time.Sleep(time.Second)
			a, b := readings(t, first, s.GPUs[0].PCI), readings(t, second, s.GPUs[0].PCI)
			if diff := cmp.Diff(a, b); diff != "" {
				t.Fatalf("two drivers of one script differ (-first +second):\n%s", diff)
			}
			if math.Abs(a.Utilization.Value-0.5) > 0.05 || math.Abs(a.Power.Value-400) > 40 {
				t.Errorf("utilization %g, power %g: want them within a tenth of 0.5 and 400", a.Utilization.Value, a.Power.Value)
			}
			if other := readings(t, first, s.GPUs[1].PCI); other.Utilization == a.Utilization {
				t.Errorf("two GPUs swing together: %g", a.Utilization.Value)
			}
			seen[a.Utilization.Value] = true
		}
		if len(seen) < 50 {
			t.Errorf("%d values of utilization in a minute: want it to move", len(seen))
		}
		apply(t, first, 0, fake.Set{fake.Wave: nvml.Some(0.0)})
		if r := readings(t, first, s.GPUs[0].PCI); r.Utilization.Value != 0.5 || r.Power.Value != 400 {
			t.Errorf("without wave: utilization %g, power %g, want 0.5 and 400", r.Utilization.Value, r.Power.Value)
		}
	})
}

func TestAbsentValueIsNotZero(t *testing.T) {
	s := node(t, "a100", 1)
	d := fake.New(s)
	apply(t, d, 0, fake.Set{fake.Power: {}, fake.MemoryUsed: {}})
	r := readings(t, d, s.GPUs[0].PCI)
	if r.Power.OK || r.Energy.OK || r.MemoryUsed.OK || r.MemoryFree.OK {
		t.Errorf("power %+v, energy %+v, memory used %+v, free %+v: want them absent", r.Power, r.Energy, r.MemoryUsed, r.MemoryFree)
	}
	if !r.MemoryTotal.OK || !r.Temperature.OK {
		t.Errorf("memory total %+v, temperature %+v: want them present", r.MemoryTotal, r.Temperature)
	}
}

func TestMemoryErrorsCountTwiceAndHalfIsForgotten(t *testing.T) {
	s := node(t, "h100", 1)
	pci := s.GPUs[0].PCI
	d := fake.New(s)
	counts := func() map[string]uint64 {
		got := map[string]uint64{}
		for _, c := range health(t, d, pci).ECC {
			if c.Count > 0 {
				got[fmt.Sprintf("%s uncorrected=%t aggregate=%t", c.Location, c.Uncorrected, c.Aggregate)] = c.Count
			}
		}
		return got
	}
	apply(t, d, 0, fake.ECC{Uncorrected: 2}, fake.ECC{Corrected: 5, Location: "sram"})
	want := map[string]uint64{
		"dram uncorrected=true aggregate=false": 2, "dram uncorrected=true aggregate=true": 2,
		"sram uncorrected=false aggregate=false": 5, "sram uncorrected=false aggregate=true": 5,
	}
	if diff := cmp.Diff(want, counts()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	apply(t, d, 0, fake.RemapPending(true), fake.RemapFailed(true), fake.RowsRemapped{Correctable: 1, Uncorrectable: 2}, fake.Reload{})
	want = map[string]uint64{"dram uncorrected=true aggregate=true": 2, "sram uncorrected=false aggregate=true": 5}
	if diff := cmp.Diff(want, counts()); diff != "" {
		t.Errorf("counts after a reload (-want +got):\n%s", diff)
	}
	h := health(t, d, pci)
	if h.RowRemapPending.Value || !h.RowRemapFailed.Value || h.RowsRemappedCorrectable.Value != 1 || h.RowsRemappedUncorrectable.Value != 2 {
		t.Errorf("rows after a reload: %+v", h)
	}
}

func TestLostGPUIsLostUntilItIsBack(t *testing.T) {
	for _, back := range []fake.Action{fake.Lost(false), fake.Reload{}} {
		t.Run(fmt.Sprintf("%T", back), func(t *testing.T) {
			s := node(t, "h100", 2)
			d := fake.New(s)
			pci := s.GPUs[1].PCI
			apply(t, d, 1, fake.Lost(true))
			if _, err := d.Readings(t.Context(), pci); !errors.Is(err, nvml.ErrLost) {
				t.Errorf("readings: %v, want %v", err, nvml.ErrLost)
			}
			if _, err := d.Health(t.Context(), pci); !errors.Is(err, nvml.ErrLost) {
				t.Errorf("health: %v, want %v", err, nvml.ErrLost)
			}
			readings(t, d, s.GPUs[0].PCI)
			apply(t, d, 1, back)
			readings(t, d, pci)
			health(t, d, pci)
		})
	}
}

func TestMissingGPUIsNotListed(t *testing.T) {
	s := node(t, "h100", 2)
	s.Driver.Version = "580.65.06" // which tells all there is
	d := fake.New(s)
	apply(t, d, 0, fake.Missing(true), fake.Reload{})
	inv, err := d.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]nvml.GPU{s.GPUs[1].GPU}, inv.GPUs); diff != "" {
		t.Errorf("GPUs (-want +got):\n%s", diff)
	}
	if _, err := d.Health(t.Context(), s.GPUs[0].PCI); !errors.Is(err, nvml.ErrNotFound) {
		t.Errorf("health: %v, want %v", err, nvml.ErrNotFound)
	}
}

func TestHungGPUDoesNotAnswerWhileOthersDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := node(t, "h100", 2)
		d := fake.New(s)
		apply(t, d, 0, fake.Hang(30*time.Second))
		began := time.Now()

		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := d.Health(ctx, s.GPUs[0].PCI)
		if !errors.Is(err, nvml.ErrTimeout) || time.Since(began) != 2*time.Second {
			t.Errorf("%v after %s, want %v after 2s", err, time.Since(began), nvml.ErrTimeout)
		}
		health(t, d, s.GPUs[1].PCI)
		if waited := time.Since(began); waited != 2*time.Second {
			t.Errorf("the other GPU answered after %s", waited)
		}
		health(t, d, s.GPUs[0].PCI)
		if waited := time.Since(began); waited != 30*time.Second {
			t.Errorf("the call came back after %s, want 30s", waited)
		}
	})
}

func TestHangEndsBeforeItsTime(t *testing.T) {
	for _, end := range []fake.Action{fake.Hang(0), fake.Reload{}} {
		t.Run(fmt.Sprintf("%T", end), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := node(t, "h100", 1)
				d := fake.New(s)
				apply(t, d, 0, fake.Hang(time.Hour))
				began := time.Now()
				time.AfterFunc(5*time.Second, func() { apply(t, d, 0, end) })
				health(t, d, s.GPUs[0].PCI)
				if waited := time.Since(began); waited != 5*time.Second {
					t.Errorf("the call came back after %s, want 5s", waited)
				}
			})
		})
	}
}

func TestReloadBreaksTheStreamAndChangesTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := fake.New(node(t, "h100", 1))
		before, err := d.Inventory(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := listen(t, d)
		apply(t, d, 0, fake.Xid{Code: 13}, fake.Reload{}, fake.Xid{Code: 31})
		synctest.Wait()
		if !errors.Is(got.ended, nvml.ErrNoDriver) {
			t.Errorf("stream ended with %v, want %v", got.ended, nvml.ErrNoDriver)
		}
		if diff := cmp.Diff([]string{"0s 0000:18:00.0 xid 13"}, got.events); diff != "" {
			t.Errorf("events before the break (-want +got):\n%s", diff)
		}
		banner := "0s NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.195.03  Release Build  (fake)"
		if len(got.lines) != 3 || got.lines[1] != banner {
			t.Errorf("kernel lines %q, want %q as the second of three", got.lines, banner)
		}
		after, err := d.Inventory(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if before.Load == after.Load {
			t.Errorf("load is %q before and after", after.Load)
		}
		again := listen(t, d)
		apply(t, d, 0, fake.Xid{Code: 43})
		synctest.Wait()
		if diff := cmp.Diff([]string{"0s 0000:18:00.0 xid 43"}, again.events); diff != "" {
			t.Errorf("events of the new stream (-want +got):\n%s", diff)
		}
	})
}

func TestNothingAnswersWithoutDriver(t *testing.T) {
	s := node(t, "h100", 1)
	s.Driver.Absent = true
	d := fake.New(s)
	all := func() map[string]error {
		_, inventory := d.Inventory(t.Context())
		_, readings := d.Readings(t.Context(), s.GPUs[0].PCI)
		_, health := d.Health(t.Context(), s.GPUs[0].PCI)
		return map[string]error{"inventory": inventory, "readings": readings, "health": health}
	}
	absent := func() {
		t.Helper()
		for name, err := range all() {
			if !errors.Is(err, nvml.ErrNoDriver) {
				t.Errorf("%s: %v, want %v", name, err, nvml.ErrNoDriver)
			}
		}
		if err := d.Events(t.Context(), nil); !errors.Is(err, nvml.ErrNoDriver) {
			t.Errorf("events: %v, want %v", err, nvml.ErrNoDriver)
		}
	}
	absent()
	apply(t, d, 0, fake.Xid{Code: 79}) // nobody is there to report it
	apply(t, d, 0, fake.Present(true))
	for name, err := range all() {
		if err != nil {
			t.Errorf("%s with the driver loaded: %v", name, err)
		}
	}
	if got := health(t, d, s.GPUs[0].PCI).Recovery.Value; got != nvml.RecoverNone {
		t.Errorf("recovery action %s, want none", got)
	}
	apply(t, d, 0, fake.Present(false))
	absent()
}

func TestStepOfNoGPUIsRefused(t *testing.T) {
	d := fake.New(node(t, "h100", 1))
	for _, step := range []fake.Step{{GPU: 1, Do: fake.Lost(true)}, {GPU: -1, Do: fake.Lost(true)}, {}} {
		if err := d.Apply(step); err == nil {
			t.Errorf("step %+v: no error", step)
		}
	}
}

func TestLostScenarioTellsItsStory(t *testing.T) {
	s, err := fake.Load("../../testdata/scenarios/8xh100-lost.yaml")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		d := fake.New(s)
		got := listen(t, d)
		play(t, d)
		lost := func() bool {
			_, err := d.Health(t.Context(), s.GPUs[3].PCI)
			return errors.Is(err, nvml.ErrLost)
		}
		var story []bool
		for _, wait := range []time.Duration{5 * time.Second, 2 * time.Second, 29 * time.Second, 46 * time.Second} { // 5, 7, 36, 82 s
			time.Sleep(wait)
			story = append(story, lost())
		}
		synctest.Wait()
		if diff := cmp.Diff([]bool{false, true, false, true}, story); diff != "" {
			t.Errorf("GPU 3 is lost at 5, 7, 36 and 82 s (-want +got):\n%s", diff)
		}
		want := []string{
			"6s 0000:5d:00.0 xid 79", "6s 0000:5d:00.0 recovery 0",
			"10s 0000:ab:00.0 xid 31", "10s 0000:ab:00.0 xid 43",
		}
		if diff := cmp.Diff(want, got.events); diff != "" {
			t.Errorf("events up to the reload (-want +got):\n%s", diff)
		}
	})
}

func TestScenarioKeepsAGPUThatIsNotListed(t *testing.T) {
	d := fake.New(node(t, "h100", 2))
	inventory, err := d.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pci := inventory.GPUs[1].PCI
	apply(t, d, 1, fake.Missing(true))
	if !d.Has(pci) || d.Has("ffff:01:00.0") {
		t.Errorf("has %s: %v, has another: %v", pci, d.Has(pci), d.Has("ffff:01:00.0"))
	}
}
