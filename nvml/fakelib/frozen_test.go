package fakelib_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// frozen mounts a filesystem and freezes it, until the test or the function that
// it gives ends that.
func frozen(t *testing.T) (folder string, thaw func()) {
	t.Helper()
	// Requests of linux/fs.h that golang.org/x/sys does not have.
	const requestFreeze, requestThaw = 0xc0045877, 0xc0045878
	folder, image := t.TempDir(), filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, folder}} {
		said, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput()
		switch {
		case err == nil:
		case os.Getenv("GPUVET_REQUIRE") == "all":
			t.Fatalf("%s: %v\n%s", command[0], err, said)
		default:
			t.Skipf("this machine mounts no image: %s: %v\n%s", command[0], err, said)
		}
	}
	root, err := os.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	thawed := false
	thaw = func() {
		if !thawed {
			thawed = true
			if err := unix.IoctlSetInt(int(root.Fd()), requestThaw, 0); err != nil {
				t.Errorf("thaw: %v", err)
			}
		}
	}
	t.Cleanup(func() {
		thaw()
		_ = root.Close()
		if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	if err := os.WriteFile(filepath.Join(folder, "stuck"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetInt(int(root.Fd()), requestFreeze, 0); err != nil {
		t.Fatalf("freeze: %v", err)
	}
	return folder, thaw
}

func TestHangThatCannotBeInterruptedOutlivesSIGKILL(t *testing.T) {
	m := start(t, two)
	folder, thaw := frozen(t)
	p := m.probe(t, "GPUVET_FAKE_NVML_STUCK="+filepath.Join(folder, "stuck"))
	t.Cleanup(thaw) // before the end of the probe is waited for
	p.want("init", "0", "index 0", "0")
	m.apply(t, "gpu: 0, hang: 1h, uninterruptible: true")
	p.begin("temperature")
	state := func() byte {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
		if err != nil {
			return 0
		}
		return stat[bytes.LastIndexByte(stat, ')')+2]
	}
	for deadline := time.Now().Add(10 * time.Second); state() != 'D'; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the probe is in state %c, want D", state())
		}
	}
	if err := p.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if got := state(); got != 'D' {
		t.Errorf("the probe is in state %c after SIGKILL, want D", got)
	}
	thaw()
	for deadline := time.Now().Add(10 * time.Second); state() == 'D'; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the probe is stuck after the thaw")
		}
	}
}
