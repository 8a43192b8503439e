package node

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpuvet.dev/detector"
)

func TestNextStepAboutTheTaint(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	then := now.Add(-time.Hour).Truncate(time.Second)
	known := func(value string, added time.Time, accepted bool, earlier ...detector.AppliedTaint) *detector.AppliedTaint {
		return &detector.AppliedTaint{Value: value, Effect: detector.NoSchedule, Added: added, Accepted: accepted, Earlier: earlier}
	}
	entry := func(value string, added time.Time) corev1.Taint {
		return corev1.Taint{Key: TaintKey, Value: value, Effect: "NoSchedule", TimeAdded: &metav1.Time{Time: added}}
	}
	other := corev1.Taint{Key: "dedicated", Effect: "NoSchedule"}
	bare := corev1.Taint{Key: TaintKey, Value: "A", Effect: "NoSchedule"}
	hard := corev1.Taint{Key: TaintKey, Value: "A", Effect: "NoExecute"}
	wantA := &Taint{Value: "A", Effect: detector.NoSchedule}
	a := known("A", then, true)
	recent := now.Add(-time.Second).Truncate(time.Second)
	for _, c := range []struct {
		name  string
		list  []corev1.Taint
		want  *Taint
		known *detector.AppliedTaint
		lost  bool // not on disk
		plan  plan
	}{
		{name: "nothing, nothing wanted", list: []corev1.Taint{other}},
		{name: "first", list: []corev1.Taint{other}, want: wantA, plan: plan{step: intend, intent: *known("A", now.Truncate(time.Second), false)}},
		{
			name: "intended, not on disk", list: nil, want: wantA, known: known("A", recent, false), lost: true,
			plan: plan{step: intend, intent: *known("A", recent, false)},
		},
		{
			name: "intended", list: []corev1.Taint{other}, want: wantA, known: known("A", recent, false),
			plan: plan{step: write, patch: []operation{{"add", "/spec/taints/-", entry("A", recent)}}},
		},
		{
			name: "intended, no list", want: wantA, known: known("A", recent, false),
			plan: plan{step: write, patch: []operation{{"add", "/spec/taints", []corev1.Taint{entry("A", recent)}}}},
		},
		{name: "written", list: []corev1.Taint{entry("A", then), other}, want: wantA, known: known("A", then, false), plan: plan{step: confirm}},
		{name: "accepted", list: []corev1.Taint{entry("A", then), other}, want: wantA, known: a},
		{
			name: "taken away by somebody", list: []corev1.Taint{other}, want: wantA, known: a,
			plan: plan{step: write, patch: []operation{{"add", "/spec/taints/-", entry("A", then)}}},
		},
		{
			name: "over", list: []corev1.Taint{other, entry("A", then)}, known: a,
			plan: plan{step: write, patch: []operation{{"remove", "/spec/taints/1", nil}}},
		},
		{name: "over and gone", list: []corev1.Taint{other}, known: a, plan: plan{step: forget}},
		{name: "over, perhaps under way", known: known("A", recent, false), plan: plan{step: wait, until: recent.Add(time.Minute)}},
		{name: "over, surely not under way", known: known("A", then, false), plan: plan{step: forget}},
		{
			name: "value changes", list: []corev1.Taint{entry("B", then), other}, want: wantA, known: known("B", then, true),
			plan: plan{step: intend, intent: *known("A", now.Truncate(time.Second), false)},
		},
		{
			name: "value changed on disk", list: []corev1.Taint{entry("B", then), other}, want: wantA, known: known("A", recent, false, *known("B", then, true)),
			plan: plan{step: write, patch: []operation{{"replace", "/spec/taints/0", entry("A", recent)}}},
		},
		{
			name: "over while the value changed", list: []corev1.Taint{entry("B", then), other}, known: known("A", recent, false, *known("B", then, true)),
			plan: plan{step: write, patch: []operation{{"remove", "/spec/taints/0", nil}}},
		},
		{name: "foreign, same in all but time", list: []corev1.Taint{bare}, want: wantA, plan: plan{foreign: &bare}},
		{name: "foreign in the place of ours", list: []corev1.Taint{bare}, want: wantA, known: a, plan: plan{step: forget, foreign: &bare}},
		{name: "foreign, nothing wanted", list: []corev1.Taint{bare}},
		{
			name: "foreign of another effect", list: []corev1.Taint{hard}, want: wantA, known: known("A", recent, false),
			plan: plan{step: write, patch: []operation{{"add", "/spec/taints/-", entry("A", recent)}}},
		},
		{name: "somebody edited ours", list: []corev1.Taint{entry("edited", then)}, known: a, plan: plan{step: forget}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := planTaint(c.list, c.want, c.known, !c.lost, now)
			if diff := cmp.Diff(c.plan, got, cmp.AllowUnexported(plan{})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestHeartbeatIsJittered(t *testing.T) {
	last := time.Now()
	low, high := time.Hour, time.Duration(0)
	for range 1000 {
		d := beat(last, 5*time.Minute).Sub(last)
		low, high = min(low, d), max(high, d)
	}
	if low < 270*time.Second || high > 330*time.Second || low > 275*time.Second || high < 325*time.Second {
		t.Errorf("from %v to %v, want the whole of 4m30s to 5m30s", low, high)
	}
}
