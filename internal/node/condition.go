package node

import (
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// says reports whether the node's condition already says what is desired.
func says(c *corev1.NodeCondition, d Desired) bool {
	return c != nil && c.Status == d.Status && c.Reason == d.Reason && c.Message == d.Message
}

// condition is what the node's condition becomes. The time of transition moves
// with the status alone.
func condition(was *corev1.NodeCondition, d Desired, now time.Time) corev1.NodeCondition {
	c := corev1.NodeCondition{
		Type: ConditionType, Status: d.Status, Reason: d.Reason, Message: d.Message,
		LastHeartbeatTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now),
	}
	if was != nil && was.Status == d.Status && !was.LastTransitionTime.IsZero() {
		c.LastTransitionTime = was.LastTransitionTime
	}
	return c
}

// statusPatch is a strategic merge: conditions are merged by type, so that it
// touches ours alone.
type statusPatch struct {
	Status struct {
		Conditions []corev1.NodeCondition `json:"conditions"`
	} `json:"status"`
}

func patchOf(c corev1.NodeCondition) statusPatch {
	var p statusPatch
	p.Status.Conditions = []corev1.NodeCondition{c}
	return p
}

// beat is when the condition must be refreshed: jittered by 10 %, so that nodes
// started together part.
func beat(last time.Time, interval time.Duration) time.Time {
	return last.Add(time.Duration(float64(interval) * (0.9 + 0.2*rand.Float64())))
}
