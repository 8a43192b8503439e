// Command noder keeps one node of an API server at what its GPU is, until the
// API server says so, for tests that kill it at a fault point. Its arguments
// are the state folder, the API server's address, the node, and what happens:
// fault or repair.
package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"sync"
	"time"

	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"gpuvet.dev/detector"
	"gpuvet.dev/internal/node"
	"gpuvet.dev/internal/state"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const cursor = "node-events"

func run(folder, server, name, what string) error {
	dir, err := state.Open(folder)
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
	client, err := corev1client.NewForConfig(&rest.Config{Host: server, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		return err
	}
	d := detector.New(detector.Config{Policy: detector.DefaultPolicy(), Saved: saved, Boot: "boot", Uptime: time.Hour, Store: dir})
	out := node.New(node.Options{
		Nodes: client.Nodes(), Events: client.Events("default"), NodeName: name, Config: node.DefaultConfig(), Submit: d.Submit,
		History: node.History{Read: trail(d), Cursor: func() uint64 { c, _ := d.Cursor(cursor); return c.Seq }, SetCursor: func(n uint64) { d.SetCursor(cursor, detector.Cursor{Seq: n}) }},
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { _ = d.Run(ctx) })
	gpu := detector.Device{PCI: "0000:10:00.0", UUID: "GPU-0"}
	for _, e := range []detector.Event{
		{Source: detector.SourceState, Kind: detector.KindBoot},
		{Source: detector.SourceState, Kind: detector.KindDriverLoaded, Fields: map[string]string{"version": "570.1", "load": "1"}},
		{Source: detector.SourceState, Kind: detector.KindGPUFound, GPU: gpu},
		{Source: detector.SourceState, Kind: detector.KindFresh, GPU: gpu},
		// A source reads again what was not saved: the number makes it one.
		{Source: detector.SourceKernelLog, ID: "boot/kmsg/1", Kind: detector.KindXid, GPU: gpu, Xid: &detector.Report{Code: 79}},
	} {
		d.Emit(e)
	}
	if what == "repair" {
		if _, err := d.Submit(ctx, detector.Event{Source: detector.SourceHand, Kind: detector.KindClear, GPU: gpu}); err != nil {
			return err
		}
	}
	wg.Go(func() { _ = out.Run(ctx, d.Watch(ctx)) })
	defer wg.Wait()
	defer cancel()
	for {
		s := d.Snapshot()
		seq, _, err := out.Progress()
		told, _ := d.Cursor(cursor)
		if seq == s.Seq && told.Seq >= s.Transitions[len(s.Transitions)-1].Seq {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// trail reads what the snapshot still shows.
func trail(d *detector.Detector) func(uint64) iter.Seq2[node.Record, error] {
	return func(after uint64) iter.Seq2[node.Record, error] {
		return func(yield func(node.Record, error) bool) {
			for _, t := range d.Snapshot().Transitions {
				if t.Seq > after && !yield(node.Record{Position: t.Seq, Transitions: []detector.Transition{t}}, nil) {
					return
				}
			}
		}
	}
}
