package main

import (
	"fmt"
	"iter"
	"os"
	"time"

	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"gpuvet.dev/detector"
	"gpuvet.dev/internal/node"
	"gpuvet.dev/internal/trail"
)

// cursorNodeEvents names the place in the trail up to which the cluster was
// told.
const cursorNodeEvents = "node-events"

// connect makes the output that tells the cluster, if there is one to tell.
func (d *daemon) connect(cluster *node.Cluster, conf config, history *trail.Trail) error {
	if cluster == nil {
		return nil
	}
	core, err := corev1client.NewForConfig(cluster.Config)
	if err != nil {
		return inputError{fmt.Errorf("--kubeconfig: %w", err)}
	}
	name := d.o.nodeName
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return fmt.Errorf("--node-name: %w", err)
		}
	}
	var news node.History
	if history != nil {
		news = node.History{
			Read: records(history),
			Cursor: func() uint64 {
				c, _ := d.detector.Cursor(cursorNodeEvents)
				return c.Seq
			},
			SetCursor: func(at uint64) { d.detector.SetCursor(cursorNodeEvents, detector.Cursor{Seq: at}) },
		}
	}
	d.output = node.New(node.Options{
		Nodes: core.Nodes(), Events: core.Events("default"), NodeName: name, Config: conf.Node,
		PodEvents: func(namespace string) node.Events { return core.Events(namespace) },
		Fenced:    func() bool { return d.allocation != nil && d.allocation.slices.Fences() },
		Undecided: func() bool { return d.allocation != nil && d.allocation.slices.Undecided() },
		PluginChanged: func() {
			if d.allocation != nil {
				d.allocation.slices.Look()
			}
		},
		Submit: d.detector.Submit, History: news,
		Observe: func(call string, took time.Duration, err error) {
			d.exporter.ObserveCall("kubernetes", call, took, err)
		},
		Reconnect: cluster.Reconnect, Log: d.log.Named("node"), DryRun: d.o.dryRun,
	})
	d.told = fmt.Sprintf("node %s at %s", name, cluster.Config.Host)
	return d.allocate(cluster, conf, name)
}

// records reads what changed from the trail.
func records(history *trail.Trail) func(after uint64) iter.Seq2[node.Record, error] {
	return func(after uint64) iter.Seq2[node.Record, error] {
		if trail.Position(after) > history.Last() {
			after = 0 // this trail began after the other was lost
		}
		return func(yield func(node.Record, error) bool) {
			for record, err := range history.Read(trail.Position(after)) {
				r := node.Record{Position: uint64(record.Position)}
				if err == nil {
					var entry detector.Entry
					if entry, err = detector.DecodeEntry(record.Data); err == nil {
						r.Transitions = entry.Transitions
					}
				}
				if !yield(r, err) {
					return
				}
			}
		}
	}
}
