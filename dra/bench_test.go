package dra

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"gpuvet.dev/dra/kubelettest"
)

// BenchmarkPrepare prepares eight claims at once and gives them back, over the
// sockets and on the disk; the claims are read from memory. The percentiles are of one call.
func BenchmarkPrepare(b *testing.B) {
	w := newWorld(b)
	w.gpus = 8
	// Specs lie in memory on a node too.
	memory, err := os.MkdirTemp("/dev/shm", "dra") //nolint:usetesting // b.TempDir lies on the disk
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(memory)
	if err := os.Symlink(memory, w.path("cdi")); err != nil {
		b.Fatal(err)
	}
	w.start()
	kubelet := w.kubelet(nil)
	var mu sync.Mutex // guards the times
	var preparing, releasing []time.Duration
	timed := func(times *[]time.Duration, call func() error) {
		began := time.Now()
		if err := call(); err != nil {
			b.Error(err)
		}
		took := time.Since(began)
		mu.Lock()
		defer mu.Unlock()
		*times = append(*times, took)
	}
	// The fake's own store is slower than what is measured.
	var round atomic.Int64
	w.kube.PrependReactor("get", "resourceclaims", func(a clienttesting.Action) (bool, runtime.Object, error) {
		name := a.(clienttesting.GetAction).GetName()
		n, err := strconv.Atoi(name)
		return true, claim(name, strconv.FormatInt(round.Load(), 10), n), err
	})
	for b.Loop() {
		round.Add(1) // each time for another pod
		w.kube.ClearActions()
		var wg sync.WaitGroup
		for n := range w.gpus {
			c := kubelettest.Claim{Namespace: "team-a", Name: strconv.Itoa(n), UID: "uid-" + strconv.Itoa(n)}
			wg.Go(func() {
				timed(&preparing, func() error { _, err := kubelet.Prepare(b.Context(), c); return err })
				timed(&releasing, func() error { return kubelet.Unprepare(b.Context(), c) })
			})
		}
		wg.Wait()
	}
	for name, times := range map[string][]time.Duration{"prepare": preparing, "unprepare": releasing} {
		slices.Sort(times)
		for _, percent := range []int{50, 99} {
			at := times[len(times)*percent/100]
			b.ReportMetric(float64(at.Microseconds())/1000, fmt.Sprintf("%s-p%d-ms", name, percent))
		}
	}
}
