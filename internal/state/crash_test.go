package state_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gpuvet.dev/internal/state"
)

func TestKilledSaveLeavesTheOldOrTheNewState(t *testing.T) {
	saver := filepath.Join(t.TempDir(), "saver")
	build := exec.Command("go", "build", "-tags", "faultpoints", "-o", saver, "./testdata/saver")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	for _, c := range []struct {
		point   string
		payload string
		from    state.Source
	}{
		{"state-written", "old", state.Current},
		{"state-kept", "old", state.Previous},
		{"state-renamed", "new", state.Current},
	} {
		t.Run(c.point, func(t *testing.T) {
			folder := t.TempDir()
			for _, payload := range []string{"older", "old"} {
				if out, err := exec.Command(saver, folder, payload).CombinedOutput(); err != nil {
					t.Fatalf("save %s: %v\n%s", payload, err, out)
				}
			}
			cmd := exec.Command(saver, folder, "new")
			cmd.Env = append(os.Environ(), "GPUVET_FAULTPOINT="+c.point)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("save new: %v, want it killed\n%s", err, out)
			}

			dir := open(t, folder) // the lock of a killed daemon is free
			wantLoad(t, dir, c.payload, c.from)
			save(t, dir, "next")
			wantLoad(t, dir, "next", state.Current)
		})
	}
}

func TestFullDiskKeepsTheOldState(t *testing.T) {
	folder := tmpfs(t, 0)
	dir := open(t, folder)
	save(t, dir, "old")

	err := dir.Save(make([]byte, 128<<10))
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), filepath.Join(folder, "state.new")) {
		t.Fatalf("Save = %v, want no space left, naming the file", err)
	}
	wantLoad(t, dir, "old", state.Current)

	// What did not fit does not take the space of what would.
	save(t, dir, "small enough")
	wantLoad(t, dir, "small enough", state.Current)
}

// tmpfs mounts a file system of 64 KiB.
func tmpfs(t *testing.T, flags uintptr) string {
	t.Helper()
	folder := t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", flags, "size=64k"); err != nil {
		if os.Getenv("GPUVET_REQUIRE") == "all" {
			t.Fatalf("mount a small file system: %v", err)
		}
		t.Skipf("needs the right to mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", folder, err)
		}
	})
	return folder
}
