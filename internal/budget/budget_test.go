package budget

import (
	"testing"
	"time"
)

func TestBackoffStaysBelowItsCap(t *testing.T) {
	for n := 1; n < 100; n++ {
		if d := Backoff(n); d < FirstRetry/2 || d > 9500*time.Millisecond {
			t.Errorf("after %d failures %v; ten seconds must hold it and the call", n, d)
		}
	}
}

func TestWhatMayNotWaitIsPaidByWhoComesLater(t *testing.T) {
	now := time.Now()
	b := New(4, 10*time.Second, now)
	for range 100 {
		b.Take(now)
	}
	if got := b.Ready(now).Sub(now); got < 49*time.Second || got > 51*time.Second {
		t.Errorf("after a hundred writes the next may be made in %v, want a debt of one burst: 50 s", got)
	}
	if later := now.Add(51 * time.Second); b.Ready(later).After(later) {
		t.Error("the debt is paid, and nothing may be written")
	}
}
