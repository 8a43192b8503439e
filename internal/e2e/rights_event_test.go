package e2e

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestNodeRightsOnEvents(t *testing.T) {
	cluster.AddNode(t, ownNode)
	for _, tt := range []struct {
		name      string
		token     string
		about     corev1.ObjectReference
		reporter  string
		namespace string
		refusal   string
	}{
		{name: "about its own node", token: ownNode, about: nodeReference(ownNode), reporter: "gpuvet.dev", namespace: "default"},
		{
			name: "about another node", token: ownNode, about: nodeReference(otherNode), reporter: "gpuvet.dev", namespace: "default",
			refusal: "tried to write an event about Node rights-other; gpuvet may write events only about Node rights-own",
		},
		{
			name: "about a pod of the node's name", token: ownNode, reporter: "gpuvet.dev", namespace: "default",
			about:   corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Name: ownNode, Namespace: "default"},
			refusal: "tried to write an event about Pod rights-own; gpuvet may write events only about Node rights-own",
		},
		{
			name: "in the kubelet's name", token: ownNode, about: nodeReference(ownNode), reporter: "kubelet", namespace: "default",
			refusal: `tried to write an event in the name of "kubelet"; gpuvet reports only as gpuvet.dev`,
		},
		{
			name: "with an unbound token", about: nodeReference(ownNode), reporter: "gpuvet.dev", namespace: "default",
			refusal: "tried to write an event with a token that is bound to no node",
		},
		{
			name: "in another namespace", token: ownNode, about: nodeReference(ownNode), reporter: "gpuvet.dev", namespace: "kube-system",
			refusal: `cannot create resource "events" in API group`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client := shipped(t, tt.token)
			t.Run("events.k8s.io", func(t *testing.T) {
				_, err := client.EventsV1().Events(tt.namespace).Create(t.Context(), &eventsv1.Event{
					ObjectMeta: metav1.ObjectMeta{GenerateName: "rights-", Namespace: tt.namespace},
					Regarding:  tt.about, ReportingController: tt.reporter, ReportingInstance: "rights",
					EventTime: metav1.NowMicro(), Type: "Warning", Reason: "GPULost", Action: "Report",
				}, metav1.CreateOptions{})
				expectRefusal(t, err, tt.refusal)
			})
			t.Run("core", func(t *testing.T) {
				_, err := client.CoreV1().Events(tt.namespace).Create(t.Context(), &corev1.Event{
					ObjectMeta:     metav1.ObjectMeta{GenerateName: "rights-", Namespace: tt.namespace},
					InvolvedObject: tt.about, ReportingController: tt.reporter, ReportingInstance: "rights",
					EventTime: metav1.NowMicro(), Type: "Warning", Reason: "GPULost", Action: "Report",
				}, metav1.CreateOptions{})
				expectRefusal(t, err, tt.refusal)
			})
		})
	}
}

func TestNodeRightsOnSomebodyElsesEvent(t *testing.T) {
	cluster.AddNode(t, ownNode)
	foreign, err := cluster.Admin().CoreV1().Events("default").Create(t.Context(), &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: "rights-", Namespace: "default"},
		InvolvedObject: nodeReference(otherNode), ReportingController: "kubelet", ReportingInstance: "rights",
		EventTime: metav1.NowMicro(), Type: "Normal", Reason: "NodeReady", Action: "Report",
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	takeover := `{"involvedObject":{"name":"rights-own"},"reportingComponent":"gpuvet.dev"}`
	_, err = shipped(t, ownNode).CoreV1().Events("default").
		Patch(t.Context(), foreign.Name, types.MergePatchType, []byte(takeover), metav1.PatchOptions{})
	expectRefusal(t, err, "tried to write an event about Node rights-own, Node rights-other;")
}

func nodeReference(name string) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: name}
}
