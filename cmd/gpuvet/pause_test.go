package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gpuvet.dev/detector"
	"gpuvet.dev/exporter"
)

const twoWell = "gpus: {count: 2, profile: h100}\n"

var untilTime = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)

func TestPauseLetsGoOfTheDriverAndResumeLooksAgain(t *testing.T) {
	d := startScenario(t, t.TempDir(), twoWell)
	d.untilStatus(1, detector.Healthy)
	words := "paused by hand (jane) until T: reset GPU 1"
	got := untilTime.ReplaceAllString(output(t, "", "pause", "--for", "1h", "--reason", "reset GPU 1", "--author", "jane", "--socket", d.socket), "T")
	if want := words + "; NVML is closed\n"; got != want {
		t.Errorf("pause prints %q, want %q", got, want)
	}
	for i := range 2 {
		if g := d.gpu(i); g.Status != detector.Unknown || !slices.Contains(reasonsOf(g), detector.Unmonitored) {
			t.Errorf("GPU %d is %s, %v", i, g.Status, reasonsOf(g))
		}
	}
	if status := untilTime.ReplaceAllString(d.status(), "T"); !strings.Contains(status, "\n"+words+"; NVML is closed\n") {
		t.Errorf("status does not show it:\n%s", status)
	}
	if got := d.metric("gpuvet_paused"); got != "1" {
		t.Errorf("gpuvet_paused is %q", got)
	}
	got = untilTime.ReplaceAllString(output(t, "", "resume", "--author", "bob", "--socket", d.socket), "T")
	if want := "resumed; it was " + words + "\n"; got != want {
		t.Errorf("resume prints %q, want %q", got, want)
	}
	d.untilStatus(0, detector.Healthy)
	d.untilStatus(1, detector.Healthy)
	if got := output(t, "", "resume", "--socket", d.socket); got != "there was no pause\n" {
		t.Errorf("resume prints %q", got)
	}
}

func TestPauseOutlivesTheDaemon(t *testing.T) {
	dir := t.TempDir()
	d := startScenario(t, dir, twoWell)
	d.untilStatus(1, detector.Healthy)
	output(t, "", "pause", "--for", "1h", "--socket", d.socket)
	d.end()
	d = startScenario(t, dir, twoWell)
	d.ready()
	d.eventually("NVML is closed", func() bool {
		r := d.report()
		return r.NVML != nil && r.NVML.Closed
	})
	if got := d.metric(`gpuvet_nvml_calls_total{call="inventory",gpu="",uuid=""}`); got != "0" {
		t.Errorf("NVML was asked %s times during the pause", got)
	}
	output(t, "", "resume", "--socket", d.socket)
	d.untilStatus(1, detector.Healthy)
}

func TestPauseWaitsForACallThatHangs(t *testing.T) {
	d := startScenario(t, t.TempDir(), twoWell+"timeline:\n- {at: 1500ms, gpu: 1, hang: 60s}\n")
	d.untilStatus(1, detector.Healthy)
	d.untilStatus(1, detector.Unknown)
	got := output(t, "", "pause", "--socket", d.socket)
	if !strings.HasSuffix(got, "; NVML is closed\n") {
		t.Errorf("pause prints %q", got)
	}
}

func TestPauseSaysWhatStillHoldsTheDriver(t *testing.T) {
	var asked atomic.Int32
	socket := answering(t, func() exporter.Report {
		asked.Add(1)
		return exporter.Report{NVML: &exporter.NVMLReport{Held: "health of 0000:18:00.0 for 9s"}}
	})
	var progress bytes.Buffer
	w := closeWait{socket: socket, limit: 500 * time.Millisecond, patience: 200 * time.Millisecond, progress: &progress}
	pause := &detector.Pause{By: detector.ByHand, Until: time.Unix(1700000000, 0)}
	err := w.wait(t.Context(), exporter.PauseAnswer{Pause: pause})
	want := `paused by hand until 2023-11-14T22:13:20Z, but NVML is not closed yet: health of 0000:18:00.0 for 9s; it is tried on, see "gpuvet status"`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if want := "waiting for NVML to be closed: health of 0000:18:00.0 for 9s\n"; progress.String() != want || asked.Load() < 2 {
		t.Errorf("progress is %q after %d questions, want %q", progress.String(), asked.Load(), want)
	}
}

func TestPauseThatEndsBeforeItBeganSaysSo(t *testing.T) {
	socket := answering(t, func() exporter.Report { return exporter.Report{} })
	err := closeWait{socket: socket, limit: patience, patience: patience}.wait(t.Context(), exporter.PauseAnswer{})
	if err == nil || !strings.Contains(err.Error(), "ended before NVML was closed") {
		t.Errorf("got %v", err)
	}
}

// answering is a socket on which a report is told.
func answering(t *testing.T, report func() exporter.Report) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(report()) })}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return socket
}

func TestWrongPauseIsRefused(t *testing.T) {
	for _, length := range []string{"", "0s", "10", "-1m", "25h", "soon"} {
		refused(t, []string{"pause", "--for", length}, "--for", `"`+length+`"`, "expected a duration from 1s to 24h, such as 10m")
	}
	refused(t, []string{"pause", "10m"}, `"10m"`, "expected no argument")
	refused(t, []string{"resume", "now"}, `"now"`, "expected no argument")
	d := startScenario(t, t.TempDir(), twoWell)
	refused(t, []string{"pause", "--reason", "a\nb", "--socket", d.socket}, "why", "on one line")
	if d.report().Snapshot.Pause != nil {
		t.Error("paused all the same")
	}
}
