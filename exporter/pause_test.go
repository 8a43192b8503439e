package exporter

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/detector"
)

func TestPausingAndResumingByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, sources := detectorNode(t)
		closed, held := false, errors.New("health of 0000:1b:00.0 for 3s")
		sources.NVML = func() (bool, error) { return closed, held }
		e := New(sources)
		handler := e.Local(d.Submit)
		if e.report().NVML != nil {
			t.Error("the report tells of NVML though there is no pause")
		}

		now := time.Now().UTC()
		want := PauseAnswer{
			Pause: &detector.Pause{Since: now, Until: now.Add(90 * time.Second), By: detector.ByHand, Author: "jo", Why: "reset GPU 0"},
			NVML:  NVMLReport{Held: held.Error()},
		}
		got := answerOf[PauseAnswer](t, handler, "/api/v1/pause", `{"for":"90s","why":"reset GPU 0","author":"jo"}`)
		want.Seq, want.Pause.Ends = d.Snapshot().Seq, d.Snapshot().Pause.Ends
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}

		closed, held = true, nil
		if diff := cmp.Diff(&NVMLReport{Closed: true}, e.report().NVML); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
		resumed := answerOf[ResumeAnswer](t, handler, "/api/v1/resume", `{"author":"jo"}`)
		if diff := cmp.Diff(ResumeAnswer{Seq: d.Snapshot().Seq, Was: want.Pause}, resumed); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
		if again := answerOf[ResumeAnswer](t, handler, "/api/v1/resume", `{}`); again.Was != nil {
			t.Errorf("resumed what was not paused: %+v", again)
		}
	})
}

// answerOf is the good answer to a command.
func answerOf[A any](t *testing.T, handler http.Handler, path, body string) A {
	t.Helper()
	w := postTo(handler, path, body)
	var a A
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 200 {
		t.Fatalf("%s %s: got %d, %v: %s", path, body, w.Code, err, w.Body)
	}
	return a
}

func TestPausingIsTheEventThatTheTrailShows(t *testing.T) {
	d, sources := detectorNode(t)
	var got []detector.Event
	handler := New(sources).Local(func(_ context.Context, e detector.Event) (*detector.Snapshot, error) {
		got = append(got, e)
		return d.Snapshot(), nil
	})
	postTo(handler, "/api/v1/pause", `{"for":"10m","why":"reset","author":"jo"}`)
	postTo(handler, "/api/v1/resume", `{"author":"jo"}`)
	want := []detector.Event{
		{Source: detector.SourceHand, Kind: detector.KindPaused, Fields: map[string]string{"for": "10m", "by": "hand", "why": "reset", "author": "jo"}},
		{Source: detector.SourceHand, Kind: detector.KindResumed, Fields: map[string]string{"by": "hand", "author": "jo"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestWrongPauseRequestIsToldWhy(t *testing.T) {
	for _, tt := range []struct {
		name, path, body string
		code             int
		want             []string // parts of the message
	}{
		{"nothing", "pause", ``, 400, []string{"body: empty, expected an object with for, and perhaps why and author"}},
		{"no time", "pause", `{}`, 400, []string{`for: "": expected a duration from 1s to 24h, such as 10m`}},
		{"too short", "pause", `{"for":"999ms"}`, 400, []string{`for: "999ms"`, "1s to 24h"}},
		{"too long", "pause", `{"for":"24h1s"}`, 400, []string{`for: "24h1s"`, "1s to 24h"}},
		{"backwards", "pause", `{"for":"-10m"}`, 400, []string{`for: "-10m"`}},
		{"a number", "pause", `{"for":10}`, 400, []string{"for: got number, expected string"}},
		{"who pauses is not the caller's word", "pause", `{"for":"10m","by":"annotation"}`, 400, []string{`unknown field "by"`}},
		{"two lines", "pause", `{"for":"10m","why":"a\nb"}`, 400, []string{`why: "a\nb"`, "on one line"}},
		{"two wrongs", "pause", `{"for":"x","author":"a\tb"}`, 400, []string{`for: "x"`, `author: "a\tb"`}},
		{"too much", "pause", `{"for":"10m","why":"` + strings.Repeat("a", 1<<10) + `"}`, 413, []string{"larger than 1024 bytes"}},
		{"nothing to resume with", "resume", ``, 400, []string{"body: empty, expected an object with perhaps author"}},
		{"author on two lines", "resume", `{"author":"a\nb"}`, 400, []string{`author: "a\nb"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refuses(t, "/api/v1/"+tt.path, tt.body, tt.code, tt.want)
		})
	}
}

func TestPauseThatIsNotSavedIsAnError(t *testing.T) {
	d, sources := detectorNode(t)
	handler := New(sources).Local(func(context.Context, detector.Event) (*detector.Snapshot, error) {
		return d.Snapshot(), errors.New("no space left on device")
	})
	for path, body := range map[string]string{"/api/v1/pause": `{"for":"10m"}`, "/api/v1/resume": `{}`} {
		w := postTo(handler, path, body)
		if w.Code != 500 || !strings.Contains(w.Body.String(), "in force, but not on disk: no space left on device") {
			t.Errorf("%s: got %d %s", path, w.Code, w.Body)
		}
	}
}

func TestPauseIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := healthyNode(1)
		n.snapshot.Driver = detector.DriverState{} // the daemon was started during the pause
		n.snapshot.Requests.Refused = map[string]string{detector.ByAnnotation: `annotation gpuvet.dev/pause: "soon" <b>`}
		n.snapshot.Pause = &detector.Pause{Until: time.Unix(1700000000, 0), By: detector.ByHand, Why: "<script>"}
		page := func(path string) string {
			w := httptest.NewRecorder()
			New(n.sources).Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			return w.Body.String()
		}
		wanted := map[string][]string{
			"/metrics": {"\ngpuvet_paused 1\n", "\ngpuvet_paused_until_timestamp_seconds 1.7e+09\n"},
			"/": {
				"The GPUs are not monitored: paused by hand until 2023-11-14T22:13:20Z: &lt;script&gt;",
				"Refused: annotation gpuvet.dev/pause: &#34;soon&#34; &lt;b&gt;",
			},
		}
		for path, parts := range wanted {
			for _, part := range parts {
				if body := page(path); !strings.Contains(body, part) {
					t.Errorf("%s does not show %q:\n%s", path, part, body)
				}
			}
		}
		if body := page("/"); strings.Contains(body, "not been looked for") || strings.Contains(body, "Driver ") {
			t.Errorf("the page tells of a driver that nobody has asked:\n%s", body)
		}
		n.snapshot.Pause = nil
		if body := page("/metrics"); !strings.Contains(body, "\ngpuvet_paused 0\n") || strings.Contains(body, "gpuvet_paused_until") {
			t.Error("a pause that is over is still told")
		}
	})
}

func TestStuckDriverIsNotUp(t *testing.T) {
	n := healthyNode(1)
	n.snapshot.Driver.Stuck = true
	w := httptest.NewRecorder()
	New(n.sources).Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if !strings.Contains(w.Body.String(), "\ngpuvet_driver_up 0\n") {
		t.Error("a driver that answers nothing is up")
	}
}

// refuses checks that a request changes nothing, and what is said of it.
func refuses(t *testing.T, path, body string, code int, want []string) {
	t.Helper()
	_, sources := detectorNode(t)
	w := postTo(New(sources).Local(func(context.Context, detector.Event) (*detector.Snapshot, error) {
		t.Error("an event was submitted")
		return nil, errors.New("no")
	}), path, body)
	var got ErrorAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != code {
		t.Fatalf("got %d, %v, want %d: %s", w.Code, err, code, w.Body)
	}
	for _, part := range want {
		if !strings.Contains(got.Error, part) {
			t.Errorf("got %q, want %q in it", got.Error, part)
		}
	}
}
