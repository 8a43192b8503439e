package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gpuvet.dev/internal/e2e/parts"
)

// plan is what the outer process hands to the inner ones.
type plan struct {
	Stage       string // the process that reads it: stageInit or stageTests
	State       string // folder for everything that the cluster writes
	Parts       parts.Set
	Hierarchies []hierarchy
	Daemon      product // gpuvet with its fault points
	Image       product // archive of the image that ships
	Library     product // libnvidia-ml.so.1 that plays a scenario
}

// product is something of ours that is built for the tests: the path, or why
// there is none.
type product struct{ Path, Error string }

func built(path string, err error) product {
	if err != nil {
		return product{Error: err.Error()}
	}
	return product{Path: path}
}

func (p product) path() (string, error) {
	if p.Path == "" {
		return "", errors.New(p.Error)
	}
	return p.Path, nil
}

const (
	planVariable = "GPUVET_E2E_PLAN"
	stageInit    = "init"
	stageTests   = "tests"
)

// Main runs the tests of m beside a cluster and returns the exit code for
// os.Exit. It calls ready with the running cluster before the first test.
// Without the rights to make namespaces no test runs: that counts as success,
// with the reason on stderr, unless GPUVET_REQUIRE=all.
func Main(m *testing.M, ready func(*Cluster)) int {
	var p plan
	if handed := os.Getenv(planVariable); handed != "" {
		if err := json.Unmarshal([]byte(handed), &p); err != nil {
			return failed(fmt.Errorf("read plan: %w", err))
		}
	}
	switch p.Stage {
	case stageInit:
		return initialise(p)
	case stageTests:
		return test(p, m, ready)
	}
	if reason := obstacle(); reason != "" {
		fmt.Fprintf(os.Stderr, "e2e: no test runs: %s\n", reason)
		if os.Getenv("GPUVET_REQUIRE") == "all" {
			return 1
		}
		return 0
	}
	return enclose()
}

// obstacle says what keeps this process from making namespaces.
func obstacle() string {
	if os.Geteuid() != 0 {
		return "namespaces and a kubelet need root"
	}
	for _, kind := range []string{"mnt", "net", "pid", "cgroup", "uts"} {
		if _, err := os.Stat("/proc/self/ns/" + kind); err != nil {
			return "the kernel has no namespaces of kind " + kind
		}
	}
	if err := probeNamespace(); err != nil {
		return err.Error()
	}
	return ""
}

// enclose prepares what must outlive the namespaces, runs the tests inside them
// and tidies up behind them, whatever happened there.
func enclose() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	defer stop()
	set, err := parts.Build(ctx, os.Stderr)
	if err != nil {
		return failed(err)
	}
	state, err := os.MkdirTemp("", "gpuvet-e2e-")
	if err != nil {
		return failed(fmt.Errorf("make state folder: %w", err))
	}
	p := plan{Stage: stageInit, State: state, Parts: set}
	p.build(ctx)
	restore, err := acceptKernelLines()
	if err != nil {
		return failed(err)
	}
	defer restore()
	groups, err := makeGroups()
	if err != nil {
		return failed(err)
	}
	defer removeGroups(groups)
	p.Hierarchies = groups

	code, err := runInside(ctx, p)
	if err != nil {
		return failed(err)
	}
	if code != 0 {
		fmt.Fprintf(os.Stderr, "e2e: everything the cluster wrote is kept in %s\n", state)
		return code
	}
	if err := os.RemoveAll(state); err != nil {
		return failed(fmt.Errorf("remove state folder: %w", err))
	}
	return 0
}

// build makes what is under test, before the namespaces: inside them the Go
// command has no network. A test that needs none of it runs even without it.
func (p *plan) build(ctx context.Context) {
	daemon, library := filepath.Join(p.State, "gpuvet"), filepath.Join(p.State, "library", "libnvidia-ml.so.1")
	p.Daemon = built(daemon, parts.Daemon(ctx, daemon, os.Stderr))
	p.Image = built(parts.ProductImage(ctx, os.Stderr))
	p.Library = built(library, parts.Library(ctx, library, os.Stderr))
}

// runInside starts the first process of new namespaces and waits until nothing
// in them is left.
func runInside(ctx context.Context, p plan) (int, error) {
	// The kernel ends the child when the thread that started it ends, so the thread
	// has to live as long as this process.
	runtime.LockOSThread()
	child, err := p.command(ctx)
	if err != nil {
		return 0, err
	}
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGTERM,
	}
	// Asked, so that it can thaw what a test has frozen.
	child.Cancel = func() error { return child.Process.Signal(syscall.SIGTERM) }
	child.WaitDelay = 10 * time.Second
	err = child.Run()
	if child.ProcessState == nil {
		return 0, fmt.Errorf("start namespaces: %w", err)
	}
	if !child.ProcessState.Exited() {
		return 0, fmt.Errorf("run in namespaces: %w", err)
	}
	return child.ProcessState.ExitCode(), nil
}

// test starts the cluster and runs the tests.
func test(p plan, m *testing.M, ready func(*Cluster)) int {
	ctx, stop := context.WithTimeout(context.Background(), 3*time.Minute)
	defer stop()
	cluster := newCluster(p)
	defer cluster.stop()
	if err := cluster.start(ctx); err != nil {
		cluster.printTails(os.Stderr)
		return failed(fmt.Errorf("start cluster: %w", err))
	}
	ready(cluster)
	code := m.Run()
	if code != 0 {
		cluster.printTails(os.Stderr)
	}
	return code
}

// initialise is the first process inside the namespaces: it makes a machine of
// them, starts the tests and ends with them. The kernel then kills the rest.
func initialise(p plan) int {
	// The cgroup namespace belongs to one thread and to the children that it starts.
	runtime.LockOSThread()
	if err := p.furnish(); err != nil {
		return failed(fmt.Errorf("furnish namespaces: %w", err))
	}
	p.Stage = stageTests
	child, err := p.command(context.Background())
	if err != nil {
		return failed(err)
	}
	if err := child.Start(); err != nil {
		return failed(fmt.Errorf("start tests: %w", err))
	}
	defer thawAll(p.State)
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	go func() {
		<-asked
		_ = child.Process.Kill() // its end is met below
	}()
	// Orphans of the container runtime end up here and must be reaped too.
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return failed(fmt.Errorf("wait for tests: %w", err))
		case pid == child.Process.Pid && status.Exited():
			return status.ExitStatus()
		case pid == child.Process.Pid:
			return failed(fmt.Errorf("tests ended by %s", unix.SignalName(status.Signal())))
		}
	}
}

func failed(err error) int {
	fmt.Fprintf(os.Stderr, "e2e: %v\n", err)
	return 1
}

// testArguments are those of this process, without the log by which go test
// would cache the result: the log knows nothing of the daemon's sources.
func testArguments() []string {
	var args []string
	for _, arg := range os.Args[1:] {
		if !strings.HasPrefix(arg, "-test.testlogfile=") {
			args = append(args, arg)
		}
	}
	return args
}
