package fakelib

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"

	"gpuvet.dev/nvml/fake"
)

// sysfs is a folder like /sys, as far as it tells of the driver and its GPUs.
type sysfs struct {
	root    string
	retired string // folders whose inodes are not to be used again

	made    bool
	load    int             // whose module folder is there; 0: none is
	plugged map[string]bool // the GPUs that are there, by address, and whether the driver has them
}

// show does nothing as long as neither the driver nor its GPUs change.
func (f *sysfs) show(s fake.State) error {
	plugged := map[string]bool{}
	for i := range s.GPUs {
		if !s.GPUs[i].Missing {
			plugged[s.GPUs[i].PCI] = !s.GPUs[i].Unbound
		}
	}
	load := 0
	if s.Loaded {
		load = s.Load
	}
	if f.made && load == f.load && maps.Equal(plugged, f.plugged) {
		return nil
	}
	if err := f.unload(load); err != nil {
		return err
	}
	for i := range s.GPUs {
		if err := f.device(&s.GPUs[i]); err != nil {
			return err
		}
	}
	if err := f.drivers(s); err != nil {
		return err
	}
	if load != 0 && load != f.load {
		if err := write(f.module(), map[string]string{"version": s.Driver.Version, "refcnt": "1"}); err != nil {
			return err
		}
	}
	f.made, f.load, f.plugged = true, load, plugged
	return nil
}

func (f *sysfs) module() string { return filepath.Join(f.root, "module", "nvidia") }

// unload takes the driver that is there away, unless it is the one to come. Its
// folder is kept elsewhere: a folder that is removed gives its inode number to
// the next.
func (f *sysfs) unload(next int) error {
	if err := os.MkdirAll(filepath.Join(f.root, "module"), 0o755); err != nil {
		return err
	}
	if f.load == 0 || f.load == next {
		return nil
	}
	if err := os.MkdirAll(f.retired, 0o755); err != nil {
		return err
	}
	return os.Rename(f.module(), filepath.Join(f.retired, strconv.Itoa(f.load)))
}

// device is a GPU as the PCI bus has it, with or without a driver: a folder below
// its root complex, and a link to that. One without a root is below none.
func (f *sysfs) device(g *fake.GPUState) error {
	bus := filepath.Join(f.root, "bus", "pci", "devices")
	link, place := filepath.Join(bus, g.PCI), filepath.Join("devices", g.PCIeRoot, g.PCI)
	if g.Missing {
		return errors.Join(os.RemoveAll(link), os.RemoveAll(filepath.Join(f.root, place)))
	}
	node := -1
	if g.NUMANode.OK {
		node = g.NUMANode.Value
	}
	err := write(filepath.Join(f.root, place), map[string]string{
		"class":     "0x030200",
		"vendor":    fmt.Sprintf("%#04x", g.Model.PCIDevice&0xffff),
		"device":    fmt.Sprintf("%#04x", g.Model.PCIDevice>>16),
		"numa_node": strconv.Itoa(node),
	})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(bus, 0o755); err != nil {
		return err
	}
	err = os.Symlink(filepath.Join("..", "..", "..", place), link)
	if errors.Is(err, fs.ErrExist) {
		return nil // where a GPU is does not change
	}
	return err
}

// drivers is the driver with a link to each of its GPUs.
func (f *sysfs) drivers(s fake.State) error {
	folder := filepath.Join(f.root, "bus", "pci", "drivers", "nvidia")
	if !s.Loaded {
		return os.RemoveAll(folder)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for i := range s.GPUs {
		link := filepath.Join(folder, s.GPUs[i].PCI)
		_, err := os.Lstat(link)
		switch {
		case !bound(&s.GPUs[i]) && err == nil:
			err = os.Remove(link)
		case bound(&s.GPUs[i]) && os.IsNotExist(err):
			err = os.Symlink(filepath.Join("..", "..", "devices", s.GPUs[i].PCI), link)
		case os.IsNotExist(err):
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func bound(g *fake.GPUState) bool { return !g.Missing && !g.Unbound }

// write makes a folder with small files, each a line.
func write(folder string, files map[string]string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content+"\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}
