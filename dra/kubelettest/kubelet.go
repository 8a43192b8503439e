// Package kubelettest is a kubelet for tests of DRA drivers: it finds plugins by the
// sockets in its folder and calls them over gRPC, as the plugin manager and the DRA
// manager of k8s.io/kubernetes 1.34 to 1.37 do. It keeps no pods and no checkpoint:
// the test says when what is called.
package kubelettest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "k8s.io/kubelet/pkg/apis/dra-health/v1"
	healthv1alpha1 "k8s.io/kubelet/pkg/apis/dra-health/v1alpha1"
	drav1 "k8s.io/kubelet/pkg/apis/dra/v1"
	drav1beta1 "k8s.io/kubelet/pkg/apis/dra/v1beta1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Options say which kubelet it is; the zero value is a 1.37.
type Options struct {
	// Services are the gRPC services that it knows, the best first.
	Services []string
	// Refuse is what it says to a plugin that registers; empty: it takes it.
	Refuse string
}

// The services of the kubelets from 1.34 on.
var (
	Services137 = []string{drav1.DRAPluginService, drav1beta1.DRAPluginService, healthv1.DRAResourceHealthService, healthv1alpha1.DRAResourceHealthService}
	Services134 = []string{drav1beta1.DRAPluginService, healthv1alpha1.DRAResourceHealthService}
)

// Kubelet is one run of a kubelet.
type Kubelet struct {
	dir  string
	o    Options
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex         // guards what follows
	plugins map[string]*Plugin // by registration socket
	err     error              // of the last registration that failed
	changed chan struct{}
}

// Plugin is a driver that is registered.
type Plugin struct {
	Name     string
	Endpoint string
	Services []string // as the driver lists them

	dra, health string // the services that are used
	conn        *grpc.ClientConn
	inode       os.FileInfo
}

// Start begins to watch the folder dir/plugins_registry, which it makes.
func Start(dir string, o Options) (*Kubelet, error) {
	if o.Services == nil {
		o.Services = Services137
	}
	if err := os.MkdirAll(filepath.Join(dir, "plugins_registry"), 0o750); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	k := &Kubelet{dir: dir, o: o, stop: stop, plugins: map[string]*Plugin{}, changed: make(chan struct{})}
	k.wg.Go(func() { k.watch(ctx) })
	return k, nil
}

// Stop ends the kubelet. Drivers stay.
func (k *Kubelet) Stop() {
	k.stop()
	k.wg.Wait()
}

// Plugin waits until a driver is registered.
func (k *Kubelet) Plugin(ctx context.Context, name string) (*Plugin, error) {
	var found *Plugin
	err := k.until(ctx, func() bool {
		for _, p := range k.plugins {
			if p.Name == name {
				found = p
			}
		}
		return found != nil
	})
	if err != nil {
		return nil, fmt.Errorf("wait for driver %s: %w", name, err)
	}
	return found, nil
}

// Gone waits until a driver that was registered is not any more.
func (k *Kubelet) Gone(ctx context.Context, gone *Plugin) error {
	return k.until(ctx, func() bool {
		for _, p := range k.plugins {
			if p == gone {
				return false
			}
		}
		return true
	})
}

// until waits for something about the plugins.
func (k *Kubelet) until(ctx context.Context, so func() bool) error {
	for {
		k.mu.Lock()
		is, changed, err := so(), k.changed, k.err
		k.mu.Unlock()
		if is {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-changed:
		}
	}
}

// watch looks at the sockets as they come, go and are replaced.
func (k *Kubelet) watch(ctx context.Context) {
	defer func() {
		for socket := range k.plugins {
			k.deregister(socket)
		}
	}()
	for {
		k.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (k *Kubelet) look(ctx context.Context) {
	registry := filepath.Join(k.dir, "plugins_registry")
	entries, err := os.ReadDir(registry)
	if err != nil {
		k.change(func() { k.err = err })
	}
	there := map[string]fs.FileInfo{}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode()&fs.ModeSocket != 0 && e.Name()[0] != '.' {
			there[filepath.Join(registry, e.Name())] = info
		}
	}
	for socket, p := range k.plugins {
		if info, ok := there[socket]; !ok || !same(info, p.inode) {
			k.deregister(socket)
		}
	}
	for socket, info := range there {
		if k.plugins[socket] != nil {
			continue
		}
		if err := k.register(ctx, socket, info); err != nil && ctx.Err() == nil {
			k.change(func() { k.err = fmt.Errorf("register %s: %w", socket, err) })
		}
	}
}

// same reports whether a socket is the one of before: numbers of inodes are used again.
func same(a, b fs.FileInfo) bool { return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) }

// change changes the plugins, which only the watching goroutine does.
func (k *Kubelet) change(do func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	do()
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *Kubelet) deregister(socket string) {
	k.change(func() {
		k.plugins[socket].conn.Close()
		delete(k.plugins, socket)
	})
}

// register is what operation_generator.go of the kubelet does.
func (k *Kubelet) register(ctx context.Context, socket string, inode fs.FileInfo) error {
	conn, err := dial(socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	client := registration.NewRegistrationClient(conn)
	info, err := client.GetInfo(ctx, &registration.InfoRequest{})
	if err != nil {
		return fmt.Errorf("get info: %w", err)
	}
	p, err := k.validate(info)
	if err != nil {
		_, _ = client.NotifyRegistrationStatus(ctx, &registration.RegistrationStatus{Error: err.Error()}) // the plugin's answer to that is an error by design
		return err
	}
	if p.conn, err = dial(p.Endpoint); err != nil {
		return err
	}
	p.inode = inode
	if _, err := client.NotifyRegistrationStatus(ctx, &registration.RegistrationStatus{PluginRegistered: true}); err != nil {
		return errors.Join(fmt.Errorf("notify: %w", err), p.conn.Close())
	}
	p.conn.Connect()
	k.change(func() { k.plugins[socket] = p })
	return nil
}

func (k *Kubelet) validate(info *registration.PluginInfo) (*Plugin, error) {
	p := &Plugin{Name: info.Name, Endpoint: info.Endpoint, Services: info.SupportedVersions}
	for _, service := range k.o.Services {
		switch {
		case !slices.Contains(p.Services, service):
		case service == healthv1.DRAResourceHealthService || service == healthv1alpha1.DRAResourceHealthService:
			if p.health == "" {
				p.health = service
			}
		case p.dra == "":
			p.dra = service
		}
	}
	switch {
	case k.o.Refuse != "":
		return nil, errors.New(k.o.Refuse)
	case info.Type != registration.DRAPlugin:
		return nil, fmt.Errorf("plugin of type %q", info.Type)
	case p.dra == "":
		return nil, fmt.Errorf("none of the services %q is known", p.Services)
	}
	return p, nil
}

func dial(socket string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
}
