package main

import (
	"context"
	"fmt"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"

	"gpuvet.dev/dra"
	"gpuvet.dev/dra/cdi"
	"gpuvet.dev/dra/pool"
	"gpuvet.dev/dra/publish"
	"gpuvet.dev/exporter"
	"gpuvet.dev/internal/node"
	"gpuvet.dev/nvml/driverroot"
)

// allocation is the DRA driver: it offers the node's GPUs to Kubernetes, and gives
// them to containers.
type allocation struct {
	slices *publish.Publisher
	plugin *dra.Plugin
}

// allocate makes the DRA driver, where there is a cluster and nobody has turned it
// off.
func (d *daemon) allocate(cluster *node.Cluster, conf config, name string) error {
	switch {
	case conf.DRA.Enabled == dra.EnabledFalse:
		return nil
	case d.o.dryRun:
		d.log.Info("dry run: no slices are published; gpuvet slices shows them")
		return nil
	}
	client, err := kubernetes.NewForConfig(cluster.Bounded())
	if err != nil {
		return inputError{fmt.Errorf("--kubeconfig: %w", err)}
	}
	specs, err := d.specs(conf.DRA)
	if err != nil {
		return err
	}
	log := d.log.Named("dra")
	a := &allocation{slices: publish.New(publish.Options{
		Node: name, Client: client, Forced: conf.DRA.Enabled == dra.EnabledTrue,
		PluginGPUs: d.output.PluginGPUs,
		Ready:      func(p pool.Device) error { return specs.Ready(cdiDevice(p)) },
		Changed:    d.output.Look, Log: log,
	})}
	a.plugin, err = dra.New(dra.Options{
		Node: name, Kube: client, KubeletDir: d.o.kubeletDir, CDIDir: d.o.cdiDir, Host: hostRoot(),
		Detector: d.detector, Specs: specs, Look: d.sampler.Look, Limits: a.slices.Limits,
		Withheld: func() string {
			if s := a.slices.Status(); s.Mode == publish.Withheld {
				return s.Cause
			}
			return ""
		},
		TenantLabel: func() string { return d.detector.Policy().Suspicion.NamespaceLabel },
		Config:      conf.DRA, Log: log,
		Begin: func(operation string) func(error) {
			end := d.exporter.BeginClaim(operation)
			return func(err error) { end(string(dra.KindOf(err))) }
		},
	})
	if err != nil {
		return fmt.Errorf("section dra: %w", err)
	}
	d.allocation = a
	return nil
}

// specs are the CDI specs of claims. Scripted GPUs have no device nodes: unless the
// file says otherwise, their containers get an environment and nothing else.
func (d *daemon) specs(conf dra.Config) (*cdi.Specs, error) {
	mode := conf.CDI
	if mode == "" {
		if mode = cdi.Delegate; d.gpus.scripted != nil {
			mode = cdi.None
		}
	}
	specs, err := cdi.New(cdi.Options{
		Mode: mode, Dir: d.o.cdiDir, Host: hostRoot(), Kind: conf.CDIKind,
		Driver: func() (cdi.Driver, error) {
			found, err := driverroot.Find(driverroot.Options{Host: hostRoot(), Root: d.o.driverRoot, Library: d.o.nvmlLibrary})
			if err != nil {
				return cdi.Driver{}, err
			}
			return cdi.Driver{Library: found.Library, Root: found.Root}, nil
		},
	})
	if err != nil {
		return nil, fmt.Errorf("section dra: %w", err)
	}
	return specs, nil
}

func cdiDevice(p pool.Device) cdi.Device {
	d := cdi.Device{Name: p.Name, UUID: p.ID.UUID, Minor: p.Minor}
	if p.ID.GPUInstance != nil && p.ID.ComputeInstance != nil {
		d.MIG = &cdi.Instance{GPUInstance: *p.ID.GPUInstance, ComputeInstance: *p.ID.ComputeInstance}
	}
	return d
}

// run publishes and serves until ctx ends, and has unregistered when it returns.
func (a *allocation) run(ctx context.Context, d *daemon) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		retry(ctx, d.log, "slices are not published", func(ctx context.Context) error {
			return a.slices.Run(ctx, d.detector.Watch(ctx))
		})
		return nil
	})
	g.Go(func() error { return a.plugin.Run(ctx) })
	return g.Wait()
}

// told is what the exporter shows of the DRA driver.
func (a *allocation) told() exporter.Allocation {
	s := a.slices.Status()
	t := exporter.Allocation{
		Mode: string(s.Mode), Cause: s.Cause, Server: s.Server, Devices: s.Devices, Waiting: s.Waiting, Missing: s.Missing,
		Creates: s.Creates, Updates: s.Updates, Deletes: s.Deletes, Registered: a.plugin.Err() == nil,
	}
	if err := a.plugin.Err(); err != nil {
		t.Unregistered = err.Error()
	}
	return t
}

// checkKubelet refuses folders that sockets cannot lie in.
func (o *runOptions) checkKubelet() error {
	for flag, dir := range map[string]string{"--kubelet-dir": o.kubeletDir, "--cdi-dir": o.cdiDir} {
		if !filepath.IsAbs(dir) {
			return badInput("%s %q: expected an absolute path", flag, dir)
		}
	}
	const limit = 108 // of a socket's path, with its zero byte
	if socket := filepath.Join(o.kubeletDir, "plugins_registry", pool.DriverName+"-reg.sock"); len(socket) >= limit {
		return badInput("--kubelet-dir %s: expected a path so short that %s has less than %d bytes", o.kubeletDir, socket, limit)
	}
	return nil
}
