package xid

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// entry is one case of the corpus: what to expect of its records.
type entry struct {
	line    int // of the comment
	expect  string
	records []string // headers gone, escapes undone
}

var (
	rawRecord = regexp.MustCompile(`^(\d+),\d+,\d+,[^;]*;`)
	logHeader = regexp.MustCompile(`^([A-Z][a-z]{2} +\d+ [0-9:]{8} \S+ )?(kernel: )?(\[[^\]]+\] )? *`)
	kinds     = map[string]Kind{
		"XID": Xid, "SXID": SXid, "LOST": Lost, "INIT": Init, "PCIE": PCIe, "HANG": Hang, "LINK": Link, "RECOV": Recovery,
		"SOFTWARE": Software,
		"NONE":     None, "CONT": None, "UUID": None,
	}
)

func corpus(tb testing.TB) []entry {
	tb.Helper()
	file, err := os.ReadFile("../../testdata/kernel_lines.txt")
	if err != nil {
		tb.Fatal(err)
	}
	var entries []entry
	started := false
	for i, line := range strings.Split(strings.TrimRight(string(file), "\n"), "\n") {
		expect, source := strings.CutPrefix(line, "# ")
		switch {
		case strings.HasPrefix(line, "###"):
			started = true
		case !started: // the key at the head of the file
		case source:
			entries = append(entries, entry{line: i + 1, expect: expect})
		default:
			if len(entries) == 0 {
				tb.Fatalf("line %d: no expectation before it", i+1)
			}
			last := &entries[len(entries)-1]
			if raw := rawRecord.FindStringSubmatch(line); raw != nil {
				if priority, _ := strconv.Atoi(raw[1]); priority>>3 != 0 {
					continue // another facility: kmsg does not pass it on
				}
			}
			line = line[len(logHeader.FindString(line)):]
			last.records = append(last.records, strings.ReplaceAll(line, `\x0a`, "\n"))
		}
	}
	return entries
}

// read gives the events of an entry, as one log.
func (e entry) read() []Line {
	var joiner Joiner
	var events []Line
	for _, record := range e.records {
		if line, _, ok := joiner.Next([]byte(record)); ok {
			events = append(events, line)
		}
	}
	return events
}

func TestCorpusLinesGiveWhatTheirCommentSays(t *testing.T) {
	entries := corpus(t)
	if len(entries) < 170 {
		t.Fatalf("corpus has %d entries", len(entries))
	}
	for _, entry := range entries {
		word := strings.FieldsFunc(entry.expect, func(r rune) bool { return r == ' ' || r == ',' })
		kind, known := kinds[word[0]]
		if !known {
			t.Fatalf("line %d: expectation %q is none", entry.line, entry.expect)
		}
		var code int
		if kind == Xid || kind == SXid {
			var err error
			if code, err = strconv.Atoi(word[1]); err != nil {
				t.Fatalf("line %d: %v", entry.line, err)
			}
		}
		t.Run(fmt.Sprintf("%d %s", entry.line, word[0]), func(t *testing.T) {
			events := entry.read()
			if kind == None {
				if len(events) > 0 {
					t.Fatalf("event from %q: %+v", entry.records, events)
				}
				return
			}
			if len(events) != 1 {
				t.Fatalf("%d events from %q, want 1", len(events), entry.records)
			}
			if events[0].Kind != kind || events[0].Code != code {
				t.Errorf("%v %d from %q, want %v %d", events[0].Kind, events[0].Code, entry.records, kind, code)
			}
		})
	}
}

var update = flag.Bool("update", false, "write the golden file anew")

// What each entry of the corpus gives, to the last field: a change of the
// grammar shows as a change of this file.
func TestCorpusGivesTheGoldenEvents(t *testing.T) {
	const path = "testdata/kernel_lines.golden"
	var got strings.Builder
	for _, entry := range corpus(t) {
		fmt.Fprintf(&got, "# %s\n", entry.expect)
		for _, event := range entry.read() {
			got.WriteString(shown(t, event))
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("(-want +got; -update writes it)\n%s", diff)
	}
}

// shown is an event as one line: its kind, and the fields that it has.
func shown(t *testing.T, line Line) string {
	t.Helper()
	data, err := json.Marshal(line)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	for name, value := range fields {
		if value == nil || value == "" || name == "Code" && value == 0.0 || name == "CausedBy" && value == 0.0 {
			delete(fields, name)
		}
	}
	delete(fields, "Kind")
	if data, err = json.Marshal(fields); err != nil {
		t.Fatal(err)
	}
	return line.Kind.String() + " " + string(data) + "\n"
}
