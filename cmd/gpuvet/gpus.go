package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"gpuvet.dev/exporter"
	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/client"
	"gpuvet.dev/nvml/driverroot"
	"gpuvet.dev/nvml/fake"
	"gpuvet.dev/nvml/fakelib"
)

// gpus is the way to the node's GPUs. The flags choose it:
//
//	(none)                           worker processes ask the installed driver
//	--fake-nvml FILE                 a script stands for driver and GPUs, in this process
//	--fake-nvml F --nvml-library L   worker processes ask L, which plays the script
type gpus struct {
	valve    *nvml.Valve
	scripted *fake.Driver     // nil: the GPUs are real
	workers  *client.Client   // nil: none are needed
	machine  *fakelib.Machine // nil: no library plays the script
}

// loadScript reads the script that the GPUs play; nil: they are real.
func loadScript(o runOptions) (*fake.Driver, error) {
	if o.fakeNVML == "" {
		return nil, nil
	}
	script, err := fake.Load(o.fakeNVML)
	if err != nil {
		return nil, badInput("--fake-nvml: %w", err)
	}
	return fake.New(script), nil
}

// openGPUs asks the driver nothing: it may come later. The state folder must be
// locked, for a library of a script has its page in it.
func openGPUs(o runOptions, script *fake.Driver, log *zap.Logger) (*gpus, error) {
	g := &gpus{scripted: script}
	if script != nil && o.nvmlLibrary == "" {
		g.valve = nvml.NewValve(script, nil)
		return g, nil
	}
	worker, err := workerPath()
	if err != nil {
		return nil, err
	}
	options := client.Options{Worker: worker, Library: o.findLibrary(log), Log: log}
	if script != nil {
		if g.machine, err = openMachine(filepath.Join(o.stateDir, "script"), script); err != nil {
			return nil, err
		}
		options.Env, options.Sysfs = g.machine.Env(), g.machine.Sysfs()
	}
	g.workers = client.New(options)
	g.valve = nvml.NewValve(g.workers, g.workers.Release)
	return g, nil
}

func openMachine(dir string, script *fake.Driver) (*fakelib.Machine, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("clear what an earlier script left: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder for the script: %w", err)
	}
	return fakelib.New(dir, script)
}

// workerPath is the file beside this program; both are of one release.
func workerPath() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the folder of this program: %w", err)
	}
	return filepath.Join(filepath.Dir(self), "gpuvet-nvml"), nil
}

// hostRoot is where the node's root is seen; the DaemonSet names its mount.
func hostRoot() string { return cmp.Or(os.Getenv("HOST_ROOT"), "/") }

// findLibrary looks for the driver's library each time it is called, and tells
// when it finds another one.
func (o *runOptions) findLibrary(log *zap.Logger) func() (string, error) {
	var mu sync.Mutex
	var told string
	return func() (string, error) {
		found, err := driverroot.Find(driverroot.Options{Host: hostRoot(), Root: o.driverRoot, Library: o.nvmlLibrary})
		if err != nil {
			return "", err
		}
		mu.Lock()
		defer mu.Unlock()
		if text := found.String(); text != told {
			told = text
			log.Info("using the driver's library", zap.String("library", found.Library),
				zap.String("layout", string(found.Layout)), zap.Strings("not", found.Others))
		}
		return found.Library, nil
	}
}

// play plays the script, if there is one, until ctx ends.
func (g *gpus) play(ctx context.Context) error {
	plays, ctx := errgroup.WithContext(ctx)
	if g.scripted != nil {
		plays.Go(func() error { return g.scripted.Run(ctx) })
	}
	if g.machine != nil {
		plays.Go(func() error { return g.machine.Run(ctx) })
	}
	return plays.Wait()
}

// told is what the exporter shows of the worker processes; nil: there are none.
func (g *gpus) told() func() exporter.Workers {
	if g.workers == nil {
		return nil
	}
	return func() exporter.Workers {
		s := g.workers.Stats()
		return exporter.Workers{Started: s.Started, Died: s.Died, Killed: s.Killed, Stuck: len(s.Stuck), Events: s.Events}
	}
}

// close ends the worker processes, and leaves behind those that cannot end.
func (g *gpus) close() error {
	if g.workers != nil {
		g.workers.Close()
	}
	if g.machine != nil {
		return g.machine.Close()
	}
	return nil
}
