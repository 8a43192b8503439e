package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"gpuvet.dev/detector"
	"gpuvet.dev/exporter"
)

func pauseCommand() *cobra.Command {
	var socket string
	var request exporter.PauseRequest
	cmd := &cobra.Command{
		Use:   "pause",
		Short: "Let go of the driver for a while, so that a GPU can be reset",
		Long: `Let go of the driver for a while, so that a GPU can be reset, MIG be changed or
the driver be unloaded. NVML is closed and every GPU is Unknown meanwhile; faults
stand, and the kernel log is read on. New work is not kept away: cordon the node
before, where that matters. The pause ends by itself, by "gpuvet resume" or by a
reboot, and survives a restart of the daemon. Another one replaces it, unless
somebody else has asked for the one that is longer.

The command waits for NVML to be closed, for at most 10 s, and says what holds it
if it is not by then.`,
		Example: `  gpuvet pause --for 10m --reason "reset GPU 3" && nvidia-smi --gpu-reset -i 3
  gpuvet resume`,
		Args: arguments(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := detector.ParsePause(request.For); err != nil {
				return badInput("--for %w", err)
			}
			done, err := command[exporter.PauseAnswer](cmd.Context(), socket, "/api/v1/pause", request)
			if err != nil {
				return err
			}
			w := closeWait{socket: socket, limit: 10 * time.Second, patience: 2 * time.Second, progress: cmd.ErrOrStderr()}
			if err := w.wait(cmd.Context(), done); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s; NVML is closed\n", done.Pause)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&request.For, "for", "10m", "how long, from 1s to 24h")
	f.StringVar(&request.Why, "reason", "", "why, for those who wonder")
	f.StringVar(&request.Author, "author", currentUser(), "who pauses, for the trail")
	socketFlag(cmd, &socket)
	return cmd
}

func resumeCommand() *cobra.Command {
	var socket string
	var request exporter.ResumeRequest
	cmd := &cobra.Command{
		Use:   "resume",
		Short: "End the pause, and look at the GPUs again",
		Args:  arguments(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := command[exporter.ResumeAnswer](cmd.Context(), socket, "/api/v1/resume", request)
			if err != nil {
				return err
			}
			if done.Was == nil {
				fmt.Fprintln(cmd.OutOrStdout(), "there was no pause")
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "resumed; it was %s\n", done.Was)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&request.Author, "author", currentUser(), "who resumes, for the trail")
	socketFlag(cmd, &socket)
	return cmd
}

// closeWait waits until nothing of gpuvet holds the driver.
type closeWait struct {
	socket   string
	limit    time.Duration
	patience time.Duration // for which it waits in silence
	progress io.Writer
}

// closeLook is how often it looks.
const closeLook = 100 * time.Millisecond

func (w closeWait) wait(ctx context.Context, done exporter.PauseAnswer) error {
	began := time.Now()
	state, told := done.NVML, "-"
	for !state.Closed {
		switch waited := time.Since(began); {
		case waited > w.limit:
			return fmt.Errorf("%s, but NVML is not closed yet: %s; it is tried on, see \"gpuvet status\"", done.Pause, holder(state))
		case waited > w.patience && told != state.Held:
			told = state.Held
			fmt.Fprintf(w.progress, "waiting for NVML to be closed: %s\n", holder(state))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(closeLook):
		}
		answer, err := ask(ctx, w.socket, http.MethodGet, "/api/v1/snapshot", nil)
		if err != nil {
			return err
		}
		var report exporter.Report
		switch err := decode(answer, &report); {
		case err != nil:
			return err
		case report.NVML == nil:
			return errors.New("the pause has ended before NVML was closed")
		}
		state = *report.NVML
	}
	return nil
}

func holder(r exporter.NVMLReport) string {
	if r.Held == "" {
		return "nothing is known to hold it"
	}
	return r.Held
}
