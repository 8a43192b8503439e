package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

const nodeName = "gpu-7"

// api speaks the few REST calls that the output makes, with the API server's
// rules for resource versions, over connections in memory: so the real client
// runs under a test's clock.
type api struct {
	client *corev1client.CoreV1Client

	mu       sync.Mutex
	node     *corev1.Node // nil: there is none
	version  int
	events   map[string]corev1.Event
	calls    map[string]int // tried, by name
	writes   []string       // to the node, accepted, in order
	watchers map[chan []byte]bool
	hang     bool
	down     bool
	refuse   func(call string) int // HTTP status; 0: go on
	before   func(call string)     // a write has arrived
	after    func(call string)     // it is done, and not yet answered
}

// newAPI has one node, which others have tainted.
func newAPI() *api {
	a := &api{events: map[string]corev1.Event{}, calls: map[string]int{}, watchers: map[chan []byte]bool{}}
	a.node = &corev1.Node{TypeMeta: metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: nodeName, UID: "u"}}
	a.node.Spec.Taints = []corev1.Taint{{Key: "dedicated", Value: "ml", Effect: "NoSchedule"}, {Key: "zone", Effect: "NoExecute"}}
	a.node.Status.Conditions = []corev1.NodeCondition{{Type: "Ready", Status: "True"}}
	a.bump()
	return a
}

// connect serves the API in memory, to the client that it makes.
func (a *api) connect(t *testing.T) {
	t.Helper()
	listener := &pipes{accept: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: a}
	go func() { _ = server.Serve(listener) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		a.mu.Lock()
		down := a.down
		a.mu.Unlock()
		if down {
			return nil, errors.New("connection refused")
		}
		return listener.dial(ctx)
	}}
	client, err := corev1client.NewForConfig(&rest.Config{Host: "http://api", Transport: transport, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	a.client = client
	t.Cleanup(func() {
		_ = server.Close()
		transport.CloseIdleConnections()
	})
}

// bump makes a new version of the node. a.mu is held.
func (a *api) bump() {
	a.version++
	a.node.ResourceVersion = strconv.Itoa(a.version)
	for w := range a.watchers {
		w <- watchEvent("MODIFIED", a.node)
	}
}

// change is somebody else's write.
func (a *api) change(edit func(n *corev1.Node)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	edit(a.node)
	a.bump()
}

// set changes how the server behaves.
func (a *api) set(edit func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	edit()
}

func (a *api) taints() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []string
	for _, t := range a.node.Spec.Taints {
		list = append(list, t.ToString())
	}
	return list
}

func (a *api) condition() corev1.NodeCondition {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.node.Status.Conditions {
		if c.Type == ConditionType {
			return c
		}
	}
	return corev1.NodeCondition{}
}

// written gives the accepted writes to the node since it was asked last.
func (a *api) written() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	writes := a.writes
	a.writes = nil
	return writes
}

func (a *api) told() []corev1.Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []corev1.Event
	for _, e := range a.events {
		list = append(list, e)
	}
	slices.SortFunc(list, func(x, y corev1.Event) int {
		return x.FirstTimestamp.Compare(y.FirstTimestamp.Time)*2 + strings.Compare(x.Reason, y.Reason)
	})
	return list
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := callOf(r)
	// The server notices a client that went away only once the body is read.
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	a.mu.Lock()
	a.calls[call]++
	hang, refuse, before := a.hang, a.refuse, a.before
	a.mu.Unlock()
	if hang {
		<-r.Context().Done()
		return
	}
	if refuse != nil {
		if status := refuse(call); status != 0 {
			fail(w, status, "refused by the test")
			return
		}
	}
	if call == "watch" {
		a.watch(w, r)
		return
	}
	if before != nil {
		before(call)
	}
	a.mu.Lock()
	answer, status, reason := a.serve(call, r)
	after := a.after
	if status < 300 && (call == "taint" || call == "status") {
		a.writes = append(a.writes, call)
	}
	a.mu.Unlock()
	if status >= 300 {
		fail(w, status, reason)
		return
	}
	if after != nil {
		after(call)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

func callOf(r *http.Request) string {
	switch {
	case r.URL.Query().Get("watch") != "":
		return "watch"
	case r.Method == http.MethodPost:
		return "event"
	case r.Method == http.MethodGet:
		return "get"
	case strings.HasSuffix(r.URL.Path, "/status"):
		return "status"
	default:
		return "taint"
	}
}

func fail(w http.ResponseWriter, status int, message string) {
	reasons := map[int]metav1.StatusReason{
		403: metav1.StatusReasonForbidden, 404: metav1.StatusReasonNotFound, 409: metav1.StatusReasonConflict,
		422: metav1.StatusReasonInvalid, 500: metav1.StatusReasonInternalError,
	}
	reason := reasons[status]
	if message == "AlreadyExists" {
		reason = metav1.StatusReasonAlreadyExists
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   "Failure", Code: int32(status), Reason: reason, Message: message,
	})
}

// serve does one call. a.mu is held.
func (a *api) serve(call string, r *http.Request) (any, int, string) {
	if call == "event" {
		var e corev1.Event
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil || r.URL.Path != "/api/v1/namespaces/"+e.Namespace+"/events" {
			return nil, 400, "no event: " + r.Header.Get("Content-Type")
		}
		if _, there := a.events[e.Name]; there {
			return nil, 409, "AlreadyExists"
		}
		a.events[e.Name] = e
		return e, 201, ""
	}
	if a.node == nil || !strings.HasPrefix(r.URL.Path, "/api/v1/nodes/"+a.node.Name) {
		return nil, 404, "no such node"
	}
	switch call {
	case "status":
		if r.Header.Get("Content-Type") != "application/strategic-merge-patch+json" {
			return nil, 415, "content type"
		}
		var p struct {
			Status struct{ Conditions []corev1.NodeCondition }
		}
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			return nil, 400, err.Error()
		}
		for _, c := range p.Status.Conditions {
			list := a.node.Status.Conditions
			if i := slices.IndexFunc(list, func(x corev1.NodeCondition) bool { return x.Type == c.Type }); i >= 0 {
				list[i] = c
			} else {
				a.node.Status.Conditions = append(list, c)
			}
		}
		a.bump()
	case "taint":
		if status, reason := a.patchTaints(r); status != 0 {
			return nil, status, reason
		}
		a.bump()
	}
	return a.node.DeepCopy(), 200, ""
}

// patchTaints applies a JSON patch to the list of taints. a.mu is held.
func (a *api) patchTaints(r *http.Request) (int, string) {
	var patch []struct {
		Op, Path string
		Value    json.RawMessage
	}
	if err := json.NewDecoder(r.Body).Decode(&patch); err != nil || r.Header.Get("Content-Type") != "application/json-patch+json" {
		return 400, "no patch"
	}
	list := slices.Clone(a.node.Spec.Taints)
	for _, o := range patch {
		var entry corev1.Taint
		place, _ := strings.CutPrefix(o.Path, listPath)
		i, err := strconv.Atoi(strings.TrimPrefix(place, "/"))
		switch {
		case o.Path == "/metadata/resourceVersion" && o.Op == "replace":
			if string(o.Value) != strconv.Quote(a.node.ResourceVersion) {
				return 409, "the object has been modified"
			}
			continue
		case o.Op == "add" && place == "" && len(list) == 0:
			list = nil
			if json.Unmarshal(o.Value, &list) != nil {
				return 400, "value"
			}
			continue
		case o.Op == "remove" && err == nil && i < len(list):
			list = slices.Delete(list, i, i+1)
			continue
		case json.Unmarshal(o.Value, &entry) != nil:
			return 400, "value"
		case o.Op == "add" && place == "/-" && len(list) > 0:
			list = append(list, entry)
		case o.Op == "replace" && err == nil && i < len(list):
			list[i] = entry
		default:
			return 422, o.Op + " " + o.Path
		}
	}
	for i, t := range list {
		if slices.ContainsFunc(list[:i], func(x corev1.Taint) bool { return x.MatchTaint(&t) }) {
			return 422, "taints must be unique by key and effect pair"
		}
	}
	a.node.Spec.Taints = list
	return 0, ""
}

func (a *api) watch(w http.ResponseWriter, r *http.Request) {
	changes := make(chan []byte, 1000)
	a.mu.Lock()
	a.watchers[changes] = true
	if a.node != nil {
		changes <- watchEvent("ADDED", a.node)
	}
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.watchers, changes)
	}()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(200)
	for {
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case change, open := <-changes:
			if !open {
				return
			}
			_, _ = w.Write(change)
		}
	}
}

func watchEvent(kind string, n *corev1.Node) []byte {
	data, err := json.Marshal(map[string]any{"type": kind, "object": n})
	if err != nil {
		panic(err)
	}
	return append(data, '\n')
}

// outage makes the server unreachable, or brings it back: it breaks its connections' requests, as
// the end of a process would.
func (a *api) outage(down bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = down
	a.refuse = nil
	if down {
		a.refuse = func(string) int { panic(http.ErrAbortHandler) }
		for w := range a.watchers {
			close(w)
			delete(a.watchers, w)
		}
	}
}

// pipes is a listener without a network.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.accept <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }
