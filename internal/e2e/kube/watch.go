package kube

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// Version is one version of a node as a watcher saw it.
type Version struct {
	Node *corev1.Node
	At   time.Time // when it was seen
}

// History is every version of a node since it is watched, the first one too.
type History struct {
	mu       sync.Mutex
	versions []Version
	broken   bool // the watch ended before the test
}

// WatchNode begins a history. It ends with the test, and does not survive a
// stopped API server.
func (c *Cluster) WatchNode(t testing.TB, name string) *History {
	t.Helper()
	first := c.Node(t, name)
	h := &History{versions: []Version{{Node: first, At: time.Now()}}}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	w, err := c.watcher.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{
		FieldSelector: "metadata.name=" + name, ResourceVersion: first.ResourceVersion,
	})
	if err != nil {
		stop()
		t.Fatalf("watch node: %v", err)
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
			if node, ok := event.Object.(*corev1.Node); ok && event.Type == watch.Modified {
				h.add(Version{Node: node, At: time.Now()})
			}
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.broken = ctx.Err() == nil
	}()
	return h
}

func (h *History) add(v Version) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.versions = append(h.versions, v)
}

// Versions is the history so far. The test fails if it has holes.
func (h *History) Versions(t testing.TB) []Version {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.broken {
		t.Error("watch of the node ended early: versions are missing")
	}
	return slices.Clone(h.versions)
}
