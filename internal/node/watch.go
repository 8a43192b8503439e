package node

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"gpuvet.dev/internal/budget"
)

// observed is what matters of one version of the node.
type observed struct {
	version   string
	number    uint64 // the same, for order; zero if it is no number
	taints    []corev1.Taint
	condition *corev1.NodeCondition // nil: it has none of ours
	pause     wish
	clear     wish
	ignore    wish
	plugin    int64  // GPUs that a device plugin offers
	upgrade   string // the state of an upgrade that unloads the driver; empty: none
}

// pluginResource is what NVIDIA's device plugin gives out.
const pluginResource corev1.ResourceName = "nvidia.com/gpu"

func observe(n *corev1.Node) *observed {
	seen := &observed{
		version: n.ResourceVersion, taints: n.Spec.Taints, upgrade: upgradeState(n), pause: wishOf(n, PauseAnnotation, maxRequest),
		clear: wishOf(n, ClearAnnotation, maxOrders+4), ignore: wishOf(n, IgnoreAnnotation, maxOrders+4),
	}
	if offered, ok := n.Status.Allocatable[pluginResource]; ok {
		seen.plugin = offered.Value()
	}
	// Resource versions are opaque by contract and numbers in fact; without a
	// number every version counts as the newest.
	seen.number, _ = strconv.ParseUint(n.ResourceVersion, 10, 64)
	if i := slices.IndexFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == ConditionType }); i >= 0 {
		c := n.Status.Conditions[i]
		seen.condition = &c
	}
	return seen
}

const (
	// watchSpan is how long the API server keeps one watch; up to twice as long.
	watchSpan = 5 * time.Minute
	// watchPause keeps a watch that ends at once from becoming a loop.
	watchPause = time.Second
)

// watch sees the node change, until ctx ends. Every watch begins with the node
// as it is: nothing that happened between two of them is missed.
func (o *Output) watch(ctx context.Context) {
	trouble := complaint{log: o.options.Log, about: "watching the node"}
	failures := 0
	for {
		began := time.Now()
		err := o.watchOnce(ctx, trouble.end)
		pause := watchPause
		if err != nil && ctx.Err() == nil {
			failures++
			pause = max(budget.Backoff(failures)-time.Since(began), budget.FirstRetry)
			trouble.say(err)
		} else {
			failures = 0
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// watchOnce watches until the API server ends it; opened is called when it has
// begun.
func (o *Output) watchOnce(ctx context.Context, opened func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	span := int64((watchSpan + rand.N(watchSpan)).Seconds())
	began := time.Now()
	// An answer must come, then the watch may be silent for as long as it likes.
	opening := time.AfterFunc(callLimit, cancel)
	w, err := o.options.Nodes.Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector("metadata.name", o.options.NodeName).String(),
		ResourceVersion: "0", AllowWatchBookmarks: true, TimeoutSeconds: &span,
	})
	opening.Stop()
	o.options.Observe("watch node", time.Since(began), err)
	if err != nil {
		return err
	}
	opened()
	defer w.Stop()
	for e := range w.ResultChan() {
		switch e.Type {
		case watch.Added, watch.Modified:
			if n, ok := e.Object.(*corev1.Node); ok {
				o.see(n)
			}
		case watch.Deleted:
			o.options.Log.Warn("node was deleted", zap.String("node", o.options.NodeName))
			o.lose()
		case watch.Error:
			return apierrors.FromObject(e.Object)
		case watch.Bookmark:
		}
	}
	return nil
}
