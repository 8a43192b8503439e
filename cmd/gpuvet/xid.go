package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"gpuvet.dev/detector"
	"gpuvet.dev/detector/xid"
)

func xidCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "xid [CODE]",
		Short: "Explain an Xid: what it means, whose fault it is, what gpuvet does",
		Example: `  gpuvet xid 79
  gpuvet xid        the whole list`,
		Args: arguments(1, "no second Xid"),
		RunE: func(cmd *cobra.Command, args []string) error {
			policy := detector.DefaultPolicy()
			if path != "" {
				c, err := loadConfig(path, true)
				if err != nil {
					return err
				}
				policy = c.policy
			}
			if len(args) == 0 {
				return listXids(cmd.OutOrStdout(), policy)
			}
			code, err := strconv.Atoi(args[0])
			if err != nil || code < 1 {
				return badInput("gpuvet xid: %q: expected a number such as 79", args[0])
			}
			entry, ok := xid.Lookup(code)
			if !ok {
				all := xid.All()
				return badInput("gpuvet xid: %d is in no catalogue known here: expected %d to %d", code, all[0].Code, all[len(all)-1].Code)
			}
			return explainXid(cmd.OutOrStdout(), policy, entry)
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "configuration file whose policy decides, instead of the default")
	return cmd
}

func listXids(w io.Writer, policy *detector.Policy) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "XID\tCLASS\tEFFECT\tACTION\tMEANING")
	for _, e := range xid.All() {
		v := policy.Xids[e.Code]
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\n", e.Code, v.Class, orDash(string(v.Effect)), v.Action, meaning(e))
	}
	return table.Flush()
}

func meaning(e xid.Entry) string {
	if e.Meaning != "" {
		return e.Meaning
	}
	return e.Name
}

func explainXid(w io.Writer, policy *detector.Policy, e xid.Entry) error {
	v := policy.Xids[e.Code]
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(table, "%s\t%s\n", name, value)
		}
	}
	row("Xid", fmt.Sprintf("%d  %s", e.Code, e.Name))
	row("meaning", e.Meaning)
	row("class", string(v.Class))
	row("action", string(v.Action))
	row("gpuvet", does(policy, e.Code, v.Verdict))
	row("decided by", origin(v.Source))
	row("disputed", v.Note)
	row("NVIDIA's catalogue", strings.TrimSpace(e.Bucket+"  "+e.Investigatory))
	row("fatal to", e.FatalTo)
	row("with Xid 154 since", e.Since)
	row("notes", e.Notes)
	row("source", e.Source)
	return table.Flush()
}

// does says in a sentence what the policy makes of a code.
func does(policy *detector.Policy, code int, v detector.Verdict) string {
	switch {
	case policy.Xids[code].Ignore:
		return "counts and records it; the configuration has it ignored"
	case code >= 144 && code <= 150:
		return "decides by the unit, sub-code and status in the line; what asks for a reset fences the GPU as LinkFault until one is seen"
	case code == 154:
		return "takes the recovery action in the line as the driver's word: a reset, reboot or drain fences the GPU until the driver asks for none"
	case code == 45 && v.Reason == detector.ApplicationFault:
		return "puts it down to the fault before it; alone it is the application's and fences nothing"
	case v.Reason == "":
		return "counts and records it; it decides nothing by itself"
	case v.Class == detector.Application && !v.Effect.Fences():
		return "counts and records it and blames the workload; it never fences"
	}
	row := policy.Reasons[v.Reason]
	if !v.Effect.Fences() {
		return fmt.Sprintf("shows the GPU as Degraded (%s) and fences nothing", v.Reason)
	}
	ends := map[detector.Clear]string{
		detector.ClearReset:  "until a boot, a reset or another loading of the driver, after which the GPU is well for " + short(row.Settle),
		detector.ClearBoot:   "until a boot, after which the GPU is well for " + short(row.Settle),
		detector.ClearAnswer: "until it answers again, and is well for " + short(row.Settle),
		detector.ClearHand:   "until a person clears it",
		detector.ClearLevel:  "as long as it is so",
		detector.ClearQuiet:  fmt.Sprintf("until it was quiet for %s", row.Quiet),
	}[row.Clear]
	return fmt.Sprintf("fences the GPU as %s (%s, gpuvet.dev/%s) %s", v.Reason, v.Effect, row.Taint, ends)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
