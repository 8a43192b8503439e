package cdi_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"gpuvet.dev/dra/cdi"
)

func TestKilledWriteLeavesTheOldSpec(t *testing.T) {
	writer := filepath.Join(t.TempDir(), "writer")
	build := exec.Command("go", "build", "-tags", "faultpoints", "-o", writer, "./testdata/writer")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	dir := t.TempDir()
	s := newSpecs(t, cdi.Options{Mode: cdi.None, Dir: dir})
	ids := write(t, s, claim, []cdi.Device{{Name: "gpu-0000-3b-00-0", UUID: "GPU-old"}})

	for _, c := range []string{claim, another} {
		cmd := exec.Command(writer, dir, c, "GPU-new")
		cmd.Env = append(os.Environ(), "GPUVET_FAULTPOINT=cdi-written")
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("write: %v, want it killed\n%s", err, out)
		}
	}

	if env := environment(t, []string{dir}, ids...); !slices.Contains(env, "GPUVET_GPU_UUIDS=GPU-old") {
		t.Errorf("environment is %q, want that of the old spec", env)
	}
	// What was begun is found by the sweep at the start, and removed with the claim.
	wantClaims(t, s, claim, another)
	if err := s.Remove(another); err != nil {
		t.Fatal(err)
	}
	write(t, s, claim, []cdi.Device{{Name: "gpu-0000-3b-00-0", UUID: "GPU-next"}})
	want(t, dir, "gpu.gpuvet.dev-claim_"+claim+".json")
}
