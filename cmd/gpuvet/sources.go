package main

import (
	"context"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"gpuvet.dev/detector"
	"gpuvet.dev/detector/kmsg"
	"gpuvet.dev/nvml"
)

// backlogLimit is how long the first look at the GPUs waits for what the
// kernel log holds already: what NVML says then is newer than all of that.
const backlogLimit = 10 * time.Second

// The places in the kernel log and in the journal among the saved ones. The two
// count differently, so each has its own.
const (
	cursorKernelLog = "kmsg"
	cursorJournal   = "journal"
)

// journalPath is the --kernel-log that stands for systemd's journal; behind a
// colon, the folder that it is in.
const journalPath = "journal"

// journalOf is the folder of the journal that a --kernel-log names: empty for the
// machine's own.
func journalOf(path string) (dir string, ok bool) {
	name, dir, _ := strings.Cut(path, ":")
	return dir, name == journalPath
}

func checkKernelLog(path string) error {
	if _, ok := journalOf(path); ok && errNoJournal != nil {
		return badInput("--kernel-log %s: %w", path, errNoJournal)
	}
	return nil
}

// recordReader is what the records of the kernel are read from.
type recordReader interface {
	Boot() string
	Run(ctx context.Context, h kmsg.Handler) error
	Close() error
}

// readKernelLog reads the kernel's own log, the script's, or both.
func (d *daemon) readKernelLog(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if d.gpus.scripted != nil {
		script := d.kernel
		if d.o.acceptUserLines {
			script = detector.NewKernelLog()
		}
		g.Go(func() error { return script.Lines(ctx, d.boot, d.gpus.scripted.KernelLines, d.detector.Emit) })
	}
	if d.gpus.scripted == nil || d.o.acceptUserLines {
		g.Go(func() error {
			retry(ctx, d.log, "kernel log is not read: faults that NVML does not tell are missed", d.readDevice)
			return nil
		})
	}
	return g.Wait()
}

// readDevice reads the kernel's log device, or the journal.
func (d *daemon) readDevice(ctx context.Context) error {
	place, open := cursorKernelLog, func(after kmsg.Cursor) (recordReader, error) { return kmsg.Open(d.o.kernelLog, after) }
	if dir, ok := journalOf(d.o.kernelLog); ok {
		place, open = cursorJournal, func(after kmsg.Cursor) (recordReader, error) { return openJournal(dir, after) }
		d.kernel.Series = cursorJournal
	}
	saved, _ := d.detector.Cursor(place)
	reader, err := open(kmsg.Cursor{Boot: saved.Boot, Seq: saved.Seq})
	if err != nil {
		d.failing.Do(func() { close(d.unread) })
		return err
	}
	defer reader.Close()
	d.log.Info("reading the kernel log", zap.String("path", d.o.kernelLog))
	return d.kernel.Run(ctx, reader, d.detector.Emit, func(c kmsg.Cursor) {
		d.detector.SetCursor(place, detector.Cursor{Boot: c.Boot, Seq: c.Seq})
	})
}

// watchGPUs asks NVML about every GPU, once the kernel log's past is known.
func (d *daemon) watchGPUs(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.kernel.CaughtUp():
	case <-d.unread:
	case <-time.After(backlogLimit):
		d.log.Warn("kernel log has not caught up; GPUs are asked without it", zap.Duration("after", backlogLimit))
	}
	facts := detector.NewFacts(nvml.DefaultFreshness, d.detector.Emit)
	policy := d.detector.Policy()
	observe := func(o nvml.Observation) {
		if p := d.detector.Policy(); p != policy {
			if p.Unhides(policy) {
				facts.Forget()
			}
			policy = p
		}
		facts.Observe(o)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.sampler.Run(ctx, observe) })
	g.Go(func() error {
		return detector.DriverEvents(ctx, d.gpus.valve, d.detector.Submit, d.sampler.Refresh)
	})
	return g.Wait()
}
