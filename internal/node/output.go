package node

import (
	"context"
	"iter"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"gpuvet.dev/detector"
)

// Nodes is the part of client-go's typed client for nodes that is used here.
type Nodes interface {
	Get(ctx context.Context, name string, o metav1.GetOptions) (*corev1.Node, error)
	Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error)
	Patch(ctx context.Context, name string, kind types.PatchType, data []byte, o metav1.PatchOptions, subresources ...string) (*corev1.Node, error)
}

// Events is the same for the events of the namespace default, where those about
// nodes live.
type Events interface {
	Create(ctx context.Context, e *corev1.Event, o metav1.CreateOptions) (*corev1.Event, error)
}

// Options say what an Output works with. Nodes, Events, NodeName and Submit are
// required; in a dry run Nodes and Events may be nil.
type Options struct {
	Nodes  Nodes
	Events Events
	// PodEvents are those of a namespace, for pods that hold a GPU. Nil: they are
	// told nothing.
	PodEvents func(namespace string) Events
	NodeName  string
	Config    Config
	// Fenced reports whether sick GPUs are kept from new work one by one, so that the
	// node need not be; see [Output.Look]. Nil: they are not.
	Fenced func() bool
	// Undecided reports whether Fenced cannot tell yet, as for a moment after a start:
	// the taint stays as it is meanwhile. Nil: it always can.
	Undecided func() bool
	// PluginChanged is called when [Output.PluginGPUs] answers otherwise than before.
	PluginChanged func()
	// Submit folds an event and returns when it is on disk: detector.Submit.
	Submit func(context.Context, detector.Event) (*detector.Snapshot, error)
	// History is where the Events come from; its zero value: there are none.
	History History
	// Observe is told of every call: its name, how long it took, how it ended.
	Observe func(call string, took time.Duration, err error)
	// Reconnect drops the connections. It is called when a call has met its
	// deadline, for a connection that died silently would take the next ones too.
	Reconnect func()
	Log       *zap.Logger
	// DryRun logs what would be written, and writes nothing.
	DryRun bool
}

// Output keeps the node's condition and taint at what the newest snapshot says.
type Output struct {
	options Options
	events  *teller
	wake    chan struct{}
	asked   chan struct{} // the node may ask for something

	mu       sync.Mutex // guards what follows
	snapshot *detector.Snapshot
	node     *observed
	plugin   *int64 // GPUs that a device plugin offers; nil: the node was not seen yet
	progress progress
}

type progress struct {
	seq uint64
	at  time.Time
	err error
}

// New makes an Output. Nothing is called before Run.
func New(o Options) *Output {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Observe == nil {
		o.Observe = func(string, time.Duration, error) {}
	}
	if o.Fenced == nil {
		o.Fenced = func() bool { return false }
	}
	if o.PluginChanged == nil {
		o.PluginChanged = func() {}
	}
	if o.Undecided == nil {
		o.Undecided = func() bool { return false }
	}
	if o.Reconnect == nil {
		o.Reconnect = func() {}
	}
	out := &Output{options: o, wake: make(chan struct{}, 1), asked: make(chan struct{}, 1)}
	out.events = newTeller(out)
	return out
}

// Run writes until ctx ends; snapshots must end with it. The condition and the
// taint stay as they are: a daemon that stops has repaired nothing.
func (o *Output) Run(ctx context.Context, snapshots iter.Seq[*detector.Snapshot]) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for s := range snapshots {
			if ctx.Err() != nil {
				return
			}
			o.take(s)
			o.events.look()
		}
	})
	if !o.options.DryRun {
		wg.Go(func() { o.watch(ctx) })
		wg.Go(func() { o.requests(ctx) })
	}
	wg.Go(func() { o.events.run(ctx) })
	w := newWriter(o)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-o.wake:
		case <-timer.C:
		}
		timer.Reset(max(time.Until(w.round(ctx)), 0))
	}
}

// Progress is the last snapshot that the node fully says, when that was, and
// what keeps it from saying the newest.
func (o *Output) Progress() (seq uint64, at time.Time, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.progress.seq, o.progress.at, o.progress.err
}

// Look has the node's condition and taint decided again: what Options.Fenced says
// may have changed.
func (o *Output) Look() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.poke()
}

// PluginGPUs is how many GPUs a device plugin offers on this node, as nvidia.com/gpu,
// when the node was seen last. It is not known before the node was seen.
func (o *Output) PluginGPUs() (n int64, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.plugin == nil {
		return 0, false
	}
	return *o.plugin, true
}

// take makes a snapshot the newest, unless a newer one came first.
func (o *Output) take(s *detector.Snapshot) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s == nil || o.snapshot != nil && s.Seq < o.snapshot.Seq {
		return
	}
	o.snapshot = s
	o.poke()
}

// see makes a version of the node the newest, unless a newer one came first:
// the watch may still tell of the time before our own write.
func (o *Output) see(n *corev1.Node) {
	seen := observe(n)
	o.mu.Lock()
	if o.node != nil && seen.number < o.node.number {
		o.mu.Unlock()
		return
	}
	news := o.plugin == nil || seen.plugin != *o.plugin
	o.node, o.plugin = seen, &seen.plugin
	o.poke()
	o.mu.Unlock()
	if news {
		o.options.PluginChanged()
	}
}

// lose says that what was seen of the node is not so any more.
func (o *Output) lose() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.node = nil
	o.poke()
}

func (o *Output) poke() {
	for _, c := range []chan struct{}{o.wake, o.asked} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (o *Output) newest() (*detector.Snapshot, *observed) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.snapshot, o.node
}

func (o *Output) applied(seq uint64, at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.progress = progress{seq: seq, at: at}
}

func (o *Output) hindered(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.progress.err = err
}
