// Package publish keeps the ResourceSlices of this node's pool at what the newest
// snapshot says.
//
// Bad news is written at once; improvements wait for each other and for a budget.
// The writing itself is the business of Kubernetes' ResourceSlice controller. What
// the API server has made of it is read back from there: whoever asks whether sick
// devices are fenced gets an answer about what is stored, not about what was sent.
package publish

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/dynamic-resource-allocation/resourceslice"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra/pool"
	"gpuvet.dev/internal/budget"
)

// Options say what a Publisher works with. Node and Client are required.
type Options struct {
	Node   string
	Client kubernetes.Interface
	// Forced publishes although another driver or a device plugin gives out the same
	// GPUs.
	Forced bool
	// PluginGPUs is how many GPUs a device plugin offers on this node; see
	// [Publisher.Look]. Until that is known nothing is published, unless Forced. Nil:
	// none.
	PluginGPUs func() (n int64, known bool)
	// Ready is nil if containers can be given a device; a device is first published
	// when they can. A nil Ready: always. It may take as long as it likes, and is called
	// for several devices at once.
	Ready func(pool.Device) error
	// Changed is called when [Publisher.Fences] may answer otherwise than before.
	Changed func()
	Log     *zap.Logger
}

// Mode says how sick devices are kept from new work.
type Mode string

// The modes.
const (
	Starting Mode = "starting"  // nothing is known of the API server yet
	Taints   Mode = "taints"    // by device taints
	Attr     Mode = "attribute" // by the attribute healthy alone: the API server keeps no taints
	Withheld Mode = "withheld"  // nothing is published
)

// Status is how publishing stands.
type Status struct {
	Mode    Mode
	Cause   string // why it is not Taints
	Server  string // version of the API server; empty: not known yet
	Devices int    // published
	Waiting int    // not published yet, because no container could be given them
	// Missing is why one of those could not.
	Missing string
	// What was written since the start.
	Creates, Updates, Deletes int64
}

// Publisher publishes. Its methods are safe for concurrent use.
type Publisher struct {
	o     Options
	wake  chan struct{}
	ask   chan struct{}                                       // the API server may be another version
	queue func() workqueue.TypedRateLimitingInterface[string] // for a controller, whose end is its end

	readiness readiness

	mu       sync.Mutex // guards what follows
	snapshot *detector.Snapshot
	stored   map[string]*resourceapi.ResourceSlice // of this node and any driver, by name; nil: not listed yet
	server   *server
	mode     Mode
	cause    string
	status   Status
	fences   bool      // as last told
	unclear  bool      // the same
	since    time.Time // when it became unclear; zero: Run has not begun
	seq      uint64
	at       time.Time
	err      error
}

// New makes a Publisher. Nothing is called before Run.
func New(o Options) *Publisher {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.PluginGPUs == nil {
		o.PluginGPUs = func() (int64, bool) { return 0, true }
	}
	if o.Ready == nil {
		o.Ready = func(pool.Device) error { return nil }
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	p := &Publisher{
		o: o, wake: make(chan struct{}, 1), ask: make(chan struct{}, 1), mode: Starting, status: Status{Mode: Starting}, unclear: true,
		queue: newQueue,
	}
	p.readiness = readiness{ask: o.Ready, tell: p.poke, looks: map[string]*look{}}
	return p
}

// newQueue makes the controller's queue. The limit of the library's own is a quarter of
// an hour: much too long after an outage of the API server.
func newQueue() workqueue.TypedRateLimitingInterface[string] {
	return workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](budget.FirstRetry, budget.LastRetry),
		workqueue.TypedRateLimitingQueueConfig[string]{Name: "resourceslices"},
	)
}

// Run publishes until ctx ends; snapshots must end with it. The slices stay: the
// kubelet takes them away if no daemon comes back.
func (p *Publisher) Run(ctx context.Context, snapshots iter.Seq[*detector.Snapshot]) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	p.begin()
	wg.Go(func() {
		for s := range snapshots {
			if ctx.Err() != nil {
				return
			}
			p.take(s)
		}
	})
	wg.Go(func() { p.watch(ctx) })
	wg.Go(func() { p.askVersions(ctx) })

	// The controller waits for up to a minute before it asks a second time: it asks
	// when there is an answer.
	for !p.listed() {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		}
	}
	w, err := newWriter(ctx, p)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer w.controller.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-timer.C:
		}
		timer.Reset(max(time.Until(w.round()), 0))
		p.tell(w)
	}
}

// Progress is the last snapshot that the stored slices fully say, when that was, and
// what keeps them from saying the newest.
func (p *Publisher) Progress() (seq uint64, at time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seq, p.at, p.err
}

// Status is how publishing stands.
func (p *Publisher) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// Fences reports whether sick devices are kept from new work one by one: the API
// server has our slices, keeps taints, and nobody else gives out the same GPUs.
func (p *Publisher) Fences() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fences
}

// Undecided reports whether it is not known yet if [Publisher.Fences] will hold, as
// for a moment after a start. Who would act on its answer waits: the slices of the
// daemon before still fence.
func (p *Publisher) Undecided() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unclear && (p.since.IsZero() || time.Since(p.since) < decision)
}

// Look has it decided again what to publish: what Options.PluginGPUs says may have
// changed.
func (p *Publisher) Look() { p.poke() }

func (p *Publisher) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		p.since = time.Now()
	}
}

// Limits are what the API server takes; the strictest ones until it has said what it
// is.
func (p *Publisher) Limits() pool.Limits {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil {
		return pool.LimitsOf(1, 34)
	}
	return p.server.limits
}

func (p *Publisher) take(s *detector.Snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s == nil || p.snapshot != nil && s.Seq < p.snapshot.Seq {
		return
	}
	p.snapshot = s
	p.poke()
}

// listed reports whether the API server has said which slices there are.
func (p *Publisher) listed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stored != nil
}

func (p *Publisher) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// tell brings what others see up to date after a round.
func (p *Publisher) tell(w *writer) {
	stats := w.controller.GetStats()
	p.mu.Lock()
	p.status = Status{
		Mode: p.mode, Cause: p.cause, Devices: w.devices, Waiting: w.waiting, Missing: w.missing,
		Creates: stats.NumCreates, Updates: stats.NumUpdates, Deletes: stats.NumDeletes,
	}
	if p.server != nil {
		p.status.Server = p.server.version
	}
	fences := p.mode == Taints && w.stands()
	unclear := p.mode == Starting || p.mode == Taints && !fences && w.hopes()
	if unclear && !p.unclear {
		p.since = time.Now()
	}
	changed := fences != p.fences || unclear != p.unclear
	p.fences, p.unclear = fences, unclear
	p.mu.Unlock()
	if changed {
		p.o.Changed()
	}
}

// enter changes the mode, and says so once.
func (p *Publisher) enter(m Mode, cause string) {
	p.mu.Lock()
	same := p.mode == m && p.cause == cause
	p.mode, p.cause = m, cause
	p.mu.Unlock()
	if same {
		return
	}
	fields := []zap.Field{zap.String("mode", string(m))}
	if cause != "" {
		fields = append(fields, zap.String("cause", cause))
	}
	if m == Taints {
		p.o.Log.Info("sick devices are fenced by device taints", fields...)
		return
	}
	p.o.Log.Warn("sick devices are not fenced by device taints", append(fields, zap.String("advice", m.advice()))...)
}

func (m Mode) advice() string {
	switch m {
	case Attr:
		return "turn on the feature gate DRADeviceTaints, or have DeviceClasses select on the attribute healthy; until then the node is tainted"
	case Withheld:
		return "take the other driver or device plugin off this node, or set dra.enabled to true"
	case Starting, Taints:
	}
	return ""
}

// own are the stored slices of this driver, by name.
func own(stored map[string]*resourceapi.ResourceSlice) []*resourceapi.ResourceSlice {
	var all []*resourceapi.ResourceSlice
	for _, s := range stored {
		if s.Spec.Driver == pool.DriverName {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *resourceapi.ResourceSlice) int {
		if a.Name < b.Name { // begins with the number within the pool
			return -1
		}
		return 1
	})
	return all
}

// nvidiaDriver gives out the same GPUs; its second driver, for ComputeDomains, does not.
const nvidiaDriver = "gpu.nvidia.com"

// rival says who else gives out the GPUs of this node; empty: nobody.
func (p *Publisher) rival(stored map[string]*resourceapi.ResourceSlice) string {
	for _, s := range stored {
		if s.Spec.Driver == nvidiaDriver && len(s.Spec.Devices) > 0 {
			return fmt.Sprintf("the driver %s publishes %d devices of this node", nvidiaDriver, len(s.Spec.Devices))
		}
	}
	if n, _ := p.o.PluginGPUs(); n > 0 {
		return fmt.Sprintf("a device plugin offers %d GPUs of this node as nvidia.com/gpu", n)
	}
	return ""
}

// says reports whether the stored slices have exactly these devices; without taints
// if the API server keeps none.
func says(stored []*resourceapi.ResourceSlice, want []resourceslice.Slice, taints bool) bool {
	if len(stored) != len(want) {
		return false
	}
	for i := range want {
		if stored[i].Spec.Pool.ResourceSliceCount != int64(len(want)) {
			return false
		}
		devices := want[i].Devices
		if !taints {
			devices = plain(devices)
		}
		if !resourceslice.DevicesDeepEqual(stored[i].Spec.Devices, devices) {
			return false
		}
	}
	return true
}

// plain are the devices without their taints.
func plain(devices []resourceapi.Device) []resourceapi.Device {
	all := slices.Clone(devices)
	for i := range all {
		all[i].Taints = nil
	}
	return all
}
