//go:build cgo

package worker

import (
	"time"

	binding "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuvet.dev/nvml"
)

// facts takes what may be told beside the memory errors, most of it in one call.
func (b *batch) facts(h *nvml.Health) {
	wanted := []field{
		{id: binding.FI_DEV_RESET_STATUS},
		{id: binding.FI_DEV_DRAIN_AND_RESET_STATUS},
		{id: binding.FI_DEV_ECC_CURRENT},
		{id: binding.FI_DEV_ECC_PENDING},
		{id: binding.FI_DEV_RETIRED_SBE},
		{id: binding.FI_DEV_RETIRED_DBE},
		{id: binding.FI_DEV_RETIRED_PENDING},
		{id: binding.FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT},
		{id: binding.FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT},
		{id: binding.FI_DEV_PCIE_REPLAY_COUNTER},
		{id: binding.FI_DEV_PCIE_L0_TO_RECOVERY_COUNTER},
		{id: binding.FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS},
		{id: binding.FI_DEV_PCIE_COUNT_NON_FATAL_ERROR},
		{id: binding.FI_DEV_PCIE_COUNT_FATAL_ERROR},
		{id: binding.FI_DEV_PCIE_COUNT_UNSUPPORTED_REQ},
	}
	for _, t := range clockTimes {
		wanted = append(wanted, field{id: t.field})
	}
	found := b.scoped(append(wanted, b.linkFields()...))

	h.ResetRequired = found.flag(binding.FI_DEV_RESET_STATUS)
	h.DrainAndResetRequired = found.flag(binding.FI_DEV_DRAIN_AND_RESET_STATUS)
	b.memoryFacts(h, found)
	b.clockFacts(h, found)
	b.thermal(&h.Thermal, found)
	b.pcie(&h.PCIe, found)
	h.NVLinks = b.nvlinks(found)
	h.Fabric = b.fabric()
	mode, ok := asks(b, "nvmlDeviceGetMigMode", func() (mode nvml.Mode, code binding.Return) {
		current, pending, code := b.device.GetMigMode()
		return nvml.Mode{Current: current == binding.DEVICE_MIG_ENABLE, Pending: pending == binding.DEVICE_MIG_ENABLE}, code
	})
	h.MIGMode = nvml.Maybe[nvml.Mode]{Value: mode, OK: ok}
	persistence, ok := asks(b, "nvmlDeviceGetPersistenceMode", b.device.GetPersistenceMode)
	h.Persistence = nvml.Maybe[bool]{Value: persistence == binding.FEATURE_ENABLED, OK: ok}
}

func (b *batch) memoryFacts(h *nvml.Health, found values) {
	current, pending := found.flag(binding.FI_DEV_ECC_CURRENT), found.flag(binding.FI_DEV_ECC_PENDING)
	mode, ok := nvml.Mode{Current: current.Value, Pending: pending.Value}, current.OK && pending.OK
	if !ok {
		mode, ok = asks(b, "nvmlDeviceGetEccMode", func() (nvml.Mode, binding.Return) {
			current, pending, code := b.device.GetEccMode()
			return nvml.Mode{Current: current == binding.FEATURE_ENABLED, Pending: pending == binding.FEATURE_ENABLED}, code
		})
	}
	h.ECCMode = nvml.Maybe[nvml.Mode]{Value: mode, OK: ok}
	status, ok := asks(b, "nvmlDeviceGetSramEccErrorStatus", b.device.GetSramEccErrorStatus)
	h.SRAMThresholdExceeded = nvml.Maybe[bool]{Value: status.BThresholdExceeded != 0, OK: ok}
	unique, ok := asks(b, "nvmlDeviceGetSramUniqueUncorrectedEccErrorCounts", func() (uint32, binding.Return) {
		// Without room for the entries it says how many there are, and may call
		// that an error.
		var counts binding.EccSramUniqueUncorrectedErrorCounts
		counts.Version = binding.STRUCT_VERSION(counts, 1)
		code := b.device.GetSramUniqueUncorrectedEccErrorCounts(&counts)
		if code == binding.ERROR_INSUFFICIENT_SIZE {
			code = binding.SUCCESS
		}
		return counts.EntryCount, code
	})
	h.SRAMUniqueUncorrected = counted(unique, ok)
	banks, ok := asks(b, "nvmlDeviceGetRowRemapperHistogram", b.device.GetRowRemapperHistogram)
	if ok {
		h.RowBanks = nvml.Some(nvml.RowBanks{
			Max: uint64(banks.Max), High: uint64(banks.High), Partial: uint64(banks.Partial), Low: uint64(banks.Low), None: uint64(banks.None),
		})
	}
	h.PagesRetiredSingleBit = found.count(binding.FI_DEV_RETIRED_SBE)
	h.PagesRetiredDoubleBit = found.count(binding.FI_DEV_RETIRED_DBE)
	h.PageRetirementPending = found.flag(binding.FI_DEV_RETIRED_PENDING)
}

// clockReasons are in the order of their bits.
var clockReasons = [...]nvml.ClockReason{
	nvml.ClockIdle, nvml.ClockApplications, nvml.ClockPowerCap, nvml.ClockHWSlowdown, nvml.ClockSyncBoost, nvml.ClockSWThermal,
	nvml.ClockHWThermal, nvml.ClockHWPowerBrake, nvml.ClockDisplay, nvml.ClockBoardLimit, nvml.ClockReliability,
}

// clockTimes are the fields that count nanoseconds.
var clockTimes = [...]struct {
	field  uint32
	reason nvml.ClockReason
}{
	{binding.FI_DEV_PERF_POLICY_POWER, nvml.ClockPowerCap},
	{binding.FI_DEV_PERF_POLICY_THERMAL, nvml.ClockThermal},
	{binding.FI_DEV_PERF_POLICY_SYNC_BOOST, nvml.ClockSyncBoost},
	{binding.FI_DEV_PERF_POLICY_BOARD_LIMIT, nvml.ClockBoardLimit},
	{binding.FI_DEV_PERF_POLICY_RELIABILITY, nvml.ClockReliability},
	{binding.FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN, nvml.ClockSWThermal},
	{binding.FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN, nvml.ClockHWThermal},
	{binding.FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN, nvml.ClockHWPowerBrake},
}

func (b *batch) clockFacts(h *nvml.Health, found values) {
	state, ok := asks(b, "nvmlDeviceGetPerformanceState", b.device.GetPerformanceState)
	h.PerformanceState = small(int(state), ok, int(binding.PSTATE_0), int(binding.PSTATE_15))
	mask, ok := asks(b, "nvmlDeviceGetCurrentClocksEventReasons", b.device.GetCurrentClocksEventReasons)
	if !ok {
		mask, ok = asks(b, "nvmlDeviceGetCurrentClocksThrottleReasons", b.device.GetCurrentClocksThrottleReasons)
	}
	if counted(mask, ok).OK {
		reasons := []nvml.ClockReason{}
		for bit, reason := range clockReasons {
			if mask&(1<<bit) != 0 {
				reasons = append(reasons, reason)
			}
		}
		h.ClockReasons = nvml.Some(reasons)
	}
	for _, t := range clockTimes {
		if ns := found.count(t.field); ns.OK {
			if h.ClockTimes == nil {
				h.ClockTimes = map[nvml.ClockReason]time.Duration{}
			}
			h.ClockTimes[t.reason] = time.Duration(ns.Value)
		}
	}
}

func (b *batch) thermal(t *nvml.Thermal, found values) {
	margin, ok := asks(b, "nvmlDeviceGetMarginTemperature", b.device.GetMarginTemperature)
	if ok {
		t.Margin = nvml.Some(float64(margin.MarginTemperature))
	}
	t.SlowdownMargin = found.degrees(binding.FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT)
	t.ShutdownMargin = found.degrees(binding.FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT)
	threshold := func(kind binding.TemperatureThresholds) nvml.Maybe[float64] {
		degrees, ok := asks(b, "nvmlDeviceGetTemperatureThreshold", func() (uint32, binding.Return) {
			return b.device.GetTemperatureThreshold(kind)
		})
		return measured(degrees, ok && degrees > 0, 1)
	}
	t.Slowdown = threshold(binding.TEMPERATURE_THRESHOLD_SLOWDOWN)
	t.Shutdown = threshold(binding.TEMPERATURE_THRESHOLD_SHUTDOWN)
}
