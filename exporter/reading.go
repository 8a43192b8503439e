package exporter

import (
	"maps"
	"slices"

	"gpuvet.dev/nvml"
)

func (p *page) readings(g gpu, r *nvml.Readings) {
	amount(p, gpuTemperature, r.Temperature, g.uuid, g.index, "core")
	amount(p, gpuTemperature, r.MemoryTemperature, g.uuid, g.index, "memory")
	amount(p, gpuPower, r.Power, g.uuid, g.index)
	amount(p, gpuPowerLimit, r.PowerLimit, g.uuid, g.index)
	amount(p, gpuEnergy, r.Energy, g.uuid, g.index)
	amount(p, gpuMemoryTotal, r.MemoryTotal, g.uuid, g.index)
	amount(p, gpuMemoryUsed, r.MemoryUsed, g.uuid, g.index)
	amount(p, gpuMemoryFree, r.MemoryFree, g.uuid, g.index)
	amount(p, gpuMemoryReserved, r.MemoryReserved, g.uuid, g.index)
	amount(p, gpuUtilization, r.Utilization, g.uuid, g.index)
	amount(p, gpuMemoryController, r.MemoryUtilization, g.uuid, g.index)
	amount(p, gpuPCIeReplays, r.PCIeReplays, g.uuid, g.index)
	p.clocks(gpuClock, r.Clocks, g)
	p.clocks(gpuClockMax, r.MaxClocks, g)
}

// amount writes a number, if there is one.
func amount[T float64 | uint64](p *page, f family, m nvml.Maybe[T], labels ...string) {
	if m.OK {
		p.put(f, float64(m.Value), labels...)
	}
}

func (p *page) clocks(f family, hertz map[string]float64, g gpu) {
	for _, domain := range slices.Sorted(maps.Keys(hertz)) {
		p.put(f, hertz[domain], g.uuid, g.index, domain)
	}
}

func (p *page) health(g gpu, h *nvml.Health) {
	for _, c := range h.ECC {
		kind, lifetime := "corrected", "volatile"
		if c.Uncorrected {
			kind = "uncorrected"
		}
		if c.Aggregate {
			lifetime = "aggregate"
		}
		p.put(gpuECCErrors, float64(c.Count), g.uuid, g.index, kind, lifetime, c.Location)
	}
	amount(p, gpuRemappedRows, h.RowsRemappedCorrectable, g.uuid, g.index, "correctable")
	amount(p, gpuRemappedRows, h.RowsRemappedUncorrectable, g.uuid, g.index, "uncorrectable")
	if pending := h.RowRemapPending; pending.OK {
		p.flag(gpuRowRemapPending, pending.Value, g.uuid, g.index)
	}
	if failed := h.RowRemapFailed; failed.OK {
		p.flag(gpuRowRemapFailed, failed.Value, g.uuid, g.index)
	}
	if h.Recovery.OK {
		p.recovery(g, h.Recovery.Value)
	}
}

// recovery writes one series per action that is known, and one more where the
// driver asks for something newer.
func (p *page) recovery(g gpu, asked nvml.RecoveryAction) {
	for action := nvml.RecoverNone; action <= nvml.RecoverSystemReboot; action++ {
		p.flag(gpuRecoveryAction, action == asked, g.uuid, g.index, action.String())
	}
	if asked < nvml.RecoverNone || asked > nvml.RecoverSystemReboot {
		p.flag(gpuRecoveryAction, true, g.uuid, g.index, asked.String())
	}
}
