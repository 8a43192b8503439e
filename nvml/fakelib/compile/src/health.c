/* What decides whether a GPU is fit: memory errors and what was done about them. */
#include "fake.h"

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, nvmlEnableState_t *current, nvmlEnableState_t *pending)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_HEALTH, device, &gpu));
	NEED(current);
	NEED(pending);
	if (gpu->ecc_enabled == ABSENT)
		return NVML_ERROR_NOT_SUPPORTED;
	*current = (nvmlEnableState_t)gpu->ecc_enabled;
	*pending = (nvmlEnableState_t)gpu->ecc_pending;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetDefaultEccMode(nvmlDevice_t device, nvmlEnableState_t *mode)
{
	nvmlEnableState_t pending;

	return nvmlDeviceGetEccMode(device, mode, &pending);
}

static nvmlReturn_t ecc_gpu(nvmlDevice_t device, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter, struct gpu **gpu)
{
	TRY(enter_gpu(GROUP_HEALTH, device, gpu));
	if ((unsigned int)type >= NVML_MEMORY_ERROR_TYPE_COUNT || (unsigned int)counter >= NVML_ECC_COUNTER_TYPE_COUNT)
		return NVML_ERROR_INVALID_ARGUMENT;
	return (*gpu)->ecc_enabled == 1 ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter, unsigned long long *count)
{
	struct gpu *gpu;

	TRY(ecc_gpu(device, type, counter, &gpu));
	if (type == NVML_MEMORY_ERROR_TYPE_CORRECTED)
		return tell_long(gpu->ecc_corrected[counter] + gpu->ecc_sram_corrected[counter], count);
	return tell_long(gpu->ecc_uncorrected[counter] + gpu->ecc_sram_uncorrected[counter], count);
}

/* nvmlDeviceGetMemoryErrorCounter: GPUs since Turing count for DRAM and SRAM alone. */
nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter,
	nvmlMemoryLocation_t location, unsigned long long *count)
{
	bool corrected = type == NVML_MEMORY_ERROR_TYPE_CORRECTED;
	struct gpu *gpu;

	TRY(ecc_gpu(device, type, counter, &gpu));
	switch (location) {
	case NVML_MEMORY_LOCATION_DRAM:
		return tell_long(corrected ? gpu->ecc_corrected[counter] : gpu->ecc_uncorrected[counter], count);
	case NVML_MEMORY_LOCATION_SRAM:
		return tell_long(corrected ? gpu->ecc_sram_corrected[counter] : gpu->ecc_sram_uncorrected[counter], count);
	default:
		return (unsigned int)location < NVML_MEMORY_LOCATION_COUNT ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_INVALID_ARGUMENT;
	}
}

nvmlReturn_t nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t device, nvmlEccSramErrorStatus_t *status)
{
	struct gpu *gpu;

	TRY(ecc_gpu(device, NVML_MEMORY_ERROR_TYPE_CORRECTED, NVML_VOLATILE_ECC, &gpu));
	NEED_VERSION(status, nvmlEccSramErrorStatus_v1);
	*status = (nvmlEccSramErrorStatus_t){
		.version = status->version,
		.volatileCor = gpu->ecc_sram_corrected[0], .volatileUncSecDed = gpu->ecc_sram_uncorrected[0],
		.aggregateCor = gpu->ecc_sram_corrected[1], .aggregateUncSecDed = gpu->ecc_sram_uncorrected[1],
		.aggregateUncBucketL2 = gpu->ecc_sram_uncorrected[1],
		.bThresholdExceeded = (unsigned int)gpu->sram_exceeded,
	};
	return NVML_SUCCESS;
}

/* No places are scripted but their number: each is one of an address of its own. */
nvmlReturn_t nvmlDeviceGetSramUniqueUncorrectedEccErrorCounts(nvmlDevice_t device, nvmlEccSramUniqueUncorrectedErrorCounts_t *counts)
{
	unsigned int room;
	struct gpu *gpu;

	TRY(ecc_gpu(device, NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_AGGREGATE_ECC, &gpu));
	NEED_VERSION(counts, nvmlEccSramUniqueUncorrectedErrorCounts_v1);
	if (gpu->sram_unique == ABSENT)
		return NVML_ERROR_NOT_SUPPORTED;
	room = counts->entries == NULL ? 0 : counts->entryCount;
	counts->entryCount = (unsigned int)gpu->sram_unique;
	for (unsigned int i = 0; i < counts->entryCount && i < room; i++)
		counts->entries[i] = (nvmlEccSramUniqueUncorrectedErrorEntry_v1_t){ .address = i, .count = 1 };
	return counts->entryCount > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

/* The row remapper cannot be asked while the GPU has MIG devices. */
static nvmlReturn_t remapper(nvmlDevice_t device, struct gpu **gpu)
{
	TRY(enter_gpu(GROUP_HEALTH, device, gpu));
	if ((*gpu)->rows_corrected == ABSENT || ((*gpu)->mig_mode && (*gpu)->instances > 0))
		return NVML_ERROR_NOT_SUPPORTED;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *corrected, unsigned int *uncorrected, unsigned int *pending, unsigned int *failed)
{
	struct gpu *gpu;

	TRY(remapper(device, &gpu));
	TRY(tell(gpu->rows_corrected, corrected));
	TRY(tell(gpu->rows_uncorrected, uncorrected));
	TRY(tell(gpu->rows_pending, pending));
	return tell(gpu->rows_failed, failed);
}

/* nvmlDeviceGetRemappedRows_v2: a pending remap is one that is not active yet. */
nvmlReturn_t nvmlDeviceGetRemappedRows_v2(nvmlDevice_t device, nvmlRemappedRowsInfo_v2_t *info)
{
	struct gpu *gpu;

	TRY(remapper(device, &gpu));
	NEED(info);
	*info = (nvmlRemappedRowsInfo_v2_t){
		.corrActiveRemaps = (unsigned int)gpu->rows_corrected,
		.uncActiveRemaps = (unsigned int)gpu->rows_uncorrected,
		.bPending = (unsigned int)gpu->rows_pending,
		.bFailureOccurred = (unsigned int)gpu->rows_failed,
	};
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t device, nvmlRowRemapperHistogramValues_t *values)
{
	const uint64_t *banks;
	struct gpu *gpu;

	TRY(remapper(device, &gpu));
	NEED(values);
	banks = gpu->row_banks;
	*values = (nvmlRowRemapperHistogramValues_t){
		.max = (unsigned int)banks[0], .high = (unsigned int)banks[1], .partial = (unsigned int)banks[2],
		.low = (unsigned int)banks[3], .none = (unsigned int)banks[4],
	};
	return NVML_SUCCESS;
}

/* No page addresses are scripted: they are made up from their number. */
static nvmlReturn_t retired(nvmlDevice_t device, nvmlPageRetirementCause_t cause, unsigned int *count,
	unsigned long long *addresses, unsigned long long *timestamps)
{
	uint64_t pages;
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_HEALTH, device, &gpu));
	NEED(count);
	if ((unsigned int)cause >= NVML_PAGE_RETIREMENT_CAUSE_COUNT)
		return NVML_ERROR_INVALID_ARGUMENT;
	pages = cause == NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR ? gpu->pages_uncorrected : gpu->pages_corrected;
	if (pages == ABSENT)
		return NVML_ERROR_NOT_SUPPORTED;
	if (*count < pages) {
		*count = (unsigned int)pages;
		return NVML_ERROR_INSUFFICIENT_SIZE;
	}
	*count = (unsigned int)pages;
	for (uint64_t i = 0; i < pages && addresses != NULL; i++) {
		addresses[i] = (i + 1) << 16;
		if (timestamps != NULL)
			timestamps[i] = gpu->updated / 1000000;
	}
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t device, nvmlPageRetirementCause_t cause, unsigned int *count, unsigned long long *addresses)
{
	return retired(device, cause, count, addresses, NULL);
}

nvmlReturn_t nvmlDeviceGetRetiredPages_v2(nvmlDevice_t device, nvmlPageRetirementCause_t cause, unsigned int *count,
	unsigned long long *addresses, unsigned long long *timestamps)
{
	return retired(device, cause, count, addresses, timestamps);
}

nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t device, nvmlEnableState_t *pending)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_HEALTH, device, &gpu));
	NEED(pending);
	if (gpu->pages_pending == ABSENT)
		return NVML_ERROR_NOT_SUPPORTED;
	*pending = (nvmlEnableState_t)gpu->pages_pending;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRepairStatus(nvmlDevice_t device, nvmlRepairStatus_t *status)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_HEALTH, device, &gpu));
	NEED_VERSION(status, nvmlRepairStatus_v1);
	status->bChannelRepairPending = status->bTpcRepairPending = 0;
	return NVML_SUCCESS;
}
