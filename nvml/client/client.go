// Package client is the daemon's side of the door to NVML: an [nvml.Driver]
// that has worker processes do the asking, and outlives whatever happens to them.
//
// # Workers
//
// A worker is the program gpuvet-nvml; package wire is what is said to it. It
// is asked one question at a time. Where nothing is wrong there are two: one for
// questions, and one that waits for events. A question takes the idle worker, or
// waits for it. If none gets idle for a while ([Options.Patience]) another one is
// started, so that a call about one GPU never waits longer than that for a call
// about another; workers that are then too many are ended. Questions about one
// GPU are asked one after the other.
//
// # What does not come back
//
// A question that is not answered by its deadline has one culprit: the GPU that
// it is about. Its worker is stuck. It is kept and not killed, for killing a
// process within the driver has made GPUs useless until a reboot: it is that
// GPU's probe. While the probe is out, calls about the GPU fail at once with
// [nvml.ErrTimeout], and no other process is put at risk. When the late answer
// comes, the GPU is asked again. After [Options.Probation] the probe is killed,
// and once it is really gone another one may be sent.
//
// At most [Options.MaxStuck] stuck workers are kept. One more is killed at its
// deadline, and every call fails with [nvml.ErrStuck] until one of those kept
// comes back or is gone. A hang in what is about no GPU, opening and listing,
// means the same at once, with that worker as the probe.
//
// # What the workers do wrong
//
// A worker that has not greeted in time has not touched the driver: it is killed
// at once. One that dies fails the call that it was at, with how it ended and what it
// wrote to its standard error. The GPU of that call is then left alone for a
// while that grows from 100 ms to 5 s; if it died over no GPU, all of them are.
// Calls in that time fail at once with the cause. A worker that says what it was
// not asked, or what nobody can read, is ended, and counts as one that died.
//
// The client never waits for a stuck worker, and never blocks on a pipe.
package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/wire"
)

// Options say what the workers are and how long they are waited for. Zero
// values are the defaults.
type Options struct {
	Worker string // path of gpuvet-nvml
	// Library gives the path of the driver's library; an error means that there
	// is no driver. It is asked at each start of a worker, so that a driver which
	// arrives later, or is replaced, is found. Nil, or an empty path: the worker's
	// own default.
	// One call at a time is out, and one that does not return is left behind.
	Library func() (string, error)
	Sysfs   string   // what stands for /sys; empty: the worker's own default
	Env     []string // of the workers, beside that of this process

	// StartDeadline is that of Library, and of a worker's greeting: what comes
	// before the driver is touched. It is 1.5 s, so that a caller who waits for 2 s
	// hears what is wrong.
	StartDeadline time.Duration
	Deadline      time.Duration // of a question from the moment it is sent; 2 s
	// OpenDeadline is that of opening the driver, and of the first question about a
	// GPU, which may have the driver initialise it; 10 s.
	OpenDeadline time.Duration
	Patience     time.Duration // 500 ms; see the package comment
	Probation    time.Duration // for which a stuck worker is kept; 10 min
	Silence      time.Duration // after which one that waits for events is stuck; 3 heartbeats
	MaxStuck     int           // stuck workers that are kept; 4

	Log *zap.Logger // nil: none
}

// Client is an [nvml.Driver] that asks worker processes. It is made by [New].
type Client struct {
	o   Options
	log *zap.Logger

	running sync.WaitGroup // every goroutine; none is added once closed

	mu sync.Mutex // guards all below, and what is in workers, calls and GPUs

	closed    bool
	releases  int // Release calls that are under way
	launching int // processes that are being started

	workers  map[*worker]struct{} // whose process is not gone
	idle     *worker
	search   *search       // for the library; nil: none is under way
	starting bool          // a worker for questions is on its way
	waiting  []*call       // not yet sent
	progress time.Time     // a waiting question was last sent
	patience *time.Timer   // looks at waiting again
	hold     hold          // on starts
	moved    chan struct{} // closed when a worker or a GPU has changed its state

	wrongs    ration // of workers, in the log
	unstarted string // why the last start failed, as it is in the log; empty: it did not

	kept   []*worker // the stuck ones, in the order of their questions
	excess bool      // one more had to be killed
	stuck  error     // what every call fails with; nil: the driver answers
	since  time.Time // that is so
	silent *probe    // of the event stream

	gpus   map[string]*gpu // by PCI address
	load   string          // of the last list
	listed []string        // addresses of the last list, in PCI order

	listening int  // event streams
	deaf      bool // it is in the log that no events are heard
	breaks    ration
	counts    Stats
}

var _ nvml.Driver = (*Client)(nil)

var errClosed = errors.New("client is closed")

// New makes a client. It starts nothing: the first call does.
func New(o Options) *Client {
	o.StartDeadline = cmp.Or(o.StartDeadline, 1500*time.Millisecond)
	o.Deadline = cmp.Or(o.Deadline, 2*time.Second)
	o.OpenDeadline = cmp.Or(o.OpenDeadline, 10*time.Second)
	o.Patience = cmp.Or(o.Patience, 500*time.Millisecond)
	o.Probation = cmp.Or(o.Probation, 10*time.Minute)
	o.Silence = cmp.Or(o.Silence, 3*wire.Heartbeat*time.Second)
	o.MaxStuck = cmp.Or(o.MaxStuck, 4)
	log := o.Log
	if log == nil {
		log = zap.NewNop()
	}
	return &Client{
		o: o, log: log,
		workers: map[*worker]struct{}{},
		gpus:    map[string]*gpu{},
		moved:   make(chan struct{}),
	}
}

// Readings implements [nvml.Driver].
func (c *Client) Readings(ctx context.Context, pci string) (nvml.Readings, error) {
	a, err := c.ask(ctx, wire.Request{Ask: wire.AskReadings, GPU: pci}, nil)
	if err != nil {
		return nvml.Readings{}, fmt.Errorf("readings of %s: %w", pci, err)
	}
	return *a.Readings, nil
}

// Health implements [nvml.Driver].
func (c *Client) Health(ctx context.Context, pci string) (nvml.Health, error) {
	a, err := c.ask(ctx, wire.Request{Ask: wire.AskHealth, GPU: pci}, nil)
	if err != nil {
		return nvml.Health{}, fmt.Errorf("health of %s: %w", pci, err)
	}
	return *a.Health, nil
}

// Inventory implements [nvml.Driver]. Each inventory describes every GPU anew:
// MIG devices may come and go while nobody listens to events. One that cannot
// be described is listed as it was known under this loading of the driver.
func (c *Client) Inventory(ctx context.Context) (nvml.Inventory, error) {
	a, err := c.ask(ctx, wire.Request{Ask: wire.AskList}, nil)
	if err != nil {
		return nvml.Inventory{}, err // people read it as why there is no driver
	}
	c.mu.Lock()
	addresses := c.list(a.List)
	c.mu.Unlock()

	errs := make([]error, len(addresses))
	var all sync.WaitGroup
	// One that takes its time is listed in time, and described the next time.
	limited, cancel := context.WithTimeout(ctx, c.o.OpenDeadline/2)
	defer cancel()
	for i, pci := range addresses {
		all.Go(func() {
			_, errs[i] = c.ask(limited, wire.Request{Ask: wire.AskDescribe, GPU: pci}, nil)
		})
	}
	all.Wait()
	for _, err := range append(errs, expired(ctx)) {
		if aboutAll(err) || err != nil && ctx.Err() != nil {
			return nvml.Inventory{}, err
		}
	}

	inventory := nvml.Inventory{DriverVersion: a.List.Driver, CUDAVersion: a.List.CUDA, Load: a.List.Load}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, pci := range addresses {
		known := nvml.GPU{PCI: pci, Minor: -1}
		if g := c.gpus[pci]; g != nil && g.known != nil {
			known = *g.known
			known.Instances = slices.Clone(known.Instances)
		}
		inventory.GPUs = append(inventory.GPUs, known)
	}
	return inventory, nil
}

// aboutAll reports whether the cause concerns every GPU.
func aboutAll(err error) bool {
	for _, cause := range []error{nvml.ErrNoDriver, nvml.ErrStuck, nvml.ErrPaused, wire.ErrRenewed, errClosed} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

// list takes what the driver lists; it gives the addresses in PCI order. The
// lock is held.
func (c *Client) list(l *wire.List) []string {
	addresses := slices.Clone(l.GPUs)
	slices.Sort(addresses)
	addresses = slices.Compact(addresses)
	anew := l.Load != c.load
	if !anew && slices.Equal(addresses, c.listed) {
		return addresses
	}
	for pci, g := range c.gpus {
		if anew {
			g.known, g.awake = nil, false
		}
		if !slices.Contains(addresses, pci) && g.call == nil && g.probe == nil {
			delete(c.gpus, pci)
		}
	}
	for _, pci := range addresses {
		c.gpu(pci)
	}
	c.load, c.listed = l.Load, addresses
	c.signal()
	return addresses
}

// signal tells whoever waits on moved; the lock is held.
func (c *Client) signal() {
	close(c.moved)
	c.moved = make(chan struct{})
}
