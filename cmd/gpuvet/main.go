// Command gpuvet decides, with evidence, whether each GPU of a node is fit, and
// says so to Prometheus, to Kubernetes and to people.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitDone  = 0
	exitError = 1 // failed while running
	exitInput = 2 // bad input; nothing was started
)

// inputError is bad input: what was given, and what was expected.
type inputError struct{ err error }

func (e inputError) Error() string { return e.err.Error() }
func (e inputError) Unwrap() error { return e.err }

func badInput(format string, args ...any) error { return inputError{fmt.Errorf(format, args...)} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// execute runs one command and gives its exit code.
func execute(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	root := rootCommand() //nolint:contextcheck // cobra hands ctx to the command that runs
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	fmt.Fprintln(errs, "gpuvet:", err)
	if _, ok := errors.AsType[inputError](err); ok {
		return exitInput
	}
	return exitError
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "gpuvet",
		Short: "Is this GPU fit to run this workload, and was it fit while the workload ran?",
		Long: `gpuvet runs on every GPU node. It reads the kernel log and NVML, decides with
evidence whether each GPU is fit, exports metrics, and keeps work away from GPUs
that are not.

  gpuvet run                    the daemon
  gpuvet status                 what it thinks of the GPUs of this node
  gpuvet policy show            what it makes of every fault, and why
  gpuvet xid 79                 what an Xid means and what gpuvet does about it
  gpuvet parse /var/log/syslog  the GPU events in a saved kernel log
  gpuvet replay dmesg.txt       what the daemon would have decided
  gpuvet pause --for 10m        let go of the driver, so that a GPU can be reset`,
		Version:           buildVersion(),
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badInput("%q: no such command: expected %s", args[0], commands(cmd))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return badInput("%w; see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(runCommand(), statusCommand(), clearCommand(), ignoreCommand(), unignoreCommand(), pauseCommand(), resumeCommand(), xidCommand(), parseCommand(), replayCommand(), policyCommand(), deviceClassesCommand(), slicesCommand(), versionCommand())
	return root
}

// commands lists the commands, as an error names them.
func commands(root *cobra.Command) string {
	var names []string
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return oneOfThese(names)
}

// oneOfThese is "a, b or c".
func oneOfThese(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// arguments bounds the number of arguments of a command, and names the first one too many.
func arguments(most int, expected string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > most {
			return badInput("%s: %q: expected %s", called(cmd), args[most], expected)
		}
		return nil
	}
}

// between does so on both sides, and tells how many there are.
func between(least, most int, expected string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		n, word := len(args), "arguments"
		if n == 1 {
			word = "argument"
		}
		if n < least || n > most {
			return badInput("%s: %d %s: expected %s", called(cmd), n, word, expected)
		}
		return nil
	}
}

// called is a command as errors name it. They begin with the name of the program.
func called(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}
