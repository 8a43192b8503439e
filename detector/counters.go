package detector

import (
	"fmt"
	"slices"
	"time"

	"gpuvet.dev/nvml"
)

const (
	// rateSpan is the time within which a counter may grow by its limit.
	rateSpan = 10 * time.Minute
	// signGap is the least time between two signs of one counter.
	signGap = time.Minute
)

// What a counter may grow by within rateSpan.
const (
	// correctedLimit: DCGM warns of more than 10 corrected errors a minute
	// (DCGM_LIMIT_MAX_SBE_RATE, of which it says that it is provisional).
	correctedLimit = 100
	// replayLimit is for a PCIe link of unknown speed: 8 a minute
	// (DCGM_LIMIT_MAX_PCIREPLAY_RATE, "the maximum recommended").
	replayLimit = 80
	// crcLimit: errors of a checksum "only matter at rates of 100+ per second"
	// (DCGM_LIMIT_MAX_LWLINK_CRC_ERROR).
	crcLimit = 60_000
	// receiveLimit and discardLimit are those of infiniband-diags for the counters of
	// the same names, PortRcvErrors and PortXmitDiscards.
	receiveLimit, discardLimit = 10, 100
)

// replayRates are the errors a minute that a lane of a PCIe link may have, by its
// generation from the first on: one bit in 10^12 (DCGM's health watch of PCIe).
var replayRates = [...]float64{0.15, 0.3, 0.48, 0.96, 1.92, 3.84}

// busLimit is how many errors the link to the node may have corrected. It counts
// what the link can do: an idle GPU lets the generation fall.
func busLimit(p nvml.PCIe) uint64 {
	generation, width := p.GenerationMax, p.Width
	if !generation.OK || !width.OK || generation.Value < 1 {
		return replayLimit
	}
	rate := replayRates[min(generation.Value, len(replayRates))-1]
	return uint64(rate * float64(width.Value) * rateSpan.Minutes())
}

// counter is a number that grows from the loading of the driver or the GPU's reset
// on, and how its growth is judged. What is counted over the life of the GPU says
// nothing about today, and has none.
type counter struct {
	name  string // what it counts, in words
	count nvml.Maybe[uint64]
	limit uint64 // within rateSpan; zero: it may not grow
	kind  Kind   // of the sign
}

func countersOf(h *nvml.Health) []counter {
	var all []counter
	for _, c := range h.ECC {
		switch count := nvml.Some(c.Count); {
		case c.Aggregate:
		case c.Uncorrected:
			all = append(all, counter{"uncorrected errors in " + c.Location, count, 0, KindUncorrected})
		default:
			all = append(all, counter{"corrected errors in " + c.Location, count, correctedLimit, KindCorrected})
		}
	}
	corrected := h.PCIe.CorrectableErrors
	if !corrected.OK {
		corrected = h.PCIe.Replays
	}
	all = append(
		all,
		counter{"corrected PCIe errors", corrected, busLimit(h.PCIe), KindPCIeErrors},
		counter{"non-fatal PCIe errors", h.PCIe.NonFatalErrors, 0, KindPCIeErrors},
		counter{"fatal PCIe errors", h.PCIe.FatalErrors, 0, KindPCIe},
	)
	for _, l := range h.NVLinks {
		of := func(name string, count nvml.Maybe[uint64], limit uint64) {
			all = append(all, counter{fmt.Sprintf("%s of link %d", name, l.Number), count, limit, KindLink})
		}
		of("flit CRC errors", l.CRCFlitErrors, crcLimit)
		of("data CRC errors", l.CRCDataErrors, crcLimit)
		of("receive errors", l.ReceiveErrors, receiveLimit)
		of("discarded packets", l.TransmitDiscards, discardLimit)
		// Past error correction they are what CRC errors were before NVLink 5. Symbol
		// errors, before it, are what it is for.
		of("effective errors", l.EffectiveErrors, crcLimit)
	}
	return all
}

// growth is what is known of the counters of one GPU.
type growth struct {
	load string
	at   time.Time // of the answer before
	of   map[string]grown
}

// grown is how a counter stands.
type grown struct {
	last   uint64    // in the answer that had it last
	seen   time.Time // when that was
	base   uint64    // from which it is judged
	since  time.Time // when it stood there
	signed time.Time // when it was a sign; zero: never
}

// then gives how a counter stands with another count, and by how much it has grown
// if that is a sign.
func (g grown) then(c counter, at time.Time) (is grown, more uint64, span time.Duration) {
	count := c.count.Value
	switch {
	case g.seen.IsZero(), count < g.last: // it began anew
		return grown{last: count, seen: at, base: count, since: at, signed: g.signed}, 0, 0
	case at.Sub(g.since) > rateSpan:
		g.base, g.since = g.last, g.seen
	}
	g.last, g.seen = count, at
	more, span = count-g.base, at.Sub(g.since)
	if more <= c.limit || !g.signed.IsZero() && at.Sub(g.signed) < signGap {
		return g, 0, 0
	}
	g.base, g.since, g.signed = count, at, at
	return g, more, span
}

// counters tells which of them have grown too much.
func (f *Facts) counters(g *told, o nvml.Observation) {
	was := g.growth
	if was.load != f.load {
		was = growth{}
	}
	if was.of == nil {
		was.of = map[string]grown{}
	}
	is := growth{load: f.load, at: o.Time, of: was.of}
	for _, c := range countersOf(o.Health) {
		if !c.count.OK {
			continue // what was known of it is kept
		}
		now, more, span := was.of[c.name].then(c, o.Time)
		is.of[c.name] = now
		if more == 0 {
			continue
		}
		e := Event{
			Source: SourceState, Kind: c.kind, Time: o.Time, GPU: Device{PCI: g.gpu.PCI, UUID: g.gpu.UUID},
			Fields: map[string]string{"text": fmt.Sprintf("%d more %s within %s", more, c.name, span.Round(time.Second))},
		}
		switch c.kind {
		case KindPCIe:
			e.Fields["severity"] = "Fatal"
		case KindUncorrected:
			e.Fields["ago"] = o.Time.Sub(was.at).String()
		}
		f.emit(e)
	}
	g.growth = is
}

// countedFaults are the faults that counters tell of, each with its words.
var countedFaults = map[Kind]struct {
	reason Reason
	cause  string
}{
	KindCorrected:   {CorrectedErrors, "many corrected memory errors"},
	KindUncorrected: {UncorrectedErrors, "uncorrected memory errors"},
	KindPCIeErrors:  {PCIeErrors, "PCIe errors"},
}

// counted folds the sign of a counter.
func (f *folding) counted() {
	e := &f.event
	i, known := f.next.gpu(e.GPU.PCI)
	if !known {
		return
	}
	g, what := f.own(i), countedFaults[e.Kind]
	v := f.policy.plain(what.reason)
	if i, ok := f.symptomOf(g, v); ok {
		f.symptom(g, i, v, what.cause, 1)
		return
	}
	if i := slices.IndexFunc(g.Conditions, func(c Condition) bool { return f.counts(g, c) }); i >= 0 {
		g.Conditions = slices.Clone(g.Conditions)
		g.Conditions[i].join(e.member())
		return
	}
	f.raise(g.PCI, v, what.cause, e.Fields["text"], false)
}

// counts reports whether a fault of the memory is what the counter of uncorrected
// errors has counted: it came since the answer before, or the GPU is fenced for it.
func (f *folding) counts(g *GPU, c Condition) bool {
	e := &f.event
	memory := c.Reason == UncorrectableMemory || c.Reason == ContainedMemoryError
	if e.Kind != KindUncorrected || !memory || f.outlived(g, c) {
		return false
	}
	ago, err := time.ParseDuration(e.Fields["ago"])
	return c.Effect.Fences() || err == nil && e.Time.Sub(c.Last) <= ago+mergeSpan
}

// plain is the verdict of a reason's own row.
func (p *Policy) plain(reason Reason) Verdict {
	row := p.Reasons[reason]
	return Verdict{Reason: reason, Class: row.Class, Effect: row.Effect, Action: row.Action}
}
