package e2e

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"gpuvet.dev/internal/e2e/kube"
)

func TestNodeRightsOnEvents(t *testing.T) {
	cluster.AddNode(t, ownNode)
	for _, tt := range []struct {
		name      string
		token     string
		about     corev1.ObjectReference
		reporter  string
		instance  string // who says it; empty: the own node
		component string // what kubectl shows as the reporter, of an event of the older group
		namespace string
		refusal   string
	}{
		{name: "about its own node", token: ownNode, about: nodeReference(ownNode), reporter: "gpuvet.dev", namespace: "default"},
		{
			name: "about another node", token: ownNode, about: nodeReference(otherNode), reporter: "gpuvet.dev", namespace: "default",
			refusal: "tried to write an event about Node rights-other; gpuvet may write events only about pods and Node rights-own",
		},
		{name: "about a pod", token: ownNode, about: podReference("default"), reporter: "gpuvet.dev", namespace: "default"},
		{name: "about a pod of another namespace", token: ownNode, about: podReference("kube-system"), reporter: "gpuvet.dev", namespace: "kube-system"},
		{
			name: "about a pod, from another node", token: ownNode, about: podReference("default"), reporter: "gpuvet.dev", instance: otherNode, namespace: "default",
			refusal: `tried to write an event from "rights-other"; gpuvet may write events only from rights-own`,
		},
		{
			name: "about its own node, from another", token: ownNode, about: nodeReference(ownNode), reporter: "gpuvet.dev", instance: otherNode, namespace: "default",
			refusal: `tried to write an event from "rights-other"; gpuvet may write events only from rights-own`,
		},
		{
			name: "about a Job", token: ownNode, reporter: "gpuvet.dev", namespace: "default",
			about:   corev1.ObjectReference{APIVersion: "batch/v1", Kind: "Job", Name: "train", Namespace: "default"},
			refusal: "tried to write an event about Job train; gpuvet may write events only about pods and Node rights-own",
		},
		{
			name: "about a pod, with an unbound token", about: podReference("default"), reporter: "gpuvet.dev", namespace: "default",
			refusal: "tried to write an event with a token that is bound to no node",
		},
		{
			name: "in the kubelet's name", token: ownNode, about: nodeReference(ownNode), reporter: "kubelet", namespace: "default",
			refusal: `tried to write an event in the name of "kubelet"; gpuvet reports only as gpuvet.dev`,
		},
		{
			name: "in the kubelet's older name", token: ownNode, about: podReference("default"), reporter: "gpuvet.dev", component: "kubelet", namespace: "default",
			refusal: `tried to write an event in the name of "gpuvet.dev, kubelet"; gpuvet reports only as gpuvet.dev`,
		},
		{name: "in its own older name", token: ownNode, about: podReference("default"), reporter: "gpuvet.dev", component: "gpuvet.dev", namespace: "default"},
		{
			name: "with an unbound token", about: nodeReference(ownNode), reporter: "gpuvet.dev", namespace: "default",
			refusal: "tried to write an event with a token that is bound to no node",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, instance := shipped(t, tt.token), cmp.Or(tt.instance, ownNode)
			t.Run("events.k8s.io", func(t *testing.T) {
				if tt.component != "" {
					return // refused by that group itself
				}
				_, err := client.EventsV1().Events(tt.namespace).Create(t.Context(), &eventsv1.Event{
					ObjectMeta: metav1.ObjectMeta{GenerateName: "rights-", Namespace: tt.namespace},
					Regarding:  tt.about, ReportingController: tt.reporter, ReportingInstance: instance,
					EventTime: metav1.NowMicro(), Type: "Warning", Reason: "GPULost", Action: "Report",
				}, metav1.CreateOptions{})
				expectRefusal(t, err, tt.refusal)
			})
			t.Run("core", func(t *testing.T) {
				_, err := client.CoreV1().Events(tt.namespace).Create(t.Context(), &corev1.Event{
					ObjectMeta:     metav1.ObjectMeta{GenerateName: "rights-", Namespace: tt.namespace},
					InvolvedObject: tt.about, ReportingController: tt.reporter, ReportingInstance: instance,
					Source:    corev1.EventSource{Component: tt.component},
					EventTime: metav1.NowMicro(), Type: "Warning", Reason: "GPULost", Action: "Report",
				}, metav1.CreateOptions{})
				expectRefusal(t, err, tt.refusal)
			})
		})
	}
}

// No role lets the daemon change an event. Should one do so, nobody else's event can be
// turned into one of ours.
func TestNodeRightsOnSomebodyElsesEvent(t *testing.T) {
	cluster.AddNode(t, ownNode)
	foreign, err := cluster.Admin().CoreV1().Events("default").Create(t.Context(), &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: "rights-", Namespace: "default"},
		InvolvedObject: nodeReference(otherNode), ReportingController: "kubelet", ReportingInstance: otherNode,
		EventTime: metav1.NowMicro(), Type: "Normal", Reason: "NodeReady", Action: "Report",
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	patch := func() error {
		takeover := `{"involvedObject":{"name":"rights-own"},"reportingComponent":"gpuvet.dev","reportingInstance":"rights-own"}`
		_, err := shipped(t, ownNode).CoreV1().Events("default").
			Patch(t.Context(), foreign.Name, types.MergePatchType, []byte(takeover), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	expectRefusal(t, patch(), `cannot patch resource "events"`)
	grant(t, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"patch"}}, "system:serviceaccount:gpuvet:gpuvet")
	kube.Eventually(t, time.Minute, func() error {
		if err := patch(); err == nil || strings.Contains(err.Error(), "cannot patch") {
			return fmt.Errorf("the right is not in force: %w", err)
		}
		return nil
	})
	expectRefusal(t, patch(), "tried to write an event about Node rights-own, Node rights-other;")
}

// A core event can name a node in a second place.
func TestNodeRightsOnTheHostOfAnEvent(t *testing.T) {
	cluster.AddNode(t, ownNode)
	events := shipped(t, ownNode).CoreV1().Events("default")
	for host, refusal := range map[string]string{
		ownNode: "", "": "",
		otherNode: `tried to write an event from "rights-other"; gpuvet may write events only from rights-own`,
	} {
		_, err := events.Create(t.Context(), &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{GenerateName: "rights-"},
			InvolvedObject: podReference("default"), ReportingController: "gpuvet.dev", ReportingInstance: ownNode,
			Source: corev1.EventSource{Component: "gpuvet.dev", Host: host}, Type: "Warning", Reason: "GPULost", Message: "x",
		}, metav1.CreateOptions{})
		t.Run("host "+host, func(t *testing.T) { expectRefusal(t, err, refusal) })
	}
}

// The longest name of a node does not fit where the one who reports it is named.
func TestNodeRightsOnEventsOfANodeWithALongName(t *testing.T) {
	long := strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + "." + strings.Repeat("c", 20)
	cluster.AddNode(t, long)
	events := shipped(t, long).CoreV1().Events("default")
	for instance, refusal := range map[string]string{long[:128]: "", long[:127]: "tried to write an event from"} {
		_, err := events.Create(t.Context(), &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{GenerateName: "rights-"},
			InvolvedObject: nodeReference(long), ReportingController: "gpuvet.dev", ReportingInstance: instance,
			Source: corev1.EventSource{Component: "gpuvet.dev", Host: long}, Type: "Warning", Reason: "GPULost", Message: "x",
		}, metav1.CreateOptions{})
		expectRefusal(t, err, refusal)
	}
}

func podReference(namespace string) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Name: "train", Namespace: namespace}
}

func nodeReference(name string) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: name}
}
