package detector

import (
	"testing"
	"testing/synctest"
	"time"

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
