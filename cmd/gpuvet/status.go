package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"gpuvet.dev/detector"
	"gpuvet.dev/exporter"
)

func statusCommand() *cobra.Command {
	var socket, format string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the daemon of this node thinks of its GPUs",
		Long: `Show what the daemon of this node thinks of its GPUs, and below them what else
is not as it should be. Times are UTC, as in logs and Events. On a terminal that is
too narrow the faults are cut; -o json and -o yaml have all that is known.`,
		Args: arguments(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("-o", format, "table", "json", "yaml"); err != nil {
				return err
			}
			answer, err := ask(cmd.Context(), socket, http.MethodGet, "/api/v1/snapshot", nil)
			if err != nil {
				return err
			}
			return printStatus(cmd.OutOrStdout(), answer, format)
		},
	}
	socketFlag(cmd, &socket)
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table, json or yaml")
	return cmd
}

func printStatus(w io.Writer, answer []byte, format string) error {
	switch format {
	case "json":
		_, err := w.Write(answer)
		return err
	case "yaml":
		text, err := yaml.JSONToYAML(answer)
		if err != nil {
			return fmt.Errorf("show the daemon's answer as YAML: %w", err)
		}
		_, err = w.Write(text)
		return err
	}
	var report exporter.Report
	if err := decode(answer, &report); err != nil {
		return err
	}
	if err := writeGPUs(w, &report, terminalWidth(w)); err != nil {
		return err
	}
	for _, note := range notes(&report) {
		if _, err := fmt.Fprintln(w, note); err != nil {
			return err
		}
	}
	return nil
}

func xids(counts []detector.XidCount) string {
	var words []string
	for _, x := range counts {
		words = append(words, fmt.Sprintf("%d×%d", x.Code, x.Count))
	}
	return orDash(strings.Join(words, " "))
}

// closing says whether a pause has let go of the driver.
func closing(r *exporter.NVMLReport) string {
	if r == nil || r.Closed {
		return "NVML is closed"
	}
	return "NVML is not closed yet: " + holder(*r)
}

// notes says what is not as it should be.
func notes(r *exporter.Report) []string {
	var all []string
	note := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	s := r.Snapshot
	switch {
	case !s.Ready():
		note("starting: the GPUs were not looked for yet")
	case s.Driver.Missing != "":
		note("driver: %s", s.Driver.Missing)
	case len(s.GPUs) == 0 && s.Pause == nil:
		note("no GPUs on this node")
	}
	if s.Pause != nil {
		note("%s; %s", s.Pause, closing(r.NVML))
	}
	for i := range s.GPUs {
		for _, ignored := range s.GPUs[i].Ignoring() {
			note("%s: %s", s.GPUs[i].PCI, ignored)
		}
		for _, c := range s.GPUs[i].Conditions {
			if stays := exporter.Stays(c); stays != "" {
				note("%s: %s: %s: %s", s.GPUs[i].PCI, c.Reason, stays, exporter.ClearCommand(&s.GPUs[i], c.Reason))
			}
		}
	}
	for _, refused := range s.Requests.Refusals() {
		note("refused: %s", refused)
	}
	for _, c := range s.Node {
		note("node: %s (%s), %s", c.Reason, c.Cause, c.Action)
	}
	if k := r.KernelLog; k != nil && !k.Reading {
		note("kernel log: not read; faults that only the kernel tells are missed")
	}
	if s.Counters.Lost > 0 {
		note("kernel log: %d records were overwritten before they could be read", s.Counters.Lost)
	}
	if k := r.KernelLog; k != nil && k.Spoofed > 0 {
		note("kernel log: %d lines looked like the driver's and were written by a process", k.Spoofed)
	}
	if r.Scripted {
		note("test: the GPUs are scripted, and nobody's hardware")
	}
	if r.AcceptsUserKernelLines {
		note("test: kernel-log lines of any process are believed")
	}
	if k := r.Kept; k != nil && k.SaveError != "" {
		note("state: not saved: %s", k.SaveError)
	}
	if k := r.Kept; k != nil && k.TrailError != "" {
		note("trail: does not take records: %s", k.TrailError)
	}
	if c := r.Configuration; c != nil {
		if c.Error != "" {
			note("configuration: not taken, the one before stays in force: %s", c.Error)
		}
		if len(c.NeedsRestart) > 0 {
			note("configuration: needs a restart: %s", strings.Join(c.NeedsRestart, ", "))
		}
	}
	return append(all, r.Undelivered()...)
}
