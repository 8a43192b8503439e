/* What does not change about a GPU. */
#include "fake.h"

void fill_pci(const char *address, const struct gpu *gpu, nvmlPciInfo_t *out)
{
	memset(out, 0, sizeof *out);
	parse_pci(address, &out->domain, &out->bus, &out->device);
	if (gpu != NULL) {
		out->pciDeviceId = gpu->pci_device;
		out->pciSubSystemId = gpu->pci_subsystem;
	}
	snprintf(out->busId, sizeof out->busId, "%08X:%02X:%02X.0", out->domain, out->bus & 0xff, out->device & 0x1f);
	snprintf(out->busIdLegacy, sizeof out->busIdLegacy, "%04X:%02X:%02X.0", out->domain & 0xffff, out->bus & 0xff, out->device & 0x1f);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
	struct instance *instance;
	struct gpu *gpu;

	TRY(enter_device(GROUP_IDENTITY, device, &gpu, &instance));
	NEED(pci);
	fill_pci(gpu->pci, gpu, pci);
	return NVML_SUCCESS;
}

/* nvmlDeviceGetPciInfo_v2 has what is before the long address alone. */
nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
	nvmlPciInfo_t whole;

	TRY(nvmlDeviceGetPciInfo_v3(device, &whole));
	NEED(pci);
	memcpy(pci, &whole, offsetof(nvmlPciInfo_t, busId));
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
	return nvmlDeviceGetPciInfo_v2(device, pci);
}

nvmlReturn_t nvmlDeviceGetPciInfoExt(nvmlDevice_t device, nvmlPciInfoExt_t *pci)
{
	struct gpu *gpu;
	nvmlPciInfo_t whole;

	TRY(enter_gpu(GROUP_IDENTITY, device, &gpu));
	NEED_VERSION(pci, nvmlPciInfoExt_v1);
	fill_pci(gpu->pci, gpu, &whole);
	*pci = (nvmlPciInfoExt_t){
		.version = pci->version, .domain = whole.domain, .bus = whole.bus, .device = whole.device,
		.pciDeviceId = whole.pciDeviceId, .pciSubSystemId = whole.pciSubSystemId,
		.baseClass = 0x03, .subClass = 0x02,
	};
	memcpy(pci->busId, whole.busId, sizeof pci->busId);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
	struct instance *instance;
	struct gpu *gpu;
	char text[128];

	TRY(enter_device(GROUP_IDENTITY, device, &gpu, &instance));
	if (instance == NULL)
		return tell_text(gpu->name, name, length);
	snprintf(text, sizeof text, "%s MIG %s", gpu->name, instance->name);
	return tell_text(text, name, length);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
	struct instance *instance;
	struct gpu *gpu;

	TRY(enter_device(GROUP_IDENTITY, device, &gpu, &instance));
	return tell_text(instance == NULL ? gpu->uuid : instance->uuid, uuid, length);
}

nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned int length)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_IDENTITY, device, &gpu));
	return tell_text(gpu->serial, serial, length);
}

nvmlReturn_t nvmlDeviceGetVbiosVersion(nvmlDevice_t device, char *version, unsigned int length)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_IDENTITY, device, &gpu));
	return tell_text(gpu->vbios, version, length);
}

nvmlReturn_t nvmlDeviceGetBoardPartNumber(nvmlDevice_t device, char *number, unsigned int length)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_IDENTITY, device, &gpu));
	return tell_text(gpu->part, number, length);
}

nvmlReturn_t nvmlDeviceGetGspFirmwareVersion(nvmlDevice_t device, char *version)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_IDENTITY, device, &gpu));
	return tell_text(page->driver, version, NVML_GSP_FIRMWARE_VERSION_BUF_SIZE);
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_IDENTITY, device, &gpu));
	NEED(index);
	*index = 0;
	for (uint32_t i = 0; i < device->handle.gpu; i++)
		*index += LOAD(page->gpu[i].present) != 0;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_IDENTITY, device, &gpu));
	return tell(gpu->minor, minor);
}

nvmlReturn_t nvmlDeviceGetModuleId(nvmlDevice_t device, unsigned int *module)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_IDENTITY, device, &gpu));
	return tell(gpu->links == 0 ? ABSENT : gpu->module, module);
}

nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, nvmlDeviceArchitecture_t *architecture)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_IDENTITY, device, &gpu));
	return tell(gpu->architecture, architecture);
}

nvmlReturn_t nvmlDeviceGetBrand(nvmlDevice_t device, nvmlBrandType_t *brand)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_IDENTITY, device, &gpu));
	NEED(brand);
	*brand = (nvmlBrandType_t)gpu->brand;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetAddressingMode(nvmlDevice_t device, nvmlDeviceAddressingMode_t *mode)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_IDENTITY, device, &gpu));
	NEED_VERSION(mode, nvmlDeviceAddressingMode_v1);
	return tell(gpu->addressing, &mode->value);
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
	struct instance *instance;
	struct gpu *gpu;

	TRY(enter_device(GROUP_IDENTITY, device, &gpu, &instance));
	NEED(major);
	NEED(minor);
	*major = (int)gpu->capability_major;
	*minor = (int)gpu->capability_minor;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNumGpuCores(nvmlDevice_t device, unsigned int *cores)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_IDENTITY, device, &gpu));
	return tell(gpu->cores, cores);
}

nvmlReturn_t nvmlDeviceGetMemoryBusWidth(nvmlDevice_t device, unsigned int *width)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_IDENTITY, device, &gpu));
	return tell(gpu->bus_width, width);
}

nvmlReturn_t nvmlDeviceGetBusType(nvmlDevice_t device, nvmlBusType_t *type)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_IDENTITY, device, &gpu));
	NEED(type);
	*type = NVML_BUS_TYPE_PCIE;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, nvmlEnableState_t *mode)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_IDENTITY, device, &gpu));
	NEED(mode);
	*mode = (nvmlEnableState_t)gpu->persistence;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, nvmlComputeMode_t *mode)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_IDENTITY, device, &gpu));
	NEED(mode);
	*mode = NVML_COMPUTEMODE_DEFAULT;
	return NVML_SUCCESS;
}
