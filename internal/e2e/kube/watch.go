package kube

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// Version is one version of a node as a watcher saw it.
type Version struct {
	Node *corev1.Node
	At   time.Time // when it was seen
}

// SliceVersion is one version of a ResourceSlice as a watcher saw it.
type SliceVersion struct {
	Slice   *resourceapi.ResourceSlice
	Deleted bool      // it went with this version
	At      time.Time // when it was seen
}

// History is that of a node, with the version that was there at first.
type History = Versions[Version]

// SliceHistory is that of a node's slices, without what was there at first.
type SliceHistory = Versions[SliceVersion]

// Versions is all that a watcher has seen since it began.
type Versions[T any] struct {
	mu     sync.Mutex // guards what follows
	seen   []T
	broken bool // the watch ended before the test
}

// WatchNode begins a history. It ends with the test, and does not survive a
// stopped API server.
func (c *Cluster) WatchNode(t testing.TB, name string) *History {
	t.Helper()
	first := c.Node(t, name)
	h := &History{seen: []Version{{Node: first, At: time.Now()}}}
	h.follow(t, func(ctx context.Context) (watch.Interface, error) {
		return c.watcher.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{
			FieldSelector: "metadata.name=" + name, ResourceVersion: first.ResourceVersion,
		})
	}, func(e watch.Event) (Version, bool) {
		node, ok := e.Object.(*corev1.Node)
		return Version{Node: node, At: time.Now()}, ok && e.Type == watch.Modified
	})
	return h
}

// WatchSlices begins a history. It ends with the test, and does not survive a stopped
// API server.
func (c *Cluster) WatchSlices(t testing.TB, node string) *SliceHistory {
	t.Helper()
	own := metav1.ListOptions{FieldSelector: resourceapi.ResourceSliceSelectorNodeName + "=" + node}
	list, err := c.admin.ResourceV1().ResourceSlices().List(t.Context(), own)
	if err != nil {
		t.Fatalf("list slices: %v", err)
	}
	own.ResourceVersion = list.ResourceVersion
	h := &SliceHistory{}
	h.follow(t, func(ctx context.Context) (watch.Interface, error) {
		return c.watcher.ResourceV1().ResourceSlices().Watch(ctx, own)
	}, func(e watch.Event) (SliceVersion, bool) {
		slice, ok := e.Object.(*resourceapi.ResourceSlice)
		return SliceVersion{Slice: slice, Deleted: e.Type == watch.Deleted, At: time.Now()}, ok
	})
	return h
}

// follow adds what a watch tells, until the test ends.
func (v *Versions[T]) follow(t testing.TB, begin func(context.Context) (watch.Interface, error), take func(watch.Event) (T, bool)) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	w, err := begin(ctx)
	if err != nil {
		stop()
		t.Fatalf("watch: %v", err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		stop()
		w.Stop()
		<-done
	})
	go func() {
		defer close(done)
		for event := range w.ResultChan() {
			if version, ok := take(event); ok {
				v.add(version)
			}
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		v.broken = ctx.Err() == nil
	}()
}

func (v *Versions[T]) add(version T) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seen = append(v.seen, version)
}

// Versions is the history so far. The test fails if it has holes.
func (v *Versions[T]) Versions(t testing.TB) []T {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.broken {
		t.Error("watch ended early: versions are missing")
	}
	return slices.Clone(v.seen)
}
