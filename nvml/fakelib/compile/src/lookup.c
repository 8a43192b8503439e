/* From an index, an address or a UUID to a handle. */
#include "fake.h"

bool parse_pci(const char *text, unsigned int *domain, unsigned int *bus, unsigned int *device)
{
	if (sscanf(text, "%x:%x:%x", domain, bus, device) == 3)
		return true;
	*domain = 0;
	return sscanf(text, "%x:%x", bus, device) == 2;
}

static nvmlReturn_t give(uint32_t gpu, uint32_t instance, nvmlDevice_t *out)
{
	TRY(touch(gpu));
	*out = (nvmlDevice_t)handle_of(gpu, instance, HANDLE_DEVICE);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
	TRY(enter(GROUP_LOOKUP));
	NEED(count);
	*count = 0;
	for (uint32_t i = 0; i < page->gpus; i++)
		*count += LOAD(page->gpu[i].present) != 0;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCount(unsigned int *count)
{
	return nvmlDeviceGetCount_v2(count);
}

/* nvmlDeviceGetHandleByIndex_v2: indexes are in PCI order, without gaps. */
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
	TRY(enter(GROUP_LOOKUP));
	NEED(device);
	for (uint32_t i = 0; i < page->gpus; i++)
		if (LOAD(page->gpu[i].present) && index-- == 0)
			return give(i, WHOLE_GPU, device);
	return NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device)
{
	return nvmlDeviceGetHandleByIndex_v2(index, device);
}

/* nvmlDeviceGetHandleByPciBusId_v2 touches no GPU but the one at the address. */
nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *address, nvmlDevice_t *device)
{
	unsigned int domain, bus, slot, d, b, s;

	TRY(enter(GROUP_LOOKUP));
	NEED(address);
	NEED(device);
	if (!parse_pci(address, &domain, &bus, &slot))
		return NVML_ERROR_INVALID_ARGUMENT;
	for (uint32_t i = 0; i < page->gpus; i++)
		if (LOAD(page->gpu[i].present) && parse_pci(page->gpu[i].pci, &d, &b, &s) &&
		    d == domain && b == bus && s == slot)
			return give(i, WHOLE_GPU, device);
	return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *address, nvmlDevice_t *device)
{
	return nvmlDeviceGetHandleByPciBusId_v2(address, device);
}

/*
 * NVML may initialise other GPUs while it searches by UUID or serial number.
 * Here it does: it touches each up to the one that is meant. One that is lost
 * cannot be asked for its name and is passed over.
 */
static nvmlReturn_t search(bool (*is)(const struct gpu *gpu, const char *key, uint32_t *instance), const char *key, nvmlDevice_t *out)
{
	TRY(enter(GROUP_LOOKUP));
	NEED(key);
	NEED(out);
	for (uint32_t i = 0; i < page->gpus; i++) {
		uint32_t instance = WHOLE_GPU;

		if (!LOAD(page->gpu[i].present))
			continue;
		if (is(&page->gpu[i], key, &instance))
			return give(i, instance, out);
		if (touch(i) == NVML_ERROR_UNINITIALIZED)
			return NVML_ERROR_UNINITIALIZED;
	}
	return NVML_ERROR_NOT_FOUND;
}

static bool has_uuid(const struct gpu *gpu, const char *key, uint32_t *instance)
{
	if (strcasecmp(gpu->uuid, key) == 0)
		return true;
	for (uint32_t i = 0; i < MAX_INSTANCES; i++) {
		if (gpu->instance[i].present && strcasecmp(gpu->instance[i].uuid, key) == 0) {
			*instance = i;
			return true;
		}
	}
	return false;
}

static bool has_serial(const struct gpu *gpu, const char *key, uint32_t *instance)
{
	(void)instance;
	return strcmp(gpu->serial, key) == 0;
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
	return search(has_uuid, uuid, device);
}

nvmlReturn_t nvmlDeviceGetHandleByUUIDV(const nvmlUUID_t *uuid, nvmlDevice_t *device)
{
	NEED_VERSION(uuid, nvmlUUID_v1);
	if (uuid->type != NVML_UUID_TYPE_ASCII)
		return NVML_ERROR_INVALID_ARGUMENT;
	return search(has_uuid, uuid->value.str, device);
}

nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *device)
{
	return search(has_serial, serial, device);
}
