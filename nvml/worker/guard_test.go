//go:build cgo

package worker_test

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	binding "github.com/NVIDIA/go-nvml/pkg/nvml"
)

// unguardedLibrary has the test binary call a function that the library may
// lack, without looking for it first.
const unguardedLibrary = "GPUVET_TEST_UNGUARDED_LIBRARY"

func callUnguarded(library string) {
	lib := binding.New(binding.WithLibraryPath(library))
	if code := lib.Init(); code != binding.SUCCESS {
		os.Exit(1)
	}
	device, code := lib.DeviceGetHandleByIndex(0)
	if code != binding.SUCCESS {
		os.Exit(1)
	}
	defer os.Exit(2)
	defer func() { _ = recover() }()
	device.GetTemperatureV().V1()
	os.Exit(0)
}

// This is why every function is looked up: the rest of this package's tests run
// over the same library.
func TestUnguardedCallOfAMissingFunctionEndsTheProcess(t *testing.T) {
	for name, want := range map[string]int{libraries.current(t): 0, libraries.old(t): 127} {
		m := runningOver(t, node(t, 1), name)
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Env = append(append(os.Environ(), m.env...), unguardedLibrary+"="+name)
		out, err := child.CombinedOutput()
		if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
			t.Fatal(err)
		}
		if code := child.ProcessState.ExitCode(); code != want {
			t.Errorf("%s: exit code %d, want %d: %s", name, code, want, out)
		}
	}
}
