package dra

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra/cdi"
	"gpuvet.dev/dra/kubelettest"
	"gpuvet.dev/dra/pool"
)

func TestClaimIsPreparedAndGivenBack(t *testing.T) {
	t.Parallel()
	for name, services := range map[string][]string{"kubelet 1.37": kubelettest.Services137, "an older kubelet": kubelettest.Services134} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.start()
			kubelet := w.kubelet(services)
			c := w.allocate("train", "pod", nil, 0, 1)
			want := map[string][]kubelettest.Device{c.UID: {
				{Requests: []string{"gpu-0"}, Pool: nodeName, Name: device(0), CDI: []string{"gpu.gpuvet.dev/claim=uid-train-" + device(0), "gpu.gpuvet.dev/metadata=uid-train_gpu-0"}},
				{Requests: []string{"gpu-1"}, Pool: nodeName, Name: device(1), CDI: []string{"gpu.gpuvet.dev/claim=uid-train-" + device(1), "gpu.gpuvet.dev/metadata=uid-train_gpu-1"}},
			}}
			for _, time := range []string{"first", "second"} {
				got, err := kubelet.Prepare(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("the %s time (-want +got):\n%s", time, diff)
				}
				if held := w.held(c); held == nil || !held.Prepared || held.Pods[0] != (detector.ClaimPod{Name: "pod", UID: "uid-pod"}) || !w.spec(c) {
					t.Errorf("the %s time: held as %+v, with a spec %v", time, held, w.spec(c))
				}
			}
			metadata, err := os.ReadFile(w.path("plugins", pool.DriverName, "dra-device-metadata", "team-a_train", "gpu-0", "metadata.json"))
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{"metadata.resource.k8s.io/v1beta1", "metadata.resource.k8s.io/v1alpha1", "NVIDIA H100 80GB HBM3"} {
				if !strings.Contains(string(metadata), text) {
					t.Errorf("metadata without %q:\n%s", text, metadata)
				}
			}
			for range 2 {
				if err := kubelet.Unprepare(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				if held := w.held(c); held != nil || w.spec(c) {
					t.Errorf("given back: held as %+v, with a spec %v", held, w.spec(c))
				}
			}
		})
	}
}

func TestClaimThatCannotBeReadHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	w, kubelet := atWork(t)
	good := w.allocate("good", "pod", nil, 0)
	for name, c := range map[string]struct {
		change func(*resourceapi.ResourceClaim)
		want   string
	}{
		"configuration":              {configured(resourceapi.AllocationConfigSourceClaim, `{"apiVersion":"gpuvet.dev/v1alpha1","kind":"GPUConfig","preflights":"state"}`), `unknown field "preflights"`},
		"a device that is not there": {func(c *resourceapi.ResourceClaim) { c.Status.Allocation.Devices.Results[0].Device = "gpu-7" }, "device gpu-7 is not, or not yet, one of node node-1"},
		"another node's":             {func(c *resourceapi.ResourceClaim) { c.Status.Allocation.Devices.Results[0].Pool = "node-2" }, "no device of node node-1 is allocated"},
	} {
		bad := w.allocate("bad", "pod", c.change, 1)
		got, err := kubelet.Prepare(t.Context(), good, bad)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
		if len(got[good.UID]) != 1 || w.held(good) == nil || w.held(bad) != nil {
			t.Errorf("%s: prepared %v; held %v and %v", name, got, w.held(good), w.held(bad))
		}
	}
}

func configured(source resourceapi.AllocationConfigSource, parameters string) func(*resourceapi.ResourceClaim) {
	return func(c *resourceapi.ResourceClaim) {
		c.Status.Allocation.Devices.Config = append(c.Status.Allocation.Devices.Config, resourceapi.DeviceAllocationConfiguration{
			Source: source,
			DeviceConfiguration: resourceapi.DeviceConfiguration{Opaque: &resourceapi.OpaqueDeviceConfiguration{
				Driver: pool.DriverName, Parameters: runtime.RawExtension{Raw: []byte(parameters)},
			}},
		})
	}
}

func admin(c *resourceapi.ResourceClaim) {
	c.Status.Allocation.Devices.Results[0].AdminAccess = new(true)
}

func TestDeviceIsHeldByOneClaimButForAdmins(t *testing.T) {
	t.Parallel()
	w, kubelet := atWork(t)
	first, second, watcher := w.allocate("first", "a", nil, 0), w.allocate("second", "b", nil, 0), w.allocate("watcher", "c", admin, 0)
	w.prepare(first)
	if _, err := kubelet.Prepare(t.Context(), second); err == nil || !strings.Contains(err.Error(), "held by claim team-a/first") {
		t.Errorf("second claim: %v", err)
	}
	if w.held(second) != nil || w.spec(second) {
		t.Error("the second claim left something behind")
	}
	w.xid(0, 79) // nor does an administrator mind that it is sick
	if _, err := kubelet.Prepare(t.Context(), watcher); err != nil {
		t.Errorf("administrator: %v", err)
	}
	w.unprepare(first, watcher)
}

func TestLatePrepareIsRefusedAndTheNextPodIsNot(t *testing.T) {
	t.Parallel()
	w, kubelet := atWork(t)
	c := w.allocate("shared", "first", nil, 0)
	w.prepare(c)
	w.unprepare(c)
	if _, err := kubelet.Prepare(t.Context(), c); err == nil || !strings.Contains(err.Error(), "a call that came late") {
		t.Errorf("late call: %v", err)
	}
	c = w.allocate("shared", "second", nil, 0)
	if _, err := kubelet.Prepare(t.Context(), c); err != nil {
		t.Errorf("next pod: %v", err)
	}
}

func TestNothingNewIsGivenOutBesideSomebodyElse(t *testing.T) {
	t.Parallel()
	w, kubelet := atWork(t)
	before, after := w.allocate("before", "first", nil, 0), w.allocate("after", "second", nil, 1)
	w.prepare(before)
	w.rival.Store(new("a device plugin offers 2 GPUs"))
	if _, err := kubelet.Prepare(t.Context(), before); err != nil {
		t.Errorf("a claim that is prepared: %v", err)
	}
	if _, err := kubelet.Prepare(t.Context(), after); err == nil || !strings.Contains(err.Error(), "somebody else: a device plugin") || w.held(after) != nil {
		t.Errorf("a claim that is not: %v", err)
	}
}

func TestNextPodOfAPreparedClaimIsNoted(t *testing.T) {
	t.Parallel()
	w, _ := atWork(t)
	c := w.allocate("shared", "first", nil, 0)
	w.prepare(c)
	w.xid(0, 79) // it runs there already: nothing is gained by refusing
	c = w.allocate("shared", "second", nil, 0)
	w.prepare(c)
	if held := w.held(c); !held.Prepared || held.Pods[0].Name != "second" {
		t.Errorf("held as %+v", held)
	}
}

// gate holds up the writing of specs.
type gate struct {
	Specs
	reached chan struct{}
	open    chan struct{}
}

// gated is a world with a gate at which so many calls need not wait to say that they
// reached it.
func gated(t *testing.T, room int) (*world, *gate, *kubelettest.Plugin) {
	t.Helper()
	w := newWorld(t)
	g := &gate{reached: make(chan struct{}, room), open: make(chan struct{})}
	w.specs = func(s Specs) Specs { g.Specs = s; return g }
	w.start()
	return w, g, w.kubelet(nil)
}

func (g *gate) Write(claim string, devices []cdi.Device, note string) (map[string][]string, error) {
	g.reached <- struct{}{}
	<-g.open
	return g.Specs.Write(claim, devices, note)
}

func TestUnprepareDoesNotWaitForPrepare(t *testing.T) {
	t.Parallel()
	w, g, kubelet := gated(t, 0)
	c := w.allocate("train", "pod", nil, 0)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := kubelet.Prepare(t.Context(), c); err != nil {
			t.Errorf("prepare: %v", err)
		}
	})
	<-g.reached
	began := time.Now()
	if err := kubelet.Unprepare(t.Context(), c); err == nil || !strings.Contains(err.Error(), "still being prepared") {
		t.Errorf("unprepare meanwhile: %v", err)
	}
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	close(g.open)
	wg.Wait()
	if err := kubelet.Unprepare(t.Context(), c); err != nil || w.held(c) != nil || w.spec(c) {
		t.Errorf("unprepare afterwards: %v; held as %+v", err, w.held(c))
	}
}

func TestPrepareThatTheKubeletGaveUpIsNotDoneLate(t *testing.T) {
	t.Parallel()
	w, g, kubelet := gated(t, 2)
	c := w.allocate("train", "pod", nil, 0)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = kubelet.Prepare(t.Context(), c) })
	<-g.reached
	given, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := kubelet.Prepare(given, c); err == nil {
		t.Error("the second call went well")
	}
	close(g.open)
	wg.Wait()
	w.unprepare(c)
	w.end() // no call is under way any more
	if w.held(c) != nil || len(g.reached) != 0 {
		t.Errorf("held as %+v, %d more specs", w.held(c), len(g.reached))
	}
}

func TestPreparingTwiceAtOnceIsPreparingOnce(t *testing.T) {
	t.Parallel()
	w, kubelet := atWork(t)
	c := w.allocate("train", "pod", nil, 0)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got, err := kubelet.Prepare(t.Context(), c); err != nil || len(got[c.UID]) != 1 {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	wg.Wait()
	counted := w.detector.Snapshot().Counters.Events
	if n := counted["dra/ClaimPrepared"]; n != 1 {
		t.Errorf("prepared %d times: %v", n, counted)
	}
}

func TestClaimIsPreparedAnewAfterABoot(t *testing.T) {
	t.Parallel()
	w, _ := atWork(t)
	c := w.allocate("train", "pod", nil, 0)
	w.prepare(c)
	w.end()
	if err := os.RemoveAll(w.path("cdi")); err != nil { // a tmpfs
		t.Fatal(err)
	}
	w.boot = "boot-2"
	looked := false
	w.look = func(context.Context, string) error { looked = true; return nil }
	w.start()
	if w.spec(c) {
		t.Error("the spec is there before anybody asked for it")
	}
	w.kubelet(nil)
	w.prepare(c)
	if held := w.held(c); !held.Prepared || held.Boot != "boot-2" || !w.spec(c) || !looked {
		t.Errorf("held as %+v, spec %v, looked at %v", held, w.spec(c), looked)
	}
}

func TestRestartKeepsWhatIsPrepared(t *testing.T) {
	t.Parallel()
	w, kubelet := atWork(t)
	c := w.allocate("train", "pod", nil, 0)
	before, err := kubelet.Prepare(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	w.end()
	if err := os.RemoveAll(w.path("cdi")); err != nil {
		t.Fatal(err)
	}
	w.look = func(context.Context, string) error { return errors.New("it must not be asked") }
	w.start()
	kubelet = w.kubelet(nil)
	if !w.spec(c) {
		t.Error("the spec was not restored before the kubelet could ask")
	}
	again, err := kubelet.Prepare(t.Context(), c)
	if diff := cmp.Diff(before, again); diff != "" || err != nil {
		t.Errorf("%v (-before +after):\n%s", err, diff)
	}
}

func TestSpecThatCannotBeWrittenLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.CDI = cdi.Delegate // and no spec of the node's names a GPU
	kinds := make(chan Kind, 4)
	w.began = func(string) func(error) { return func(err error) { kinds <- KindOf(err) } }
	w.start()
	kubelet := w.kubelet(nil)
	c := w.allocate("train", "pod", nil, 0)
	for range 2 { // the kubelet's retry is not a late call
		if _, err := kubelet.Prepare(t.Context(), c); err == nil || !strings.Contains(err.Error(), "nvidia.com/gpu") {
			t.Errorf("error %v", err)
		}
		if kind := <-kinds; kind != KindCDI || w.held(c) != nil {
			t.Errorf("kind %q, held as %+v", kind, w.held(c))
		}
	}
}

func TestTenantIsTheNamespacesLabel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.label = "example.com/tenant"
	w.namespace("team-a", map[string]string{w.label: "blue"})
	w.start()
	kubelet := w.kubelet(nil)
	c := w.allocate("train", "pod", nil, 0)
	w.prepare(c)
	if got := w.held(c).Tenant; got != "blue" {
		t.Errorf("tenant %q", got)
	}
	if _, err := kubelet.Prepare(t.Context(), w.allocate("other", "pod", nil, 1)); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, a := range w.kube.Actions() {
		if a.GetVerb() == "get" && a.GetResource().Resource == "namespaces" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the namespace was read %d times", n)
	}
}

func TestEightClaimsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.gpus = 8
	w.start()
	kubelet := w.kubelet(nil)
	var wg sync.WaitGroup
	for n := range w.gpus {
		c := w.allocate(device(n), "pod", nil, n)
		wg.Go(func() {
			if _, err := kubelet.Prepare(t.Context(), c); err != nil {
				t.Errorf("prepare %d: %v", n, err)
			}
			if n%2 == 0 {
				if err := kubelet.Unprepare(t.Context(), c); err != nil {
					t.Errorf("unprepare %d: %v", n, err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(w.detector.Snapshot().Claims); n != 4 {
		t.Errorf("%d claims are held, want 4", n)
	}
	payload, err := json.Marshal(w.detector.Snapshot().Claims)
	if err != nil || strings.Count(string(payload), `"prepared":true`) != 4 {
		t.Errorf("%s, %v", payload, err)
	}
}
