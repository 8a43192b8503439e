//go:build cgo

package worker

import (
	"time"

	binding "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuvet.dev/nvml"
)

// readings takes the fast numbers of one GPU. A sensor that fails hides no other.
func (s *session) readings(pci string) (*nvml.Readings, error) {
	var r nvml.Readings
	err := s.take(pci, func(b *batch) {
		r.Time = time.Now()
		found := b.fields(binding.FI_DEV_MEMORY_TEMP, binding.FI_DEV_TOTAL_ENERGY_CONSUMPTION, binding.FI_DEV_PCIE_REPLAY_COUNTER)
		b.temperatures(&r, found)
		b.power(&r, found)
		b.memory(&r)
		b.utilization(&r)
		r.Clocks = b.clocks("nvmlDeviceGetClockInfo", b.device.GetClockInfo)
		if b.maxClocks == nil {
			b.maxClocks = b.clocks("nvmlDeviceGetMaxClockInfo", b.device.GetMaxClockInfo)
		}
		r.MaxClocks = b.maxClocks
		r.PCIeReplays = b.replays(found)
	})
	if err != nil {
		return nil, err
	}
	return &r, nil
}

func (b *batch) temperatures(r *nvml.Readings, found values) {
	// The older call is deprecated since 13.0, the newer one is there since 570.
	core, ok := asks(b, "nvmlDeviceGetTemperatureV", func() (uint32, binding.Return) {
		t, code := b.device.GetTemperatureV().V1()
		return uint32(t.Temperature), code
	})
	if !ok {
		core, ok = asks(b, "nvmlDeviceGetTemperature", func() (uint32, binding.Return) {
			return b.device.GetTemperature(binding.TEMPERATURE_GPU)
		})
	}
	if r.Temperature = measured(core, ok, 1); r.Temperature.OK {
		r.Temperature.Value = float64(int32(core)) // below zero is not impossible
	}
	r.MemoryTemperature = inUnit(found.count(binding.FI_DEV_MEMORY_TEMP), 1)
}

func (b *batch) power(r *nvml.Readings, found values) {
	const milli = 1e-3
	power, ok := asks(b, "nvmlDeviceGetPowerUsage", b.device.GetPowerUsage)
	r.Power = measured(power, ok, milli)
	limit, ok := asks(b, "nvmlDeviceGetEnforcedPowerLimit", b.device.GetEnforcedPowerLimit)
	r.PowerLimit = measured(limit, ok, milli)
	if r.Energy = inUnit(found.count(binding.FI_DEV_TOTAL_ENERGY_CONSUMPTION), milli); !r.Energy.OK {
		energy, ok := asks(b, "nvmlDeviceGetTotalEnergyConsumption", b.device.GetTotalEnergyConsumption)
		r.Energy = measured(energy, ok, milli)
	}
}

func (b *batch) memory(r *nvml.Readings) {
	if m, ok := asks(b, "nvmlDeviceGetMemoryInfo_v2", b.device.GetMemoryInfo_v2); ok {
		m.Used = usedOf(m)
		r.MemoryTotal, r.MemoryReserved = counted(m.Total, true), counted(m.Reserved, true)
		r.MemoryUsed, r.MemoryFree = counted(m.Used, true), counted(m.Free, true)
		return
	}
	// Drivers before 510 know this one alone, and leave what is reserved out of
	// the total.
	m, ok := asks(b, "nvmlDeviceGetMemoryInfo", b.device.GetMemoryInfo)
	r.MemoryTotal, r.MemoryUsed, r.MemoryFree = counted(m.Total, ok), counted(m.Used, ok), counted(m.Free, ok)
}

// usedOf is the memory in use without what is reserved. The header says that the
// driver counts that in; drivers leave it out.
func usedOf(m binding.Memory_v2) uint64 {
	told := m.Used <= m.Total && m.Free <= m.Total && m.Reserved < m.Total // all ones are more than any memory
	if told && m.Reserved <= m.Used && m.Reserved+m.Free > m.Total-m.Used {
		return m.Used - m.Reserved
	}
	return m.Used
}

func (b *batch) utilization(r *nvml.Readings) {
	u, ok := asks(b, "nvmlDeviceGetUtilizationRates", b.device.GetUtilizationRates)
	const percent = 1e-2
	r.Utilization = measured(u.Gpu, ok && u.Gpu <= 100, percent)
	r.MemoryUtilization = measured(u.Memory, ok && u.Memory <= 100, percent)
}

// clocks takes the clocks that tick, in Hz, by domain.
func (b *batch) clocks(function string, of func(binding.ClockType) (uint32, binding.Return)) map[string]float64 {
	const mega = 1e6
	var clocks map[string]float64
	for _, domain := range [...]struct {
		name string
		kind binding.ClockType
	}{
		{"graphics", binding.CLOCK_GRAPHICS},
		{"sm", binding.CLOCK_SM},
		{"memory", binding.CLOCK_MEM},
		{"video", binding.CLOCK_VIDEO},
	} {
		v, ok := asks(b, function, func() (uint32, binding.Return) { return of(domain.kind) })
		if f := measured(v, ok, mega); f.Value > 0 {
			if clocks == nil {
				clocks = map[string]float64{}
			}
			clocks[domain.name] = f.Value
		}
	}
	return clocks
}
