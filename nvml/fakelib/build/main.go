// Command build makes a libnvidia-ml.so.1 that plays a scripted driver.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"gpuvet.dev/nvml/fakelib/compile"
)

const usage = `Make a libnvidia-ml.so.1 that plays a scripted NVIDIA driver, with gcc.

  go run ./nvml/fakelib/build -o out/fakelib/libnvidia-ml.so.1

The library answers out of a page, a file that a Go program writes with package
gpuvet.dev/nvml/fakelib. A process finds it by its environment:

  GPUVET_FAKE_NVML        path of the page; without it no driver is loaded
  GPUVET_FAKE_NVML_STUCK  a file on a frozen filesystem: what a hang that cannot
                          be interrupted writes to

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errInput):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

// errInput: the command line makes no sense; the reader was told why.
var errInput = errors.New("bad input")

func run(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	out := flags.String("o", "out/fakelib/libnvidia-ml.so.1", "write the library to this `file`")
	old := flags.Bool("old", false, "make that of driver R450 (CUDA 11.0), which lacks what came later")
	without := flags.String("without", "", "leave out these `functions`, with commas between them")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return errInput
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "build: %q: expected no arguments, only flags; see -help\n", flags.Arg(0))
		return errInput
	}
	o := compile.Options{Old: *old}
	if *without != "" {
		o.Without = strings.Split(*without, ",")
	}
	if err := os.MkdirAll(filepath.Dir(*out), 0o750); err != nil {
		return err
	}
	return compile.Library(ctx, *out, o)
}
