package main

import (
	"cmp"
	"fmt"
	"io"
	"os/user"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"gpuvet.dev/detector"
	"gpuvet.dev/exporter"
)

func clearCommand() *cobra.Command {
	var socket, author string
	cmd := &cobra.Command{
		Use:   "clear GPU [REASON]",
		Short: "Declare the faults of a GPU over, by hand",
		Long: `Declare the faults of a GPU over, or the one of them that is named. GPU is an
index, a PCI address or a UUID, or "node" for the faults of the node itself. New
evidence raises them again. What a source says is so at present stays until the
source says otherwise: a GPU that NVML says is lost stays lost. One that the driver
does not list any more is forgotten. It is recorded in the trail with its author.

The code is 1 if the fault that is named is not there or stays, and if there were
faults and all of them stay.`,
		Example: `  gpuvet clear 3
  gpuvet clear 0000:5d:00.0 GPULost`,
		Args: between(1, 2, "a GPU, and perhaps a reason"),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := exporter.ClearRequest{GPU: args[0], Author: author}
			if len(args) == 2 {
				request.Reason = args[1]
			}
			done, err := command[exporter.ClearAnswer](cmd.Context(), socket, "/api/v1/clear", request)
			if err != nil {
				return err
			}
			return showCleared(cmd.OutOrStdout(), done, detector.Reason(request.Reason))
		},
	}
	socketFlag(cmd, &socket)
	cmd.Flags().StringVar(&author, "author", currentUser(), "who clears it, for the trail")
	return cmd
}

// showCleared says what came of it, in words and in the error that the code is of.
func showCleared(w io.Writer, done exporter.ClearAnswer, named detector.Reason) error {
	name := cmp.Or(done.PCI, detector.NodeName)
	left := make([]detector.Reason, len(done.Left))
	for i, l := range done.Left {
		left[i] = l.Reason
	}
	place := slices.Index(left, named)
	switch {
	case place >= 0:
		return fmt.Errorf("%s: %s stays: %s", name, named, done.Left[place].Ends)
	case named != "" && !slices.Contains(done.Cleared, named):
		return fmt.Errorf("%s has no %s: it has %s", name, named, list(left))
	case len(done.Cleared) > 0:
		fmt.Fprintf(w, "%s: cleared %s\n", name, list(done.Cleared))
	case len(left) == 0:
		fmt.Fprintf(w, "%s: there was nothing to clear\n", name)
	}
	if done.Forgotten {
		fmt.Fprintf(w, "%s is forgotten: the driver does not list it\n", name)
	}
	if named != "" {
		return nil
	}
	for _, l := range done.Left {
		fmt.Fprintf(w, "%s: %s stays: %s\n", name, l.Reason, l.Ends)
	}
	if len(left) > 0 && len(done.Cleared) == 0 {
		return fmt.Errorf("%s: nothing was cleared", name)
	}
	return nil
}

func list(reasons []detector.Reason) string {
	if len(reasons) == 0 {
		return "none"
	}
	words := make([]string, len(reasons))
	for i, r := range reasons {
		words[i] = string(r)
	}
	return strings.Join(words, ", ")
}

func currentUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}
