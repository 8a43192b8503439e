package detector

import (
	"fmt"
	"testing"
	"time"

	"gpuvet.dev/nvml"
)

func TestResetOfTheGPUEndsWhatCameBefore(t *testing.T) {
	reset := func(s *script, seconds float64, ago string) {
		s.gpu(seconds, gpuA, KindReset, map[string]string{"sign": "PCIe replays began anew", "ago": ago})
	}
	for _, tt := range []struct {
		name string
		play func(*script)
		want []string
	}{
		{"a reset", func(s *script) { reset(s, 20, "10s"); s.rest(50) }, []string{gpuA + " UncorrectableMemory cleared: GPU was reset"}},
		{"a reset, and not long after", func(s *script) { reset(s, 20, "10s"); s.rest(49) }, nil},
		{"that may have been before the fault", func(s *script) { reset(s, 20, "19s"); s.rest(3600) }, nil},
		{"the driver takes back that it asked for one", func(s *script) {
			s.gpu(10, gpuA, KindRecoveryAction, map[string]string{"action": "1"})
			s.gpu(20, gpuA, KindRecoveryAction, map[string]string{"action": "0"})
			s.rest(50)
		}, []string{
			gpuA + " ResetRequired raised: recovery action gpu-reset", gpuA + " ResetRequired cleared: the driver no longer says so",
			gpuA + " UncorrectableMemory cleared: GPU was reset",
		}},
		{"a reset that the fault has outlived", func(s *script) { reset(s, 20, "10s"); s.xid(30, gpuA, 95, "x"); s.rest(3600) }, nil},
		{"a reset, and a remap waits", func(s *script) {
			reset(s, 20, "10s")
			s.gpu(25, gpuA, KindRemapPending, map[string]string{"pending": "true"})
			s.rest(3600)
		}, []string{gpuA + " RowRemapPending raised: a row remap waits for a reset"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			s.driver(1, "a")
			s.xid(2, gpuA, 95, "Uncontained")
			s.told = nil
			tt.play(s)
			s.says(tt.want...)
		})
	}
}

func TestFaultThatTakesABootOutlastsAReloadAndAReset(t *testing.T) {
	for _, tt := range []struct {
		name, policy string
		code         int
		reason       Reason
	}{
		{"of the catalogue", "", 151, RebootRequired},
		{"of a user's row", `{"reason": "ResetRequired", "clear": "boot"}`, 119, ResetRequired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			s.takes(0.5, tt.policy)
			s.driver(1, "a")
			s.xid(2, gpuA, tt.code, "x")
			s.gpu(20, gpuA, KindReset, map[string]string{"sign": "PCIe replays began anew", "ago": "10s"})
			s.driver(100, "b")
			s.rest(3600)
			s.status(gpuA, Unhealthy)
			s.told = nil
			s.start(4000, "boot-2")
			s.driver(4001, "c")
			s.rest(4030)
			s.says()
			s.rest(4032)
			s.says(fmt.Sprintf("%s %s cleared: node was rebooted", gpuA, tt.reason))
		})
	}
}

// The driver's word that the node must be booted is a fact, and ends with it.
func TestDriverTakesBackThatItAskedForABoot(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.gpu(2, gpuA, KindRecoveryAction, map[string]string{"action": "2"})
	s.gpu(3, gpuA, KindRecoveryAction, map[string]string{"action": "0"})
	s.says(gpuA+" RebootRequired raised: recovery action node-reboot", gpuA+" RebootRequired cleared: the driver no longer says so")
}

// What a GPU has answered before it was lost is no evidence, however short the time
// that the policy has it be well.
func TestLostGPUMustAnswerAfterItWasLost(t *testing.T) {
	s := newScript(t)
	s.takes(0.5, `{"reason": "GPULost", "settle": "0s"}`)
	s.driver(1, "a")
	s.xid(2, gpuA, 79, "x")
	s.rest(31)
	s.says(gpuA + " GPULost raised: Xid 79")
	s.gpu(31.5, gpuA, KindGPULost, nil)
	s.rest(100)
	s.says()
	s.well(101, gpuA)
	s.says(gpuA + " GPULost cleared: it answers again")
}

func TestLinkFaultEndsByQuietUnlessTheDriverAsks(t *testing.T) {
	asks := func(s *script, seconds float64, action string) {
		s.gpu(seconds, gpuA, KindRecoveryAction, map[string]string{"action": action})
	}
	for _, tt := range []struct {
		name string
		play func(*script)
		want []string
	}{
		{"quiet", func(s *script) { s.rest(3602) }, []string{gpuA + " LinkFault cleared: quiet for 1h0m0s"}},
		{"not quiet for long enough", func(s *script) { s.xid(1800, gpuA, 74, "x"); s.rest(5399) }, nil},
		{"the GPU does not answer", func(s *script) { s.gpu(10, gpuA, KindStale, nil); s.rest(7200) }, nil},
		{
			"it answers again", func(s *script) { s.gpu(10, gpuA, KindStale, nil); s.gpu(7200, gpuA, KindFresh, nil) },
			[]string{gpuA + " LinkFault cleared: quiet for 1h0m0s"},
		},
		{"the driver asks", func(s *script) { asks(s, 10, "3"); s.rest(7200) }, nil},
		{
			"the driver asks, and then not", func(s *script) { asks(s, 10, "3"); asks(s, 7200, "0") },
			[]string{gpuA + " LinkFault cleared: quiet for 1h0m0s"},
		},
		{"a reload", func(s *script) { s.driver(10, "b"); s.rest(40) }, []string{gpuA + " LinkFault cleared: driver was loaded again"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			s.driver(1, "a")
			s.xid(2, gpuA, 74, "x")
			s.told = nil
			tt.play(s)
			s.says(tt.want...)
		})
	}
}

func TestFactsTellOfAReset(t *testing.T) {
	health := func(replays uint64, held time.Duration, waits bool) *nvml.Health {
		return &nvml.Health{
			PCIe:            nvml.PCIe{Replays: nvml.Some(replays)},
			ClockTimes:      map[nvml.ClockReason]time.Duration{nvml.ClockPowerCap: held},
			RowRemapPending: nvml.Some(waits),
		}
	}
	absent := &nvml.Health{}
	for _, tt := range []struct {
		name   string
		first  *nvml.Health
		second *nvml.Health
		load   string
		want   string
	}{
		{"counters go on", health(3, time.Second, false), health(4, time.Minute, false), "a", ""},
		{"a counter began anew", health(3, time.Second, false), health(0, time.Second, false), "a", "PCIe replays began anew"},
		{"a time began anew", health(3, time.Minute, false), health(3, time.Second, false), "a", "time of sw-power-cap began anew"},
		{"a remap that waited is done", health(3, 0, true), health(3, 0, false), "a", "what waited for a reset is done"},
		{"nothing is told any more", health(3, time.Minute, true), absent, "a", ""},
		{"the driver was loaded again", health(3, time.Minute, true), health(0, 0, false), "b", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []Event
			facts := NewFacts(nvml.DefaultFreshness, func(e Event) {
				if e.Kind == KindReset {
					got = append(got, e)
				}
			})
			gpus := []nvml.GPU{{PCI: gpuA, UUID: "GPU-1"}}
			facts.Observe(nvml.Observation{Time: at(0), Inventory: &nvml.Inventory{Load: "a", GPUs: gpus}})
			facts.Observe(nvml.Observation{Time: at(0), PCI: gpuA, Health: tt.first})
			facts.Observe(nvml.Observation{Time: at(10), Inventory: &nvml.Inventory{Load: tt.load, GPUs: gpus}})
			facts.Observe(nvml.Observation{Time: at(10), PCI: gpuA, Health: tt.second})
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("told: %+v", got)
			case tt.want != "" && (len(got) != 1 || got[0].Fields["sign"] != tt.want || got[0].Fields["ago"] != "10s"):
				t.Errorf("told %+v, want %s, 10s ago", got, tt.want)
			}
		})
	}
}
