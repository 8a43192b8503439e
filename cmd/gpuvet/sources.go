package main

import (
	"context"
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

// cursorKernelLog names the place in the kernel log among the saved ones.
const cursorKernelLog = "kmsg"

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
			retry(ctx, d.log, "kernel log is not read: faults that NVML does not tell are missed", 10*time.Second, d.readDevice)
			return nil
		})
	}
	return g.Wait()
}

func (d *daemon) readDevice(ctx context.Context) error {
	saved, _ := d.detector.Cursor(cursorKernelLog)
	reader, err := kmsg.Open(d.o.kernelLog, kmsg.Cursor{Boot: saved.Boot, Seq: saved.Seq})
	if err != nil {
		d.failing.Do(func() { close(d.unread) })
		return err
	}
	defer reader.Close()
	d.log.Info("reading the kernel log", zap.String("path", d.o.kernelLog))
	return d.kernel.Run(ctx, reader, d.detector.Emit, func(c kmsg.Cursor) {
		d.detector.SetCursor(cursorKernelLog, detector.Cursor{Boot: c.Boot, Seq: c.Seq})
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
