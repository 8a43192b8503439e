package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// image is what a reader finds in an archive.
type image struct {
	name   string
	config config
	layer  []entry
}

type entry struct {
	Name    string
	Mode    int64
	Folder  bool
	Content string
}

// open reads an archive as a container runtime does: from the index, by digest.
func open(t *testing.T, path string) image {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	blobs := map[string][]byte{}
	for _, e := range untar(t, content) {
		blobs[e.Name] = []byte(e.Content)
	}
	if got := string(blobs["oci-layout"]); got != `{"imageLayoutVersion":"1.0.0"}` {
		t.Fatalf("oci-layout is %q", got)
	}
	var i index
	decode(t, blobs["index.json"], &i)
	if len(i.Manifests) != 1 {
		t.Fatalf("%d manifests, want 1", len(i.Manifests))
	}
	var m manifest
	decode(t, fetch(t, blobs, i.Manifests[0]), &m)
	var c config
	decode(t, fetch(t, blobs, m.Config), &c)
	if len(m.Layers) != 1 {
		t.Fatalf("%d layers, want 1", len(m.Layers))
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(fetch(t, blobs, m.Layers[0])))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{digest(layer)}, c.RootFS.DiffIDs); diff != "" {
		t.Errorf("diff_ids (-layer +config):\n%s", diff)
	}
	return image{i.Manifests[0].Annotations["io.containerd.image.name"], c, untar(t, layer)}
}

func untar(t *testing.T, content []byte) []entry {
	t.Helper()
	var entries []entry
	r := tar.NewReader(bytes.NewReader(content))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s belongs to %d:%d and is from %v, want root and the start of time", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry{h.Name, h.Mode, h.Typeflag == tar.TypeDir, string(content)})
	}
}

func fetch(t *testing.T, blobs map[string][]byte, d descriptor) []byte {
	t.Helper()
	content := blobs["blobs/"+strings.Replace(d.Digest, ":", "/", 1)]
	if digest(content) != d.Digest || len(content) != d.Size {
		t.Fatalf("blob %s has digest %s and %d bytes, want %d", d.Digest, digest(content), len(content), d.Size)
	}
	return content
}

func decode(t *testing.T, content []byte, into any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(content))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatalf("%v in %s", err, content)
	}
}

// write writes a file into a folder of its own.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImageHoldsWhatWasGiven(t *testing.T) {
	out := filepath.Join(t.TempDir(), "new", "image.tar")
	list := write(t, "files.txt", "# a comment\n\n/usr/share/doc/text 0644 "+write(t, "text", "words")+" # is read\n")
	var progress strings.Builder
	err := run([]string{
		"-o", out, "-ref", "example.org:5000/app:1", "-arch", "arm64", "-entrypoint", "/usr/bin/app run",
		"-cmd", "a b", "-env", "PATH=/usr/bin", "-label", "one=1", "-label", "two=b=c", "-files", list,
		"/usr/bin/app=" + write(t, "app", "program"),
	}, &progress)
	if err != nil {
		t.Fatal(err)
	}
	want := image{
		name: "example.org:5000/app:1",
		layer: []entry{
			{"usr/", 0o755, true, ""},
			{"usr/bin/", 0o755, true, ""},
			{"usr/bin/app", 0o755, false, "program"},
			{"usr/share/", 0o755, true, ""},
			{"usr/share/doc/", 0o755, true, ""},
			{"usr/share/doc/text", 0o644, false, "words"},
		},
	}
	want.config.platform = platform{"arm64", "linux"}
	want.config.Config = execution{
		Env: []string{"PATH=/usr/bin"}, Entrypoint: []string{"/usr/bin/app", "run"}, Cmd: []string{"a", "b"},
		Labels: map[string]string{"one": "1", "two": "b=c"},
	}
	want.config.RootFS.Type = "layers"
	got := open(t, out)
	got.config.RootFS.DiffIDs = nil // open compares them with the layer
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(image{}, config{})); diff != "" {
		t.Errorf("image (-want +got):\n%s", diff)
	}
	if !strings.Contains(progress.String(), "packing 2 files") {
		t.Errorf("progress %q does not say what is packed", progress.String())
	}
	if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("the image's mode is %v (%v), want one that all may read", info.Mode(), err)
	}
}

func TestSameInputGivesTheSameBytes(t *testing.T) {
	a, b := write(t, "a", "first"), write(t, "b", "second")
	var images [2][]byte
	for i, files := range [][]string{{"/a=" + a, "/b=" + b}, {"/b=" + b, "/a=" + a}} {
		out := filepath.Join(t.TempDir(), "image.tar")
		args := append([]string{"-o", out, "-ref", "app:1", "-entrypoint", "/a", "-label", "y=1", "-label", "x=2"}, files...)
		if err := run(args, io.Discard); err != nil {
			t.Fatal(err)
		}
		var err error
		if images[i], err = os.ReadFile(out); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("two images of the same files differ")
	}
}

func TestBadInputIsNamedAndLeavesNoImage(t *testing.T) {
	app := write(t, "app", "program")
	list := func(line string) []string { return []string{"-files", write(t, "files.txt", "\n"+line+"\n")} }
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"no file", nil, "no files"},
		{"no tag", []string{"-ref", "localhost:5000/app", "/app=" + app}, `-ref "localhost:5000/app"`},
		{"architecture", []string{"-arch", "mips", "/app=" + app}, `-arch "mips"`},
		{"nothing to start", []string{"-entrypoint", "", "/app=" + app}, "-entrypoint"},
		{"label", []string{"-label", "text", "/app=" + app}, "expected NAME=VALUE"},
		{"relative path", []string{"app=" + app}, `path "app"`},
		{"path that leaves", []string{"/../app=" + app}, `path "/../app"`},
		{"no source", []string{"/app=" + app + ".gone"}, "no such file"},
		{"twice", []string{"/app=" + app, "/app=" + app}, "/app: there twice"},
		{"no reason", list("/app 0755 " + app), "line 2: expected PATH MODE SOURCE # WHY"},
		{"mode", list("/app 4755 " + app + " # why"), `line 2: mode "4755"`},
		{"no list", []string{"-files", app + ".gone"}, "read list"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "image.tar")
			err := run(append([]string{"-o", out, "-ref", "app:1", "-entrypoint", "/app"}, c.args...), io.Discard)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if left, _ := os.ReadDir(filepath.Dir(out)); len(left) > 0 {
				t.Errorf("it left %v", left)
			}
		})
	}
}

// probe is a program that loads the libraries it is told and says so. That it
// calls printf gives it a versioned need of glibc.
const probe = `
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
	for (int i = 1; i < argc; i++)
		if (!dlopen(argv[i], RTLD_NOW)) {
			printf("%s\n", dlerror());
			return 1;
		}
	printf("loaded %d\n", argc - 1);
	return 0;
}
`

func compile(t *testing.T, code string, flags ...string) string {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		if os.Getenv("GPUVET_REQUIRE") == "all" {
			t.Fatal(err)
		}
		t.Skipf("needs gcc, which GPUVET_REQUIRE=all insists on: %v", err)
	}
	out := filepath.Join(t.TempDir(), "out")
	args := append([]string{"-o", out, write(t, "code.c", code)}, flags...)
	if text, err := exec.CommandContext(t.Context(), "gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
}

func TestImageThatIsNotClosedIsRefused(t *testing.T) {
	program := compile(t, probe, "-ldl")
	p := platforms[runtime.GOARCH]
	loader, libc := p.loader+"="+p.loader, "/lib/libc.so.6=/lib/"+p.triplet+"/libc.so.6"
	// A libc with the right name, of a version that the program is not linked against.
	other := compile(t, "int puts(const char *s) { return 0; }", "-shared", "-nostdlib", "-fPIC")
	foreign := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	for _, c := range []struct {
		name  string
		arch  string
		files []string
		want  string
	}{
		{"no interpreter", runtime.GOARCH, []string{libc}, "its interpreter " + p.loader + " is not in the image"},
		{"no library", runtime.GOARCH, []string{loader}, "its library libc.so.6 is not in the image"},
		{"older library", runtime.GOARCH, []string{loader, "/lib/libc.so.6=" + other}, "of libc.so.6, which the image's does not have"},
		{"other architecture", foreign, []string{loader, libc}, "/app: is for "},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{
				"-o", filepath.Join(t.TempDir(), "image.tar"), "-ref", "app:1", "-entrypoint", "/app", "-arch", c.arch, "/app=" + program,
			}
			err := run(append(args, c.files...), io.Discard)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// The list of the shipped image, with stand-ins for what is built, gives an image
// in which a program of glibc runs and loads what the driver's library needs.
func TestShippedListIsEnoughForTheWorker(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("GPUVET_REQUIRE") == "all" {
			t.Fatal("needs root to change the root of a process")
		}
		t.Skip("needs root, to run the worker with the image as its root; GPUVET_REQUIRE=all insists on it")
	}
	program := compile(t, probe, "-ldl")
	shipped, err := os.ReadFile("files.txt")
	if err != nil {
		t.Fatal(err)
	}
	list := strings.NewReplacer(
		" bin/gpuvet ", " "+program+" ", " bin/gpuvet-nvml ", " "+program+" ",
		" deploy/image/", " ", " LICENSE ", " ../../LICENSE ",
	).Replace(string(shipped))
	out := filepath.Join(t.TempDir(), "image.tar")
	if err := run([]string{"-o", out, "-ref", "app:1", "-entrypoint", "/app", "-files", write(t, "files.txt", list)}, io.Discard); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for _, e := range open(t, out).layer {
		if e.Folder {
			err = os.Mkdir(filepath.Join(root, e.Name), os.FileMode(e.Mode))
		} else {
			err = os.WriteFile(filepath.Join(root, e.Name), []byte(e.Content), os.FileMode(e.Mode))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	worker := exec.CommandContext(t.Context(), "/usr/bin/gpuvet-nvml", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1")
	worker.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	worker.Env, worker.Dir = []string{}, "/"
	text, err := worker.CombinedOutput()
	if want := fmt.Sprintf("loaded %d\n", len(worker.Args)-1); err != nil || string(text) != want {
		t.Errorf("the worker said %q (%v), want %q", text, err, want)
	}
}
