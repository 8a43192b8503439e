package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"gpuvet.dev/detector"
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

var since = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`)

func startEight(t *testing.T) *running {
	t.Helper()
	d := startScenario(t, t.TempDir(), eightLost)
	d.ready()
	d.eventually("all has happened", func() bool {
		return xids(d.gpu(3).Xids) == "79×1 154×1" && xids(d.gpu(5).Xids) == "31×1 43×1" && !d.gpu(3).Fresh
	})
	return d
}

func TestStatusOfEightGPUsOfWhichOneIsLost(t *testing.T) {
	d := startEight(t)
	golden(t, "status.table", since.ReplaceAllString(d.status(), "2025-02-23 16:52:40"))
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
	if want := pci + ": cleared ApplicationFault, left nothing\n"; got != want {
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
	if got := output(t, "", "clear", "node", "--socket", d.socket); got != "node: cleared nothing, left nothing\n" {
		t.Errorf("got %q", got)
	}
}

func TestWhatIsSoAtPresentIsNotCleared(t *testing.T) {
	d := startEight(t)
	o := gpuvet(t, "", "clear", "3", "GPULost", "--socket", d.socket)
	if o.code != exitError || !strings.Contains(o.err, "GPULost stays, for it is so at present") {
		t.Errorf("clear: %+v", o)
	}
}

func TestClearNamesWhatItDoesNotKnow(t *testing.T) {
	d := startEight(t)
	refused(t, []string{"clear", "9", "--socket", d.socket}, `"9"`, "8 GPUs", "expected a PCI address")
	refused(t, []string{"clear", "3", "GPULosst", "--socket", d.socket}, `"GPULosst"`, "expected one of", "GPULost")
	refused(t, []string{"clear", "3", "--author", "a\nb", "--socket", d.socket}, "author")
	if got := d.gpu(3).Status; got != detector.Unhealthy {
		t.Errorf("GPU 3 is %s", got)
	}
}
