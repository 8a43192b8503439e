package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/util/validation"

	"gpuvet.dev/detector/kmsg"
	"gpuvet.dev/internal/node"
)

// runOptions are the flags of `gpuvet run`.
type runOptions struct {
	config     string
	configured bool // --config was given

	listen, webConfig    string
	standby              bool
	standalone, dryRun   bool
	nodeName, kubeconfig string
	fakeNVML, kernelLog  string
	nvmlLibrary          string
	driverRoot           string
	stateDir, socket     string
	kubeletDir, cdiDir   string
	acceptUserLines      bool
	logFormat            string
}

func runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: `Run the daemon: read the kernel log and NVML, decide whether each GPU is fit,
serve metrics, and tell the cluster.

In a pod, or with --kubeconfig, it sets the node condition GPUHealthy and the
taint gpuvet.dev/unhealthy on its own node; otherwise it says so once and runs
alone. Nothing that happens outside stops it from detecting: what is degraded
is logged, shown by "gpuvet status" and exported as a metric.

There is one daemon on a node: a second one ends. With --standby it waits for the
end of the first, serves probes meanwhile and does nothing else, and takes over
within a second.

To try it without a GPU:
  gpuvet run --standalone --fake-nvml testdata/scenarios/8xh100-lost.yaml`,
		Args: arguments(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.configured = cmd.Flags().Changed("config")
			if o.fakeNVML != "" && !cmd.Flags().Changed("state-dir") {
				o.stateDir += "-fake" // what was played must not be taken for what was
			}
			for _, path := range []*string{&o.nvmlLibrary, &o.driverRoot} {
				if err := absolute(path); err != nil {
					return err
				}
			}
			return run(cmd.Context(), o, cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", defaultConfig, "configuration file")
	f.StringVar(&o.listen, "listen", ":9410", "address for metrics and probes")
	f.StringVar(&o.webConfig, "web-config", "", "web configuration file of the Prometheus exporter toolkit: TLS and basic auth")
	f.BoolVar(&o.standby, "standby", false, "if another gpuvet uses the state folder, wait for its end and take over")
	f.BoolVar(&o.standalone, "standalone", false, "tell no cluster, even if there is one")
	f.BoolVar(&o.dryRun, "dry-run", false, "log what would be written to the cluster, and write nothing; rights are not tried")
	f.StringVar(&o.nodeName, "node-name", os.Getenv("NODE_NAME"), "name of this node in the cluster (default $NODE_NAME, then the host name)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; in a pod its ServiceAccount is used")
	f.StringVar(&o.fakeNVML, "fake-nvml", "", "play this scenario instead of looking at real GPUs")
	f.StringVar(&o.nvmlLibrary, "nvml-library", "", "take this libnvidia-ml.so.1, and look for no other; with --fake-nvml one that plays scripts")
	f.StringVar(&o.driverRoot, "driver-root", "", "root of the driver's files on the node; by default it is looked for where drivers are installed")
	f.StringVar(&o.kernelLog, "kernel-log", kmsg.DefaultPath, "kernel log device; journal or journal:FOLDER for systemd's journal, where it is built in")
	f.StringVar(&o.stateDir, "state-dir", defaultStateDir(), "folder for what must survive a restart; with --fake-nvml the default ends in -fake")
	f.StringVar(&o.kubeletDir, "kubelet-dir", "/var/lib/kubelet", "the kubelet's folder, in which it looks for DRA drivers")
	f.StringVar(&o.cdiDir, "cdi-dir", "/var/run/cdi", "folder for the CDI specs of claims, one that the container runtime looks in")
	f.StringVar(&o.socket, "socket", defaultSocket(), "local socket for the other commands")
	f.StringVar(&o.logFormat, "log-format", "auto", "text, json, or auto: text on a terminal")
	f.BoolVar(&o.acceptUserLines, "accept-user-kernel-lines", false, "take kernel-log lines that a process wrote: for tests with fake GPUs only")
	_ = f.MarkHidden("accept-user-kernel-lines")
	return cmd
}

// run checks everything that can be wrong before anything is started.
func run(ctx context.Context, o runOptions, errs io.Writer) error {
	// From the beginning: a hangup would end the process.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	if err := o.check(); err != nil {
		return err
	}
	conf, err := loadConfig(o.config, o.configured)
	if err != nil {
		return err
	}
	if o.acceptUserLines {
		if err := mayAcceptUserLines(o.fakeNVML, "/dev/nvidia*"); err != nil {
			return err
		}
	}
	script, err := loadScript(o)
	if err != nil {
		return err
	}
	cluster, err := o.cluster()
	if err != nil {
		return err
	}
	log := newLogger(errs, o.logFormat)
	defer func() { _ = log.Sync() }()
	if cluster != nil {
		bridge(log)
	}

	d := &daemon{o: o, conf: conf, cluster: cluster, script: script, log: log}
	return d.run(ctx, errs, hangups)
}

// check looks at the flags that need no look at anything else.
func (o *runOptions) check() error {
	if err := oneOf("--log-format", o.logFormat, "auto", "text", "json"); err != nil {
		return err
	}
	if err := checkAddress(o.listen); err != nil {
		return err
	}
	if o.stateDir == "" {
		return badInput(`--state-dir "": expected a folder`)
	}
	if err := checkSocket(o.socket); err != nil {
		return err
	}
	if err := checkKernelLog(o.kernelLog); err != nil {
		return err
	}
	if faults := validation.IsDNS1123Subdomain(o.nodeName); o.nodeName != "" && len(faults) > 0 {
		return badInput("--node-name %q: expected the name of a node, such as gpu-node-1.example.com", o.nodeName)
	}
	if o.driverRoot != "" && o.nvmlLibrary != "" {
		return badInput("--driver-root %s and --nvml-library %s: expected one of them", o.driverRoot, o.nvmlLibrary)
	}
	if o.driverRoot != "" && o.fakeNVML != "" {
		return badInput("--driver-root %s and --fake-nvml %s: expected one of them", o.driverRoot, o.fakeNVML)
	}
	if err := o.checkKubelet(); err != nil {
		return err
	}
	if o.standalone && o.kubeconfig != "" {
		return badInput("--standalone and --kubeconfig %s: expected one of them", o.kubeconfig)
	}
	return checkWebConfig(o.webConfig)
}

// absolute has a path that was given count from the working folder.
func absolute(path *string) error {
	if *path == "" {
		return nil
	}
	var err error
	*path, err = filepath.Abs(*path)
	return err
}

func checkAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return badInput("--listen %q: expected an address and a port, such as :9410 or 127.0.0.1:9410", address)
	}
	return nil
}

// webNoise is what the library says of its own types.
var webNoise = regexp.MustCompile(`field (\S+) not found in type \S+`)

func checkWebConfig(path string) error {
	if err := web.Validate(path); err != nil {
		text := webNoise.ReplaceAllString(plainYAML(err), "$1: unknown key")
		return badInput("--web-config %s: %s", path, strings.TrimPrefix(text, "open "+path+": "))
	}
	return nil
}

// cluster is the way to the cluster that is to be told; nil if there is none.
func (o *runOptions) cluster() (*node.Cluster, error) {
	if o.standalone {
		return nil, nil
	}
	cluster, err := node.Connect(o.kubeconfig, buildVersion())
	switch {
	case errors.Is(err, node.ErrNoCluster):
		return nil, nil
	case err != nil && o.kubeconfig != "":
		return nil, badInput("--kubeconfig: %w", err)
	case err != nil:
		return nil, inputError{err}
	}
	return cluster, nil
}

// mayAcceptUserLines refuses the test switch wherever a tenant could use it.
func mayAcceptUserLines(scenario, devices string) error {
	if scenario == "" {
		return badInput("--accept-user-kernel-lines: any process could then condemn a GPU: expected --fake-nvml with it")
	}
	if found, _ := filepath.Glob(devices); len(found) > 0 {
		return badInput("--accept-user-kernel-lines: %s exists, so there are real GPUs here: expected a machine without", found[0])
	}
	return nil
}

// longestPause is that between two tries of something that keeps failing.
const longestPause = 10 * time.Second

// retry runs f until it ends well or ctx does, with a pause that grows.
// A failure is told once while its text stays the same and f ends soon.
func retry(ctx context.Context, log *zap.Logger, what string, f func(context.Context) error) {
	pause, told := 100*time.Millisecond, ""
	for {
		began := time.Now()
		err := f(ctx)
		if ctx.Err() != nil || err == nil {
			return
		}
		if time.Since(began) > longestPause {
			pause, told = 100*time.Millisecond, ""
		}
		if text := err.Error(); text != told {
			told = text
			log.Error(what+"; trying again", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, longestPause)
		}
	}
}
