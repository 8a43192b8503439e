package exporter

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"gpuvet.dev/detector"
)

func TestStandbyIsReadyAndSaysForWhomItWaits(t *testing.T) {
	holder := "pid 4711 holds /var/lib/gpuvet"
	handler := Standby("v1.2.3", func() string { return holder })
	for _, path := range []string{"/", "/healthz", "/readyz"} {
		if code, body := get(handler, path); code != http.StatusOK || body != "standby: pid 4711 holds /var/lib/gpuvet\n" {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	holder = "pid 4712 holds /var/lib/gpuvet"
	if _, body := get(handler, "/readyz"); !strings.Contains(body, "4712") {
		t.Errorf("another daemon came in between: %q", body)
	}
	if code, _ := get(handler, "/api/v1/snapshot"); code != http.StatusNotFound {
		t.Errorf("what is not served: %d, want 404", code)
	}
}

func TestMetricsOfAStandbyAreAboutItselfAlone(t *testing.T) {
	_, body := get(Standby("v1.2.3", func() string { return "" }), "/metrics")
	var got []string
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "gpuvet_") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	want := []string{`gpuvet_build_info{goversion="` + goVersion() + `",version="v1.2.3"} 1`, "gpuvet_standby 1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !strings.Contains(body, "\nprocess_open_fds ") {
		t.Error("nothing about the process")
	}
}

// Prometheus takes one description of a family, whoever shows it.
func TestStandbyAndDaemonDescribeTheirFamiliesAlike(t *testing.T) {
	described := map[string]bool{}
	for _, d := range newCollector(healthyNode(1).sources, time.Now()).descs {
		described[d.String()] = true
	}
	ch := make(chan *prometheus.Desc, 1)
	constant(standingBy).Describe(ch)
	if d := <-ch; !described[d.String()] {
		t.Errorf("%v is not in the table", d)
	}
}

func TestStandbyThatTookOverStaysReadyUntilItHasLookedForTheGPUs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := healthyNode(0)
		n.snapshot.Driver = detector.DriverState{}
		n.sources.TookOver = time.Now()
		handler := New(n.sources).Handler()
		time.Sleep(takeOverLimit - time.Nanosecond)
		if code, body := get(handler, "/readyz"); code != http.StatusOK {
			t.Errorf("just taken over: %d %q, want 200", code, body)
		}
		if _, body := get(handler, "/metrics"); !strings.Contains(body, "\ngpuvet_standby 0\n") {
			t.Error("its metrics do not say that it stands by no more")
		}
		time.Sleep(time.Nanosecond)
		if code, _ := get(handler, "/readyz"); code != http.StatusServiceUnavailable {
			t.Errorf("without a look for %s: %d, want 503", takeOverLimit, code)
		}
	})
}

func TestSwitchLeavesRequestsUnderWayToTheHandlerBefore(t *testing.T) {
	var s Switch
	switched := make(chan struct{})
	s.Show(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.Show(http.NotFoundHandler())
		close(switched)
		_, _ = w.Write([]byte("before"))
	}))
	if code, body := get(&s, "/"); code != http.StatusOK || body != "before" {
		t.Errorf("under way: %d %q", code, body)
	}
	<-switched
	if code, _ := get(&s, "/"); code != http.StatusNotFound {
		t.Errorf("after it: %d, want 404", code)
	}
}
