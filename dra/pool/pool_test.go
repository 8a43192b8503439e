package pool

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

// newest are the limits of a server that knows all that we use.
var newest = LimitsOf(1, 37)

// began is when faults of these tests began; the API keeps no part of a second.
var began = time.Date(2026, 11, 21, 12, 0, 5, 123456789, time.UTC)

// observed is the snapshot after one look at every GPU of a scenario.
func observed(t testing.TB, s *fake.Scenario) *detector.Snapshot {
	t.Helper()
	driver := fake.New(s)
	inventory, err := driver.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := detector.New(detector.Config{Policy: detector.DefaultPolicy(), Boot: "boot-1", Uptime: time.Minute})
	facts := detector.NewFacts(nvml.DefaultFreshness, d.Emit)
	facts.Observe(nvml.Observation{Time: began, Inventory: &inventory})
	for _, g := range inventory.GPUs {
		health, err := driver.Health(t.Context(), g.PCI)
		if err != nil {
			t.Fatal(err)
		}
		facts.Observe(nvml.Observation{Time: began, PCI: g.PCI, Health: &health})
	}
	return d.Snapshot()
}

func node(t testing.TB, profile string, n int) *detector.Snapshot {
	t.Helper()
	s, err := fake.Node(profile, n)
	if err != nil {
		t.Fatal(err)
	}
	return observed(t, s)
}

// cut is a node of A100 of which the first GPUs are cut as said.
func cut(t testing.TB, n int, profiles ...[]string) *detector.Snapshot {
	t.Helper()
	s, err := fake.Node("a100", n)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range profiles {
		instances, err := s.GPUs[i].Cut(p...)
		if err != nil {
			t.Fatal(err)
		}
		s.GPUs[i].MIG, s.GPUs[i].Instances = nvml.Some(true), instances
	}
	return observed(t, s)
}

func faultOf(reason detector.Reason, key detector.TaintKey, effect detector.Effect) detector.Condition {
	return detector.Condition{
		Reason: reason, Class: detector.Hardware, Scope: detector.ScopeGPU, Effect: effect, Taint: key, Since: began, Last: began, Count: 1,
	}
}

func inInstance(c detector.Condition, gi, ci int) detector.Condition {
	c.GPUInstance, c.ComputeInstance, c.Scope = &gi, &ci, detector.ScopeInstance
	return c
}

var lost = faultOf(detector.GPULost, detector.TaintLost, detector.NoSchedule)

// strike gives a GPU its faults, as the detector would: worst first.
func strike(s *detector.Snapshot, gpu int, faults ...detector.Condition) {
	g := &s.GPUs[gpu]
	g.Conditions = slices.Concat(g.Conditions, faults)
	slices.SortStableFunc(g.Conditions, detector.Worse)
}

func named(t *testing.T, devices []Device, name string) *Device {
	t.Helper()
	d, ok := Find(devices, name)
	if !ok {
		t.Fatalf("no device %s among %s", name, names(devices))
	}
	return d
}

func names(devices []Device) []string {
	var all []string
	for _, d := range devices {
		all = append(all, d.Name)
	}
	return all
}

func TestEveryGPUIsADeviceInPCIOrder(t *testing.T) {
	s := node(t, "h100", 3)
	slices.Reverse(s.GPUs)
	devices := Devices(s, newest)
	want := []string{"gpu-0000-18-00-0", "gpu-0000-2a-00-0", "gpu-0000-3a-00-0"}
	if diff := cmp.Diff(want, names(devices)); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	first := devices[0]
	want0 := Device{
		Name: "gpu-0000-18-00-0", ID: detector.Device{PCI: "0000:18:00.0", UUID: s.GPUs[2].UUID},
		Minor: 0, Status: detector.Healthy, Healthy: true, Published: first.Published,
	}
	if diff := cmp.Diff(want0, first); diff != "" {
		t.Errorf("first (-want +got):\n%s", diff)
	}
	if _, ok := Find(devices, "gpu-0000-00-00-0"); ok {
		t.Error("a device was found that is not there")
	}
}

func TestMIGDevicesTakeThePlaceOfTheirGPU(t *testing.T) {
	s := cut(t, 2, []string{"1c.3g.40gb", "2c.3g.40gb", "1g.10gb"})
	devices := Devices(s, newest)
	want := []string{
		"gpu-0000-07-00-0-mig-1g-10gb-4-1-0",
		"gpu-0000-07-00-0-mig-1c-3g-40gb-0-4-0",
		"gpu-0000-07-00-0-mig-2c-3g-40gb-0-4-1",
		"gpu-0000-0f-00-0",
	}
	got := names(devices)
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	for i := range devices[:3] {
		d, instance := &devices[i], s.GPUs[0].Instances[i]
		if d.Parent != s.GPUs[0].UUID || d.ID.UUID != instance.UUID || *d.ID.GPUInstance != instance.GPUInstance ||
			*d.ID.ComputeInstance != instance.ComputeInstance || d.Minor != 0 {
			t.Errorf("%d: %+v is not %+v", i, d.ID, instance)
		}
	}
}

// A GPU in MIG mode that is not cut has nothing to give.
func TestMIGModeWithoutInstancesOffersNothing(t *testing.T) {
	if devices := Devices(cut(t, 1, nil), newest); len(devices) > 0 {
		t.Errorf("offered: %s", names(devices))
	}
}

func TestAnAddressOfTheKernelLogIsNoDevice(t *testing.T) {
	s := node(t, "h100", 1)
	s.GPUs = append(s.GPUs, detector.GPUView{PCI: "0000:99:00.0", Conditions: []detector.Condition{lost}})
	if got := names(Devices(s, newest)); len(got) != 1 {
		t.Errorf("devices: %s", got)
	}
}

func TestALostGPUKeepsItsNameAndWhatWasKnownOfIt(t *testing.T) {
	s := node(t, "h100", 2)
	before := Devices(s, newest)[1]
	strike(s, 1, lost)
	s.GPUs[1].Fresh, s.GPUs[1].Missing, s.GPUs[1].Status = false, true, detector.Unhealthy
	after := Devices(s, newest)[1]
	if after.Healthy || after.Status != detector.Unhealthy || after.Name != before.Name {
		t.Errorf("lost: %+v", after)
	}
	want := before.Published.DeepCopy()
	want.Attributes["healthy"] = *boolean(false)
	want.Attributes["healthState"] = *text("Unhealthy")
	want.Taints = after.Published.Taints
	if diff := cmp.Diff(*want, after.Published); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
}

func TestOneSliceWhileTheDevicesFit(t *testing.T) {
	devices := func(gpus, each int) []Device {
		var all []Device
		for g := range gpus {
			for i := range each {
				d := Device{Name: fmt.Sprintf("gpu-%d-%d", g, i), ID: detector.Device{PCI: fmt.Sprintf("0000:%02x:00.0", g)}}
				d.Published.Name = d.Name
				all = append(all, d)
			}
		}
		return all
	}
	for _, c := range []struct {
		gpus, each int
		want       []int // devices of each slice
	}{
		{0, 0, nil},
		{8, 1, []int{8}},
		{16, 4, []int{64}},
		{13, 5, slices.Repeat([]int{5}, 13)},
		{16, 7, slices.Repeat([]int{7}, 16)},
	} {
		all := devices(c.gpus, c.each)
		var got []int
		var order []string
		for _, s := range Slices(all) {
			got = append(got, len(s.Devices))
			for _, d := range s.Devices {
				order = append(order, d.Name)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%d GPUs with %d: (-want +got):\n%s", c.gpus, c.each, diff)
		}
		if diff := cmp.Diff(names(all), order); diff != "" {
			t.Errorf("%d GPUs with %d: order (-want +got):\n%s", c.gpus, c.each, diff)
		}
	}
}

// What is published follows from the state alone: not from when or how often it is
// asked, nor from the way on which the snapshot came, nor from the order of what a
// snapshot lists.
func TestTheSameStateIsAlwaysPublishedAlike(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	keys := []detector.TaintKey{"", detector.TaintLost, detector.TaintMemory, detector.TaintLink}
	effects := []detector.Effect{detector.NoEffect, detector.None, detector.NoSchedule, detector.NoExecute}
	for round := range 300 {
		s := cut(t, 4, []string{"3g.40gb", "3g.40gb"}, []string{"1c.3g.40gb", "2c.3g.40gb", "1g.10gb"})
		for i := range s.GPUs {
			g := &s.GPUs[i]
			for range random.IntN(5) {
				c := faultOf(detector.Reason(fmt.Sprintf("Reason%d", random.IntN(6))), keys[random.IntN(4)], effects[random.IntN(4)])
				c.Since = began.Add(time.Duration(random.IntN(3)) * time.Second)
				if random.IntN(2) == 0 {
					c = inInstance(c, random.IntN(3), 0)
				}
				strike(s, i, c)
				if random.IntN(3) == 0 {
					g.Refusals = append(g.Refusals, detector.Refusal{
						GPUInstance: c.GPUInstance, ComputeInstance: c.ComputeInstance, Reason: c.Reason,
						Since: began.Add(time.Duration(random.IntN(3)) * time.Hour).Truncate(time.Second),
					})
				}
			}
		}
		want := document(t, s)
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var again detector.Snapshot
		if err := json.Unmarshal(data, &again); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, document(t, &again)); diff != "" {
			t.Fatalf("round %d: after JSON (-want +got):\n%s", round, diff)
		}
		for i := range again.GPUs {
			g := &again.GPUs[i]
			random.Shuffle(len(g.Conditions), func(i, j int) { g.Conditions[i], g.Conditions[j] = g.Conditions[j], g.Conditions[i] })
			random.Shuffle(len(g.Refusals), func(i, j int) { g.Refusals[i], g.Refusals[j] = g.Refusals[j], g.Refusals[i] })
			random.Shuffle(len(g.Instances), func(i, j int) { g.Instances[i], g.Instances[j] = g.Instances[j], g.Instances[i] })
		}
		if diff := cmp.Diff(want, document(t, &again)); diff != "" {
			t.Fatalf("round %d: in another order (-want +got):\n%s", round, diff)
		}
	}
}

// document is all that is published, as the API server reads it.
func document(t *testing.T, s *detector.Snapshot) []string {
	t.Helper()
	data, err := json.MarshalIndent(Slices(Devices(s, newest)), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(data), "\n")
}

func BenchmarkDevices(b *testing.B) {
	whole := node(b, "h100", 8)
	sevenths := slices.Repeat([]string{"1g.10gb"}, 7)
	parted := cut(b, 16, slices.Repeat([][]string{sevenths}, 16)...)
	extra := parted.GPUs[:3]
	for i := range extra { // to 128
		g := extra[i]
		g.PCI = fmt.Sprintf("0002:%02x:00.0", i)
		parted.GPUs = append(parted.GPUs, g)
	}
	parted.GPUs[len(parted.GPUs)-1].Instances = extra[0].Instances[:2]
	for _, s := range []*detector.Snapshot{whole, parted} {
		strike(s, 1, lost)
		b.Run(fmt.Sprint(len(Devices(s, newest))), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Slices(Devices(s, newest))
			}
		})
	}
}
