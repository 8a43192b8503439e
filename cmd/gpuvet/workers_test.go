package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml/fakelib/compile"
)

// buildWorker puts the worker beside the program that runs, which is this test,
// and gives the path of a library that plays scripts.
var buildWorker = sync.OnceValues(func() (string, error) {
	worker, err := workerPath()
	if err != nil {
		return "", err
	}
	library := filepath.Join(filepath.Dir(worker), "libnvidia-ml.so.1")
	// First, for it says so where there is no compiler.
	if err := compile.Library(context.Background(), library, compile.Options{}); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", worker, "gpuvet.dev/cmd/gpuvet-nvml")
	build.Env = append(os.Environ(), "CGO_ENABLED=1", "CGO_CFLAGS=-O2 -g -Wno-deprecated-declarations")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the worker: %w\n%s", err, out)
	}
	return library, nil
})

// throughWorkers are the flags for a script that is asked through the real
// bindings.
func throughWorkers(t testing.TB) []string {
	t.Helper()
	library, err := buildWorker()
	if errors.Is(err, compile.ErrNoCompiler) && os.Getenv("GPUVET_REQUIRE") != "all" {
		t.Skipf("needs gcc, which GPUVET_REQUIRE=all insists on: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return []string{"--nvml-library", library}
}

// workers are the processes that this daemon has started.
func (d *running) workers() []int {
	d.t.Helper()
	return slices.DeleteFunc(childrenOf(d.t, os.Getpid()), func(pid int) bool {
		return nameOf(pid) != "gpuvet-nvml"
	})
}

func (d *running) untilLog(words string) {
	d.t.Helper()
	d.eventually("the log says "+words, func() bool { return strings.Contains(d.log.String(), words) })
}

// Every state that a driver can be in has its name, and none takes a restart.
func TestDriverComesAndGoesUnderTheDaemon(t *testing.T) {
	d := startScenario(t, t.TempDir(), `
driver: {absent: true, version: 570.195.03}
gpus: {count: 2, profile: h100}
timeline:
- {at: 2s, driver: present}
- {at: 5s, reload: driver}
- {at: 8s, reload: driver, version: 580.95.05}
- {at: 11s, gpu: 1, lost: true}
- {at: 14s, gpu: 1, lost: false}
- {at: 17s, driver: absent}
`, append(throughWorkers(t), atOnce(t)...)...)
	d.ready()
	d.untilLog(`"what":"DriverMissing"`)
	d.untilLog(`"what":"DriverArrived"`)
	d.untilStatus(1, detector.Healthy)
	d.untilLog(`"what":"DriverReloaded"`)
	d.untilLog("570.195.03 replaced by 580.95.05")
	d.untilStatus(0, detector.Healthy)
	if version := d.report().Snapshot.Driver.Version; version != "580.95.05" {
		t.Errorf("driver is %q, want the new one", version)
	}
	d.eventually("GPU 1 is lost", func() bool { return slices.Contains(reasonsOf(d.gpu(1)), detector.GPULost) })
	d.eventually("GPU 1 is back", func() bool { return len(reasonsOf(d.gpu(1))) == 0 && d.gpu(1).Fresh })
	d.eventually("the driver is gone", func() bool { return d.report().Snapshot.Driver.Missing != "" })
	if deaths := d.metric("gpuvet_nvml_worker_deaths_total"); deaths != "0" {
		t.Errorf("%s workers died of it", deaths)
	}
}

func TestWorkerThatIsKilledIsReplaced(t *testing.T) {
	d := startScenario(t, t.TempDir(), "gpus: {count: 2, profile: h100}", throughWorkers(t)...)
	d.untilStatus(1, detector.Healthy)
	d.eventually("events are listened to", func() bool { return d.metric("gpuvet_nvml_events_up") == "1" })
	before := d.workers()
	if len(before) != 2 {
		t.Fatalf("workers are %v, want one for questions and one for events", before)
	}
	for _, pid := range before {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	d.eventually("both are told dead", func() bool { return d.metric("gpuvet_nvml_worker_deaths_total") == "2" })
	d.eventually("there are others", func() bool {
		now := d.workers()
		return len(now) == 2 && !slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(before, pid) })
	})
	up := `gpuvet_gpu_up{gpu="1",uuid="` + d.gpu(1).UUID + `"}`
	d.eventually("GPU 1 answers", func() bool { return d.metric(up) == "1" })
	if d.end() != exitDone {
		t.Error("the daemon does not end well")
	}
	if left := d.workers(); len(left) > 0 {
		t.Errorf("workers %v are left", left)
	}
}

// A driver call that does not return takes one GPU from view, and no other.
func TestHangOfOneGPULeavesTheOthersFresh(t *testing.T) {
	d := startScenario(t, t.TempDir(), `
gpus: {count: 8, profile: h100}
timeline:
- {at: 3s, gpu: 5, hang: 8s}
`, throughWorkers(t)...)
	for i := range 8 {
		d.untilStatus(i, detector.Healthy)
	}
	d.untilStatus(5, detector.Unknown)
	for i := range 8 {
		if status := d.gpu(i).Status; i != 5 && status != detector.Healthy {
			t.Errorf("GPU %d is %s while GPU 5 hangs", i, status)
		}
	}
	if stuck := d.metric("gpuvet_nvml_workers_stuck"); stuck != "1" {
		t.Errorf("%s workers are stuck, want 1", stuck)
	}
	d.untilStatus(5, detector.Healthy)
	d.eventually("no worker is stuck", func() bool { return d.metric("gpuvet_nvml_workers_stuck") == "0" })
}

// A pause lets go of the driver, and a resume looks again.
func TestPauseEndsTheWorkers(t *testing.T) {
	d := startScenario(t, t.TempDir(), "gpus: {count: 2, profile: h100}", throughWorkers(t)...)
	d.untilStatus(1, detector.Healthy)
	output(t, "", "pause", "--for", "10m", "--socket", d.socket)
	if left := d.workers(); len(left) > 0 {
		t.Errorf("workers %v are there after the pause was confirmed", left)
	}
	if status := d.gpu(1).Status; status != detector.Unknown {
		t.Errorf("GPU 1 is %s in a pause", status)
	}
	output(t, "", "resume", "--socket", d.socket)
	d.untilStatus(1, detector.Healthy)
}
