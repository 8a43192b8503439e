package exporter

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"gpuvet.dev/detector"
)

func TestOnlyWhatIsServedIsAnswered(t *testing.T) {
	tests := []struct {
		method, path string
		want         int
	}{
		{"GET", "/", 200},
		{"HEAD", "/", 200},
		{"GET", "/metrics", 200},
		{"HEAD", "/metrics", 200},
		{"GET", "/healthz", 200},
		{"GET", "/readyz", 200},
		{"POST", "/metrics", 405},
		{"DELETE", "/healthz", 405},
		{"PUT", "/readyz", 405},
		{"POST", "/", 405},
		{"GET", "/metrics/", 404},
		{"GET", "/metrics/../../etc/passwd", 404},
		{"GET", "/api/v1/snapshot", 404},
		{"GET", "/debug/pprof/", 404},
		{"POST", "/api/v1/clear", 404},
	}
	handler := New(healthyNode(1).sources).Handler()
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			request := httptest.NewRequest(tt.method, "/", nil)
			request.URL.Path = tt.path
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, request)
			got := w.Code
			if got == http.StatusMovedPermanently || got == http.StatusTemporaryRedirect {
				got = follow(handler, tt.method, w.Header().Get("Location"))
			}
			if got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
			if allow := w.Header().Get("Allow"); tt.want == 405 && allow != "GET, HEAD" {
				t.Errorf("Allow is %q", allow)
			}
		})
	}
}

func follow(handler http.Handler, method, location string) int {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(method, location, nil))
	return w.Code
}

func TestMetricsAreServedInTheFormatThatIsAskedFor(t *testing.T) {
	handler := New(healthyNode(1).sources).Handler()
	for accept, want := range map[string]string{
		"":                             "text/plain; version=0.0.4",
		"application/openmetrics-text": "application/openmetrics-text; version=0.0.1",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited": "application/vnd.google.protobuf",
	} {
		w := httptest.NewRecorder()
		request := httptest.NewRequest("GET", "/metrics", nil)
		request.Header.Set("Accept", accept)
		handler.ServeHTTP(w, request)
		if got := w.Header().Get("Content-Type"); w.Code != 200 || !strings.HasPrefix(got, want) {
			t.Errorf("Accept %q: %d, %s, want %s", accept, w.Code, got, want)
		}
		if strings.HasPrefix(want, "text") {
			continue
		}
		if strings.Contains(w.Body.String(), "_created") {
			t.Errorf("Accept %q: created timestamps are series of their own", accept)
		}
	}
}

func TestServedMetricsAreThoseOfTheNodeTheRuntimeAndTheProcess(t *testing.T) {
	w := httptest.NewRecorder()
	New(healthyNode(1).sources).Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"gpuvet_gpu_up", "gpuvet_build_info", "go_goroutines", "process_open_fds", "promhttp_metric_handler_errors_total",
	} {
		if families[name] == nil {
			t.Errorf("%s is not served", name)
		}
	}
	for _, m := range families["promhttp_metric_handler_errors_total"].GetMetric() {
		if m.GetCounter().GetValue() != 0 {
			t.Errorf("gathering or encoding failed: %v", m)
		}
	}
}

func TestLivenessIsWhatTheSourceSays(t *testing.T) {
	n := healthyNode(1)
	n.snapshot.Driver = detector.DriverState{}
	n.sample = nil
	var stuck error
	n.sources.Alive = func() error { return stuck }
	handler := New(n.sources).Handler()
	if code, body := get(handler, "/healthz"); code != 200 {
		t.Errorf("alive and nothing else: %d %s", code, body)
	}
	stuck = errors.New("the fold has not answered for 5 s")
	if code, body := get(handler, "/healthz"); code != 503 || !strings.Contains(body, "fold has not answered") {
		t.Errorf("stuck: %d %q, want 503 with the reason", code, body)
	}
	if code, _ := get(handler, "/metrics"); code != 200 {
		t.Errorf("metrics while stuck: %d, want 200", code)
	}
}

func TestReadyMeansThatTheGPUsWereLookedFor(t *testing.T) {
	tests := []struct {
		name   string
		driver detector.DriverState
		want   int
	}{
		{"not yet", detector.DriverState{}, 503},
		{"driver and GPUs", detector.DriverState{Version: "570.195.03", Asked: true}, 200},
		{"no driver", detector.DriverState{Missing: "no NVIDIA driver", Asked: true}, 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := healthyNode(0)
			n.snapshot.Driver = tt.driver
			code, body := get(New(n.sources).Handler(), "/readyz")
			if code != tt.want {
				t.Errorf("got %d %q, want %d", code, body, tt.want)
			}
			if code == 503 && !strings.Contains(body, "not been looked for") {
				t.Errorf("no reason in %q", body)
			}
		})
	}
}

func TestStatusPageTellsPeople(t *testing.T) {
	tests := []struct {
		name      string
		node      func() *node
		want, not []string
	}{
		{
			"healthy", func() *node { return healthyNode(2) },
			[]string{"v1.2.3", "Driver 570.195.03, CUDA 12.8", "0000:1b:00.0", "NVIDIA H100 80GB HBM3", `class="Healthy"`, "41 °C", "97 %", `href="metrics"`},
			[]string{"Unhealthy</td>", "No GPUs"},
		},
		{
			"troubled", troubledNode,
			[]string{"GPULost (Xid 79): reboot-node", `class="Unhealthy"`, `class="Unknown"`, "Node: FabricFault, SXid 20034"},
			nil,
		},
		{"no driver", noDriver, []string{"There is no working driver: no NVIDIA driver", "No GPUs."}, []string{"<table>"}},
		{"too early", func() *node {
			n := noDriver()
			n.snapshot.Driver = detector.DriverState{}
			return n
		}, []string{"have not been looked for yet"}, nil},
		{"hostile", func() *node {
			n := healthyNode(1)
			n.snapshot.GPUs[0].Name = `<script>alert("x")</script>`
			n.snapshot.GPUs[0].UUID = `"><img src=x>`
			n.snapshot.Driver.Version = "<b>"
			return n
		}, []string{"&lt;script&gt;"}, []string{"<script", "<img", "<b>"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			New(tt.node().sources).Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			body := w.Body.String()
			if got := w.Header().Get("Content-Type"); w.Code != 200 || got != "text/html; charset=utf-8" {
				t.Errorf("got %d, %s", w.Code, got)
			}
			for _, want := range tt.want {
				if !strings.Contains(body, want) {
					t.Errorf("%q is missing", want)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(body, not) {
					t.Errorf("%q is there", not)
				}
			}
			if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
				t.Errorf("content security policy is %q", csp)
			}
			if t.Failed() {
				t.Log(body)
			}
		})
	}
}

func get(handler http.Handler, path string) (int, string) {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	body, _ := io.ReadAll(w.Body)
	return w.Code, string(body)
}
