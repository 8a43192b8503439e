//go:build cgo

package worker_test

import (
	"errors"
	"slices"
	"testing"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/client"
	"gpuvet.dev/nvml/fake"
	"gpuvet.dev/nvml/nvmltest"
)

// losing is a worker's driver whose machine loses GPUs on demand.
type losing struct {
	nvml.Driver
	machine machine
}

// Lose implements [nvmltest.Loser].
func (l losing) Lose(t *testing.T, pci string) {
	t.Helper()
	l.machine.apply(t, slices.Index(l.machine.addresses, pci), fake.Lost(true))
	eventually(t, "GPU is lost", func() bool {
		_, err := l.Readings(t.Context(), pci)
		return errors.Is(err, nvml.ErrLost)
	})
}

func TestWorkerConforms(t *testing.T) {
	for name, library := range map[string]string{"current library": libraries.current(t), "library of R450": libraries.old(t)} {
		t.Run(name, func(t *testing.T) {
			nvmltest.Run(t, func(t *testing.T) nvml.Driver {
				t.Helper()
				m := runningOver(t, node(t, 4), library, cut(3, "3g.40gb", "1c.2g.20gb", "1g.10gb"))
				return losing{driverOf(t, client.Options{
					Worker: workerPath, Library: func() (string, error) { return library, nil }, Sysfs: m.sysfs, Env: m.env,
				}), m}
			})
		})
	}
}

// driverOf is a client that ends with the test.
func driverOf(t *testing.T, o client.Options) nvml.Driver {
	t.Helper()
	c := client.New(o)
	t.Cleanup(c.Close)
	return c
}

// The environment of whoever starts the daemon must not have the linker look up
// what the driver lacks.
func TestWorkerStartsThoughTheLinkerIsToldToBindAtOnce(t *testing.T) {
	t.Setenv("LD_BIND_NOW", "1")
	m := runningOver(t, node(t, 1), libraries.old(t))
	d := driverOf(t, client.Options{
		Worker: workerPath, Library: func() (string, error) { return libraries.old(t), nil }, Sysfs: m.sysfs, Env: m.env,
	})
	if _, err := d.Inventory(t.Context()); err != nil {
		t.Error(err)
	}
}
