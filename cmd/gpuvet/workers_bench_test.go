package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

// An Xid that the driver raises, through its library, the worker and its pipe,
// the client and the fold, to the snapshot that has it. Nothing is saved.
func BenchmarkDriverEventToSnapshot(b *testing.B) {
	d, g := detecting(b)
	ctx, cancel := context.WithCancel(b.Context())
	var playing sync.WaitGroup
	defer playing.Wait()
	defer cancel()
	playing.Go(func() { _ = g.play(ctx) })
	inventory, err := g.valve.Inventory(ctx)
	if err != nil {
		b.Fatal(err)
	}
	pci := inventory.GPUs[0].PCI
	seen := func() uint64 {
		if gpu, ok := d.Snapshot().GPU(pci); ok {
			for _, x := range gpu.Xids {
				if x.Code == 31 {
					return x.Count
				}
			}
		}
		return 0
	}
	await := func(n uint64) bool {
		limit := time.Now().Add(patience)
		for seen() < n && time.Now().Before(limit) {
			time.Sleep(10 * time.Microsecond)
		}
		return seen() >= n
	}
	raise := func() {
		if err := g.scripted.Apply(fake.Step{GPU: 0, Do: fake.Xid{Code: 31}}); err != nil {
			b.Fatal(err)
		}
	}
	for limit := time.Now().Add(patience); seen() == 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(limit) {
			b.Fatal("no event arrives")
		}
		raise() // until somebody listens
	}
	time.Sleep(time.Second)
	var took []time.Duration
	for count := seen(); b.Loop(); count++ {
		began := time.Now()
		raise()
		if !await(count + 1) {
			b.Fatalf("Xid %d did not arrive", count+1)
		}
		took = append(took, time.Since(began))
		time.Sleep(time.Millisecond) // each finds the worker waiting, as in life
	}
	slices.Sort(took)
	at := func(share float64) float64 { return float64(took[int(share*float64(len(took)-1))].Microseconds()) }
	b.ReportMetric(at(0.5), "p50-µs")
	b.ReportMetric(at(0.99), "p99-µs")
}

// What asking eight GPUs once a second costs this process, which asks and folds,
// and its workers. The script stands still: playing it is no part of the daemon.
func TestMeasureWorkers(t *testing.T) {
	if os.Getenv("GPUVET_MEASURE") == "" {
		t.Skip("measures for a minute, and is no test: set GPUVET_MEASURE=all, as make measure does")
	}
	d, g := detecting(t)
	facts := detector.NewFacts(nvml.DefaultFreshness, d.Emit)
	sampler := nvml.NewSampler(g.valve, nvml.SamplerOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() { _ = sampler.Run(ctx, facts.Observe) })
	time.Sleep(10 * time.Second)
	workers := childrenOf(t, os.Getpid())
	if len(workers) != 2 {
		t.Fatalf("workers are %v, want two", workers)
	}
	const span = time.Minute
	before := map[int]time.Duration{}
	all3 := append(workers, os.Getpid())
	for _, pid := range all3 {
		before[pid] = cpuTime(t, pid)
	}
	time.Sleep(span)
	var sum float64
	for _, pid := range all3 {
		share := 100 * (cpuTime(t, pid) - before[pid]).Seconds() / span.Seconds()
		sum += share
		t.Logf("%s: %.2f %% of a core, RssAnon %d kB", nameOf(pid), share, rssAnon(t, pid))
		if kb := rssAnon(t, pid); pid != os.Getpid() && kb > 8<<10 {
			t.Errorf("RssAnon of a worker is %d kB, the budget is 8 MiB", kb)
		}
	}
	if sum > 1 {
		t.Errorf("together %.2f %% of a core, the budget is 1 %%", sum)
	}
}

// detecting is a detector that hears the driver's events through a worker, from
// eight GPUs.
func detecting(t testing.TB) (*detector.Detector, *gpus) {
	t.Helper()
	o := runOptions{nvmlLibrary: throughWorkers(t)[1], fakeNVML: "../../testdata/scenarios/8xh100.yaml", stateDir: t.TempDir()}
	script, err := loadScript(o)
	if err != nil {
		t.Fatal(err)
	}
	g, err := openGPUs(o, script, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	g.valve.Open()
	d := detector.New(detector.Config{Policy: detector.DefaultPolicy(), Boot: "boot", Log: zap.NewNop()})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx) })
	running.Go(func() { _ = detector.DriverEvents(ctx, g.valve, d.Submit, func(string) {}) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := g.close(); err != nil {
			t.Error(err)
		}
	})
	return d, g
}

func childrenOf(t testing.TB, pid int) []int {
	t.Helper()
	var all []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task) // a thread may have ended
		for field := range strings.FieldsSeq(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, child)
		}
	}
	return all
}

func nameOf(pid int) string {
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(name))
}

// cpuTime is what a process has used, in user and system mode.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	var total time.Duration
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // a thread has ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		total += time.Duration(ns)
	}
	return total
}
