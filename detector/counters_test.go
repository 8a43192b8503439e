package detector

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml"
)

// counting are polls of one GPU under a loading of the driver, each with the answer
// that it gives; what the source emits of counters is kept as "seconds kind: text".
type counting struct {
	t     *testing.T
	facts *Facts
	load  string
	signs []string
}

func newCounting(t *testing.T) *counting {
	t.Helper()
	c := &counting{t: t, load: "a"}
	c.facts = NewFacts(nvml.DefaultFreshness, func(e Event) {
		switch e.Kind {
		case KindCorrected, KindUncorrected, KindPCIeErrors, KindPCIe, KindLink:
			c.signs = append(c.signs, fmt.Sprintf("%g %s: %s", e.Time.Sub(beginning).Seconds(), e.Kind, e.Fields["text"]))
		}
	})
	return c
}

func (c *counting) poll(seconds float64, h nvml.Health) {
	now := at(seconds)
	c.facts.Observe(nvml.Observation{Time: now, Inventory: &nvml.Inventory{Load: c.load, GPUs: []nvml.GPU{{PCI: gpuA, UUID: "GPU-1"}}}})
	c.facts.Observe(nvml.Observation{Time: now, PCI: gpuA, Health: &h})
}

func (c *counting) tells(want ...string) {
	c.t.Helper()
	if diff := cmp.Diff(want, c.signs); diff != "" {
		c.t.Errorf("signs (-want +got):\n%s", diff)
	}
	c.signs = nil
}

func corrected(n uint64) nvml.Health {
	return nvml.Health{ECC: []nvml.ECCCount{{Location: "dram", Count: n}}}
}

func uncorrected(n uint64) nvml.Health {
	return nvml.Health{ECC: []nvml.ECCCount{{Uncorrected: true, Location: "dram", Count: n}}}
}

func TestFirstCountAndLifetimeCountSayNothing(t *testing.T) {
	c := newCounting(t)
	c.poll(10, uncorrected(1000))
	for _, count := range []uint64{1, 1_000_000} {
		c.poll(20+float64(count), nvml.Health{ECC: []nvml.ECCCount{
			{Uncorrected: true, Location: "dram", Count: 1000},
			{Uncorrected: true, Aggregate: true, Location: "dram", Count: count},
			{Aggregate: true, Location: "dram", Count: count},
		}})
	}
	c.tells()
}

func TestCounterThatBeganAnewSaysNothing(t *testing.T) {
	c := newCounting(t)
	c.poll(10, uncorrected(5))
	c.load = "b" // and counts from zero on, past where it was
	c.poll(20, uncorrected(9))
	c.tells()
	c.poll(30, uncorrected(2)) // the GPU was reset
	c.tells()
	c.poll(40, uncorrected(3))
	c.tells("40 UncorrectedErrors: 1 more uncorrected errors in dram within 10s")
}

// A place that could not be read once is no error when it is read again.
func TestCountThatIsAbsentForAWhileIsKept(t *testing.T) {
	c := newCounting(t)
	c.poll(10, uncorrected(5))
	c.poll(20, nvml.Health{ECC: []nvml.ECCCount{{Uncorrected: true, Location: "sram", Count: 0}}})
	c.poll(30, uncorrected(5))
	c.tells()
	c.poll(40, nvml.Health{})
	c.poll(50, uncorrected(6))
	c.tells("50 UncorrectedErrors: 1 more uncorrected errors in dram within 40s")
}

func TestAnotherGPUBeginsItsOwnCounts(t *testing.T) {
	c := newCounting(t)
	c.poll(10, uncorrected(5))
	now, h := at(20), uncorrected(9)
	c.facts.Observe(nvml.Observation{Time: now, Inventory: &nvml.Inventory{Load: "a", GPUs: []nvml.GPU{{PCI: gpuA, UUID: "GPU-2"}}}})
	c.facts.Observe(nvml.Observation{Time: now, PCI: gpuA, Health: &h})
	c.tells()
}

func TestCorrectedErrorsAreJudgedByTheirRate(t *testing.T) {
	c := newCounting(t)
	count := uint64(0)
	for i := range 360 { // 9 a minute, for an hour
		count += uint64(i % 2 * 3)
		c.poll(10*float64(i), corrected(count))
	}
	c.tells()
	c.poll(3610, corrected(count+101))
	if len(c.signs) != 1 {
		t.Errorf("signs: %q, want one", c.signs)
	}
	c.signs = nil
	for i := range 18 { // a thousand a second, for three minutes: a sign a minute
		count += 10_000
		c.poll(3620+10*float64(i), corrected(count))
	}
	if len(c.signs) != 3 {
		t.Errorf("signs: %q, want three", c.signs)
	}
}

// An increase within signGap of the sign before is told when that is over.
func TestNoErrorIsLostBetweenTwoSigns(t *testing.T) {
	c := newCounting(t)
	c.poll(0, uncorrected(0))
	c.poll(10, uncorrected(1))
	for i := range 6 {
		c.poll(20+10*float64(i), uncorrected(4))
	}
	c.tells("10 UncorrectedErrors: 1 more uncorrected errors in dram within 10s", "70 UncorrectedErrors: 3 more uncorrected errors in dram within 1m0s")
}

func TestPCIeErrorsAreJudgedByWhatTheLinkMayHave(t *testing.T) {
	for _, tt := range []struct {
		name string
		link nvml.PCIe
		want uint64
	}{
		{"generation 5, 16 lanes", nvml.PCIe{GenerationMax: nvml.Some(5), Width: nvml.Some(16)}, 307},
		{"generation 1, one lane", nvml.PCIe{GenerationMax: nvml.Some(1), Width: nvml.Some(1)}, 1},
		{"one that is newer than the table", nvml.PCIe{GenerationMax: nvml.Some(7), Width: nvml.Some(1)}, 38},
		{"unknown", nvml.PCIe{Width: nvml.Some(16)}, 80},
	} {
		if got := busLimit(tt.link); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	errors := func(change func(*nvml.PCIe)) nvml.Health {
		h := nvml.Health{PCIe: nvml.PCIe{GenerationMax: nvml.Some(5), Width: nvml.Some(16)}}
		change(&h.PCIe)
		return h
	}
	c := newCounting(t)
	for i, n := range []uint64{0, 307, 308} {
		c.poll(10*float64(i), errors(func(p *nvml.PCIe) { p.CorrectableErrors = nvml.Some(n) }))
	}
	c.tells("20 PCIeErrors: 308 more corrected PCIe errors within 20s")
	c = newCounting(t)
	for i, n := range []uint64{0, 400} { // where these are all that is counted
		c.poll(10*float64(i), errors(func(p *nvml.PCIe) { p.Replays = nvml.Some(n) }))
	}
	c.tells("10 PCIeErrors: 400 more corrected PCIe errors within 10s")
	c = newCounting(t)
	for i, n := range []uint64{0, 1} {
		c.poll(10*float64(i), errors(func(p *nvml.PCIe) { p.NonFatalErrors, p.FatalErrors = nvml.Some(n), nvml.Some(n) }))
	}
	c.tells("10 PCIeErrors: 1 more non-fatal PCIe errors within 10s", "10 PCIeError: 1 more fatal PCIe errors within 10s")
	c = newCounting(t)
	for i, n := range []uint64{0, 1_000_000} { // any process can have the bus asked in vain
		c.poll(10*float64(i), errors(func(p *nvml.PCIe) { p.UnsupportedRequests = nvml.Some(n) }))
	}
	c.tells()
}

func TestNVLinkCountersAreJudged(t *testing.T) {
	for _, tt := range []struct {
		name  string
		count func(*nvml.NVLink, nvml.Maybe[uint64])
		more  uint64 // that is just not told
		want  string
	}{
		{"flit CRC", func(l *nvml.NVLink, n nvml.Maybe[uint64]) { l.CRCFlitErrors = n }, 60_000, "60001 more flit CRC errors of link 3 within 10s"},
		{"data CRC", func(l *nvml.NVLink, n nvml.Maybe[uint64]) { l.CRCDataErrors = n }, 60_000, "60001 more data CRC errors of link 3 within 10s"},
		{"effective", func(l *nvml.NVLink, n nvml.Maybe[uint64]) { l.EffectiveErrors = n }, 60_000, "60001 more effective errors of link 3 within 10s"},
		{"receive", func(l *nvml.NVLink, n nvml.Maybe[uint64]) { l.ReceiveErrors = n }, 10, "11 more receive errors of link 3 within 10s"},
		{"discards", func(l *nvml.NVLink, n nvml.Maybe[uint64]) { l.TransmitDiscards = n }, 100, "101 more discarded packets of link 3 within 10s"},
		{"replays", func(l *nvml.NVLink, n nvml.Maybe[uint64]) { l.Replays = n }, 0, "link 3: errors beyond a threshold, a replay or a recovery"},
		{"recoveries that succeed", func(l *nvml.NVLink, n nvml.Maybe[uint64]) { l.RecoveriesGood = n }, 0, "link 3: errors beyond a threshold, a replay or a recovery"},
		{"symbol errors, which are corrected", func(l *nvml.NVLink, n nvml.Maybe[uint64]) { l.SymbolErrors = n }, 1 << 40, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			link := func(n uint64) nvml.Health {
				l := nvml.NVLink{Number: 3, State: nvml.NVLinkActive}
				tt.count(&l, nvml.Some(n))
				return nvml.Health{NVLinks: []nvml.NVLink{l}}
			}
			c := newCounting(t)
			c.poll(0, link(7))
			c.poll(10, link(7+tt.more))
			c.tells()
			c = newCounting(t)
			c.poll(0, link(7))
			c.poll(10, link(7+tt.more+1))
			if tt.want == "" {
				c.tells()
				return
			}
			c.tells("10 LinkError: " + tt.want)
		})
	}
}

// sign has NVML tell of a counter.
func (s *script) sign(seconds float64, pci string, kind Kind, ago time.Duration) {
	s.t.Helper()
	s.gpu(seconds, pci, kind, map[string]string{"text": "3 more", "ago": ago.String()})
}

func TestCountersShowAndNeverFence(t *testing.T) {
	for _, tt := range []struct {
		kind  Kind
		signs int
		want  string
	}{
		{KindCorrected, 3, "CorrectedErrors raised: many corrected memory errors"},
		{KindPCIeErrors, 3, "PCIeErrors raised: PCIe errors"},
		{KindUncorrected, 1, "UncorrectedErrors raised: uncorrected memory errors"},
	} {
		s := newScript(t)
		s.driver(1, "a")
		for i := range 20 {
			if i == tt.signs-1 {
				s.says()
			}
			s.sign(float64(10+600*i), gpuA, tt.kind, 10*time.Second)
		}
		s.says(gpuA + " " + tt.want)
		s.status(gpuA, Degraded)
		s.rest(10 + 600*19 + 3601)
		s.status(gpuA, Healthy)
		s.sign(20_000, "0000:99:00.0", tt.kind, time.Second)
		if _, made := s.state.gpu("0000:99:00.0"); made {
			t.Errorf("%s has made up a GPU", tt.kind)
		}
	}
}

func TestCounterOfUncorrectedErrorsTellsNoFaultTwice(t *testing.T) {
	for name, code := range map[string]int{"contained": 94, "uncontained": 95, "double-bit": 48} {
		s := newScript(t)
		s.driver(1, "a")
		s.xid(10, gpuA, code, "x")
		s.sign(15, gpuA, KindUncorrected, 10*time.Second)
		if len(s.told) != 1 {
			t.Errorf("%s, then counted: %q", name, s.told)
		}

		s = newScript(t)
		s.driver(1, "a")
		s.sign(10, gpuA, KindUncorrected, 10*time.Second)
		s.xid(11, gpuA, code, "x")
		if g, _ := view(s.state).GPU(gpuA); len(g.Conditions) != 1 || len(s.told) != 3 {
			t.Errorf("counted, then %s: %q", name, s.told)
		}
	}

	// An error that no Xid of the time explains is one of its own.
	s := newScript(t)
	s.driver(1, "a")
	s.xid(10, gpuA, 94, "x")
	s.sign(100, gpuA, KindUncorrected, 10*time.Second)
	s.says(gpuA+" ContainedMemoryError raised: Xid 94", gpuA+" UncorrectedErrors raised: uncorrected memory errors")

	// A GPU that is fenced for its memory has more of the same.
	s = newScript(t)
	s.driver(1, "a")
	s.xid(10, gpuA, 48, "x")
	s.sign(1000, gpuA, KindUncorrected, 10*time.Second)
	s.says(gpuA + " UncorrectableMemory raised: Xid 48")
}

func TestPCIeErrorsBeforeALossAreItsSymptom(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	for i := range 3 {
		s.sign(float64(10+10*i), gpuA, KindPCIeErrors, 10*time.Second)
	}
	s.xid(40, gpuA, 79, "GPU has fallen off the bus.")
	if g, _ := view(s.state).GPU(gpuA); len(g.Conditions) != 1 || g.Conditions[0].Reason != GPULost {
		t.Errorf("conditions: %+v", g.Conditions)
	}
}
