// Package exporter shows the node's GPUs and the daemon over HTTP: metrics for
// Prometheus, the two probes, a status page for people, and the local API that
// the command line asks.
//
// A scrape asks nobody: it writes down the newest snapshot of the detector and
// the newest sample of NVML, so that a GPU that hangs delays no scrape and
// hides no other GPU. What a GPU cannot say, or has not said lately, has no
// series: absent is not zero, and no old reading is shown as a new one. A GPU
// that is lost keeps its identity, its status, its conditions and its Xid
// counters.
//
// Every series of a GPU has two labels of identity: uuid, and gpu, its index in
// PCI order. A GPU that never told its UUID goes by its PCI address instead,
// and one that was never listed by the driver has an empty gpu label.
// Everything else about a GPU is in the labels of gpuvet_gpu_info.
package exporter

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml"
)

// Sources are what the exporter shows. All but Snapshot may be left out: what
// nobody tells has no series. Its functions are called at every scrape, from
// many goroutines, and must not block.
type Sources struct {
	Version string
	// Policy gives the one in force.
	Policy func() *detector.Policy
	// Configuration tells how the last look at the configuration file went.
	Configuration func() Configuration
	// Snapshot gives the newest one, never nil.
	Snapshot func() *detector.Snapshot
	Sample   func() *nvml.Sample
	// KernelLog is nil where no kernel log is read.
	KernelLog KernelLog
	Kept      func() detector.Kept
	Outputs   []Output
	// AcceptsUserLines tells that anyone may write kernel-log lines that count:
	// the switch of tests.
	AcceptsUserLines bool
	// Scripted tells that a script stands for driver and GPUs.
	Scripted bool
	// Freshness is for how long an answer of a GPU counts; 0: as the sample says.
	Freshness time.Duration
	// NVML tells whether NVML is closed while there is a pause, and what was found
	// to hold the driver if it is not; nil: nothing ever does.
	NVML func() (closed bool, held error)
	// Workers tells of the processes that ask NVML; nil: there are none.
	Workers func() Workers
	// Allocation tells of the DRA driver; nil: there is none.
	Allocation func() Allocation
	// Alive fails when the daemon should be started again.
	Alive func() error
	// TookOver is when a standby became the daemon of its node; zero: it did not
	// stand by.
	TookOver time.Time
}

// KernelLog tells how reading the kernel log is going.
type KernelLog interface {
	Records() uint64 // read since the start
	Spoofed() uint64 // of those, that only looked like the driver's
	Reading() bool
}

// Workers are the processes that ask NVML, since the daemon was started.
type Workers struct {
	Started uint64
	Died    uint64 // though nobody wanted it
	Killed  uint64
	Stuck   int  // at present: their call about a GPU is out past its deadline
	Events  bool // whether the driver's events are listened to
}

// Output is a part of the daemon that brings snapshots to somebody.
type Output struct {
	Name     string // label and field value: node, dra
	Progress func() Progress
}

// Progress is how far an output has come.
type Progress struct {
	Seq uint64    // of the last snapshot applied; 0: none yet
	At  time.Time // when that was
	Err error     // of the last attempt; nil if it went well
}

// Exporter serves what its sources tell.
type Exporter struct {
	sources  Sources
	started  time.Time
	registry *prometheus.Registry
	calls    *calls
	claims   *claims
}

// New makes an exporter with a registry of its own. It asks its sources nothing
// before the first request.
func New(s Sources) *Exporter {
	e := &Exporter{sources: s, started: time.Now(), registry: prometheus.NewRegistry(), calls: newCalls(), claims: newClaims()}
	e.register(e.registry)
	return e
}

// register adds everything that a scrape shows. All names are fixed at compile
// time, so that a refusal is a bug.
func (e *Exporter) register(r prometheus.Registerer) {
	r.MustRegister(
		newCollector(e.sources, e.started),
		e.calls.durations, e.calls.errors,
		e.claims.durations, e.claims.errors, e.claims.underWay,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
}

// ObserveCall counts one call to another system: target is kubernetes or nvml,
// call one of a few fixed words. It is safe for concurrent use.
func (e *Exporter) ObserveCall(target, call string, took time.Duration, err error) {
	e.calls.observe(target, call, took, err)
}

func goVersion() string { return runtime.Version() }
