/* The driver as a whole. */
#include "fake.h"

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
	TRY(enter(GROUP_LOOKUP));
	return tell_text(page->driver, version, length);
}

/* nvmlSystemGetNVMLVersion: the major version of CUDA before that of the driver. */
nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
	char text[64];

	TRY(enter(GROUP_LOOKUP));
	snprintf(text, sizeof text, "%u.%s", page->cuda / 1000, page->driver);
	return tell_text(text, version, length);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
	TRY(enter(GROUP_LOOKUP));
	NEED(version);
	*version = (int)page->cuda;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
	return nvmlSystemGetCudaDriverVersion_v2(version);
}

nvmlReturn_t nvmlSystemGetDriverBranch(nvmlSystemDriverBranchInfo_t *info, unsigned int length)
{
	char text[16];

	TRY(enter(GROUP_LOOKUP));
	NEED_VERSION(info, nvmlSystemDriverBranchInfo_v1);
	snprintf(text, sizeof text, "r%.3s_00", page->driver);
	return tell_text(text, info->branch, length);
}

static nvmlReturn_t excluded_count(unsigned int *count)
{
	TRY(enter(GROUP_LOOKUP));
	return tell(page->exclusions, count);
}

static nvmlReturn_t excluded_info(unsigned int index, nvmlExcludedDeviceInfo_t *info)
{
	TRY(enter(GROUP_LOOKUP));
	NEED(info);
	if (index >= page->exclusions)
		return NVML_ERROR_INVALID_ARGUMENT;
	memset(info, 0, sizeof *info);
	fill_pci(page->excluded[index].pci, NULL, &info->pciInfo);
	return tell_text(page->excluded[index].uuid, info->uuid, sizeof info->uuid);
}

nvmlReturn_t nvmlGetExcludedDeviceCount(unsigned int *count)
{
	return excluded_count(count);
}

nvmlReturn_t nvmlGetExcludedDeviceInfoByIndex(unsigned int index, nvmlExcludedDeviceInfo_t *info)
{
	return excluded_info(index, info);
}

/* What they were called up to R450. */
nvmlReturn_t nvmlGetBlacklistDeviceCount(unsigned int *count);
nvmlReturn_t nvmlGetBlacklistDeviceInfoByIndex(unsigned int index, nvmlExcludedDeviceInfo_t *info);

nvmlReturn_t nvmlGetBlacklistDeviceCount(unsigned int *count)
{
	return excluded_count(count);
}

nvmlReturn_t nvmlGetBlacklistDeviceInfoByIndex(unsigned int index, nvmlExcludedDeviceInfo_t *info)
{
	return excluded_info(index, info);
}

const char *nvmlErrorString(nvmlReturn_t code)
{
	switch (code) {
	case NVML_SUCCESS: return "Success";
	case NVML_ERROR_UNINITIALIZED: return "Uninitialized";
	case NVML_ERROR_INVALID_ARGUMENT: return "Invalid Argument";
	case NVML_ERROR_NOT_SUPPORTED: return "Not Supported";
	case NVML_ERROR_NO_PERMISSION: return "Insufficient Permissions";
	case NVML_ERROR_ALREADY_INITIALIZED: return "Already Initialized";
	case NVML_ERROR_NOT_FOUND: return "Not Found";
	case NVML_ERROR_INSUFFICIENT_SIZE: return "Insufficient Size";
	case NVML_ERROR_INSUFFICIENT_POWER: return "Insufficient External Power";
	case NVML_ERROR_DRIVER_NOT_LOADED: return "Driver Not Loaded";
	case NVML_ERROR_TIMEOUT: return "Timeout";
	case NVML_ERROR_IRQ_ISSUE: return "Interrupt Request Issue";
	case NVML_ERROR_LIBRARY_NOT_FOUND: return "NVML Shared Library Not Found";
	case NVML_ERROR_FUNCTION_NOT_FOUND: return "Function Not Found";
	case NVML_ERROR_CORRUPTED_INFOROM: return "Corrupted infoROM";
	case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
	case NVML_ERROR_RESET_REQUIRED: return "GPU requires reset";
	case NVML_ERROR_OPERATING_SYSTEM: return "GPU access blocked by the operating system";
	case NVML_ERROR_LIB_RM_VERSION_MISMATCH: return "Driver/library version mismatch";
	case NVML_ERROR_IN_USE: return "In use by another client";
	case NVML_ERROR_MEMORY: return "Insufficient Memory";
	case NVML_ERROR_NO_DATA: return "No data";
	case NVML_ERROR_INSUFFICIENT_RESOURCES: return "Insufficient Resources";
	case NVML_ERROR_ARGUMENT_VERSION_MISMATCH: return "Argument version mismatch";
	case NVML_ERROR_NOT_READY: return "Not ready";
	case NVML_ERROR_GPU_NOT_FOUND: return "No GPUs found";
	case NVML_ERROR_INVALID_STATE: return "Invalid state";
	default: return "Unknown Error";
	}
}
