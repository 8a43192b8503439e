package xid

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// stages are driver lines with the place where the process name stands.
var stages = []string{
	"NVRM: Xid (PCI:0000:3b:00): 13, pid=9, name=%s, Graphics Exception: ESR 0x546fb0=0x11f000e 0x546fb4=0x24",
	"NVRM: Xid (PCI:0000:3b:00): 31, name=%s, MMU Fault: ENGINE GR_HOST0 HUBCLIENT_ESC0",
	"NVRM: Xid (PCI:0000:3b:00): 43, pid=9, name=%s, Ch 00000008",
	"NVRM: Xid (PCI:0000:3b:00): 45, pid=9, name=%s, Ch 00000008",
	"NVRM: Xid (PCI:0000:3b:00): 45, pid=9, name=%s, Ch 00000008 caused by previous Xid 149",
	"NVRM: Xid (PCI:0000:3b:00 GPU-I:01 GPU-CI:02): 45, pid=9, name=%s, Ch 00000008 caused by previous Xid 94",
	"NVRM: Xid (PCI:0000:3b:00 GPU-I:05): 94, pid=9, name=%s, Contained: CE User Channel (0x9). RST: No, D-RST: No",
	"NVRM: Xid (PCI:0000:3b:00): 109, pid=9, name=%s, Ch 00000076, errorString CTX SWITCH TIMEOUT, Info 0x3c046",
	"NVRM: Xid (PCI:0000:3b:00): 119, pid=9, name=%s, Timeout after 6s of waiting for RPC response from GPU4 GSP!",
	"NVRM: Xid (PCI:0000:3b:00): 145, pid=9, name=%s, RLW_REMAP Nonfatal XC1 i0 Link 10 (0x00000004 0x00000001 0x0 0x0)",
	"NVRM: Xid (PCI:0000:3b:00): 149, pid=9, name=%s, something that is no NVLink message",
	"NVRM: Xid (PCI:0000:3b:00): 154, pid=9, name=%s, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
	"NVRM: Xid (PCI:0000:3b:00): 154, pid=9, name=%s, ",
	"NVRM: Xid (PCI:0000:3b:00): 999, pid=9, name=%s",
	"NVRM: API mismatch: the client '%s' (pid 9)\nNVRM: has the version 595.84, but this kernel module has\nNVRM: the version 595.80.",
}

// joinedStages are records that make one event together, with the places where
// a name stands.
var joinedStages = [][]string{
	{
		"INFO: task %s:9 blocked for more than 120 seconds.", "task:%s state:D stack:    0 pid:9 ppid: 1 flags:0x00000006",
		" __schedule+0x24e/0x590", " os_acquire_rwlock_read+0x35/0x50 [nvidia]",
	},
	{
		"watchdog: BUG: soft lockup - CPU#7 stuck for 23s! [%s:9]", "CPU: 7 PID: 9 Comm: %s Tainted: P           OE     5.15.0-97-generic",
		"RIP: 0010:_nv038505rm+0xc/0x30 [nvidia]",
	},
}

// names are what a tenant may call his process.
var names = []string{
	"", "a", "a, b", ", ", ",", ", , , , , , , ,", "a,", "x, Ch 00000001", ", Ch 00000001", "Ch 00000001, x",
	"): 79, GPU has ", "0000:01:00): 79", "Xid (PCI:0000:0", "NVRM: Xid (PCI:", "\nNVRM: Xid (PCI",
	"GPU-I:07): 79, ", " GPU-CI:03", "pid=1, name=b", "name=x, pid=7", "pid='<unknown>'", "<unknown>", "'<unknown>', a",
	"s Xid 79", " previous Xid 7", ", d Xid 79", "to 0x2 (Node)", ", to 0x2 (None)", "0x2 (Node Reb", "from 0x0 to 0x2",
	", A Fatal XC1 i", "A Fatal XC1 i1 ", ", R Fatal XC1", "Fatal XC1", " Fatal ", "(0x1 0x2 0x3)", ", (0x1 0x2)", "Link -1 (0x0 0x",
	"a' (pid 1)", "' (pid 7)\nNVRM:", "' (pid 7", "a:1 blocked for", ":1", "x:1]", "s! [b:1]", "nvc:[driver]", "\n a+0x0/0x0 [nv",
	"+0x0/0x0 [nvid", "</TASK>", "\n</TASK>\n", "{1}[Hardware Er", "INFO: task a:1 ", "watchdog: BUG: ", "rcu: INFO: rcu_",
	"\n\n\n\n\n", "\x1b[2J", "\xff\xfe\xfd", "ä, ö, ü", "\u202e, x",
}

// essence is what no process name may touch.
type essence struct {
	Kind     Kind
	Code     int
	PCI      string
	GI, CI   *int
	PID      *int
	CausedBy int
	Action   *Action
	NVLink   *NVLink
	Severity string
	Switch   string
	Port     *int
	Minor    *int
}

func essenceOf(l Line) essence {
	return essence{
		l.Kind, l.Code, l.PCI, l.GPUInstance, l.ComputeInstance, l.PID,
		l.CausedBy, l.Action, l.NVLink, l.Severity, l.Switch, l.Port, l.Minor,
	}
}

func TestNoProcessNameForgesAnything(t *testing.T) {
	for _, stage := range stages {
		want, ok := Parse(fmt.Appendf(nil, stage, "x"))
		if !ok {
			t.Fatalf("no event from %q", stage)
		}
		for _, name := range names {
			if len(name) > maxComm {
				t.Fatalf("%q is no process name", name)
			}
			text := fmt.Sprintf(stage, name)
			got, ok := Parse([]byte(text))
			if !ok {
				t.Errorf("no event from %q", text)
			}
			if diff := cmp.Diff(essenceOf(want), essenceOf(got)); diff != "" {
				t.Errorf("%q (-want +got):\n%s", text, diff)
			}
		}
	}
}

func TestNoProcessNameForgesAnEventOfSeveralRecords(t *testing.T) {
	for _, stage := range joinedStages {
		want := played(t, stage, "x")
		for _, name := range names {
			got := played(t, stage, name)
			if diff := cmp.Diff(essenceOf(want), essenceOf(got)); diff != "" || got.Text != want.Text {
				t.Errorf("%q in %q: text %q (-want +got):\n%s", name, stage[0], got.Text, diff)
			}
		}
	}
}

// played reads the records of a stage and gives their one event.
func played(t *testing.T, stage []string, name string) Line {
	t.Helper()
	var joiner Joiner
	var events []Line
	for _, record := range stage {
		line, back, ok := joiner.Next([]byte(strings.ReplaceAll(record, "%s", name)))
		if ok {
			checkShape(t, []byte(record), line, ok)
			events = append(events, line)
			if back != len(stage)-1 {
				t.Errorf("%q in %q: %d records back", name, stage[0], back)
			}
		}
	}
	if len(events) != 1 {
		t.Fatalf("%q in %q: %d events", name, stage[0], len(events))
	}
	return events[0]
}

// A tenant whose task hangs, anywhere, and who has the kernel print his names
// behind it.
func TestNamesAloneMakeNoHang(t *testing.T) {
	for _, head := range []string{"INFO: task %s:9 blocked for more than 120 seconds.", "watchdog: BUG: soft lockup - CPU#7 stuck for 23s! [%s:9]"} {
		var joiner Joiner
		joiner.Next([]byte(strings.ReplaceAll(head, "%s", "nv_queue")))
		for _, name := range names {
			for _, form := range []string{"%s[12]: segfault at 0 ip 0", "%s", "Comm: %s Tainted: P", "? %s", " %s+0x1/0x2"} {
				record := strings.ReplaceAll(form, "%s", name)
				if line, _, ok := joiner.Next([]byte(record)); ok {
					t.Fatalf("event from %q behind %q: %+v", record, head, line)
				}
			}
		}
	}
}

func TestMismatchHoldsNoByteOfTheName(t *testing.T) {
	for _, name := range names {
		line, ok := Parse(fmt.Appendf(nil, "NVRM: API mismatch: the client '%s' (pid 9)\nNVRM: has the version 595.84, but", name))
		if !ok || line.Text != "API mismatch: the client has the version 595.84, but" {
			t.Errorf("name %q leaves text %q", name, line.Text)
		}
	}
}

func TestMessageHoldsNoByteOfTheName(t *testing.T) {
	for _, name := range []string{"evil", "evil, evil", ", evil", "evil, ", ", evil, evil, e", "a, evil, b,"} {
		line, _ := Parse([]byte("NVRM: Xid (PCI:0000:3b:00): 13, pid=9, name=" + name + ", Graphics Exception"))
		if line.Text != "Graphics Exception" {
			t.Errorf("name %q leaves text %q", name, line.Text)
		}
	}
}

func TestNameIsOfferedToTheOtherReaders(t *testing.T) {
	// A record of the kernel that begins with a name, as its fault message does.
	for _, name := range []string{"NVRM: Xid (PCI:", "NVRM: The NVIDI", "nvidia-nvswitch", "nvidia-nvswitc0", "pcieport 0000:0", "nvidia 0000:01:", "_kgspRpcRecv: G"} {
		for _, tail := range []string{"[12]: segfault at 0 ip 0", ": renamed from eth0", " (12): drop_caches: 3"} {
			if line, ok := Parse([]byte(name + tail)); ok {
				t.Errorf("event from %q: %+v", name+tail, line)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, entry := range corpus(f) {
		f.Add([]byte(strings.Join(entry.records, "\n")), "python3")
	}
	for _, name := range []string{"a, b", "\nNVRM: Xid (PCI", ", A Fatal XC1 i", "x, Ch 00000001", ", d Xid 79"} {
		f.Add([]byte("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."), name)
	}
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		line, ok := Parse(text)
		checkShape(t, text, line, ok)

		name = strings.ReplaceAll(name, "\x00", "")
		name = name[:min(len(name), maxComm)]
		for _, stage := range stages {
			want, _ := Parse(fmt.Appendf(nil, stage, "x"))
			record := fmt.Appendf(nil, stage, name)
			got, ok := Parse(record)
			checkShape(t, record, got, ok)
			if diff := cmp.Diff(essenceOf(want), essenceOf(got)); diff != "" {
				t.Fatalf("%q (-want +got):\n%s", record, diff)
			}
			checkBroken(t, string(record), want)
		}
	})
}

// FuzzJoiner reads any log, with any name where the kernel prints one.
func FuzzJoiner(f *testing.F) {
	for _, entry := range corpus(f) {
		f.Add([]byte(strings.Join(entry.records, "\x00")), "python3")
	}
	for _, name := range names {
		f.Add([]byte("INFO: task x:1 blocked for more than 120 seconds."), name)
	}
	f.Fuzz(func(t *testing.T, log []byte, name string) {
		var joiner Joiner
		read := 0
		for record := range bytes.SplitSeq(log, []byte{0}) {
			line, back, ok := joiner.Next(record)
			checkShape(t, record, line, ok)
			if back < 0 || back > read || back >= JoinDepth {
				t.Fatalf("event began %d records before record %d", back, read)
			}
			read++
		}
		name = strings.ReplaceAll(name, "\x00", "")
		name = name[:min(len(name), maxComm)]
		for _, stage := range joinedStages {
			want, got := played(t, stage, "x"), played(t, stage, name)
			if diff := cmp.Diff(essenceOf(want), essenceOf(got)); diff != "" || got.Text != want.Text {
				t.Fatalf("%q: text %q (-want +got):\n%s", name, got.Text, diff)
			}
		}
	})
}

// checkShape checks what holds for every line.
func checkShape(t *testing.T, text []byte, line Line, ok bool) {
	t.Helper()
	if !ok {
		if diff := cmp.Diff(Line{}, line); diff != "" {
			t.Fatalf("%q: no event, but not the zero Line:\n%s", text, diff)
		}
		return
	}
	if line.Kind == None || line.Kind.String() == "" {
		t.Fatalf("%q: kind %v", text, line.Kind)
	}
	if line.PCI != "" {
		addr, rest, ok := cutAddress([]byte(line.PCI))
		if !ok || len(rest) > 0 || addr.String() != line.PCI {
			t.Fatalf("%q: address %q", text, line.PCI)
		}
	}
	if len(line.Text) > maxText || len(line.Process) > maxText {
		t.Fatalf("%q: text of %d bytes, process of %d", text, len(line.Text), len(line.Process))
	}
	for _, shown := range []string{line.Text, line.Process} {
		if !utf8.ValidString(shown) || strings.ContainsAny(shown, "\n\r\x00\x1b") {
			t.Fatalf("%q: unsafe %q", text, shown)
		}
	}
	if line.NVLink != nil {
		for major := range 2 {
			line.NVLink.Decode(line.Code, 570+5*major)
		}
	}
}

// checkBroken reads a record as a saved log that broke it at the newlines of
// its name: still at most one event, and nothing in it that the driver did not say.
func checkBroken(t *testing.T, record string, want Line) {
	t.Helper()
	var joiner Joiner
	events := 0
	for part := range strings.SplitSeq(record, "\n") {
		line, _, ok := joiner.Next([]byte(part))
		if !ok {
			continue
		}
		events++
		if line.Kind != want.Kind || line.Code != want.Code || line.PCI != want.PCI {
			t.Fatalf("%q: broken line gives %+v", record, line)
		}
		if line.CausedBy != 0 && line.CausedBy != want.CausedBy {
			t.Fatalf("%q: broken line gives cause %d", record, line.CausedBy)
		}
		if line.Action != nil && (want.Action == nil || *line.Action != *want.Action) {
			t.Fatalf("%q: broken line gives action %v", record, line.Action)
		}
		if line.NVLink != nil && !cmp.Equal(line.NVLink, want.NVLink) {
			t.Fatalf("%q: broken line gives %+v", record, line.NVLink)
		}
	}
	if events > 1 {
		t.Fatalf("%q: %d events once broken", record, events)
	}
}
