package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpuvet.dev/detector"
)

// asks sets one annotation as the API server does, with the manager in its books;
// an empty value takes it away.
func (w *world) asks(annotation, value, manager string) {
	w.api.change(func(n *corev1.Node) {
		delete(n.Annotations, annotation)
		n.ManagedFields = nil
		if value == "" {
			return
		}
		if n.Annotations == nil {
			n.Annotations = map[string]string{}
		}
		n.Annotations[annotation] = value
		n.ManagedFields = []metav1.ManagedFieldsEntry{
			managed("kubelet", "", time.Hour, "volumes.kubernetes.io/controller-managed-attach-detach"),
			managed(manager, "", time.Minute, annotation),
		}
	})
	settle()
}

// managed is an entry of the API server's books: who set these annotations, and
// how long ago.
func managed(manager, subresource string, ago time.Duration, annotations ...string) metav1.ManagedFieldsEntry {
	var fields []string
	for _, a := range annotations {
		fields = append(fields, fmt.Sprintf(`"f:%s":{}`, a))
	}
	at := metav1.NewTime(time.Now().Add(-ago))
	return metav1.ManagedFieldsEntry{
		Manager: manager, Operation: "Update", Subresource: subresource, Time: &at, FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:annotations":{".":{},` + strings.Join(fields, ",") + `}}}`),
	}
}

func (w *world) reasons(gpu int) []detector.Reason {
	w.Helper()
	g, ok := w.detector.Snapshot().GPU(pci(gpu))
	if !ok {
		w.Fatalf("no GPU %d", gpu)
	}
	var list []detector.Reason
	for _, c := range g.Conditions {
		list = append(list, c.Reason)
	}
	return list
}

func TestAnnotationClearsOnceAndNamesItsManager(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(3)
		for gpu := range 3 {
			w.xid(gpu, 74)
			w.xid(gpu, 31)
		}
		settle()
		w.asks(ClearAnnotation, "1 LinkFault; "+strings.ToUpper(pci(2)), "kubectl-annotate")
		both := []detector.Reason{detector.LinkFault, detector.ApplicationFault}
		for gpu, want := range [][]detector.Reason{both, both[1:], nil} {
			if got := w.reasons(gpu); !slices.Equal(got, want) {
				t.Errorf("GPU %d has %v, want %v", gpu, got, want)
			}
		}
		last := w.detector.Snapshot().Transitions
		if c := last[len(last)-1]; c.Status != detector.Cleared || c.Cause != "by the node's annotation (kubectl-annotate)" {
			t.Errorf("last transition: %+v", c)
		}

		// The same value clears nothing again, not even after a restart.
		pass(time.Minute)
		w.xid(1, 74)
		pass(5 * time.Second) // it is saved
		w.kill()
		w.start()
		w.look(3)
		pass(time.Second)
		if got := w.reasons(1); !slices.Contains(got, detector.LinkFault) {
			t.Errorf("new evidence was cleared: %v", got)
		}
		w.asks(ClearAnnotation, "", "")
		w.asks(ClearAnnotation, "1 LinkFault", "kubectl-annotate")
		if got := w.reasons(1); slices.Contains(got, detector.LinkFault) {
			t.Errorf("not cleared: %v", got)
		}
	})
}

func TestAnnotationThatWaitsForTheDaemonMeetsItsGPUs(t *testing.T) {
	inWorld(t, func(w *world) {
		w.start()
		w.emit(detector.KindBoot, -1, map[string]string{"version": "test"})
		w.emit(detector.KindDriverLoaded, -1, map[string]string{"version": "570.1", "load": "1"})
		w.xid(0, 74)
		w.asks(ClearAnnotation, "1; 0", "kubectl-annotate")
		w.look(2)
		settle()
		if got := w.reasons(0); len(got) > 0 || w.logs.FilterMessage("what the node asks for is refused").Len() > 0 {
			t.Errorf("GPU 0 has %v; logs: %v", got, w.logs.All())
		}
	})
}

func TestAnnotationForAGPUThatNeverComesIsRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		w.start()
		w.emit(detector.KindBoot, -1, map[string]string{"version": "test"})
		w.emit(detector.KindDriverMissing, -1, map[string]string{"cause": "no driver"})
		w.asks(IgnoreAnnotation, "1 LinkFault for 24h", "kubectl-annotate")
		if got := w.detector.Snapshot().Requests.Refusals(); len(got) > 0 {
			t.Errorf("refused before the GPUs can have been listed: %q", got)
		}
		pass(settling)
		want := `annotation gpuvet.dev/ignore: "1 LinkFault for 24h": gpu: "1" is none of the GPUs of this node: it has none at present`
		if got := w.detector.Snapshot().Requests.Refusals(); len(got) != 1 || got[0] != want {
			t.Errorf("refused: %q, want %s", got, want)
		}
	})
}

func TestBadOrdersChangeNothingAndAreTold(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		pass(settling)
		w.xid(0, 79)
		settle()
		reasons := detector.GPULost
		for _, tt := range []struct{ annotation, value, cause string }{
			{ClearAnnotation, "0 GPULost; 7", `"7": gpu: "7" is none of the GPUs of this node: it has 2 GPUs, `},
			{ClearAnnotation, "0 linkfault", `"0 linkfault": reason: "linkfault" is none, expected one of `},
			{ClearAnnotation, "0;", `"": expected a GPU, and perhaps a reason, as in "3 GPULost"`},
			{ClearAnnotation, "0 GPULost for 24h", `"0 GPULost for 24h": expected a GPU, and perhaps a reason`},
			{ClearAnnotation, " ", `"": expected a GPU`},
			{ClearAnnotation, "0;" + strings.Repeat("0;", maxOrders), "longer than 1000 bytes"},
			{IgnoreAnnotation, "0 LinkFault", `"0 LinkFault": expected a GPU, a reason and for how long, as in "3 LinkFault for 24h"`},
			{IgnoreAnnotation, "0 GPULost for 30s", `for: "30s": expected a duration from 1m to 720h`},
			{IgnoreAnnotation, "0 LinkFault until 24h", "expected a GPU, a reason and for how long"},
			{IgnoreAnnotation, "node FabricFault for 1h", "by a row of the policy"},
			{IgnoreAnnotation, "0 Unmonitored for 1h", `"gpuvet resume"`},
		} {
			before := w.logs.FilterMessage("what the node asks for is refused").Len()
			w.asks(tt.annotation, tt.value, "kubectl-annotate")
			got := w.detector.Snapshot().Requests.Refusals()
			if len(got) != 1 || !strings.HasPrefix(got[0], "annotation "+tt.annotation+": ") || !strings.Contains(got[0], tt.cause) {
				t.Errorf("%q is refused with %q, want %q", tt.value, got, tt.cause)
			}
			if n := w.logs.FilterMessage("what the node asks for is refused").Len() - before; n != 1 {
				t.Errorf("%q is in the log %d times", tt.value, n)
			}
			if left := w.reasons(0); !slices.Equal(left, []detector.Reason{reasons}) {
				t.Errorf("%q has changed the faults to %v", tt.value, left)
			}
			w.asks(tt.annotation, "", "")
			if got := w.detector.Snapshot().Requests.Refusals(); len(got) > 0 {
				t.Errorf("still refused: %q", got)
			}
			pass(time.Minute) // the budget of Events
		}
		told := map[string]int{}
		for _, e := range w.api.told() {
			if strings.HasSuffix(e.Reason, "Refused") && e.Type == "Warning" {
				told[e.Reason]++
			}
		}
		if diff := cmp.Diff(map[string]int{"ClearRefused": 6, "IgnoreRefused": 5}, told); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestIgnoringByAnnotationIsTheEventsThatTheTrailShows(t *testing.T) {
	one := 1
	s := &detector.Snapshot{
		Driver: detector.DriverState{Asked: true},
		GPUs: []detector.GPUView{
			{PCI: pci(0), Ignored: []detector.Ignored{
				{Reason: detector.GPULost, By: detector.ByHand},
				{Reason: detector.LinkFault, By: detector.ByAnnotation},
				{Reason: detector.ThermalFault, By: detector.ByAnnotation},
			}},
			{PCI: pci(1), UUID: "GPU-1", Index: &one},
		},
		Requests: detector.Requests{Handled: map[string]string{detector.ByIgnore: "another"}},
	}
	fields := func(reason, length string) map[string]string {
		f := map[string]string{"reason": reason, "by": detector.ByAnnotation, "author": "jo"}
		if length != "" {
			f["for"] = length
		}
		return f
	}
	const node = detector.SourceNode
	first, second := detector.Device{PCI: pci(0)}, detector.Device{PCI: pci(1), UUID: "GPU-1"}
	value := "1 LinkFault for 24h;" + pci(0) + " ThermalFault for 90m"
	for _, tt := range []struct {
		value string
		want  []detector.Event
	}{
		{"another", nil},
		{value, []detector.Event{
			{Source: node, Kind: detector.KindUnignore, GPU: first, Fields: fields("LinkFault", "")},
			{Source: node, Kind: detector.KindIgnore, GPU: second, Fields: fields("LinkFault", "24h")},
			{Source: node, Kind: detector.KindIgnore, GPU: first, Fields: fields("ThermalFault", "90m")},
			handled(detector.ByIgnore, value, ""),
		}},
		{"", []detector.Event{
			{Source: node, Kind: detector.KindUnignore, GPU: first, Fields: fields("LinkFault", "")},
			{Source: node, Kind: detector.KindUnignore, GPU: first, Fields: fields("ThermalFault", "")},
			handled(detector.ByIgnore, "", ""),
		}},
	} {
		got := byHand(s, detector.ByIgnore, IgnoreAnnotation, wish{tt.value, "jo"}, false)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.value, diff)
		}
	}
}

func TestManagerIsTheNewestOfTheAnnotation(t *testing.T) {
	n := &corev1.Node{}
	n.ManagedFields = []metav1.ManagedFieldsEntry{
		managed("old", "", time.Hour, ClearAnnotation),
		managed("jo", "status", time.Minute, ClearAnnotation, "other"),
		managed("kubelet", "", 0, IgnoreAnnotation),
		{Manager: "odd", FieldsV1: metav1.NewFieldsV1(`{"f:metadata":3}`)},
		{Manager: "empty"},
	}
	for annotation, want := range map[string]string{ClearAnnotation: "jo", IgnoreAnnotation: "kubelet", PauseAnnotation: ""} {
		if got := manager(n, annotation); got != want {
			t.Errorf("%s was set by %q, want %q", annotation, got, want)
		}
	}
}

func TestIgnoringByAnnotationLastsAsLongAsTheValueAndIsTold(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		w.xid(1, 79)
		w.goodNews()
		w.wantTaints(lost)
		w.asks(IgnoreAnnotation, "1 GPULost for 2h", "jo")
		pass(time.Minute)
		w.wantTaints()
		w.asks(IgnoreAnnotation, "", "")
		w.goodNews()
		w.wantTaints(lost)
		w.asks(IgnoreAnnotation, "1 GPULost for 2h", "jo")
		pass(time.Minute)
		w.wantTaints()
		w.kill()
		w.start()
		w.look(2)
		pass(time.Hour)
		w.wantTaints()
		if got := w.detector.Snapshot().GPUs[1].Ignored; len(got) != 1 || time.Until(got[0].Until) > 59*time.Minute {
			t.Errorf("ignored is %v, want what was begun an hour ago", got)
		}
		pass(time.Hour)
		w.wantTaints(lost)
		told := map[string]int{}
		for _, e := range w.api.told() {
			told[e.Reason]++
		}
		if diff := cmp.Diff(map[string]int{"GPULost": 3, "GPULostCleared": 2}, told); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}
