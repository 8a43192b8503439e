//go:build journal && cgo

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuvet.dev/detector"
	"gpuvet.dev/detector/kmsg"
)

// journalOfTest is a journal that a test writes, with systemd's own tool.
type journalOfTest struct {
	t          *testing.T
	tool, boot string
	path       string
	entries    int
}

func newJournal(t *testing.T) *journalOfTest {
	t.Helper()
	if err := mayAcceptUserLines("scenario", "/dev/nvidia*"); err != nil {
		need(t, "a machine without GPUs: "+err.Error())
	}
	tool, err := exec.LookPath("systemd-journal-remote")
	if err != nil {
		if tool, err = exec.LookPath("/lib/systemd/systemd-journal-remote"); err != nil {
			need(t, "systemd-journal-remote: "+err.Error())
		}
	}
	boot, err := kmsg.BootID()
	if err != nil {
		t.Fatal(err)
	}
	return &journalOfTest{t: t, tool: tool, boot: strings.ReplaceAll(boot, "-", ""), path: filepath.Join(t.TempDir(), "test.journal")}
}

// write appends what the kernel has said.
func (j *journalOfTest) write(messages ...string) {
	j.t.Helper()
	var export strings.Builder
	for _, message := range messages {
		up, err := uptime()
		if err != nil {
			j.t.Fatal(err)
		}
		j.entries++
		fmt.Fprintf(&export, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%s\n_TRANSPORT=kernel\nSYSLOG_FACILITY=0\nPRIORITY=3\nMESSAGE=%s\n\n",
			time.Now().UnixMicro()+int64(j.entries), up.Microseconds()+int64(j.entries), j.boot, message)
	}
	cmd := exec.CommandContext(j.t.Context(), j.tool, "-o", j.path, "-")
	cmd.Stdin = strings.NewReader(export.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		j.t.Fatalf("systemd-journal-remote: %v\n%s", err, out)
	}
}

// Before the daemon starts, while it runs, and while none does.
func TestJournalIsReadInPlaceOfTheKernelLog(t *testing.T) {
	const xid31 = "NVRM: Xid (PCI:0000:18:00): 31, pid=4242, name=python3, Ch 00000003"
	j, dir := newJournal(t), t.TempDir()
	flags := []string{"--kernel-log", "journal:" + filepath.Dir(j.path), "--accept-user-kernel-lines"}
	counts := func(d *running, n uint64) {
		t.Helper()
		d.eventually(fmt.Sprintf("it counts %d", n), func() bool { return d.counted()["0000:18:00.0 31"] == n })
	}
	j.write("usb 1-1: New USB device found", xid31, xid31)
	first := startScenario(t, dir, healthy, flags...)
	counts(first, 2)
	j.write(xid31)
	counts(first, 3)
	first.end()

	j.write(xid31, "NVRM: Xid (PCI:0000:18:00): 79, pid=0, name=<unknown>, GPU has fallen off the bus.")
	second := startScenario(t, dir, healthy, flags...)
	second.eventually("GPU 0 is lost", func() bool { return slices.Contains(reasonsOf(second.gpu(0)), detector.GPULost) })
	counts(second, 4)
}
