package xid

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
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
		"NONE": None, "CONT": None, "UUID": None,
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

func TestCorpusLinesGiveWhatTheirCommentSays(t *testing.T) {
	entries := corpus(t)
	if len(entries) < 100 {
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
			var joiner Joiner
			var events []Line
			for _, record := range entry.records {
				if line, _, ok := joiner.Next([]byte(record)); ok {
					events = append(events, line)
				}
			}
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
