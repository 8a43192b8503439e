package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gpuvet.dev/detector/kmsg"
)

// incidentFile is one file of testdata/incidents, in the format of Go's txtar:
// sections, each behind a line "-- name --". The README there says what each
// section holds.
type incidentFile struct {
	path     string
	sections []incidentSection
}

type incidentSection struct{ name, text string }

var sectionMark = regexp.MustCompile(`(?m)^-- (\S+) --\n`)

func readIncident(t *testing.T, path string) *incidentFile {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f := &incidentFile{path: path}
	marks := sectionMark.FindAllSubmatchIndex(data, -1)
	if len(marks) == 0 || marks[0][0] != 0 {
		t.Fatalf("%s does not begin with a section", path)
	}
	for i, mark := range marks {
		end := len(data)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		f.sections = append(f.sections, incidentSection{string(data[mark[2]:mark[3]]), string(data[mark[1]:end])})
	}
	for _, s := range f.sections {
		if !slices.Contains(inputSections, s.name) && !slices.Contains(outputSections, s.name) && !kernelSection.MatchString(s.name) {
			t.Fatalf("%s: section %q: expected kernel.log, %s or %s", path, s.name, strings.Join(inputSections, ", "), strings.Join(outputSections, ", "))
		}
	}
	return f
}

var (
	inputSections  = []string{"why", "machine", "boot", "nvml", "holders", "hands"}
	outputSections = []string{"transitions", "conditions", "node", "metrics"}
	kernelSection  = regexp.MustCompile(`^kernel(?:\.([2-9]))?\.log$`)
)

// section gives the text of a section; empty if there is none.
func (f *incidentFile) section(name string) string {
	i := slices.IndexFunc(f.sections, func(s incidentSection) bool { return s.name == name })
	if i < 0 {
		return ""
	}
	return f.sections[i].text
}

// set replaces the text of a section, or adds it.
func (f *incidentFile) set(name, text string) {
	i := slices.IndexFunc(f.sections, func(s incidentSection) bool { return s.name == name })
	if i < 0 {
		f.sections = append(f.sections, incidentSection{name: name})
		i = len(f.sections) - 1
	}
	f.sections[i].text = text
}

func (f *incidentFile) write(t *testing.T) {
	t.Helper()
	var b bytes.Buffer
	for _, s := range f.sections {
		fmt.Fprintf(&b, "-- %s --\n%s", s.name, s.text)
	}
	if err := os.WriteFile(f.path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// lines gives the lines of a section without comments, each as its words.
func (f *incidentFile) lines(name string) [][]string {
	var all [][]string
	for line := range strings.Lines(f.section(name)) {
		if words := strings.Fields(line); len(words) > 0 && !strings.HasPrefix(words[0], "#") {
			all = append(all, words)
		}
	}
	return all
}

// moment reads a time: seconds since the first boot, or a duration such as 26h.
func moment(word string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(word, 64); err == nil {
		return time.Duration(seconds * float64(time.Second)), nil
	}
	d, err := time.ParseDuration(word)
	if err != nil {
		return 0, fmt.Errorf("time %q: expected seconds or a duration", word)
	}
	return d, nil
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// kernelEntry is one record of a boot's kernel log, or a loss in it.
type kernelEntry struct {
	at       time.Duration // since that boot
	facility int
	text     []byte
	lost     uint64 // records that the ring no longer held before this one
}

// repeatLine is "# repeat 1000 every 2ms", which stands before the line that is
// to come so often; {n} in it is the number of the repeat, as the driver prints
// a channel. lostLine is "# lost 120": so many records are missing there.
var (
	repeatLine = regexp.MustCompile(`^# repeat (\d+) every (\S+)$`)
	lostLine   = regexp.MustCompile(`^# lost (\d+)$`)
)

// kernelLog reads one section of kernel lines, by the reader of saved logs.
func kernelLog(text string) ([]kernelEntry, error) {
	var entries []kernelEntry
	count, every, lost := 1, time.Duration(0), uint64(0)
	var pending strings.Builder
	flush := func() error {
		for rec, err := range kmsg.TextAt(strings.NewReader(pending.String()), bootTime) {
			if err != nil {
				return err
			}
			if rec.Mono < 0 {
				return fmt.Errorf("kernel line %q has no time since boot", rec.Text)
			}
			for n := range count {
				entries = append(entries, kernelEntry{
					at: rec.Mono + time.Duration(n)*every, facility: max(rec.Facility, kmsg.Kern), lost: lost,
					text: bytes.ReplaceAll(rec.Text, []byte("{n}"), fmt.Appendf(nil, "%08x", n)),
				})
				lost = 0
			}
		}
		pending.Reset()
		return nil
	}
	for line := range strings.Lines(text) {
		bare := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(bare, "#") || count > 1 && pending.Len() > 0:
			if err := flush(); err != nil {
				return nil, err
			}
			count, every = 1, 0
		}
		switch repeat, loss := repeatLine.FindStringSubmatch(bare), lostLine.FindStringSubmatch(bare); {
		case repeat != nil:
			var err, bad error
			count, err = strconv.Atoi(repeat[1])
			every, bad = time.ParseDuration(repeat[2])
			if err := errors.Join(err, bad); err != nil {
				return nil, err
			}
		case loss != nil:
			lost, _ = strconv.ParseUint(loss[1], 10, 64)
		case !strings.HasPrefix(bare, "#"):
			pending.WriteString(line)
		}
	}
	return entries, flush()
}

// mergeJSON reads the words "key=value …" into a struct by its JSON names. A value
// is JSON without blanks; one that is none is a string.
func mergeJSON(into any, words []string) error {
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			return fmt.Errorf("%q: expected key=value", word)
		}
		if !json.Valid([]byte(value)) {
			value = strconv.Quote(value)
		}
		decoder := json.NewDecoder(strings.NewReader(fmt.Sprintf("{%q:%s}", key, value)))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(into); err != nil {
			return fmt.Errorf("%q: %w", word, err)
		}
	}
	return nil
}
