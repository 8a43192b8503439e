// Package nvmltest holds what every [nvml.Driver] must keep to, as tests: the
// scripted driver and the real one pass the same.
package nvmltest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml"
)

// Loser is a driver that can lose a GPU when it is told to. What one must keep
// to then is tested too.
type Loser interface {
	nvml.Driver
	Lose(t *testing.T, pci string)
}

// Run tests a driver. Each call of open gives one with at least one GPU, all of
// them well; it may be a [Loser].
func Run(t *testing.T, open func(t *testing.T) nvml.Driver) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(*testing.T, nvml.Driver)
	}{
		{"inventory lists GPUs in PCI order, each told apart", inventoryIsOrdered},
		{"inventory of one load is the same at each call", inventoryIsStable},
		{"MIG devices are listed with what they are", instancesAreSound},
		{"answers belong to the caller", answersBelongToTheCaller},
		{"readings are present or absent, never a sentinel", readingsAreSound},
		{"health is present or absent, never a sentinel", healthIsSound},
		{"what health counts goes up", countersGoUp},
		{"an unknown address is not found", unknownAddressIsNotFound},
		{"a call with a cancelled context fails with its cause", cancelledCallFails},
		{"calls run beside each other", callsRunBesideEachOther},
		{"the event stream ends without error on cancel", eventsEndOnCancel},
		{"a lost GPU stays listed, says so and hides no other", lostGPUStaysListed},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

var (
	addressForm      = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`)
	uuidForm         = regexp.MustCompile(`^GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	instanceUUIDForm = regexp.MustCompile(`^MIG-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	capabilityForm   = regexp.MustCompile(`^([1-9][0-9]*\.[0-9]+)?$`)
	brandForm        = regexp.MustCompile(`^[A-Za-z]*$`)
	rootForm         = regexp.MustCompile(`^(pci[0-9a-f]{4,8}:[0-9a-f]{2})?$`)
	profileForm      = regexp.MustCompile(`^([1-9][0-9]*c\.)?[1-9][0-9]*g\.[1-9][0-9]*gb([+-].+)?$`)
)

func inventory(t *testing.T, d nvml.Driver) nvml.Inventory {
	t.Helper()
	inv, err := d.Inventory(t.Context())
	if err != nil {
		t.Fatalf("inventory: %v", err)
	}
	if len(inv.GPUs) == 0 {
		t.Fatal("inventory has no GPU: this test needs one")
	}
	return inv
}

func inventoryIsOrdered(t *testing.T, d nvml.Driver) {
	inv := inventory(t, d)
	if inv.DriverVersion == "" || inv.Load == "" {
		t.Errorf("driver version %q, load %q: want both", inv.DriverVersion, inv.Load)
	}
	if !slices.IsSortedFunc(inv.GPUs, func(a, b nvml.GPU) int { return strings.Compare(a.PCI, b.PCI) }) {
		t.Error("GPUs are not in PCI order")
	}
	uuids := map[string]bool{}
	for i, g := range inv.GPUs {
		if !addressForm.MatchString(g.PCI) {
			t.Errorf("GPU %d: address %q is not of the form 0000:3b:00.0", i, g.PCI)
		}
		if i > 0 && g.PCI == inv.GPUs[i-1].PCI {
			t.Errorf("address %s is listed twice", g.PCI)
		}
		if g.UUID != "" && (!uuidForm.MatchString(g.UUID) || uuids[g.UUID]) {
			t.Errorf("GPU %d: UUID %q is malformed or not its own", i, g.UUID)
		}
		uuids[g.UUID] = true
		if g.Minor < -1 {
			t.Errorf("GPU %d: minor number %d", i, g.Minor)
		}
		if !capabilityForm.MatchString(g.ComputeCapability) || !slices.Contains([]string{"", "HMM", "ATS", "None"}, g.AddressingMode) {
			t.Errorf("GPU %d: compute capability %q, addressing mode %q", i, g.ComputeCapability, g.AddressingMode)
		}
		if !brandForm.MatchString(g.Brand) || g.Brand == "Unknown" {
			t.Errorf("GPU %d: brand %q is not one, or told though it is unknown", i, g.Brand)
		}
		if !rootForm.MatchString(g.PCIeRoot) || g.NUMANode.Value < 0 || !g.NUMANode.OK && g.NUMANode.Value != 0 {
			t.Errorf("GPU %d: PCIe root %q, NUMA node %+v", i, g.PCIeRoot, g.NUMANode)
		}
	}
}

func inventoryIsStable(t *testing.T, d nvml.Driver) {
	first, second := inventory(t, d), inventory(t, d)
	if diff := gocmp.Diff(first, second); diff != "" {
		t.Errorf("second inventory differs (-first +second):\n%s", diff)
	}
}

func instancesAreSound(t *testing.T, d nvml.Driver) {
	for _, g := range inventory(t, d).GPUs {
		if !g.MIG.Value && len(g.Instances) > 0 {
			t.Errorf("%s: %d MIG devices, and it is not in MIG mode", g.PCI, len(g.Instances))
		}
		if !slices.IsSortedFunc(g.Instances, func(a, b nvml.Instance) int {
			return cmp.Or(a.GPUInstance-b.GPUInstance, a.ComputeInstance-b.ComputeInstance)
		}) {
			t.Errorf("%s: MIG devices are not in order", g.PCI)
		}
		uuids := map[string]bool{}
		for _, i := range g.Instances {
			if !instanceUUIDForm.MatchString(i.UUID) || uuids[i.UUID] {
				t.Errorf("%s: UUID %q of a MIG device is malformed or not its own", g.PCI, i.UUID)
			}
			uuids[i.UUID] = true
			if !profileForm.MatchString(i.Profile) {
				t.Errorf("%s: profile %q is not of the form 1g.10gb", i.UUID, i.Profile)
			}
			if i.MemoryBytes == 0 || g.MemoryBytes > 0 && i.MemoryBytes > g.MemoryBytes {
				t.Errorf("%s: memory of %d bytes on a GPU of %d", i.UUID, i.MemoryBytes, g.MemoryBytes)
			}
			if i.GPUInstance < 0 || i.ComputeInstance < 0 || i.Start.OK != i.Size.OK || i.Start.Value < 0 || i.Size.OK && i.Size.Value < 1 {
				t.Errorf("%s: place %+v", i.UUID, i)
			}
		}
	}
}

func answersBelongToTheCaller(t *testing.T, d nvml.Driver) {
	inv := inventory(t, d)
	pci := inv.GPUs[0].PCI
	inv.GPUs[0].PCI = "spoiled"
	for _, g := range inv.GPUs {
		for i := range g.Instances {
			g.Instances[i].Profile = "spoiled"
		}
	}
	again := inventory(t, d)
	if again.GPUs[0].PCI != pci {
		t.Error("a change to the GPUs of one inventory shows in the next")
	}
	for _, g := range again.GPUs {
		if slices.ContainsFunc(g.Instances, func(i nvml.Instance) bool { return i.Profile == "spoiled" }) {
			t.Error("a change to the MIG devices of one inventory shows in the next")
		}
	}
	r, err := d.Readings(t.Context(), pci)
	if err != nil {
		t.Fatal(err)
	}
	h, err := d.Health(t.Context(), pci)
	if err != nil {
		t.Fatal(err)
	}
	if r.Clocks != nil {
		r.Clocks["spoiled"] = 1
	}
	if r.MaxClocks != nil {
		r.MaxClocks["spoiled"] = 1
	}
	for i := range h.ECC {
		h.ECC[i].Location = "spoiled"
	}
	for i := range h.NVLinks {
		h.NVLinks[i].State = "spoiled"
	}
	for i := range h.ClockReasons.Value {
		h.ClockReasons.Value[i] = "spoiled"
	}
	for i := range h.Fabric.Value.Conditions.Value {
		h.Fabric.Value.Conditions.Value[i] = "spoiled"
	}
	if h.ClockTimes != nil {
		h.ClockTimes["spoiled"] = 1
	}
	r, err = d.Readings(t.Context(), pci)
	if err != nil {
		t.Fatal(err)
	}
	h, err = d.Health(t.Context(), pci)
	if err != nil {
		t.Fatal(err)
	}
	if r.Clocks["spoiled"] != 0 || r.MaxClocks["spoiled"] != 0 {
		t.Error("a change to the clocks of one answer shows in the next")
	}
	if slices.ContainsFunc(h.ECC, func(c nvml.ECCCount) bool { return c.Location == "spoiled" }) {
		t.Error("a change to the counters of one answer shows in the next")
	}
	if slices.ContainsFunc(h.NVLinks, func(l nvml.NVLink) bool { return l.State == "spoiled" }) {
		t.Error("a change to the links of one answer shows in the next")
	}
	if slices.Contains(h.ClockReasons.Value, "spoiled") || slices.Contains(h.Fabric.Value.Conditions.Value, "spoiled") || h.ClockTimes["spoiled"] != 0 {
		t.Error("a change to the reasons of one answer shows in the next")
	}
}

func readingsAreSound(t *testing.T, d nvml.Driver) {
	for _, g := range inventory(t, d).GPUs {
		before := time.Now()
		r, err := d.Readings(t.Context(), g.PCI)
		if err != nil {
			t.Errorf("readings of %s: %v", g.PCI, err)
			continue
		}
		if r.Time.Before(before) || r.Time.After(time.Now()) {
			t.Errorf("%s: readings were taken at %s, not during the call", g.PCI, r.Time)
		}
		for name, v := range map[string]nvml.Maybe[float64]{
			"temperature": r.Temperature, "memory temperature": r.MemoryTemperature,
			"power": r.Power, "power limit": r.PowerLimit, "energy": r.Energy,
			"utilization": r.Utilization, "memory utilization": r.MemoryUtilization,
		} {
			share := strings.Contains(name, "utilization")
			switch {
			case !v.OK && v.Value != 0:
				t.Errorf("%s: %s is absent, yet %g", g.PCI, name, v.Value)
			case math.IsNaN(v.Value) || math.IsInf(v.Value, 0) || v.Value < -100 || v.Value > 1e12:
				t.Errorf("%s: %s is %g", g.PCI, name, v.Value)
			case share && (v.Value < 0 || v.Value > 1):
				t.Errorf("%s: %s is %g, want 0 to 1", g.PCI, name, v.Value)
			}
		}
		for name, v := range map[string]nvml.Maybe[uint64]{
			"memory total": r.MemoryTotal, "memory used": r.MemoryUsed, "memory free": r.MemoryFree,
			"memory reserved": r.MemoryReserved, "PCIe replays": r.PCIeReplays,
		} {
			if !v.OK && v.Value != 0 || v.Value > math.MaxUint64/2 {
				t.Errorf("%s: %s is %+v", g.PCI, name, v)
			}
		}
		if sum := r.MemoryUsed.Value + r.MemoryFree.Value + r.MemoryReserved.Value; sum > r.MemoryTotal.Value {
			t.Errorf("%s: used, free and reserved memory are %d of %d bytes", g.PCI, sum, r.MemoryTotal.Value)
		}
		for domain, f := range r.Clocks {
			if f <= 0 || f > 1e11 {
				t.Errorf("%s: clock %s is %g Hz", g.PCI, domain, f)
			}
		}
	}
}

func unknownAddressIsNotFound(t *testing.T, d nvml.Driver) {
	const pci = "ffff:ff:1f.7"
	if _, err := d.Readings(t.Context(), pci); !errors.Is(err, nvml.ErrNotFound) {
		t.Errorf("readings: %v, want %v", err, nvml.ErrNotFound)
	}
	if _, err := d.Health(t.Context(), pci); !errors.Is(err, nvml.ErrNotFound) {
		t.Errorf("health: %v, want %v", err, nvml.ErrNotFound)
	}
}

func cancelledCallFails(t *testing.T, d nvml.Driver) {
	pci := inventory(t, d).GPUs[0].PCI
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	past, cancelPast := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancelPast()
	for _, test := range []struct {
		ctx  context.Context //nolint:containedctx // two contexts are what this table is about
		want error
	}{{cancelled, context.Canceled}, {past, nvml.ErrTimeout}} {
		_, inventoryErr := d.Inventory(test.ctx)
		_, readingsErr := d.Readings(test.ctx, pci)
		_, healthErr := d.Health(test.ctx, pci)
		for name, err := range map[string]error{"inventory": inventoryErr, "readings": readingsErr, "health": healthErr} {
			if !errors.Is(err, test.want) {
				t.Errorf("%s: %v, want %v", name, err, test.want)
			}
		}
	}
}

func callsRunBesideEachOther(t *testing.T, d nvml.Driver) {
	inv := inventory(t, d)
	var all sync.WaitGroup
	for _, g := range inv.GPUs {
		for range 4 {
			all.Go(func() {
				for range 25 {
					_, readingsErr := d.Readings(t.Context(), g.PCI)
					_, healthErr := d.Health(t.Context(), g.PCI)
					_, inventoryErr := d.Inventory(t.Context())
					if err := errors.Join(readingsErr, healthErr, inventoryErr); err != nil {
						t.Error(fmt.Errorf("%s: %w", g.PCI, err))
						return
					}
				}
			})
		}
	}
	all.Wait()
}

func eventsEndOnCancel(t *testing.T, d nvml.Driver) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Events(ctx, func(nvml.Event) {}) }()
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("events: %v, want nil", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("events did not end within 10 s of the cancel")
	}
}

func lostGPUStaysListed(t *testing.T, d nvml.Driver) {
	loser, ok := d.(Loser)
	if !ok {
		t.Skip("this driver loses no GPU on demand")
	}
	before := inventory(t, d)
	pci := before.GPUs[0].PCI
	loser.Lose(t, pci)
	_, readingsErr := d.Readings(t.Context(), pci)
	_, healthErr := d.Health(t.Context(), pci)
	for name, err := range map[string]error{"readings": readingsErr, "health": healthErr} {
		if !errors.Is(err, nvml.ErrLost) {
			t.Errorf("%s of the lost GPU: %v, want %v", name, err, nvml.ErrLost)
		}
	}
	if diff := gocmp.Diff(before, inventory(t, d)); diff != "" {
		t.Errorf("inventory differs after the loss (-before +after):\n%s", diff)
	}
	for _, g := range before.GPUs[1:] {
		_, readingsErr := d.Readings(t.Context(), g.PCI)
		_, healthErr := d.Health(t.Context(), g.PCI)
		if err := errors.Join(readingsErr, healthErr); err != nil {
			t.Errorf("%s is well: %v", g.PCI, err)
		}
	}
}
