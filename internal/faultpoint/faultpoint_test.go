package faultpoint_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestShippedBuildHasNoFaultPoints(t *testing.T) {
	binary := build(t)
	text, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("GPUVET_FAULTPOINT")) {
		t.Error("the binary knows GPUVET_FAULTPOINT")
	}
	if out, err := run(binary, "here"); err != nil || strings.Count(out, "passed") != 3 {
		t.Errorf("with GPUVET_FAULTPOINT=here the program gave %q, %v; want three passes", out, err)
	}
}

func TestTaggedBuildDiesAtTheChosenPoint(t *testing.T) {
	binary := build(t, "-tags", "faultpoints")
	for _, c := range []struct {
		point  string
		passes int
		killed bool
	}{
		{"", 3, false},
		{"elsewhere", 3, false},
		{"here", 0, true},
		{"here:1", 0, true},
		{"here:3", 2, true},
		{"here:4", 3, false},
	} {
		t.Run(c.point, func(t *testing.T) {
			out, err := run(binary, c.point)
			if got := strings.Count(out, "passed"); got != c.passes {
				t.Errorf("passed the point %d times, want %d", got, c.passes)
			}
			if got := killed(err); got != c.killed {
				t.Errorf("killed = %v (%v), want %v", got, err, c.killed)
			}
		})
	}
}

func build(t *testing.T, flags ...string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "hit")
	args := append([]string{"build", "-o", binary}, flags...)
	if out, err := exec.Command("go", append(args, "./testdata/hit")...).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

func run(binary, point string) (string, error) {
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), "GPUVET_FAULTPOINT="+point)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}
