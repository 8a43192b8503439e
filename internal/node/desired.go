package node

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"gpuvet.dev/detector"
)

// What the API server hears, by name.
const (
	// ConditionType is the node condition.
	ConditionType corev1.NodeConditionType = "GPUHealthy"
	// TaintKey is the node taint; its value is the reason.
	TaintKey = "gpuvet.dev/unhealthy"
)

// The reasons of a condition that is not False; one that is has the reason of
// the worst fault.
const (
	reasonHealthy       = "GPUsHealthy"
	reasonNone          = "NoGPUs"
	reasonStarting      = "Starting"
	reasonDriverMissing = "DriverMissing"
	reasonStale         = "ReadingsStale"
	reasonPaused        = "Paused"
)

const (
	// namedGPUs is how many GPUs a message names.
	namedGPUs = 8
	// maxMessage bounds a message, in bytes.
	maxMessage = 1024
)

// Desired is what the node should say of itself.
type Desired struct {
	Status  corev1.ConditionStatus
	Reason  string // CamelCase
	Message string // at most 1 KiB
	Taint   *Taint // nil: none

	faults []string // each as place and reason: what is bad
}

// Taint is the entry under our key.
type Taint struct {
	Value  string // the worst reason
	Effect detector.Effect
}

// fault is what is bad about one GPU, or about the node.
type fault struct {
	gpu    *detector.GPUView // nil: the node
	worst  detector.Condition
	remedy detector.Action // against all that the GPU has
}

// desired is the whole decision.
// fenced: sick GPUs are kept from new work one by one.
func desired(s *detector.Snapshot, c Config, fenced bool) Desired {
	faults := fencing(s)
	if len(faults) > 0 {
		d := Desired{
			Status: corev1.ConditionFalse, Reason: string(faults[0].worst.Reason),
			Message: list("", faults, fault.String), Taint: taint(s, faults, c, fenced),
		}
		if s.Pause != nil {
			d.Message = bounded(d.Message + "; " + s.Pause.String())
		}
		for _, f := range faults {
			d.faults = append(d.faults, f.place()+" "+string(f.worst.Reason)+" "+string(f.worst.Effect))
		}
		return d
	}
	var stale, degraded []*detector.GPUView
	for i := range s.GPUs {
		switch s.GPUs[i].Status {
		case detector.Unknown:
			stale = append(stale, &s.GPUs[i])
		case detector.Degraded:
			degraded = append(degraded, &s.GPUs[i])
		case detector.Healthy, detector.Unhealthy:
		}
	}
	switch {
	case s.Pause != nil:
		return Desired{Status: corev1.ConditionUnknown, Reason: reasonPaused, Message: bounded("not monitored: " + s.Pause.String())}
	case !s.Ready():
		return Desired{Status: corev1.ConditionUnknown, Reason: reasonStarting, Message: "the GPUs have not been looked at yet"}
	case s.Driver.Missing != "":
		return Desired{Status: corev1.ConditionUnknown, Reason: reasonDriverMissing, Message: bounded("no driver: " + s.Driver.Missing)}
	case len(stale) > 0:
		return Desired{Status: corev1.ConditionUnknown, Reason: reasonStale, Message: list("no fresh reading of ", stale, name)}
	case len(s.GPUs) == 0:
		return Desired{Status: corev1.ConditionTrue, Reason: reasonNone, Message: "no GPUs on this node"}
	case len(degraded) > 0:
		return Desired{Status: corev1.ConditionTrue, Reason: reasonHealthy, Message: list(
			fmt.Sprintf("%s fit for work, %d of them degraded: ", gpus(len(s.GPUs)), len(degraded)), degraded, warned)}
	default:
		return Desired{Status: corev1.ConditionTrue, Reason: reasonHealthy, Message: gpus(len(s.GPUs)) + " healthy"}
	}
}

// fencing lists who must get no new work, worst first. An application fault is
// never a reason: untrusted code can raise it at will.
func fencing(s *detector.Snapshot) []fault {
	var faults []fault
	add := func(g *detector.GPUView, conditions []detector.Condition) {
		if i := slices.IndexFunc(conditions, fences); i >= 0 {
			faults = append(faults, fault{gpu: g, worst: conditions[i], remedy: detector.Remedy(conditions)})
		}
	}
	add(nil, s.Node)
	for i := range s.GPUs {
		add(&s.GPUs[i], s.GPUs[i].Conditions)
	}
	slices.SortStableFunc(faults, func(a, b fault) int {
		return cmp.Or(detector.Worse(a.worst, b.worst), cmp.Compare(a.place(), b.place()))
	})
	return faults
}

func fences(c detector.Condition) bool {
	return c.Effect.Fences() && c.Class != detector.Application && c.Scope != detector.ScopeWorkload
}

// taint says whether the faults, worst first, fence the whole node.
func taint(s *detector.Snapshot, faults []fault, c Config, fenced bool) *Taint {
	worst := Taint{Value: string(faults[0].worst.Reason), Effect: faults[0].worst.Effect}
	switch {
	case c.Taint == TaintNever:
		return nil
	case c.Taint == TaintAlways, !fenced:
		return &worst
	}
	bad := 0
	wide := false
	// Who has to leave a single GPU is told by its device.
	worst.Effect = detector.NoSchedule
	for _, f := range faults {
		if f.worst.Scope == detector.ScopeNode {
			wide = true
			if f.worst.Effect.Harder(worst.Effect) {
				worst.Effect = f.worst.Effect
			}
		}
		if f.gpu != nil {
			bad++
		}
	}
	limit := int(c.TaintWhenUnhealthy)
	if c.TaintWhenUnhealthy == AllGPUs {
		limit = len(s.GPUs)
	}
	if wide || bad >= max(limit, 1) {
		return &worst
	}
	return nil
}

// severity orders the three statuses of the condition.
func severity(s corev1.ConditionStatus) int {
	switch s {
	case corev1.ConditionFalse:
		return 2
	case corev1.ConditionUnknown:
		return 1
	case corev1.ConditionTrue:
	}
	return 0
}

// worseThan reports whether d has bad news that was has not.
func (d Desired) worseThan(was Desired) bool {
	switch {
	case severity(d.Status) > severity(was.Status), d.Taint != nil && was.Taint == nil:
		return true
	case d.Taint != nil && d.Taint.Effect.Harder(was.Taint.Effect):
		return true
	default:
		return slices.ContainsFunc(d.faults, func(f string) bool { return !slices.Contains(was.faults, f) })
	}
}

func (f fault) place() string {
	if f.gpu == nil {
		return ""
	}
	return f.gpu.PCI
}

func (f fault) String() string {
	who := "node"
	if f.gpu != nil {
		who = name(f.gpu)
	}
	return fmt.Sprintf("%s: %s, %s", who, f.worst.Reason, f.remedy)
}

// name is how people find the GPU: its number, its slot and its UUID.
func name(g *detector.GPUView) string {
	ids := g.PCI
	if g.UUID != "" {
		ids += ", " + g.UUID
	}
	if g.Index == nil {
		return fmt.Sprintf("GPU (%s)", ids)
	}
	return fmt.Sprintf("GPU %d (%s)", *g.Index, ids)
}

func warned(g *detector.GPUView) string {
	for _, c := range g.Conditions {
		if c.Class != detector.Application {
			return fmt.Sprintf("%s: %s, %s", name(g), c.Reason, c.Action)
		}
	}
	return name(g)
}

func gpus(n int) string {
	if n == 1 {
		return "1 GPU"
	}
	return fmt.Sprintf("%d GPUs", n)
}

// list names the first items, and counts the others.
func list[T any](head string, items []T, text func(T) string) string {
	const rest = len(" and 99999 more")
	var b strings.Builder
	b.WriteString(head)
	for i, item := range items {
		next := text(item)
		if i > 0 {
			next = "; " + next
		}
		if i == namedGPUs || b.Len()+len(next)+rest > maxMessage {
			fmt.Fprintf(&b, " and %d more", len(items)-i)
			break
		}
		b.WriteString(next)
	}
	return b.String()
}

func bounded(s string) string {
	if len(s) <= maxMessage {
		return strings.ToValidUTF8(s, "?")
	}
	return strings.ToValidUTF8(s[:maxMessage-len("...")], "") + "..."
}
