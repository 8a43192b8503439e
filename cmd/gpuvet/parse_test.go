package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gpuvet.dev/detector/kmsg"
)

// corpus is the kernel lines of testdata, as a log without its comments.
func corpus(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../testdata/kernel_lines.txt")
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	for line := range strings.Lines(string(data)) {
		if !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" {
			log.WriteString(line)
		}
	}
	return log.String()
}

func TestParseFindsTheEventsOfTheCorpus(t *testing.T) {
	path := file(t, "kern.log", corpus(t))
	golden(t, "parse.table", output(t, "", "parse", path))
	golden(t, "parse.json", output(t, "", "parse", "-o", "json", path))
}

func TestParseReadsStandardInput(t *testing.T) {
	log := corpus(t)
	want := output(t, "", "parse", file(t, "kern.log", log))
	for _, args := range [][]string{{"parse"}, {"parse", "-"}} {
		if got := output(t, log, args...); got != want {
			t.Errorf("gpuvet %q reads standard input differently:\n%s", args, got)
		}
	}
}

func TestParsedEventHasTheseFieldsAlone(t *testing.T) {
	known := []string{"line", "kind", "code", "pci", "gpuInstance", "computeInstance", "pid", "process", "class", "action"}
	met := map[string]bool{}
	for line := range strings.Lines(output(t, corpus(t), "parse", "-o", "json")) {
		var event map[string]any
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		for key := range event {
			met[key] = true
			if !slices.Contains(known, key) {
				t.Errorf("unknown field %q: %s", key, line)
			}
		}
		for _, key := range []string{"line", "kind", "class", "action"} {
			if _, there := event[key]; !there {
				t.Errorf("%s is absent: %s", key, line)
			}
		}
		if pci, there := event["pci"]; there && pci == "" {
			t.Errorf("empty pci: %s", line)
		}
	}
	for _, key := range known {
		if !met[key] {
			t.Errorf("no event of the corpus has %s", key)
		}
	}
}

func TestParsedEventWithoutGPUHasNoAddress(t *testing.T) {
	const log = "[1.0] NVRM: _kgspRpcRecvPoll: GSP RM heartbeat timed out (diff ~8000ms)\n"
	const want = `{"line":1,"kind":"hang","class":"driver","action":"watch"}` + "\n"
	if got := output(t, log, "parse", "-o", "json"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestEventOfSeveralLinesHasTheNumberOfTheFirst(t *testing.T) {
	const log = `[1.0] something else
[2.0] NVRM: The NVIDIA GPU 0000:b3:00.0
[2.0] NVRM: (PCI ID: 10de:26b5) installed in this system has
[2.0] NVRM: fallen off the bus and is not responding to commands.
[3.0] NVRM: Xid (PCI:0000:b3:00): 79, GPU has fallen off the bus.
`
	const want = `{"line":2,"kind":"lost","pci":"0000:b3:00.0","class":"hardware","action":"reboot-node"}
{"line":5,"kind":"xid","code":79,"pci":"0000:b3:00.0","class":"hardware","action":"reboot-node"}
`
	if got := output(t, log, "parse", "-o", "json"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestLineThatIsNoEventPrintsNothing(t *testing.T) {
	for _, format := range []string{"table", "json"} {
		log := "[1.0] NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.195.03\n[2.0] usb 1-1: new device\n\nno header\n"
		if got := output(t, log, "parse", "-o", format); got != "" {
			t.Errorf("%s: got %q", format, got)
		}
	}
}

func TestTenantCannotReachTheTerminal(t *testing.T) {
	const log = "[1.0] NVRM: Xid (PCI:0000:3b:00): 31, pid=7, name=\x1b[2J\x07évil\u202e, MMU \x1b]0;owned\x07 Fault\n"
	for _, command := range []string{"parse", "replay"} {
		got := output(t, log, command, "-")
		if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f || r == '\u202e' }) {
			t.Errorf("%s printed %q", command, got)
		}
		if !strings.Contains(got, "0000:3b:00.0") {
			t.Errorf("%s shows nothing: %q", command, got)
		}
	}
}

func TestLongTextIsCutBetweenCharacters(t *testing.T) {
	if got := printable(strings.Repeat("é", 30), 20); got != strings.Repeat("é", 19)+"…" {
		t.Errorf("got %q", got)
	}
}

// broken is a file that ends in an error of the disk.
type broken struct{ *strings.Reader }

func (b broken) Read(p []byte) (int, error) {
	if b.Len() > 0 {
		return b.Reader.Read(p)
	}
	return 0, errors.New("disk gone")
}

func TestLogThatCannotBeReadToItsEndIsAnError(t *testing.T) {
	const line = "[1.0] NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.\n"
	for _, command := range []string{"parse", "replay"} {
		var out, errs strings.Builder
		code := execute(t.Context(), []string{command, "-"}, broken{strings.NewReader(line)}, &out, &errs)
		if code != exitError || !strings.Contains(errs.String(), "disk gone") {
			t.Errorf("%s: code %d, error output %q", command, code, errs.String())
		}
		if !strings.Contains(out.String(), "0000:3b:00.0") {
			t.Errorf("%s does not show what it has read: %q", command, out.String())
		}
	}
}

func TestLongLineIsCutAndSaid(t *testing.T) {
	log := strings.Repeat("x", 2<<20) + "\n[1.0] NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.\n"
	for _, command := range []string{"parse", "replay"} {
		o := gpuvet(t, log, command, "-")
		if o.code != exitDone || !strings.Contains(o.err, kmsg.ErrLongLine.Error()) || !strings.Contains(o.out, "0000:3b:00.0") {
			t.Errorf("%s: %+v", command, o)
		}
	}
}

func TestFileThatMayNotBeReadIsNamed(t *testing.T) {
	path := file(t, "kern.log", "")
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		// Root may read every file: to the file system, this thread is nobody.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := unix.Setfsuid(65534); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Setfsuid(0) }()
	}
	refused(t, []string{"parse", path}, filepath.Base(path), "permission denied")
}
