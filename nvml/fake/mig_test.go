package fake_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

// devices writes each as profile@start+size, with its GPU instance and compute
// instance.
func devices(instances []nvml.Instance) string {
	var all []string
	for _, i := range instances {
		all = append(all, fmt.Sprintf("%s@%d+%d=%d/%d", i.Profile, i.Start.Value, i.Size.Value, i.GPUInstance, i.ComputeInstance))
	}
	return strings.Join(all, " ")
}

func TestMIGDevicesAreAtPlacesThatTheGPUHas(t *testing.T) {
	for _, test := range []struct{ profiles, want string }{
		{"", ""},
		{"7g.80gb", "7g.80gb@0+8=0/0"},
		{"3g.40gb 3g.40gb", "3g.40gb@0+4=1/0 3g.40gb@4+4=2/0"},
		{"4g.40gb 3g.40gb", "4g.40gb@0+4=1/0 3g.40gb@4+4=2/0"},
		{"3g.40gb 4g.40gb", "4g.40gb@0+4=1/0 3g.40gb@4+4=2/0"}, // a half leaves the only place of 4g to it
		{"1g.10gb 2g.20gb 1g.10gb", "2g.20gb@2+2=4/0 1g.10gb@0+1=7/0 1g.10gb@1+1=8/0"},
		{"1g.20gb 1g.20gb 1g.20gb 1g.20gb", "1g.20gb@0+2=3/0 1g.20gb@2+2=4/0 1g.20gb@4+2=5/0 1g.20gb@6+2=6/0"},
		{"1c.3g.40gb 2c.3g.40gb 1c.3g.40gb", "1c.3g.40gb@0+4=1/0 2c.3g.40gb@0+4=1/1 1c.3g.40gb@4+4=2/0"},
		{"1g.10gb+me 1g.10gb 1g.10gb 1g.10gb 1g.10gb 1g.10gb 1g.10gb", "1g.10gb+me@0+1=7/0 1g.10gb@1+1=8/0 1g.10gb@2+1=9/0 1g.10gb@3+1=10/0 1g.10gb@4+1=11/0 1g.10gb@5+1=12/0 1g.10gb@6+1=13/0"},
	} {
		instances, err := node(t, "h100", 1).GPUs[0].Cut(strings.Fields(test.profiles)...)
		if err != nil {
			t.Errorf("%s: %v", test.profiles, err)
			continue
		}
		if got := devices(instances); got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.profiles, got, test.want)
		}
	}
}

func TestMIGDevicesThatDoNotFitAreRefused(t *testing.T) {
	for profiles, want := range map[string]string{
		"7g.80gb 1g.10gb":             "1g.10gb does not fit beside 7g.80gb",
		"4g.40gb 4g.40gb":             "4g.40gb does not fit beside 4g.40gb",
		"3g.40gb 3g.40gb 1g.10gb":     "1g.10gb does not fit beside 3g.40gb, 3g.40gb",
		"1g.10gb+me 1g.10gb+me":       "1g.10gb+me does not fit beside 1g.10gb+me",
		strings.Repeat("1g.10gb ", 8): "1g.10gb does not fit beside 1g.10gb, 1g.10gb, 1g.10gb, 1g.10gb, 1g.10gb, 1g.10gb, 1g.10gb",
	} {
		if _, err := node(t, "h100", 1).GPUs[0].Cut(strings.Fields(profiles)...); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", profiles, err, want)
		}
	}
}

func TestMIGDeviceKeepsItsUUIDWhereItIsCutTheSame(t *testing.T) {
	gpus := node(t, "a100", 2).GPUs
	cut := func(g fake.GPU, profiles ...string) []nvml.Instance {
		instances, err := g.Cut(profiles...)
		if err != nil {
			t.Fatal(err)
		}
		return instances
	}
	first, again := cut(gpus[0], "3g.40gb", "3g.40gb"), cut(gpus[0], "3g.40gb", "2g.20gb")
	if first[0].UUID != again[0].UUID {
		t.Error("the first half has another UUID beside another neighbour")
	}
	if first[0].UUID == first[1].UUID || first[0].UUID == cut(gpus[1], "3g.40gb")[0].UUID {
		t.Error("two MIG devices have one UUID")
	}
	if first[0].MemoryBytes != 40192<<20 {
		t.Errorf("%d bytes, want 40192 MiB", first[0].MemoryBytes)
	}
}

func TestMIGStepShowsInTheInventoryAndAsAnEvent(t *testing.T) {
	s, err := fake.Decode("node.yaml", []byte(`gpus: [{profile: h100, mig: [3g.40gb]}, {profile: h100}]`))
	if err != nil {
		t.Fatal(err)
	}
	d := fake.New(s)
	gpus := func() []nvml.GPU {
		inventory, err := d.Inventory(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return inventory.GPUs
	}
	before := gpus()
	if got := devices(before[0].Instances); got != "3g.40gb@0+4=1/0" || before[0].MIG != nvml.Some(true) || before[1].MIG != nvml.Some(false) {
		t.Errorf("at the start: %s, MIG %+v and %+v", got, before[0].MIG, before[1].MIG)
	}
	var told []nvml.Event
	if err := d.Apply(fake.Step{GPU: 0, Do: fake.MIG{Enabled: true, Profiles: []string{"1g.10gb", "8g"}}}); err == nil {
		t.Error("a profile that does not exist: no error")
	}
	followEvents(t, d, &told, fake.MIG{Enabled: true, Profiles: []string{"7g.80gb"}}, fake.Reload{})
	if got := devices(gpus()[0].Instances); got != "7g.80gb@0+8=0/0" {
		t.Errorf("after the step and a reload: %s", got)
	}
	if len(told) != 1 || told[0].Type != nvml.EventMIGConfiguration {
		t.Errorf("told %+v, want one event", told)
	}
	if r := readings(t, d, before[0].PCI); r.Utilization.OK || r.MemoryUtilization.OK || !r.Temperature.OK {
		t.Errorf("utilization of a GPU in MIG mode: %+v", r.Utilization)
	}
	if diff := cmp.Diff(before[1], gpus()[1]); diff != "" {
		t.Errorf("the other GPU (-before +after):\n%s", diff)
	}
	apply(t, d, 0, fake.MIG{})
	if g := gpus()[0]; g.MIG != nvml.Some(false) || len(g.Instances) != 0 {
		t.Errorf("MIG disabled: %+v", g)
	}
}
