package exporter

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Standby serves the paths of [Exporter.Handler] for a daemon that waits for
// another one to end. Both probes answer 200: it is ready to take over, and
// knows nothing of the GPUs. waiting says for whom, at every request.
func Standby(version string, waiting func() string) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(
		constant(buildInfo, version, goVersion()), constant(standingBy),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	say := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "standby: "+waiting())
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics(r, time.Now()))
	mux.HandleFunc("GET /healthz", say)
	mux.HandleFunc("GET /readyz", say)
	mux.HandleFunc("GET /{$}", say)
	return guarded(mux)
}

// constant is the one series of a family that is 1 for as long as it is shown.
func constant(f family, labels ...string) prometheus.Collector {
	row := table[f]
	pairs := prometheus.Labels{}
	for i, name := range row.labels {
		pairs[name] = labels[i]
	}
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: row.name, Help: row.help, ConstLabels: pairs})
	g.Set(1)
	return g
}

// Switch is a handler that is replaced while it serves. [Switch.Show] comes
// before the first request; requests under way are not disturbed by it.
type Switch struct{ shown atomic.Pointer[http.Handler] }

// Show has a handler answer from now on.
func (s *Switch) Show(h http.Handler) { s.shown.Store(&h) }

// ServeHTTP implements [http.Handler].
func (s *Switch) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*s.shown.Load()).ServeHTTP(w, r) }
