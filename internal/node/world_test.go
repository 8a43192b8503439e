package node

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"gpuvet.dev/detector"
)

// world is a daemon with a real detector, its disk, and an API server. A daemon
// that is killed leaves what is on the disk, and nothing else.
type world struct {
	*testing.T
	api    *api
	config Config
	dry    bool
	booted time.Time

	disk   []byte
	broken atomic.Bool // the disk refuses
	fenced atomic.Bool // sick GPUs are fenced one by one
	// undecided: that is not known yet
	undecided atomic.Bool
	plugged   atomic.Int64 // how often a device plugin was news
	cursor    uint64
	silent    map[int]bool // the GPUs that do not answer
	logs      *observer.ObservedLogs

	detector *detector.Detector
	output   *Output
	life     *life
}

// life is one process.
type life struct {
	mu     sync.Mutex
	dead   bool
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// inWorld runs a test on a clock of its own.
func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, api: newAPI(), config: DefaultConfig(), silent: map[int]bool{}, booted: time.Now().Add(-time.Hour)}
		w.api.connect(t)
		defer w.kill()
		test(w)
	})
}

// disk is what a process sees of the disk while it lives.
type disk struct {
	w    *world
	life *life
}

func (d disk) Save(payload []byte) error {
	d.life.mu.Lock()
	defer d.life.mu.Unlock()
	if d.life.dead {
		return errors.New("killed")
	}
	if d.w.broken.Load() {
		return errors.New("no space left on device")
	}
	d.w.disk = payload
	return nil
}

// start starts a daemon on what the disk has.
func (w *world) start() {
	w.Helper()
	var saved detector.Saved
	if w.disk != nil {
		var err error
		if saved, err = detector.DecodeSaved(w.disk); err != nil {
			w.Fatal(err)
		}
	}
	core, logs := observer.New(zapcore.InfoLevel)
	w.logs = logs
	ctx, cancel := context.WithCancel(w.Context())
	l := &life{cancel: cancel}
	d := detector.New(detector.Config{Policy: detector.DefaultPolicy(), Saved: saved, Boot: "b", Uptime: time.Since(w.booted), Store: disk{w, l}})
	w.life, w.detector = l, d
	w.output = New(Options{
		Nodes: w.api.client.Nodes(), Events: w.api.client.Events("default"), NodeName: nodeName, Config: w.config,
		PodEvents: func(namespace string) Events { return w.api.client.Events(namespace) }, Fenced: w.fenced.Load, Undecided: w.undecided.Load, PluginChanged: func() { w.plugged.Add(1) },
		Submit: func(ctx context.Context, e detector.Event) (*detector.Snapshot, error) {
			l.mu.Lock()
			dead := l.dead
			l.mu.Unlock()
			if dead {
				return nil, errors.New("killed")
			}
			return d.Submit(ctx, e)
		},
		History: History{Read: w.read, Cursor: func() uint64 { return w.cursor }, SetCursor: func(n uint64) { w.cursor = n }},
		Log:     zap.New(core), DryRun: w.dry,
	})
	l.wg.Go(func() { _ = d.Run(ctx) })
	l.wg.Go(func() {
		if err := w.output.Run(ctx, d.Watch(ctx)); err != nil {
			w.Errorf("Run = %v, want nil on cancel", err)
		}
	})
}

// die is kill -9 as far as others can see it: nothing is saved, submitted or
// sent any more. It may be called from any goroutine.
func (l *life) die() {
	l.mu.Lock()
	l.dead = true
	l.mu.Unlock()
	l.cancel()
}

func (w *world) kill() {
	if w.life != nil {
		w.life.die()
		w.life.wg.Wait()
		w.life = nil
	}
}

// read serves what the newest snapshots have shown, as a trail would.
func (w *world) read(after uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for _, t := range w.detector.Snapshot().Transitions {
			if t.Seq > after && !yield(Record{Position: t.Seq, Transitions: []detector.Transition{t}}, nil) {
				return
			}
		}
	}
}

func pci(i int) string { return fmt.Sprintf("0000:%02x:00.0", 0x10+i) }

func (w *world) emit(kind detector.Kind, gpu int, fields map[string]string) {
	e := detector.Event{Source: detector.SourceState, Kind: kind, Fields: fields}
	if gpu >= 0 {
		e.GPU = detector.Device{PCI: pci(gpu), UUID: fmt.Sprintf("GPU-%d", gpu)}
	}
	w.detector.Emit(e)
}

// look is the inventory of n GPUs that answer, but for those that are lost.
func (w *world) look(n int) {
	w.emit(detector.KindBoot, -1, map[string]string{"version": "test"})
	w.emit(detector.KindDriverLoaded, -1, map[string]string{"version": "570.1", "load": "1"})
	for i := range n {
		w.emit(detector.KindGPUFound, i, map[string]string{"index": fmt.Sprint(i)})
		if !w.silent[i] {
			w.emit(detector.KindFresh, i, nil)
		}
	}
}

// begin starts a daemon on n good GPUs and lets it say so.
func (w *world) begin(n int) {
	w.start()
	w.look(n)
	w.goodNews()
	w.api.written()
}

func (w *world) xid(gpu, code int) {
	w.detector.Emit(detector.Event{
		Source: detector.SourceKernelLog, Kind: detector.KindXid,
		GPU: detector.Device{PCI: pci(gpu)}, Xid: &detector.Report{Code: code, Text: "text"},
	})
	if code == 79 {
		w.silent[gpu] = true // it is lost, and does not answer before it is cleared
		w.emit(detector.KindStale, gpu, nil)
	}
}

func (w *world) clear(gpu int) {
	w.Helper()
	if _, err := w.detector.Submit(w.Context(), detector.Event{
		Source: detector.SourceHand, Kind: detector.KindClear, GPU: detector.Device{PCI: pci(gpu)},
	}); err != nil {
		w.Fatal(err)
	}
	w.silent[gpu] = false
	w.emit(detector.KindFresh, gpu, nil)
}

// settle lets everything happen that happens by itself at this moment.
func settle() { pass(50 * time.Millisecond) }

// goodNews lets happen what waits for more good news.
func (w *world) goodNews() { pass(siblings + 50*time.Millisecond) }

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) wantTaints(ours ...string) {
	w.Helper()
	want := append([]string{"dedicated=ml:NoSchedule", "zone:NoExecute"}, ours...)
	w.want("taints", want, w.api.taints())
}

const lost = "gpuvet.dev/unhealthy=GPULost:NoSchedule"
