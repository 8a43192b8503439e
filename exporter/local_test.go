package exporter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/detector"
)

// detectorNode is a real detector whose GPUs have an application fault each.
func detectorNode(t *testing.T) (*detector.Detector, Sources) {
	t.Helper()
	policy := detector.DefaultPolicy()
	d := detector.New(detector.Config{Policy: policy, Boot: "b1"})
	d.Emit(detector.Event{Source: detector.SourceDaemon, Kind: detector.KindBoot})
	d.Emit(detector.Event{Source: detector.SourceState, Kind: detector.KindDriverLoaded, Fields: map[string]string{"version": "570.1", "load": "l1"}})
	for i := range 2 {
		g := gpuIdentity(i)
		device := detector.Device{PCI: g.PCI, UUID: g.UUID}
		d.Emit(detector.Event{
			Source: detector.SourceState, Kind: detector.KindGPUFound, GPU: device,
			Fields: map[string]string{"index": fmt.Sprint(i), "name": g.Name, "minor": fmt.Sprint(i)},
		})
		d.Emit(detector.Event{Source: detector.SourceState, Kind: detector.KindFresh, GPU: device})
		for _, code := range []int{31, 74} {
			d.Emit(detector.Event{Source: detector.SourceKernelLog, Kind: detector.KindXid, GPU: device, Xid: &detector.Report{Code: code}})
		}
	}
	d.Emit(detector.Event{Source: detector.SourceKernelLog, Kind: detector.KindSXid, SXid: &detector.Report{Code: 20034, Severity: "Fatal"}})
	return d, Sources{Version: "v1.2.3", Policy: d.Policy, Snapshot: d.Snapshot}
}

func TestClearingEndsWhatIsNamedAndNothingElse(t *testing.T) {
	other := []detector.Reason{detector.LinkFault, detector.ApplicationFault}
	fabric := []detector.Reason{detector.FabricFault}
	type left struct{ GPU0, GPU1, Node []detector.Reason }
	pci, none, noFault := gpuIdentity(1).PCI, []detector.Reason{}, []LeftFault{}
	tests := []struct {
		name, body string
		want       ClearAnswer
		left       left
	}{
		{"by index", `{"gpu":"1"}`, ClearAnswer{PCI: pci, Cleared: other, Left: noFault}, left{other, none, fabric}},
		{"by UUID", `{"gpu":"` + gpuIdentity(1).UUID + `"}`, ClearAnswer{PCI: pci, Cleared: other, Left: noFault}, left{other, none, fabric}},
		{"by address in capitals", `{"gpu":"` + strings.ToUpper(pci) + `"}`, ClearAnswer{PCI: pci, Cleared: other, Left: noFault}, left{other, none, fabric}},
		{
			"one reason", `{"gpu":"1","reason":"LinkFault","author":"Jo (SRE)"}`,
			ClearAnswer{PCI: pci, Cleared: other[:1], Left: []LeftFault{{Reason: other[1]}}},
			left{other, other[1:], fabric},
		},
		{"a reason that is not there", `{"gpu":"1","reason":"GPULost"}`, ClearAnswer{PCI: pci, Cleared: none, Left: []LeftFault{{Reason: other[0]}, {Reason: other[1]}}}, left{other, other, fabric}},
		{"the node", `{"gpu":"node"}`, ClearAnswer{Cleared: fabric, Left: noFault}, left{other, other, none}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, sources := detectorNode(t)
				w := post(New(sources).Local(d.Submit), tt.body)
				if w.Code != 200 {
					t.Fatalf("got %d %s", w.Code, w.Body)
				}
				var got ClearAnswer
				if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
					t.Fatal(err)
				}
				s := d.Snapshot()
				tt.want.Seq = s.Seq
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("answer (-want +got):\n%s", diff)
				}
				now := left{reasons(s, gpuIdentity(0).PCI), reasons(s, pci), reasons(s, "")}
				if diff := cmp.Diff(tt.left, now); diff != "" {
					t.Errorf("what is left (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// reasons lists the visible faults of a GPU, or of the node.
func reasons(s *detector.Snapshot, pci string) []detector.Reason {
	list := []detector.Reason{}
	for _, c := range conditions(s, pci) {
		list = append(list, c.Reason)
	}
	return list
}

func TestWhatIsLeftSaysWhatEndsIt(t *testing.T) {
	d, sources := detectorNode(t)
	g := gpuIdentity(0)
	device := detector.Device{PCI: g.PCI, UUID: g.UUID}
	d.Emit(detector.Event{Source: detector.SourceState, Kind: detector.KindGPULost, GPU: device})
	d.Emit(detector.Event{Source: detector.SourceState, Kind: detector.KindRecoveryAction, GPU: device, Fields: map[string]string{"action": "2"}})
	handler := New(sources).Local(d.Submit)
	got := answerOf[ClearAnswer](t, handler, "/api/v1/clear", `{"gpu":"0"}`)
	want := ClearAnswer{
		Seq: d.Snapshot().Seq, PCI: g.PCI, Cleared: []detector.Reason{detector.LinkFault, detector.ApplicationFault},
		Left: []LeftFault{
			{Reason: detector.RebootRequired, Ends: "it ends when the driver asks for no recovery any more"},
			{Reason: detector.GPULost, Ends: "it ends when the GPU answers again"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	answerOf[PauseAnswer](t, handler, "/api/v1/pause", `{"for":"10m"}`)
	got = answerOf[ClearAnswer](t, handler, "/api/v1/clear", `{"gpu":"1","reason":"Unmonitored"}`)
	if i := slices.Index(got.Left, LeftFault{Reason: detector.Unmonitored, Ends: `it ends with the pause, which "gpuvet resume" ends`}); i < 0 {
		t.Errorf("during a pause: %+v", got)
	}
	d.Emit(detector.Event{Source: detector.SourceHand, Kind: detector.KindResumed, Fields: map[string]string{"by": detector.ByHand}})
	d.Emit(detector.Event{Source: detector.SourceState, Kind: detector.KindGPUMissing, GPU: device})
	if got = answerOf[ClearAnswer](t, handler, "/api/v1/clear", `{"gpu":"0"}`); !got.Forgotten || len(got.Left) > 0 {
		t.Errorf("a GPU that is gone: %+v", got)
	}
}

func TestClearingIsTheEventThatTheTrailShows(t *testing.T) {
	d, sources := detectorNode(t)
	var got detector.Event
	handler := New(sources).Local(func(_ context.Context, e detector.Event) (*detector.Snapshot, error) {
		got = e
		return d.Snapshot(), nil
	})
	post(handler, `{"gpu":"0","reason":"LinkFault","author":"jo"}`)
	want := detector.Event{
		Source: detector.SourceHand, Kind: detector.KindClear,
		GPU:    detector.Device{PCI: gpuIdentity(0).PCI, UUID: gpuIdentity(0).UUID},
		Fields: map[string]string{"reason": "LinkFault", "author": "jo"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

func TestWrongClearRequestIsToldWhy(t *testing.T) {
	tests := []struct {
		name, body string
		code       int
		want       []string // parts of the message
	}{
		{"nothing", ``, 400, []string{"body: empty", "expected an object"}},
		{"no JSON", `gpu=0`, 400, []string{"body: invalid character"}},
		{"another type", `["0"]`, 400, []string{"got array", "expected an object"}},
		{"cut short", `{"gpu":`, 400, []string{"body: unexpected EOF"}},
		{"two objects", `{"gpu":"0"}{"gpu":"1"}`, 400, []string{"goes on after its object"}},
		{"text behind", `{"gpu":"0"} x`, 400, []string{"body: invalid character 'x'"}},
		{"unknown field", `{"gpu":"0","force":true}`, 400, []string{`unknown field "force"`}},
		{"number for the GPU", `{"gpu":0}`, 400, []string{"gpu: got number, expected string"}},
		{"no GPU", `{"reason":"LinkFault"}`, 400, []string{"gpu: missing", "PCI address", "UUID", "index"}},
		{"GPU that is not there", `{"gpu":"7"}`, 404, []string{`gpu: "7"`, "none of the GPUs of this node: it has 2 GPUs", "PCI address"}},
		{"unknown reason", `{"gpu":"0","reason":"linkfault"}`, 400, []string{`reason: "linkfault"`, "expected one of ApplicationFault,", "LinkFault"}},
		{"author with a newline", `{"gpu":"0","author":"jo\nroot"}`, 400, []string{`author: "jo\nroot"`, "expected a text on one line"}},
		{"too long", `{"gpu":"0","author":"` + strings.Repeat("a", 1<<10) + `"}`, 413, []string{"body: larger than 1024 bytes"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, sources := detectorNode(t)
			w := post(New(sources).Local(func(context.Context, detector.Event) (*detector.Snapshot, error) {
				t.Error("an event was submitted")
				return nil, errors.New("no")
			}), tt.body)
			var got ErrorAnswer
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatalf("%v: %s", err, w.Body)
			}
			if w.Code != tt.code {
				t.Errorf("got %d, want %d", w.Code, tt.code)
			}
			for _, want := range tt.want {
				if !strings.Contains(got.Error, want) {
					t.Errorf("got %q, want %q in it", got.Error, want)
				}
			}
		})
	}
}

func TestClearingThatIsNotSavedIsAnError(t *testing.T) {
	d, sources := detectorNode(t)
	w := post(New(sources).Local(func(context.Context, detector.Event) (*detector.Snapshot, error) {
		return d.Snapshot(), errors.New("save Clear: no space left on device")
	}), `{"gpu":"0"}`)
	if w.Code != 500 || !strings.Contains(w.Body.String(), "no space left on device") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestLocalAPIAnswersNothingElse(t *testing.T) {
	d, sources := detectorNode(t)
	handler := New(sources).Local(d.Submit)
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/api/v1/snapshot", 200},
		{"HEAD", "/api/v1/snapshot", 200},
		{"POST", "/api/v1/snapshot", 405},
		{"GET", "/api/v1/clear", 405},
		{"GET", "/api/v1/ignore", 405},
		{"GET", "/api/v1/unignore", 405},
		{"GET", "/api/v1/pause", 405},
		{"GET", "/api/v1/resume", 405},
		{"GET", "/metrics", 404},
		{"GET", "/", 404},
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.want {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, w.Code, tt.want)
		}
	}
}

func TestReportTellsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := troubledNode()
		n.sources.Kept = func() detector.Kept {
			return detector.Kept{Saved: time.Now().UTC(), SaveError: "full", TrailError: "also full", TrailLost: 3}
		}
		n.sources.Configuration = func() Configuration {
			return Configuration{Path: "a.yaml", Loaded: time.Now(), Err: errors.New("a.yaml: kind: x"), Restart: []string{"node"}, Rows: 2}
		}
		w := httptest.NewRecorder()
		New(n.sources).Local(nil).ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/snapshot", nil))
		if got := w.Header().Get("Content-Type"); w.Code != 200 || got != "application/json" {
			t.Fatalf("got %d, %s", w.Code, got)
		}
		var got map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		snapshot, _ := got["snapshot"].(map[string]any)
		if gpus, _ := snapshot["gpus"].([]any); len(gpus) != 5 {
			t.Errorf("%d GPUs in the snapshot, want 5", len(gpus))
		}
		delete(got, "snapshot")
		delete(got, "goVersion")
		now := "2000-01-01T00:00:00Z"
		want := map[string]any{
			"version": "v1.2.3", "started": now, "time": now, "ready": true, "acceptsUserKernelLines": true,
			"silent": map[string]any{
				"0000:3b:00.0": "health of 0000:3b:00.0: GPU is lost, last answer at " + now,
				"0000:4b:00.0": "driver did not answer in time, last answer at 1999-12-31T23:59:00Z",
			},
			"kernelLog": map[string]any{"reading": false, "records": 5.0, "spoofed": 2.0},
			"kept":      map[string]any{"saved": now, "saveError": "full", "trailError": "also full", "trailLost": 3.0},
			"configuration": map[string]any{
				"path": "a.yaml", "loaded": now, "error": "a.yaml: kind: x", "needsRestart": []any{"node"}, "policyRows": 2.0,
			},
			"outputs": []any{
				map[string]any{"name": "node", "seq": 41.0, "at": time.Now().Add(-2 * time.Second).Format(time.RFC3339)},
				map[string]any{"name": "dra", "seq": 0.0, "error": "no API server"},
			},
			"dra": map[string]any{
				"mode": "taints", "server": "v1.37.1", "devices": 4.0, "waiting": 0.0, "registered": true,
				"sliceCreates": 1.0, "sliceUpdates": 2.0, "sliceDeletes": 0.0,
			},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
	})
}

func post(handler http.Handler, body string) *httptest.ResponseRecorder {
	return postTo(handler, "/api/v1/clear", body)
}

func postTo(handler http.Handler, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("POST", path, strings.NewReader(body)))
	return w
}
