//go:build cgo

// Command gpuvet-nvml asks NVML on behalf of gpuvet, which talks to it over a
// pipe: a driver that hangs or ends its caller then hangs or ends nothing else.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"gpuvet.dev/nvml/worker"
)

// version is set by the linker; a plain `go install` leaves it to the module's.
var version = ""

const help = `gpuvet-nvml asks NVML, the library of the NVIDIA driver, on behalf of gpuvet. It
reads one question a line from its standard input, and writes one answer a line,
both in JSON, until its input ends. gpuvet starts as many as it needs; to talk to
one from a shell, start it and type:

  {"ask":"open"}                             load the library; the first question
  {"ask":"list"}                             the driver and where its GPUs are
  {"ask":"describe","gpu":"0000:3b:00.0"}    what does not change about a GPU
  {"ask":"readings","gpu":"0000:3b:00.0"}    temperature, power, memory, clocks
  {"ask":"health","gpu":"0000:3b:00.0"}      recovery action, memory errors, rows
  {"ask":"watch","gpu":"0000:3b:00.0"}       have its events told
  {"ask":"events"}                           tell them as they come; the last

An answer {} says that it was done, or that nothing happened. An error has a kind:
no-driver, lost, not-found, other, or renewed: the driver was taken away, and
perhaps loaded anew, so start another gpuvet-nvml.

Without a GPU, ask a library that plays a script, while gpuvet plays it (make
fakelib builds the library):

  gpuvet run --fake-nvml FILE --nvml-library LIBRARY --state-dir DIR
  export GPUVET_FAKE_NVML=DIR/script/page
  gpuvet-nvml --library LIBRARY --sysfs DIR/script/sys

Flags:
  --library PATH   the NVML library, or its name for the dynamic loader to find
                   (libnvidia-ml.so.1)
  --sysfs DIR      where the kernel shows its devices (/sys)
  --version        print the version and end
`

func main() {
	// It serves one question at a time and keeps little: room is dearer than time.
	runtime.GOMAXPROCS(2)
	debug.SetGCPercent(25)
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run gives the exit code: 0 done, 1 failed while running, 2 bad input.
func run(args []string, in io.Reader, out, errs io.Writer) int {
	o := worker.Options{Version: buildVersion()}
	flags := flag.NewFlagSet("gpuvet-nvml", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.Library, "library", "libnvidia-ml.so.1", "")
	flags.StringVar(&o.Sysfs, "sysfs", "/sys", "")
	show := flags.Bool("version", false, "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(out, help)
		return 0
	case err != nil:
		fmt.Fprintf(errs, "gpuvet-nvml: %v; see gpuvet-nvml --help\n", err)
		return 2
	case flags.NArg() > 0:
		fmt.Fprintf(errs, "gpuvet-nvml: %q: expected no argument; see gpuvet-nvml --help\n", flags.Arg(0))
		return 2
	case o.Library == "":
		fmt.Fprintln(errs, `gpuvet-nvml: --library "": expected the path or the name of a library`)
		return 2
	case o.Sysfs == "":
		fmt.Fprintln(errs, `gpuvet-nvml: --sysfs "": expected a folder`)
		return 2
	case *show:
		fmt.Fprintf(out, "gpuvet-nvml %s %s %s/%s\n", o.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return 0
	}
	if err := worker.Serve(in, out, o); err != nil {
		fmt.Fprintln(errs, "gpuvet-nvml:", err)
		return 1
	}
	return 0
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
