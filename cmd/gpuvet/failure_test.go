package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// failed runs a daemon that cannot go on, and wants its error to hold each text.
func failed(t *testing.T, args []string, want ...string) {
	t.Helper()
	o := gpuvet(t, "", args...)
	if o.code != exitError {
		t.Errorf("code %d, want %d", o.code, exitError)
	}
	for _, text := range want {
		if !strings.Contains(o.err, text) {
			t.Errorf("error is\n%s\nwant it to say %q", o.err, text)
		}
	}
}

func TestPortInUseEndsTheDaemon(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	failed(t, daemonArgs(t, dir, "--listen", taken.Addr().String()), "--listen", taken.Addr().String(), "address already in use")
	// What was opened before is closed again.
	folder(t, dir).Close()
}

func TestStateFolderThatCannotBeMadeEndsTheDaemon(t *testing.T) {
	dir := filepath.Join(file(t, "file", ""), "state")
	failed(t, daemonArgs(t, dir), "--state-dir", dir, "not a directory")
}

func TestSecondDaemonNamesTheFirst(t *testing.T) {
	dir := t.TempDir()
	startScenario(t, dir, "gpus: {count: 1, profile: h100}\n").ready()
	failed(t, daemonArgs(t, dir), dir, fmt.Sprintf("(pid %d)", os.Getpid()), "--standby")
}

func TestSocketThatIsAFileIsKept(t *testing.T) {
	path := file(t, "socket", "precious")
	failed(t, daemonArgs(t, t.TempDir(), "--socket", path), "--socket", path, "is a file", "expected a socket")
	if content, _ := os.ReadFile(path); string(content) != "precious" {
		t.Errorf("the file is now %q", content)
	}
}

func TestSocketOfAKilledDaemonIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	d := startDaemon(t, t.TempDir(), "--socket", path)
	d.socket = path
	d.ready()
	if s := d.status(); !strings.Contains(s, "driver: ") {
		t.Errorf("status is\n%s", s)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("socket has mode %v, others could use it", info.Mode())
	}
}

func TestCommandsSayThatNoDaemonAnswers(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "s")
	for _, args := range [][]string{{"status"}, {"clear", "0"}} {
		failed(t, append(args, "--socket", gone), "no gpuvet answers on "+gone, `"gpuvet run"`, "--socket")
	}
}

func TestSocketOfALivingDaemonIsLeftToIt(t *testing.T) {
	first := startScenario(t, t.TempDir(), healthy)
	first.ready()
	failed(t, daemonArgs(t, t.TempDir(), "--socket", first.socket), "--socket", "another gpuvet answers on", first.socket)
	if status := first.status(); !strings.Contains(status, "Healthy") {
		t.Errorf("the first daemon answers\n%s", status)
	}
}

func TestSocketInAFolderOfOthersIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	failed(t, daemonArgs(t, t.TempDir(), "--socket", filepath.Join(dir, "s")), "--socket", dir, "0777", "nobody else may write to")
}
