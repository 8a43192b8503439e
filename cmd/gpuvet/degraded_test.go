package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gpuvet.dev/detector"
	"gpuvet.dev/detector/kmsg"
)

// losing loses GPU 1 of 2 at once.
const losing = `
gpus: {count: 2, profile: h100}
timeline:
- {at: 10ms, gpu: 1, xid: 79}
- {at: 10ms, gpu: 1, lost: true}
`

const healthy = "gpus: {count: 2, profile: h100}\n"

// driverless has nothing to tell: what a daemon knows then, it has remembered.
const driverless = healthy + "driver: {absent: true}\n"

func TestNodeWithoutDriverAndKernelLogIsReadyAndSaysSo(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	d.ready()
	status := d.status()
	for _, want := range []string{"driver: ", "no NVIDIA driver", "kernel log: not read"} {
		if !strings.Contains(status, want) {
			t.Errorf("status is\n%s\nwant it to say %q", status, want)
		}
	}
	if strings.Contains(status, "GPU  ") {
		t.Errorf("status shows a table of no GPUs:\n%s", status)
	}
	for series, want := range map[string]string{"gpuvet_driver_up": "0", "gpuvet_kernel_log_up": "0"} {
		if got := d.metric(series); got != want {
			t.Errorf("%s is %q, want %q", series, got, want)
		}
	}
	if log := d.log.String(); !strings.Contains(log, "kernel log is not read") || !strings.Contains(log, "/nonexistent/kmsg") {
		t.Errorf("log is\n%s", log)
	}
	if code, _ := d.get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz is %d", code)
	}
}

func TestTestSwitchIsShown(t *testing.T) {
	d := startScenario(t, t.TempDir(), healthy, "--accept-user-kernel-lines")
	d.ready()
	if status := d.status(); !strings.Contains(status, "test: kernel-log lines of any process are believed") {
		t.Errorf("status is\n%s", status)
	}
	if got := d.metric("gpuvet_accepting_user_kernel_lines"); got != "1" {
		t.Errorf("metric is %q", got)
	}
	if log := d.log.String(); !strings.Contains(log, "kernel-log lines of any process are believed") {
		t.Errorf("log is\n%s", log)
	}
}

// lost leaves the state of a daemon that has seen GPU 1 go, and gives it.
func lost(t *testing.T, dir string) []byte {
	t.Helper()
	d := startScenario(t, dir, losing)
	d.ready()
	d.untilStatus(1, detector.Unhealthy)
	d.eventually("both reports of the Xid are one", func() bool { return xids(d.gpu(1).Xids) == "79×1 154×1" })
	if code := d.end(); code != exitDone {
		t.Fatalf("code %d", code)
	}
	s := folder(t, dir)
	defer s.Close()
	payload, _, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func TestTornStateIsReplacedByTheOneBefore(t *testing.T) {
	payload := lost(t, t.TempDir())
	dir := t.TempDir()
	s := folder(t, dir)
	if _, _, err := s.Load(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Save(payload); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	if err := os.Truncate(filepath.Join(dir, "state"), 200); err != nil {
		t.Fatal(err)
	}

	d := startScenario(t, dir, driverless)
	d.ready()
	if got := reasonsOf(d.gpu(1)); !slices.Contains(got, detector.GPULost) {
		t.Errorf("GPU 1 has %v, want GPULost as it was saved", got)
	}
	var told struct{ Msg, Using, Error string }
	for line := range strings.Lines(d.log.String()) {
		if strings.Contains(line, "saved state is damaged") {
			if err := json.Unmarshal([]byte(line), &told); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !strings.Contains(told.Using, "previous") || !strings.Contains(told.Error, "payload has") {
		t.Errorf("log says %+v", told)
	}
	if kept, _ := filepath.Glob(filepath.Join(dir, "state.damaged-*")); len(kept) != 1 {
		t.Errorf("damaged files kept: %v", kept)
	}
}

// fromAnotherBoot leaves the state that a daemon saved before the node was
// booted again.
func fromAnotherBoot(t *testing.T) string {
	t.Helper()
	boot, err := kmsg.BootID()
	if err != nil {
		t.Fatal(err)
	}
	payload := bytes.ReplaceAll(lost(t, t.TempDir()), []byte(boot), []byte("00000000-1111-4222-8333-444444444444"))
	dir := t.TempDir()
	s := folder(t, dir)
	defer s.Close()
	if _, _, err := s.Load(); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(payload); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestBootAloneEndsNoFaultAndStartsCountersAgain(t *testing.T) {
	d := startScenario(t, fromAnotherBoot(t), driverless)
	d.ready()
	gpus := d.report().Snapshot.GPUs
	if len(gpus) != 1 {
		t.Fatalf("GPUs are %+v, want the one with a fault alone", gpus)
	}
	g := gpus[0]
	if want := []detector.Reason{detector.RebootRequired, detector.GPULost}; !slices.Equal(reasonsOf(g), want) {
		t.Errorf("faults are %v, want %v", reasonsOf(g), want)
	}
	if len(g.Xids) > 0 || g.Index != nil {
		t.Errorf("Xids %v and index %v are of the boot before", g.Xids, g.Index)
	}
}

func TestGPUThatAnswersAfterABootIsWell(t *testing.T) {
	d := startScenario(t, fromAnotherBoot(t), healthy, atOnce(t)...)
	d.ready()
	d.untilStatus(1, detector.Healthy)
	var why []string
	for _, tr := range d.report().Snapshot.Transitions {
		if tr.Status == detector.Cleared && tr.Condition == detector.GPULost {
			why = append(why, tr.Cause)
		}
	}
	if !slices.Equal(why, []string{"node was rebooted"}) {
		t.Errorf("GPULost was cleared because %q", why)
	}
}

func TestFullDiskDelaysNoDetection(t *testing.T) {
	if os.Geteuid() != 0 {
		need(t, "root, to mount a small disk")
	}
	dir := t.TempDir()
	if err := syscall.Mount("gpuvet", dir, "tmpfs", 0, "size=256k"); err != nil {
		need(t, "to mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}

	d := startScenario(t, dir, losing)
	d.ready()
	d.untilStatus(1, detector.Unhealthy)
	d.eventually("status tells that nothing is kept", func() bool {
		status := d.status()
		return strings.Contains(status, "state: not saved: ") && strings.Contains(status, "trail: does not take records: ") &&
			strings.Contains(status, "no space left on device")
	})
	if got := d.metric("gpuvet_state_save_error"); got != "1" {
		t.Errorf("metric of saving is %q", got)
	}
	if got := d.metric("gpuvet_trail_lost_records_total"); got == "" || got == "0" {
		t.Errorf("metric of the trail is %q", got)
	}
	// A command by hand takes effect, and does not claim to be on disk.
	if o := gpuvet(t, "", "clear", "1", "GPULost", "--socket", d.socket); o.code != exitError || !strings.Contains(o.err, "not on disk") {
		t.Errorf("clear: %+v", o)
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	d.eventually("the state is saved again", func() bool { return !strings.Contains(d.status(), "state: not saved") })
	if got := d.metric("gpuvet_state_save_error"); got != "0" {
		t.Errorf("metric of saving is %q", got)
	}
	if o := gpuvet(t, "", "clear", "0", "--socket", d.socket); o.code != exitDone {
		t.Errorf("clear: %+v", o)
	}
	d.eventually("the trail takes records again", func() bool { return !strings.Contains(d.status(), "trail: ") })
}

func TestTrailThatCannotBeOpenedIsSaidAndDelaysNoDetection(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "trail"), []byte("a file, not a folder"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startScenario(t, dir, losing)
	d.ready()
	d.untilStatus(1, detector.Unhealthy)
	d.eventually("status tells that there is no history", func() bool {
		return strings.Contains(d.status(), "trail: does not take records: ")
	})
}

func TestStateThatIsNotUnderstoodIsKeptAndDelaysNoDetection(t *testing.T) {
	dir := t.TempDir()
	s := folder(t, dir)
	if _, _, err := s.Load(); err != nil {
		t.Fatal(err)
	}
	const strange = `{"state": "of another mind"}`
	if err := s.Save([]byte(strange)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	d := startScenario(t, dir, losing)
	d.ready()
	d.untilStatus(1, detector.Unhealthy)
	if log := d.log.String(); !strings.Contains(log, "saved state is not understood; starting afresh") {
		t.Errorf("log is\n%s", log)
	}
	if kept, err := os.ReadFile(filepath.Join(dir, "state.unread")); string(kept) != strange {
		t.Errorf("kept is %q: %v", kept, err)
	}
}
