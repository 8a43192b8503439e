package exporter

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// scrapesAtOnce bounds how many scrapes are answered at a time; the next
	// one is told to come back.
	scrapesAtOnce = 4
	// scrapeLimit bounds one scrape. It is Prometheus' own default.
	scrapeLimit = 10 * time.Second
	// takeOverLimit is for how long a standby stays ready after it took over,
	// until it has looked for the GPUs: the kernel log's past comes first.
	takeOverLimit = 15 * time.Second
)

// Handler serves /metrics, the probes /healthz and /readyz, and a status page
// at /. Only GET and HEAD are answered.
//
// /healthz fails (503) only if [Sources].Alive does; /readyz until the GPUs
// were looked for, whatever was found. A standby that took over was ready before
// and stays so, for 15 s at most: its pod must not flap while its node changes over.
func (e *Exporter) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics(e.registry, e.started))
	mux.Handle("GET /healthz", probe(e.alive))
	mux.Handle("GET /readyz", probe(e.ready))
	mux.HandleFunc("GET /{$}", e.statusPage)
	return guarded(mux)
}

// metrics writes down what is registered.
func metrics(r *prometheus.Registry, started time.Time) http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		Registry:            r,
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: scrapesAtOnce,
		Timeout:             scrapeLimit,
		ProcessStartTime:    started,
	})
}

// guarded tells browsers to load nothing and to guess nothing.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// probe answers 200, or 503 with the reason.
func probe(ask func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if err := ask(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ok")
	})
}

func (e *Exporter) alive() error {
	if e.sources.Alive == nil {
		return nil
	}
	return e.sources.Alive()
}

var errNotReady = errors.New("the GPUs of this node have not been looked for yet")

func (e *Exporter) ready() error {
	if e.sources.Snapshot().Ready() || time.Since(e.sources.TookOver) < takeOverLimit {
		return nil
	}
	return errNotReady
}
