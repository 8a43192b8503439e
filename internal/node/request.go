package node

import (
	"context"
	"strings"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"

	"gpuvet.dev/detector"
)

// What the node asks for. Whoever may write to nodes may pause; tenants may not.
const (
	// PauseAnnotation asks for a pause of so long, "10m", from the moment that its
	// value is first seen. The same value is not begun again until it was another,
	// or none; taking it away ends the pause that it began.
	PauseAnnotation = "gpuvet.dev/pause"
	// upgradeLabel is how far the GPU Operator has come with a new driver.
	upgradeLabel = "nvidia.com/gpu-driver-upgrade-state"
)

// upgradeLimit bounds the pause for each state of an upgrade, so that a label
// which was forgotten does not blind us for ever.
const upgradeLimit = time.Hour

// unloading has the states of an upgrade in which the driver is, or is about to
// be, unloaded: from the eviction of those who use GPUs to the restart of the
// driver's pod. Before them come upgrade-required, cordon-required and
// wait-for-jobs-required, or node-maintenance-required, in which work goes on;
// after them validation-required, uncordon-required and upgrade-done or
// upgrade-failed, in which the driver is there or stays away (NVIDIA
// k8s-operator-libs, pkg/upgrade/consts.go).
var unloading = map[string]bool{
	"pod-deletion-required":     true,
	"drain-required":            true,
	"post-maintenance-required": true,
	"pod-restart-required":      true,
}

// maxRequest bounds what is kept of an annotation.
const maxRequest = 64

// pauseWanted is the annotation's value; empty: none.
func pauseWanted(n *corev1.Node) string {
	value := n.Annotations[PauseAnnotation]
	// A letter that is cut in two would be another one once it was saved.
	return strings.ToValidUTF8(value[:min(len(value), maxRequest)], "")
}

// upgradeState is the label's value if the driver is unloaded under it.
func upgradeState(n *corev1.Node) string {
	if state := n.Labels[upgradeLabel]; unloading[state] {
		return state
	}
	return ""
}

// request is the event for what the node asks for and was not dealt with yet.
func request(s *detector.Snapshot, n *observed) (detector.Event, bool) {
	handled := s.Requests.Handled
	switch {
	case n.pause != handled[detector.ByAnnotation] && n.pause == "":
		return requested(detector.KindResumed, map[string]string{"by": detector.ByAnnotation}), true
	case n.pause != handled[detector.ByAnnotation]:
		if _, err := detector.ParsePause(n.pause); err != nil {
			return requested(detector.KindPauseRefused, map[string]string{
				"value": n.pause, "cause": "annotation " + PauseAnnotation + ": " + err.Error(),
			}), true
		}
		return requested(detector.KindPaused, map[string]string{
			"for": n.pause, "by": detector.ByAnnotation, "value": n.pause,
		}), true
	case n.upgrade != handled[detector.ByUpgrade] && n.upgrade == "":
		return requested(detector.KindResumed, map[string]string{"by": detector.ByUpgrade}), true
	case n.upgrade != handled[detector.ByUpgrade]:
		return requested(detector.KindPaused, map[string]string{
			"for": upgradeLimit.String(), "by": detector.ByUpgrade, "value": n.upgrade, "why": "label " + upgradeLabel + "=" + n.upgrade,
		}), true
	default:
		return detector.Event{}, false
	}
}

func requested(kind detector.Kind, fields map[string]string) detector.Event {
	return detector.Event{Source: detector.SourceNode, Kind: kind, Fields: fields}
}

// requests submits what the node asks for, until ctx ends. It waits for no
// write to the API server.
func (o *Output) requests(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.asked:
		}
		s, node := o.newest()
		if s == nil || node == nil {
			continue
		}
		e, ok := request(s, node)
		if !ok {
			continue
		}
		if e.Kind == detector.KindPauseRefused {
			o.options.Log.Warn("pause is refused", zap.String("cause", e.Fields["cause"]))
			o.events.tell(refusedEvent(o.options.NodeName, e.Fields["cause"], time.Now()))
		}
		limited, cancel := context.WithTimeout(ctx, callLimit)
		s, err := o.options.Submit(limited, e)
		cancel()
		if err != nil {
			o.options.Log.Warn("what the node asks for is in force, but not on disk", zap.String("kind", string(e.Kind)), zap.Error(err))
		}
		o.take(s)
	}
}
