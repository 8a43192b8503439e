package main

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"gpuvet.dev/detector"
	"gpuvet.dev/exporter"
	"gpuvet.dev/nvml"
)

// What happens at 6 s and 10 s of testdata/scenarios/8xh100-lost.yaml, soon.
const eightLost = `
gpus: {count: 8, profile: h100}
timeline:
- {at: 50ms, gpu: 3, xid: 79}
- {at: 50ms, gpu: 3, lost: true}
- {at: 90ms, gpu: 5, xid: 31, pid: 41873, process: python3}
- {at: 90ms, gpu: 5, xid: 43, pid: 41873, process: python3}
`

var since = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)

func startEight(t *testing.T) *running {
	t.Helper()
	d := startScenario(t, t.TempDir(), eightLost)
	d.ready()
	d.eventually("all has happened", func() bool {
		others := d.report().Snapshot.GPUs
		others = slices.Delete(others, 3, 4)
		silent := slices.ContainsFunc(others, func(g detector.GPUView) bool { return !g.Fresh })
		return xids(d.gpu(3).Xids) == "79×1 154×1" && xids(d.gpu(5).Xids) == "31×1 43×1" && !d.gpu(3).Fresh && !silent
	})
	return d
}

func TestStatusOfEightGPUsOfWhichOneIsLost(t *testing.T) {
	d := startEight(t)
	golden(t, "status.table", since.ReplaceAllString(d.status(), "2025-02-23T16:52:40Z"))
}

func TestStatusInJSONAndYAMLIsTheSame(t *testing.T) {
	d := startEight(t)
	var fromJSON, fromYAML struct {
		Version, GoVersion string
		Ready              bool
		Snapshot           detector.Snapshot
	}
	if err := json.Unmarshal([]byte(d.status("-o", "json")), &fromJSON); err != nil {
		t.Fatal(err)
	}
	text := d.status("-o", "yaml")
	if err := yaml.Unmarshal([]byte(text), &fromYAML); err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(text, "{") || !strings.Contains(text, "\nsnapshot:\n") {
		t.Errorf("that is no YAML for people:\n%s", text)
	}
	fromYAML.Snapshot.Seq, fromYAML.Snapshot.Time = fromJSON.Snapshot.Seq, fromJSON.Snapshot.Time
	fromYAML.Snapshot.Counters = fromJSON.Snapshot.Counters // an event may have come between the two
	if diff := cmp.Diff(fromJSON, fromYAML); diff != "" {
		t.Errorf("(-json +yaml):\n%s", diff)
	}
	if !fromJSON.Ready || len(fromJSON.Snapshot.GPUs) != 8 {
		t.Errorf("report is %+v", fromJSON)
	}
}

func TestClearEndsAFaultByHand(t *testing.T) {
	d := startEight(t)
	pci := d.gpu(5).PCI
	got := output(t, "", "clear", "5", "ApplicationFault", "--author", "jane", "--socket", d.socket)
	if want := pci + ": cleared ApplicationFault\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if left := reasonsOf(d.gpu(5)); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
	last := d.report().Snapshot.Transitions
	i := slices.IndexFunc(last, func(tr detector.Transition) bool { return tr.Status == detector.Cleared })
	if i < 0 || last[i].Cause != "by hand (jane)" {
		t.Errorf("transitions are %+v", last)
	}
	if got := output(t, "", "clear", "node", "--socket", d.socket); got != "node: there was nothing to clear\n" {
		t.Errorf("got %q", got)
	}
}

func TestWhatIsSoAtPresentIsNotCleared(t *testing.T) {
	d := startEight(t)
	o := gpuvet(t, "", "clear", "3", "GPULost", "--socket", d.socket)
	if o.code != exitError || o.err != "gpuvet: "+d.gpu(3).PCI+": GPULost stays: it ends when the GPU answers again\n" {
		t.Errorf("clear: %+v", o)
	}
	stays := d.gpu(3).PCI + ": GPULost stays: it ends when the GPU answers again\n"
	if got, want := output(t, "", "clear", "3", "--socket", d.socket), d.gpu(3).PCI+": cleared RebootRequired\n"+stays; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	o = gpuvet(t, "", "clear", "3", "--socket", d.socket)
	if o.code != exitError || o.out != stays || o.err != "gpuvet: "+d.gpu(3).PCI+": nothing was cleared\n" {
		t.Errorf("clear: %+v", o)
	}
	o = gpuvet(t, "", "clear", "5", "LinkFault", "--socket", d.socket)
	if o.code != exitError || o.err != "gpuvet: "+d.gpu(5).PCI+" has no LinkFault: it has ApplicationFault\n" {
		t.Errorf("clear: %+v", o)
	}
}

func TestClearNamesWhatItDoesNotKnow(t *testing.T) {
	d := startEight(t)
	refused(t, []string{"clear", "9", "--socket", d.socket}, `"9"`, "it has 8 GPUs", "expected a PCI address")
	refused(t, []string{"clear", "3", "GPULosst", "--socket", d.socket}, `"GPULosst"`, "expected one of", "GPULost")
	refused(t, []string{"clear", "3", "--author", "a\nb", "--socket", d.socket}, "author")
	if got := d.gpu(3).Status; got != detector.Unhealthy {
		t.Errorf("GPU 3 is %s", got)
	}
}

func TestStatusOnANarrowTerminalCutsWhy(t *testing.T) {
	faults := []string{"RebootRequired (recovery action node-reboot)", "GPULost (Xid 79)", "LinkFault (Xid 74)"}
	for _, tt := range []struct {
		room   int
		faults []string
		want   string
	}{
		{0, nil, "-"},
		{20, nil, "-"},
		{0, faults, strings.Join(faults, ", ")},
		{82, faults, strings.Join(faults, ", ")},
		{81, faults, "RebootRequired (recovery action node-reboot), GPULost (Xid 79), +1"},
		{65, faults, "RebootRequired (recovery action node-reboot), +2"},
		{48, faults, "RebootRequired (recovery action node-reboot), +2"},
		{47, faults, "RebootRequired (recovery action node-reboo…, +2"},
		{20, faults, "RebootRequired …, +2"},
		{20, faults[:1], "RebootRequired (rec…"},
		{8, []string{"ééééééééé"}, "ééééééé…"},
	} {
		if got := fit(tt.faults, tt.room); got != tt.want {
			t.Errorf("%d letters: %q, want %q", tt.room, got, tt.want)
		}
	}
	index := 3
	report := &exporter.Report{Snapshot: &detector.Snapshot{GPUs: []detector.GPUView{{
		PCI: "0000:5d:00.0", Index: &index, Status: detector.Unhealthy, Name: "NVIDIA H100 80GB HBM3", UUID: "GPU-ebc538f1-41d3-499c-55ca-e55392ee0949",
		Conditions: []detector.Condition{
			{Reason: detector.RebootRequired, Cause: "recovery action node-reboot", Action: detector.ActRebootNode},
			{Reason: detector.GPULost, Cause: "Xid 79", Action: detector.ActRebootNode},
		},
	}}}}
	for _, width := range []int{200, 170, 160} {
		var out bytes.Buffer
		if err := writeGPUs(&out, report, width); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width || !strings.Contains(line, "UUID") && !strings.HasSuffix(line, "e0949\n") {
				t.Errorf("%d letters on a terminal of %d: %s", n, width, line)
			}
		}
	}
}

func TestStatusShowsMIGDevicesAndWhatHasDecided(t *testing.T) {
	at := time.Unix(1800000000, 0)
	fault := func(reason detector.Reason, effect detector.Effect, cause, why string) detector.Condition {
		return detector.Condition{
			Reason: reason, Class: detector.Hardware, Effect: effect, Action: detector.ActResetGPU, Cause: cause, Why: why, Since: at,
		}
	}
	ofInstance := fault(detector.ContainedMemoryError, detector.NoEffect, "Xid 94", "")
	ofInstance.GPUInstance, ofInstance.ComputeInstance = new(9), new(0)
	stays := fault(detector.UncorrectableMemory, detector.NoSchedule, "Xid 48", "incident 3 within 30 days")
	stays.Sticky = true
	gpus := []detector.GPUView{
		{
			PCI: "0000:18:00.0", Index: new(0), UUID: "GPU-1", Name: "NVIDIA H100", Status: detector.Degraded, Fresh: true,
			Conditions: []detector.Condition{ofInstance},
		},
		{PCI: "0000:2a:00.0", Index: new(1), Status: detector.Unhealthy, Conditions: []detector.Condition{
			stays, fault(detector.LinkFault, detector.NoSchedule, "Xid 145", "Xid 154 decides"),
		}},
	}
	gpus[0].MIG = true
	gpus[0].Instances = []nvml.Instance{
		{UUID: "MIG-a", GPUInstance: 2, Profile: "3g.40gb"}, {UUID: "MIG-b", GPUInstance: 9, Profile: "1g.10gb"},
	}
	answer, err := json.Marshal(exporter.Report{Snapshot: &detector.Snapshot{Driver: detector.DriverState{Asked: true}, GPUs: gpus}})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := printStatus(&out, answer, "table"); err != nil {
		t.Fatal(err)
	}
	want := `GPU  ADDRESS       STATUS     WHY                                                                 SINCE                 DO         XIDS  NAME         UUID
0    0000:18:00.0  Degraded   ContainedMemoryError (Xid 94, instance 9/0)                         2027-01-15T08:00:00Z  reset-gpu  -     NVIDIA H100  GPU-1
0    instance 2/0  Healthy    -                                                                   -                     -          -     MIG 3g.40gb  MIG-a
0    instance 9/0  Degraded   ContainedMemoryError (Xid 94, instance 9/0)                         2027-01-15T08:00:00Z  reset-gpu  -     MIG 1g.10gb  MIG-b
1    0000:2a:00.0  Unhealthy  UncorrectableMemory (Xid 48), LinkFault (Xid 145: Xid 154 decides)  2027-01-15T08:00:00Z  reset-gpu  -     -            -
0000:2a:00.0: UncorrectableMemory: incident 3 within 30 days: gpuvet clear 0000:2a:00.0 UncorrectableMemory
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestStatusTellsAPauseOnceAndWhatIsIgnored(t *testing.T) {
	pause := &detector.Pause{By: detector.ByHand, Until: time.Unix(1800000000, 0)}
	index := 0
	report := exporter.Report{Snapshot: &detector.Snapshot{Pause: pause, GPUs: []detector.GPUView{{
		PCI: "0000:5d:00.0", Index: &index, Status: detector.Unknown,
		Conditions: []detector.Condition{{Reason: detector.Unmonitored, Cause: pause.String()}},
		Ignored:    []detector.Ignored{{Reason: detector.LinkFault, By: detector.ByHand, Author: "jo", Until: time.Unix(1800000000, 0)}},
	}}, Requests: detector.Requests{Refused: map[string]string{detector.ByClear: "annotation gpuvet.dev/clear: no"}}}}
	answer, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := printStatus(&out, answer, "table"); err != nil {
		t.Fatal(err)
	}
	want := `GPU  ADDRESS       STATUS   WHY  SINCE  DO  XIDS  NAME  UUID
0    0000:5d:00.0  Unknown  -    -      -   -     -     -
paused by hand until 2027-01-15T08:00:00Z; NVML is closed
0000:5d:00.0: LinkFault ignored by hand (jo) until 2027-01-15T08:00:00Z
refused: annotation gpuvet.dev/clear: no
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestStatusSaysWhyDevicesAreNotPublished(t *testing.T) {
	r := &exporter.Report{Snapshot: &detector.Snapshot{}, DRA: &exporter.Allocation{
		Mode: "taints", Devices: 6, Waiting: 2, Missing: "nvidia.com/gpu=GPU-1: no CDI spec names it", Registered: true,
	}}
	want := "dra: 6 of 8 devices are published; no container could be given the others: nvidia.com/gpu=GPU-1: no CDI spec names it"
	if got := notes(r); !slices.Contains(got, want) {
		t.Errorf("notes are %q, want %q among them", got, want)
	}
}
