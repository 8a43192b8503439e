// Command gpuvet decides, with evidence, whether each GPU of a node is fit, and
// says so to Prometheus, to Kubernetes and to people.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
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
	os.Exit(execute(ctx, os.Args[1:]))
}

func execute(ctx context.Context, args []string) int {
	root := rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	fmt.Fprintln(root.ErrOrStderr(), "gpuvet:", err)
	var input inputError
	if errors.As(err, &input) {
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
  gpuvet xid 79                 what an Xid means and what gpuvet does about it
  gpuvet parse /var/log/syslog  the GPU events in a saved kernel log
  gpuvet replay dmesg.txt       what the daemon would have decided`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badInput("%q is not a command; expected one of those in gpuvet --help", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return badInput("%w; see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(runCommand(), statusCommand(), clearCommand(), xidCommand(), parseCommand(), replayCommand(), versionCommand())
	return root
}

// arguments checks the number of arguments of a command.
func arguments(most int, expected string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > most {
			return badInput("%s takes %s, got %d arguments", cmd.CommandPath(), expected, len(args))
		}
		return nil
	}
}
