package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gpuvet.dev/detector"
	"gpuvet.dev/detector/kmsg"
	"gpuvet.dev/internal/trail"
)

// replayed is one transition as `replay -o json` prints it.
type replayed struct {
	Time      time.Time       `json:"time"`
	PCI       string          `json:"pci,omitempty"` // empty: the node
	Condition detector.Reason `json:"condition"`
	Status    detector.Change `json:"status"` // raised, cleared, folded
	Class     detector.Class  `json:"class"`
	Effect    detector.Effect `json:"effect"`
	Cause     string          `json:"cause"`
}

func replayCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "replay FILE|-",
		Short: "Show what the daemon would have decided on a kernel log or a trail",
		Long: `Fold a saved kernel log, or the trail of a daemon (a file or its folder), and
print each change of what people would have seen, with its cause: raised,
cleared by evidence, or folded into the fault that explains it. A log that tells
no wall time counts from 1970, the boot.`,
		Example: `  gpuvet replay dmesg.txt
  gpuvet replay -o json /var/lib/gpuvet/trail`,
		Args: between(1, 1, "one file or folder, or - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "table", "json"); err != nil {
				return err
			}
			events, closing, err := recorded(cmd, args[0])
			if err != nil {
				return err
			}
			defer closing()
			return replay(cmd.OutOrStdout(), cmd.ErrOrStderr(), events, format)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table, or json: one object a line")
	return cmd
}

// recorded gives the events of a kernel log or of a trail, whichever it is.
func recorded(cmd *cobra.Command, path string) (iter.Seq2[detector.Event, error], func(), error) {
	nothing := func() {}
	if info, err := os.Stat(path); path != "-" && err != nil {
		return nil, nil, badInput("%w: expected a saved kernel log, a trail, or - for standard input", err)
	} else if path != "-" && info.IsDir() {
		if segments, _ := filepath.Glob(filepath.Join(path, "*.jsonl")); len(segments) == 0 {
			return nil, nil, badInput("%s: no trail in this folder: expected segments such as 00000001.jsonl", path)
		}
		return trailEvents(path), nothing, nil
	}
	in, err := openLog(cmd, []string{path})
	if err != nil {
		return nil, nil, err
	}
	buffered := bufio.NewReaderSize(in, 64<<10)
	if head, _ := buffered.Peek(64); path != "-" && bytes.HasPrefix(head, []byte(`{"gpuvet-trail":`)) {
		in.Close()
		return trailEvents(path), nothing, nil
	}
	return detector.FromLog(detector.Lines(kmsg.Text(buffered))), func() { in.Close() }, nil
}

func trailEvents(path string) iter.Seq2[detector.Event, error] {
	return func(yield func(detector.Event, error) bool) {
		for record, err := range trail.Scan(path) {
			if err != nil {
				if !yield(detector.Event{}, err) {
					return
				}
				continue
			}
			entry, err := detector.DecodeEntry(record.Data)
			if err == nil && entry.Event == nil {
				continue // a deadline: the fold fires it by itself
			}
			e := detector.Event{}
			if err == nil {
				e = *entry.Event
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func replay(w, warnings io.Writer, events iter.Seq2[detector.Event, error], format string) error {
	encoder := json.NewEncoder(w)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	header := false
	var broken error
	for t, err := range detector.Replay(detector.DefaultPolicy(), events) {
		switch {
		case err == nil:
		case readOn(err):
			fmt.Fprintln(warnings, "gpuvet replay:", err)
			if errors.Is(err, trail.ErrBroken) {
				broken = errors.New("the trail was changed or is incomplete: what is shown may not be what was")
			}
			continue
		case errors.Is(err, trail.ErrNewer):
			return errors.Join(table.Flush(), inputError{err})
		default:
			return errors.Join(table.Flush(), err)
		}
		if format == "json" {
			r := replayed{Time: t.Time, PCI: t.PCI, Condition: t.Condition, Status: t.Status, Class: t.Class, Effect: t.Effect, Cause: t.Cause}
			if err := encoder.Encode(r); err != nil {
				return err
			}
			continue
		}
		if !header {
			header = true
			fmt.Fprintln(table, "TIME\tGPU\tCONDITION\tSTATUS\tCLASS\tEFFECT\tCAUSE")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.Time.Format("2006-01-02 15:04:05.000"), cmp.Or(t.PCI, "node"), t.Condition,
			t.Status, t.Class, orDash(string(t.Effect)), strings.TrimSpace(t.Cause))
	}
	return errors.Join(table.Flush(), broken)
}

// readOn reports whether what follows the fault of a file can be used.
func readOn(err error) bool {
	for _, fault := range []error{kmsg.ErrLongLine, trail.ErrBroken, trail.ErrTorn, trail.ErrRemoved} {
		if errors.Is(err, fault) {
			return true
		}
	}
	return false
}
