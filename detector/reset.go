package detector

import (
	"cmp"
	"fmt"
	"time"

	"gpuvet.dev/nvml"
)

// growing are counters of one GPU that begin with the driver's loading or the GPU's
// reset and only grow: nothing else takes them back. (ECC and NVLink counters can
// be cleared by hand, with nvidia-smi -p and nvlink -r.)
type growing struct {
	load   string
	counts map[string]uint64
	// waits are a row remap and a page retirement, as far as they are told: what they
	// wait for is a reset.
	waits [2]nvml.Maybe[bool]
}

func grows(load string, h *nvml.Health) growing {
	g := growing{load: load, counts: map[string]uint64{}}
	for name, count := range map[string]nvml.Maybe[uint64]{"PCIe replays": h.PCIe.Replays, "PCIe recoveries": h.PCIe.Recoveries} {
		if count.OK {
			g.counts[name] = count.Value
		}
	}
	for reason, held := range h.ClockTimes {
		g.counts["time of "+string(reason)] = uint64(max(held, 0))
	}
	g.waits = [...]nvml.Maybe[bool]{h.RowRemapPending, h.PageRetirementPending}
	return g
}

// anew says what shows that the GPU was reset between two answers under the same
// loading; empty if nothing does.
func (g growing) anew(is growing) string {
	if g.load != is.load {
		return ""
	}
	for i, was := range g.waits {
		if was.Value && is.waits[i].OK && !is.waits[i].Value {
			return "what waited for a reset is done"
		}
	}
	var sign string
	for name, count := range is.counts {
		if before, ok := g.counts[name]; ok && count < before && (sign == "" || name < sign) {
			sign = name
		}
	}
	if sign != "" {
		return sign + " began anew"
	}
	return ""
}

// reset tells that a GPU was reset since its answer before.
func (f *Facts) reset(g *told, o nvml.Observation) {
	is := grows(f.load, o.Health)
	if sign := g.only.anew(is); sign != "" {
		f.emit(Event{
			Source: SourceState, Kind: KindReset, Time: o.Time, GPU: Device{PCI: g.gpu.PCI, UUID: g.gpu.UUID},
			Fields: map[string]string{"sign": sign, "ago": o.Time.Sub(g.answered).String()},
		})
	}
	g.only = is
}

// resets takes it that the GPU was reset. It counts from the answer before, rather
// too early, so that a fault of after the reset is not ended.
func (f *folding) resets(g *GPU) {
	e := &f.event
	ago, err := time.ParseDuration(e.Fields["ago"])
	if err != nil {
		return
	}
	g.Reset = max(g.Reset, e.Mono-ago)
	g.Well = 0
	f.noteGPU(g, NotedReset, cmp.Or(e.Fields["sign"], "reset"))
}

// takenBack notes that the driver, which asked for a reset of the GPU, asks for
// nothing any more under the same loading: it was reset.
func (f *folding) takenBack(g *GPU, before *int, is int) {
	if before == nil {
		return
	}
	was := *before
	asked := was == int(nvml.RecoverGPUReset) || was == int(nvml.RecoverDrainAndReset) || was == int(nvml.RecoverBusReset)
	if asked && is == int(nvml.RecoverNone) {
		g.Reset, g.Well = max(g.Reset, f.event.Mono), 0
		f.noteGPU(g, NotedReset, fmt.Sprintf("the driver asked for %s, and asks for nothing any more", nvml.RecoveryAction(was)))
	}
}
