package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gpuvet.dev/detector/kmsg"
)

// asCommand has the test's own program be gpuvet, see TestMain.
const asCommand = "GPUVET_TEST_AS_COMMAND"

// takeOverBudget is what may pass from a signal to the new daemon's first answer.
const takeOverBudget = 2 * time.Second

// place is what the daemons of one node share.
type place struct{ dir, socket string }

func newPlace(t *testing.T) place {
	t.Helper()
	return place{t.TempDir(), filepath.Join(t.TempDir(), "s")}
}

// process is a daemon as a process of its own.
type process struct {
	running
	*exec.Cmd
}

// start starts a daemon, and waits until its port answers.
func (p place) start(t *testing.T, more ...string) *process {
	t.Helper()
	d := p.launch(t, more...)
	d.eventually("its port is open", func() bool {
		for _, entry := range d.entries("serving metrics") {
			d.url = "http://" + entry.Address
		}
		return d.url != ""
	})
	return d
}

func (p place) launch(t *testing.T, more ...string) *process {
	t.Helper()
	args := daemonArgs(t, p.dir, append([]string{"--socket", p.socket}, more...)...)
	d := &process{
		running: running{t: t, log: &buffer{}, socket: p.socket, ended: make(chan int, 1)},
		Cmd:     exec.CommandContext(t.Context(), os.Args[0], args...),
	}
	d.Env = append(os.Environ(), asCommand+"=1")
	d.Stderr = d.log
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.Wait() // its state says how it ended
		d.ended <- d.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		_ = d.Process.Kill() // too late if it has ended, and then well
		d.code()
		if t.Failed() {
			t.Logf("log of process %d:\n%s", d.Process.Pid, d.log)
		}
	})
	return d
}

func (d *process) signal(s syscall.Signal) {
	d.t.Helper()
	if err := d.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
}

// code waits for the end, and gives the exit code; -1 after a signal.
func (d *process) code() int {
	d.t.Helper()
	select {
	case code := <-d.ended:
		d.ended <- code
		return code
	case <-time.After(patience):
		d.t.Fatal("the daemon does not stop")
		return 0
	}
}

// logged is what the tests ask of a line of the log.
type logged struct {
	TS      time.Time
	Level   string
	Msg     string
	Address string
	PID     int
}

func (d *process) entries(message string) []logged {
	var found []logged
	for line := range strings.Lines(d.log.String()) {
		var entry logged
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == message {
			found = append(found, entry)
		}
	}
	return found
}

// waitsFor waits until the standby says that it waits for another daemon.
func (d *process) waitsFor(other *process) {
	d.t.Helper()
	want := fmt.Sprintf("standby: pid %d holds ", other.Process.Pid)
	d.eventually(want, func() bool {
		code, body := d.get("/readyz")
		return code == http.StatusOK && strings.HasPrefix(body, want)
	})
}

func (d *process) standsBy() bool { return d.metric("gpuvet_standby") == "1" }

func (d *process) untilTookOver() {
	d.t.Helper()
	d.eventually("it has taken over", func() bool { return d.metric("gpuvet_standby") == "0" })
}

// reports are those of Xids in the kernel log of the machine, about a GPU of its own.
type reports struct {
	t       *testing.T
	pci     string
	flags   []string
	written atomic.Int64
}

// newReports needs the kernel log of the machine. The address is drawn at random,
// for the log keeps what other tests write; other domains than 0 have no real GPUs.
func newReports(t *testing.T) *reports {
	t.Helper()
	if err := mayAcceptUserLines("scenario", "/dev/nvidia*"); err != nil {
		need(t, "a machine without GPUs: "+err.Error())
	}
	if log, err := os.OpenFile(kmsg.DefaultPath, os.O_RDWR, 0); err != nil {
		need(t, "the kernel log: "+err.Error())
	} else {
		log.Close()
	}
	place := make([]byte, 3)
	_, _ = rand.Read(place)
	r := &reports{t: t, pci: fmt.Sprintf("%02x%02x:%02x:00", place[0]|0x80, place[1], place[2])}
	scenario := file(t, "scenario.yaml", fmt.Sprintf("gpus: [{profile: h100, pci: %q}]\n", r.pci+".0"))
	r.flags = []string{"--fake-nvml", scenario, "--kernel-log", kmsg.DefaultPath, "--accept-user-kernel-lines"}
	return r
}

// write writes one report of an Xid. The kernel takes ten lines in five seconds
// from each that has opened its log, so each line has an opening of its own.
func (r *reports) write() {
	log, err := os.OpenFile(kmsg.DefaultPath, os.O_WRONLY, 0)
	if err != nil {
		r.t.Error(err)
		return
	}
	defer log.Close()
	if _, err := fmt.Fprintf(log, "<4>NVRM: Xid (PCI:%s): 31, pid=%d, name=python3\n", r.pci, r.written.Add(1)); err != nil {
		r.t.Error(err)
	}
}

// keepWriting writes a report every few milliseconds until stopped.
func (r *reports) keepWriting() (stop func()) {
	ended := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		tick := time.NewTicker(3 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				r.write()
			}
		}
	})
	stop = sync.OnceFunc(func() {
		close(ended)
		writing.Wait()
	})
	r.t.Cleanup(stop)
	return stop
}

// await waits until so many reports were written.
func (r *reports) await(d *process, n int64) {
	r.t.Helper()
	d.eventually(fmt.Sprintf("%d reports are written", n), func() bool { return r.written.Load() >= n })
}

// awaitAll waits until a daemon counts as many reports as were written.
func (r *reports) awaitAll(d *process) {
	r.t.Helper()
	var counted string
	want := fmt.Sprint(r.written.Load())
	d.eventually("it counts "+want+" reports", func() bool {
		counted = d.xids(r.pci + ".0")
		return counted == want
	})
}

// xids is how many reports of Xid 31 the daemon counts of a GPU.
func (d *process) xids(pci string) string {
	for _, g := range d.report().Snapshot.GPUs {
		for _, x := range g.Xids {
			if g.PCI == pci && x.Code == 31 {
				return fmt.Sprint(x.Count)
			}
		}
	}
	return "0"
}

func TestHandOverLosesNoKernelRecordAndNoRequest(t *testing.T) {
	for name, end := range map[string]syscall.Signal{"asked to end": syscall.SIGTERM, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			node, gpus := newPlace(t), newReports(t)
			first := node.start(t, gpus.flags...)
			first.ready()
			standby := node.start(t, append(gpus.flags, "--standby")...)
			standby.waitsFor(first)
			stop := gpus.keepWriting()
			refused := keepAsking(t, standby.url)
			gpus.await(standby, 50) // some that the first one counts

			signalled := time.Now()
			first.signal(end)
			standby.untilTookOver()
			took := time.Since(signalled)
			if took > takeOverBudget {
				t.Errorf("taken over %s after the signal, want %s", took, takeOverBudget)
			}
			if code := first.code(); end == syscall.SIGTERM && code != exitDone {
				t.Errorf("the first daemon ended with %d", code)
			}
			gpus.await(standby, gpus.written.Load()+50)
			stop()
			gpus.awaitAll(standby)
			if n := refused(); n > 0 {
				t.Errorf("%d requests were not answered well", n)
			}
			t.Logf("taken over %s after the signal; %d reports", took.Round(time.Millisecond), gpus.written.Load())
			if end == syscall.SIGTERM {
				unlocked, taken := first.entries("state folder is unlocked"), standby.entries("taking over")
				if len(unlocked) != 1 || len(taken) != 1 {
					t.Fatalf("unlocked %v, taken over %v", unlocked, taken)
				}
				t.Logf("stopped to unlocked %s, unlocked to taking over %s",
					unlocked[0].TS.Sub(first.entries("gpuvet is stopping")[0].TS), taken[0].TS.Sub(unlocked[0].TS))
			}
		})
	}
}

// keepAsking asks for every page until it is called for the number of answers that
// were not 200.
func keepAsking(t *testing.T, url string) (refused func() int) {
	t.Helper()
	ended := make(chan struct{})
	var asking sync.WaitGroup
	var bad atomic.Int64
	stop := sync.OnceFunc(func() {
		close(ended)
		asking.Wait()
	})
	t.Cleanup(stop)
	for _, path := range []string{"/readyz", "/healthz", "/metrics", "/"} {
		for _, reuse := range []bool{true, false} {
			asking.Go(func() {
				transport := &http.Transport{DisableKeepAlives: !reuse}
				defer transport.CloseIdleConnections()
				for {
					select {
					case <-ended:
						return
					case <-time.After(5 * time.Millisecond):
					}
					response, err := (&http.Client{Transport: transport}).Get(url + path)
					if err != nil {
						t.Error(err)
						bad.Add(1)
						continue
					}
					body, err := io.ReadAll(response.Body)
					if response.StatusCode != http.StatusOK || err != nil {
						t.Errorf("%s: %s %v %s", path, response.Status, err, body)
						bad.Add(1)
					}
					_ = response.Body.Close()
				}
			})
		}
	}
	return func() int {
		stop()
		return int(bad.Load())
	}
}

func TestStandbyTouchesNothingThatTheDaemonUses(t *testing.T) {
	var asked atomic.Int64
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.NotFound(w, nil)
	}))
	t.Cleanup(api.Close)
	kubeconfig := file(t, "kubeconfig", fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: a,
contexts: [{name: a, context: {cluster: a, user: a}}], users: [{name: a, user: {token: a}}], clusters: [{name: a, cluster: {server: %q}}]}`, api.URL))
	node, scenario := newPlace(t), file(t, "scenario.yaml", losing)
	first := node.start(t, "--fake-nvml", scenario)
	first.ready()
	standby := node.start(t, "--fake-nvml", scenario, "--standby", "--standalone=false", "--kubeconfig", kubeconfig, "--node-name", "node-1")
	standby.waitsFor(first)
	first.eventually("its GPU is lost", func() bool { return xids(first.gpu(1).Xids) == "79×1 154×1" })
	before := first.report().Snapshot.Seq
	time.Sleep(10 * standbyPoll)

	_, page := standby.get("/metrics")
	if !standby.standsBy() || strings.Contains(page, "gpuvet_gpu_") {
		t.Errorf("metrics of the standby are\n%s", page)
	}
	for _, file := range openFiles(t, standby.Process.Pid) {
		if strings.HasPrefix(file, node.dir) && filepath.Base(file) != "lock" || strings.Contains(file, "kmsg") {
			t.Errorf("the standby has %s open", file)
		}
	}
	if children := childrenOf(t, standby.Process.Pid); len(children) > 0 {
		t.Errorf("the standby has started %v", children)
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("the standby has asked the API server %d times", n)
	}
	// The socket is the first one's, and it is left in peace.
	if got := first.report().Snapshot; got.Seq < before || xids(got.GPUs[1].Xids) != "79×1 154×1" {
		t.Errorf("the daemon now says %d, %s", got.Seq, xids(got.GPUs[1].Xids))
	}

	first.signal(syscall.SIGTERM)
	standby.untilTookOver()
	standby.eventually("the API server is asked", func() bool { return asked.Load() > 0 })
	if n := len(openFiles(t, standby.Process.Pid)); n == 0 {
		t.Error("what a process has open cannot be seen here")
	}
}

// openFiles are the paths of what a process has open.
func openFiles(t *testing.T, pid int) []string {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, link := range links {
		if path, err := os.Readlink(link); err == nil { // else it was closed meanwhile
			paths = append(paths, path)
		}
	}
	return paths
}

func TestOneOfTwoStandbysTakesOverAndTheOtherWaitsForIt(t *testing.T) {
	node, gpus := newPlace(t), newReports(t)
	first := node.start(t, gpus.flags...)
	first.ready()
	var standbys []*process
	for range 2 {
		standby := node.start(t, append(gpus.flags, "--standby")...)
		standby.waitsFor(first)
		standbys = append(standbys, standby)
	}
	stop := gpus.keepWriting()
	gpus.await(first, 50)
	first.signal(syscall.SIGTERM)
	var second *process
	standbys[0].eventually("one has taken over", func() bool {
		i := slices.IndexFunc(standbys, func(d *process) bool { return !d.standsBy() })
		if i >= 0 {
			second = standbys[i]
		}
		return i >= 0
	})
	third := standbys[1-slices.Index(standbys, second)]
	third.waitsFor(second)
	if told := third.entries("another gpuvet took over; standing by until it ends"); len(told) != 1 || told[0].PID != second.Process.Pid {
		t.Errorf("the third told %v, want the pid %d once", told, second.Process.Pid)
	}
	second.signal(syscall.SIGKILL)
	third.untilTookOver()
	stop()
	gpus.awaitAll(third)
}

func TestStandbyThatIsAskedToEndDoesSoAtOnce(t *testing.T) {
	node := newPlace(t)
	first := node.start(t, "--fake-nvml", file(t, "scenario.yaml", healthy))
	first.ready()
	standby := node.start(t, "--fake-nvml", file(t, "scenario.yaml", healthy), "--standby")
	standby.waitsFor(first)
	asked := time.Now()
	standby.signal(syscall.SIGTERM)
	if code := standby.code(); code != exitDone {
		t.Errorf("code %d, want %d", code, exitDone)
	}
	if took := time.Since(asked); took > takeOverBudget {
		t.Errorf("it ended after %s", took)
	}
	if log := standby.log.String(); strings.Contains(log, `"level":"error"`) || strings.Contains(log, "gpuvet: ") {
		t.Errorf("its log is\n%s", log)
	}
	if status := first.status(); !strings.Contains(status, "Healthy") {
		t.Errorf("the daemon that it waited for says\n%s", status)
	}
}

// A scrape that takes its time, or a client that sends half a request, must not
// leave the node without a daemon.
func TestRequestUnderWayKeepsNobodyFromTakingOver(t *testing.T) {
	node := newPlace(t)
	first := node.start(t, "--fake-nvml", file(t, "scenario.yaml", healthy))
	first.ready()
	standby := node.start(t, "--fake-nvml", file(t, "scenario.yaml", healthy), "--standby")
	standby.waitsFor(first)
	for _, address := range []string{"tcp " + strings.TrimPrefix(first.url, "http://"), "unix " + node.socket} {
		network, address, _ := strings.Cut(address, " ")
		half, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer half.Close()
		if _, err := fmt.Fprint(half, "GET /metrics HTTP/1.1\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	// Connections are accepted in their order: those before these are by now.
	first.status()
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if response, err := fresh.Get(first.url + "/healthz"); err != nil {
		t.Fatal(err)
	} else {
		response.Body.Close()
	}
	signalled := time.Now()
	first.signal(syscall.SIGTERM)
	standby.untilTookOver()
	if took := time.Since(signalled); took > takeOverBudget {
		t.Errorf("taken over %s after the signal, want %s", took, takeOverBudget)
	}
	select {
	case code := <-first.ended:
		t.Errorf("the first daemon had ended with %d already: nothing was under way", code)
		first.ended <- code
	default:
	}
	if code := first.code(); code != exitDone {
		t.Errorf("the first daemon ended with %d", code)
	}
	if status := standby.status(); !strings.Contains(status, "Healthy") {
		t.Errorf("at the socket that the first one has closed:\n%s", status)
	}
}

func TestStandbyWithoutAnotherDaemonIsTheDaemon(t *testing.T) {
	d := startScenario(t, t.TempDir(), healthy, "--standby")
	d.ready()
	if got := d.metric("gpuvet_standby"); got != "0" {
		t.Errorf("gpuvet_standby is %q", got)
	}
}

func TestStandbyWhosePortIsTakenEnds(t *testing.T) {
	node := newPlace(t)
	first := node.start(t, "--fake-nvml", file(t, "scenario.yaml", healthy))
	port := strings.TrimPrefix(first.url, "http://")
	failed(t, daemonArgs(t, node.dir, "--standby", "--listen", port), "--listen", port, "address already in use")
}

func TestSystemdTakesAStandbyForReady(t *testing.T) {
	node := newPlace(t)
	first := node.start(t, "--fake-nvml", file(t, "scenario.yaml", healthy))
	first.ready()
	conn := supervisor(t)
	t.Setenv("WATCHDOG_USEC", "60000")
	standby := node.start(t, "--fake-nvml", file(t, "scenario.yaml", healthy), "--standby")
	for _, want := range []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1"} {
		if got := hears(t, conn); got != want {
			t.Fatalf("heard %q, want %q", got, want)
		}
	}
	first.signal(syscall.SIGTERM)
	fed := func() {
		if got := hears(t, conn); got != "WATCHDOG=1" {
			t.Fatalf("heard %q, want WATCHDOG=1 and nothing else", got)
		}
	}
	for len(standby.entries("ready")) == 0 {
		fed()
	}
	// What still waits may be the standby's; what comes then is not.
	for err := error(nil); err == nil; _, err = conn.Read(make([]byte, 256)) {
		_ = conn.SetReadDeadline(time.Now())
	}
	for range 3 {
		fed()
	}
	standby.signal(syscall.SIGTERM)
	for hears(t, conn) != "STOPPING=1" {
	}
}

func TestSystemdThatDoesNotReadHoldsUpNobody(t *testing.T) {
	node := newPlace(t)
	conn := supervisor(t)
	full, err := net.Dial("unixgram", conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for err == nil { // until there is no room for a message
		_ = full.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, err = full.Write([]byte("WATCHDOG=1"))
	}
	first := node.start(t, "--fake-nvml", file(t, "scenario.yaml", healthy))
	first.ready()
	standby := node.start(t, "--fake-nvml", file(t, "scenario.yaml", healthy), "--standby")
	standby.waitsFor(first)
	signalled := time.Now()
	first.signal(syscall.SIGTERM)
	standby.untilTookOver()
	if took := time.Since(signalled); took > takeOverBudget {
		t.Errorf("taken over %s after the signal, want %s", took, takeOverBudget)
	}
	standby.signal(syscall.SIGTERM)
	if code := standby.code(); code != exitDone {
		t.Errorf("code %d, want %d", code, exitDone)
	}
}

func TestSystemdHearsThatAStandbyStops(t *testing.T) {
	node := newPlace(t)
	first := node.start(t, "--fake-nvml", file(t, "scenario.yaml", healthy))
	first.ready()
	conn := supervisor(t)
	standby := node.start(t, "--fake-nvml", file(t, "scenario.yaml", healthy), "--standby")
	if got := hears(t, conn); got != "READY=1" {
		t.Errorf("heard %q first", got)
	}
	standby.signal(syscall.SIGTERM)
	if got := hears(t, conn); got != "STOPPING=1" {
		t.Errorf("heard %q after READY=1", got)
	}
}
