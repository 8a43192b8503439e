package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml"
)

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Show what gpuvet makes of every fault, or check a configuration file",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badInput("%s: %q: expected %s", called(cmd), args[0], commands(cmd))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(policyShowCommand(), policyCheckCommand())
	return cmd
}

func policyShowCommand() *cobra.Command {
	var path, format string
	var changed bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the policy that a configuration file makes, and where each row comes from",
		Long: `Show one row per reason and per Xid: whose fault it is, what it makes unfit, what
it does to scheduling, how long it is held back or how often it must be told, what
ends it, what to do, and where that comes from. A row that starts with an Xid,
or with an event of the driver, is followed by the reason it stands for; its hold
and its end are those of the reason. The parameters of the policy come after the rows.`,
		Example: `  gpuvet policy show
  gpuvet policy show --changed --config gpuvet.yaml`,
		Args: arguments(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("-o", format, "table", "json", "yaml"); err != nil {
				return err
			}
			c, err := loadConfig(path, cmd.Flags().Changed("config"))
			if err != nil {
				return err
			}
			return showPolicy(cmd.OutOrStdout(), policyDocument{policyLines(c.policy, changed), parameterLines(c.policy, changed)}, format)
		},
	}
	cmd.Flags().StringVar(&path, "config", defaultConfig, "configuration file")
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table, json or yaml")
	cmd.Flags().BoolVar(&changed, "changed", false, "only what differs from the default")
	return cmd
}

func policyCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Check a configuration file, and show what it changes in the default policy",
		Long: `Check a configuration file, all of it, as the daemon would. Code 0: it would be
taken, and what it changes is shown. Code 2: it would not, and all that is wrong
is told.`,
		Args: between(1, 1, "one file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := loadConfig(args[0], true)
			if err != nil {
				return err
			}
			return showChanges(cmd.OutOrStdout(), args[0], c.policy)
		},
	}
}

// unchanged is what people are told of a policy that changes nothing.
const unchanged = "policy: nothing differs from the default"

// policyDocument is what `policy show` shows; json names stay.
type policyDocument struct {
	Rows       []policyLine    `json:"rows"`
	Parameters []parameterLine `json:"parameters"`
}

// policyLine is one row of it.
type policyLine struct {
	Key     string          `json:"key"` // a reason, "Xid 79" or "event unavailable"
	Reason  detector.Reason `json:"reason,omitempty"`
	Xid     int             `json:"xid,omitempty"`
	Event   nvml.EventType  `json:"event,omitempty"` // of the driver
	Class   detector.Class  `json:"class"`
	Scope   detector.Scope  `json:"scope,omitempty"`
	Taint   string          `json:"taint,omitempty"`
	Effect  detector.Effect `json:"effect,omitempty"`
	Hold    string          `json:"hold,omitempty"`
	Repeat  string          `json:"repeat,omitempty"` // 3 within 1h
	Clear   detector.Clear  `json:"clear,omitempty"`
	Quiet   string          `json:"quiet,omitempty"`
	Settle  string          `json:"settle,omitempty"`
	Action  detector.Action `json:"action"`
	Ignored bool            `json:"ignored,omitempty"`
	Changed bool            `json:"changed,omitempty"`
	From    string          `json:"from"`
	Note    string          `json:"note,omitempty"` // who decides otherwise, and why we do so
}

// parameterLine is one value that stands beside the rows, by its key in the file.
type parameterLine struct {
	Key     string `json:"key"`
	Value   any    `json:"value"` // a number, or text
	Changed bool   `json:"changed,omitempty"`
	From    string `json:"from"`
}

// parameterLines are the parameters of a policy, in the order of the documentation.
func parameterLines(p *detector.Policy, changed bool) []parameterLine {
	line := func(key string, value any, set bool) parameterLine {
		if set {
			return parameterLine{Key: key, Value: value, Changed: true, From: p.Parameters.Source + "." + key}
		}
		return parameterLine{Key: key, Value: value, From: "default"}
	}
	offender, suspicion := p.Parameters.RepeatOffender, p.Parameters.Suspicion
	lines := []parameterLine{
		line("repeatOffender.incidents", p.RepeatOffender.Count, offender.Incidents != nil),
		line("repeatOffender.within", short(p.RepeatOffender.Within), offender.Within != nil),
		line("suspicion.tenants", p.Suspicion.Tenants, suspicion.Tenants != nil),
		line("suspicion.within", short(p.Suspicion.Within), suspicion.Within != nil),
		line("suspicion.namespaceLabel", p.Suspicion.NamespaceLabel, suspicion.NamespaceLabel != ""),
	}
	if changed {
		lines = slices.DeleteFunc(lines, func(l parameterLine) bool { return !l.Changed })
	}
	return lines
}

// policyLines are the rows of a policy: reasons by name, Xids, then driver events in
// the order in which they are tried.
func policyLines(p *detector.Policy, changed bool) []policyLine {
	standard := detector.DefaultPolicy()
	lines := []policyLine{}
	for _, reason := range slices.Sorted(maps.Keys(p.Reasons)) {
		line := reasonLine(p.Reasons[reason])
		line.Changed = line.From != origin(standard.Reasons[reason].Source)
		lines = append(lines, line)
	}
	for _, code := range slices.Sorted(maps.Keys(p.Xids)) {
		line := xidLine(p, code)
		line.Changed = line.From != origin(standard.Xids[code].Source)
		lines = append(lines, line)
	}
	for _, row := range p.Events {
		line := eventLine(p, row)
		line.Changed = line.From != origin(row.Source)
		lines = append(lines, line)
	}
	if changed {
		lines = slices.DeleteFunc(lines, func(l policyLine) bool { return !l.Changed })
	}
	return lines
}

func reasonLine(r detector.Row) policyLine {
	line := policyLine{
		Key: string(r.Reason), Reason: r.Reason, Class: r.Class, Scope: r.Scope, Taint: string(r.Taint), Effect: r.Effect,
		Clear: r.Clear, Action: r.Action, Ignored: r.Ignore, From: origin(r.Source),
	}
	if r.Hold > 0 {
		line.Hold = short(r.Hold)
	}
	if r.Repeat.Count > 0 {
		line.Repeat = fmt.Sprintf("%d within %s", r.Repeat.Count, short(r.Repeat.Within))
	}
	if r.Quiet > 0 {
		line.Quiet = short(r.Quiet)
	}
	if r.Settle > 0 {
		line.Settle = short(r.Settle)
	}
	return line
}

func xidLine(p *detector.Policy, code int) policyLine {
	x := p.Xids[code]
	line := policyLine{Class: x.Class, Action: x.Action}
	if row, ok := p.Reasons[x.Reason]; ok {
		line = reasonLine(row)
	}
	line.Key, line.Xid, line.From, line.Note = fmt.Sprintf("Xid %d", code), code, origin(x.Source), x.Note
	line.Class, line.Effect, line.Action, line.Ignored = x.Class, x.Effect, x.Action, x.Ignore
	return line
}

// eventLine is the row of a driver event: what the Xid says that it stands for, or
// the row of its reason.
func eventLine(p *detector.Policy, row detector.EventRow) policyLine {
	decides, ignored := p.Reasons[row.Reason].Source, p.Reasons[row.Reason].Ignore
	if row.Xid != 0 {
		decides, ignored = p.Xids[row.Xid].Source, p.Xids[row.Xid].Ignore
	}
	is := p.InForce(row)
	line := policyLine{}
	if reason, ok := p.Reasons[is.Reason]; ok {
		line = reasonLine(reason)
	}
	line.Key, line.Event, line.From = row.Key(), row.Type, origin(row.Source)
	if origin(decides) == decides {
		line.From = decides // a file
	}
	line.Class, line.Effect, line.Action, line.Ignored = is.Class, is.Effect, is.Action, ignored
	return line
}

// origin tells a row of the product's from one of a file.
func origin(source string) string {
	if strings.HasPrefix(source, "file: ") {
		return source
	}
	return "default: " + source
}

// short is a duration without the units that are zero.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func showPolicy(w io.Writer, d policyDocument, format string) error {
	switch format {
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(d)
	case "yaml":
		text, err := yaml.Marshal(d)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	if len(d.Rows) == 0 && len(d.Parameters) == 0 {
		_, err := fmt.Fprintln(w, unchanged)
		return err
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	above := "" // what keeps one table from the next
	head := func(columns string) {
		fmt.Fprintln(table, above+columns)
		above = "\n"
	}
	for i, l := range d.Rows {
		// Events have a table of their own: its columns have other widths.
		if i == 0 || (l.Event != "") != (d.Rows[i-1].Event != "") {
			head("KEY\tCLASS\tSCOPE\tEFFECT\tHOLD\tCLEAR\tACTION\tFROM")
		}
		key, ends, effect := l.Key, string(l.Clear), string(l.Effect)
		if (l.Xid != 0 || l.Event != "") && l.Reason != "" {
			key += " " + string(l.Reason)
		}
		if span := cmp.Or(l.Quiet, l.Settle); span != "" {
			ends += " " + span
		}
		if l.Ignored {
			effect = "ignored"
		}
		fmt.Fprintln(table, strings.Join([]string{
			key, string(l.Class), orDash(string(l.Scope)), orDash(effect), orDash(cmp.Or(l.Hold, l.Repeat)), orDash(ends), string(l.Action), l.From,
		}, "\t"))
	}
	if len(d.Parameters) > 0 {
		head("PARAMETER\tVALUE\tFROM")
	}
	for _, l := range d.Parameters {
		fmt.Fprintf(table, "%s\t%s\t%s\n", l.Key, orDash(fmt.Sprint(l.Value)), l.From)
	}
	return table.Flush()
}

// showChanges tells what a file changes, one line per row and parameter.
func showChanges(w io.Writer, path string, p *detector.Policy) error {
	fmt.Fprintf(w, "%s: good\n", path)
	lines, parameters := policyLines(p, true), parameterLines(p, true)
	if len(lines) == 0 && len(parameters) == 0 {
		fmt.Fprintln(w, unchanged)
		return nil
	}
	before := map[string]policyLine{}
	for _, l := range policyLines(detector.DefaultPolicy(), false) {
		before[l.Key] = l
	}
	unlisted := policyLine{Class: detector.Information, Action: detector.ActWatch}
	// The codes that a reason's row reaches stand beside it.
	reached := map[string][]string{}
	for _, l := range lines {
		if l.Xid != 0 {
			reached[l.From] = append(reached[l.From], strconv.Itoa(l.Xid))
		}
	}
	told := map[string]bool{}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, l := range lines {
		if told[l.From] {
			continue
		}
		told[l.From] = true
		was, ok := before[l.Key]
		if !ok {
			was = unlisted
		}
		what := differences(was, l)
		if codes := reached[l.From]; l.Xid == 0 && len(codes) > 0 {
			what += "; Xids " + strings.Join(codes, ", ")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", l.Key, what, strings.TrimPrefix(l.From, "file: "+path+" "))
	}
	for i, was := range parameterLines(detector.DefaultPolicy(), false) {
		is := parameterLines(p, false)[i]
		if !is.Changed {
			continue
		}
		what := "as by default"
		if was.Value != is.Value {
			what = fmt.Sprintf("%s → %s", cmp.Or(fmt.Sprint(was.Value), "none"), cmp.Or(fmt.Sprint(is.Value), "none"))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", is.Key, what, strings.TrimPrefix(is.From, "file: "+path+" "))
	}
	return table.Flush()
}

// differences are the columns in which two rows differ.
func differences(was, is policyLine) string {
	if is.Ignored {
		return "ignored"
	}
	var all []string
	for _, column := range []struct{ name, was, is string }{
		{"reason", string(was.Reason), string(is.Reason)},
		{"class", string(was.Class), string(is.Class)},
		{"effect", string(was.Effect), string(is.Effect)},
		{"hold", was.Hold, is.Hold},
		{"repeat", was.Repeat, is.Repeat},
		{"clear", string(was.Clear), string(is.Clear)},
		{"quiet", was.Quiet, is.Quiet},
		{"settle", was.Settle, is.Settle},
		{"action", string(was.Action), string(is.Action)},
	} {
		if column.was != column.is {
			all = append(all, fmt.Sprintf("%s %s → %s", column.name, cmp.Or(column.was, "none"), cmp.Or(column.is, "none")))
		}
	}
	if len(all) == 0 {
		return "as by default"
	}
	return strings.Join(all, ", ")
}
