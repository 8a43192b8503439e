package node

import (
	"context"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"

	"gpuvet.dev/detector"
)

// What the node asks for. Who may set the annotations says deploy/rbac.
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

// maxRequest bounds what is kept of an annotation that has one duration.
const maxRequest = 64

// upgradeState is the label's value if the driver is unloaded under it.
func upgradeState(n *corev1.Node) string {
	if state := n.Labels[upgradeLabel]; unloading[state] {
		return state
	}
	return ""
}

// request are the events for what the node asks for and was not dealt with yet.
// early: the GPUs may not have been listed yet.
func request(s *detector.Snapshot, n *observed, early bool) []detector.Event {
	if e, ok := pauseRequest(s, n); ok {
		return []detector.Event{e}
	}
	if events := byHand(s, detector.ByClear, ClearAnnotation, n.clear, early); len(events) > 0 {
		return events
	}
	return byHand(s, detector.ByIgnore, IgnoreAnnotation, n.ignore, early)
}

func pauseRequest(s *detector.Snapshot, n *observed) (detector.Event, bool) {
	handled := s.Requests.Handled
	switch pause := n.pause.value; {
	case pause != handled[detector.ByAnnotation] && pause == "":
		return requested(detector.KindResumed, map[string]string{"by": detector.ByAnnotation}), true
	case pause != handled[detector.ByAnnotation]:
		if _, err := detector.ParsePause(pause); err != nil {
			return requested(detector.KindPauseRefused, map[string]string{
				"value": pause, "cause": "annotation " + PauseAnnotation + ": " + err.Error(),
			}), true
		}
		return requested(detector.KindPaused, map[string]string{
			"for": pause, "by": detector.ByAnnotation, "value": pause, "author": n.pause.author,
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
	listed := time.Now().Add(settling) // by then the GPUs are
	again := time.NewTimer(settling)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.asked:
		case <-again.C:
		}
		s, node := o.newest()
		if s == nil || node == nil {
			continue
		}
		for _, e := range request(s, node, time.Now().Before(listed)) {
			o.carryOut(ctx, e)
		}
	}
}

// carryOut submits one of the things that the node asks for.
func (o *Output) carryOut(ctx context.Context, e detector.Event) {
	log := o.options.Log.With(zap.String("kind", string(e.Kind)))
	if by, cause := refused(e); cause != "" {
		log.Warn("what the node asks for is refused", zap.String("cause", cause))
		o.events.tell(refusedEvent(o.options.NodeName, by, cause, time.Now()))
	} else if e.Kind != detector.KindHandled {
		log.Info("the node asks for something", zap.String("by", e.Fields["by"]), zap.String("author", e.Fields["author"]),
			zap.String("pci", e.GPU.PCI), zap.String("reason", e.Fields["reason"]), zap.String("for", e.Fields["for"]))
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	s, err := o.options.Submit(ctx, e)
	if err != nil {
		log.Warn("what the node asks for is in force, but not on disk", zap.Error(err))
	}
	o.take(s)
}
