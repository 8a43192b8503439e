package detector

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/detector/kmsg"
)

// sysfs is a machine with two GPUs behind one switch, a third one behind a port
// of its own, and a drive beside it. It gives the folder of its devices.
func sysfs(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for path, id := range map[string][2]string{
		"pci0000:00/0000:00:01.0":                                        {"0x8086", "0x060400"},
		"pci0000:00/0000:00:01.0/0000:01:00.0":                           {"0x1000", "0x060400"},
		"pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0":              {"0x1000", "0x060400"},
		"pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0/0000:18:00.0": {"0x10de", "0x030200"},
		"pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0/0000:18:00.1": {"0x10de", "0x040300"},
		"pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:01.0":              {"0x1000", "0x060400"},
		"pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:01.0/0000:2a:00.0": {"0x10de", "0x030200"},
		"pci0000:60/0000:60:01.0":                                        {"0x8086", "0x060400"},
		"pci0000:60/0000:60:01.0/0000:61:00.0":                           {"0x10de", "0x030000"},
		"pci0000:60/0000:60:02.0":                                        {"0x8086", "0x060400"},
		"pci0000:60/0000:60:02.0/0000:62:00.0":                           {"0x144d", "0x010802"},
	} {
		plug(t, root, path, id)
	}
	return filepath.Join(root, "bus")
}

// plug puts a device into the machine.
func plug(t *testing.T, root, path string, id [2]string) {
	t.Helper()
	device, bus := filepath.Join(root, "devices", path), filepath.Join(root, "bus")
	for _, folder := range []string{device, bus} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{"vendor", "class"} {
		if err := os.WriteFile(filepath.Join(device, name), []byte(id[i]+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(device, filepath.Join(bus, filepath.Base(path))); err != nil {
		t.Fatal(err)
	}
}

func newTree(t *testing.T) *PCITree {
	t.Helper()
	tree, err := NewPCITree(sysfs(t))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestGPUsAreFoundBehindEveryBridge(t *testing.T) {
	tree := newTree(t)
	for address, want := range map[string][]string{
		"0000:18:00.0": {"0000:18:00.0"},
		"0000:02:00.0": {"0000:18:00.0"},
		"0000:01:00.0": {"0000:18:00.0", "0000:2a:00.0"},
		"0000:00:01.0": {"0000:18:00.0", "0000:2a:00.0"},
		"0000:60:01.0": {"0000:61:00.0"},
		"0000:18:00.1": nil, // its sound
		"0000:60:02.0": nil,
		"0000:62:00.0": nil,
		"":             nil,
	} {
		if diff := cmp.Diff(want, tree.Behind(address)); diff != "" {
			t.Errorf("behind %s (-want +got):\n%s", address, diff)
		}
	}
}

func TestGPUThatLeftTheBusStaysKnown(t *testing.T) {
	tree := newTree(t)
	if err := os.Remove(filepath.Join(tree.devices, "0000:61:00.0")); err != nil {
		t.Fatal(err)
	}
	plug(t, filepath.Dir(tree.devices), "pci0000:60/0000:60:03.0/0000:63:00.0", [2]string{"0x10de", "0x030200"})
	if err := tree.Refresh(); err != nil {
		t.Fatal(err)
	}
	for _, bridge := range []string{"0000:60:01.0", "0000:60:03.0"} {
		if got := tree.Behind(bridge); len(got) != 1 {
			t.Errorf("behind %s: %v, want one GPU", bridge, got)
		}
	}
}

func TestMachineWithoutPCIIsAnError(t *testing.T) {
	if _, err := NewPCITree(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no error")
	}
}

func TestPCIeErrorFindsTheGPUBehindTheBridge(t *testing.T) {
	tree := newTree(t)
	tests := []struct {
		name, text string
		pci        string
		fields     map[string]string // nil: no event
	}{
		{
			"the GPU itself", "nvidia 0000:18:00.0: AER: can't recover (no error_detected callback)", "0000:18:00.0",
			map[string]string{"text": "AER: can't recover (no error_detected callback)"},
		},
		{
			"its port", "pcieport 0000:60:01.0: pciehp: Slot(5): Link Down", "0000:61:00.0",
			map[string]string{"text": "pciehp: Slot(5): Link Down", "severity": "Fatal", "reporter": "0000:60:01.0"},
		},
		{
			"the port of two", "pcieport 0000:00:01.0: AER: Uncorrectable (Fatal) error message received from 0000:00:01.0", "",
			map[string]string{
				"text": "AER: Uncorrectable (Fatal) error message received from 0000:00:01.0", "severity": "Fatal",
				"reporter": "0000:00:01.0", "gpus": "0000:18:00.0,0000:2a:00.0",
			},
		},
		{"a drive's port", "pcieport 0000:60:02.0: AER: Corrected error message received from 0000:62:00.0", "", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			log := NewKernelLog()
			log.Behind = tree.Behind
			e, ok := log.event([]byte(test.text))
			if ok != (test.fields != nil) {
				t.Fatalf("event %v: %+v", ok, e)
			}
			if !ok {
				return
			}
			if diff := cmp.Diff(test.fields, e.Fields); diff != "" || e.GPU.PCI != test.pci || e.Kind != KindPCIe {
				t.Errorf("%s of %q (-want +got):\n%s", e.Kind, e.GPU.PCI, diff)
			}
			if plain, _ := NewKernelLog().event([]byte(test.text)); plain.Fields["reporter"] != "" || plain.GPU.PCI == "" {
				t.Errorf("without a tree: %+v", plain)
			}
		})
	}
}

func TestErrorOfSeveralGPUsConcernsEachOfThem(t *testing.T) {
	log := NewKernelLog()
	log.Behind = newTree(t).Behind
	rec := kmsg.Record{Text: []byte("pcieport 0000:00:01.0: AER: device recovery failed")}
	for pci, want := range map[string]bool{gpuA: true, "0000:61:00.0": false} {
		log.Has = func(has string) bool { return has == pci }
		if _, ok := log.read(rec); ok != want {
			t.Errorf("machine with %s: event %v", pci, ok)
		}
	}
}

func TestLoadingTellsTheVersionOfTheDriver(t *testing.T) {
	loaded := 0
	log := NewKernelLog()
	log.Loaded = func() { loaded++ }
	for text, want := range map[string]string{
		"NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23 10:11:16 UTC 2025":                                                         "580.95.05",
		"NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.195.03  Release Build  (dvs-builder@U22-I3-H04-03-1)  Sat Sep 20 00:47:16 UTC 2025": "570.195.03",
		"NVRM: loading NVIDIA UNIX something new": "",
	} {
		e, ok := log.event([]byte(text))
		if !ok || e.Kind != KindLoading || e.Fields["version"] != want {
			t.Errorf("%q: %v %+v", text, ok, e)
		}
	}
	if loaded != 3 {
		t.Errorf("told of %d loadings", loaded)
	}
}
