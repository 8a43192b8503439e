package exporter

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

// TestScriptedGPUIsShownFromLossToReturn runs the real sampler, sources and
// detector over a scripted driver, and looks at the metrics alone.
func TestScriptedGPUIsShownFromLossToReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scenario, err := fake.Node("h100", 8)
		if err != nil {
			t.Fatal(err)
		}
		driver := fake.New(scenario)
		sampler := nvml.NewSampler(driver, nvml.SamplerOptions{})
		policy := detector.DefaultPolicy()
		d := detector.New(detector.Config{Policy: policy, Boot: "b1"})
		d.Emit(detector.Event{Source: detector.SourceDaemon, Kind: detector.KindBoot})
		facts := detector.NewFacts(30*time.Second, d.Emit)
		log := detector.NewKernelLog()

		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		running.Go(func() { _ = sampler.Run(ctx, facts.Observe) })
		running.Go(func() { _ = d.Run(ctx) })
		running.Go(func() { _ = log.Lines(ctx, "b1", driver.KernelLines, d.Emit) })
		e := testExporter{New(Sources{Policy: d.Policy, Snapshot: d.Snapshot, Sample: sampler.Latest, KernelLog: log, Kept: d.Kept})}

		type counts struct{ Up, Temperatures, Lost, Xid79, XidSeries, Infos int }
		look := func() counts {
			families := e.ours(t)
			var c counts
			for _, m := range gpuUp.of(families) {
				c.Up += int(m.GetGauge().GetValue())
			}
			for _, m := range gpuTemperature.of(families) {
				if label(m, "sensor") == "core" {
					c.Temperatures++
				}
			}
			for _, m := range gpuCondition.of(families) {
				if label(m, "reason") == string(detector.GPULost) {
					c.Lost++
				}
			}
			for _, m := range gpuXidErrors.of(families) {
				if label(m, "xid") == "79" {
					c.XidSeries++
					c.Xid79 += int(m.GetCounter().GetValue())
				}
			}
			c.Infos = len(gpuInfo.of(families))
			return c
		}
		step := func(do fake.Action) {
			if err := driver.Apply(fake.Step{GPU: 3, Do: do}); err != nil {
				t.Fatal(err)
			}
		}
		expect := func(when string, want counts) {
			t.Helper()
			if diff := cmp.Diff(want, look()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", when, diff)
			}
		}

		time.Sleep(15 * time.Second)
		expect("at first", counts{Up: 8, Temperatures: 8, XidSeries: 8, Infos: 8})

		step(fake.Xid{Code: 79})
		step(fake.Lost(true))
		time.Sleep(1500 * time.Millisecond)
		expect("after the loss", counts{Up: 7, Temperatures: 7, Lost: 1, Xid79: 1, XidSeries: 8, Infos: 8})

		step(fake.Hang(time.Minute))
		time.Sleep(45 * time.Second)
		expect("while it hangs", counts{Up: 7, Temperatures: 7, Lost: 1, Xid79: 1, XidSeries: 8, Infos: 8})

		step(fake.Lost(false))
		time.Sleep(time.Minute)
		expect("when it is back, not reset", counts{Up: 8, Temperatures: 8, Lost: 1, Xid79: 1, XidSeries: 8, Infos: 8})
	})
}
