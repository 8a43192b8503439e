package exporter

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"
)

// BenchmarkScrape8GPUs is the budget of a scrape: p50 at most 3 ms for 8 GPUs,
// and 3 ms of processor time per 1000 series.
func BenchmarkScrape8GPUs(b *testing.B) {
	for _, encoding := range []string{"identity", "gzip"} {
		b.Run(encoding, func(b *testing.B) {
			e := testExporter{New(benchmarkNode().sources)}
			handler := e.Handler()
			request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
			request.Header.Set("Accept-Encoding", encoding)
			families, err := e.registry.Gather()
			if err != nil {
				b.Fatal(err)
			}
			series := 0
			for _, f := range families {
				series += len(f.GetMetric())
			}
			took := make([]time.Duration, 0, 1<<16)
			var bytes int64
			b.ReportAllocs()
			for b.Loop() {
				began := time.Now()
				w := discard{header: http.Header{}}
				handler.ServeHTTP(&w, request)
				took = append(took, time.Since(began))
				bytes = w.written
			}
			slices.Sort(took)
			b.ReportMetric(float64(series), "series")
			b.ReportMetric(float64(bytes), "bytes")
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

// BenchmarkWrite8GPUs is our own part of a scrape: from the snapshot to values.
func BenchmarkWrite8GPUs(b *testing.B) {
	c := newCollector(benchmarkNode().sources, time.Now())
	b.ReportAllocs()
	for b.Loop() {
		c.write()
	}
}

func benchmarkNode() *node {
	n := healthyNode(8)
	// The readings must not grow old in the course of a long run.
	n.sources.Freshness = time.Hour
	return n
}

type discard struct {
	header  http.Header
	written int64
}

func (d *discard) Header() http.Header { return d.header }
func (d *discard) WriteHeader(int)     {}
func (d *discard) Write(p []byte) (int, error) {
	n, err := io.Discard.Write(p)
	d.written += int64(n)
	return n, err
}
