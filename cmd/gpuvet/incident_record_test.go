package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gpuvet.dev/detector"
)

// recorder writes down what is seen of a machine, one line each, which begins
// with the time.
type recorder struct {
	*machine
	file    *incidentFile
	written map[string][]string
}

func (r *recorder) write(section, format string, args ...any) {
	if r.written == nil {
		r.written = map[string][]string{}
	}
	r.written[section] = append(r.written[section], fmt.Sprintf(format, args...))
}

// end is when an incident is over: a moment after the last line.
func (r *recorder) end(deeds []deed) time.Duration {
	last := daemonStart
	for _, d := range deeds {
		last = max(last, d.at)
	}
	for _, name := range []string{"conditions", "node"} {
		for _, words := range r.file.lines(name) {
			last = max(last, r.moment(words)-afterwards)
		}
	}
	return last + afterwards
}

// looks are at the times that the expectations have, or at the end.
func (r *recorder) looks(end time.Duration) []deed {
	times := map[string][]time.Duration{}
	for _, name := range []string{"conditions", "node"} {
		for _, words := range r.file.lines(name) {
			times[name] = append(times[name], r.moment(words))
		}
		if len(times[name]) == 0 {
			times[name] = []time.Duration{end}
		}
		slices.Sort(times[name])
		times[name] = slices.Compact(times[name])
	}
	var deeds []deed
	for _, at := range times["conditions"] {
		deeds = append(deeds, deed{at, func() { r.conditions(at) }})
	}
	for _, at := range times["node"] {
		deeds = append(deeds, deed{at, func() { r.node(at) }})
	}
	return deeds
}

// conditions writes each GPU's status and faults, and the node's faults.
func (r *recorder) conditions(at time.Duration) {
	s := r.daemon.detector.Snapshot()
	for _, g := range s.GPUs {
		r.write("conditions", "%s %s %s%s", seconds(at), bus(g.PCI), g.Status, faults(g.Conditions))
	}
	if len(s.Node) > 0 {
		r.write("conditions", "%s node -%s", seconds(at), faults(s.Node))
	}
}

func faults(conditions []detector.Condition) string {
	var b strings.Builder
	for _, c := range conditions {
		fmt.Fprintf(&b, " %s", c.Reason)
		if len(c.Xids) > 0 {
			var codes []string
			for _, code := range c.Xids {
				codes = append(codes, strconv.Itoa(code))
			}
			fmt.Fprintf(&b, "(%s)", strings.Join(codes, ","))
		}
		if c.Effect != detector.NoEffect {
			fmt.Fprintf(&b, ":%s", c.Effect)
		}
		fmt.Fprintf(&b, ",%s", c.Action)
	}
	return b.String()
}

// node writes what the node's condition and taint say.
func (r *recorder) node(at time.Duration) {
	word := r.nodeWord()
	r.write("node", "%s GPUHealthy=%s %s %s", seconds(at), word["status"], word["reason"], word["taint"])
}

func (r *recorder) transitions(told []detector.Transition) {
	for _, t := range told {
		// That the driver was there from the start is no news.
		if t.Condition == detector.NotedLoaded {
			continue
		}
		r.write("transitions", "%s %s %s %s %s %s %s %s", seconds(t.Time.Sub(bootTime)), cmp.Or(bus(t.PCI), "node"), t.Status,
			t.Condition, t.Class, cmp.Or(string(t.Effect), "-"), t.Action, t.Cause)
	}
}

// metrics writes the sums of the series that the file names, at the end.
func (r *recorder) metrics() {
	lines := r.file.lines("metrics")
	if len(lines) == 0 {
		return
	}
	families := r.scrape()
	for _, words := range lines {
		name, labels, _ := strings.Cut(words[0], "{")
		sum, value := 0.0, "absent"
		for _, metric := range families[name].GetMetric() {
			has := map[string]string{}
			for _, pair := range metric.GetLabel() {
				has[pair.GetName()] = pair.GetValue()
			}
			fits := true
			for label := range strings.SplitSeq(strings.TrimSuffix(labels, "}"), ",") {
				key, want, _ := strings.Cut(label, "=")
				fits = fits && (key == "" || strconv.Quote(has[key]) == want)
			}
			if fits {
				sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
				value = strconv.FormatFloat(sum, 'f', -1, 64)
			}
		}
		r.write("metrics", "%s %s", words[0], value)
	}
}

// aligned puts the words of lines into columns, except the last words of long
// lines, which are prose.
func aligned(lines []string) string {
	const columns = 7
	var widths [columns]int
	split := make([][]string, len(lines))
	for i, line := range lines {
		split[i] = strings.SplitN(line, " ", columns+1)
		for j, word := range split[i][:min(len(split[i]), columns)] {
			widths[j] = max(widths[j], len(word))
		}
	}
	var b strings.Builder
	for _, words := range split {
		var line strings.Builder
		for j, word := range words {
			if j < len(widths) {
				word = fmt.Sprintf("%-*s  ", widths[j], word)
			}
			line.WriteString(word)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// plain is text with its blanks made one: how an expectation is aligned does
// not matter. A line that is to end in any words ends in "*".
func plain(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 0 && !strings.HasPrefix(words[0], "#") {
			b.WriteString(strings.Join(words, " ") + "\n")
		}
	}
	return b.String()
}

// taken is got with the lines as they were wanted where those leave the end open.
func taken(want, got string) string {
	open := strings.Split(want, "\n")
	lines := strings.Split(got, "\n")
	for i, line := range lines {
		j := slices.IndexFunc(open, func(w string) bool {
			head, ok := strings.CutSuffix(w, " *")
			return ok && strings.HasPrefix(line, head+" ")
		})
		if j >= 0 && !slices.Contains(open, line) {
			lines[i] = open[j]
		}
	}
	return strings.Join(lines, "\n")
}
