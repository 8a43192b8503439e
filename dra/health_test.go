package dra

import (
	"context"
	"errors"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra/cdi"
	"gpuvet.dev/dra/kubelettest"
	"gpuvet.dev/dra/pool"
)

func TestKubeletHearsOfHealthAsItChanges(t *testing.T) {
	t.Parallel()
	for name, services := range map[string][]string{"v1": kubelettest.Services137, "v1alpha1": kubelettest.Services134} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.start()
			next, stop := iter.Pull2(w.kubelet(services).Watch(t.Context()))
			defer stop()
			report := func() []kubelettest.Health {
				t.Helper()
				got, err, ok := next()
				if err != nil || !ok {
					t.Fatalf("no report: %v", err)
				}
				for i := range got {
					if age := time.Since(got[i].Updated); age < 0 || age > 10*time.Second || got[i].Lease != time.Minute {
						t.Errorf("%s: as of %v ago, for %v", got[i].Device, age, got[i].Lease)
					}
					got[i].Updated, got[i].Lease = time.Time{}, 0
				}
				return got
			}
			healthy := kubelettest.Health{Pool: nodeName, Device: device(1), Health: "HEALTHY"}
			if diff := cmp.Diff([]kubelettest.Health{{Pool: nodeName, Device: device(0), Health: "HEALTHY"}, healthy}, report()); diff != "" {
				t.Fatalf("first (-want +got):\n%s", diff)
			}
			w.emit(xid(31)) // changes nothing, and is not told
			w.emit(xid(79))
			got := report()
			if got[0].Health != "UNHEALTHY" || got[1] != healthy {
				t.Errorf("after the Xid: %+v", got)
			}
			for _, text := range []string{"GPULost since ", "(Xid 79): reboot the node"} {
				if !strings.Contains(got[0].Message, text) {
					t.Errorf("message %q without %q", got[0].Message, text)
				}
			}
		})
	}
}

func TestHealthInTheKubeletsWords(t *testing.T) {
	for name, c := range map[string]struct {
		events  []detector.Event
		want    kubeletplugin.HealthStatus
		message string
	}{
		"healthy":       {nil, kubeletplugin.HealthStatusHealthy, ""},
		"degraded":      {[]detector.Event{fact(detector.KindRemapPending, "pending", "true")}, kubeletplugin.HealthStatusHealthy, "RowRemapPending since "},
		"fenced":        {[]detector.Event{xid(48)}, kubeletplugin.HealthStatusUnhealthy, "UncorrectableMemory since "},
		"stale":         {[]detector.Event{fact(detector.KindStale)}, kubeletplugin.HealthStatusUnknown, "no fresh reading"},
		"lost, stale":   {[]detector.Event{xid(79), fact(detector.KindStale)}, kubeletplugin.HealthStatusUnhealthy, "GPULost since "},
		"driver hangs":  {[]detector.Event{{Source: detector.SourceState, Kind: detector.KindDriverStuck}}, kubeletplugin.HealthStatusUnhealthy, "DriverStuck since "},
		"nobody looks":  {[]detector.Event{{Source: detector.SourceHand, Kind: detector.KindPaused, Fields: map[string]string{"for": "10m", "author": "anna", "why": "firmware"}}}, kubeletplugin.HealthStatusUnknown, "not monitored: "},
		"application's": {[]detector.Event{xid(31)}, kubeletplugin.HealthStatusHealthy, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := quiet(2)
			for _, e := range c.events {
				d.Emit(e)
			}
			p := Plugin{o: Options{Node: nodeName, Limits: func() pool.Limits { return pool.LimitsOf(1, 37) }}}
			got := p.health(d.Snapshot())
			if len(got) != 2 || got[0].Health != c.want || !strings.HasPrefix(got[0].Message, c.message) || c.message == "" && got[0].Message != "" {
				t.Errorf("%+v, want %s, %q", got, c.want, c.message)
			}
		})
	}
}

func TestLongMessageIsCutWhereTheKubeletWouldCutIt(t *testing.T) {
	got := bounded(strings.Repeat("é", 1000))
	if len(got) > maxHealthMessage || len(got) < maxHealthMessage-2 || !strings.HasSuffix(got, "é...") {
		t.Errorf("%d bytes: …%q", len(got), got[len(got)-8:])
	}
}

// quiet is a detector without a disk, which knows some GPUs.
func quiet(gpus int) *detector.Detector {
	d := detector.New(detector.Config{Policy: detector.DefaultPolicy(), Boot: "boot-1", Uptime: time.Hour})
	d.Emit(detector.Event{Source: detector.SourceDaemon, Kind: detector.KindBoot})
	for n := range gpus {
		d.Emit(found(n))
		d.Emit(detector.Event{Source: detector.SourceState, Kind: detector.KindFresh, GPU: gpu(n)})
	}
	return d
}

// stuck is a detector whose fold may be stuck.
type stuck struct {
	*detector.Detector
	is atomic.Bool
}

func (s *stuck) Alive() error {
	if s.is.Load() {
		return errors.New("stuck")
	}
	return s.Detector.Alive()
}

func TestHealthIsToldAgainWhileTheFoldIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &stuck{Detector: quiet(1)}
		p, err := New(Options{
			Node: nodeName, Kube: fake.NewClientset(), KubeletDir: "/nowhere", CDIDir: "/nowhere", Detector: d, Specs: new(cdi.Specs), Config: DefaultConfig(),
			Look: func(context.Context, string) error { return nil }, Limits: func() pool.Limits { return pool.LimitsOf(1, 37) },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		reports := make(chan kubeletplugin.DeviceHealthReport)
		ended := make(chan error)
		go func() { ended <- (&session{plugin: p}).WatchHealthStatus(ctx, reports) }()
		n := 0
		count := func(during time.Duration) int {
			n = 0
			for end := time.After(during); ; {
				select {
				case r := <-reports:
					n++
					if !r.Devices[0].LastUpdated.Equal(time.Now()) {
						t.Errorf("as of %v, it is %v", r.Devices[0].LastUpdated, time.Now())
					}
				case <-end:
					return n
				}
			}
		}
		if got := count(time.Minute + time.Second); got != 7 {
			t.Errorf("%d reports within a minute, want the first and 6 more", got)
		}
		d.is.Store(true)
		if got := count(time.Minute); got != 0 {
			t.Errorf("%d reports of a fold that is stuck", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestStormIsNotJudgedEventByEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := quiet(1)
		var judged atomic.Int64
		p, err := New(Options{
			Node: nodeName, Kube: fake.NewClientset(), KubeletDir: "/nowhere", CDIDir: "/nowhere", Detector: d, Specs: new(cdi.Specs), Config: DefaultConfig(),
			Look: func(context.Context, string) error { return nil }, Limits: func() pool.Limits { judged.Add(1); return pool.LimitsOf(1, 37) },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		reports := make(chan kubeletplugin.DeviceHealthReport, 100)
		ended := make(chan error)
		go func() { ended <- (&session{plugin: p}).WatchHealthStatus(ctx, reports) }()
		pass(time.Second)
		judged.Store(0)
		for range 1000 {
			d.Emit(xid(31))
			pass(time.Millisecond)
		}
		if n := judged.Load(); n > 25 {
			t.Errorf("1000 events within a second were judged %d times", n)
		}
		began := time.Now()
		d.Emit(xid(79))
		<-reports // the first
		if r := <-reports; r.Devices[0].Health != kubeletplugin.HealthStatusUnhealthy || time.Since(began) > 100*time.Millisecond {
			t.Errorf("after %v it is %v", time.Since(began), r.Devices[0].Health)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
