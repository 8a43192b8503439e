package kube

import (
	"testing"
	"time"
)

// Eventually polls condition every 20 ms until it returns nil, and ends the test
// with its last error when within is over.
func Eventually(t testing.TB, within time.Duration, condition func() error) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("not within %s: %v", within, err)
		case <-t.Context().Done():
			t.Fatalf("test ended: %v", err)
		case <-tick.C:
		}
	}
}
