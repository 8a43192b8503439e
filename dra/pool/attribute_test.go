package pool

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml"
)

// plain is what a device has, by name, as people read it.
func plain(d resourceapi.Device) map[string]any {
	all := map[string]any{}
	for name, a := range d.Attributes {
		switch {
		case a.StringValue != nil:
			all[string(name)] = *a.StringValue
		case a.VersionValue != nil:
			all[string(name)] = "v" + *a.VersionValue
		case a.IntValue != nil:
			all[string(name)] = *a.IntValue
		case a.BoolValue != nil:
			all[string(name)] = *a.BoolValue
		}
	}
	for name, c := range d.Capacity {
		all["capacity "+string(name)] = c.Value.String()
	}
	return all
}

func TestAWholeGPUTellsWhatItIs(t *testing.T) {
	s := node(t, "h100", 8)
	s.GPUs[5].AddressingMode = "HMM" // drivers before 580 do not say
	want := map[string]any{
		"type":                                 "gpu",
		"uuid":                                 s.GPUs[5].UUID,
		"productName":                          "NVIDIA H100 80GB HBM3",
		"brand":                                "Nvidia",
		"architecture":                         "Hopper",
		"cudaComputeCapability":                "v9.0.0",
		"driverVersion":                        "v570.195.3",
		"cudaDriverVersion":                    "v12.8.0",
		"minor":                                int64(5),
		"memoryClass":                          "medium",
		"healthy":                              true,
		"healthState":                          "Healthy",
		"recoveryAction":                       "none",
		"resource.kubernetes.io/pciBusID":      "0000:ab:00.0",
		"resource.kubernetes.io/pcieRoot":      "pci0000:99",
		"resource.kubernetes.io/numaNode":      int64(1),
		"gpu.nvidia.com/type":                  "gpu",
		"gpu.nvidia.com/uuid":                  s.GPUs[5].UUID,
		"gpu.nvidia.com/productName":           "NVIDIA H100 80GB HBM3",
		"gpu.nvidia.com/brand":                 "Nvidia",
		"gpu.nvidia.com/architecture":          "Hopper",
		"gpu.nvidia.com/driverVersion":         "v570.195.3",
		"gpu.nvidia.com/cudaDriverVersion":     "v12.8.0",
		"gpu.nvidia.com/addressingMode":        "HMM",
		"capacity memory":                      "81559Mi",
		"capacity gpu.nvidia.com/memory":       "81559Mi",
		"gpu.nvidia.com/cudaComputeCapability": "v9.0.0",
	}
	if diff := cmp.Diff(want, plain(Devices(s, newest)[5].Published)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAMIGDeviceTellsWhatItIsAndWhoseItIs(t *testing.T) {
	s := cut(t, 1, []string{"3g.40gb", "1g.10gb"})
	d, ok := Find(Devices(s, newest), "gpu-0000-07-00-0-mig-1g-10gb-4-1-0")
	if !ok {
		t.Fatalf("devices: %s", names(Devices(s, newest)))
	}
	instance := s.GPUs[0].Instances[1]
	want := map[string]any{
		"type":                                 "mig",
		"uuid":                                 instance.UUID,
		"parentUUID":                           s.GPUs[0].UUID,
		"profile":                              "1g.10gb",
		"placementStart":                       int64(4),
		"placementSize":                        int64(1),
		"productName":                          "NVIDIA A100-SXM4-80GB",
		"architecture":                         "Ampere",
		"cudaComputeCapability":                "v8.0.0",
		"driverVersion":                        "v570.195.3",
		"cudaDriverVersion":                    "v12.8.0",
		"healthy":                              true,
		"healthState":                          "Healthy",
		"recoveryAction":                       "none",
		"resource.kubernetes.io/pciBusID":      "0000:07:00.0",
		"resource.kubernetes.io/pcieRoot":      "pci0000:06",
		"resource.kubernetes.io/numaNode":      int64(0),
		"gpu.nvidia.com/type":                  "mig",
		"gpu.nvidia.com/uuid":                  instance.UUID,
		"gpu.nvidia.com/parentUUID":            s.GPUs[0].UUID,
		"gpu.nvidia.com/profile":               "1g.10gb",
		"gpu.nvidia.com/productName":           "NVIDIA A100-SXM4-80GB",
		"gpu.nvidia.com/architecture":          "Ampere",
		"gpu.nvidia.com/cudaComputeCapability": "v8.0.0",
		"gpu.nvidia.com/driverVersion":         "v570.195.3",
		"capacity memory":                      plain(d.Published)["capacity memory"],
	}
	if instance.MemoryBytes == 0 {
		t.Fatal("the instance has no memory")
	}
	if diff := cmp.Diff(want, plain(d.Published)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	memory := d.Published.Capacity["memory"].Value
	if memory.Value() != int64(instance.MemoryBytes) {
		t.Errorf("memory %d, want %d", memory.Value(), instance.MemoryBytes)
	}
}

// What nobody knows is left out: an empty text would match a selector, and a zero
// would be a number.
func TestWhatIsUnknownIsLeftOut(t *testing.T) {
	s := node(t, "h100", 1)
	s.Driver = detector.DriverState{Version: "R570-dev", CUDA: ""}
	g := &s.GPUs[0]
	*g = detector.GPUView{PCI: g.PCI, UUID: g.UUID, Status: detector.Unhealthy, Recovery: new(int(nvml.RecoverNodeReboot))}
	want := map[string]any{
		"type": "gpu", "uuid": g.UUID, "resource.kubernetes.io/pciBusID": g.PCI,
		"gpu.nvidia.com/type": "gpu", "gpu.nvidia.com/uuid": g.UUID,
		"healthy": true, "healthState": "Unknown", "recoveryAction": "node-reboot",
	}
	d := Devices(s, newest)[0]
	if diff := cmp.Diff(want, plain(d.Published)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if d.Minor != -1 {
		t.Errorf("minor %d", d.Minor)
	}

	g.Name = strings.Repeat("GPU ", 20)
	if got := plain(Devices(s, newest)[0].Published)["productName"]; got != g.Name[:64] {
		t.Errorf("a long name is %q", got)
	}

	parted := cut(t, 1, []string{"1g.10gb"})
	parted.GPUs[0].Instances[0].Start, parted.GPUs[0].Instances[0].Size = nvml.Maybe[int]{}, nvml.Maybe[int]{}
	have := plain(Devices(parted, newest)[0].Published)
	for _, name := range []string{"placementStart", "placementSize"} {
		if value, ok := have[name]; ok {
			t.Errorf("%s: %v", name, value)
		}
	}
}

func TestMemoryClasses(t *testing.T) {
	const mebibyte = 1 << 20
	for name, c := range map[string]struct {
		bytes uint64
		want  string
	}{
		"unknown":    {0, ""},
		"A10":        {23028 * mebibyte, "small"},
		"RTX 4090":   {24564 * mebibyte, "small"},
		"25 GiB":     {25 * gibibyte, "small"},
		"one more":   {25*gibibyte + 1, "medium"},
		"RTX 5090":   {32607 * mebibyte, "medium"},
		"L40S":       {46068 * mebibyte, "medium"},
		"H100":       {81559 * mebibyte, "medium"},
		"A100 80 GB": {81920 * mebibyte, "medium"},
		"82 GiB":     {82 * gibibyte, "medium"},
		"H100 NVL":   {95830 * mebibyte, "large"},
		"H200":       {143771 * mebibyte, "large"},
		"B200":       {183359 * mebibyte, "large"},
	} {
		if got := memoryClass(c.bytes); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestNVIDIAsWordForAnArchitectureIsUnderItsOwnName(t *testing.T) {
	s := &detector.Snapshot{GPUs: []detector.GPUView{{PCI: "0000:3b:00.0", UUID: "GPU-1", Architecture: "Ada"}}}
	got := Devices(s, LimitsOf(1, 37))[0].Published.Attributes
	if a, b := *got["architecture"].StringValue, *got["gpu.nvidia.com/architecture"].StringValue; a != "Ada" || b != "Ada Lovelace" {
		t.Errorf("%q and %q, want Ada and Ada Lovelace", a, b)
	}
}
