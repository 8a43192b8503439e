/* Who uses a GPU. */
#include "fake.h"

/* A process as each version of the list has it; version 2 and later have the instances. */
static void write_process(const struct process *process, unsigned int version, unsigned int place, void *out)
{
	if (version == 1) {
		((nvmlProcessInfo_v1_t *)out)[place] = (nvmlProcessInfo_v1_t){ process->pid, process->memory };
		return;
	}
	((nvmlProcessInfo_v2_t *)out)[place] = (nvmlProcessInfo_v2_t){ process->pid, process->memory, process->gi, process->ci };
}

static bool belongs(const struct process *process, uint32_t kind, const struct instance *instance)
{
	return process->kind == kind &&
		(instance == NULL || (process->gi == instance->gi && process->ci == instance->ci));
}

static nvmlReturn_t list(nvmlDevice_t device, uint32_t kind, unsigned int version, unsigned int *count, void *out)
{
	unsigned int room, found = 0;
	struct instance *instance;
	struct gpu *gpu;

	TRY(enter_device(GROUP_PROCESSES, device, &gpu, &instance));
	NEED(count);
	room = out == NULL ? 0 : *count;
	for (uint32_t i = 0; i < gpu->processes; i++) {
		if (!belongs(&gpu->process[i], kind, instance))
			continue;
		if (found < room)
			write_process(&gpu->process[i], version, found, out);
		found++;
	}
	*count = found;
	return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos)
{
	return list(device, PROCESS_COMPUTE, 3, count, infos);
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v2_t *infos)
{
	return list(device, PROCESS_COMPUTE, 2, count, infos);
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v1_t *infos)
{
	return list(device, PROCESS_COMPUTE, 1, count, infos);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos)
{
	return list(device, PROCESS_GRAPHICS, 3, count, infos);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v2(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v2_t *infos)
{
	return list(device, PROCESS_GRAPHICS, 2, count, infos);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v1_t *infos)
{
	return list(device, PROCESS_GRAPHICS, 1, count, infos);
}

nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos)
{
	return list(device, PROCESS_MPS, 3, count, infos);
}

nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v2_t *infos)
{
	return list(device, PROCESS_MPS, 2, count, infos);
}

nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v1_t *infos)
{
	return list(device, PROCESS_MPS, 1, count, infos);
}

nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_t *all)
{
	static const uint32_t kinds[] = {
		[NVML_PROCESS_MODE_COMPUTE] = PROCESS_COMPUTE, [NVML_PROCESS_MODE_GRAPHICS] = PROCESS_GRAPHICS, [NVML_PROCESS_MODE_MPS] = PROCESS_MPS,
	};
	unsigned int room, found = 0;
	struct instance *instance;
	struct gpu *gpu;

	TRY(enter_device(GROUP_PROCESSES, device, &gpu, &instance));
	NEED_VERSION(all, nvmlProcessDetailList_v1);
	if (all->mode >= NVML_PROCESS_MODE_MAX)
		return NVML_ERROR_INVALID_ARGUMENT;
	room = all->procArray == NULL ? 0 : all->numProcArrayEntries;
	for (uint32_t i = 0; i < gpu->processes; i++) {
		const struct process *process = &gpu->process[i];

		if (!belongs(process, all->mode == NVML_PROCESS_MODE_ALL ? process->kind : kinds[all->mode], instance))
			continue;
		if (found < room)
			all->procArray[found] = (nvmlProcessDetail_v1_t){ process->pid, process->memory, process->gi, process->ci, 0 };
		found++;
	}
	all->numProcArrayEntries = found;
	return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

/* utilizations: how many processes were at work since last_seen. MIG GPUs cannot say. */
static nvmlReturn_t utilizations(nvmlDevice_t device, unsigned long long last_seen, struct gpu **gpu, unsigned int *count)
{
	TRY(enter_gpu(GROUP_PROCESSES, device, gpu));
	NEED(count);
	if ((*gpu)->mig_mode)
		return NVML_ERROR_NOT_SUPPORTED;
	if ((*gpu)->processes == 0 || (*gpu)->updated <= last_seen)
		return NVML_ERROR_NOT_FOUND;
	if (*count < (*gpu)->processes) {
		*count = (*gpu)->processes;
		return NVML_ERROR_INSUFFICIENT_SIZE;
	}
	*count = (*gpu)->processes;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *out, unsigned int *count, unsigned long long last_seen)
{
	struct gpu *gpu;

	if (out == NULL && count != NULL)
		*count = 0;
	TRY(utilizations(device, last_seen, &gpu, count));
	for (unsigned int i = 0; i < *count; i++) {
		const struct process *p = &gpu->process[i];

		out[i] = (nvmlProcessUtilizationSample_t){ p->pid, gpu->updated, p->sm, p->memory_utilization, p->encoder, p->decoder };
	}
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t device, nvmlProcessesUtilizationInfo_t *all)
{
	struct gpu *gpu;

	NEED_VERSION(all, nvmlProcessesUtilizationInfo_v1);
	if (all->procUtilArray == NULL)
		all->processSamplesCount = 0;
	TRY(utilizations(device, all->lastSeenTimeStamp, &gpu, &all->processSamplesCount));
	for (unsigned int i = 0; i < all->processSamplesCount; i++) {
		const struct process *p = &gpu->process[i];

		all->procUtilArray[i] = (nvmlProcessUtilizationInfo_v1_t){
			.timeStamp = gpu->updated, .pid = p->pid,
			.smUtil = p->sm, .memUtil = p->memory_utilization, .encUtil = p->encoder, .decUtil = p->decoder,
		};
	}
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
	TRY(enter(GROUP_PROCESSES));
	for (uint32_t i = 0; i < page->gpus; i++)
		for (uint32_t j = 0; j < page->gpu[i].processes; j++)
			if (page->gpu[i].process[j].pid == pid)
				return tell_text(page->gpu[i].process[j].name, name, length);
	return NVML_ERROR_NOT_FOUND;
}
