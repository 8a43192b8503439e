package kube

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Cluster is a running Kubernetes with one node. Its API server speaks to the
// whole world: the namespaces that hold it are all there is.
type Cluster struct {
	plan      plan
	dir       string // of what it writes
	plane     controlPlane
	authority *authority
	admin     *kubernetes.Clientset
	watcher   *kubernetes.Clientset // the same without a limit to each call
	processes []*process            // in the order of their start
	apiServer *process              // nil while it is stopped
	startedAt time.Time
	shipped   string // folder of the manifests that ship
}

func newCluster(p plan) *Cluster {
	return &Cluster{plan: p, dir: p.State, plane: controlPlane{port: "443"}, shipped: "../../deploy"}
}

// Admin is a client that may do everything. It survives a stopped API server.
func (c *Cluster) Admin() kubernetes.Interface { return c.admin }

// Folder makes a folder below the state of this run, for what a test wants to
// find there after a failure.
func (c *Cluster) Folder(name string) (string, error) {
	dir := c.path(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make folder: %w", err)
	}
	return dir, nil
}

// DaemonBinary is the path of gpuvet, built from this repository with its fault
// points. It is an error if it does not compile.
func (c *Cluster) DaemonBinary() (string, error) { return c.plan.Daemon.path() }

// Image is the path of an archive with the image that ships, built from this
// repository. The node has it. It is an error if it did not build.
func (c *Cluster) Image() (string, error) { return c.plan.Image.path() }

// Library is the path of a libnvidia-ml.so.1 that plays a scenario. It is an
// error if it did not build: that takes a C compiler.
func (c *Cluster) Library() (string, error) { return c.plan.Library.path() }

// start brings the cluster up: API server, controllers, node and the shipped
// rights and DeviceClasses, and says on stderr how far it is.
func (c *Cluster) start(ctx context.Context) error {
	c.startedAt = time.Now()
	for _, step := range []struct {
		milestone string
		do        func(context.Context) error
	}{
		{"", c.prepare},
		{"", c.startEtcd},
		{"", c.startContainerd},
		{"API server ready", c.startAPIServer},
		{"", c.startControllers},
		{"images imported", c.importImages},
		{"", c.startKubelet},
		{"rights applied", c.applyShipped},
		{"controllers at work", c.awaitControllers},
		{"node ready", c.awaitNode},
		{"rights in force", func(ctx context.Context) error { return c.awaitRights(ctx, NodeName) }},
	} {
		if err := step.do(ctx); err != nil {
			return err
		}
		if step.milestone != "" {
			fmt.Fprintf(os.Stderr, "e2e: %4.1f s %s\n", time.Since(c.startedAt).Seconds(), step.milestone)
		}
	}
	return nil
}

// StopAPIServer ends the API server as a crash would. Everything else goes on.
func (c *Cluster) StopAPIServer() {
	if c.apiServer != nil {
		c.apiServer.kill()
		c.apiServer = nil
	}
}

// StartAPIServer starts it again and waits until it is ready, which takes a few
// seconds. [Cluster.WakeControllers] is for tests that need them afterwards.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	if c.apiServer != nil {
		return nil
	}
	return c.startAPIServer(ctx)
}

// FreezeAPIServer makes the API server hang: connections stand, and nothing is
// answered.
func (c *Cluster) FreezeAPIServer() error { return c.apiServer.signal(syscall.SIGSTOP) }

// ThawAPIServer lets it go on, if it was frozen.
func (c *Cluster) ThawAPIServer() error { return c.apiServer.signal(syscall.SIGCONT) }

// RestartKubelet kills the kubelet, starts it again and waits until the node is ready.
// Containers run on.
func (c *Cluster) RestartKubelet(ctx context.Context) error {
	for _, p := range c.processes {
		if p.name == "kubelet" {
			p.kill()
		}
	}
	if err := c.startKubelet(ctx); err != nil {
		return err
	}
	return c.awaitNode(ctx)
}

// WakeControllers starts everything that acts on objects anew: after an outage
// each of them waits for up to a minute before it asks again.
func (c *Cluster) WakeControllers(ctx context.Context) error {
	for _, p := range c.processes {
		if slices.Contains([]string{"kube-controller-manager", "kube-scheduler", "kubelet"}, p.name) {
			p.kill()
		}
	}
	if err := c.startControllers(ctx); err != nil {
		return err
	}
	if err := c.startKubelet(ctx); err != nil {
		return err
	}
	return c.awaitNode(ctx)
}

// stop kills what would otherwise still write to the state folder while it is
// removed.
func (c *Cluster) stop() {
	for _, p := range slices.Backward(c.processes) {
		p.kill()
	}
}

func (c *Cluster) awaitControllers(ctx context.Context) error {
	return c.await(ctx, "default service account", func() error {
		_, err := c.admin.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

func (c *Cluster) awaitNode(ctx context.Context) error {
	return c.await(ctx, "node", func() error {
		node, err := c.admin.CoreV1().Nodes().Get(ctx, NodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return settled(node)
	})
}

// settled is nil once the node is ready and the controllers have taken the
// taints of its start away.
func settled(node *corev1.Node) error {
	ready := slices.ContainsFunc(node.Status.Conditions, func(condition corev1.NodeCondition) bool {
		return condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue
	})
	if !ready {
		return fmt.Errorf("node %s is not ready", node.Name)
	}
	for _, taint := range node.Spec.Taints {
		if taint.Key == corev1.TaintNodeNotReady {
			return fmt.Errorf("node %s is still tainted as not ready", node.Name)
		}
	}
	return nil
}

// await polls until condition returns nil. It ends early when a component dies.
func (c *Cluster) await(ctx context.Context, what string, condition func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return nil
		}
		for _, p := range c.processes {
			if dead := p.alive(); dead != nil {
				return fmt.Errorf("wait for %s: %w", what, dead)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; last: %w", what, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// printTails shows what every component said last.
func (c *Cluster) printTails(w io.Writer) {
	logs, err := filepath.Glob(c.path("log/*.log"))
	if err != nil {
		return
	}
	for _, log := range logs {
		fmt.Fprintf(w, "--- %s\n%s\n", log, tail(log, 20))
	}
}
