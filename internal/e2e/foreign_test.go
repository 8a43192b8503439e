package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpuvet.dev/internal/e2e/kube"
)

const (
	foreignKey = "example.com/fence"
	toggledKey = "example.com/toggled"
)

// Two writers change one list at the same moment. Neither may lose what the
// other wrote.
func TestNodeTaintOfOthersSurvives(t *testing.T) {
	t.Parallel()
	s := newSubject(t, "others")
	patchNode(t, s.node, `{"spec":{"taints":[{"key":"`+foreignKey+`","effect":"NoSchedule"}]}}`)
	seen := cluster.WatchNode(t, s.node)

	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	ended := make(chan rival)
	go func() { ended <- toggle(ctx, s.node) }()
	var ourConflicts float64
	for i := range 5 {
		gpu := i % len(s.fleet) // the third fault of one would stand
		s.lose(t, gpu)
		s.awaitFenced(t, gpu)
		s.recover(t)
		met, err := s.Value(t.Context(), "gpuvet_call_errors_total", "call", "patch node")
		if err != nil {
			t.Error(err)
		}
		ourConflicts += met
	}
	stop()
	other := <-ended
	t.Logf("the other writer wrote %d times; it met %d conflicts, the daemon %v", other.writes, other.conflicts, ourConflicts)
	for _, fault := range other.lost {
		t.Error(fault)
	}
	if other.conflicts == 0 && ourConflicts == 0 {
		t.Error("the writers never met: this has tested nothing")
	}

	ours := 0
	for _, version := range seen.Versions(t) {
		if kube.Taint(version.Node, foreignKey) == nil {
			t.Fatalf("taint %s was lost: %v", foreignKey, version.Node.Spec.Taints)
		}
		if own := ownTaints(version.Node); len(own) > 1 {
			t.Errorf("our taint is there more than once: %v", own)
		} else if len(own) == 1 {
			ours++
		}
	}
	if ours == 0 {
		t.Error("our taint was never seen")
	}
}

// rival is what another writer of the list has met.
type rival struct {
	writes, conflicts int
	lost              []string
}

// toggle adds and removes a taint without rest, with the lock that the API offers,
// until ctx ends. What it wrote must be there when it comes again.
func toggle(ctx context.Context, name string) (r rival) {
	nodes := cluster.Admin().CoreV1().Nodes()
	var wrote []corev1.Taint
	for ctx.Err() == nil {
		node, err := nodes.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			continue // at the end; anything else shows in what was written
		}
		if diff := cmp.Diff(wrote, foreignTaints(node)); r.writes > 0 && diff != "" {
			r.lost = append(r.lost, "others' taints are not as their writer left them (-want +got):\n"+diff)
		}
		pause(ctx, 2*time.Millisecond) // let somebody come in between
		isToggled := func(taint corev1.Taint) bool { return taint.Key == toggledKey }
		if slices.ContainsFunc(node.Spec.Taints, isToggled) {
			node.Spec.Taints = slices.DeleteFunc(node.Spec.Taints, isToggled)
		} else {
			// At the front, so that the place of the daemon's changes all the time.
			node.Spec.Taints = slices.Insert(node.Spec.Taints, 0, corev1.Taint{Key: toggledKey, Effect: corev1.TaintEffectNoSchedule})
		}
		switch _, err := nodes.Update(ctx, node, metav1.UpdateOptions{}); {
		case err == nil:
			r.writes++
			wrote = foreignTaints(node)
		case apierrors.IsConflict(err):
			r.conflicts++
		}
	}
	return r
}

func foreignTaints(node *corev1.Node) []corev1.Taint {
	return slices.DeleteFunc(slices.Clone(node.Spec.Taints), func(taint corev1.Taint) bool { return taint.Key == ownTaint })
}

// Somebody who works on a node may fence it under our key too: that fence is
// not ours to lift.
func TestNodeForeignEntryUnderOurKeyIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := newSubject(t, "taken")
	foreign := corev1.Taint{Key: ownTaint, Value: "Maintenance", Effect: corev1.TaintEffectNoSchedule}
	patchNode(t, s.node, `{"spec":{"taints":[{"key":"`+ownTaint+`","value":"Maintenance","effect":"NoSchedule"}]}}`)
	s.lose(t, 0)
	kube.Eventually(t, soon, func() error {
		condition := kube.Condition(read(t, s.node), ownCondition)
		if condition.Status != corev1.ConditionFalse || condition.Reason != "GPULost" {
			return fmt.Errorf("condition is %s (%s), want False (GPULost)", condition.Status, condition.Reason)
		}
		return s.isHindered(t)
	})
	kube.Eventually(t, soon, func() error {
		for _, event := range cluster.Events(t, s.node, "gpuvet.dev") {
			if event.Reason == "ForeignTaint" && strings.Contains(event.Message, "Maintenance") {
				return nil
			}
		}
		return fmt.Errorf("no event ForeignTaint")
	})
	if log := s.Log(); !strings.Contains(log, "the key is taken by an entry that is not ours") {
		t.Error("the log does not say that the key is taken")
	}
	if status, _ := s.Command(t, "status"); !strings.Contains(status, "Maintenance") {
		t.Errorf("gpuvet status does not say that the key is taken:\n%s", status)
	}
	if diff := cmp.Diff([]corev1.Taint{foreign}, cluster.Node(t, s.node).Spec.Taints); diff != "" {
		t.Errorf("taints (-want +got):\n%s", diff)
	}
	patchNode(t, s.node, `{"spec":{"taints":null}}`)
	s.awaitFenced(t, 0)

	patchNode(t, s.node, `{"spec":{"taints":[{"key":"`+ownTaint+`","value":"Maintenance","effect":"NoSchedule"}]}}`)
	s.stop(t)
	s.Options.Scenario = s.fleet.Scenario(t, "{at: 1s, reload: driver}")
	s.Restart(t)
	kube.Eventually(t, soon, func() error {
		if condition := kube.Condition(read(t, s.node), ownCondition); condition.Status != corev1.ConditionTrue {
			return fmt.Errorf("condition is %s, want True", condition.Status)
		}
		return nil
	})
	pause(t.Context(), 2*time.Second)
	if diff := cmp.Diff([]corev1.Taint{foreign}, cluster.Node(t, s.node).Spec.Taints); diff != "" {
		t.Errorf("taints after recovery (-want +got):\n%s", diff)
	}
}

func TestNodeTaintRemovedByOthersComesBack(t *testing.T) {
	t.Parallel()
	s := newSubject(t, "removed")
	s.lose(t, 0)
	s.awaitFenced(t, 0)
	for range 2 {
		patchNode(t, s.node, `{"spec":{"taints":null}}`)
		// Two who fight about a node share its budget of a write per 10 s.
		kube.Eventually(t, 2*soon, func() error { return fenced(read(t, s.node), s.fleet[0]) })
	}
	s.awaitEvents(t, "GPULost", 1)
	s.recover(t)
}
