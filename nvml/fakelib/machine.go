// Package fakelib shows a scripted driver to other processes, as a driver that
// is loaded on this machine: through a libnvidia-ml.so.1 (package compile makes
// it) and through a tree like /sys.
//
//	driver := fake.New(scenario)
//	machine, err := fakelib.New(dir, driver)
//	go machine.Run(ctx)
//	worker := exec.Command("gpuvet-nvml", "--library", library)
//	worker.Env = append(os.Environ(), machine.Env()...)
//
// The library knows nothing but a page, a file that it maps read-only and that a
// [Machine] writes: what the driver does shows there at once, readings that move
// every 20 ms. Any number of processes may use it, and stay in its hangs when the
// machine is gone.
//
// Two things make the library stricter than the scripted driver. Handles and
// event sets are good for one loading of the driver. And a process keeps the
// library that it has loaded: after a reload with another version it cannot
// begin anew (LIB_RM_VERSION_MISMATCH), while a new process can.
//
// A hang that is scripted as uninterruptible puts the caller into the D state,
// where not even SIGKILL reaches it, if GPUVET_FAKE_NVML_STUCK in its environment
// names a file on a filesystem that is frozen (fsfreeze); otherwise it is like
// any other.
package fakelib

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unsafe"

	"gpuvet.dev/nvml/fake"
)

// interval is the time between two looks at what moves by itself.
const interval = 20 * time.Millisecond

// Machine is a scripted driver, as other processes see it.
type Machine struct {
	driver *fake.Driver
	dir    string
	file   *file
	sysfs  *sysfs

	// Of Run, and of New before it.
	next     page // what the file is to be
	meters   [maxGPUs]meter
	numbered map[string]uint32 // GPUs by address

	shown atomic.Uint64 // states
}

// New puts the page and the tree into a folder, with the driver as it is now.
// The folder is made if need be, and must have held no machine before.
func New(dir string, d *fake.Driver) (*Machine, error) {
	m, err := newMachine(dir, d)
	if err != nil {
		return nil, fmt.Errorf("make a scripted machine in %s: %w", dir, err)
	}
	return m, nil
}

func newMachine(dir string, d *fake.Driver) (*Machine, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	state := d.State()
	if len(state.GPUs) > maxGPUs {
		return nil, fmt.Errorf("%d GPUs: expected %d at most", len(state.GPUs), maxGPUs)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	m := &Machine{driver: d, dir: dir, sysfs: &sysfs{root: filepath.Join(dir, "sys"), retired: filepath.Join(dir, "retired")}, numbered: map[string]uint32{}}
	if m.file, err = createFile(m.pagePath()); err != nil {
		return nil, err
	}
	if err := m.show(state); err != nil {
		return nil, errors.Join(err, m.file.close())
	}
	return m, nil
}

func (m *Machine) pagePath() string { return filepath.Join(m.dir, "page") }

// Env is the environment of a process that loads the library.
func (m *Machine) Env() []string { return []string{"GPUVET_FAKE_NVML=" + m.pagePath()} }

// Sysfs is a folder that stands in for /sys. It has the loaded driver as
// module/nvidia, whose inode number is another one with each loading and never
// comes back. bus/pci/drivers/nvidia has its GPUs, bus/pci/devices all that are
// plugged in.
func (m *Machine) Sysfs() string { return m.sysfs.root }

// Run shows what the driver does until ctx ends. It is called once; the driver
// plays its timeline in [fake.Driver.Run].
func (m *Machine) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := m.driver.Follow(ctx, interval, func(s fake.State) {
		if err := m.show(s); err != nil {
			cancel(fmt.Errorf("show the scripted driver: %w", err))
		}
	}); err != nil {
		return err
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// Close lets go of the page, after Run. The files stay.
func (m *Machine) Close() error { return m.file.close() }

// show makes the page what the state says. A loading of the driver begins for
// others when everything else about it is there; one that ended is over first.
func (m *Machine) show(s fake.State) error {
	load := uint32(0)
	if s.Loaded {
		load = uint32(s.Load)
	}
	if err := m.sysfs.show(s); err != nil {
		return err
	}
	shared := m.file.page
	if load != shared.Load {
		atomic.StoreUint32(&shared.Load, 0)
	}
	for i := range s.GPUs {
		m.numbered[s.GPUs[i].PCI] = uint32(i)
		fillGPU(&m.next.GPU[i], &s.GPUs[i], s)
		m.meters[i].run(&m.next.GPU[i], &s.GPUs[i], s)
		updateGPU(&shared.GPU[i], &m.next.GPU[i])
	}
	fillHeader(&m.next.header, s)
	m.next.Size = uint32(unsafe.Sizeof(m.next))
	m.next.Load, m.next.Head = shared.Load, shared.Head
	changed := update(&shared.header, &m.next.header)
	if load != shared.Load {
		atomic.StoreUint32(&shared.Load, load)
		changed = true
	}
	if m.publish(s.Events) || changed {
		m.file.wake()
	}
	m.shown.Add(1)
	return nil
}

// publish puts events behind those that are there.
func (m *Machine) publish(told []fake.Told) bool {
	shared := m.file.page
	head := shared.Head
	for i := range told {
		e, ok := eventOf(&told[i], m.numbered)
		if !ok {
			continue
		}
		e.Number = head
		update(&shared.Event[head%maxEvents], &e)
		head++
		atomic.StoreUint32(&shared.Head, head)
	}
	return len(told) > 0
}
