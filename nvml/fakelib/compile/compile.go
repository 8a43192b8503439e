// Package compile makes a libnvidia-ml.so.1 that plays a scripted driver, with
// gcc, in about a second. What the library answers stands in the page that
// package fakelib writes.
//
// The library is compiled against the nvml.h of go-nvml in the Go module cache
// and exports every function that this header declares, under all of its names;
// those that are not written here answer NVML_ERROR_NOT_SUPPORTED.
package compile

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// header is the module whose nvml.h is compiled against.
const header = "github.com/NVIDIA/go-nvml@v0.13.4-0"

//go:embed src/*.c src/*.h
var sources embed.FS

// r450 are the functions of driver R450, by the nvml.h of CUDA 11.0.
//
//go:embed r450.txt
var r450 string

// ErrNoCompiler says that gcc is not installed.
var ErrNoCompiler = errors.New("no C compiler: expected gcc and the headers of the C library (Debian: gcc, libc6-dev)")

// Options say which library to make. The zero value is the newest driver's.
type Options struct {
	// Old makes the library of driver R450 (CUDA 11.0): it has none of the
	// functions and fields that came later.
	Old bool
	// Without are functions to leave out.
	Without []string
}

// Library compiles the library and writes it to the file out, whose folder must
// be there. A library that a process has open under this name is left to it.
func Library(ctx context.Context, out string, o Options) error {
	if err := library(ctx, out, o); err != nil {
		return fmt.Errorf("compile %s: %w", filepath.Base(out), err)
	}
	return nil
}

func library(ctx context.Context, out string, o Options) error {
	if _, err := exec.LookPath("gcc"); err != nil {
		return ErrNoCompiler
	}
	include, err := Include(ctx)
	if err != nil {
		return err
	}
	declared, err := Declared(include)
	if err != nil {
		return err
	}
	exported, err := export(declared, o)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(out), ".compile-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := write(work, declared, exported); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(work, "*.c"))
	if err != nil {
		return err
	}
	made := filepath.Join(work, "library")
	args := []string{
		"-std=gnu11", "-O2", "-g1", "-fPIC", "-shared", "-pthread", "-Wall", "-Wextra", "-Wno-deprecated-declarations",
		"-isystem", include, "-Wl,-soname,libnvidia-ml.so.1", "-Wl,--version-script=" + filepath.Join(work, "exports"), "-o", made,
	}
	if o.Old {
		args = append(args, "-DOLD_DRIVER")
	}
	said, err := exec.CommandContext(ctx, "gcc", append(args, files...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("gcc: %w\n%s", err, bytes.TrimSpace(said))
	}
	return os.Rename(made, out)
}

// Include is the folder of nvml.h in the module cache. It is downloaded if it
// is not there.
func Include(ctx context.Context) (string, error) {
	said, err := exec.CommandContext(ctx, "go", "mod", "download", "-json", header).Output()
	var module struct{ Dir, Error string }
	if decodeErr := json.Unmarshal(said, &module); err != nil || decodeErr != nil {
		return "", fmt.Errorf("find nvml.h: go mod download %s: %w", header, errors.Join(err, decodeErr, errors.New(module.Error)))
	}
	return filepath.Join(module.Dir, "gen", "nvml"), nil
}

var declaration = regexp.MustCompile(`DECLDIR\s+(nvml\w+)\s*\(`)

// Declared lists the functions that the nvml.h in a folder declares, under all
// of their names.
func Declared(include string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(include, "nvml.h"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, found := range declaration.FindAllSubmatch(text, -1) {
		names = append(names, string(found[1]))
	}
	slices.Sort(names)
	if len(names) == 0 {
		return nil, fmt.Errorf("%s declares no function", filepath.Join(include, "nvml.h"))
	}
	return slices.Compact(names), nil
}

// Sources are the C files of the library.
func Sources() fs.FS {
	below, err := fs.Sub(sources, "src")
	if err != nil {
		panic(err) // it is embedded
	}
	return below
}

// export gives the names that the library is to show.
func export(declared []string, o Options) ([]string, error) {
	names := slices.Clone(declared)
	if o.Old {
		names = strings.Fields(r450)
	}
	for _, name := range o.Without {
		i := slices.Index(names, name)
		if i < 0 {
			return nil, fmt.Errorf("leave out %s: the library has no such function", name)
		}
		names = slices.Delete(names, i, i+1)
	}
	return names, nil
}

// write puts everything that gcc needs into a folder. Functions that are not
// written here are weak, so that those that are take their place.
func write(folder string, declared, exported []string) error {
	if err := os.CopyFS(folder, Sources()); err != nil {
		return err
	}
	var stubs strings.Builder
	stubs.WriteString("int not_written(void);\nstatic int stub(void) { return not_written(); }\n")
	for _, name := range declared {
		fmt.Fprintf(&stubs, "int %s(void) __attribute__((weak, alias(\"stub\")));\n", name)
	}
	script := "{ global: " + strings.Join(exported, "; ") + "; local: *; };\n"
	return errors.Join(
		os.WriteFile(filepath.Join(folder, "stubs.c"), []byte(stubs.String()), 0o600),
		os.WriteFile(filepath.Join(folder, "exports"), []byte(script), 0o600),
	)
}
