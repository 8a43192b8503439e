package main

import (
	"context"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/detector"
)

// troubled loses GPU 1, blames the work on GPU 2, and loads the driver again.
const troubled = `
gpus: {count: 3, profile: h100}
timeline:
- {at: 50ms, gpu: 1, xid: 79}
- {at: 50ms, gpu: 1, lost: true}
- {at: 200ms, gpu: 2, xid: 31, pid: 41873, process: python3}
- {at: 400ms, reload: driver}
`

// atOnce has a lost GPU be well as soon as the driver was loaded again and it answers
// well.
func atOnce(t *testing.T) []string {
	t.Helper()
	return []string{"--config", file(t, "gpuvet.yaml", configHead+"policy: {rows: [{reason: GPULost, clear: reset, settle: 0s}]}\n")}
}

func TestGPUIsLostAndComesBackWhenTheDriverIsLoadedAgain(t *testing.T) {
	d := startScenario(t, t.TempDir(), troubled, atOnce(t)...)
	d.ready()
	d.untilStatus(1, detector.Unhealthy)
	d.untilStatus(1, detector.Healthy)
	uuid := d.gpu(1).UUID
	if got := d.metric(`gpuvet_gpu_xid_errors_total{gpu="1",uuid="` + uuid + `",xid="79"}`); got != "1" {
		t.Errorf("Xid 79 is counted %q times, want once", got)
	}
	var told []string
	for _, tr := range d.report().Snapshot.Transitions {
		if tr.Condition == detector.GPULost {
			told = append(told, string(tr.Status)+": "+tr.Cause)
		}
	}
	if want := []string{"raised: Xid 79", "cleared: driver was loaded again"}; !slices.Equal(told, want) {
		t.Errorf("GPULost was %q, want %q", told, want)
	}
	log := d.log.String()
	for _, want := range []string{"condition raised", "condition cleared", `"gpu":1`, `"reason":"GPULost"`, `"cause":"Xid 79"`, `"action":"reboot-node"`} {
		if !strings.Contains(log, want) {
			t.Errorf("log does not say %s:\n%s", want, log)
		}
	}
	d.eventually("the application is blamed", func() bool { return len(reasonsOf(d.gpu(2))) == 1 })
	if got := d.gpu(2).Status; got != detector.Healthy {
		t.Errorf("an application made GPU 2 %s", got)
	}
}

func TestDaemonServesMetricsProbesAndPage(t *testing.T) {
	d := startScenario(t, t.TempDir(), healthy)
	d.ready()
	for path, want := range map[string]string{"/metrics": "gpuvet_gpu_status{", "/healthz": "ok", "/readyz": "ok", "/": "<html"} {
		if code, body := d.get(path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d, body without %q", path, code, want)
		}
	}
}

func TestStopSavesTheStateAndRestartGoesOnWithIt(t *testing.T) {
	dir := t.TempDir()
	d := startScenario(t, dir, losing)
	d.ready()
	d.eventually("both reports of the Xid are one", func() bool { return xids(d.gpu(1).Xids) == "79×1 154×1" })
	before := d.gpu(1)
	if code := d.end(); code != exitDone {
		t.Fatalf("code %d", code)
	}
	if log := d.log.String(); strings.Contains(log, `"level":"error"`) {
		t.Errorf("log is\n%s", log)
	}
	if _, err := os.Lstat(d.socket); err == nil {
		t.Error("the socket is still there")
	}
	// Without a driver nothing but the saved state can tell of the GPUs.
	again := startScenario(t, dir, driverless)
	again.ready()
	after := again.gpu(1)
	before.Fresh, before.Status = false, detector.Unhealthy
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	if got := again.gpu(0); got.Status != detector.Unknown {
		t.Errorf("GPU 0 is %s without any answer", got.Status)
	}
}

func TestContextThatHasEndedStopsTheDaemonAtOnce(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var log buffer
	args := daemonArgs(t, t.TempDir(), "--fake-nvml", file(t, "scenario.yaml", healthy))
	if code := execute(ctx, args, strings.NewReader(""), &log, &log); code != exitDone {
		t.Errorf("code %d:\n%s", code, &log)
	}
}
