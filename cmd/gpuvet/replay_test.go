package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/detector"
)

func TestReplayOfAKernelLog(t *testing.T) {
	const log = "../../testdata/replay/dmesg.txt"
	golden(t, "replay.table", output(t, "", "replay", log))
	golden(t, "replay.json", output(t, "", "replay", "-o", "json", log))
}

func TestReplayReadsStandardInput(t *testing.T) {
	log, err := os.ReadFile("../../testdata/replay/dmesg.txt")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "replay.table", output(t, string(log), "replay", "-"))
}

// A change of the names or the order breaks who reads them.
func TestReplayedTransitionHasTheseFields(t *testing.T) {
	const log = "[Sun Feb 23 16:52:40 2025] NVRM: Xid (PCI:0000:5d:00): 79, pid=7, name=x, GPU has fallen off the bus.\n"
	const want = `{"time":"2025-02-23T16:52:40Z","pci":"0000:5d:00.0","condition":"GPULost","status":"raised",` +
		`"class":"hardware","effect":"NoSchedule","cause":"Xid 79"}` + "\n"
	if got := output(t, log, "replay", "-o", "json", "-"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestFaultOfTheNodeHasNoAddress(t *testing.T) {
	const log = "[1.0] nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 10003, Fatal, Link 46 egress something\n"
	got := output(t, log, "replay", "-o", "json", "-")
	if strings.Contains(got, `"pci"`) || !strings.Contains(got, `"condition":"FabricFault"`) {
		t.Errorf("got %s", got)
	}
	if table := output(t, log, "replay", "-"); !strings.Contains(table, "  node  ") {
		t.Errorf("got\n%s", table)
	}
}

// The trail of a daemon, folded again from nothing, gives what it decided.
func TestReplayOfATrailAgreesWithTheDaemon(t *testing.T) {
	dir := t.TempDir()
	d := startScenario(t, dir, troubled, atOnce(t)...)
	d.ready()
	d.eventually("all has happened", func() bool {
		return d.gpu(1).Status == detector.Healthy && len(reasonsOf(d.gpu(2))) == 1 && len(d.report().Snapshot.Transitions) >= 5
	})
	d.end()
	s := folder(t, dir)
	defer s.Close()
	payload, _, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	saved, err := detector.DecodeSaved(payload)
	if err != nil {
		t.Fatal(err)
	}
	var want []replayed
	for _, tr := range saved.State.Recent {
		want = append(want, replayed{tr.Time, tr.PCI, tr.Condition, tr.Status, tr.Class, tr.Effect, tr.Cause})
	}
	trail := filepath.Join(dir, "trail")
	for _, path := range []string{trail, filepath.Join(trail, "00000001.jsonl")} {
		var got []replayed
		var lines []string // sorted, for which fault ends first depends on the machine
		for line := range strings.Lines(output(t, "", "replay", "-o", "json", path)) {
			var r replayed
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			got = append(got, r)
			if slices.Contains([]detector.Reason{detector.NotedLoaded, detector.NotedReloaded, detector.NotedPolicy}, r.Condition) {
				continue // before or after a fault, as the machine has time; with the digest of all rows
			}
			r.Time = time.Time{}
			text, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, string(text)+"\n")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-daemon +replay):\n%s", path, diff)
		}
		slices.Sort(lines)
		golden(t, "replay-trail.json", strings.Join(lines, ""))
	}
}

func TestBrokenTrailIsReplayedAndSaid(t *testing.T) {
	dir := t.TempDir()
	lost(t, dir)
	path := filepath.Join(dir, "trail", "00000001.jsonl")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	lines[2] = "{damaged}\n"
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	o := gpuvet(t, "", "replay", filepath.Dir(path))
	if o.code != exitError || !strings.Contains(o.err, "trail is broken") || !strings.Contains(o.err, "changed or is incomplete") || !strings.Contains(o.out, "GPULost") {
		t.Errorf("%+v", o)
	}
}
