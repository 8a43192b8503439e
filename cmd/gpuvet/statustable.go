package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"gpuvet.dev/detector"
	"gpuvet.dev/exporter"
	"gpuvet.dev/nvml"
)

// terminalWidth is that of the terminal that w is; 0: it is none.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

// statusRow is one GPU in the table, or one of its MIG devices.
type statusRow struct {
	before []string // the columns before why
	why    []string // each fault; none: it is well
	after  []string
}

const (
	statusBefore = "GPU\tADDRESS\tSTATUS\t"
	statusAfter  = "\tSINCE\tDO\tXIDS\tNAME\tUUID"
	columnGap    = 2
	// narrowest is what is left of why on the narrowest terminal.
	narrowest = 20
)

// writeGPUs writes the table of the GPUs, with rows of at most so many letters
// if why can give way for it; 0: as wide as it gets.
func writeGPUs(w io.Writer, report *exporter.Report, width int) error {
	if len(report.Snapshot.GPUs) == 0 {
		return nil
	}
	var rows []statusRow
	for i := range report.Snapshot.GPUs {
		g := &report.Snapshot.GPUs[i]
		rows = append(rows, rowOf(g, report))
		for _, instance := range g.Instances {
			rows = append(rows, rowOfInstance(g, instance))
		}
	}
	room := 0
	if width > 0 {
		room = max(width-otherColumns(rows), narrowest)
	}
	table := tabwriter.NewWriter(w, 0, 8, columnGap, ' ', 0)
	fmt.Fprintln(table, statusBefore+"WHY"+statusAfter)
	for _, r := range rows {
		fmt.Fprintln(table, strings.Join(slices.Concat(r.before, []string{fit(r.why, room)}, r.after), "\t"))
	}
	return table.Flush()
}

func rowOf(g *detector.GPUView, report *exporter.Report) statusRow {
	why, since, do := faultsOf(g.Conditions)
	if silence, ok := report.Silent[g.PCI]; ok && len(why) == 0 {
		why = []string{"no answer: " + silence}
	}
	return statusRow{
		before: []string{indexOf(g), g.PCI, string(g.Status)}, why: why,
		after: []string{since, do, xids(g.Xids), orDash(g.Name), orDash(g.UUID)},
	}
}

// rowOfInstance shows a MIG device with the faults that concern it: its own, and
// those of the GPU.
func rowOfInstance(g *detector.GPUView, i nvml.Instance) statusRow {
	why, since, do := faultsOf(g.InstanceConditions(i.GPUInstance, i.ComputeInstance))
	return statusRow{
		before: []string{
			indexOf(g), exporter.InstanceText(i.GPUInstance, &i.ComputeInstance), string(g.InstanceStatus(i.GPUInstance, i.ComputeInstance)),
		},
		why:   why,
		after: []string{since, do, "-", "MIG " + i.Profile, i.UUID},
	}
}

func indexOf(g *detector.GPUView) string {
	if g.Index == nil {
		return "-"
	}
	return fmt.Sprint(*g.Index)
}

// faultsOf are faults, the worst one first, since when that one stands and what to do
// about all. That nobody monitors a GPU is told below the table, once for all.
func faultsOf(conditions []detector.Condition) (why []string, since, do string) {
	faults := slices.DeleteFunc(slices.Clone(conditions), func(c detector.Condition) bool { return c.Reason == detector.Unmonitored })
	if len(faults) == 0 {
		return nil, "-", "-"
	}
	for _, c := range faults {
		why = append(why, exporter.FaultText(c))
	}
	return why, clock(faults[0].Since), string(detector.Remedy(faults))
}

// clock shows a time as logs, trail and Events do.
func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// otherColumns is the width of all but why, with the gaps.
func otherColumns(rows []statusRow) int {
	widths := make([]int, 0, 8)
	for head := range strings.FieldsSeq(statusBefore + statusAfter) {
		widths = append(widths, len(head))
	}
	for _, r := range rows {
		for i, cell := range slices.Concat(r.before, r.after) {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	sum := 0
	for _, n := range widths {
		sum += n + columnGap
	}
	return sum
}

// fit shows as many of the faults as there is room for, worst first, and counts
// the others; of the first it shows what fits. No room is as much as it takes.
func fit(faults []string, room int) string {
	whole := orDash(strings.Join(faults, ", "))
	if room == 0 || utf8.RuneCountInString(whole) <= room {
		return whole
	}
	for n := len(faults) - 1; n > 0; n-- {
		some := fmt.Sprintf("%s, +%d", strings.Join(faults[:n], ", "), len(faults)-n)
		if utf8.RuneCountInString(some) <= room {
			return some
		}
	}
	more := ""
	if len(faults) > 1 {
		more = fmt.Sprintf(", +%d", len(faults)-1)
	}
	letters := []rune(faults[0])
	return string(letters[:min(len(letters), max(room-len(more)-1, 0))]) + "…" + more
}
