package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"gpuvet.dev/detector"
	"gpuvet.dev/detector/kmsg"
)

// parsed is one event of a saved log as `parse -o json` prints it.
type parsed struct {
	Line            int    `json:"line"` // of the first line of the event, from 1
	Kind            string `json:"kind"` // xid, sxid, lost, init, pcie, hang, link, recovery
	Code            int    `json:"code,omitempty"`
	PCI             string `json:"pci,omitempty"`
	GPUInstance     *int   `json:"gpuInstance,omitempty"`
	ComputeInstance *int   `json:"computeInstance,omitempty"`
	PID             *int   `json:"pid,omitempty"`
	Process         string `json:"process,omitempty"`
	Class           string `json:"class"`
	Action          string `json:"action"`
}

func parseCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "parse [FILE|-]",
		Short: "Find the GPU events in a saved kernel log",
		Long: `Find the GPU events in a saved kernel log: dmesg, dmesg -T, syslog, journalctl
or raw /dev/kmsg records. Lines that are no event print nothing. Who wrote a line
is not judged here: the daemon counts only what the kernel itself wrote.`,
		Example: `  dmesg | gpuvet parse
  gpuvet parse -o json /var/log/syslog`,
		Args: arguments(1, "no second file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "table", "json"); err != nil {
				return err
			}
			in, err := openLog(cmd, args)
			if err != nil {
				return err
			}
			defer in.Close()
			return parse(cmd.OutOrStdout(), cmd.ErrOrStderr(), in, format)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table, or json: one object a line")
	return cmd
}

// openLog opens the file that a command was given, or standard input.
func openLog(cmd *cobra.Command, args []string) (io.ReadCloser, error) {
	if len(args) == 0 || args[0] == "-" {
		return uncompressed("standard input", io.NopCloser(cmd.InOrStdin()))
	}
	f, err := os.Open(args[0])
	if err != nil {
		return nil, badInput("%w: expected a saved kernel log, or - for standard input", err)
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		f.Close()
		return nil, badInput("%s: is a folder: expected a saved kernel log", args[0])
	}
	return uncompressed(args[0], f)
}

// compressions are the first bytes of what a log may have been packed with.
var compressions = map[string]string{"gzip": "\x1f\x8b", "xz": "\xfd7zXZ\x00", "zstd": "\x28\xb5\x2f\xfd", "bzip2": "BZh"}

// uncompressed refuses a packed log: no event would be found in it.
func uncompressed(name string, log io.ReadCloser) (io.ReadCloser, error) {
	buffered := bufio.NewReaderSize(log, 64<<10)
	head, _ := buffered.Peek(8)
	for packer, magic := range compressions {
		if bytes.HasPrefix(head, []byte(magic)) {
			log.Close()
			return nil, badInput("%s: is packed with %s: expected text; unpack it and pipe it in", name, packer)
		}
	}
	return struct {
		io.Reader
		io.Closer
	}{buffered, log}, nil
}

func oneOf(flag, value string, expected ...string) error {
	if slices.Contains(expected, value) {
		return nil
	}
	return badInput("%s %q: expected %s", flag, value, oneOfThese(expected))
}

func parse(w, warnings io.Writer, in io.Reader, format string) error {
	policy := detector.DefaultPolicy()
	encoder := json.NewEncoder(w)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	found := 0
	driver := 0 // unknown: where the driver's branch matters, the line's own word decides
	for l, err := range detector.Lines(kmsg.Text(in)) {
		if errors.Is(err, kmsg.ErrLongLine) {
			fmt.Fprintln(warnings, "gpuvet parse:", err)
			continue
		}
		if err != nil {
			return errors.Join(table.Flush(), err)
		}
		found++
		v := policy.Kernel(detector.FromLine(l.Line), driver)
		p := parsed{
			Line: l.Number, Kind: l.Kind.String(), Code: l.Code, PCI: l.PCI, GPUInstance: l.GPUInstance,
			ComputeInstance: l.ComputeInstance, PID: l.PID, Process: l.Process, Class: string(v.Class), Action: string(v.Action),
		}
		if format == "json" {
			if err := encoder.Encode(p); err != nil {
				return err
			}
			continue
		}
		if found == 1 {
			fmt.Fprintln(table, "LINE\tKIND\tCODE\tADDRESS\tCLASS\tACTION\tPROCESS\tTEXT")
		}
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Line, p.Kind, code(p.Code), orDash(instance(p)),
			p.Class, p.Action, orDash(printable(p.Process, 20)), printable(l.Text, 60))
	}
	return table.Flush()
}

func code(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

func instance(p parsed) string {
	s := p.PCI
	if p.GPUInstance != nil {
		s += fmt.Sprintf(" GI %d", *p.GPUInstance)
	}
	if p.ComputeInstance != nil {
		s += fmt.Sprintf(" CI %d", *p.ComputeInstance)
	}
	return s
}

// printable shows text that a tenant may have chosen: control characters must
// not reach a terminal.
func printable(s string, most int) string {
	q := strconv.Quote(s)
	q = q[1 : len(q)-1]
	if runes := []rune(q); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return q
}
