//go:build cgo

package worker_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
	"gpuvet.dev/nvml/wire"
)

func TestPlaceIsWhereTheKernelHasIt(t *testing.T) {
	s := node(t, 4)
	s.GPUs[0].NUMANode, s.GPUs[0].PCIeRoot = nvml.Maybe[int]{}, "pci0008:00"
	s.GPUs[1].PCIeRoot = ""
	m := running(t, s)
	c := opened(t, m)
	devices := filepath.Join(m.sysfs, "bus/pci/devices")
	// On Hyper-V a device is below a bus that only its virtual machine has.
	virtual := filepath.Join(devices, m.addresses[3])
	if err := os.Remove(virtual); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../devices/LNXSYSTM:00/VMBUS:01/47505500/pci0001:00/"+m.addresses[3], virtual); err != nil {
		t.Fatal(err)
	}
	for i, want := range []nvml.GPU{
		{PCIeRoot: "pci0008:00"},
		{NUMANode: nvml.Some(0)},
		{NUMANode: nvml.Some(0), PCIeRoot: s.GPUs[2].PCIeRoot},
		{},
	} {
		g := c.ask(wire.AskDescribe, m.addresses[i]).GPU
		if diff := cmp.Diff(want, nvml.GPU{NUMANode: g.NUMANode, PCIeRoot: g.PCIeRoot}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", g.PCI, diff)
		}
	}
	without := talk(t, m.env, "--library", libraries.current(t), "--sysfs", t.TempDir())
	without.ask(wire.AskOpen, "")
	if g := without.ask(wire.AskDescribe, m.addresses[2]).GPU; g.NUMANode.OK || g.PCIeRoot != "" || g.UUID != s.GPUs[2].UUID {
		t.Errorf("without sysfs: %+v, want all but the place", g)
	}
}

// What the driver says of how a GPU is made is said in the same words by both
// faces; the words are those of NVIDIA's DRA driver.
func TestBothFacesTellTheSameOfHowAGPUIsMade(t *testing.T) {
	brands := []string{
		"", "Quadro", "Tesla", "NVS", "Grid", "GeForce", "Titan", "NvidiaVApps", "NvidiaVPC", "NvidiaVCS", "NvidiaVWS",
		"NvidiaCloudGaming", "QuadroRTX", "NvidiaRTX", "Nvidia", "GeForceRTX",
	}
	modes := []string{"", "None", "HMM", "ATS"}
	s := node(t, len(brands))
	s.Driver.Version = "580.65.06"
	for i := range s.GPUs {
		s.GPUs[i].Brand, s.GPUs[i].AddressingMode = brands[i], modes[i%len(modes)]
	}
	m := running(t, s)
	c := opened(t, m)
	inventory, err := m.driver.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, pci := range m.addresses {
		g := *c.ask(wire.AskDescribe, pci).GPU
		if diff := cmp.Diff(inventory.GPUs[i], g); diff != "" || g.Brand != brands[i] || g.AddressingMode != modes[i%len(modes)] {
			t.Errorf("%s %s (-driver +worker):\n%s", brands[i], modes[i%len(modes)], diff)
		}
	}
	// Told as a sentinel, what is absent is absent all the same.
	s.Driver.Sentinels = true
	if g := opened(t, running(t, s)).ask(wire.AskDescribe, m.addresses[0]).GPU; g.Brand != "" || g.AddressingMode != "" {
		t.Errorf("with sentinels: %+v", g)
	}
}

func TestGPUThatIsPluggedInAgainIsWhereItWas(t *testing.T) {
	m := running(t, node(t, 2))
	c := opened(t, m)
	place, err := filepath.EvalSymlinks(filepath.Join(m.sysfs, "bus/pci/devices", m.addresses[0]))
	if err != nil {
		t.Fatal(err)
	}
	m.apply(t, 0, fake.Missing(true))
	eventually(t, "GPU is not listed", func() bool { return cmp.Equal(c.ask(wire.AskList, "").List.GPUs, m.addresses[1:]) })
	if _, err := os.Stat(place); !os.IsNotExist(err) {
		t.Errorf("%s: %v, want nothing there", place, err)
	}
	m.apply(t, 0, fake.Missing(false))
	eventually(t, "GPU is listed", func() bool { return cmp.Equal(c.ask(wire.AskList, "").List.GPUs, m.addresses) })
	if diff := cmp.Diff(m.driver.State().GPUs[0].GPU, *c.ask(wire.AskDescribe, m.addresses[0]).GPU); diff != "" {
		t.Errorf("(-driver +worker):\n%s", diff)
	}
}
