/* What the driver keeps of the recent past: nvmlDeviceGetSamples, and GPM. */
#include "fake.h"

#include <sched.h>

static bool value_of(const struct sample *sample, nvmlSamplingType_t type, unsigned int *value)
{
	switch (type) {
	case NVML_TOTAL_POWER_SAMPLES: *value = sample->power_mw; return true;
	case NVML_GPU_UTILIZATION_SAMPLES: *value = sample->utilization; return true;
	case NVML_MEMORY_UTILIZATION_SAMPLES: *value = sample->memory_utilization; return true;
	case NVML_PROCESSOR_CLK_SAMPLES: *value = sample->sm_mhz; return true;
	case NVML_MEMORY_CLK_SAMPLES: *value = sample->memory_mhz; return true;
	default: return false;
	}
}

/*
 * consistent copies a part of a GPU that is not just being written. It takes
 * what is there once it has waited for much longer than a write can take: the
 * writer may have been killed in the middle of one.
 */
static void consistent(const struct gpu *gpu, const void *part, void *copy, size_t size)
{
	uint64_t before, deadline = now_us() + 100000;

	do {
		while ((before = LOAD(gpu->sequence)) & 1 && now_us() < deadline)
			sched_yield();
		memcpy(copy, part, size);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (LOAD(gpu->sequence) != before && now_us() < deadline);
}

nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t device, nvmlSamplingType_t type, unsigned long long last_seen,
	nvmlValueType_t *value_type, unsigned int *count, nvmlSample_t *samples)
{
	struct { uint64_t taken; struct sample sample[MAX_SAMPLES]; } recent;
	unsigned int room, found = 0, value;
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_SAMPLES, device, &gpu));
	NEED(value_type);
	NEED(count);
	room = *count;
	if (samples != NULL && room == 0)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (!value_of(&gpu->sample[0], type, &value))
		return NVML_ERROR_NOT_SUPPORTED;
	if (gpu->mig_mode && (type == NVML_GPU_UTILIZATION_SAMPLES || type == NVML_MEMORY_UTILIZATION_SAMPLES))
		return NVML_ERROR_NOT_SUPPORTED;
	consistent(gpu, &gpu->samples, &recent, sizeof recent);
	*value_type = NVML_VALUE_TYPE_UNSIGNED_INT;
	for (uint64_t i = recent.taken > MAX_SAMPLES ? recent.taken - MAX_SAMPLES : 0; i < recent.taken; i++) {
		const struct sample *sample = &recent.sample[i % MAX_SAMPLES];

		if (sample->time <= last_seen)
			continue;
		if (samples != NULL) {
			if (found == room)
				break;
			value_of(sample, type, &value);
			samples[found].timeStamp = sample->time;
			samples[found].sampleValue.ullVal = value;
		}
		found++;
	}
	*count = found;
	return found > 0 ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}

struct nvmlGpmSample_st {
	bool taken;
	struct {
		uint64_t updated;
		uint64_t present[MAX_METRICS / 64];
		uint64_t metric[MAX_METRICS];
	} at;
};

_Static_assert(offsetof(struct gpu, metric) - offsetof(struct gpu, updated) ==
	offsetof(struct nvmlGpmSample_st, at.metric) - offsetof(struct nvmlGpmSample_st, at.updated), "a sample is the end of a GPU");
_Static_assert(offsetof(struct gpu, sample) == offsetof(struct gpu, samples) + sizeof(uint64_t), "the samples follow their number");

nvmlReturn_t nvmlGpmQueryDeviceSupport(nvmlDevice_t device, nvmlGpmSupport_t *support)
{
	struct instance *instance;
	struct gpu *gpu;

	TRY(enter_device(GROUP_GPM, device, &gpu, &instance));
	NEED(support);
	if (support->version != NVML_GPM_SUPPORT_VERSION)
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	support->isSupportedDevice = gpu->has_gpm;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmSampleAlloc(nvmlGpmSample_t *sample)
{
	TRY(enter(GROUP_GPM));
	NEED(sample);
	*sample = calloc(1, sizeof **sample);
	return *sample != NULL ? NVML_SUCCESS : NVML_ERROR_MEMORY;
}

nvmlReturn_t nvmlGpmSampleFree(nvmlGpmSample_t sample)
{
	NEED(sample);
	free(sample);
	return NVML_SUCCESS;
}

static nvmlReturn_t take_sample(const struct gpu *gpu, nvmlGpmSample_t sample)
{
	NEED(sample);
	if (!gpu->has_gpm)
		return NVML_ERROR_NOT_SUPPORTED;
	consistent(gpu, &gpu->updated, &sample->at, sizeof sample->at);
	sample->taken = true;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmSampleGet(nvmlDevice_t device, nvmlGpmSample_t sample)
{
	struct instance *instance;
	struct gpu *gpu;

	TRY(enter_device(GROUP_GPM, device, &gpu, &instance));
	return take_sample(gpu, sample);
}

/* nvmlGpmMigSampleGet: an instance is as busy as its GPU. */
nvmlReturn_t nvmlGpmMigSampleGet(nvmlDevice_t device, unsigned int gi, nvmlGpmSample_t sample)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_GPM, device, &gpu));
	for (uint32_t i = 0; i < MAX_INSTANCES; i++)
		if (gpu->instance[i].present && gpu->instance[i].gi == gi)
			return take_sample(gpu, sample);
	return NVML_ERROR_NOT_FOUND;
}

static nvmlReturn_t rate(const struct nvmlGpmSample_st *a, const struct nvmlGpmSample_st *b, nvmlGpmMetric_t *out)
{
	unsigned int id = out->metricId;
	uint64_t us = b->at.updated - a->at.updated;

	out->value = NAN;
	memset(&out->metricInfo, 0, sizeof out->metricInfo);
	if (id == 0 || id >= NVML_GPM_METRIC_MAX)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (id >= MAX_METRICS || !(b->at.present[id / 64] >> (id % 64) & 1))
		return page->sentinels ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
	if (us != 0) /* else nothing can be said: NaN */
		out->value = (double)(b->at.metric[id] - a->at.metric[id]) / (double)us / 1000;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmMetricsGet(nvmlGpmMetricsGet_t *get)
{
	TRY(enter(GROUP_GPM));
	NEED(get);
	if (get->version != NVML_GPM_METRICS_GET_VERSION)
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	NEED(get->sample1);
	NEED(get->sample2);
	if (get->numMetrics > NVML_GPM_METRIC_MAX || !get->sample1->taken || !get->sample2->taken)
		return NVML_ERROR_INVALID_ARGUMENT;
	for (unsigned int i = 0; i < get->numMetrics; i++)
		get->metrics[i].nvmlReturn = rate(get->sample1, get->sample2, &get->metrics[i]);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmQueryIfStreamingEnabled(nvmlDevice_t device, unsigned int *state)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_GPM, device, &gpu));
	return tell(gpu->has_gpm ? 0 : ABSENT, state);
}
