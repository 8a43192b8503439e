//go:build cgo

package worker_test

import (
	"context"
	"os"
	"slices"
	"testing"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/client"
	"gpuvet.dev/nvml/nvmltest"
)

// The real driver of this machine, if it has one. GPUVET_GPU=required makes it
// an error that it has none.
func TestRealGPUConforms(t *testing.T) {
	const control = "/dev/nvidiactl"
	if _, err := os.Stat(control); err != nil {
		if os.Getenv("GPUVET_GPU") == "required" {
			t.Fatalf("needs a GPU: %v", err)
		}
		t.Skipf("needs a GPU: %v", err)
	}
	nvmltest.Run(t, func(t *testing.T) nvml.Driver {
		t.Helper()
		return visible{driverOf(t, client.Options{Worker: workerPath})}
	})
}

// visible leaves out GPUs that this container may not use: the kernel lists them
// to everybody, and the driver does not know them here.
type visible struct{ nvml.Driver }

// Inventory implements [nvml.Driver].
func (v visible) Inventory(ctx context.Context) (nvml.Inventory, error) {
	inventory, err := v.Driver.Inventory(ctx)
	inventory.GPUs = slices.DeleteFunc(inventory.GPUs, func(g nvml.GPU) bool { return g.UUID == "" })
	return inventory, err
}
