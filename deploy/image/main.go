// Command image packs files into a container image, without a container engine:
//
//	go run ./deploy/image -o out/image.tar -ref example.org/app:1 -entrypoint /app /app=bin/app
//
// What it writes is an OCI image layout 1.0 in a tar archive with one layer, as
// "ctr image import" and "podman load" take it. Files come from arguments
// PATH=SOURCE, with mode 0755, and from a list (-files), see files.txt. The
// same files and flags give the same bytes.
//
// The image has to be closed: what its programs need from shared libraries, down
// to the versions of their symbols, is in it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// options are the flags.
type options struct {
	out, list  string
	ref, arch  string
	entrypoint string // words
	command    string // words
	env        values
	labels     values
}

// values are a flag that may be given again, NAME=VALUE each.
type values []string

func (v *values) String() string { return strings.Join(*v, " ") }

func (v *values) Set(s string) error {
	if !strings.Contains(s, "=") {
		return errors.New("expected NAME=VALUE")
	}
	*v = append(*v, s)
	return nil
}

func main() {
	if err := run(os.Args[1:], os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(os.Stderr, "image: %v\n", err)
		}
		os.Exit(1) //nolint:forbidigo // this is main, in a folder where the rule expects none
	}
}

// run packs an image, and tells progress before what may take seconds.
func run(args []string, progress io.Writer) error {
	var o options
	flags := flag.NewFlagSet("image [flags] [PATH=SOURCE ...]", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.StringVar(&o.out, "o", "", "`file` to write")
	flags.StringVar(&o.ref, "ref", "", "`name` of the image, with a tag: example.org/app:1")
	flags.StringVar(&o.arch, "arch", runtime.GOARCH, "architecture, amd64 or arm64")
	flags.StringVar(&o.entrypoint, "entrypoint", "", "program to start, `words`")
	flags.StringVar(&o.command, "cmd", "", "its arguments where none are given, `words`")
	flags.Var(&o.env, "env", "environment variable, `NAME=VALUE`; may be given again")
	flags.Var(&o.labels, "label", "label, `NAME=VALUE`; may be given again")
	flags.StringVar(&o.list, "files", "", "`list` of files to pack")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	files, err := o.read(flags.Args())
	if err != nil {
		return err
	}
	if err := closed(files, o.arch); err != nil {
		return err
	}

	fmt.Fprintf(progress, "packing %d files into %s\n", len(files), o.out)
	image, err := pack(files, o)
	if err != nil {
		return err
	}
	if err := replace(o.out, image); err != nil {
		return err
	}
	fmt.Fprintf(progress, "%s, %s, is in %s (%.1f MiB)\n", o.ref, o.arch, o.out, float64(len(image))/(1<<20))
	return nil
}

func (o options) check() error {
	switch {
	case o.out == "":
		return errors.New("-o: expected the file to write")
	case platforms[o.arch].triplet == "":
		return fmt.Errorf("-arch %q: expected amd64 or arm64", o.arch)
	case tag(o.ref) == "":
		return fmt.Errorf("-ref %q: expected a name with a tag, such as example.org/app:1", o.ref)
	case o.entrypoint == "":
		return errors.New("-entrypoint: expected the program to start")
	}
	return nil
}

// tag is the tag of an image's name; a port is none.
func tag(ref string) string {
	_, tag, _ := strings.Cut(ref[strings.LastIndex(ref, "/")+1:], ":")
	return tag
}

// replace writes a file as a whole or not at all.
func replace(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".image-")
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.Write(content)
	if err := errors.Join(err, file.Chmod(0o644), file.Close()); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	return nil
}
