package detector

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/internal/trail"
)

// A sign that a fault needs before it is seen is no mere repetition: without its
// record a replay would not see the fault.
func TestSignsThatAreCountedAreAllRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &disk{}
		d, _ := running(t, Config{Trail: store})
		d.SetPolicy(policyOf(t, `{"reason": "GPULost", "repeat": {"count": 5, "within": "1m"}}`))
		for n := range 20 {
			d.Emit(lost(gpuA, n+1))
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		if got, want := len(store.records), 2+5+1; got != want {
			t.Errorf("%d records, want %d: the start, the policy, the signs until it is seen, and one for those after", got, want)
		}
		var raised []time.Time
		for tr, err := range Replay(DefaultPolicy(), recorded(store.records)) {
			if err != nil {
				t.Fatal(err)
			}
			if tr.Condition == GPULost {
				raised = append(raised, tr.Time)
			}
		}
		g, _ := d.Snapshot().GPU(gpuA)
		if len(raised) != 1 || len(g.Conditions) != 1 || !raised[0].Equal(g.Conditions[0].Since.Add(40*time.Millisecond)) {
			t.Errorf("replayed at %v, live %+v", raised, g.Conditions)
		}
	})
}

// What comes last has a record too, though nothing follows that could count it, and
// though others of its source were recorded since.
func TestRecordsAndTheirRepeatsAddUpWhenTheStormIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		history, err := trail.Open(t.TempDir(), trail.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer history.Close()
		d, _ := running(t, Config{Trail: history})
		want := map[string]uint64{gpuA: 1300, gpuB: 1}
		for n := range 1300 {
			d.Emit(lost(gpuA, n+1))
			time.Sleep(time.Millisecond)
		}
		d.Emit(lost(gpuB, 1301))
		time.Sleep(3 * lazySave)
		got, records := map[string]uint64{}, 0
		var last time.Time
		for r, err := range history.Read(0) {
			if err != nil {
				t.Fatal(err)
			}
			entry, err := DecodeEntry(r.Data)
			if err != nil {
				t.Fatal(err)
			}
			if e := entry.Event; e != nil && e.Xid != nil {
				got[e.GPU.PCI] += 1 + entry.Repeats
				records++
				last = e.Time
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || records != 2+1+1+1 {
			t.Errorf("%d records, (-want +got):\n%s", records, diff)
		}
		g, _ := d.Snapshot().GPU(gpuA)
		if seen := g.Conditions[0].Last; !last.Equal(seen) {
			t.Errorf("the last record is of %v, and the fault was seen last at %v", last, seen)
		}
	})
}

// A PCIe link that goes bad reports thousands of corrected errors a second.
func TestFloodOfBusErrorsHasARecordASecond(t *testing.T) {
	r := repeats{}
	kept := 0
	for i := range 1000 {
		for _, severity := range []string{"Corrected", "Uncorrectable (Non-Fatal)"} {
			e := Event{Source: SourceKernelLog, Kind: KindPCIe, Mono: time.Duration(i) * 5 * time.Millisecond, GPU: Device{PCI: gpuA}, Fields: map[string]string{"severity": severity}}
			if !r.swallow(&e, &Entry{}) {
				kept++
			}
		}
	}
	if kept != 2*5 {
		t.Errorf("%d records in five seconds, want 5 of each severity", kept)
	}
	if r.settle(5*time.Second, true); len(r) != 2 {
		t.Errorf("%d are remembered", len(r))
	}
	if r.settle(7*time.Second, true); len(r) != 0 {
		t.Errorf("%d are remembered when they are over", len(r))
	}
}

// recorded are the events of the trail.
func recorded(records []trail.Record) func(func(Event, error) bool) {
	return func(yield func(Event, error) bool) {
		for _, r := range records {
			entry, err := DecodeEntry(r.Data)
			if err != nil {
				yield(Event{}, err)
				return
			}
			if entry.Event != nil && !yield(*entry.Event, nil) {
				return
			}
		}
	}
}
