package detector

import (
	"encoding/json"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

func TestHowAGPUIsMadeStandsInTheSnapshotAndStaysWhenItIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 2)
		n.do(t, 0, fake.Reload{Version: "580.65.06"})
		after(11 * time.Second)
		want := Build{
			Brand: "Nvidia", ComputeCapability: "9.0", AddressingMode: "HMM", NUMANode: new(0), PCIeRoot: "pci0000:17",
		}
		is := func(when string) {
			t.Helper()
			if diff := gocmp.Diff(want, n.Snapshot().GPUs[1].Build); diff != "" {
				t.Errorf("%s (-want +got):\n%s", when, diff)
			}
		}
		is("as it is")
		n.facts = nil
		n.do(t, 1, fake.MIG{Enabled: true, Profiles: []string{"3g.40gb", "1g.10gb"}})
		after(11 * time.Second)
		want.MIG, want.Instances = true, n.driver.State().GPUs[1].Instances
		if len(want.Instances) != 2 {
			t.Fatalf("%d MIG devices, want 2", len(want.Instances))
		}
		is("cut")
		if n.facts = slices.DeleteFunc(n.facts, func(fact string) bool { return fact != "1 GPUFound" }); len(n.facts) != 1 {
			t.Errorf("told of the cut %d times", len(n.facts))
		}
		n.do(t, 1, fake.Lost(true))
		after(time.Minute)
		is("lost")
		n.do(t, 1, fake.Missing(true))
		after(time.Minute)
		is("missing")
		n.do(t, 1, fake.Missing(false))
		n.do(t, 1, fake.Lost(false))
		n.do(t, 1, fake.MIG{})
		after(time.Minute)
		want.MIG, want.Instances = false, nil
		is("in one piece again")
	})
}

func TestDescriptionKeepsWhatItDoesNotSay(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a") // by events that tell nothing of it, as old ones do
	found := func(seconds float64, uuid string, fields map[string]string, instances ...nvml.Instance) Build {
		t.Helper()
		e := Event{Source: SourceState, Kind: KindGPUFound, Time: at(seconds), GPU: Device{PCI: gpuA, UUID: uuid}, Fields: fields, Instances: instances}
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var read Event // as from the trail
		if err := json.Unmarshal(line, &read); err != nil {
			t.Fatal(err)
		}
		s.fold(read)
		g, _ := view(s.state).GPU(gpuA)
		return g.Build
	}
	one := nvml.Instance{UUID: "MIG-1", GPUInstance: 9, Profile: "1g.10gb", MemoryBytes: 1 << 33, Start: nvml.Some(0), Size: nvml.Some(1)}
	want := Build{
		Brand: "Tesla", ComputeCapability: "8.0", AddressingMode: "None", NUMANode: new(1), PCIeRoot: "pci0000:64",
		MIG: true, Instances: []nvml.Instance{one},
	}
	full := map[string]string{
		"brand": "Tesla", "computeCapability": "8.0", "addressingMode": "None", "numaNode": "1", "pcieRoot": "pci0000:64", "mig": "true",
	}
	if diff := gocmp.Diff(want, found(2, "GPU-"+gpuA, full, one)); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	if diff := gocmp.Diff(want, found(3, "", map[string]string{"index": "0", "brand": "", "pcieRoot": ""})); diff != "" {
		t.Errorf("not told (-want +got):\n%s", diff)
	}
	want.Instances = nil
	if diff := gocmp.Diff(want, found(4, "GPU-"+gpuA, map[string]string{"mig": "true"})); diff != "" {
		t.Errorf("without MIG devices (-want +got):\n%s", diff)
	}
	if diff := gocmp.Diff(Build{Brand: "Nvidia"}, found(5, "GPU-new", map[string]string{"brand": "Nvidia"})); diff != "" {
		t.Errorf("another GPU (-want +got):\n%s", diff)
	}
}

func TestMIGDeviceIsFitByWhatConcernsIt(t *testing.T) {
	memory := Condition{Reason: UncorrectableMemory, Class: Hardware, Effect: NoSchedule, GPUInstance: new(2)}
	work := Condition{Reason: ApplicationFault, Class: Application, GPUInstance: new(1), ComputeInstance: new(0)}
	warning := Condition{Reason: HardwareWarning, Class: Hardware}
	for _, tt := range []struct {
		fresh      bool
		conditions []Condition
		one, two   Status // of the instances 1/0 and 2/0
	}{
		{true, nil, Healthy, Healthy},
		{false, nil, Unknown, Unknown},
		{true, []Condition{memory, work}, Healthy, Unhealthy},
		{true, []Condition{memory, warning}, Degraded, Unhealthy},
		{false, []Condition{memory, warning}, Unknown, Unhealthy},
	} {
		g := GPUView{Fresh: tt.fresh, Conditions: tt.conditions}
		if one, two := g.InstanceStatus(1, 0), g.InstanceStatus(2, 0); one != tt.one || two != tt.two {
			t.Errorf("%+v: %s and %s, want %s and %s", g, one, two, tt.one, tt.two)
		}
	}
}
