package exporter

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/detector"
)

func TestIgnoringIsTheEventThatTheTrailShows(t *testing.T) {
	n := healthyNode(2)
	g := gpuIdentity(1)
	device := detector.Device{PCI: g.PCI, UUID: g.UUID}
	is := detector.Ignored{Reason: detector.LinkFault, Until: time.Unix(1800000000, 0).UTC(), By: detector.ByHand, Author: "jo"}
	var got []detector.Event
	handler := New(n.sources).Local(func(_ context.Context, e detector.Event) (*detector.Snapshot, error) {
		got = append(got, e)
		after := *n.snapshot
		after.GPUs = []detector.GPUView{n.snapshot.GPUs[0], n.snapshot.GPUs[1]}
		after.GPUs[1].Ignored = nil
		if e.Kind == detector.KindIgnore {
			after.GPUs[1].Ignored = []detector.Ignored{{Reason: detector.GPULost}, is}
		}
		n.snapshot = &after
		return n.snapshot, nil
	})
	ignored := answerOf[IgnoreAnswer](t, handler, "/api/v1/ignore", `{"gpu":"1","reason":"LinkFault","for":"24h","author":"jo"}`)
	if diff := cmp.Diff(IgnoreAnswer{Seq: 42, PCI: g.PCI, Ignored: is}, ignored); diff != "" {
		t.Errorf("ignored (-want +got):\n%s", diff)
	}
	over := answerOf[UnignoreAnswer](t, handler, "/api/v1/unignore", `{"gpu":"1","reason":"LinkFault","author":"jo"}`)
	if diff := cmp.Diff(UnignoreAnswer{Seq: 42, PCI: g.PCI, Was: &is}, over); diff != "" {
		t.Errorf("ended (-want +got):\n%s", diff)
	}
	if again := answerOf[UnignoreAnswer](t, handler, "/api/v1/unignore", `{"gpu":"1","reason":"LinkFault"}`); again.Was != nil {
		t.Errorf("ended what was not: %+v", again)
	}
	want := []detector.Event{
		{Source: detector.SourceHand, Kind: detector.KindIgnore, GPU: device, Fields: map[string]string{"reason": "LinkFault", "for": "24h", "by": "hand", "author": "jo"}},
		{Source: detector.SourceHand, Kind: detector.KindUnignore, GPU: device, Fields: map[string]string{"reason": "LinkFault", "by": "hand", "author": "jo"}},
		{Source: detector.SourceHand, Kind: detector.KindUnignore, GPU: device, Fields: map[string]string{"reason": "LinkFault", "by": "hand", "author": ""}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestWrongIgnoreRequestIsToldWhy(t *testing.T) {
	for _, tt := range []struct {
		name, path, body string
		code             int
		want             []string // parts of the message
	}{
		{"nothing", "ignore", ``, 400, []string{"body: empty, expected an object with gpu, reason, for, and perhaps author"}},
		{"all is missing", "ignore", `{}`, 400, []string{"gpu: missing", `reason: "" is none`, `for: ""`}},
		{"too short", "ignore", `{"gpu":"0","reason":"LinkFault","for":"59s"}`, 400, []string{`for: "59s": expected a duration from 1m to 720h, such as 24h`}},
		{"too long", "ignore", `{"gpu":"0","reason":"LinkFault","for":"721h"}`, 400, []string{`for: "721h"`}},
		{"a GPU that is not there", "ignore", `{"gpu":"7","reason":"LinkFault","for":"1h"}`, 404, []string{`gpu: "7" is none of the GPUs`}},
		{"an unknown reason", "ignore", `{"gpu":"0","reason":"linkfault","for":"1h"}`, 400, []string{`reason: "linkfault" is none, expected one of `}},
		{"the node", "ignore", `{"gpu":"node","reason":"LinkFault","for":"1h"}`, 400, []string{"by a row of the policy"}},
		{"a reason of the node", "ignore", `{"gpu":"0","reason":"FabricFault","for":"1h"}`, 400, []string{"by a row of the policy"}},
		{"a pause", "ignore", `{"gpu":"0","reason":"Unmonitored","for":"1h"}`, 400, []string{`"gpuvet resume"`}},
		{"who ignores is not the caller's word", "ignore", `{"gpu":"0","reason":"LinkFault","for":"1h","by":"x"}`, 400, []string{`unknown field "by"`}},
		{"author on two lines", "ignore", `{"gpu":"0","reason":"LinkFault","for":"1h","author":"a\nb"}`, 400, []string{`author: "a\nb"`}},
		{"a time to end at", "unignore", `{"gpu":"0","reason":"LinkFault","for":"1h"}`, 400, []string{`unknown field "for"`}},
		{"nothing to end", "unignore", `{"gpu":"0"}`, 400, []string{`reason: "" is none`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refuses(t, "/api/v1/"+tt.path, tt.body, tt.code, tt.want)
		})
	}
}

func TestWhatIsIgnoredIsShown(t *testing.T) {
	n := healthyNode(2)
	n.snapshot.GPUs[1].Ignored = []detector.Ignored{{
		Reason: detector.LinkFault, Until: time.Unix(1800000000, 0), By: detector.ByAnnotation, Author: "<b>",
	}}
	for path, part := range map[string]string{
		"/metrics": "\n" + `gpuvet_gpu_ignored_until_timestamp_seconds{gpu="1",reason="LinkFault",uuid="` + gpuIdentity(1).UUID + `"} 1.8e+09` + "\n",
		"/":        "LinkFault ignored by the node&#39;s annotation (&lt;b&gt;) until 2027-01-15T08:00:00Z",
	} {
		w := httptest.NewRecorder()
		New(n.sources).Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if body := w.Body.String(); strings.Count(body, part) != 1 {
			t.Errorf("%s does not show %q:\n%s", path, part, body)
		}
	}
}

func TestPageTellsAPauseOnceForAllGPUs(t *testing.T) {
	d, sources := detectorNode(t)
	handler := New(sources)
	answerOf[PauseAnswer](t, handler.Local(d.Submit), "/api/v1/pause", `{"for":"10m"}`)
	w := httptest.NewRecorder()
	handler.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if body := w.Body.String(); strings.Count(body, "paused by hand") != 1 || !strings.Contains(body, "LinkFault (Xid 74)") {
		t.Errorf("the page tells the pause %d times:\n%s", strings.Count(body, "paused by hand"), body)
	}
}
