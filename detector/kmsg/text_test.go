package kmsg

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// saved is when the logs of these tests were saved, in a zone that is neither
// UTC nor likely the machine's.
var saved = time.Date(2025, 3, 1, 12, 0, 0, 0, time.FixedZone("", 5*3600))

func readText(t *testing.T, log string) []TextRecord {
	t.Helper()
	var records []TextRecord
	for rec, err := range TextAt(strings.NewReader(log), saved) {
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, rec)
	}
	return records
}

var compareRecords = cmp.Options{
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
	cmp.Transformer("text", func(b []byte) string { return string(b) }),
}

func TestTextKnowsTheCommonForms(t *testing.T) {
	const xid = "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."
	const mono = 1843308145 * time.Microsecond
	local := time.Date(2025, 2, 23, 16, 24, 24, 0, saved.Location())
	utc := time.Date(2025, 2, 23, 16, 24, 24, 0, time.UTC)
	micros := 435595 * time.Microsecond
	record := func(wall time.Time, mono time.Duration, facility int) TextRecord {
		return TextRecord{Line: 1, Time: wall, Mono: mono, Facility: facility, Text: []byte(xid)}
	}
	var none time.Time
	for _, c := range []struct {
		header string
		want   TextRecord
	}{
		{"", record(none, -1, -1)},
		{"kernel: ", record(none, -1, -1)},
		{"kernel: [ 1843.308145] ", record(none, mono, -1)},

		{"4,2001,1843308145,-;", record(none, mono, 0)},
		{"12,2001,1843308145,-,caller=T1;", record(none, mono, 1)},

		{"[ 1843.308145] ", record(none, mono, -1)},
		{"[1843.308145] ", record(none, mono, -1)},
		{"[111111111.111] ", record(none, 111111111*time.Second+111*time.Millisecond, -1)},
		{"[ 1843.308145][  T123] ", record(none, mono, -1)},
		{"[ 1843.308145] [    C0] ", record(none, mono, -1)},
		{"[ 1843.308145 <    0.000010>] ", record(none, mono, -1)},
		{"[<    0.000010>] ", record(none, -1, -1)},
		{"[  +0.000001] ", record(none, -1, -1)},
		{"<4>[ 1843.308145] ", record(none, mono, 0)},
		{"<12>[ 1843.308145] ", record(none, mono, 1)},
		{"<4>", record(none, -1, 0)},
		{"kern  :warn  : [ 1843.308145] ", record(none, mono, 0)},
		{"user  :notice: [ 1843.308145] ", record(none, mono, 1)},
		{"kern  :err   : ", record(none, -1, 0)},
		{"kern  :warn  : [Sun Feb 23 16:24:24 2025] ", record(local, -1, 0)},
		{"[Sun Feb 23 16:24:24 2025] ", record(local, -1, -1)},
		{"[Sun Feb 23 16:24:24 2025 <    0.000000>] ", record(local, -1, -1)},
		{"[dim. févr. 23 16:24:24 2025] ", record(none, -1, -1)},
		{"[Feb23 16:24] ", record(local.Add(-24*time.Second), -1, -1)},
		{"[Feb 3 16:24] ", record(time.Date(2025, 2, 3, 16, 24, 0, 0, saved.Location()), -1, -1)},
		{"2025-02-23T16:24:24,435595+00:00 ", record(utc.Add(micros), -1, -1)},
		{"2025-02-23T16:24:24,435595+02:00 [  T123] ", record(utc.Add(micros-2*time.Hour), -1, -1)},

		{"Feb 23 16:24:24 worker4 kernel: [ 1843.308145] ", record(local, mono, -1)},
		{"Feb 23 16:24:24 worker4 kernel: ", record(local, -1, -1)},
		{"Feb 23 16:24:24 kernel: ", record(local, -1, -1)},
		{"Feb 23 16:24:24.435595 worker4 kernel: ", record(local.Add(micros), -1, -1)},
		{"Feb  3 16:24:24 worker4 kernel: ", record(time.Date(2025, 2, 3, 16, 24, 24, 0, saved.Location()), -1, -1)},
		{"Feb 3 16:24:24 worker4 kernel: ", record(time.Date(2025, 2, 3, 16, 24, 24, 0, saved.Location()), -1, -1)},
		{"<4>Feb 23 16:24:24 worker4 kernel: ", record(local, -1, 0)},
		{"2025-02-23T16:24:24.435595+00:00 worker4 kernel: [ 1843.308145] ", record(utc.Add(micros), mono, -1)},
		{"2025-02-23T16:24:24Z worker4 kernel: ", record(utc, -1, -1)},
		{"2025-02-23T16:24:24+0000 worker4 kernel: ", record(utc, -1, -1)},
		{"2025-02-23T16:24:24-03 worker4 kernel: ", record(utc.Add(3*time.Hour), -1, -1)},
		{"2025-02-23 16:24:24 worker4 kernel: ", record(local, -1, -1)},
		{"2025-02-23T16:24:24.435595Z [ 1843.308145] ", record(utc.Add(micros), mono, -1)},
		{"2025-02-23T16:24:24Z ", record(utc, -1, -1)},
		{"<4>1 2025-02-23T16:24:24.435595Z worker4 kernel - - - ", record(utc.Add(micros), -1, 0)},
		{"Sun 2025-02-23 16:24:24 UTC worker4 kernel: ", record(utc, -1, -1)},
		{"Sun 2025-02-23 16:24:24 PKT worker4 kernel: ", record(local, -1, -1)},
		{"1740327864.435595 worker4 kernel: ", record(utc.Add(micros), -1, -1)},
		{"[ 1843.308145] worker4 kernel: ", record(none, mono, -1)},
	} {
		for _, end := range []string{"", "\n", "\r\n"} {
			if diff := cmp.Diff([]TextRecord{c.want}, readText(t, c.header+xid+end), compareRecords); diff != "" {
				t.Errorf("%q (-want +got)\n%s", c.header+xid+end, diff)
			}
		}
	}
}

func TestTextKnowsJournalJSON(t *testing.T) {
	log := `{"__REALTIME_TIMESTAMP":"1740327864435595","_SOURCE_MONOTONIC_TIMESTAMP":"1843308145","_TRANSPORT":"kernel","SYSLOG_FACILITY":"0","MESSAGE":"a\nb","X":["1","2"],"Y":null}
{"_TRANSPORT":"syslog","MESSAGE":"NVRM: forged"}
{"MESSAGE":[78,86,255]}
{"SYSLOG_FACILITY":"1","_TRANSPORT":"kernel","MESSAGE":"written by a process"}
{"message is missing":1}
`
	want := []TextRecord{
		{Line: 1, Time: time.UnixMicro(1740327864435595), Mono: 1843308145 * time.Microsecond, Facility: 0, Text: []byte("a\nb")},
		{Line: 3, Mono: -1, Facility: -1, Text: []byte("NV\xff")},
		{Line: 4, Mono: -1, Facility: 1, Text: []byte("written by a process")},
		{Line: 5, Mono: -1, Facility: -1, Text: []byte(`{"message is missing":1}`)},
	}
	if diff := cmp.Diff(want, readText(t, log), compareRecords); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestTextJoinsAndSeparatesLines(t *testing.T) {
	for name, c := range map[string]struct {
		log  string
		want string // "line text", one a record, quoted
	}{
		"dmesg's print of embedded newlines": {
			"[ 1843.308145] NVRM: The NVIDIA GPU 0000:b3:00.0\n" +
				"               NVRM: (PCI ID: 10de:26b5) installed in this system has\n" +
				"               NVRM: fallen off the bus.\n" +
				"[ 1843.439662] NVRM: next\n",
			`1 "NVRM: The NVIDIA GPU 0000:b3:00.0\nNVRM: (PCI ID: 10de:26b5) installed in this system has\nNVRM: fallen off the bus."` + "\n" +
				`4 "NVRM: next"` + "\n",
		},
		"a header below the text is part of the message": {
			"[ 1843.308145] name=x\n               [ 1843.308146] NVRM: forged\n",
			`1 "name=x\n[ 1843.308146] NVRM: forged"` + "\n",
		},
		"tabs indent too": {
			"kernel: a\n\t\tb\n",
			`1 "a\nb"` + "\n",
		},
		"lines indented by whoever quoted them": {
			"    [ 1.000000] a\n    [ 2.000000] b\n                 c\n    NVRM: d\n",
			`1 "a"` + "\n" + `2 "b\nc"` + "\n" + `4 "NVRM: d"` + "\n",
		},
		"text without header takes no continuation": {
			"Logs:\n    NVRM: a\n    NVRM: b\n",
			`1 "Logs:"` + "\n" + `2 "NVRM: a"` + "\n" + `3 "NVRM: b"` + "\n",
		},
		"an empty line ends a record": {
			"[ 1.000000] a\n\n   NVRM: b\n",
			`1 "a"` + "\n" + `3 "NVRM: b"` + "\n",
		},
		"other programs, and what they continue with": {
			"Feb 23 16:24:24 node sshd[7]: NVRM: a\n                             NVRM: b\nFeb 23 16:24:24 node kernel: c\n" +
				"Feb 23 16:24:24 node NVRM: d\n2025-02-23T16:24:24Z node app: kernel: e\n<4>1 2025-02-23T16:24:24Z node app - - - f\n",
			`3 "c"` + "\n",
		},
		"dictionaries of raw records": {
			"4,1,2,-;a\\x0ab\n SUBSYSTEM=pci\n DEVICE=+pci:0000:3b:00.0\n4,2,3,-;c\n",
			`1 "a\nb"` + "\n" + `4 "c"` + "\n",
		},
		"escapes of dmesg are not known to be escapes": {
			"[ 1.000000] a\\x0ab\n",
			`1 "a\\x0ab"` + "\n",
		},
		"marks, zeroes and colours": {
			"\xef\xbb\xbf[ 1.000000] a\n\x00\x00[ 2.000000] b\x00\n\x1b[32m[ 3.000000] \x1b[0m\x1b[33mc: \x1b[1;31md\x1b[0m\n[ 4.000000] \x1b[2Ke\n",
			`1 "a"` + "\n" + `2 "b"` + "\n" + `3 "c: d"` + "\n" + `4 "\x1b[2Ke"` + "\n",
		},
		"blanks of the message's own": {
			"[ 1.000000]   a \n[ 2.000000] \n",
			`1 "  a "` + "\n" + `2 ""` + "\n",
		},
		"brackets that are no header": {
			"[drm] a\n[ 1.000000] [drm] b\n[ 1.000000] [ 5] c\n[5] d\n[\n[+x] e\n",
			`1 "[drm] a"` + "\n" + `2 "[drm] b"` + "\n" + `3 "[ 5] c"` + "\n" + `4 "[5] d"` + "\n" + `5 "["` + "\n" + `6 "[+x] e"` + "\n",
		},
		"nothing": {"\n \n\x00\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got strings.Builder
			for _, rec := range readText(t, c.log) {
				fmt.Fprintf(&got, "%d %q\n", rec.Line, rec.Text)
			}
			if diff := cmp.Diff(c.want, got.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestTimesWithoutAYearAreNotInTheFuture(t *testing.T) {
	for stamp, year := range map[string]int{
		"Jan  1 00:00:00": 2025,
		"Mar  1 12:00:00": 2025,
		"Mar  2 12:00:00": 2025, // a clock may be off by a day
		"Mar  2 12:00:01": 2024,
		"Dec 31 23:59:59": 2024,
		"Feb 29 00:00:00": 2024,
	} {
		if got := readText(t, stamp+" node kernel: a\n")[0].Time; got.Year() != year {
			t.Errorf("%s: got %v, want the year %d", stamp, got, year)
		}
	}
}

func TestLongLinesAreCutAndReadingGoesOn(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for name, c := range map[string]struct {
		log  string
		cut  bool
		size int
	}{
		"1 MiB":                    {long + "\r\n[ 1.000000] next\n", false, maxLine},
		"longer":                   {long + "xx\n[ 1.000000] next\n", true, maxLine},
		"much longer":              {long + long + long + "\n[ 1.000000] next\n", true, maxLine},
		"together with what joins": {"[ 1.000000] a\n  " + long[:maxLine-2] + "\n   b\n   c\n[ 1.000000] next\n", true, maxLine},
	} {
		t.Run(name, func(t *testing.T) {
			var sizes []int
			var cut []bool
			for rec, err := range TextAt(strings.NewReader(c.log), saved) {
				if err != nil && !errors.Is(err, ErrLongLine) {
					t.Fatal(err)
				}
				sizes, cut = append(sizes, len(rec.Text)), append(cut, err != nil)
			}
			if diff := cmp.Diff([]int{c.size, len("next")}, sizes); diff != "" {
				t.Errorf("sizes (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff([]bool{c.cut, false}, cut); diff != "" {
				t.Errorf("cut (-want +got)\n%s", diff)
			}
		})
	}
}

func TestErrorsOfTheReaderEndTheLog(t *testing.T) {
	broken := errors.New("broken")
	var got []string
	for rec, err := range TextAt(io.MultiReader(strings.NewReader("[ 1.000000] a\n[ 2.000000] b"), iotest.ErrReader(broken)), saved) {
		got = append(got, fmt.Sprintf("%s %v", rec.Text, errors.Is(err, broken)))
	}
	if diff := cmp.Diff([]string{"a false", "b false", " true"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestTextStopsWhenTheCallerDoes(t *testing.T) {
	n := 0
	for range Text(strings.NewReader("a\nb\nc\n")) {
		if n++; n == 2 {
			break
		}
	}
	if n != 2 {
		t.Errorf("got %d records, want 2", n)
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("[ 1843.308145] a\n               b\n\nFeb 29 16:24:24 node kernel: [ 1.5] c\n4,1,2,-;d\\x0a\n K=v\n"))
	f.Add([]byte("<4>1 2025-02-23T16:24:24Z node kernel - - - a\r\nkern  :warn  : [Sun Feb 23 16:24:24 2025] b\x00\x1b[0m"))
	f.Add([]byte(`{"MESSAGE":[1,2],"_TRANSPORT":"kernel"}`))
	f.Fuzz(func(t *testing.T, log []byte) {
		lines, last := bytes.Count(log, []byte{'\n'})+1, 0
		for rec, err := range TextAt(bytes.NewReader(log), saved) {
			if err != nil || rec.Line <= last || rec.Line > lines || rec.Mono < -1 || rec.Facility < -1 {
				t.Fatalf("impossible record %+v, %v", rec, err)
			}
			last = rec.Line
		}
	})
}
