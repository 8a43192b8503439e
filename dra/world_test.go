package dra

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra/cdi"
	"gpuvet.dev/dra/kubelettest"
	"gpuvet.dev/dra/pool"
	"gpuvet.dev/internal/state"
)

const nodeName = "node-1"

// world is a node with GPUs, an API server and a kubelet. What a restart keeps lies in
// its folder.
type world struct {
	t      testing.TB
	dir    string
	boot   string
	gpus   int
	config Config
	kube   *fake.Clientset
	look   func(context.Context, string) error
	disk   disk
	specs  func(Specs) Specs // what stands before the real ones
	began  func(string) func(error)
	label  string
	rival  atomic.Pointer[string] // who else gives out the GPUs; empty: nobody

	detector *detector.Detector
	plugin   *Plugin
	end      func()
	agent    *kubelettest.Kubelet
	driver   *kubelettest.Plugin // as the kubelet has it
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: folder(t), boot: "boot-1", gpus: 2, config: DefaultConfig(), kube: fake.NewClientset(), specs: func(s Specs) Specs { return s }}
	w.config.CDI = cdi.None
	w.look = func(context.Context, string) error { return nil }
	w.rival.Store(new(""))
	return w
}

// folder is a short one: a socket's path may have 107 bytes, and that of t.TempDir has
// the test's name.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dra") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (w *world) path(names ...string) string {
	return filepath.Join(append([]string{w.dir}, names...)...)
}

// start starts the daemon's part that is tested here. It is ended by end, or with the
// test.
func (w *world) start() {
	w.t.Helper()
	dir, err := state.Open(w.path("state"))
	if err != nil {
		w.t.Fatal(err)
	}
	payload, _, err := dir.Load()
	if err != nil {
		w.t.Fatal(err)
	}
	var saved detector.Saved
	if len(payload) > 0 {
		if saved, err = detector.DecodeSaved(payload); err != nil {
			w.t.Fatal(err)
		}
	}
	w.disk.Store = dir
	w.detector = detector.New(detector.Config{Policy: detector.DefaultPolicy(), Saved: saved, Boot: w.boot, Uptime: time.Hour, Store: &w.disk})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.detector.Run(ctx) })
	w.emit(detector.Event{Source: detector.SourceDaemon, Kind: detector.KindBoot})
	for n := range w.gpus {
		w.emit(found(n))
		w.emit(detector.Event{Source: detector.SourceState, Kind: detector.KindFresh, GPU: gpu(n)})
	}
	w.plugin = w.newPlugin()
	serving, stop := context.WithCancel(ctx)
	var served sync.WaitGroup
	served.Go(func() {
		if err := w.plugin.Run(serving); err != nil {
			w.t.Errorf("run: %v", err)
		}
	})
	w.end = sync.OnceFunc(func() {
		stop()
		served.Wait()
		cancel()
		wg.Wait()
		dir.Close()
	})
	w.t.Cleanup(w.end)
}

func (w *world) newPlugin() *Plugin {
	w.t.Helper()
	specs, err := cdi.New(cdi.Options{Mode: w.config.CDI, Dir: w.path("cdi"), Host: w.dir})
	if err != nil {
		w.t.Fatal(err)
	}
	log := zap.NewNop()
	if testing.Verbose() {
		log = zaptest.NewLogger(w.t)
	}
	p, err := New(Options{
		Node: nodeName, Kube: w.kube, KubeletDir: w.dir, CDIDir: w.path("cdi"), Detector: w.detector, Specs: w.specs(specs),
		Look:   func(ctx context.Context, pci string) error { return w.look(ctx, pci) },
		Limits: func() pool.Limits { return pool.LimitsOf(1, 37) }, TenantLabel: func() string { return w.label },
		Withheld: func() string { return *w.rival.Load() },
		Config:   w.config, Begin: w.began, Log: log,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// kubelet waits until the driver is registered with the kubelet, which is started the
// first time, and stopped with the test.
func (w *world) kubelet(services []string) *kubelettest.Plugin {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if w.agent == nil {
		k, err := kubelettest.Start(w.dir, kubelettest.Options{Services: services})
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(k.Stop)
		w.agent = k
	} else if err := w.agent.Gone(ctx, w.driver); err != nil {
		w.t.Fatal(err)
	}
	var err error
	if w.driver, err = w.agent.Plugin(ctx, pool.DriverName); err != nil {
		w.t.Fatal(err)
	}
	return w.driver
}

// atWork is a world in which the kubelet knows the driver.
func atWork(t testing.TB) (*world, *kubelettest.Plugin) {
	t.Helper()
	w := newWorld(t)
	w.start()
	return w, w.kubelet(nil)
}

// prepare has the kubelet prepare claims, which must go well.
func (w *world) prepare(claims ...kubelettest.Claim) {
	w.t.Helper()
	if _, err := w.driver.Prepare(w.t.Context(), claims...); err != nil {
		w.t.Fatal(err)
	}
}

// unprepare has it give them back.
func (w *world) unprepare(claims ...kubelettest.Claim) {
	w.t.Helper()
	if err := w.driver.Unprepare(w.t.Context(), claims...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) emit(e detector.Event) { w.detector.Emit(e) }

func (w *world) xid(n, code int) {
	w.emit(detector.Event{Source: detector.SourceKernelLog, Kind: detector.KindXid, GPU: gpu(n), Xid: &detector.Report{Code: code}})
}

// held is the claim as the ledger has it; nil: it has not.
func (w *world) held(c kubelettest.Claim) *detector.Claim {
	held, _ := w.detector.Snapshot().Claim(c.UID)
	return held
}

// spec reports whether the claim has a CDI spec.
func (w *world) spec(c kubelettest.Claim) bool {
	w.t.Helper()
	_, err := os.Stat(w.path("cdi", "gpu.gpuvet.dev-claim_"+c.UID+".json"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	return err == nil
}

func gpu(n int) detector.Device {
	return detector.Device{PCI: fmt.Sprintf("0000:%02x:00.0", 0x10+n), UUID: fmt.Sprintf("GPU-%d", n)}
}

func device(n int) string { return fmt.Sprintf("gpu-0000-%02x-00-0", 0x10+n) }

func found(n int) detector.Event {
	return detector.Event{Source: detector.SourceState, Kind: detector.KindGPUFound, GPU: gpu(n), Fields: map[string]string{
		"index": strconv.Itoa(n), "minor": strconv.Itoa(n), "name": "NVIDIA H100 80GB HBM3", "architecture": "Hopper", "memoryBytes": "85899345920",
	}}
}

// allocate makes a claim with devices for a pod, and has the API server know it.
func (w *world) allocate(name, pod string, change func(*resourceapi.ResourceClaim), gpus ...int) kubelettest.Claim {
	w.t.Helper()
	c := claim(name, pod, gpus...)
	if change != nil {
		change(c)
	}
	claims := w.kube.ResourceV1().ResourceClaims(c.Namespace)
	_, err := claims.Create(context.Background(), c, metav1.CreateOptions{})
	if err != nil {
		if _, err = claims.Update(context.Background(), c, metav1.UpdateOptions{}); err != nil {
			w.t.Fatal(err)
		}
	}
	return kubelettest.Claim{Namespace: c.Namespace, Name: c.Name, UID: string(c.UID)}
}

func claim(name, pod string, gpus ...int) *resourceapi.ResourceClaim {
	c := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: name, UID: types.UID("uid-" + name)}}
	c.Status.ReservedFor = []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: pod, UID: types.UID("uid-" + pod)}}
	c.Status.Allocation = &resourceapi.AllocationResult{}
	for i, n := range gpus {
		c.Status.Allocation.Devices.Results = append(c.Status.Allocation.Devices.Results, resourceapi.DeviceRequestAllocationResult{
			Request: fmt.Sprintf("gpu-%d", i), Driver: pool.DriverName, Pool: nodeName, Device: device(n),
		})
	}
	return c
}

func (w *world) namespace(name string, labels map[string]string) {
	w.t.Helper()
	n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	if _, err := w.kube.CoreV1().Namespaces().Create(context.Background(), n, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}
