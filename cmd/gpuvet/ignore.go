package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"gpuvet.dev/detector"
	"gpuvet.dev/exporter"
)

func ignoreCommand() *cobra.Command {
	var socket string
	var request exporter.IgnoreRequest
	cmd := &cobra.Command{
		Use:   "ignore GPU REASON",
		Short: "Let one reason of a GPU have no effect for a while",
		Long: `Let one reason of a GPU have no effect for a while. It is counted and recorded
meanwhile, taints nothing and makes nothing unfit; it counts again when the time is
over, or with "gpuvet unignore". GPU is an index, a PCI address or a UUID. It
survives a restart of the daemon and a reboot, and is recorded in the trail with its
author. To ignore a fault for ever, or one of the node, is for a row of the policy.`,
		Example: `  gpuvet ignore 3 LinkFault --for 24h
  gpuvet unignore 3 LinkFault`,
		Args: between(2, 2, "a GPU and a reason"),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.GPU, request.Reason = args[0], args[1]
			if _, err := detector.ParseIgnore(request.For); err != nil {
				return badInput("--for %w", err)
			}
			done, err := command[exporter.IgnoreAnswer](cmd.Context(), socket, "/api/v1/ignore", request)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", done.PCI, done.Ignored)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&request.For, "for", "24h", "how long, from 1m to 720h")
	f.StringVar(&request.Author, "author", currentUser(), "who wants it so, for the trail")
	socketFlag(cmd, &socket)
	return cmd
}

func unignoreCommand() *cobra.Command {
	var socket string
	var request exporter.UnignoreRequest
	cmd := &cobra.Command{
		Use:   "unignore GPU REASON",
		Short: "Let a reason that is ignored count again",
		Args:  between(2, 2, "a GPU and a reason"),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.GPU, request.Reason = args[0], args[1]
			done, err := command[exporter.UnignoreAnswer](cmd.Context(), socket, "/api/v1/unignore", request)
			if err != nil {
				return err
			}
			if done.Was == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s was not ignored\n", done.PCI, request.Reason)
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s counts again; it was %s\n", done.PCI, request.Reason, done.Was)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&request.Author, "author", currentUser(), "who wants it so, for the trail")
	socketFlag(cmd, &socket)
	return cmd
}
