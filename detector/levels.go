package detector

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gpuvet.dev/nvml"
)

// levels tells what NVML says is amiss with a GPU, each as a fact that is so or not.
func (f *Facts) levels(g *told, o nvml.Observation) {
	h := o.Health
	level := func(kind Kind, is nvml.Maybe[bool], detail string) {
		if is.OK {
			so := strconv.FormatBool(is.Value)
			g.tell(f, o.Time, kind, kind, so, fieldsOf(so, detail))
		}
	}
	level(KindWaits, h.PageRetirementPending, "")
	level(KindSRAMThreshold, h.SRAMThresholdExceeded, "")
	slow, detail := narrow(h)
	level(KindPCIeDegraded, slow, detail)
	if h.ClockReasons.OK {
		reasons := h.ClockReasons.Value
		level(KindThermal, nvml.Some(slices.Contains(reasons, nvml.ClockHWThermal)), "")
		level(KindPowerBrake, nvml.Some(slices.Contains(reasons, nvml.ClockHWPowerBrake)), "")
	}
	for _, l := range fabricLevels(h) {
		level(l.kind, nvml.Some(l.so), l.detail)
	}
	is := linksOf(f.load, h)
	if len(is.active) > 0 || len(is.inactive) > 0 {
		down := g.links.down(is)
		level(KindLinkDown, nvml.Some(len(down) > 0), numbers(down))
		if worse := g.links.worse(is); len(worse) > 0 {
			f.emit(Event{
				Source: SourceState, Kind: KindLink, Time: o.Time, GPU: Device{PCI: g.gpu.PCI, UUID: g.gpu.UUID},
				Fields: map[string]string{"text": numbers(worse) + ": errors beyond a threshold, a replay or a recovery"},
			})
		}
		g.links = g.links.then(is)
	}
}

func fieldsOf(so, detail string) map[string]string {
	fields := map[string]string{"so": so}
	if detail != "" && so == "true" {
		fields["detail"] = detail
	}
	return fields
}

// narrow says whether the link to the node is less than card and slot can. The
// generation is judged under load alone; absent: there is none at present.
func narrow(h *nvml.Health) (nvml.Maybe[bool], string) {
	p := h.PCIe
	width := p.Width.OK && p.WidthMax.OK && p.Width.Value < p.WidthMax.Value
	load := h.PerformanceState.OK && h.PerformanceState.Value == 0 && h.ClockReasons.OK && !slices.Contains(h.ClockReasons.Value, nvml.ClockIdle)
	generation := p.Generation.OK && p.GenerationMax.OK && p.Generation.Value < p.GenerationMax.Value
	switch {
	case width:
		return nvml.Some(true), fmt.Sprintf("width %d of %d", p.Width.Value, p.WidthMax.Value)
	case load && generation:
		return nvml.Some(true), fmt.Sprintf("generation %d of %d", p.Generation.Value, p.GenerationMax.Value)
	case load && (p.Width.OK || p.Generation.OK):
		return nvml.Some(false), ""
	default:
		return nvml.Maybe[bool]{}, ""
	}
}

// links is how the NVLinks of a GPU stood at one poll.
type links struct {
	load             string
	active, inactive []int
	trouble          map[trouble]uint64
}

// trouble is one of the counters of one link of which each single count is a sign:
// replays, recoveries, and errors beyond a threshold. (DCGM_LIMIT_MAX_LWLINK_ERROR
// is 1 too.)
type trouble struct{ link, counter int }

func linksOf(load string, h *nvml.Health) links {
	is := links{load: load, trouble: map[trouble]uint64{}}
	for _, l := range h.NVLinks {
		switch l.State {
		case nvml.NVLinkActive, nvml.NVLinkSleep:
			is.active = append(is.active, l.Number)
		case nvml.NVLinkInactive, nvml.NVLinkTrafficDisabled:
			is.inactive = append(is.inactive, l.Number)
		}
		for counter, count := range []nvml.Maybe[uint64]{l.Replays, l.Recoveries, l.RecoveriesGood, l.RecoveriesFailed, l.IntegrityErrors} {
			if count.OK {
				is.trouble[trouble{l.Number, counter}] = count.Value
			}
		}
	}
	return is
}

// down are the links that were active under this loading and are not now. One that
// never was may have nothing at its other end.
func (was links) down(is links) []int {
	if was.load != is.load {
		return nil
	}
	var down []int
	for _, number := range is.inactive {
		if slices.Contains(was.active, number) {
			down = append(down, number)
		}
	}
	return down
}

// worse are the links that had more trouble since, or were down and are up again.
func (was links) worse(is links) []int {
	var worse []int
	for at, count := range is.trouble {
		if before, ok := was.trouble[at]; ok && was.load == is.load && count > before {
			worse = append(worse, at.link)
		}
	}
	for _, number := range is.active {
		if was.load == is.load && slices.Contains(was.inactive, number) && slices.Contains(was.active, number) {
			worse = append(worse, number)
		}
	}
	slices.Sort(worse)
	return slices.Compact(worse)
}

// then is how they stand, with all that have been active under this loading.
func (was links) then(is links) links {
	if was.load == is.load {
		is.active = append(is.active, was.down(is)...)
	}
	return is
}

func numbers(links []int) string {
	var text []string
	for _, number := range links {
		text = append(text, strconv.Itoa(number))
	}
	return "link " + strings.Join(text, ", ")
}

// toldOf are the faults that NVML tells as facts, each with its words.
var toldOf = map[Kind]struct {
	reason Reason
	cause  string
}{
	KindWaits:          {RetirementPending, "a retired page waits for a reset"},
	KindSRAMThreshold:  {SRAMThreshold, "too many uncorrected errors in the SRAM"},
	KindPCIeDegraded:   {PCIeDegraded, "the PCIe link is slower than it can be"},
	KindThermal:        {ThermalSlowdown, "slowed down by heat"},
	KindPowerBrake:     {PowerBrake, "slowed down by the power supply"},
	KindLinkDown:       {LinkDown, "an NVLink is down"},
	KindFabricNotReady: {FabricNotReady, "it is not registered with its NVLink fabric"},
	KindFabricRefused:  {FabricRefused, "its registration with the NVLink fabric failed"},
	KindFabricDegraded: {FabricDegraded, "its NVLink fabric is limited"},
}

// told folds such a fact.
func (f *folding) told(g *GPU) {
	e := &f.event
	what, so := toldOf[e.Kind], e.Fields["so"] == "true"
	if e.Kind == KindWaits {
		g.Retiring = so
	}
	cause := what.cause
	if detail := e.Fields["detail"]; detail != "" {
		cause += " (" + detail + ")"
	}
	f.level(g, so, f.policy.plain(what.reason), cause)
}
