package main

import (
	"fmt"
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
source says otherwise: a GPU that NVML says is lost stays lost. It is recorded in
the trail with its author.`,
		Example: `  gpuvet clear 3
  gpuvet clear 0000:5d:00.0 GPULost`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return badInput("%s: %d arguments: expected a GPU, and perhaps a reason", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			request := exporter.ClearRequest{GPU: args[0], Author: author}
			if len(args) == 2 {
				request.Reason = args[1]
			}
			done, err := command[exporter.ClearAnswer](cmd.Context(), socket, "/api/v1/clear", request)
			if err != nil {
				return err
			}
			name := done.PCI
			if name == "" {
				name = "node"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: cleared %s, left %s\n", name, list(done.Cleared), list(done.Left))
			if request.Reason != "" && slices.Contains(done.Left, detector.Reason(request.Reason)) {
				return fmt.Errorf("%s: %s stays, for it is so at present: it ends when its source says otherwise", name, request.Reason)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&socket, "socket", defaultSocket(), "socket of the daemon")
	cmd.Flags().StringVar(&author, "author", currentUser(), "who clears it, for the trail")
	return cmd
}

func list(reasons []detector.Reason) string {
	if len(reasons) == 0 {
		return "nothing"
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
