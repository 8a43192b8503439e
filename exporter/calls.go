package exporter

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// calls measures the calls to other systems. They happen between scrapes, so
// that they are the one thing counted here.
type calls struct {
	durations *prometheus.HistogramVec
	errors    *prometheus.CounterVec
}

func newCalls() *calls {
	labels := []string{"target", "call"}
	return &calls{
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gpuvet_call_duration_seconds",
			Help: "What calls to other systems took, by target (kubernetes, nvml) and call.",
			// Few classic buckets for servers that take no native histograms: the
			// last two are around the deadlines, 2 s for NVML and 10 s for the API.
			Buckets:                         []float64{0.001, 0.005, 0.025, 0.1, 0.5, 2, 10},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, labels),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gpuvet_call_errors_total",
			Help: "Calls to other systems that failed, by target and call.",
		}, labels),
	}
}

func (c *calls) observe(target, call string, took time.Duration, err error) {
	c.durations.WithLabelValues(target, call).Observe(took.Seconds())
	// Made with the first call: an increase from nothing is invisible.
	failed := c.errors.WithLabelValues(target, call)
	if err != nil {
		failed.Inc()
	}
}
