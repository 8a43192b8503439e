package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gpuvet.dev/detector"
	"gpuvet.dev/exporter"
)

// patience is how long a test waits for what must come; none takes so long
// unless it fails.
const patience = 20 * time.Second

// running is a daemon in this process.
type running struct {
	t      *testing.T
	log    *buffer
	socket string
	url    string
	stop   context.CancelFunc
	ended  chan int
}

// buffer is a log that is read while it is written.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// daemonArgs are those of a daemon that touches nothing outside the test.
func daemonArgs(t *testing.T, dir string, more ...string) []string {
	t.Helper()
	return slices.Concat([]string{
		"run", "--standalone", "--config", file(t, "gpuvet.yaml", "apiVersion: gpuvet.dev/v1alpha1\nkind: Config\n"),
		"--listen", "127.0.0.1:0", "--state-dir", dir, "--socket", filepath.Join(t.TempDir(), "s"), "--log-format", "json",
		"--kernel-log", "/nonexistent/kmsg",
	}, more)
}

// startDaemon runs a daemon until the test ends or stops it.
func startDaemon(t *testing.T, dir string, more ...string) *running {
	t.Helper()
	args := daemonArgs(t, dir, more...)
	ctx, stop := context.WithCancel(t.Context())
	d := &running{t: t, log: &buffer{}, stop: stop, ended: make(chan int, 1), socket: args[slices.Index(args, "--socket")+1]}
	go func() { d.ended <- execute(ctx, args, strings.NewReader(""), io.Discard, d.log) }()
	t.Cleanup(func() { d.end() })
	var hello struct{ Metrics string }
	d.eventually("it starts", func() bool {
		for line := range strings.Lines(d.log.String()) {
			if json.Unmarshal([]byte(line), &hello) == nil && hello.Metrics != "" {
				return true
			}
		}
		return false
	})
	d.url = strings.TrimSuffix(hello.Metrics, "/metrics")
	return d
}

// startScenario runs a daemon whose GPUs do what the YAML says.
func startScenario(t *testing.T, dir, scenario string, more ...string) *running {
	t.Helper()
	return startDaemon(t, dir, append([]string{"--fake-nvml", file(t, "scenario.yaml", scenario)}, more...)...)
}

// end stops the daemon as SIGTERM does, and gives its exit code.
func (d *running) end() int {
	d.t.Helper()
	d.stop()
	select {
	case code := <-d.ended:
		d.ended <- code
		return code
	case <-time.After(patience):
		d.t.Fatal("the daemon does not stop")
		return -1
	}
}

func (d *running) eventually(what string, so func() bool) {
	d.t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(10 * time.Millisecond) {
		select {
		case code := <-d.ended:
			d.ended <- code
			d.t.Fatalf("waiting until %s: the daemon ended with %d:\n%s", what, code, d.log)
		default:
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("waited in vain until %s; log:\n%s", what, d.log)
		}
	}
}

// get is the code and body of an answer over HTTP.
func (d *running) get(path string) (int, string) {
	d.t.Helper()
	response, err := http.Get(d.url + path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func (d *running) metric(series string) string {
	d.t.Helper()
	_, body := d.get("/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (d *running) ready() {
	d.t.Helper()
	d.eventually("it is ready", func() bool {
		code, _ := d.get("/readyz")
		return code == http.StatusOK
	})
}

// status is what `gpuvet status` prints.
func (d *running) status(more ...string) string {
	d.t.Helper()
	return output(d.t, "", append([]string{"status", "--socket", d.socket}, more...)...)
}

func (d *running) report() exporter.Report {
	d.t.Helper()
	var r exporter.Report
	if err := json.Unmarshal([]byte(d.status("-o", "json")), &r); err != nil {
		d.t.Fatal(err)
	}
	return r
}

// gpu is the GPU with this index.
func (d *running) gpu(index int) detector.GPUView {
	d.t.Helper()
	for _, g := range d.report().Snapshot.GPUs {
		if g.Index != nil && *g.Index == index {
			return g
		}
	}
	return detector.GPUView{}
}

func (d *running) untilStatus(index int, s detector.Status) {
	d.t.Helper()
	d.eventually("GPU is "+string(s), func() bool { return d.gpu(index).Status == s })
}

func reasonsOf(g detector.GPUView) []detector.Reason {
	var all []detector.Reason
	for _, c := range g.Conditions {
		all = append(all, c.Reason)
	}
	return all
}
