/* The numbers that move. */
#include "fake.h"

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensor, unsigned int *celsius)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_READINGS, device, &gpu));
	if (sensor != NVML_TEMPERATURE_GPU)
		return NVML_ERROR_INVALID_ARGUMENT;
	return tell(gpu->temperature, celsius);
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
	unsigned int celsius;
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_READINGS, device, &gpu));
	NEED_VERSION(temperature, nvmlTemperature_v1);
	if (temperature->sensorType != NVML_TEMPERATURE_GPU)
		return NVML_ERROR_NOT_SUPPORTED;
	TRY(tell(gpu->temperature, &celsius));
	temperature->temperature = (int)celsius;
	return NVML_SUCCESS;
}

/* nvmlDeviceGetMarginTemperature: how far it is to the first slowdown. */
nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_t *margin)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_READINGS, device, &gpu));
	NEED_VERSION(margin, nvmlMarginTemperature_v1);
	if (gpu->temperature == ABSENT || gpu->temperature_max == ABSENT)
		return NVML_ERROR_NOT_SUPPORTED;
	margin->marginTemperature = (int)gpu->temperature_max - (int)gpu->temperature;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, nvmlTemperatureThresholds_t threshold, unsigned int *celsius)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_READINGS, device, &gpu));
	switch (threshold) {
	case NVML_TEMPERATURE_THRESHOLD_SHUTDOWN: return tell(gpu->temperature_shutdown, celsius);
	case NVML_TEMPERATURE_THRESHOLD_SLOWDOWN: return tell(gpu->temperature_slowdown, celsius);
	case NVML_TEMPERATURE_THRESHOLD_MEM_MAX: return tell(gpu->temperature_memory_max, celsius);
	case NVML_TEMPERATURE_THRESHOLD_GPU_MAX: return tell(gpu->temperature_max, celsius);
	default: return threshold < NVML_TEMPERATURE_THRESHOLD_COUNT ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_INVALID_ARGUMENT;
	}
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *milliwatts)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_READINGS, device, &gpu));
	return tell(gpu->power_mw, milliwatts);
}

nvmlReturn_t nvmlDeviceGetPowerManagementMode(nvmlDevice_t device, nvmlEnableState_t *mode)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_READINGS, device, &gpu));
	NEED(mode);
	*mode = gpu->power_limit_mw == ABSENT ? NVML_FEATURE_DISABLED : NVML_FEATURE_ENABLED;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned int *milliwatts)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_READINGS, device, &gpu));
	return tell(gpu->power_limit_mw, milliwatts);
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *milliwatts)
{
	return nvmlDeviceGetPowerManagementLimit(device, milliwatts);
}

nvmlReturn_t nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t device, unsigned int *milliwatts)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_READINGS, device, &gpu));
	return tell(gpu->power_default_mw, milliwatts);
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned int *least, unsigned int *most)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_READINGS, device, &gpu));
	TRY(tell(gpu->power_min_mw, least));
	return tell(gpu->power_max_mw, most);
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *millijoules)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_READINGS, device, &gpu));
	return tell_long(gpu->energy_mj, millijoules);
}

struct memory {
	uint64_t total, reserved, used;
};

static nvmlReturn_t memory_of(nvmlDevice_t device, struct memory *memory)
{
	struct instance *instance;
	struct gpu *gpu;

	TRY(enter_device(GROUP_READINGS, device, &gpu, &instance));
	if (instance != NULL) {
		*memory = (struct memory){
			.total = gpu->profile[instance->profile].memory_mb << 20,
			.used = instance->memory_used,
		};
		return NVML_SUCCESS;
	}
	*memory = (struct memory){ gpu->memory_total, gpu->memory_reserved, gpu->memory_used };
	return memory->used == ABSENT && !page->sentinels ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
}

/* What is left, or ABSENT if that cannot be said. */
static uint64_t left(const struct memory *memory)
{
	uint64_t taken = memory->used + (memory->reserved == ABSENT ? 0 : memory->reserved);

	if (memory->used == ABSENT || memory->total == ABSENT)
		return ABSENT;
	return taken < memory->total ? memory->total - taken : 0;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *out)
{
	struct memory memory;

	TRY(memory_of(device, &memory));
	NEED_VERSION(out, nvmlMemory_v2);
	out->total = memory.total;
	out->reserved = memory.reserved;
	out->used = memory.used;
	out->free = left(&memory);
	return NVML_SUCCESS;
}

/* nvmlDeviceGetMemoryInfo counts what is reserved as used. */
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *out)
{
	struct memory memory;

	TRY(memory_of(device, &memory));
	NEED(out);
	out->total = memory.total;
	out->free = left(&memory);
	out->used = memory.used == ABSENT ? ABSENT : memory.total - out->free;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *out)
{
	struct instance *instance;
	struct gpu *gpu;

	TRY(enter_device(GROUP_READINGS, device, &gpu, &instance));
	NEED(out);
	out->bar1Total = gpu->bar1_total;
	out->bar1Used = 1 << 20;
	out->bar1Free = out->bar1Total - out->bar1Used;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_READINGS, device, &gpu));
	NEED(utilization);
	TRY(tell(gpu->utilization, &utilization->gpu));
	return tell(gpu->memory_utilization, &utilization->memory);
}

static nvmlReturn_t clock_of(nvmlDevice_t device, nvmlClockType_t type, bool highest, unsigned int *mhz)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_READINGS, device, &gpu));
	if ((unsigned int)type >= CLOCK_COUNT)
		return NVML_ERROR_INVALID_ARGUMENT;
	return tell(highest ? gpu->max_clock_mhz[type] : gpu->clock_mhz[type], mhz);
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *mhz)
{
	return clock_of(device, type, false, mhz);
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *mhz)
{
	return clock_of(device, type, true, mhz);
}

nvmlReturn_t nvmlDeviceGetMaxCustomerBoostClock(nvmlDevice_t device, nvmlClockType_t type, unsigned int *mhz)
{
	return clock_of(device, type, true, mhz);
}

nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t device, nvmlClockType_t type, nvmlClockId_t id, unsigned int *mhz)
{
	switch (id) {
	case NVML_CLOCK_ID_CURRENT: return clock_of(device, type, false, mhz);
	case NVML_CLOCK_ID_CUSTOMER_BOOST_MAX: return clock_of(device, type, true, mhz);
	default: return NVML_ERROR_NOT_SUPPORTED;
	}
}

nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, nvmlPstates_t *state)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_READINGS, device, &gpu));
	NEED(state);
	if (gpu->performance_state == ABSENT) {
		*state = NVML_PSTATE_UNKNOWN;
		return page->sentinels ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
	}
	*state = (nvmlPstates_t)gpu->performance_state;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerState(nvmlDevice_t device, nvmlPstates_t *state)
{
	return nvmlDeviceGetPerformanceState(device, state);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_READINGS, device, &gpu));
	return tell_long(gpu->clock_reasons, reasons);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons)
{
	return nvmlDeviceGetCurrentClocksEventReasons(device, reasons);
}

nvmlReturn_t nvmlDeviceGetSupportedClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_READINGS, device, &gpu));
	return tell_long(nvmlClocksEventReasonAll, reasons);
}

nvmlReturn_t nvmlDeviceGetSupportedClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons)
{
	return nvmlDeviceGetSupportedClocksEventReasons(device, reasons);
}

nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t device, nvmlPerfPolicyType_t policy, nvmlViolationTime_t *out)
{
	uint64_t ns;
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_READINGS, device, &gpu));
	NEED(out);
	switch (policy) {
	case NVML_PERF_POLICY_POWER: ns = gpu->violation_ns[VIOLATION_POWER]; break;
	case NVML_PERF_POLICY_SYNC_BOOST: ns = gpu->violation_ns[VIOLATION_SYNC_BOOST]; break;
	case NVML_PERF_POLICY_BOARD_LIMIT: ns = gpu->violation_ns[VIOLATION_BOARD_LIMIT]; break;
	case NVML_PERF_POLICY_RELIABILITY: ns = gpu->violation_ns[VIOLATION_RELIABILITY]; break;
	case NVML_PERF_POLICY_THERMAL:
		ns = gpu->violation_ns[VIOLATION_SW_THERMAL] + gpu->violation_ns[VIOLATION_HW_THERMAL];
		break;
	default: return NVML_ERROR_NOT_SUPPORTED;
	}
	*out = (nvmlViolationTime_t){ gpu->updated, ns };
	return NVML_SUCCESS;
}
