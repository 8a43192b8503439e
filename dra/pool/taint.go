package pool

import (
	"cmp"
	"slices"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpuvet.dev/detector"
)

// taintDomain is what stands before a taint key of ours.
const taintDomain = "gpuvet.dev/"

// Limits are what the API server takes of a device. It refuses a slice as a whole if
// one device has more.
type Limits struct {
	Taints int  // per device; zero: none at all
	None   bool // the effect None is known
}

// LimitsOf are those of an API server, by its version: k8s.io/api/resource types and
// their validation, 1.34 to 1.37.
func LimitsOf(major, minor int) Limits {
	if major < 1 || major == 1 && minor < 35 {
		return Limits{Taints: 4}
	}
	return Limits{Taints: 16, None: true}
}

// mark is one taint before the limits.
type mark struct {
	condition detector.Condition
	effect    detector.Effect
	since     time.Time
}

func (m mark) fences() bool { return m.effect.Fences() }

// marked are the taints that faults make, worst first and one for each key: the fault
// with the hardest effect under a key gives value, effect and time.
//
// A device that a claim did not get is marked NoExecute: the claim's pod waits for it
// on this node in vain, and nobody else can be using the device. What the whole node
// suffers from marks the device at most NoSchedule: the node's own taint says who has
// to leave.
func marked(conditions []detector.Condition, refusals []detector.Refusal) []mark {
	var marks []mark
	for _, c := range conditions {
		m := mark{condition: c, effect: c.Effect, since: c.Since}
		if c.Scope == detector.ScopeNode && c.Effect == detector.NoExecute {
			m.effect = detector.NoSchedule
		}
		if since, ok := refusedSince(refusals, c.Reason); ok && m.effect != detector.NoExecute {
			m.effect, m.since = detector.NoExecute, since
		}
		if c.Taint != "" && m.effect != detector.NoEffect && taints(c) {
			marks = append(marks, m)
		}
	}
	slices.SortStableFunc(marks, func(a, b mark) int {
		switch {
		case a.effect.Harder(b.effect):
			return -1
		case b.effect.Harder(a.effect):
			return 1
		}
		return cmp.Or(detector.Worse(a.condition, b.condition), a.since.Compare(b.since))
	})
	var keys []detector.TaintKey
	return slices.DeleteFunc(marks, func(m mark) bool {
		known := slices.Contains(keys, m.condition.Taint)
		keys = append(keys, m.condition.Taint)
		return known
	})
}

// refused are the refusals of exactly this device.
func refused(g *detector.GPUView, id detector.Device) []detector.Refusal {
	var all []detector.Refusal
	for _, r := range g.Refusals {
		if number(r.GPUInstance) == number(id.GPUInstance) && number(r.ComputeInstance) == number(id.ComputeInstance) {
			all = append(all, r)
		}
	}
	return all
}

// refusedSince is the first time that the device was refused for a reason.
func refusedSince(refusals []detector.Refusal, reason detector.Reason) (first time.Time, ok bool) {
	for _, r := range refusals {
		if r.Reason == reason && (!ok || r.Since.Before(first)) {
			first, ok = r.Since, true
		}
	}
	return first, ok
}

// taints reports whether a fault may have a taint: what untrusted code can raise at
// will may not.
func taints(c detector.Condition) bool {
	return c.Class != detector.Application && c.Scope != detector.ScopeWorkload
}

func fences(c detector.Condition) bool { return taints(c) && c.Effect.Fences() }

// published are the taints that the API server takes. Of too many the worst stay.
func published(marks []mark, l Limits) []resourceapi.DeviceTaint {
	var all []resourceapi.DeviceTaint
	for _, m := range marks {
		if len(all) == l.Taints {
			break
		}
		if m.effect == detector.None && !l.None {
			continue
		}
		all = append(all, resourceapi.DeviceTaint{
			Key: taintDomain + string(m.condition.Taint), Value: string(m.condition.Reason),
			Effect: resourceapi.DeviceTaintEffect(m.effect),
			// The API keeps whole seconds.
			TimeAdded: &metav1.Time{Time: m.since.Truncate(time.Second).UTC()},
		})
	}
	return all
}
