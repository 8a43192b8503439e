/* GPUs that are cut into instances. The page is read-only: none is made here. */
#include "fake.h"

static nvmlReturn_t enter_mig(nvmlDevice_t device, struct gpu **gpu)
{
	TRY(enter_gpu(GROUP_MIG, device, gpu));
	return (*gpu)->has_mig ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending)
{
	struct gpu *gpu;

	TRY(enter_mig(device, &gpu));
	NEED(current);
	NEED(pending);
	*current = LOAD(gpu->mig_mode);
	*pending = LOAD(gpu->mig_next);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceSetMigMode(nvmlDevice_t device, unsigned int mode, nvmlReturn_t *activation)
{
	struct gpu *gpu;

	(void)mode;
	(void)activation;
	TRY(enter_mig(device, &gpu));
	return NVML_ERROR_NO_PERMISSION;
}

nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *is)
{
	struct instance *instance;
	struct gpu *gpu;

	TRY(enter_device(GROUP_MIG, device, &gpu, &instance));
	NEED(is);
	*is = instance != NULL;
	return NVML_SUCCESS;
}

/* nvmlDeviceGetMaxMigDeviceCount is 0 for GPUs that know nothing of MIG. */
nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_MIG, device, &gpu));
	NEED(count);
	*count = gpu->has_mig ? 7 : 0;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *out)
{
	struct gpu *gpu;

	TRY(enter_mig(device, &gpu));
	NEED(out);
	if (index >= MAX_INSTANCES)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (!gpu->mig_mode || !LOAD(gpu->instance[index].present))
		return NVML_ERROR_NOT_FOUND;
	*out = (nvmlDevice_t)handle_of(device->handle.gpu, index, HANDLE_DEVICE);
	return NVML_SUCCESS;
}

static nvmlReturn_t enter_instance(nvmlDevice_t device, struct gpu **gpu, struct instance **instance)
{
	TRY(enter_device(GROUP_MIG, device, gpu, instance));
	return *instance != NULL ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t device, nvmlDevice_t *out)
{
	struct instance *instance;
	struct gpu *gpu;

	TRY(enter_instance(device, &gpu, &instance));
	NEED(out);
	*out = (nvmlDevice_t)handle_of(device->handle.gpu, WHOLE_GPU, HANDLE_DEVICE);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *id)
{
	struct instance *instance;
	struct gpu *gpu;

	TRY(enter_instance(device, &gpu, &instance));
	return tell(instance->gi, id);
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *id)
{
	struct instance *instance;
	struct gpu *gpu;

	TRY(enter_instance(device, &gpu, &instance));
	return tell(instance->ci, id);
}

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *out)
{
	const struct profile *profile;
	struct instance *instance;
	struct gpu *gpu;

	TRY(enter_instance(device, &gpu, &instance));
	NEED(out);
	profile = &gpu->profile[instance->profile];
	*out = (nvmlDeviceAttributes_t){
		.multiprocessorCount = instance->multiprocessors,
		.sharedCopyEngineCount = profile->copy_engines,
		.sharedDecoderCount = profile->decoders,
		.sharedEncoderCount = profile->encoders,
		.sharedJpegCount = profile->jpeg,
		.sharedOfaCount = profile->ofa,
		.gpuInstanceSliceCount = profile->slices,
		.computeInstanceSliceCount = instance->ci_slices,
		.memorySizeMB = profile->memory_mb,
	};
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetAttributes(nvmlDevice_t device, nvmlDeviceAttributes_t *out)
{
	return nvmlDeviceGetAttributes_v2(device, out);
}

static const struct profile *profile_by_index(const struct gpu *gpu, unsigned int index)
{
	for (uint32_t i = 0; i < gpu->profiles; i++)
		if (gpu->profile[i].index == index)
			return &gpu->profile[i];
	return NULL;
}

static const struct profile *profile_by_id(const struct gpu *gpu, unsigned int id)
{
	for (uint32_t i = 0; i < gpu->profiles; i++)
		if (gpu->profile[i].id == id)
			return &gpu->profile[i];
	return NULL;
}

static void write_profile(const struct profile *profile, nvmlGpuInstanceProfileInfo_v2_t *out)
{
	*out = (nvmlGpuInstanceProfileInfo_v2_t){
		.version = out->version, .id = profile->id, .sliceCount = profile->slices, .instanceCount = profile->count,
		.multiprocessorCount = profile->multiprocessors, .copyEngineCount = profile->copy_engines,
		.decoderCount = profile->decoders, .encoderCount = profile->encoders,
		.jpegCount = profile->jpeg, .ofaCount = profile->ofa, .memorySizeMB = profile->memory_mb,
	};
	snprintf(out->name, sizeof out->name, "MIG %s", profile->name);
}

static nvmlReturn_t write_profile_version(const struct profile *profile, nvmlGpuInstanceProfileInfo_v2_t *out)
{
	nvmlGpuInstanceProfileInfo_v2_t second = { .version = out->version };
	nvmlGpuInstanceProfileInfo_v3_t *third = (nvmlGpuInstanceProfileInfo_v3_t *)out;

	write_profile(profile, &second);
	if (out->version == nvmlGpuInstanceProfileInfo_v2) {
		*out = second;
		return NVML_SUCCESS;
	}
	if (out->version != nvmlGpuInstanceProfileInfo_v3)
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	*third = (nvmlGpuInstanceProfileInfo_v3_t){
		.version = second.version, .id = second.id, .sliceCount = second.sliceCount, .instanceCount = second.instanceCount,
		.multiprocessorCount = second.multiprocessorCount, .copyEngineCount = second.copyEngineCount,
		.decoderCount = second.decoderCount, .encoderCount = second.encoderCount,
		.jpegCount = second.jpegCount, .ofaCount = second.ofaCount, .memorySizeMB = second.memorySizeMB,
	};
	memcpy(third->name, second.name, sizeof third->name);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoV(nvmlDevice_t device, unsigned int index, nvmlGpuInstanceProfileInfo_v2_t *info)
{
	const struct profile *profile;
	struct gpu *gpu;

	TRY(enter_mig(device, &gpu));
	NEED(info);
	if (index >= NVML_GPU_INSTANCE_PROFILE_COUNT)
		return NVML_ERROR_INVALID_ARGUMENT;
	profile = profile_by_index(gpu, index);
	return profile != NULL ? write_profile_version(profile, info) : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoByIdV(nvmlDevice_t device, unsigned int id, nvmlGpuInstanceProfileInfo_v2_t *info)
{
	const struct profile *profile;
	struct gpu *gpu;

	TRY(enter_mig(device, &gpu));
	NEED(info);
	profile = profile_by_id(gpu, id);
	return profile != NULL ? write_profile_version(profile, info) : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t device, unsigned int index, nvmlGpuInstanceProfileInfo_t *info)
{
	nvmlGpuInstanceProfileInfo_v2_t second = { .version = nvmlGpuInstanceProfileInfo_v2 };

	NEED(info);
	TRY(nvmlDeviceGetGpuInstanceProfileInfoV(device, index, &second));
	*info = (nvmlGpuInstanceProfileInfo_t){
		.id = second.id, .sliceCount = second.sliceCount, .instanceCount = second.instanceCount,
		.multiprocessorCount = second.multiprocessorCount, .copyEngineCount = second.copyEngineCount,
		.decoderCount = second.decoderCount, .encoderCount = second.encoderCount,
		.jpegCount = second.jpegCount, .ofaCount = second.ofaCount, .memorySizeMB = second.memorySizeMB,
	};
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements_v2(nvmlDevice_t device, unsigned int id, nvmlGpuInstancePlacement_t *placements, unsigned int *count)
{
	const struct profile *profile;
	unsigned int found = 0;
	struct gpu *gpu;

	TRY(enter_mig(device, &gpu));
	NEED(count);
	if ((profile = profile_by_id(gpu, id)) == NULL)
		return NVML_ERROR_NOT_SUPPORTED;
	for (unsigned int start = 0; start < 8; start++) {
		if (!(profile->starts >> start & 1))
			continue;
		if (placements != NULL)
			placements[found] = (nvmlGpuInstancePlacement_t){ start, profile->size };
		found++;
	}
	*count = found;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements(nvmlDevice_t device, unsigned int id, nvmlGpuInstancePlacement_t *placements, unsigned int *count)
{
	return nvmlDeviceGetGpuInstancePossiblePlacements_v2(device, id, placements, count);
}

/* first_of_gi: a GPU instance is named by the first MIG device in it. */
static bool first_of_gi(const struct gpu *gpu, uint32_t place)
{
	if (!gpu->instance[place].present)
		return false;
	for (uint32_t i = 0; i < place; i++)
		if (gpu->instance[i].present && gpu->instance[i].gi == gpu->instance[place].gi)
			return false;
	return true;
}

nvmlReturn_t nvmlDeviceGetGpuInstances(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *out, unsigned int *count)
{
	unsigned int found = 0;
	struct gpu *gpu;

	TRY(enter_mig(device, &gpu));
	NEED(out);
	NEED(count);
	if (!gpu->mig_mode || profile_by_id(gpu, id) == NULL)
		return NVML_ERROR_NOT_SUPPORTED;
	for (uint32_t i = 0; i < MAX_INSTANCES; i++)
		if (first_of_gi(gpu, i) && gpu->profile[gpu->instance[i].profile].id == id)
			out[found++] = (nvmlGpuInstance_t)handle_of(device->handle.gpu, i, HANDLE_GPU_INSTANCE);
	*count = found;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceById(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *out)
{
	struct gpu *gpu;

	TRY(enter_mig(device, &gpu));
	NEED(out);
	for (uint32_t i = 0; i < MAX_INSTANCES; i++) {
		if (first_of_gi(gpu, i) && gpu->instance[i].gi == id) {
			*out = (nvmlGpuInstance_t)handle_of(device->handle.gpu, i, HANDLE_GPU_INSTANCE);
			return NVML_SUCCESS;
		}
	}
	return NVML_ERROR_NOT_FOUND;
}

static nvmlReturn_t enter_handle(const struct handle *handle, enum handle_kind kind, struct gpu **gpu, struct instance **instance)
{
	TRY(enter(GROUP_MIG));
	if (handle == NULL || handle->kind != kind || handle->load != session())
		return NVML_ERROR_INVALID_ARGUMENT;
	TRY(touch(handle->gpu));
	*gpu = &page->gpu[handle->gpu];
	*instance = &(*gpu)->instance[handle->instance];
	return LOAD((*instance)->present) ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlGpuInstanceGetInfo(nvmlGpuInstance_t handle, nvmlGpuInstanceInfo_t *info)
{
	struct instance *instance;
	struct gpu *gpu;

	TRY(enter_handle((struct handle *)handle, HANDLE_GPU_INSTANCE, &gpu, &instance));
	NEED(info);
	*info = (nvmlGpuInstanceInfo_t){
		.device = (nvmlDevice_t)handle_of(handle->handle.gpu, WHOLE_GPU, HANDLE_DEVICE),
		.id = instance->gi, .profileId = gpu->profile[instance->profile].id,
		.placement = { instance->start, instance->size },
	};
	return NVML_SUCCESS;
}

static const unsigned int ci_slices[NVML_COMPUTE_INSTANCE_PROFILE_COUNT] = {
	[NVML_COMPUTE_INSTANCE_PROFILE_1_SLICE] = 1, [NVML_COMPUTE_INSTANCE_PROFILE_2_SLICE] = 2,
	[NVML_COMPUTE_INSTANCE_PROFILE_3_SLICE] = 3, [NVML_COMPUTE_INSTANCE_PROFILE_4_SLICE] = 4,
	[NVML_COMPUTE_INSTANCE_PROFILE_7_SLICE] = 7,
};

static unsigned int ci_profile(unsigned int slices)
{
	for (unsigned int i = 0; i < NVML_COMPUTE_INSTANCE_PROFILE_COUNT; i++)
		if (ci_slices[i] == slices)
			return i;
	return NVML_COMPUTE_INSTANCE_PROFILE_COUNT;
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfo(nvmlGpuInstance_t handle, unsigned int index, unsigned int engines, nvmlComputeInstanceProfileInfo_t *info)
{
	const struct profile *profile;
	struct instance *instance;
	struct gpu *gpu;

	TRY(enter_handle((struct handle *)handle, HANDLE_GPU_INSTANCE, &gpu, &instance));
	NEED(info);
	if (index >= NVML_COMPUTE_INSTANCE_PROFILE_COUNT || engines != NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED)
		return NVML_ERROR_INVALID_ARGUMENT;
	profile = &gpu->profile[instance->profile];
	if (ci_slices[index] == 0 || ci_slices[index] > profile->slices)
		return NVML_ERROR_NOT_SUPPORTED;
	*info = (nvmlComputeInstanceProfileInfo_t){
		.id = index, .sliceCount = ci_slices[index], .instanceCount = profile->slices / ci_slices[index],
		.multiprocessorCount = profile->multiprocessors * ci_slices[index] / profile->slices,
		.sharedCopyEngineCount = profile->copy_engines, .sharedDecoderCount = profile->decoders,
		.sharedEncoderCount = profile->encoders, .sharedJpegCount = profile->jpeg, .sharedOfaCount = profile->ofa,
	};
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstances(nvmlGpuInstance_t handle, unsigned int id, nvmlComputeInstance_t *out, unsigned int *count)
{
	struct instance *instance;
	unsigned int found = 0;
	struct gpu *gpu;

	TRY(enter_handle((struct handle *)handle, HANDLE_GPU_INSTANCE, &gpu, &instance));
	NEED(out);
	NEED(count);
	for (uint32_t i = 0; i < MAX_INSTANCES; i++) {
		const struct instance *other = &gpu->instance[i];

		if (other->present && other->gi == instance->gi && ci_profile(other->ci_slices) == id)
			out[found++] = (nvmlComputeInstance_t)handle_of(handle->handle.gpu, i, HANDLE_COMPUTE_INSTANCE);
	}
	*count = found;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstanceById(nvmlGpuInstance_t handle, unsigned int id, nvmlComputeInstance_t *out)
{
	struct instance *instance;
	struct gpu *gpu;

	TRY(enter_handle((struct handle *)handle, HANDLE_GPU_INSTANCE, &gpu, &instance));
	NEED(out);
	for (uint32_t i = 0; i < MAX_INSTANCES; i++) {
		if (gpu->instance[i].present && gpu->instance[i].gi == instance->gi && gpu->instance[i].ci == id) {
			*out = (nvmlComputeInstance_t)handle_of(handle->handle.gpu, i, HANDLE_COMPUTE_INSTANCE);
			return NVML_SUCCESS;
		}
	}
	return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlComputeInstanceGetInfo_v2(nvmlComputeInstance_t handle, nvmlComputeInstanceInfo_t *info)
{
	struct instance *instance;
	uint32_t first = 0;
	struct gpu *gpu;

	TRY(enter_handle((struct handle *)handle, HANDLE_COMPUTE_INSTANCE, &gpu, &instance));
	NEED(info);
	while (gpu->instance[first].gi != instance->gi || !gpu->instance[first].present)
		first++;
	*info = (nvmlComputeInstanceInfo_t){
		.device = (nvmlDevice_t)handle_of(handle->handle.gpu, WHOLE_GPU, HANDLE_DEVICE),
		.gpuInstance = (nvmlGpuInstance_t)handle_of(handle->handle.gpu, first, HANDLE_GPU_INSTANCE),
		.id = instance->ci, .profileId = ci_profile(instance->ci_slices),
		.placement = { instance->ci_start, instance->ci_slices },
	};
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlComputeInstanceGetInfo(nvmlComputeInstance_t handle, nvmlComputeInstanceInfo_t *info)
{
	return nvmlComputeInstanceGetInfo_v2(handle, info);
}
