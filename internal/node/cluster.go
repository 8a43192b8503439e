package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/connrotation"
)

// ErrNoCluster says that there is no API server to talk to: the daemon stands
// alone.
var ErrNoCluster = errors.New("no kubeconfig and not in a pod")

// Cluster is the way to the API server.
type Cluster struct {
	// Config is for any typed client of client-go; those of built-in types speak
	// protobuf by themselves.
	Config *rest.Config

	connections *connrotation.Dialer
}

// Connect reads how to reach the API server from a kubeconfig file or, with an
// empty path, from the pod's service account. Nothing is sent.
func Connect(kubeconfig, version string) (*Cluster, error) {
	c, err := config(kubeconfig)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}
	connections := connrotation.NewDialer(func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, address)
	})
	c.Dial = connections.DialContext
	c.UserAgent = "gpuvet/" + version
	// Budgets of our own come first; this only bounds a mistake.
	c.QPS, c.Burst = 20, 40
	return &Cluster{Config: c, connections: connections}, nil
}

func config(kubeconfig string) (*rest.Config, error) {
	if kubeconfig != "" {
		c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
		}
		return c, nil
	}
	c, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, ErrNoCluster
	}
	if err != nil {
		return nil, fmt.Errorf("read the pod's service account: %w", err)
	}
	return c, nil
}

// Reconnect drops all connections. Over HTTP/2 every call shares one, and the
// death of one that nobody closed is noticed late.
func (c *Cluster) Reconnect() { c.connections.CloseAll() }
