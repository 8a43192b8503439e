package main

import (
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// supervisor is the side of systemd.
func supervisor(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "n")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

// hears waits for one message.
func hears(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	message := make([]byte, 256)
	n, err := conn.Read(message)
	if err != nil {
		t.Fatal(err)
	}
	return string(message[:n])
}

func TestSystemdHearsThatTheDaemonIsReadyLivesAndStops(t *testing.T) {
	conn := supervisor(t)
	t.Setenv("WATCHDOG_USEC", "60000")
	d := startScenario(t, t.TempDir(), healthy)
	for _, want := range []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1"} {
		if got := hears(t, conn); got != want {
			t.Fatalf("heard %q, want %q", got, want)
		}
	}
	d.end()
	var rest []string
	for !slices.Contains(rest, "STOPPING=1") {
		rest = append(rest, hears(t, conn))
	}
}

func TestWithoutWatchdogNoneIsFed(t *testing.T) {
	conn := supervisor(t)
	d := startScenario(t, t.TempDir(), healthy)
	if got := hears(t, conn); got != "READY=1" {
		t.Errorf("heard %q first", got)
	}
	d.end()
	if got := hears(t, conn); got != "STOPPING=1" {
		t.Errorf("heard %q after READY=1", got)
	}
}
