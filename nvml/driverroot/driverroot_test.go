package driverroot_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml/driverroot"
)

// node is the root of a node, made of files and links.
type node struct {
	t    *testing.T
	root string
}

func newNode(t *testing.T) node {
	t.Helper()
	return node{t, t.TempDir()}
}

func (n node) at(path string) string { return filepath.Join(n.root, path) }

func (n node) file(path string, content []byte) {
	n.t.Helper()
	n.folder(filepath.Dir(path))
	if err := os.WriteFile(n.at(path), content, 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n node) folder(path string) {
	n.t.Helper()
	if err := os.MkdirAll(n.at(path), 0o755); err != nil {
		n.t.Fatal(err)
	}
}

func (n node) link(path, target string) {
	n.t.Helper()
	n.folder(filepath.Dir(path))
	if err := os.Symlink(target, n.at(path)); err != nil {
		n.t.Fatal(err)
	}
}

// driver installs a library as NVIDIA's installer does: a file with the version
// in its name, and a relative link to it.
func (n node) driver(folder string) {
	n.t.Helper()
	n.file(folder+"/libnvidia-ml.so.570.195.03", library(n.t, ours()))
	n.link(folder+"/libnvidia-ml.so.1", "libnvidia-ml.so.570.195.03")
}

// library is as much of a shared library as one for a machine needs.
func library(t *testing.T, machine elf.Machine) []byte {
	t.Helper()
	header := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_DYN), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Ehsize: 64,
	}
	var content bytes.Buffer
	if err := binary.Write(&content, binary.LittleEndian, header); err != nil {
		t.Fatal(err)
	}
	return content.Bytes()
}

func ours() elf.Machine {
	if runtime.GOARCH == "arm64" {
		return elf.EM_AARCH64
	}
	return elf.EM_X86_64
}

func theirs() elf.Machine {
	if runtime.GOARCH == "arm64" {
		return elf.EM_X86_64
	}
	return elf.EM_AARCH64
}

func (n node) find(o driverroot.Options) driverroot.Found {
	n.t.Helper()
	o.Host = n.root
	found, err := driverroot.Find(o)
	if err != nil {
		n.t.Fatal(err)
	}
	return found
}

func TestDriverIsFoundWhereverItIsInstalled(t *testing.T) {
	for _, c := range []struct {
		name   string
		folder string
		root   string
		layout driverroot.Layout
	}{
		{"Debian", "/usr/lib/x86_64-linux-gnu", "/", driverroot.Host},
		{"Debian on arm64", "/usr/lib/aarch64-linux-gnu", "/", driverroot.Host},
		{"RHEL", "/usr/lib64", "/", driverroot.Host},
		{"Arch", "/usr/lib", "/", driverroot.Host},
		{"not merged", "/lib/x86_64-linux-gnu", "/", driverroot.Host},
		{"Talos", "/usr/local/glibc/usr/lib", "/", driverroot.Host},
		{"WSL", "/usr/lib/wsl/lib", "/", driverroot.Host},
		{"driver container on Ubuntu", "/run/nvidia/driver/usr/lib/x86_64-linux-gnu", "/run/nvidia/driver", driverroot.DriverContainer},
		{"driver container on RHEL", "/run/nvidia/driver/usr/lib64", "/run/nvidia/driver", driverroot.DriverContainer},
		{"GKE with Container-Optimized OS", "/home/kubernetes/bin/nvidia/lib64", "/home/kubernetes/bin/nvidia", driverroot.GKE},
		{"GKE with Ubuntu", "/opt/nvidia/lib64", "/opt/nvidia", driverroot.GKE},
		{"Bottlerocket", "/x86_64-bottlerocket-linux-gnu/sys-root/usr/lib", "/x86_64-bottlerocket-linux-gnu/sys-root", driverroot.Bottlerocket},
		{"older Bottlerocket", "/aarch64-bottlerocket-linux-gnu/sys-root/usr/lib/nvidia/tesla", "/aarch64-bottlerocket-linux-gnu/sys-root", driverroot.Bottlerocket},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			n.driver(c.folder)
			want := driverroot.Found{
				Library: n.at(c.folder + "/libnvidia-ml.so.570.195.03"),
				Root:    n.at(c.root),
				Layout:  c.layout,
			}
			if diff := cmp.Diff(want, n.find(driverroot.Options{})); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNixOSIsFoundThroughItsStore(t *testing.T) {
	n := newNode(t)
	n.file("/nix/store/b-nvidia-x11/lib/libnvidia-ml.so.570.195.03", library(t, ours()))
	n.link("/nix/store/a-graphics-drivers/lib/libnvidia-ml.so.1", "/nix/store/b-nvidia-x11/lib/libnvidia-ml.so.570.195.03")
	n.link("/run/opengl-driver", "/nix/store/a-graphics-drivers")
	if got, want := n.find(driverroot.Options{}).Library, n.at("/nix/store/b-nvidia-x11/lib/libnvidia-ml.so.570.195.03"); got != want {
		t.Errorf("found %s, want %s", got, want)
	}
}

func TestLinksOfADriverContainerStayInIt(t *testing.T) {
	const folder, file = "/usr/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.550.54.15"
	n := newNode(t)
	n.file("/run/nvidia/driver"+file, library(t, ours()))
	n.link("/run/nvidia/driver"+folder+"/libnvidia-ml.so.1", file)
	n.file(file, library(t, ours())) // what the link means to the node
	if got, want := n.find(driverroot.Options{}).Library, n.at("/run/nvidia/driver"+file); got != want {
		t.Errorf("found %s, want %s", got, want)
	}
}

func TestLinkOutOfTheDriverContainerLeadsNowhere(t *testing.T) {
	n := newNode(t)
	n.driver("/usr/lib64")
	n.link("/run/nvidia/driver/usr/lib64/libnvidia-ml.so.1", "../../../../../usr/lib64/libnvidia-ml.so.570.195.03")
	if got := n.find(driverroot.Options{}); got.Layout != driverroot.Host {
		t.Errorf("found %v, want the node's own driver", got)
	}
}

func TestCompleteDriverContainerComesFirst(t *testing.T) {
	n := newNode(t)
	n.driver("/usr/lib/x86_64-linux-gnu")
	n.link("/lib", "usr/lib") // the same file again, which is not told twice
	n.driver("/run/nvidia/driver/usr/lib/x86_64-linux-gnu")
	want := driverroot.Found{
		Library: n.at("/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.570.195.03"),
		Root:    n.at("/run/nvidia/driver"),
		Layout:  driverroot.DriverContainer,
		Others:  []string{n.at("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.570.195.03")},
	}
	got := n.find(driverroot.Options{})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	if text := got.String(); text != want.Library+" (driver container), not "+want.Others[0] {
		t.Errorf("it says %q", text)
	}
}

func TestIncompleteDriverContainerIsPassedOver(t *testing.T) {
	n := newNode(t)
	n.folder("/run/nvidia/driver/usr/lib/x86_64-linux-gnu")
	n.link("/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "libnvidia-ml.so.570.195.03") // not there yet
	n.driver("/usr/lib64")
	want := driverroot.Found{Library: n.at("/usr/lib64/libnvidia-ml.so.570.195.03"), Root: n.root, Layout: driverroot.Host}
	if diff := cmp.Diff(want, n.find(driverroot.Options{})); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
}

func TestWhatCannotBeLoadedIsPassedOver(t *testing.T) {
	n := newNode(t)
	n.folder("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")
	n.file("/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1", nil)
	n.file("/usr/lib64/libnvidia-ml.so.1", library(t, theirs()))
	n.folder("/usr/lib")
	if err := syscall.Mkfifo(n.at("/usr/lib/libnvidia-ml.so.1"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.file("/lib/x86_64-linux-gnu/libnvidia-ml.so.1", []byte("version https://git-lfs.github.com/spec/v1"))
	n.file("/lib/aarch64-linux-gnu/libnvidia-ml.so.1", library(t, ours())[:20])

	_, err := driverroot.Find(driverroot.Options{Host: n.root})
	if !errors.Is(err, driverroot.ErrNotFound) {
		t.Fatalf("error %v, want ErrNotFound", err)
	}
	for _, want := range []string{
		n.at("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1") + " is not a file",
		n.at("/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1") + " is empty",
		n.at("/usr/lib64/libnvidia-ml.so.1") + " is for " + theirs().String(),
		n.at("/usr/lib/libnvidia-ml.so.1") + " is not a file",
		n.at("/lib/x86_64-linux-gnu/libnvidia-ml.so.1") + " is no library (not an ELF file)",
		n.at("/lib/aarch64-linux-gnu/libnvidia-ml.so.1") + " is no library (a damaged ELF file)",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}

	n.driver("/lib64")
	if got, want := n.find(driverroot.Options{}).Library, n.at("/lib64/libnvidia-ml.so.570.195.03"); got != want {
		t.Errorf("found %s, want %s", got, want)
	}
}

func TestNoDriverSaysWhereItWasLookedFor(t *testing.T) {
	n := newNode(t)
	_, err := driverroot.Find(driverroot.Options{Host: n.root})
	if !errors.Is(err, driverroot.ErrNotFound) {
		t.Fatalf("error %v, want ErrNotFound", err)
	}
	for _, root := range []string{n.root, n.at("/run/nvidia/driver"), n.at("/home/kubernetes/bin/nvidia")} {
		if !strings.Contains(err.Error()+",", root+",") {
			t.Errorf("error %q does not tell of %s", err, root)
		}
	}
}

func TestWhatTheLinkerKnowsIsFound(t *testing.T) {
	n := newNode(t)
	n.driver("/opt/gpu/570/lib64")
	n.file("/opt/gpu/32/libnvidia-ml.so.1", library(t, elf.EM_386))
	n.file("/etc/ld.so.cache", []byte("glibc-ld.so.cache1.1\x02\x00\x00\x00"+
		"libm.so.6\x00/lib/x86_64-linux-gnu/libm.so.6\x00"+
		"/gone/libnvidia-ml.so.1\x00/opt/gpu/32/libnvidia-ml.so.1\x00"+
		"/opt/gpu/570/lib64/libnvidia-ml.so.1\x00libz.so\x00"))
	want := driverroot.Found{Library: n.at("/opt/gpu/570/lib64/libnvidia-ml.so.570.195.03"), Root: n.root, Layout: driverroot.Host}
	if diff := cmp.Diff(want, n.find(driverroot.Options{})); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
}

// Nobody writes into it: who reads it waits for ever, and the daemon with him.
func TestPipeInPlaceOfTheLinkersListIsPassedOver(t *testing.T) {
	n := newNode(t)
	n.folder("/etc")
	if err := syscall.Mkfifo(n.at("/etc/ld.so.cache"), 0o600); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := driverroot.Find(driverroot.Options{Host: n.root})
		ended <- err
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, driverroot.ErrNotFound) {
			t.Errorf("error %v, want ErrNotFound", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for somebody to write into the pipe")
	}
}

func TestGivenRootIsTheOnlyOne(t *testing.T) {
	n := newNode(t)
	n.driver("/usr/lib64")
	n.driver("/run/nvidia/driver/usr/lib64")
	n.driver("/srv/driver/usr/lib64")
	n.link("/var/driver", "/srv/driver") // of the node, so not of our own root
	want := driverroot.Found{
		Library: n.at("/srv/driver/usr/lib64/libnvidia-ml.so.570.195.03"),
		Root:    n.at("/srv/driver"),
		Layout:  driverroot.Given,
	}
	if diff := cmp.Diff(want, n.find(driverroot.Options{Root: "/var/driver"})); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}

	if err := os.Remove(n.at("/srv/driver/usr/lib64/libnvidia-ml.so.1")); err != nil {
		t.Fatal(err)
	}
	_, err := driverroot.Find(driverroot.Options{Host: n.root, Root: "/srv/driver"})
	if want := "no usable libnvidia-ml.so.1 in " + n.at("/srv/driver"); !errors.Is(err, driverroot.ErrNotFound) || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	_, err = driverroot.Find(driverroot.Options{Host: n.root, Root: "/srv/gone"})
	if want := "no usable libnvidia-ml.so.1: " + n.at("/srv/gone") + " does not exist"; !errors.Is(err, driverroot.ErrNotFound) || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestGivenLibraryIsTheOnlyOne(t *testing.T) {
	n := newNode(t)
	n.driver("/usr/lib64")
	n.file("/srv/libfake.so", library(t, ours()))
	want := driverroot.Found{Library: n.at("/srv/libfake.so"), Root: n.root, Layout: driverroot.Given}
	if diff := cmp.Diff(want, n.find(driverroot.Options{Library: "/srv/libfake.so"})); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}

	_, err := driverroot.Find(driverroot.Options{Host: n.root, Library: "/srv/gone.so"})
	if want := "no usable libnvidia-ml.so.1: " + n.at("/srv/gone.so") + " does not exist"; !errors.Is(err, driverroot.ErrNotFound) || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
