package nvmltest

import (
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gpuvet.dev/nvml"
)

func healthIsSound(t *testing.T, d nvml.Driver) {
	for _, g := range inventory(t, d).GPUs {
		before := time.Now()
		h, err := d.Health(t.Context(), g.PCI)
		if err != nil {
			t.Errorf("health of %s: %v", g.PCI, err)
			continue
		}
		if h.Time.Before(before) || h.Time.After(time.Now()) {
			t.Errorf("%s: health was taken at %s, not during the call", g.PCI, h.Time)
		}
		for path, v := range leaves(reflect.ValueOf(h), "") {
			if !v.present && !v.zero {
				t.Errorf("%s: %s is absent, yet has a value", g.PCI, path)
			}
			if v.count > math.MaxUint64/2 {
				t.Errorf("%s: %s is %d", g.PCI, path, v.count)
			}
		}
		errorsAreCountedOnce(t, g.PCI, h.ECC)
		clocksAreSound(t, g.PCI, h)
		thermalIsSound(t, g.PCI, h.Thermal)
		linksAreSound(t, g.PCI, h)
		if mode := h.MIGMode; mode.OK && g.MIG.OK && mode.Value.Current != g.MIG.Value {
			t.Errorf("%s: MIG mode %+v, and the inventory says %t", g.PCI, mode.Value, g.MIG.Value)
		}
	}
}

func errorsAreCountedOnce(t *testing.T, pci string, counts []nvml.ECCCount) {
	t.Helper()
	seen := map[nvml.ECCCount]bool{}
	for _, c := range counts {
		if !slices.Contains([]string{"dram", "sram", "all"}, c.Location) || c.Count > math.MaxUint64/2 {
			t.Errorf("%s: counter %+v", pci, c)
		}
		c.Count = 0
		if seen[c] {
			t.Errorf("%s: counter %+v is there twice", pci, c)
		}
		seen[c] = true
	}
}

func clocksAreSound(t *testing.T, pci string, h nvml.Health) {
	t.Helper()
	if state := h.PerformanceState; state.Value < 0 || state.Value > 15 {
		t.Errorf("%s: performance state %d, want 0 to 15", pci, state.Value)
	}
	known := []nvml.ClockReason{
		nvml.ClockIdle, nvml.ClockApplications, nvml.ClockPowerCap, nvml.ClockHWSlowdown, nvml.ClockSyncBoost, nvml.ClockSWThermal,
		nvml.ClockHWThermal, nvml.ClockHWPowerBrake, nvml.ClockDisplay, nvml.ClockBoardLimit, nvml.ClockReliability,
	}
	reasons := h.ClockReasons
	if reasons.OK != (reasons.Value != nil) {
		t.Errorf("%s: clock reasons %#v: want a list, if empty, where they are told", pci, reasons)
	}
	at := -1
	for _, reason := range reasons.Value {
		next := slices.Index(known, reason)
		if next <= at {
			t.Errorf("%s: clock reasons %v: want each known, once and in order", pci, reasons.Value)
		}
		at = next
	}
	for reason, held := range h.ClockTimes {
		if held < 0 || reason != nvml.ClockThermal && !slices.Contains(known, reason) {
			t.Errorf("%s: clocks held down for %s by %q", pci, held, reason)
		}
	}
}

func thermalIsSound(t *testing.T, pci string, h nvml.Thermal) {
	t.Helper()
	for name, v := range map[string]nvml.Maybe[float64]{
		"margin": h.Margin, "slowdown margin": h.SlowdownMargin, "shutdown margin": h.ShutdownMargin,
		"slowdown": h.Slowdown, "shutdown": h.Shutdown,
	} {
		if v.OK && !(math.Abs(v.Value) < 200) {
			t.Errorf("%s: %s is %g °C", pci, name, v.Value)
		}
	}
	if h.Slowdown.OK && h.Shutdown.OK && h.Slowdown.Value > h.Shutdown.Value {
		t.Errorf("%s: slowdown at %g °C, after the shutdown at %g", pci, h.Slowdown.Value, h.Shutdown.Value)
	}
	if h.SlowdownMargin.OK && h.ShutdownMargin.OK && h.SlowdownMargin.Value < h.ShutdownMargin.Value {
		t.Errorf("%s: slowdown at a margin of %g °C, after the shutdown at %g", pci, h.SlowdownMargin.Value, h.ShutdownMargin.Value)
	}
}

func linksAreSound(t *testing.T, pci string, h nvml.Health) {
	t.Helper()
	p := h.PCIe
	for name, pair := range map[string][2]nvml.Maybe[int]{
		"generation": {p.Generation, p.GenerationMax}, "width": {p.Width, p.WidthMax},
		"highest generation of GPU and slot": {p.GenerationMax, p.GenerationMaxGPU},
	} {
		now, most := pair[0], pair[1]
		if now.OK && now.Value < 1 || now.OK && most.OK && now.Value > most.Value {
			t.Errorf("%s: PCIe %s is %d of %d", pci, name, now.Value, most.Value)
		}
	}
	states := []nvml.NVLinkState{"", nvml.NVLinkActive, nvml.NVLinkInactive, nvml.NVLinkSleep, nvml.NVLinkTrafficDisabled}
	for i, link := range h.NVLinks {
		if link.Number != i || !slices.Contains(states, link.State) || !slices.Contains([]string{"", "gpu", "switch", "npu"}, link.Remote) {
			t.Errorf("%s: NVLink %d is %+v", pci, i, link)
		}
	}
	f := h.Fabric.Value
	if f.Conditions.OK != (f.Conditions.Value != nil) {
		t.Errorf("%s: fabric conditions %#v: want a list, if empty, where they are told", pci, f.Conditions)
	}
	if !slices.Contains([]string{"", "healthy", "unhealthy", "limited-capacity"}, f.Health) || f.Status < 0 {
		t.Errorf("%s: fabric %+v", pci, f)
	}
}

// countersGoUp compares all that counts since the driver was loaded, and over the
// life of the GPU.
func countersGoUp(t *testing.T, d nvml.Driver) {
	for _, g := range inventory(t, d).GPUs {
		var health [2]nvml.Health
		for i := range health {
			var err error
			if health[i], err = d.Health(t.Context(), g.PCI); err != nil {
				t.Fatalf("health of %s: %v", g.PCI, err)
			}
		}
		first, second := leaves(reflect.ValueOf(health[0]), ""), leaves(reflect.ValueOf(health[1]), "")
		for path, v := range first {
			if later := second[path]; later.count < v.count {
				t.Errorf("%s: %s is %d, and was %d before", g.PCI, path, later.count, v.count)
			}
		}
		for reason, held := range health[0].ClockTimes {
			if later, ok := health[1].ClockTimes[reason]; !ok || later < held {
				t.Errorf("%s: clocks held down for %s by %s, and for %s before", g.PCI, later, reason, held)
			}
		}
	}
}

// leaf is one value of an answer.
type leaf struct {
	present bool   // not in a Maybe, or in one that is there
	zero    bool   // it is the zero value
	count   uint64 // if it is one
}

// leaves are the values of an answer, by their place in it. What is in a Maybe
// stands under its name.
func leaves(v reflect.Value, path string) map[string]leaf {
	all := map[string]leaf{}
	add := func(v reflect.Value, name string) {
		maps.Copy(all, leaves(v, strings.TrimPrefix(path+"."+name, ".")))
	}
	switch {
	case v.Kind() == reflect.Struct && v.NumField() == 2 && v.Type().Field(1).Name == "OK":
		l := leaf{present: v.Field(1).Bool(), zero: v.Field(0).IsZero()}
		if v.Field(0).CanUint() {
			l.count = v.Field(0).Uint()
		}
		all[path] = l
	case v.Type() == reflect.TypeFor[time.Time]():
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			add(v.Field(i), v.Type().Field(i).Name)
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			add(v.Index(i), strconv.Itoa(i))
		}
	case v.CanUint():
		all[path] = leaf{present: true, zero: v.IsZero(), count: v.Uint()}
	}
	return all
}
