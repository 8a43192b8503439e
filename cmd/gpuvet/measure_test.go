package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The memory of the shipped binary with eight GPUs and a scrape every second.
func TestMeasureMemory(t *testing.T) {
	if os.Getenv("GPUVET_MEASURE") == "" {
		t.Skip("measures for half a minute, and is no test: set GPUVET_MEASURE=all, as make measure does")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "gpuvet")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	address := freeAddress(t)
	daemon := exec.Command(binary, "run", "--standalone", "--fake-nvml", "../../testdata/scenarios/8xh100.yaml",
		"--listen", address, "--state-dir", filepath.Join(dir, "state"), "--socket", filepath.Join(dir, "s"))
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		_ = daemon.Wait()
	}()
	var rss []int
	var series int
	for range 30 {
		time.Sleep(time.Second)
		response, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		series = countSeries(t, response)
		rss = append(rss, rssAnon(t, daemon.Process.Pid))
	}
	t.Logf("%d series; RssAnon %d kB at first, %d kB at most in 30 s", series, rss[0], slices.Max(rss))
	if most := slices.Max(rss); most > 35<<10 {
		t.Errorf("RssAnon %d kB, the budget is 35 MiB", most)
	}
}

// freeAddress is one that nothing listens on at present.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func countSeries(t *testing.T, response *http.Response) int {
	t.Helper()
	defer response.Body.Close()
	n := 0
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), "#") {
			n++
		}
	}
	return n
}

func rssAnon(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "RssAnon:" {
			kilobytes, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			return kilobytes
		}
	}
	t.Fatal("no RssAnon")
	return 0
}
