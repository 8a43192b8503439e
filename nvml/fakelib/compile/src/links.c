/* PCIe, NVLink and the fabric. */
#include "fake.h"

nvmlReturn_t nvmlDeviceGetCurrPcieLinkGeneration(nvmlDevice_t device, unsigned int *generation)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_LINKS, device, &gpu));
	return tell(gpu->pcie_generation, generation);
}

nvmlReturn_t nvmlDeviceGetMaxPcieLinkGeneration(nvmlDevice_t device, unsigned int *generation)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_LINKS, device, &gpu));
	return tell(gpu->pcie_max_generation, generation);
}

nvmlReturn_t nvmlDeviceGetGpuMaxPcieLinkGeneration(nvmlDevice_t device, unsigned int *generation)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_LINKS, device, &gpu));
	return tell(gpu->pcie_max_generation_gpu, generation);
}

nvmlReturn_t nvmlDeviceGetCurrPcieLinkWidth(nvmlDevice_t device, unsigned int *width)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_LINKS, device, &gpu));
	return tell(gpu->pcie_width, width);
}

nvmlReturn_t nvmlDeviceGetMaxPcieLinkWidth(nvmlDevice_t device, unsigned int *width)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_LINKS, device, &gpu));
	return tell(gpu->pcie_max_width, width);
}

nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, nvmlPcieUtilCounter_t counter, unsigned int *kbps)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_LINKS, device, &gpu));
	if ((unsigned int)counter >= NVML_PCIE_UTIL_COUNT)
		return NVML_ERROR_INVALID_ARGUMENT;
	return tell(counter == NVML_PCIE_UTIL_TX_BYTES ? gpu->pcie_sent_kbps : gpu->pcie_received_kbps, kbps);
}

nvmlReturn_t nvmlDeviceGetPcieReplayCounter(nvmlDevice_t device, unsigned int *replays)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_LINKS, device, &gpu));
	return tell(gpu->pcie_replays, replays);
}

static nvmlReturn_t link_of(nvmlDevice_t device, unsigned int number, struct gpu **gpu, struct link **link)
{
	TRY(enter_gpu(GROUP_LINKS, device, gpu));
	if ((*gpu)->links == 0)
		return NVML_ERROR_NOT_SUPPORTED;
	if (number >= (*gpu)->links)
		return NVML_ERROR_INVALID_ARGUMENT;
	*link = &(*gpu)->link[number];
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int number, nvmlEnableState_t *active)
{
	struct link *link;
	struct gpu *gpu;

	TRY(link_of(device, number, &gpu, &link));
	NEED(active);
	*active = link->state == NVML_NVLINK_STATE_INACTIVE ? NVML_FEATURE_DISABLED : NVML_FEATURE_ENABLED;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, unsigned int number, unsigned int *version)
{
	struct link *link;
	struct gpu *gpu;

	TRY(link_of(device, number, &gpu, &link));
	return tell(gpu->link_version, version);
}

nvmlReturn_t nvmlDeviceGetNvLinkCapability(nvmlDevice_t device, unsigned int number, nvmlNvLinkCapability_t capability, unsigned int *has)
{
	struct link *link;
	struct gpu *gpu;

	TRY(link_of(device, number, &gpu, &link));
	NEED(has);
	if ((unsigned int)capability >= NVML_NVLINK_CAP_COUNT)
		return NVML_ERROR_INVALID_ARGUMENT;
	*has = capability != NVML_NVLINK_CAP_SLI_BRIDGE;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkErrorCounter(nvmlDevice_t device, unsigned int number, nvmlNvLinkErrorCounter_t counter, unsigned long long *count)
{
	struct link *link;
	struct gpu *gpu;

	TRY(link_of(device, number, &gpu, &link));
	if (gpu->link_version >= NVML_NVLINK_VERSION_5_0)
		return NVML_ERROR_NOT_SUPPORTED;
	switch (counter) {
	case NVML_NVLINK_ERROR_DL_REPLAY: return tell_long(link->replays, count);
	case NVML_NVLINK_ERROR_DL_RECOVERY: return tell_long(link->recoveries, count);
	case NVML_NVLINK_ERROR_DL_CRC_FLIT: return tell_long(link->crc_errors, count);
	case NVML_NVLINK_ERROR_DL_CRC_DATA: return tell_long(link->crc_data_errors, count);
	default: return NVML_ERROR_NOT_SUPPORTED;
	}
}

/* What is at the other end is an NVSwitch, one for every three links. */
nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int number, nvmlPciInfo_t *pci)
{
	char address[24];
	struct link *link;
	struct gpu *gpu;

	TRY(link_of(device, number, &gpu, &link));
	NEED(pci);
	snprintf(address, sizeof address, "0000:%02x:00.0", 5 + number / 3);
	fill_pci(address, NULL, pci);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo(nvmlDevice_t device, unsigned int number, nvmlPciInfo_t *pci)
{
	return nvmlDeviceGetNvLinkRemotePciInfo_v2(device, number, pci);
}

nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned int number, nvmlIntNvLinkDeviceType_t *type)
{
	struct link *link;
	struct gpu *gpu;

	TRY(link_of(device, number, &gpu, &link));
	NEED(type);
	*type = NVML_NVLINK_DEVICE_TYPE_SWITCH;
	return NVML_SUCCESS;
}

static nvmlReturn_t fabric_of(nvmlDevice_t device, struct gpu **gpu)
{
	TRY(enter_gpu(GROUP_LINKS, device, gpu));
	return (*gpu)->fabric.state == NVML_GPU_FABRIC_STATE_NOT_SUPPORTED ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, nvmlGpuFabricInfo_t *info)
{
	struct gpu *gpu;

	TRY(fabric_of(device, &gpu));
	NEED(info);
	memcpy(info->clusterUuid, gpu->fabric.cluster, sizeof info->clusterUuid);
	info->status = (nvmlReturn_t)gpu->fabric.status;
	info->cliqueId = gpu->fabric.clique;
	info->state = (nvmlGpuFabricState_t)gpu->fabric.state;
	return NVML_SUCCESS;
}

/* nvmlDeviceGetGpuFabricInfoV: version 3 ends with what version 2 has not. */
nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfoV_t *info)
{
	struct gpu *gpu;

	TRY(fabric_of(device, &gpu));
	NEED(info);
	if (info->version != nvmlGpuFabricInfo_v2 && info->version != nvmlGpuFabricInfo_v3)
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	memcpy(info->clusterUuid, gpu->fabric.cluster, sizeof info->clusterUuid);
	info->status = (nvmlReturn_t)gpu->fabric.status;
	info->cliqueId = gpu->fabric.clique;
	info->state = (nvmlGpuFabricState_t)gpu->fabric.state;
	info->healthMask = gpu->fabric.mask;
	if (info->version == nvmlGpuFabricInfo_v3)
		info->healthSummary = (unsigned char)gpu->fabric.summary;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuFabricInfo_v4(nvmlDevice_t device, nvmlGpuFabricInfo_v4_t *info)
{
	struct gpu *gpu;

	TRY(fabric_of(device, &gpu));
	NEED(info);
	memset(info, 0, sizeof *info);
	memcpy(info->clusterUuid, gpu->fabric.cluster, sizeof info->clusterUuid);
	info->status = (nvmlReturn_t)gpu->fabric.status;
	info->cliques[0] = (nvmlGpuFabricClique_v1_t){ NVML_GPU_FABRIC_CLIQUE_TYPE_UNICAST_POINTER, gpu->fabric.clique };
	info->numCliques = 1;
	info->state = (nvmlGpuFabricState_t)gpu->fabric.state;
	info->healthMask = gpu->fabric.mask;
	info->healthSummary = (unsigned char)gpu->fabric.summary;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPlatformInfo(nvmlDevice_t device, nvmlPlatformInfo_t *info)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_LINKS, device, &gpu));
	NEED(info);
	if (info->version != nvmlPlatformInfo_v1 && info->version != nvmlPlatformInfo_v2)
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	if (gpu->links == 0)
		return NVML_ERROR_NOT_SUPPORTED;
	*info = (nvmlPlatformInfo_t){ .version = info->version, .peerType = 1, .moduleId = (unsigned char)gpu->module };
	return NVML_SUCCESS;
}
