package kube

import (
	"cmp"
	"context"
	"embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"text/template"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"gpuvet.dev/internal/e2e/parts"
)

const (
	etcdURL          = "http://127.0.0.1:2379"
	containerdSocket = "/run/containerd/containerd.sock"
)

// controlPlane is in what control planes differ.
type controlPlane struct {
	port     string   // of the API server
	prefix   string   // of its keys in etcd; empty: the usual one
	versions []string // flags of each component: whose version it emulates, and feature gates
}

//go:embed config
var config embed.FS

// prepare writes every file that the components read.
func (c *Cluster) prepare(context.Context) error {
	if err := c.prepareControlPlane(); err != nil {
		return err
	}
	if _, err := c.Folder("cni"); err != nil {
		return err
	}
	templates, err := template.ParseFS(config, "config/*")
	if err != nil {
		return fmt.Errorf("read component configuration: %w", err)
	}
	values := map[string]string{
		"State": c.plan.State, "Image": parts.Image, "CNI": c.plan.Parts.CNI(), "Runc": c.plan.Parts.Bin("runc"),
		"Address": nodeAddress,
	}
	for name, path := range map[string]string{
		"containerd.toml": "containerd.toml", "kubelet.yaml": "kubelet.yaml", "cni.conflist": "cni/10-e2e.conflist",
	} {
		file, err := os.Create(c.path(path))
		if err != nil {
			return fmt.Errorf("write component configuration: %w", err)
		}
		if err := templates.ExecuteTemplate(file, name, values); err != nil {
			file.Close()
			return fmt.Errorf("write component configuration: %w", err)
		}
		if err := file.Close(); err != nil {
			return fmt.Errorf("write component configuration: %w", err)
		}
	}
	return nil
}

// prepareControlPlane writes keys, and makes the clients that have them.
func (c *Cluster) prepareControlPlane() error {
	for _, folder := range []string{"log", "pki", "kubeconfig"} {
		if _, err := c.Folder(folder); err != nil {
			return err
		}
	}
	var err error
	if c.authority, err = newAuthority(); err != nil {
		return err
	}
	if err := c.authority.writeKeys(c.path("pki")); err != nil {
		return err
	}
	return c.connectAdmin()
}

func (c *Cluster) connectAdmin() error {
	admin, err := c.Kubeconfig("admin", "system:masters")
	if err != nil {
		return err
	}
	restConfig, err := clientcmd.BuildConfigFromFlags("", admin)
	if err != nil {
		return fmt.Errorf("read kubeconfig of admin: %w", err)
	}
	if c.admin, err = connect(restConfig); err != nil {
		return err
	}
	restConfig.Timeout = 0
	c.watcher, err = kubernetes.NewForConfig(restConfig)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	return nil
}

// connect makes a client that never holds a test back.
func connect(restConfig *rest.Config) (*kubernetes.Clientset, error) {
	restConfig.QPS, restConfig.Burst = 500, 1000
	// A test that stops the API server must not wait for a dead connection.
	restConfig.Timeout = 20 * time.Second
	client, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return client, nil
}

func (c *Cluster) startEtcd(context.Context) error {
	_, err := c.run("etcd", nil, "--data-dir", c.path("etcd"), "--client-url", etcdURL)
	return err
}

func (c *Cluster) startAPIServer(ctx context.Context) error {
	args := []string{
		"--etcd-servers=" + etcdURL, "--etcd-prefix=" + cmp.Or(c.plane.prefix, "/registry"),
		"--bind-address=" + serviceAddress, "--advertise-address=" + serviceAddress, "--secure-port=" + c.plane.port,
		"--tls-cert-file=" + c.path("pki/server.crt"), "--tls-private-key-file=" + c.path("pki/server.key"),
		"--client-ca-file=" + c.path("pki/ca.crt"), "--cert-dir=" + c.path("pki"),
		// Nobody uses it, but the other components complain without end if it is absent.
		"--requestheader-client-ca-file=" + c.path("pki/ca.crt"), "--requestheader-allowed-names=nobody",
		"--requestheader-username-headers=X-Remote-User",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + c.path("pki/accounts.key"),
		"--service-account-signing-key-file=" + c.path("pki/accounts.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		// kubectl exec and logs go through the API server to the kubelet. Names of
		// nodes cannot be resolved here.
		"--kubelet-client-certificate=" + c.path("pki/kubelet-client.crt"), "--kubelet-client-key=" + c.path("pki/kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-cluster-ip-range=10.96.0.0/16", "--endpoint-reconciler-type=none", "--allow-privileged=true",
	}
	server, err := c.run("kube-apiserver", nil, append(args, c.plane.versions...)...)
	if err != nil {
		return err
	}
	c.apiServer = server
	return c.await(ctx, "API server", func() error {
		return c.admin.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// startControllers starts what acts on the cluster's objects, at rates that
// tests do not have to wait for.
func (c *Cluster) startControllers(context.Context) error {
	for _, component := range []struct {
		name, user string
		args       []string
	}{
		{"kube-controller-manager", "system:kube-controller-manager", []string{
			"--use-service-account-credentials",
			"--service-account-private-key-file=" + c.path("pki/accounts.key"),
			"--root-ca-file=" + c.path("pki/ca.crt"),
			// Nodes without a kubelet stay as ready as the test made them.
			"--node-monitor-grace-period=1h",
		}},
		{"kube-scheduler", "system:kube-scheduler", nil},
	} {
		kubeconfig, err := c.Kubeconfig(component.user)
		if err != nil {
			return err
		}
		args := slices.Concat(component.args, c.plane.versions, []string{
			"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
			// Nobody asks them anything, and there may be several.
			"--secure-port=0", "--leader-elect=false", "--kube-api-qps=200", "--kube-api-burst=400",
		})
		if _, err := c.run(component.name, nil, args...); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) startContainerd(context.Context) error {
	// runc links libseccomp; everything else in this process tree is static.
	_, err := c.run("containerd", []string{
		"LD_LIBRARY_PATH=" + c.plan.Parts.Lib(),
		"PATH=" + c.plan.Parts.Bin("") + ":" + os.Getenv("PATH"), // finds its shim there
	}, "--config", c.path("containerd.toml"))
	return err
}

// importImages waits for containerd and gives it the test image and ours.
func (c *Cluster) importImages(ctx context.Context) error {
	err := c.await(ctx, "containerd", func() error {
		conn, err := net.Dial("unix", containerdSocket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		return err
	}
	archives := []string{c.plan.Parts.Image()}
	if ours, err := c.Image(); err == nil {
		archives = append(archives, ours)
	}
	for _, archive := range archives {
		ctr := exec.CommandContext(ctx, c.plan.Parts.Bin("ctr"),
			"--address", containerdSocket, "--namespace", "k8s.io", "images", "import", archive)
		if out, err := ctr.CombinedOutput(); err != nil {
			return fmt.Errorf("import image %s: %w\n%s", archive, err, out)
		}
	}
	return nil
}

func (c *Cluster) startKubelet(context.Context) error {
	kubeconfig, err := c.Kubeconfig("system:node:"+NodeName, "system:nodes")
	if err != nil {
		return err
	}
	_, err = c.run("kubelet", nil,
		"--config="+c.path("kubelet.yaml"), "--kubeconfig="+kubeconfig,
		"--root-dir="+KubeletDir, "--cert-dir="+c.path("kubelet-pki"),
		"--hostname-override="+NodeName, "--node-labels=nvidia.com/gpu.present=true", "--node-ip="+nodeAddress, "--v=2")
	return err
}

// run starts a component of the set with a log named after it.
func (c *Cluster) run(name string, env []string, args ...string) (*process, error) {
	p, err := launch(name, c.plan.Parts.Bin(name), filepath.Join(c.path("log"), name+".log"), env, args...)
	if err != nil {
		return nil, err
	}
	// One of the same name is a stopped one: its death is no news.
	for i, old := range c.processes {
		if old.name == name {
			c.processes[i] = p
			return p, nil
		}
	}
	c.processes = append(c.processes, p)
	return p, nil
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }
