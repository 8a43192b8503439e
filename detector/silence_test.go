package detector

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

var failing = map[string]string{"ago": "40s", "cause": "unknown error"}

func TestSilenceOfAGPUIsNotedWithItsEnd(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.wants()
	s.gpu(60, gpuA, KindUnresponsive, nil)
	s.gpu(105, gpuA, KindResponsive, nil)
	s.gpu(105, gpuA, KindFresh, nil)
	s.gpu(200, gpuB, KindStale, failing)
	s.gpu(201, gpuB, KindStale, failing)
	s.gpu(210, gpuB, KindFresh, nil)
	s.wants("GPUSilent: driver calls do not return", "GPUAnswers: silent for 45s", "GPUSilent: no answer for 40s: unknown error", "GPUAnswers: silent for 50s")
	s.says()
	for _, recent := range s.state.Recent {
		if recent.PCI != "" {
			t.Errorf("%s displaces what happened", recent.Condition)
		}
	}
}

func TestSilenceThatPeopleKnowWhyIsNotNoted(t *testing.T) {
	for name, why := range map[string]func(s *script){
		"before its first answer": func(s *script) { s.driver(2, "b"); s.start(3, "boot-1") },
		"not asked":               func(s *script) { s.gpu(9, gpuA, KindStale, nil) },
		"paused":                  func(s *script) { s.pause(9, byAlice) },
		"lost, by the kernel log": func(s *script) { s.xid(9, gpuA, 79, "GPU has fallen off the bus.") },
		"lost, by NVML":           func(s *script) { s.gpu(9, gpuA, KindGPULost, nil) },
		"missing":                 func(s *script) { s.gpu(9, gpuA, KindGPUMissing, nil) },
		"no driver": func(s *script) {
			s.fold(Event{Source: SourceState, Kind: KindDriverMissing, Time: at(9), Fields: map[string]string{"cause": "not loaded"}})
		},
		"driver stuck": func(s *script) { s.fold(Event{Source: SourceState, Kind: KindDriverStuck, Time: at(9)}) },
		"loaded again": func(s *script) {
			s.fold(Event{Source: SourceState, Kind: KindDriverLoaded, Time: at(9), Fields: map[string]string{"version": "570.195.03", "load": "b"}})
		},
	} {
		for _, kind := range []Kind{KindUnresponsive, KindStale} {
			t.Run(name+" "+string(kind), func(t *testing.T) {
				s := newScript(t)
				s.driver(1, "a")
				why(s)
				s.gpu(10, gpuA, kind, failing)
				s.gpu(11, gpuA, KindFresh, nil)
				if i := slices.IndexFunc(s.noted, func(n string) bool { return strings.HasPrefix(n, "GPU") }); i >= 0 {
					t.Errorf("noted %q", s.noted[i])
				}
			})
		}
	}
}

// The daemon may be another one by then, and the GPU lost in between; a boot ends it all.
func TestSilenceThatWasNotedEndsOnce(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.gpu(10, gpuA, KindUnresponsive, nil)
	s.gpu(10, gpuB, KindUnresponsive, nil)
	s.start(20, "boot-1")
	s.gpu(30, gpuA, KindGPULost, nil)
	s.gpu(40, gpuA, KindGPUBack, nil)
	s.gpu(40, gpuA, KindFresh, nil)
	s.gpu(41, gpuA, KindFresh, nil)
	s.wants("GPUSilent: driver calls do not return", "GPUSilent: driver calls do not return", "GPUAnswers: silent for 30s")
	s.start(200, "boot-2")
	s.driver(201, "a")
	s.wants()
}

func TestSilenceIsInTheLogWithItsGPU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		d, _ := running(t, Config{Log: zap.New(core)})
		for _, e := range []Event{
			{Kind: KindGPUFound, GPU: Device{PCI: gpuB, UUID: "GPU-b"}, Fields: map[string]string{"index": "1"}},
			{Kind: KindFresh},
			{Kind: KindUnresponsive},
			{Kind: KindResponsive},
			{Kind: KindFresh},
		} {
			e.Source, e.GPU.PCI = SourceState, gpuB
			d.Emit(e)
			after(time.Second)
		}
		var got []string
		for _, l := range logs.All() {
			fields := zapcore.NewMapObjectEncoder()
			for _, f := range l.Context {
				f.AddTo(fields)
			}
			f := fields.Fields
			got = append(got, fmt.Sprint(l.Message, ": ", f["gpu"], " ", f["pci"], " ", f["uuid"], ", ", f["what"], ": ", f["cause"]))
		}
		want := []string{
			"GPU does not answer: 1 " + gpuB + " GPU-b, GPUSilent: driver calls do not return",
			"GPU answers again: 1 " + gpuB + " GPU-b, GPUAnswers: silent for 2s",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// A daemon that was itself stopped for a while has asked nobody, and no GPU was silent.
func TestAnswerThatNobodyAskedForIsNotMissed(t *testing.T) {
	scenario, err := fake.Node("h100", 2)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	f := NewFacts(nvml.DefaultFreshness, func(e Event) {
		if e.Kind == KindStale {
			told = append(told, fmt.Sprint(e.GPU.PCI, " ", e.Fields["ago"], " ", e.Fields["cause"]))
		}
	})
	gpus := []nvml.GPU{{PCI: scenario.GPUs[0].PCI}, {PCI: scenario.GPUs[1].PCI}}
	poll := func(seconds float64, gpu int, err error) {
		o := nvml.Observation{Time: at(seconds), PCI: gpus[gpu].PCI, Err: err}
		if err == nil {
			o.Health = &nvml.Health{}
		}
		f.Observe(o)
	}
	f.Observe(nvml.Observation{Time: at(0), Inventory: &nvml.Inventory{Load: "a", GPUs: gpus}})
	poll(1, 0, nil)
	poll(1, 1, nil)
	poll(600, 0, nil)
	poll(600, 1, nil)
	poll(610, 1, nvml.ErrNotFound)
	poll(620, 0, nil)
	poll(631, 1, nvml.ErrNotFound)
	want := []string{gpus[1].PCI + "  ", gpus[1].PCI + " 31s " + nvml.ErrNotFound.Error()}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
