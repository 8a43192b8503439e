package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"sigs.k8s.io/yaml"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra/pool"
)

const scenarios = "../../testdata/scenarios/"

// published is what `gpuvet slices` prints about node-a, after as long as it takes.
func published(t *testing.T, args ...string) string {
	t.Helper()
	var text string
	synctest.Test(t, func(t *testing.T) {
		text = output(t, "", append([]string{"slices", "--node-name", "node-a"}, args...)...)
	})
	return text
}

func TestSlicesOfScenarios(t *testing.T) {
	mig := file(t, "mig.yaml", "gpus:\n- {profile: a100, mig: [3g.40gb, 1g.10gb]}\n")
	for name, args := range map[string][]string{
		"slices-1xh100.yaml":      {"--fake-nvml", scenarios + "1xh100.yaml"},
		"slices-1xh100.json":      {"--fake-nvml", scenarios + "1xh100.yaml", "-o", "json"},
		"slices-8xh100-lost.yaml": {"--fake-nvml", scenarios + "8xh100-lost.yaml", "--after", "8s"},
		"slices-4xa100-hang.yaml": {"--fake-nvml", scenarios + "4xa100-hang.yaml", "--after", "80s"},
		"slices-mig.yaml":         {"--fake-nvml", mig},
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, published(t, args...)) })
	}
}

func TestLimitsAreThoseOfTheServersVersion(t *testing.T) {
	for text, minor := range map[string]int{"1.34": 34, "v1.34.4": 34, "1.35.0-gke.1": 35, "v1.36.2+k3s1": 36, "1.35+": 35, "1.37": 37} {
		got, err := limitsOf(text)
		if want := pool.LimitsOf(1, minor); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
	}
}

// Each scenario has its devices from the start, all of them fit, and an address of its
// own for each.
func TestEveryScenarioHasDevicesFromTheStart(t *testing.T) {
	files, err := filepath.Glob(scenarios + "*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d scenarios: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			var list resourceapi.ResourceSliceList
			if err := json.Unmarshal([]byte(published(t, "--fake-nvml", file, "-o", "json")), &list); err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for _, s := range list.Items {
				for _, d := range s.Spec.Devices {
					if len(d.Taints) > 0 || !*d.Attributes["healthy"].BoolValue || seen[d.Name] {
						t.Errorf("device %s: %+v", d.Name, d.Taints)
					}
					seen[d.Name] = true
				}
			}
			if want := int(filepath.Base(file)[0] - '0'); len(seen) < want {
				t.Errorf("%d devices, of %d GPUs", len(seen), want)
			}
		})
	}
}

// After half a minute GPU 7 is cut anew, and has other devices under other names.
func TestSlicesFollowMIGDevices(t *testing.T) {
	scenario := scenarios + "8xa100-mig.yaml"
	of := func(text string) []string {
		var names []string
		for line := range strings.Lines(text) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "name: gpu-0000-bd-00-0"); ok {
				names = append(names, name)
			}
		}
		return names
	}
	before := of(published(t, "--fake-nvml", scenario, "--after", "1s"))
	after := of(published(t, "--fake-nvml", scenario, "--after", "45s"))
	if diff := cmp.Diff([]string{"-mig-1c-3g-40gb-0-4-0", "-mig-2c-3g-40gb-0-4-1"}, before); diff != "" {
		t.Errorf("before (-want +got):\n%s", diff)
	}
	if len(after) != 7 || slices.ContainsFunc(after, func(name string) bool { return !strings.HasPrefix(name, "-mig-1g-10gb-") }) {
		t.Errorf("after: %s", after)
	}
}

func TestSlicesOfTheDaemonAreThoseOfItsSnapshot(t *testing.T) {
	d := startEight(t)
	text := output(t, "", "slices", "--socket", d.socket, "--node-name", "node-a")
	var got resourceapi.ResourceSlice
	if err := yaml.UnmarshalStrict([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if got.Spec.Pool.Name != "node-a" || *got.Spec.NodeName != "node-a" || got.Spec.Driver != pool.DriverName || len(got.Spec.Devices) != 8 {
		t.Errorf("slice %+v", got.Spec.Pool)
	}
	for i, device := range got.Spec.Devices {
		if sick := len(device.Taints) > 0; sick != (i == 3) {
			t.Errorf("device %d has taints %+v", i, device.Taints)
		}
	}
}

func TestSlicesSayWhyThereAreNone(t *testing.T) {
	for scenario, want := range map[string]string{
		"gpus: []\n": "no devices: no GPUs on this node",
		"gpus: {count: 1, profile: h100}\ndriver: {absent: true}\n": "no devices: ",
		"gpus:\n- {profile: a100, mig: []}\n":                       "no MIG device",
	} {
		path := file(t, "scenario.yaml", scenario)
		synctest.Test(t, func(t *testing.T) {
			o := gpuvet(t, "", "slices", "--node-name", "node-a", "--fake-nvml", path)
			if o.code != exitDone || o.out != "" || !strings.Contains(o.err, want) {
				t.Errorf("%q: code %d, out %q, err %q", scenario, o.code, o.out, o.err)
			}
		})
	}
	o := gpuvet(t, "", "slices", "--node-name", "node-a", "--socket", filepath.Join(t.TempDir(), "none.sock"))
	if o.code != exitError || !strings.Contains(o.err, `start it with "gpuvet run"`) {
		t.Errorf("without a daemon: code %d, %q", o.code, o.err)
	}
}

func TestSlicesRefuseBadInput(t *testing.T) {
	h100 := scenarios + "1xh100.yaml"
	refused(t, []string{"slices", "extra"}, `"extra"`, "expected no argument")
	refused(t, []string{"slices", "-o", "xml"}, `-o "xml"`, "expected yaml or json")
	refused(t, []string{"slices", "--kubernetes", "new"}, `--kubernetes "new"`, "1.34")
	refused(t, []string{"slices", "--kubernetes", "1.33"}, `--kubernetes "1.33"`, "1.34")
	for _, version := range []string{"1.34.x", "1.34 or so", "1.35.0.1", "1.34.", "1"} {
		refused(t, []string{"slices", "--kubernetes", version}, `--kubernetes "`+version+`"`, "expected 1.34 or later")
	}
	refused(t, []string{"slices", "--fake-nvml", h100, "--socket", "/none"}, "--fake-nvml "+h100+" and --socket /none: expected one of them")
	refused(t, []string{"slices", "--node-name", "No Node"}, `--node-name "No Node"`, "gpu-node-1")
	refused(t, []string{"slices", "--node-name", "a", "--after", "5s"}, "--after 5s", "expected --fake-nvml")
	refused(t, []string{"slices", "--node-name", "a", "--fake-nvml", h100, "--after", "-5s"}, "--after -5s", "expected a duration")
	refused(t, []string{"slices", "--node-name", "a", "--fake-nvml", "/none"}, "--fake-nvml", "/none")
}

// Whatever happens to a GPU: what is published follows from the snapshot alone, agrees
// with the status that people see, and names what stands.
func TestIncidentsArePublishedAsTheyStand(t *testing.T) {
	limits := pool.LimitsOf(1, 37)
	for _, f := range incidentFiles(t) {
		t.Run(f.name(), func(t *testing.T) {
			p := play(t, f)
			d := detector.New(detector.Config{Policy: detector.DefaultPolicy()})
			for _, a := range p.emitted {
				d.Emit(a.event)
				s := d.Snapshot()
				devices := pool.Devices(s, limits)
				if diff := cmp.Diff(devices, pool.Devices(copied(t, s), limits)); diff != "" {
					t.Fatalf("seq %d: twice (-want +got):\n%s", s.Seq, diff)
				}
				for i := range devices {
					agree(t, s, &devices[i])
				}
			}
		})
	}
}

// copied is the snapshot as another process reads it.
func copied(t *testing.T, s *detector.Snapshot) *detector.Snapshot {
	t.Helper()
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var again detector.Snapshot
	if err := json.Unmarshal(data, &again); err != nil {
		t.Fatal(err)
	}
	return &again
}

// agree compares a whole GPU's device with what people are told of it.
func agree(t *testing.T, s *detector.Snapshot, d *pool.Device) {
	t.Helper()
	g, ok := s.GPU(d.ID.PCI)
	if !ok || d.Parent != "" {
		return
	}
	fenced := slices.ContainsFunc(s.Node, func(c detector.Condition) bool { return c.Effect.Fences() })
	if !fenced && d.Status != g.Status || d.Healthy == (d.Status == detector.Unhealthy) {
		t.Errorf("seq %d: %s is %s and healthy %t; the GPU is %s", s.Seq, d.Name, d.Status, d.Healthy, g.Status)
	}
	for _, taint := range d.Published.Taints {
		stands := func(c detector.Condition) bool {
			return string(c.Reason) == taint.Value && c.Since.Truncate(time.Second).Equal(taint.TimeAdded.Time)
		}
		if !slices.ContainsFunc(slices.Concat(g.Conditions, s.Node), stands) {
			t.Errorf("seq %d: %s has %+v, and no fault of it stands", s.Seq, d.Name, taint)
		}
	}
}
