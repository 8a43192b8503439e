package exporter

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gpuvet.dev/detector"
)

// Allocation tells how the DRA driver stands. Its fields in JSON are those of the
// local API.
type Allocation struct {
	// Mode is how sick devices are kept from new work: starting, taints, attribute or
	// withheld.
	Mode    string `json:"mode"`
	Cause   string `json:"cause,omitempty"`  // why it is not taints
	Server  string `json:"server,omitempty"` // version of the API server
	Devices int    `json:"devices"`          // published
	Waiting int    `json:"waiting"`          // not published, because no container could be given them
	// Missing is why one of those could not.
	Missing string `json:"missing,omitempty"`
	// Registered: the kubelet knows the driver. Unregistered says why not.
	Registered   bool   `json:"registered"`
	Unregistered string `json:"unregistered,omitempty"`
	// Slices written since the start.
	Creates int64 `json:"sliceCreates"`
	Updates int64 `json:"sliceUpdates"`
	Deletes int64 `json:"sliceDeletes"`
}

// amiss says what keeps GPUs from being offered, or sick ones from being fenced.
func (a *Allocation) amiss() []string {
	var all []string
	switch a.Mode {
	case "starting":
		all = append(all, "dra: nothing is known of the API server yet, and no slices are published")
	case "attribute":
		all = append(all, "dra: sick devices have no taints: "+a.Cause)
	case "withheld":
		all = append(all, "dra: nothing is published: "+a.Cause)
	}
	if a.Waiting > 0 {
		all = append(all, fmt.Sprintf("dra: %d of %d devices are published; no container could be given the others: %s", a.Devices, a.Devices+a.Waiting, a.Missing))
	}
	if !a.Registered {
		all = append(all, "dra: no claim can be prepared: "+a.Unregistered)
	}
	return all
}

// allocationModes are the values of the label mode.
var allocationModes = []string{"starting", "taints", "attribute", "withheld"}

// allocation writes what is about the DRA driver.
func (p *page) allocation(a Allocation, claims []*detector.Claim) {
	for _, mode := range allocationModes {
		p.flag(draMode, a.Mode == mode, mode)
	}
	p.flag(draRegistered, a.Registered)
	p.put(draDevices, float64(a.Devices), "published")
	p.put(draDevices, float64(a.Waiting), "waiting")
	p.put(draWrites, float64(a.Creates), "create")
	p.put(draWrites, float64(a.Updates), "update")
	p.put(draWrites, float64(a.Deletes), "delete")
	prepared := 0
	for _, c := range claims {
		if c.Prepared {
			prepared++
		}
	}
	p.put(draClaims, float64(prepared), "prepared")
	p.put(draClaims, float64(len(claims)-prepared), "intended")
}

// claims measures what is done to claims, as calls does for calls to others.
type claims struct {
	durations *prometheus.HistogramVec
	errors    *prometheus.CounterVec
	underWay  *prometheus.GaugeVec
}

func newClaims() *claims {
	return &claims{
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gpuvet_dra_operation_duration_seconds",
			Help: "What preparing a claim, giving it back and sweeping it took, by operation.",
			// The look at the GPUs before a claim is prepared may take a second.
			Buckets:                         []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"operation"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gpuvet_dra_operation_errors_total",
			Help: "Operations on claims that failed, by operation and kind: unfit is a device with a fault.",
		}, []string{"operation", "kind"}),
		underWay: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gpuvet_dra_operations_in_flight",
			Help: "Operations on claims that are under way.",
		}, []string{"operation"}),
	}
}

// BeginClaim counts one operation on a claim; what it returns is told how that ended:
// the kind of the error, empty for none. Both are a few fixed words. It is safe for
// concurrent use.
func (e *Exporter) BeginClaim(operation string) (end func(kind string)) {
	began := time.Now()
	underWay := e.claims.underWay.WithLabelValues(operation)
	underWay.Inc()
	return func(kind string) {
		underWay.Dec()
		e.claims.durations.WithLabelValues(operation).Observe(time.Since(began).Seconds())
		if kind != "" {
			e.claims.errors.WithLabelValues(operation, kind).Inc()
		}
	}
}
