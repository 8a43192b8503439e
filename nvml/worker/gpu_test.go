//go:build cgo

package worker_test

import (
	"os"
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
		return driverOf(t, client.Options{Worker: workerPath})
	})
}
