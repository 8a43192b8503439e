package kube

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// SliceVersion is one version of a ResourceSlice as a watcher saw it.
type SliceVersion struct {
	Slice   *resourceapi.ResourceSlice
	Deleted bool      // it went with this version
	At      time.Time // when it was seen
}

// SliceHistory is every version of a node's slices since they are watched.
type SliceHistory struct {
	mu       sync.Mutex // guards what follows
	versions []SliceVersion
	broken   bool // the watch ended before the test
}

// WatchSlices begins a history. It ends with the test, and does not survive a stopped
// API server. What is there already is not a part of it.
func (c *Cluster) WatchSlices(t testing.TB, node string) *SliceHistory {
	t.Helper()
	own := metav1.ListOptions{FieldSelector: resourceapi.ResourceSliceSelectorNodeName + "=" + node}
	list, err := c.admin.ResourceV1().ResourceSlices().List(t.Context(), own)
	if err != nil {
		t.Fatalf("list slices: %v", err)
	}
	own.ResourceVersion = list.ResourceVersion
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	w, err := c.watcher.ResourceV1().ResourceSlices().Watch(ctx, own)
	if err != nil {
		stop()
		t.Fatalf("watch slices: %v", err)
	}
	h := &SliceHistory{}
	done := make(chan struct{})
	t.Cleanup(func() {
		stop()
		w.Stop()
		<-done
	})
	go func() {
		defer close(done)
		for event := range w.ResultChan() {
			if slice, ok := event.Object.(*resourceapi.ResourceSlice); ok {
				h.add(SliceVersion{Slice: slice, Deleted: event.Type == watch.Deleted, At: time.Now()})
			}
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.broken = ctx.Err() == nil
	}()
	return h
}

func (h *SliceHistory) add(v SliceVersion) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.versions = append(h.versions, v)
}

// Versions is the history so far. The test fails if it has holes.
func (h *SliceHistory) Versions(t testing.TB) []SliceVersion {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.broken {
		t.Error("watch of the slices ended early: versions are missing")
	}
	return slices.Clone(h.versions)
}
