// Package daemon runs gpuvet beside a test cluster: as a process of the node,
// with the rights that it ships with, scripted GPUs and the real kernel log.
package daemon

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpuvet.dev/internal/e2e/kube"
)

// Options say what a daemon is started with.
type Options struct {
	Node       string   // the node that it watches
	TokenNode  string   // the node that its token is bound to; empty: the same
	Scenario   string   // path of a scenario file, as [Fleet.Scenario] writes it; empty: real GPUs
	FaultPoint string   // value of GPUVET_FAULTPOINT; empty: none
	Args       []string // further flags of `gpuvet run`
	Config     Config   // with a scenario
}

// Daemon is a gpuvet with its state folder, through any number of restarts.
type Daemon struct {
	// Options are those of the next life.
	Options Options

	pages

	binary     string
	dir        string // of state and log
	sockets    string // a folder
	kubeconfig string
	listen     string
	running    *running
}

// running is one life of the daemon.
type running struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed once it has ended
}

// Start starts a daemon. It ends with the test at the latest, and its log is
// shown if the test fails. Start does not wait until it is ready. A second one
// for the same node in the same test shares the state folder of the first. The node
// with the kubelet has one daemon at a time, and Start waits for its turn.
func Start(t testing.TB, cluster *kube.Cluster, options Options) *Daemon {
	t.Helper()
	binary, err := cluster.DaemonBinary()
	if err != nil {
		t.Fatalf("there is no daemon to test: %v", err)
	}
	if options.Node == kube.NodeName {
		node.Lock()
		t.Cleanup(func() {
			leave(t, cluster)
			node.Unlock()
		})
	}
	kubeconfig, err := cluster.TokenKubeconfig(t.Context(), kube.Shipped, cmp.Or(options.TokenNode, options.Node))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := cluster.Folder(filepath.Join("daemon", strings.ReplaceAll(t.Name(), "/", "-"), options.Node))
	if err != nil {
		t.Fatal(err)
	}
	// Not below dir: the path of a socket has room for 107 bytes.
	sockets, err := os.MkdirTemp("/run", "gpuvet-") //nolint:usetesting // the test's own folder has its long name
	if err != nil {
		t.Fatalf("make folder of socket: %v", err)
	}
	d := &Daemon{
		Options: options, binary: binary, kubeconfig: kubeconfig, dir: dir,
		sockets: sockets, listen: ownAddress(),
	}
	// Where there is no kubelet, its folder waits for one.
	if err := os.MkdirAll(filepath.Join(d.KubeletDir(), "plugins_registry"), 0o750); err != nil {
		t.Fatalf("make folder of kubelet: %v", err)
	}
	d.address = func(context.Context) (string, error) { return d.listen, nil }
	t.Cleanup(func() {
		if d.running != nil {
			d.Kill9(t)
		}
		if t.Failed() {
			t.Logf("log of the daemon on %s:\n%s", options.Node, d.Log())
			return
		}
		// The same test again must not find it.
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove state of daemon: %v", err)
		}
	})
	d.launch(t)
	return d
}

// Restart starts an ended daemon again with the same state and the options as
// they are now.
func (d *Daemon) Restart(t testing.TB) {
	t.Helper()
	if d.running != nil {
		t.Fatal("restart: the daemon still runs")
	}
	d.launch(t)
}

func (d *Daemon) launch(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(d.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatalf("open log of daemon: %v", err)
	}
	defer log.Close()
	args := []string{
		"run", "--log-format", "json",
		"--kubeconfig", d.kubeconfig, "--node-name", d.Options.Node,
		"--state-dir", filepath.Join(d.dir, "state"), "--socket", d.socket(), "--listen", d.listen,
	}
	if d.Options.Node != kube.NodeName {
		args = append(args, "--kubelet-dir", d.KubeletDir(), "--cdi-dir", d.CDIDir())
	}
	if d.Options.Scenario != "" {
		d.Options.Config.write(t, configBeside(d.Options.Scenario))
		args = append(args, "--fake-nvml", d.Options.Scenario, "--config", configBeside(d.Options.Scenario), "--accept-user-kernel-lines")
	}
	life := &running{cmd: exec.Command(d.binary, append(args, d.Options.Args...)...), ended: make(chan struct{})}
	life.cmd.Env = append(os.Environ(), "GPUVET_FAULTPOINT="+d.Options.FaultPoint)
	life.cmd.Stdout, life.cmd.Stderr = log, log
	if err := life.cmd.Start(); err != nil {
		t.Fatalf("start daemon: %v", err)
	}
	go func() {
		defer close(life.ended)
		_ = life.cmd.Wait() // its state says how it ended
	}()
	d.running = life
}

// AwaitReady waits until /readyz answers, and ends the test if the daemon ends
// instead.
func (d *Daemon) AwaitReady(t testing.TB) {
	t.Helper()
	kube.Eventually(t, time.Minute, func() error {
		select {
		case <-d.running.ended:
			t.Fatalf("daemon ended before it was ready: %s", d.running.cmd.ProcessState)
		default:
		}
		_, err := d.get(t.Context(), "/readyz")
		return err
	})
}

// Kill9 ends the daemon as a crash would.
func (d *Daemon) Kill9(t testing.TB) {
	t.Helper()
	d.end(t, syscall.SIGKILL)
}

// Stop asks the daemon to end and returns its exit code.
func (d *Daemon) Stop(t testing.TB) int {
	t.Helper()
	return d.end(t, syscall.SIGTERM)
}

func (d *Daemon) end(t testing.TB, signal syscall.Signal) int {
	t.Helper()
	_ = d.running.cmd.Process.Signal(signal) // too late if it has ended, and then well
	return d.Wait(t)
}

// Wait waits until the daemon has ended by itself and returns its exit code, -1
// if a signal ended it: a fault point does.
func (d *Daemon) Wait(t testing.TB) int {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	select {
	case <-d.running.ended:
	case <-limit.C:
		t.Fatal("daemon does not end")
	}
	code := d.running.cmd.ProcessState.ExitCode()
	d.running = nil
	return code
}

// Log is everything that the daemon has said, over all its lives.
func (d *Daemon) Log() string {
	content, err := os.ReadFile(d.logPath())
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// Command runs another command of gpuvet that asks the daemon, such as "status",
// and returns what it printed and its exit code.
func (d *Daemon) Command(t testing.TB, args ...string) (output string, code int) {
	t.Helper()
	command := exec.CommandContext(t.Context(), d.binary, append(args, "--socket", d.socket())...)
	out, err := command.CombinedOutput()
	if command.ProcessState == nil {
		t.Fatalf("run gpuvet %s: %v", args[0], err)
	}
	return string(out), command.ProcessState.ExitCode()
}

// AnonymousMemory is what the daemon takes of the machine's memory and shares
// with nobody, in bytes.
func (d *Daemon) AnonymousMemory(t testing.TB) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.running.cmd.Process.Pid))
	if err != nil {
		t.Fatalf("read memory of daemon: %v", err)
	}
	_, rest, _ := strings.Cut(string(status), "\nRssAnon:")
	var kilobytes int64
	if _, err := fmt.Sscan(rest, &kilobytes); err != nil {
		t.Fatalf("read memory of daemon: %v", err)
	}
	return kilobytes << 10
}

func (d *Daemon) socket() string { return filepath.Join(d.sockets, "gpuvet.sock") }

// KubeletDir is where the daemon looks for the kubelet: the real one's folder on its
// node, and one of its own, where nobody is, on all others.
func (d *Daemon) KubeletDir() string {
	if d.Options.Node == kube.NodeName {
		return kube.KubeletDir
	}
	return filepath.Join(d.sockets, "kubelet")
}

// CDIDir is where the daemon writes CDI specs.
func (d *Daemon) CDIDir() string {
	if d.Options.Node == kube.NodeName {
		return kube.CDIDir
	}
	return filepath.Join(d.sockets, "cdi")
}

func (d *Daemon) logPath() string { return filepath.Join(d.dir, "log") }

// ownAddress is a loopback address that nobody else listens on, and that stays
// the daemon's while it is down.
func ownAddress() string {
	host := randomBytes(3)
	return fmt.Sprintf("127.%d.%d.%d:9410", host[0], host[1], max(host[2], 2))
}
