package kube

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Requests of linux/fs.h that golang.org/x/sys does not have.
const (
	freeze = 0xc0045877 // FIFREEZE
	thaw   = 0xc0045878 // FITHAW
)

// Filesystem is an ext4 of its own, below the state of this run.
type Filesystem struct {
	Dir string
}

// NewFilesystem makes and mounts a filesystem, which goes with the test. Without
// loop devices the test is skipped, unless GPUVET_REQUIRE=all.
func (c *Cluster) NewFilesystem(t testing.TB) *Filesystem {
	t.Helper()
	dir, err := c.Folder(filepath.Join("filesystem", strings.ReplaceAll(t.Name(), "/", "-")))
	if err != nil {
		t.Fatal(err)
	}
	image := dir + ".ext4"
	err = os.WriteFile(image, nil, 0o600)
	if err == nil {
		err = os.Truncate(image, 16<<20)
	}
	if err != nil {
		t.Fatalf("make image of filesystem: %v", err)
	}
	for _, command := range [][]string{
		{"mkfs.ext4", "-q", image},
		{"mount", "-o", "loop", image, dir}, // the loop device goes with the mount
	} {
		out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput()
		switch {
		case err == nil:
		case os.Getenv("GPUVET_REQUIRE") == "all":
			t.Fatalf("%s: %v\n%s", command[0], err, out)
		default:
			t.Skipf("this machine mounts no image: %s: %v\n%s", command[0], err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount filesystem: %v", err)
		}
	})
	return &Filesystem{Dir: dir}
}

// Freeze lets everybody who writes there wait in the kernel, where no signal
// reaches them, until melt is called: at the end of the test at the latest.
func (f *Filesystem) Freeze(t testing.TB) (melt func()) {
	t.Helper()
	if err := control(f.Dir, freeze); err != nil {
		t.Fatalf("freeze filesystem: %v", err)
	}
	melt = sync.OnceFunc(func() {
		if err := control(f.Dir, thaw); err != nil {
			t.Errorf("thaw filesystem: %v", err)
		}
	})
	t.Cleanup(melt)
	return melt
}

func control(dir string, request uint) error {
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.IoctlSetInt(int(root.Fd()), request, 0), root.Close())
}

// thawAll thaws what a test that did not come to its end has left frozen below
// dir: its namespaces would wait for ever for the processes that are held there.
func thawAll(dir string) {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return
	}
	defer mounts.Close()
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/filesystem/") {
			_ = control(fields[4], thaw) // most are not frozen
		}
	}
}
