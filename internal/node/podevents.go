package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"gpuvet.dev/detector"
)

// What tenants can bring about by themselves has a budget of its own, and is
// dropped rather than waited for: it must not delay what is told of the hardware.
const (
	podEventsBurst = 20
	podEventsEvery = 10 * time.Second
)

// tellHolders tells the pods that hold a GPU what has happened to it, or what they
// have done to it. An error means that the API server gave no answer.
func (t *teller) tellHolders(ctx context.Context, c detector.Transition) error {
	if t.options.PodEvents == nil || !t.concernsHolders(c) {
		return nil
	}
	for _, h := range c.Holders {
		e := t.podEvent(c, h)
		if e == nil {
			continue
		}
		now := time.Now()
		if t.tenants.Ready(now).After(now) {
			t.options.Log.Info("event about a pod is not told: there were too many", zap.String("pod", h.Pod), zap.String("reason", e.Reason))
			continue
		}
		t.tenants.Take(now)
		if t.options.DryRun {
			t.options.Log.Info("would create event", zap.String("event", e.Name), zap.String("reason", e.Reason), zap.String("message", e.Message))
			continue
		}
		err := t.create(ctx, t.options.PodEvents(e.Namespace), e)
		switch {
		case unreachable(err):
			return err
		case err != nil: // its namespace may be gone
			t.options.Log.Warn("event about a pod is refused", zap.String("pod", h.Pod), zap.String("reason", e.Reason), zap.Error(err))
		}
	}
	return nil
}

// concernsHolders says whether a change is news for who holds the GPU: a fault that
// fences it, an Xid of their own, or a device that they do not get.
func (t *teller) concernsHolders(c detector.Transition) bool {
	if len(c.Holders) == 0 || time.Since(c.Time) > memory {
		return false
	}
	if c.Status == detector.Noted {
		return c.Condition == detector.NotedApplication || c.Condition == detector.NotedRefused
	}
	return c.Status == detector.Raised && c.Effect.Fences() && c.Class != detector.Application
}

func (t *teller) podEvent(c detector.Transition, h detector.Holder) *corev1.Event {
	namespace, pod, ok := strings.Cut(h.Pod, "/")
	if !ok {
		return nil
	}
	gpu := t.gpuOf(c)
	reason := string(c.Condition)
	message := fmt.Sprintf("%s, which this pod uses, is not fit for work: %s; %s", gpu, c.Cause, c.Action)
	if c.Status == detector.Noted {
		message = fmt.Sprintf("%s: %s", gpu, c.Cause)
	}
	if c.Condition == detector.NotedApplication {
		message += ": raised by what runs in this pod; the GPU is not at fault"
	}
	identity := []string{c.Incident, c.PCI, reason, string(c.Effect), c.Cause, h.PodUID}
	e := event(t.options.NodeName, identity, corev1.EventTypeWarning, reason, message, c.Time)
	prefix := strings.TrimRight(pod[:min(len(pod), 230)], ".-")
	e.Name = prefix + e.Name[strings.LastIndexByte(e.Name, '.'):]
	e.Namespace = namespace
	e.InvolvedObject = corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: namespace, Name: pod, UID: types.UID(h.PodUID)}
	return e
}
