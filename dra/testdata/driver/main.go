// Command driver serves the kubelet of a folder until it is told to end, for tests
// that kill it at a fault point. Its arguments are the folder, the API server's
// address, the node, the boot and the point, which counts from the moment at which it
// says that it has begun.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra"
	"gpuvet.dev/dra/cdi"
	"gpuvet.dev/dra/pool"
	"gpuvet.dev/internal/state"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(folder, server, node, boot, point string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	dir, err := state.Open(filepath.Join(folder, "state"))
	if err != nil {
		return err
	}
	payload, _, err := dir.Load()
	if err != nil {
		return err
	}
	var saved detector.Saved
	if len(payload) > 0 {
		if saved, err = detector.DecodeSaved(payload); err != nil {
			return err
		}
	}
	kube, err := kubernetes.NewForConfig(&rest.Config{Host: server, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		return err
	}
	d := detector.New(detector.Config{Policy: detector.DefaultPolicy(), Saved: saved, Boot: boot, Uptime: time.Hour, Store: dir})
	config := dra.DefaultConfig()
	config.CDI = cdi.None
	specs, err := cdi.New(cdi.Options{Mode: config.CDI, Dir: filepath.Join(folder, "cdi"), Host: folder})
	if err != nil {
		return err
	}
	plugin, err := dra.New(dra.Options{
		Node: node, Kube: kube, KubeletDir: folder, CDIDir: filepath.Join(folder, "cdi"), Detector: d, Specs: specs, Config: config,
		Look: func(context.Context, string) error { return nil }, Limits: func() pool.Limits { return pool.LimitsOf(1, 37) },
	})
	if err != nil {
		return err
	}
	keeping, kept := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer kept()
	wg.Go(func() { _ = d.Run(keeping) })
	gpu := detector.Device{PCI: "0000:10:00.0", UUID: "GPU-0"}
	for _, e := range []detector.Event{
		{Source: detector.SourceDaemon, Kind: detector.KindBoot},
		{Source: detector.SourceState, Kind: detector.KindGPUFound, GPU: gpu, Fields: map[string]string{"name": "NVIDIA H100 80GB HBM3", "minor": "0"}},
		{Source: detector.SourceState, Kind: detector.KindFresh, GPU: gpu},
		{Source: detector.SourceDRA, Kind: detector.KindClaimReleased, Claim: &detector.Claim{UID: "none"}},
	} {
		if _, err := d.Submit(ctx, e); err != nil { // the last one is saved, and all before it with it
			return err
		}
	}
	if err := os.Setenv("GPUVET_FAULTPOINT", point); err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "begun")
	return plugin.Run(ctx)
}
