package fake

import (
	"math"
	"time"

	"gpuvet.dev/nvml"
)

// gpu is the state of one GPU. The driver's lock guards it.
type gpu struct {
	nvml.GPU
	model Model
	index int

	levels  map[Quantity]level
	joules  float64                            // up to metered
	metered time.Time                          // power was constant or on one ramp since then
	held    map[nvml.ClockReason]time.Duration // up to metered: for how long each reason held the clocks down

	lost, missing, unbound bool
	hang                   hang
	failing                failing

	recovery                  nvml.RecoveryAction
	ecc                       map[counter]uint64
	rows                      RowsRemapped
	remapPending, remapFailed bool

	detail Detail
}

// counter names one memory-error counter.
type counter struct {
	uncorrected, aggregate bool
	location               string
}

func newGPU(index int, s GPU, now time.Time) *gpu {
	g := &gpu{
		GPU: s.GPU, model: s.Model, index: index,
		levels: map[Quantity]level{}, metered: now,
		held: map[nvml.ClockReason]time.Duration{}, hang: newHang(), ecc: map[counter]uint64{}, detail: newDetail(s.Model),
	}
	g.detail.MIGPending = g.MIG.Value
	g.set(s.Start, now, 0)
	return g
}

// listed says whether the driver has the GPU, well or not.
func (g *gpu) listed() bool { return !g.missing && !g.unbound }

// set leads quantities to new values, at once if over is 0.
func (g *gpu) set(to Values, now time.Time, over time.Duration) {
	g.meter(now)
	for q, v := range to {
		before := g.levels[q]
		next := level{present: v.OK, from: v.Value, to: v.Value, start: now, over: over}
		if before.present {
			next.from = before.at(now)
		}
		g.levels[q] = next
	}
}

// meter adds up the energy of the time since it was last called, and for how
// long the clocks were held down in it.
func (g *gpu) meter(now time.Time) {
	g.joules += g.levels[Power].area(g.metered, now)
	for _, reason := range g.detail.Throttle.list() {
		g.held[reason] += now.Sub(g.metered)
	}
	g.metered = now
}

// reload puts back what a new driver finds in order.
func (g *gpu) reload(now time.Time) {
	g.lost, g.unbound, g.remapPending, g.recovery, g.failing = false, false, false, nvml.RecoverNone, failing{}
	for c := range g.ecc {
		if !c.aggregate {
			delete(g.ecc, c)
		}
	}
	if g.levels[PCIeReplays].present {
		g.set(Values{PCIeReplays: nvml.Some(0.0)}, now, 0)
	}
	g.joules, g.metered = 0, now
	clear(g.held)
	g.detail.Processes, g.detail.NVLinks, g.detail.PCIeErrors = nil, newDetail(g.model).NVLinks, PCIeErrors{}
	g.detail.ECCMode.Current = g.detail.ECCMode.Pending
	if g.MIG.OK && g.MIG.Value != g.detail.MIGPending {
		g.MIG.Value, g.Instances = g.detail.MIGPending, nil
	}
}

// level is a value on its way, in a straight line.
type level struct {
	present  bool
	from, to float64
	start    time.Time
	over     time.Duration
}

func (l level) at(t time.Time) float64 {
	gone := t.Sub(l.start)
	if gone >= l.over {
		return l.to
	}
	return l.from + (l.to-l.from)*float64(gone)/float64(l.over)
}

// area is the integral over the time from a to b, in seconds; a is not before
// the start.
func (l level) area(a, b time.Time) float64 {
	if !l.present {
		return 0
	}
	bend := l.start.Add(l.over)
	if bend.Before(a) {
		bend = a
	}
	if bend.After(b) {
		bend = b
	}
	return (l.at(a)+l.at(bend))/2*bend.Sub(a).Seconds() + l.to*b.Sub(bend).Seconds()
}

func (g *gpu) readings(now time.Time, age time.Duration) nvml.Readings {
	g.meter(now)
	value := func(q Quantity) nvml.Maybe[float64] {
		l := g.levels[q]
		if !l.present {
			return nvml.Maybe[float64]{}
		}
		return nvml.Some(l.at(now))
	}
	swing := 1 + value(Wave).Value*wave(g.index, age)
	r := nvml.Readings{
		Time:              now,
		Temperature:       value(Temperature),
		MemoryTemperature: value(MemoryTemperature),
		Power:             scaled(value(Power), swing, value(PowerLimit)),
		PowerLimit:        value(PowerLimit),
		Utilization:       scaled(value(Utilization), swing, nvml.Some(1.0)),
		MemoryUtilization: scaled(value(MemoryUtilization), swing, nvml.Some(1.0)),
		PCIeReplays:       whole(value(PCIeReplays)),
		MaxClocks:         map[string]float64{"graphics": g.model.SM, "sm": g.model.SM, "memory": g.model.Memory, "video": g.model.Video},
	}
	if g.MIG.Value { // NVML does not tell them of a GPU in MIG mode
		r.Utilization, r.MemoryUtilization = nvml.Maybe[float64]{}, nvml.Maybe[float64]{}
	}
	if r.Power.OK {
		r.Energy = nvml.Some(g.joules)
	}
	g.fillMemory(&r, value(MemoryUsed), value(MemoryReserved))
	// An idle GPU rests at a sixth of its clock; one that works runs near its
	// highest. HBM keeps its clock.
	share := 1.0 / 6
	if busy := value(Utilization).Value; busy > 0 {
		share = 0.92 + 0.08*min(1, busy)
	}
	r.Clocks = map[string]float64{
		"graphics": hertz(g.model.SM * share), "sm": hertz(g.model.SM * share),
		"memory": g.model.Memory, "video": hertz(g.model.Video * share),
	}
	return r
}

func (g *gpu) fillMemory(r *nvml.Readings, used, reserved nvml.Maybe[float64]) {
	if g.MemoryBytes == 0 {
		return
	}
	r.MemoryTotal = nvml.Some(g.MemoryBytes)
	r.MemoryReserved = whole(reserved)
	if !used.OK {
		return
	}
	usable := g.MemoryBytes - min(r.MemoryReserved.Value, g.MemoryBytes)
	r.MemoryUsed = nvml.Some(min(whole(used).Value, usable))
	r.MemoryFree = nvml.Some(usable - r.MemoryUsed.Value)
}

// wave swings between -1 and 1, differently for each GPU.
func wave(index int, age time.Duration) float64 {
	const goldenAngle = 2.399963 // keeps any number of phases apart
	phase, t := float64(index)*goldenAngle, 2*math.Pi*age.Seconds()
	return 0.7*math.Sin(t/47+phase) + 0.3*math.Sin(t/11+3*phase)
}

func scaled(v nvml.Maybe[float64], by float64, most nvml.Maybe[float64]) nvml.Maybe[float64] {
	if !v.OK {
		return v
	}
	v.Value *= by
	if most.OK {
		v.Value = min(v.Value, most.Value)
	}
	return v
}

func whole(v nvml.Maybe[float64]) nvml.Maybe[uint64] {
	return nvml.Maybe[uint64]{Value: uint64(max(0, v.Value)), OK: v.OK}
}

// hertz rounds to the 15 MHz in which clocks are set.
func hertz(f float64) float64 { return math.Round(f/15e6) * 15e6 }
