package publish

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apimachinery/pkg/watch"
	fakediscovery "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/util/workqueue"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra/pool"
)

// apiServer is an API server as far as slices are concerned: it names them, numbers
// their versions, and drops taints if it is told to.
type apiServer struct {
	*fake.Clientset
	n          atomic.Int64
	dropTaints atomic.Bool
	refuse     atomic.Pointer[error] // writes
	away       atomic.Pointer[error] // everything

	mu      sync.Mutex
	writes  []string
	watches []watch.Interface
}

func newAPIServer(minor string) *apiServer {
	a := &apiServer{Clientset: fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", UID: "node-uid"}})}
	a.Discovery().(*fakediscovery.FakeDiscovery).FakedServerVersion = &version.Info{Major: "1", Minor: minor, GitVersion: "v1." + minor + ".0"}
	a.PrependReactor("*", "resourceslices", func(action clienttesting.Action) (bool, runtime.Object, error) {
		switch action.GetVerb() {
		case "create", "update", "delete":
		default:
			return false, nil, nil
		}
		a.mu.Lock()
		a.writes = append(a.writes, action.GetVerb())
		a.mu.Unlock()
		if err := a.refuse.Load(); err != nil {
			return true, nil, *err
		}
		var s *resourceapi.ResourceSlice
		switch action := action.(type) {
		case clienttesting.CreateActionImpl:
			s = action.Object.(*resourceapi.ResourceSlice)
			if s.Name == "" {
				s.Name = s.GenerateName + strconv.FormatInt(a.n.Load(), 36)
			}
		case clienttesting.UpdateActionImpl:
			s = action.Object.(*resourceapi.ResourceSlice)
		default:
			return false, nil, nil
		}
		s.ResourceVersion = strconv.FormatInt(100+a.n.Add(1), 10)
		if a.dropTaints.Load() {
			s.Spec.Devices = plain(s.Spec.Devices)
		}
		return false, nil, nil
	})
	// The field selectors are those of the API server; the library's fake has none.
	matches := func(selector fields.Selector, s *resourceapi.ResourceSlice) bool {
		return selector.Matches(fields.Set{"spec.driver": s.Spec.Driver, "spec.nodeName": *s.Spec.NodeName})
	}
	a.PrependReactor("list", "resourceslices", func(action clienttesting.Action) (bool, runtime.Object, error) {
		found, err := a.Tracker().List(action.GetResource(), resourceapi.SchemeGroupVersion.WithKind("ResourceSlice"), "")
		if err != nil {
			return true, nil, err
		}
		list := found.(*resourceapi.ResourceSliceList)
		selector := action.(clienttesting.ListAction).GetListRestrictions().Fields
		list.Items = slices.DeleteFunc(list.Items, func(s resourceapi.ResourceSlice) bool { return !matches(selector, &s) })
		return true, list, nil
	})
	a.PrependWatchReactor("resourceslices", func(action clienttesting.Action) (bool, watch.Interface, error) {
		all, err := a.Tracker().Watch(action.GetResource(), "")
		if err != nil {
			return true, nil, err
		}
		a.mu.Lock()
		a.watches = append(a.watches, all)
		a.mu.Unlock()
		selector := action.(clienttesting.WatchAction).GetWatchRestrictions().Fields
		return true, watch.Filter(all, func(e watch.Event) (watch.Event, bool) {
			s, ok := e.Object.(*resourceapi.ResourceSlice)
			return e, ok && matches(selector, s)
		}), nil
	})
	answer := func(clienttesting.Action) (bool, runtime.Object, error) {
		if err := a.away.Load(); err != nil {
			return true, nil, *err
		}
		return false, nil, nil
	}
	a.PrependReactor("*", "resourceslices", answer)
	a.PrependWatchReactor("resourceslices", func(action clienttesting.Action) (bool, watch.Interface, error) {
		refused, _, err := answer(action)
		return refused, nil, err
	})
	return a
}

// goAway ends all watches and refuses every call, until come is called.
func (a *apiServer) goAway() (come func()) {
	err := fmt.Errorf("connection refused")
	a.away.Store(&err)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.watches {
		w.Stop()
	}
	a.watches = nil
	return func() { a.away.Store(nil) }
}

// written gives the writes since the last call.
func (a *apiServer) written() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.writes
	a.writes = nil
	return all
}

// taints are those stored of this driver, as device key=value:effect.
func (a *apiServer) taints(t *testing.T) []string {
	t.Helper()
	list, err := a.ResourceV1().ResourceSlices().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, s := range list.Items {
		for _, d := range s.Spec.Devices {
			for _, taint := range d.Taints {
				all = append(all, fmt.Sprintf("%s %s=%s:%s", d.Name, taint.Key, taint.Value, taint.Effect))
			}
		}
	}
	return all
}

// ticking has time go on from one look of the controller to the next: it waits for
// a moment to be over, and in a bubble that would never be.
type ticking struct {
	workqueue.TypedRateLimitingInterface[string]
}

func tickingQueue() workqueue.TypedRateLimitingInterface[string] { return ticking{newQueue()} }

func (q ticking) Get() (string, bool) {
	time.Sleep(time.Microsecond)
	return q.TypedRateLimitingInterface.Get()
}

// world is a publisher at work in a bubble of its own time.
type world struct {
	*Publisher
	t       *testing.T
	api     *apiServer
	news    chan *detector.Snapshot
	seq     uint64
	faults  map[int]detector.Condition
	changed atomic.Int64
}

// start runs a publisher over eight GPUs.
func start(t *testing.T, api *apiServer, change func(*Options)) *world {
	t.Helper()
	w := &world{t: t, api: api, news: make(chan *detector.Snapshot), faults: map[int]detector.Condition{}}
	o := Options{Node: "node-1", Client: api, Changed: func() { w.changed.Add(1) }}
	if change != nil {
		change(&o)
	}
	w.Publisher = New(o)
	w.queue = tickingQueue
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- w.Run(ctx, func(yield func(*detector.Snapshot) bool) {
			for {
				select {
				case <-ctx.Done():
					return
				case s := <-w.news:
					if !yield(s) {
						return
					}
				}
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	w.tell()
	w.pass(3 * time.Second)
	return w
}

// tell brings a new snapshot with the faults of the moment.
func (w *world) tell() {
	w.seq++
	s := &detector.Snapshot{Seq: w.seq, Time: time.Now(), Driver: detector.DriverState{Asked: true, Version: "570.195.03", CUDA: "12.8"}}
	for i := range 8 {
		g := detector.GPUView{
			PCI: fmt.Sprintf("0000:%02x:00.0", 0x10+i), UUID: fmt.Sprintf("GPU-%d", i), Name: "NVIDIA H100 80GB HBM3",
			MemoryBytes: 80 << 30, Minor: new(i), Status: detector.Healthy, Fresh: true,
		}
		if c, bad := w.faults[i]; bad {
			g.Status, g.Conditions = detector.Unhealthy, []detector.Condition{c}
		}
		s.GPUs = append(s.GPUs, g)
	}
	w.news <- s
	synctest.Wait()
}

func (w *world) pass(d time.Duration) {
	w.t.Helper()
	time.Sleep(d)
	synctest.Wait()
}

func lost() detector.Condition {
	return detector.Condition{
		Reason: detector.GPULost, Class: detector.Hardware, Scope: detector.ScopeGPU, Effect: detector.NoSchedule,
		Action: detector.ActRebootNode, Taint: "lost", Since: time.Now(),
	}
}

func (w *world) wrote(want ...string) {
	w.t.Helper()
	if got := w.api.written(); !slices.Equal(got, want) {
		w.t.Errorf("wrote %v, want %v", got, want)
	}
}

func TestHealthyNodeWritesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newAPIServer("37"), nil)
		w.wrote("create")
		if s := w.Status(); s.Mode != Taints || s.Devices != 8 || !w.Fences() {
			t.Errorf("status %+v, fences %v", s, w.Fences())
		}
		for range 60 {
			w.tell()
			w.pass(10 * time.Second)
		}
		w.wrote()
		if seq, _, err := w.Progress(); seq != w.seq || err != nil {
			t.Errorf("applied %d of %d: %v", seq, w.seq, err)
		}
	})
}

func TestFaultIsWrittenAtOnceAndSiblingsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newAPIServer("37"), nil)
		w.wrote("create")
		w.faults[3] = lost()
		w.tell()
		w.pass(time.Millisecond)
		w.wrote("update")
		for i := range 3 {
			w.faults[4+i] = lost()
			w.tell()
		}
		w.pass(900 * time.Millisecond)
		w.wrote()
		w.pass(200 * time.Millisecond)
		w.wrote("update")
		if got := w.api.taints(t); len(got) != 4 {
			t.Errorf("taints %v", got)
		}
		for range 10 { // the same again
			w.tell()
			w.pass(time.Second)
		}
		w.wrote()
	})
}

func TestFlappingKeepsTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newAPIServer("37"), nil)
		w.api.written()
		for i := range 50 {
			delete(w.faults, 3)
			if i%2 == 0 {
				w.faults[3] = lost()
			}
			w.tell()
			w.pass(20 * time.Millisecond)
		}
		if n := len(w.api.written()); n > 4 {
			t.Errorf("50 flaps in a second made %d writes", n)
		}
		w.pass(2 * time.Minute)
		if got := w.api.taints(t); len(got) != 0 {
			t.Errorf("it ended well, and is stored as %v", got)
		}
	})
}

// What one GPU gets rid of the other one has: each change is good news and bad news.
func TestFaultsThatTakeTurnsKeepTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newAPIServer("37"), nil)
		w.api.written()
		for i := range 60 {
			delete(w.faults, i%2)
			w.faults[1-i%2] = lost()
			w.tell()
			w.pass(time.Second)
		}
		if n := len(w.api.written()); n > 4+6+1 {
			t.Errorf("60 changes in a minute made %d writes", n)
		}
		w.faults[7] = lost() // one that was not there before waits for nobody
		w.tell()
		w.pass(time.Second)
		if got := w.api.taints(t); !slices.ContainsFunc(got, func(taint string) bool { return strings.HasPrefix(taint, "gpu-0000-17-") }) {
			t.Errorf("taints %v", got)
		}
	})
}

func TestHarderTaintIsWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newAPIServer("37"), nil)
		for range 20 { // and the budget is spent
			w.faults[3] = lost()
			w.tell()
			w.pass(time.Second)
			clear(w.faults)
			w.tell()
			w.pass(time.Second)
		}
		hard := lost()
		hard.Effect = detector.NoExecute
		w.faults[3] = hard
		w.tell()
		w.pass(time.Second)
		if got := w.api.taints(t); len(got) != 1 || !strings.HasSuffix(got[0], ":NoExecute") {
			t.Errorf("taints %v", got)
		}
	})
}

func TestRecoveryWaitsForTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newAPIServer("37"), nil)
		w.faults[0] = lost()
		w.tell()
		w.pass(5 * time.Second)
		w.api.written()
		clear(w.faults)
		w.tell()
		w.pass(100 * time.Millisecond)
		w.wrote()
		w.pass(time.Second)
		w.wrote("update")
	})
}

func TestAPIServerThatKeepsNoTaintsIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPIServer("34")
		api.dropTaints.Store(true)
		w := start(t, api, nil)
		w.faults[3] = lost()
		w.tell()
		w.pass(time.Second)
		if s := w.Status(); s.Mode != Attr || w.Fences() {
			t.Fatalf("status %+v, fences %v", s, w.Fences())
		}
		if seq, _, err := w.Progress(); seq != w.seq || err != nil {
			t.Errorf("the attribute is stored, and applied is %d of %d: %v", seq, w.seq, err)
		}
		w.api.written()
		w.pass(5 * time.Minute)
		w.wrote()
		// Somebody turns the feature gate on.
		api.dropTaints.Store(false)
		w.pass(6 * time.Minute)
		if s := w.Status(); s.Mode != Taints || !w.Fences() || len(api.taints(t)) != 1 {
			t.Errorf("status %+v, fences %v, taints %v", s, w.Fences(), api.taints(t))
		}
	})
}

func TestNobodyElseGivesOutTheSameGPUs(t *testing.T) {
	rival := &resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: "theirs", ResourceVersion: "1"},
		Spec: resourceapi.ResourceSliceSpec{
			Driver: "gpu.nvidia.com", NodeName: new("node-1"), Pool: resourceapi.ResourcePool{Name: "node-1", ResourceSliceCount: 1},
			Devices: []resourceapi.Device{{Name: "gpu-0"}},
		},
	}
	domains := rival.DeepCopy()
	domains.Spec.Driver = "compute-domain.nvidia.com"
	for name, c := range map[string]struct {
		slice  *resourceapi.ResourceSlice
		plugin int64
		forced bool
		want   Mode
		fences bool
	}{
		"NVIDIA's driver":        {slice: rival, want: Withheld},
		"a device plugin":        {plugin: 8, want: Withheld},
		"forced":                 {slice: rival, forced: true, want: Taints},
		"the driver for domains": {slice: domains, want: Taints, fences: true},
		"nobody":                 {want: Taints, fences: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newAPIServer("37")
				if c.slice != nil {
					if err := api.Tracker().Add(c.slice.DeepCopy()); err != nil {
						t.Fatal(err)
					}
				}
				w := start(t, api, func(o *Options) {
					o.Forced = c.forced
					o.PluginGPUs = func() (int64, bool) { return c.plugin, true }
				})
				s := w.Status()
				if s.Mode != c.want || w.Fences() != c.fences || (s.Devices == 0) != (c.want == Withheld) {
					t.Errorf("status %+v, fences %v", s, w.Fences())
				}
				if c.want == Withheld && s.Cause == "" {
					t.Error("no cause is given")
				}
			})
		})
	}
}

func TestNothingIsPublishedBeforeAPluginIsRuledOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var known atomic.Bool
		w := start(t, newAPIServer("37"), func(o *Options) { o.PluginGPUs = func() (int64, bool) { return 0, known.Load() } })
		w.pass(time.Minute)
		w.wrote()
		known.Store(true)
		w.Look()
		w.pass(time.Second)
		w.wrote("create")
	})
}

func TestAPIServerThatIsAnOlderOneIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newAPIServer("37"), nil)
		if got := w.Status().Server; got != "v1.37.0" {
			t.Fatalf("server %q", got)
		}
		var invalid error = apierrors.NewInvalid(schema.GroupKind{Group: "resource.k8s.io", Kind: "ResourceSlice"}, "", nil)
		w.api.Discovery().(*fakediscovery.FakeDiscovery).FakedServerVersion = &version.Info{Major: "1", Minor: "34", GitVersion: "v1.34.0"}
		w.api.refuse.Store(&invalid)
		w.faults[3] = lost()
		w.tell()
		w.pass(time.Second)
		w.api.refuse.Store(nil)
		w.pass(10 * time.Second)
		if got := w.Status().Server; got != "v1.34.0" || w.Limits() != pool.LimitsOf(1, 34) {
			t.Errorf("server %q with %+v", got, w.Limits())
		}
	})
}

func TestSlicesAreTakenBackWhenARivalComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var plugin atomic.Int64
		w := start(t, newAPIServer("37"), func(o *Options) { o.PluginGPUs = func() (int64, bool) { return plugin.Load(), true } })
		w.wrote("create")
		plugin.Store(8)
		w.Look()
		w.pass(time.Second)
		w.wrote("delete")
		plugin.Store(0)
		w.pass(time.Minute)
		w.wrote("create")
	})
}

func TestDeviceIsPublishedOnceContainersCanHaveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var missing atomic.Bool
		missing.Store(true)
		w := start(t, newAPIServer("37"), func(o *Options) {
			o.Ready = func(d pool.Device) error {
				if missing.Load() && d.Minor == 2 {
					return fmt.Errorf("/dev/nvidia2: no such file")
				}
				return nil
			}
		})
		if s := w.Status(); s.Devices != 7 || s.Waiting != 1 || s.Missing != "/dev/nvidia2: no such file" {
			t.Errorf("status %+v", s)
		}
		missing.Store(false)
		w.pass(10 * time.Second)
		if s := w.Status(); s.Devices != 8 || s.Waiting != 0 || s.Missing != "" {
			t.Errorf("status %+v", s)
		}
		missing.Store(true) // as when the driver is unloaded
		w.faults[2] = lost()
		w.tell()
		w.pass(time.Second)
		if got := w.api.taints(t); len(got) != 1 {
			t.Errorf("the device was taken back with its fault: %v", got)
		}
	})
}

func TestHangingFileSystemHoldsUpItsDeviceAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		answer := make(chan struct{})
		release := sync.OnceFunc(func() { close(answer) })
		t.Cleanup(release) // after the publisher has ended
		w := start(t, newAPIServer("37"), func(o *Options) {
			o.Ready = func(d pool.Device) error {
				if d.Minor == 2 {
					asked.Add(1)
					<-answer
				}
				return nil
			}
		})
		w.wrote("create")
		if s := w.Status(); s.Devices != 7 {
			t.Errorf("status %+v", s)
		}
		w.faults[5] = lost()
		w.tell()
		w.pass(100 * time.Millisecond)
		if got := w.api.taints(t); len(got) != 1 {
			t.Errorf("another device's fault is not written: %v", got)
		}
		w.pass(time.Minute)
		want := "it takes long to find out whether a container could be given gpu-0000-12-00-0; a file system may hang"
		if s := w.Status(); s.Devices != 7 || s.Waiting != 1 || s.Missing != want {
			t.Errorf("status %+v", s)
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("%d goroutines hang for one device", n)
		}
		release()
		w.pass(2 * time.Second)
		if s := w.Status(); s.Devices != 8 || s.Waiting != 0 || s.Missing != "" {
			t.Errorf("after it came back, status %+v", s)
		}
	})
}

func TestHangingFileSystemDoesNotHoldUpTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		t.Cleanup(func() { close(answer) }) // after the publisher has ended
		start(t, newAPIServer("37"), func(o *Options) {
			o.Ready = func(pool.Device) error {
				<-answer
				return nil
			}
		})
	})
}

// A pool without devices would say for a moment that nothing fences, and the node would
// be tainted for what is about to be.
func TestFirstPoolWaitsForWhatIsAskedOfItsDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newAPIServer("37"), func(o *Options) {
			o.Ready = func(d pool.Device) error {
				time.Sleep(time.Duration(d.Minor) * 50 * time.Millisecond)
				return nil
			}
		})
		w.wrote("create")
		if n := w.changed.Load(); n != 1 || !w.Fences() {
			t.Errorf("whether devices are fenced was decided %d times, at last %t", n, w.Fences())
		}
	})
}

func TestOutageIsOvercome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newAPIServer("37"), nil)
		away := fmt.Errorf("connection refused")
		w.api.refuse.Store(&away)
		w.faults[3] = lost()
		w.tell()
		w.pass(5 * time.Second)
		if _, _, err := w.Progress(); err == nil {
			t.Error("no error is told")
		}
		if !w.Fences() {
			t.Error("the node is tainted for a write that is a moment late")
		}
		w.pass(time.Minute)
		if w.Fences() {
			t.Error("a minute later the device still counts as fenced")
		}
		w.api.refuse.Store(nil)
		w.pass(10 * time.Second)
		if got := w.api.taints(t); len(got) != 1 || !w.Fences() {
			t.Errorf("10 s after the outage: taints %v, fences %v", got, w.Fences())
		}
		if seq, _, err := w.Progress(); seq != w.seq || err != nil {
			t.Errorf("applied %d of %d: %v", seq, w.seq, err)
		}
	})
}

// The library's own pauses are random, and up to a minute long.
func TestOutageOfAnyLengthIsOvercomeAsSoon(t *testing.T) {
	handlers := utilruntime.ErrorHandlers
	utilruntime.ErrorHandlers = nil // one of them waits, by the clock of another bubble
	t.Cleanup(func() { utilruntime.ErrorHandlers = handlers })
	for _, length := range []time.Duration{20 * time.Second, time.Minute, 2 * time.Minute, 3 * time.Minute, 5 * time.Minute, 10 * time.Minute} {
		t.Run("while it runs, "+length.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, newAPIServer("37"), nil)
				come := w.api.goAway()
				w.faults[3] = lost()
				w.tell()
				w.pass(length)
				come()
				w.pass(10 * time.Second)
				if got := w.api.taints(t); len(got) != 1 || !w.Fences() {
					t.Errorf("10 s later: taints %v, fences %v", got, w.Fences())
				}
			})
		})
		t.Run("when it starts, "+length.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newAPIServer("37")
				come := api.goAway()
				w := start(t, api, nil)
				w.pass(length)
				come()
				w.pass(10 * time.Second)
				if !w.Fences() {
					t.Errorf("10 s later: %+v", w.Status())
				}
			})
		})
	}
}

func TestWhatSomebodyElseChangesIsPutRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newAPIServer("37"), nil)
		w.faults[3] = lost()
		w.tell()
		w.pass(time.Second)
		slices := w.api.ResourceV1().ResourceSlices()
		list, err := slices.List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := slices.Delete(t.Context(), list.Items[0].Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.pass(3 * time.Second)
		if got := w.api.taints(t); len(got) != 1 {
			t.Errorf("3 s after the slice was deleted: %v", got)
		}
	})
}

func TestRestartWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPIServer("37")
		since := lost()
		run := func() {
			ctx, cancel := context.WithCancel(t.Context())
			w := &world{t: t, api: api, news: make(chan *detector.Snapshot), faults: map[int]detector.Condition{3: since}}
			w.Publisher = New(Options{Node: "node-1", Client: api})
			w.queue = tickingQueue
			done := make(chan error, 1)
			go func() {
				done <- w.Run(ctx, func(yield func(*detector.Snapshot) bool) {
					for ctx.Err() == nil {
						select {
						case <-ctx.Done():
						case s := <-w.news:
							yield(s)
						}
					}
				})
			}()
			w.tell()
			w.pass(10 * time.Second)
			cancel()
			<-done
		}
		run()
		api.written()
		run()
		if got := api.written(); len(got) != 0 {
			t.Errorf("the second daemon wrote %v", got)
		}
	})
}

func TestVersionOfTheAPIServer(t *testing.T) {
	for name, c := range map[string]struct {
		info version.Info
		want pool.Limits
		ok   bool
	}{
		"current":    {version.Info{Major: "1", Minor: "37"}, pool.LimitsOf(1, 37), true},
		"of a cloud": {version.Info{Major: "1", Minor: "34+"}, pool.LimitsOf(1, 34), true},
		"emulated":   {version.Info{Major: "1", Minor: "37", EmulationMajor: "1", EmulationMinor: "34"}, pool.LimitsOf(1, 34), true},
		"nonsense":   {version.Info{Major: "one"}, pool.LimitsOf(1, 34), false},
	} {
		got, err := serverOf(&c.info)
		if got.limits != c.want || (err == nil) != c.ok {
			t.Errorf("%s: %+v, %v", name, got.limits, err)
		}
	}
	if maps.Equal(map[pool.Limits]bool{pool.LimitsOf(1, 34): true}, map[pool.Limits]bool{pool.LimitsOf(1, 37): true}) {
		t.Error("the two versions have the same limits")
	}
}

// Until it is known whether devices are fenced, nobody may act as if they were not: a
// start is not an end of the fence.
func TestAStartIsUndecidedForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newAPIServer("37"), nil)
		if w.Undecided() {
			t.Error("all is published, and it is undecided")
		}
		refused := fmt.Errorf("slices are forbidden")
		api := newAPIServer("37")
		api.refuse.Store(&refused)
		w = start(t, api, nil)
		if w.Fences() || !w.Undecided() {
			t.Errorf("fences %t, undecided %t while nothing is known", w.Fences(), w.Undecided())
		}
		w.pass(time.Minute)
		if w.Fences() || w.Undecided() {
			t.Errorf("fences %t, undecided %t when nothing came of it", w.Fences(), w.Undecided())
		}
	})
}
