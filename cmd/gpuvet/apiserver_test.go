package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// apiServer answers what the output asks about one node, and counts what it writes.
type apiServer struct {
	*httptest.Server
	mu      sync.Mutex
	node    corev1.Node
	changed chan struct{} // closed and replaced at each version of the node
	writes  map[string]int
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	a := &apiServer{changed: make(chan struct{}), writes: map[string]int{}}
	a.node.TypeMeta, a.node.ObjectMeta = metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}, metav1.ObjectMeta{Name: "node-1", UID: "u", ResourceVersion: "1"}
	a.Server = httptest.NewServer(a)
	t.Cleanup(func() {
		a.CloseClientConnections()
		a.Close()
	})
	return a
}

// flags are those of a daemon that tells this server, and has no kubelet to offer GPUs
// to.
func (a *apiServer) flags(t *testing.T) []string {
	t.Helper()
	kubeconfig := file(t, "kubeconfig", fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: a,
contexts: [{name: a, context: {cluster: a, user: a}}], users: [{name: a, user: {token: a}}], clusters: [{name: a, cluster: {server: %q}}]}`, a.URL))
	alone := file(t, "gpuvet.yaml", configHead+"dra: {enabled: false}\n")
	return []string{"--config", alone, "--standalone=false", "--kubeconfig", kubeconfig, "--node-name", a.node.Name}
}

// said is the node's condition, and the keys of its taints.
func (a *apiServer) said() (condition corev1.NodeCondition, taints []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.node.Status.Conditions {
		condition = c
	}
	for _, t := range a.node.Spec.Taints {
		taints = append(taints, t.Key)
	}
	return condition, taints
}

// taken are the writes since it was asked last.
func (a *apiServer) taken() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	writes := a.writes
	a.writes = map[string]int{}
	return writes
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Query().Get("watch") != "" {
		a.watch(w, r)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var err error
	switch {
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/events"):
		a.writes["event"]++
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(corev1.Event{TypeMeta: metav1.TypeMeta{Kind: "Event", APIVersion: "v1"}})
		return
	case r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/api/v1/nodes/"):
	case r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/status"):
		err = a.patchStatus(body)
	case r.Method == http.MethodPatch:
		err = a.patchTaints(body)
	default:
		http.NotFound(w, r)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(a.node)
}

// bump makes a version of the node. a.mu is held.
func (a *apiServer) bump() {
	version, _ := strconv.Atoi(a.node.ResourceVersion)
	a.node.ResourceVersion = strconv.Itoa(version + 1)
	close(a.changed)
	a.changed = make(chan struct{})
}

// patchStatus replaces the one condition that the output has. a.mu is held.
func (a *apiServer) patchStatus(body []byte) error {
	a.writes["condition"]++
	var p struct {
		Status struct{ Conditions []corev1.NodeCondition }
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return err
	}
	a.node.Status.Conditions = p.Status.Conditions
	a.bump()
	return nil
}

// patchTaints puts the entry of the patch in the place of all. a.mu is held.
func (a *apiServer) patchTaints(body []byte) error {
	a.writes["taint"]++
	var patch []struct {
		Op, Path string
		Value    json.RawMessage
	}
	if err := json.Unmarshal(body, &patch); err != nil {
		return err
	}
	for _, o := range patch {
		var entry corev1.Taint
		switch {
		case !strings.HasPrefix(o.Path, "/spec/taints"):
			continue
		case o.Op == "remove":
			a.node.Spec.Taints = nil
			continue
		case json.Unmarshal(o.Value, &a.node.Spec.Taints) == nil:
			continue
		case json.Unmarshal(o.Value, &entry) == nil:
			a.node.Spec.Taints = []corev1.Taint{entry}
		default:
			return fmt.Errorf("taint %s", o.Value)
		}
	}
	a.bump()
	return nil
}

func (a *apiServer) watch(w http.ResponseWriter, r *http.Request) {
	for kind := "ADDED"; ; kind = "MODIFIED" {
		a.mu.Lock()
		node, changed := a.node.DeepCopy(), a.changed
		a.mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]any{"type": kind, "object": node})
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}
