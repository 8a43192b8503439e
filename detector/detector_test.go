package detector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"gpuvet.dev/internal/trail"
)

// disk is a store and a history that tests can break.
type disk struct {
	mu      sync.Mutex
	saved   [][]byte
	records []trail.Record
	err     error
	hang    chan struct{}
}

func (d *disk) Save(payload []byte) error {
	if d.hang != nil {
		<-d.hang
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	d.saved = append(d.saved, payload)
	return nil
}

func (d *disk) Append(r trail.Record) (bool, error) {
	if d.hang != nil {
		<-d.hang
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return false, d.err
	}
	d.records = append(d.records, r)
	return true, nil
}

func (d *disk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

func (d *disk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// counts are the saves and the records so far.
func (d *disk) counts() [2]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return [2]int{len(d.saved), len(d.records)}
}

func (d *disk) last(t *testing.T) Saved {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.saved) == 0 {
		t.Fatal("nothing was saved")
	}
	s, err := DecodeSaved(d.saved[len(d.saved)-1])
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// running starts a detector inside a synctest bubble.
func running(t *testing.T, c Config) (*Detector, context.Context) {
	t.Helper()
	c.Policy, c.Boot, c.Uptime = DefaultPolicy(), "boot-1", time.Hour
	d := New(c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	d.Emit(Event{Source: SourceDaemon, Kind: KindBoot})
	return d, ctx
}

func lost(pci string, n int) Event {
	return Event{
		ID: fmt.Sprintf("boot-1/kmsg/%d", n), Source: SourceKernelLog, Kind: KindXid,
		GPU: Device{PCI: pci}, Xid: &Report{Code: 79},
	}
}

func TestEmitIsInTheNextSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := running(t, Config{})
		d.Emit(lost(gpuA, 1))
		g, ok := d.Snapshot().GPU(gpuA)
		if !ok || g.Status != Unhealthy {
			t.Errorf("GPU: %+v", g)
		}
	})
}

func TestWatcherSeesTheNewestAndDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, ctx := running(t, Config{})
		var seen []uint64
		watching, stop := context.WithCancel(ctx)
		go func() {
			for s := range d.Watch(watching) {
				seen = append(seen, s.Seq)
				time.Sleep(time.Second) // a slow output
			}
		}()
		synctest.Wait()
		for i := range 1000 {
			d.Emit(lost(gpuA, i))
		}
		time.Sleep(time.Minute)
		stop()
		synctest.Wait()
		newest := d.Snapshot().Seq
		if len(seen) > 3 || seen[len(seen)-1] != newest {
			t.Errorf("saw %v, newest is %d", seen, newest)
		}
	})
}

func TestSubmitReturnsWhenItIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &disk{}
		d, ctx := running(t, Config{Store: store, Trail: store})
		d.Emit(lost(gpuA, 1))
		added := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Format(time.RFC3339)
		snapshot, err := d.Submit(ctx, Event{Source: SourceNode, Kind: KindTaintIntended, Fields: map[string]string{"value": "GPULost", "effect": "NoSchedule", "added": added}})
		if err != nil {
			t.Fatal(err)
		}
		if snapshot.Applied.Taint == nil || snapshot.Applied.Taint.Value != "GPULost" {
			t.Errorf("snapshot: %+v", snapshot.Applied)
		}
		// What was folded before is saved with it, so a crash now counts the Xid
		// once: the record is known by its number.
		saved := store.last(t)
		if saved.State.Applied.Taint == nil || saved.State.Folded["boot-1/kmsg"] != 1 {
			t.Errorf("saved: %+v", saved.State)
		}
	})
}

func TestSubmitSaysThatItCouldNotSave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("no space left on device")
		store := &disk{err: full}
		d, ctx := running(t, Config{Store: store, Trail: store})
		_, err := d.Submit(ctx, Event{Source: SourceHand, Kind: KindClear, GPU: Device{PCI: gpuA}})
		if !errors.Is(err, full) || !strings.Contains(err.Error(), "save Clear") {
			t.Errorf("error: %v", err)
		}
		d.Emit(lost(gpuA, 1))
		if g, _ := d.Snapshot().GPU(gpuA); g == nil || g.Status != Unhealthy {
			t.Error("a full disk stopped detection")
		}
		if k := d.Kept(); k.SaveError == "" || k.TrailError == "" {
			t.Errorf("not told: %+v", k)
		}
		store.fail(nil)
		time.Sleep(10 * time.Second)
		if k := d.Kept(); k.SaveError != "" {
			t.Errorf("still told: %+v", k)
		}
		if saved := store.last(t); len(saved.State.GPUs) != 1 {
			t.Errorf("saved: %+v", saved.State)
		}
	})
}

func TestHangingDiskStopsNoDetection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &disk{hang: make(chan struct{})}
		d, ctx := running(t, Config{Store: store, Trail: store})
		t.Cleanup(func() { close(store.hang) })
		for i := range 2 * maxBacklog {
			d.Emit(Event{Source: SourceDaemon, Kind: KindPCIe})
			d.Emit(lost(gpuA, i+1))
		}
		if g, _ := d.Snapshot().GPU(gpuA); g == nil || g.Xids[0].Count != 2*maxBacklog {
			t.Errorf("GPU: %+v", g)
		}
		if d.Kept().TrailLost == 0 {
			t.Error("lost records are not told")
		}
		before := d.Kept().TrailLost
		d.Emit(lost(gpuB, 2*maxBacklog+1))
		if d.Kept().TrailLost != before {
			t.Error("what changed nothing has taken the room of what did")
		}
		limit, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := d.Submit(limit, Event{Source: SourceHand, Kind: KindClear, GPU: Device{PCI: gpuA}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error: %v", err)
		}
	})
}

func TestRepeatsOfAnXidHaveOneRecordASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &disk{}
		d, _ := running(t, Config{Trail: store})
		for n := range 3000 {
			d.Emit(lost(gpuA, n+1))
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		if got := store.counts(); got[1] > 6 {
			t.Errorf("%d records", got[1])
		}
		last, err := DecodeEntry(store.records[len(store.records)-1].Data)
		if err != nil || last.Repeats < 900 {
			t.Errorf("last record: %+v, %v", last, err)
		}
	})
}

func TestDeadlinesAreRecordedAfterTheStateWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		history, err := trail.Open(t.TempDir(), trail.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer history.Close()
		hang := func(d *Detector) {
			d.Emit(Event{Source: SourceState, Kind: KindGPUFound, GPU: Device{PCI: gpuA}})
			d.Emit(Event{Source: SourceState, Kind: KindUnresponsive, GPU: Device{PCI: gpuA}})
			after(2 * time.Minute)
		}
		first, _ := running(t, Config{Trail: history})
		for range 100 {
			first.Emit(Event{Source: SourceDaemon, Kind: KindPCIe})
		}
		hang(first)
		second, _ := running(t, Config{Trail: history})
		second.epoch = first.epoch
		hang(second)
		deadlines := 0
		for r, err := range history.Read(0) {
			if err != nil {
				t.Fatal(err)
			}
			if r.Kind == string(KindDeadline) {
				deadlines++
			}
		}
		if deadlines != 2 {
			t.Errorf("%d records of deadlines, want 2", deadlines)
		}
	})
}

// stuckLog is a log whose pipe nobody reads.
type stuckLog chan struct{}

func (l stuckLog) Write(p []byte) (int, error) { <-l; return len(p), nil }
func (l stuckLog) Sync() error                 { return nil }

func TestFullLogStopsNoDetection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipe := make(stuckLog)
		log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), pipe, zap.InfoLevel))
		d, _ := running(t, Config{Store: &disk{err: errors.New("full")}, Trail: &disk{err: errors.New("full")}, Log: log})
		t.Cleanup(func() { close(pipe) })
		after(10 * time.Second) // the keeper is stuck in saying that the disk is full
		d.Emit(lost(gpuA, 1))
		if g, _ := d.Snapshot().GPU(gpuA); g == nil || g.Status != Unhealthy {
			t.Errorf("GPU: %+v", g)
		}
		if err := d.Alive(); err != nil {
			t.Error(err)
		}
	})
}

func TestStateIsSavedLazilyAndTrailFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &disk{}
		d, _ := running(t, Config{Store: store, Trail: store})
		d.Emit(lost(gpuA, 1))
		synctest.Wait()
		if got := store.counts(); got != [2]int{0, 2} {
			t.Errorf("saves and records at once: %v", got)
		}
		after(2 * time.Second)
		if got := store.counts(); got[0] != 1 {
			t.Errorf("%d saves after two seconds", got[0])
		}
		entry, err := DecodeEntry(store.records[1].Data)
		if err != nil || entry.Event.Xid.Code != 79 || len(entry.Transitions) != 1 {
			t.Errorf("record: %+v, %v", entry, err)
		}
		after(time.Hour)
		if got := store.counts(); got[0] != 1 {
			t.Errorf("%d saves though nothing changed", got[0])
		}
	})
}

func TestPlacesAreSavedWhileNothingElseHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &disk{}
		d, _ := running(t, Config{Store: store})
		d.SetCursor("kmsg", Cursor{Boot: "boot-1", Seq: 4711})
		after(2 * time.Minute)
		again := New(Config{Policy: DefaultPolicy(), Saved: store.last(t)})
		if got, _ := again.Cursor("kmsg"); got.Seq != 4711 {
			t.Errorf("cursor: %+v", got)
		}
	})
}

func TestDeadlineFiresWithoutAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &disk{}
		d, _ := running(t, Config{Trail: store})
		d.Emit(Event{Source: SourceState, Kind: KindGPUFound, GPU: Device{PCI: gpuA}})
		d.Emit(Event{Source: SourceState, Kind: KindUnresponsive, GPU: Device{PCI: gpuA}})
		after(59 * time.Second)
		if g, _ := d.Snapshot().GPU(gpuA); g.Status != Unknown {
			t.Errorf("too early: %s", g.Status)
		}
		after(2 * time.Second)
		if g, _ := d.Snapshot().GPU(gpuA); g.Status != Unhealthy {
			t.Errorf("too late: %s", g.Status)
		}
		if last := store.records[len(store.records)-1]; last.Kind != string(KindDeadline) {
			t.Errorf("last record: %+v", last)
		}
	})
}

func TestRestartFoldsTheSameResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &disk{}
		first, _ := running(t, Config{Store: store})
		first.Emit(lost(gpuA, 1))
		time.Sleep(2 * time.Second)
		first.Emit(lost(gpuA, 2)) // not saved when the crash comes
		crashed := store.last(t)

		second := New(Config{Policy: DefaultPolicy(), Saved: crashed, Boot: "boot-1"})
		for n := range 3 {
			second.Emit(lost(gpuA, n)) // the kernel log is read again from its cursor
		}
		g, _ := second.Snapshot().GPU(gpuA)
		if g.Xids[0].Count != 2 {
			t.Errorf("counted %d, want 2", g.Xids[0].Count)
		}
	})
}

func TestReplayOfATrailAgreesWithTheLiveRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &disk{}
		d, _ := running(t, Config{Trail: store})
		d.Emit(Event{Source: SourceState, Kind: KindDriverLoaded, Fields: map[string]string{"load": "a"}})
		d.Emit(Event{Source: SourceState, Kind: KindGPUFound, GPU: Device{PCI: gpuA}})
		d.Emit(Event{Source: SourceState, Kind: KindUnresponsive, GPU: Device{PCI: gpuA}})
		time.Sleep(2 * time.Minute)
		d.Emit(Event{Source: SourceState, Kind: KindResponsive, GPU: Device{PCI: gpuA}})
		d.Emit(Event{ID: "boot-1/kmsg/9", Source: SourceKernelLog, Kind: KindXid, GPU: Device{PCI: gpuA}, Xid: &Report{Code: 13}})
		d.Emit(Event{Source: SourceHand, Kind: KindPaused, Fields: map[string]string{"for": "20m", "by": ByHand}})
		time.Sleep(time.Hour)
		d.Emit(Event{Source: SourceState, Kind: KindFresh, GPU: Device{PCI: gpuA}})
		synctest.Wait()

		var live, again []Transition
		events := func(yield func(Event, error) bool) {
			for _, r := range store.records {
				entry, err := DecodeEntry(r.Data)
				if err != nil {
					t.Fatal(err)
				}
				live = append(live, entry.Transitions...)
				if entry.Event != nil && !yield(*entry.Event, nil) {
					return
				}
			}
		}
		for tr, err := range Replay(DefaultPolicy(), events) {
			if err != nil {
				t.Fatal(err)
			}
			again = append(again, tr)
		}
		if diff := cmp.Diff(live, again); diff != "" || len(live) != 9 {
			t.Errorf("%d transitions (-live +replayed):\n%s", len(live), diff)
		}
	})
}

// The state is that of the life before: what its holds are worth, and under which
// boot its clock ran, is known when the start is folded.
func TestNothingFallsDueBeforeTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		s.driver(1, "a")
		s.gpu(2, gpuA, KindUnresponsive, nil)
		d := New(Config{Policy: DefaultPolicy(), Saved: Saved{State: s.state}, Boot: "boot-1", Uptime: 2 * time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- d.Run(ctx) }()
		synctest.Wait()
		d.Emit(Event{Source: SourceDaemon, Kind: KindBoot})
		if g, _ := d.Snapshot().GPU(gpuA); len(g.Conditions) > 0 {
			t.Errorf("what nobody saw was raised before the start: %+v", g.Conditions)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAliveDependsOnTheFoldAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := running(t, Config{})
		if err := d.Alive(); err != nil {
			t.Error(err)
		}
		synctest.Wait() // Run must not be at the lock, which the bubble's clock would wait for
		d.mu.Lock()
		if err := d.Alive(); err == nil {
			t.Error("a stuck fold is alive")
		}
		d.mu.Unlock()
	})
}

func TestSavedStateRoundTrips(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 94, "Contained: SM (0x1). RST: No, D-RST: No")
	s.gpu(3, gpuB, KindUnresponsive, nil)
	data, err := json.Marshal(Saved{State: s.state, Cursors: map[string]Cursor{"kmsg": {Boot: "boot-1", Seq: 3}}})
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeSaved(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.state, back.State); diff != "" {
		t.Errorf("(-saved +read):\n%s", diff)
	}
	if _, err := DecodeSaved([]byte("{")); err == nil || !strings.Contains(err.Error(), "decode the saved state") {
		t.Errorf("error: %v", err)
	}
}

func BenchmarkEventToSnapshot(b *testing.B) {
	d := New(Config{Policy: DefaultPolicy(), Boot: "boot-1"})
	d.Emit(Event{Source: SourceDaemon, Kind: KindBoot})
	for i := range 16 {
		pci := fmt.Sprintf("0000:%02x:00.0", i)
		d.Emit(Event{Source: SourceState, Kind: KindGPUFound, GPU: Device{PCI: pci}})
		d.Emit(Event{Source: SourceState, Kind: KindFresh, GPU: Device{PCI: pci}})
		for _, code := range []int{13, 31, 45, 48, 63, 79, 94, 119} {
			d.Emit(Event{Source: SourceKernelLog, Kind: KindXid, GPU: Device{PCI: pci}, Xid: &Report{Code: code}})
		}
	}
	b.ReportAllocs()
	took := make([]time.Duration, 0, b.N)
	n := uint64(1) << 62
	for b.Loop() {
		n++
		e := Event{ID: fmt.Sprintf("boot-1/kmsg/%d", n), Source: SourceKernelLog, Kind: KindXid, GPU: Device{PCI: "0000:03:00.0"}, Xid: &Report{Code: 13}}
		began := time.Now()
		d.Emit(e)
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}
