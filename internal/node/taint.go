package node

import (
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpuvet.dev/detector"
)

// step is what comes next on the way from the node's taints to the wanted one.
type step int

const (
	settled step = iota // nothing
	intend              // remember on disk what is about to be written
	write               // change the node's list
	confirm             // note that the node has what was intended
	forget              // note that nothing of ours is on the node
	wait                // a write that was given up may still arrive
)

// writeLife is longer than a write that was given up can still take effect: the
// API server ends every request after a minute.
const writeLife = time.Minute

// plan is the next step about the taint.
type plan struct {
	step   step
	intent detector.AppliedTaint // of intend
	patch  []operation           // of write
	until  time.Time             // of wait
	// foreign holds the place of ours: somebody else wrote it.
	foreign *corev1.Taint
}

// operation is one of RFC 6902. Operations touch our entry alone, so that what
// others keep in theirs survives, known to this version or not.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// planTaint compares the node's list with what is wanted and with what the
// state knows to be ours. saved says whether what the state knows is on disk.
func planTaint(taints []corev1.Taint, want *Taint, known *detector.AppliedTaint, saved bool, now time.Time) plan {
	mine := owned(taints, known)
	if want == nil {
		if len(mine) > 0 {
			return plan{step: write, patch: removals(mine)}
		}
		return gone(known, now)
	}
	for i := range taints {
		if taints[i].Key == TaintKey && taints[i].Effect == effect(want.Effect) && !slices.Contains(mine, i) {
			p := plan{}
			if len(mine) == 0 {
				p = gone(known, now)
			}
			p.foreign = &taints[i]
			return p
		}
	}
	if known == nil || known.Value != want.Value || known.Effect != want.Effect {
		return plan{step: intend, intent: detector.AppliedTaint{Value: want.Value, Effect: want.Effect, Added: now.Truncate(time.Second)}}
	}
	switch {
	case len(mine) == 1 && known.Accepted && is(taints[mine[0]], *known):
		return plan{}
	case len(mine) == 1 && is(taints[mine[0]], *known):
		return plan{step: confirm}
	case !saved:
		return plan{step: intend, intent: detector.AppliedTaint{Value: known.Value, Effect: known.Effect, Added: known.Added}}
	default:
		return plan{step: write, patch: placing(taints, mine, *known)}
	}
}

// gone is the step when the node has nothing of ours, and should not.
func gone(known *detector.AppliedTaint, now time.Time) plan {
	switch {
	case known == nil:
		return plan{}
	case !known.Accepted && now.Before(known.Added.Add(writeLife)):
		return plan{step: wait, until: known.Added.Add(writeLife)}
	default:
		return plan{step: forget}
	}
}

// owned gives the places of the entries that the state knows to be ours.
func owned(taints []corev1.Taint, known *detector.AppliedTaint) []int {
	if known == nil {
		return nil
	}
	var mine []int
	for i := range taints {
		same := func(t detector.AppliedTaint) bool { return is(taints[i], t) }
		if same(*known) || slices.ContainsFunc(known.Earlier, same) {
			mine = append(mine, i)
		}
	}
	return mine
}

func is(entry corev1.Taint, t detector.AppliedTaint) bool {
	return entry.Key == TaintKey && entry.Value == t.Value && entry.Effect == effect(t.Effect) &&
		entry.TimeAdded != nil && entry.TimeAdded.Unix() == t.Added.Unix()
}

func effect(e detector.Effect) corev1.TaintEffect { return corev1.TaintEffect(e) }

const listPath = "/spec/taints"

// placing puts ours where an earlier one of ours is, or at the end.
func placing(taints []corev1.Taint, mine []int, t detector.AppliedTaint) []operation {
	entry := corev1.Taint{Key: TaintKey, Value: t.Value, Effect: effect(t.Effect), TimeAdded: &metav1.Time{Time: t.Added}}
	switch {
	case len(mine) > 0:
		return append(removals(mine[1:]), operation{Op: "replace", Path: at(mine[0]), Value: entry})
	case len(taints) == 0:
		return []operation{{Op: "add", Path: listPath, Value: []corev1.Taint{entry}}}
	default:
		return []operation{{Op: "add", Path: listPath + "/-", Value: entry}}
	}
}

// removals go from the back: each moves what is behind it.
func removals(mine []int) []operation {
	var patch []operation
	for _, i := range slices.Backward(mine) {
		patch = append(patch, operation{Op: "remove", Path: at(i)})
	}
	return patch
}

func at(i int) string { return listPath + "/" + strconv.Itoa(i) }

// locked makes a patch apply to one version of the node only: on any other the
// API server answers with a conflict.
func locked(patch []operation, resourceVersion string) []operation {
	return slices.Insert(patch, 0, operation{Op: "replace", Path: "/metadata/resourceVersion", Value: resourceVersion})
}
