// Package driverroot finds the library of the installed driver,
// libnvidia-ml.so.1, and the root in which that driver lives.
//
// It only looks at files: nothing is loaded, so that the daemon can look too.
// The answer is good until a driver is installed or removed; ask again before
// each worker is started.
//
// Where a driver may be is taken from the sources and documents of those who
// put it there, named beside each entry. What none of them lists is still found
// where the dynamic linker of a root knows it.
package driverroot

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
)

// Name is the name under which a driver installs the library.
const Name = "libnvidia-ml.so.1"

// ErrNotFound means that no driver is installed where it was looked for.
var ErrNotFound = errors.New("no usable " + Name)

// Options say where to look. The zero value looks on this machine, wherever
// drivers are known to be.
type Options struct {
	// Host is where the node's root is seen: "/", which is the default, or the
	// folder at which a container has it mounted.
	Host string
	// Root is the one root to look in, and Library the one file to take: paths on
	// the node, which are found below Host. Empty: look everywhere.
	Root    string
	Library string
}

// Layout is the way in which the driver was installed.
type Layout string

// The layouts, in the order in which they are tried.
const (
	Given           Layout = "as given"
	DriverContainer Layout = "driver container"
	GKE             Layout = "GKE"
	Bottlerocket    Layout = "Bottlerocket"
	Host            Layout = "host"
)

// Found is what was found. Its paths are as this process sees them.
type Found struct {
	Library string // a regular file: all links are followed, as seen from Root
	Root    string // what the driver's absolute paths are relative to
	Layout  Layout
	Others  []string // libraries of further drivers, which were passed over
}

// String tells what was chosen, and from what.
func (f Found) String() string {
	text := fmt.Sprintf("%s (%s)", f.Library, f.Layout)
	if len(f.Others) > 0 {
		text += ", not " + strings.Join(f.Others, ", ")
	}
	return text
}

// roots are the roots in which drivers are installed, the first that has the
// library counts. A driver container comes before the node's own driver, for it
// loads the kernel modules and refuses to where there is another driver; one that
// is not there yet, or not any more, leaves its folder without the library.
var roots = []struct {
	layout Layout
	path   string
}{
	// hostPaths.driverInstallDir of the GPU Operator's chart.
	{DriverContainer, "/run/nvidia/driver"},
	// GoogleCloudPlatform/container-engine-accelerators: nvidia-driver-installer
	// for Container-Optimized OS, and for Ubuntu (NVIDIA/k8s-device-plugin#1371).
	{GKE, "/home/kubernetes/bin/nvidia"},
	{GKE, "/opt/nvidia"},
	// containerDriverRoot in bottlerocket-os/bottlerocket-core-kit#919.
	{Bottlerocket, "/x86_64-bottlerocket-linux-gnu/sys-root"},
	{Bottlerocket, "/aarch64-bottlerocket-linux-gnu/sys-root"},
	{Host, "/"},
}

// folders are where the library is within a root.
var folders = []string{
	"/usr/lib/x86_64-linux-gnu",  // Debian, Ubuntu
	"/usr/lib/aarch64-linux-gnu", // the same on arm64
	"/usr/lib64",                 // RHEL, SUSE, Amazon Linux
	"/usr/lib",                   // Arch, Bottlerocket; NVIDIA's installer on 64-bit only systems
	"/lib/x86_64-linux-gnu",      // the same before /usr was merged
	"/lib/aarch64-linux-gnu",
	"/lib64", // GKE, too
	"/lib",
	"/usr/lib/nvidia/tesla",    // Bottlerocket until 2026, bottlerocket-os/bottlerocket-kernel-kit#473
	"/usr/local/glibc/usr/lib", // Talos: siderolabs/extensions, nvidia-gpu
	"/run/opengl-driver/lib",   // NixOS: hardware.graphics
	"/usr/lib/wsl/lib",         // WSL: the library of the Windows driver
}

// linkerCache is the dynamic linker's list of libraries, within a root.
const linkerCache = "/etc/ld.so.cache"

// Find finds the library. An error wraps [ErrNotFound], and says in which roots
// it was looked for and why what was there would not do.
func Find(o Options) (Found, error) {
	s := search{host: filepath.Clean(cmp.Or(o.Host, "/"))}
	switch {
	case o.Library != "":
		s.take(o.Library)
	case o.Root != "":
		s.lookIn(Given, o.Root)
	default:
		for _, r := range roots {
			s.lookIn(r.layout, r.path)
		}
	}
	if len(s.found) == 0 {
		return Found{}, s.failure()
	}
	first := s.found[0]
	for _, other := range s.found[1:] {
		first.Others = append(first.Others, other.Library)
	}
	return first, nil
}

// search is one look around.
type search struct {
	host  string
	found []Found // at most one per root, and each library once

	roots []string // in which it was looked for
	unfit []string // what would not do, and why
}

func (s *search) failure() error {
	var where, why string
	if len(s.roots) > 0 {
		where = " in " + strings.Join(s.roots, ", ")
	}
	if len(s.unfit) > 0 {
		why = ": " + strings.Join(s.unfit, ", ")
	}
	return fmt.Errorf("%w%s%s", ErrNotFound, where, why)
}

// take takes the one file that is asked for.
func (s *search) take(file string) {
	if !s.try(Given, s.host, file) && len(s.unfit) == 0 {
		s.unfit = append(s.unfit, filepath.Join(s.host, file)+" does not exist")
	}
}

// lookIn looks in a root of the node, and ends with its first library.
func (s *search) lookIn(layout Layout, path string) {
	root, err := securejoin.SecureJoin(s.host, path)
	if err != nil {
		s.unfit = append(s.unfit, fmt.Sprintf("%s %v", filepath.Join(s.host, path), cause(err)))
		return
	}
	if _, err := os.Stat(root); err != nil && layout == Given {
		s.unfit = append(s.unfit, fmt.Sprintf("%s %v", root, cause(err)))
		return
	}
	s.roots = append(s.roots, root)
	for _, folder := range folders {
		if s.try(layout, root, filepath.Join(folder, Name)) {
			return
		}
	}
	for _, file := range cached(root) {
		if s.try(layout, root, file) {
			return
		}
	}
}

// try takes a file of a root, if it is there and can be loaded. Links are
// followed as they are meant in the root: the absolute ones of a driver container
// would otherwise lead to files of the node, or of our own container.
func (s *search) try(layout Layout, root, file string) bool {
	library, err := securejoin.SecureJoin(root, file)
	if err == nil {
		err = usable(library)
	}
	if err != nil {
		if !securejoin.IsNotExist(err) {
			s.unfit = append(s.unfit, fmt.Sprintf("%s %v", filepath.Join(root, file), cause(err)))
		}
		return false
	}
	if !slices.ContainsFunc(s.found, func(f Found) bool { return f.Library == library }) {
		s.found = append(s.found, Found{Library: library, Root: root, Layout: layout})
	}
	return true
}

// machines are those that we are built for.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// usable says why a file is no library for this machine: container runtimes leave
// folders and empty files of that name, and 32-bit libraries lie beside the others
// (kubernetes-sigs/dra-driver-nvidia-gpu#1272).
func usable(file string) error {
	info, err := os.Lstat(file) // before it is opened: it might be a pipe
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("is not a file")
	case info.Size() == 0:
		return errors.New("is empty")
	}
	content, err := os.Open(file)
	if err != nil {
		return err
	}
	defer content.Close()
	magic := make([]byte, len(elf.ELFMAG))
	if _, err := content.ReadAt(magic, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if string(magic) != elf.ELFMAG {
		return errors.New("is no library (not an ELF file)")
	}
	library, err := elf.NewFile(content)
	if err != nil {
		return errors.New("is no library (a damaged ELF file)")
	}
	if want, known := machines[runtime.GOARCH]; known && library.Machine != want {
		return fmt.Errorf("is for %s", library.Machine)
	}
	return nil
}

// cached lists the paths that a root's dynamic linker knows for the library. The
// cache ends in the strings that its entries point at, each with a NUL behind it
// (glibc, sysdeps/generic/dl-cache.h); no other part of it is needed.
func cached(root string) []string {
	file, err := securejoin.SecureJoin(root, linkerCache)
	if err != nil {
		return nil
	}
	if info, err := os.Lstat(file); err != nil || !info.Mode().IsRegular() {
		return nil // a root without a linker; and a pipe would never be read to its end
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var paths []string
	for text := range bytes.SplitSeq(content, []byte{0}) {
		if bytes.HasPrefix(text, []byte("/")) && bytes.HasSuffix(text, []byte("/"+Name)) {
			paths = append(paths, string(text))
		}
	}
	return paths
}

// cause is the error without the path, which is said already.
func cause(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("does not exist")
	}
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("cannot be read (%w)", at.Err)
	}
	return err
}
