/* Events of GPUs, in the old form and as operational events, and of the system. */
#define _GNU_SOURCE
#include "fake.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct subscription {
	bool wanted;
	uint32_t severity, log_level; /* the least */
};

struct nvmlEventSet_st {
	uint32_t load;
	uint32_t cursor; /* number of the event to look at next */
	bool overflow;   /* events were dropped since the last one that was told */
	unsigned long long types[MAX_GPUS];
	struct subscription operational[MAX_GPUS];
	bool pending; /* last is to be told as an operational event too */
	bool told;    /* last was, so that there is a context */
	struct event last;
};

struct nvmlSystemEventSet_st {
	uint32_t load;
	uint32_t cursor;
	unsigned long long types;
};

static uint64_t deadline_in(unsigned int ms)
{
	return now_us() + (uint64_t)ms * 1000;
}

/* sleep_until returns when there are events behind head, or the driver changes. */
static bool sleep_until(uint64_t deadline, uint32_t head)
{
	uint64_t now = now_us();
	struct timespec left;

	if (now >= deadline)
		return false;
	left = (struct timespec){ (time_t)((deadline - now) / 1000000), (long)((deadline - now) % 1000000) * 1000 };
	syscall(SYS_futex, &page->head, FUTEX_WAIT, head, &left, NULL, 0);
	return true;
}

/* take copies the event at the cursor, and goes on. */
static bool take(uint32_t *cursor, uint32_t head, struct event *out, bool *overflow)
{
	while (*cursor != head) {
		if (head - *cursor > MAX_EVENTS) {
			*cursor = head - MAX_EVENTS;
			*overflow = true;
		}
		*out = page->event[*cursor % MAX_EVENTS];
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		head = LOAD(page->head);
		if (head - *cursor > MAX_EVENTS)
			continue; /* it was overwritten meanwhile */
		(*cursor)++;
		return true;
	}
	return false;
}

static bool wants_operational(const struct nvmlEventSet_st *set, const struct event *event)
{
	const struct subscription *s = &set->operational[event->gpu];

	return s->wanted && event->severity >= s->severity && event->log_level >= s->log_level;
}

static bool any_lost(const struct nvmlEventSet_st *set)
{
	for (uint32_t i = 0; i < page->gpus; i++)
		if ((set->types[i] != 0 || set->operational[i].wanted) && !LOAD(page->gpu[i].unbound) &&
		    (LOAD(page->gpu[i].lost) || !LOAD(page->gpu[i].present)))
			return true;
	return false;
}

/*
 * next waits for an event that the set has asked for; operational says in which
 * form. While a GPU of the set is lost it does not wait: the caller is told so
 * each time, once there are no more events.
 */
static nvmlReturn_t next(struct nvmlEventSet_st *set, unsigned int ms, bool may_be_operational, bool *operational)
{
	uint64_t deadline = deadline_in(ms);

	TRY(enter(GROUP_EVENTS));
	NEED(set);
	if (set->pending) {
		set->pending = false;
		*operational = true;
		return NVML_SUCCESS;
	}
	for (;;) {
		uint32_t head = LOAD(page->head);
		struct event event;

		wait_while_driver_hangs();
		while (take(&set->cursor, head, &event, &set->overflow)) {
			bool bit = set->types[event.gpu] & event.type;
			bool structured = may_be_operational && wants_operational(set, &event);

			if (event.kind != EVENT_GPU || event.load != set->load || (!bit && !structured))
				continue;
			set->last = event;
			set->pending = bit && structured;
			*operational = !bit;
			return NVML_SUCCESS;
		}
		if (stale(set->load))
			return NVML_ERROR_UNINITIALIZED;
		if (any_lost(set))
			return NVML_ERROR_GPU_IS_LOST;
		if (!sleep_until(deadline, head))
			return NVML_ERROR_TIMEOUT;
	}
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
	TRY(enter(GROUP_EVENTS));
	NEED(set);
	*set = calloc(1, sizeof **set);
	if (*set == NULL)
		return NVML_ERROR_MEMORY;
	(*set)->load = session();
	(*set)->cursor = LOAD(page->head);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
	if (page == NULL || session() == 0)
		return NVML_ERROR_UNINITIALIZED;
	free(set);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_EVENTS, device, &gpu));
	return tell_long(gpu->event_types, types);
}

/* nvmlDeviceRegisterEvents: events from before this call are not told. */
nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_EVENTS, device, &gpu));
	NEED(set);
	if (types & ~gpu->event_types)
		return NVML_ERROR_NOT_SUPPORTED;
	set->types[device->handle.gpu] |= types;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int ms)
{
	bool operational;

	NEED(data);
	TRY(next(set, ms, false, &operational));
	*data = (nvmlEventData_t){
		.device = (nvmlDevice_t)handle_of(set->last.gpu, WHOLE_GPU, HANDLE_DEVICE),
		.eventType = set->last.type, .eventData = set->last.data,
		.gpuInstanceId = set->last.gi, .computeInstanceId = set->last.ci,
	};
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int ms)
{
	return nvmlEventSetWait_v2(set, data, ms);
}

/* nvmlEventSetRegisterGpuOperationalEvents_v1: drivers before CUDA 13.4 have no such events. */
nvmlReturn_t nvmlEventSetRegisterGpuOperationalEvents_v1(nvmlEventSet_t set, const nvmlGpuOperationalEventConfig_v1_t *config)
{
	TRY(enter(GROUP_EVENTS));
	NEED(set);
	NEED(config);
	if (LOAD(page->cuda) < 13040)
		return NVML_ERROR_NOT_SUPPORTED;
	for (uint32_t i = 0; i < page->gpus; i++) {
		if (strncmp(config->uuid, page->gpu[i].uuid, sizeof page->gpu[i].uuid) != 0)
			continue;
		TRY(touch(i));
		set->operational[i] = (struct subscription){ true, config->minSeverity, config->minLogLevel };
		return NVML_SUCCESS;
	}
	return NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlEventSetWait_v3(nvmlEventSet_t set, nvmlEventSetWait_v3_t *params)
{
	const struct event *event;
	unsigned int ms;
	bool operational;

	NEED(params);
	ms = params->timeoutMs;
	TRY(next(set, ms, true, &operational));
	event = &set->last;
	*params = (nvmlEventSetWait_v3_t){
		.timeoutMs = ms,
		.timestampUsec = event->time,
		.gpuInstanceId = event->gi, .computeInstanceId = event->ci,
	};
	memcpy(params->uuid, page->gpu[event->gpu].uuid, sizeof page->gpu[event->gpu].uuid);
	set->told = operational;
	if (!operational) {
		params->dataType = NVML_EVENT_DATA_TYPE_NVML_EVENT;
		params->eventType = event->type;
		params->eventData = event->data;
		return NVML_SUCCESS;
	}
	params->dataType = NVML_EVENT_DATA_TYPE_GPU_OPERATIONAL_EVENT;
	memcpy(params->sourceModule, "RM", 2);
	params->instanceId = event->number;
	params->groupCursor = event->number;
	params->traceId = event->number;
	params->severity = event->severity;
	params->logLevel = event->log_level;
	params->moduleEventCode = (unsigned int)event->data;
	params->groupSize = 1;
	params->attributes = NVML_OPERATIONAL_EVENT_ATTR_PRIMARY | (set->overflow ? NVML_OPERATIONAL_EVENT_ATTR_OVERFLOW : 0);
	params->groupAttributes = NVML_OPERATIONAL_EVENT_GROUP_ATTR_SIMULATED;
	set->overflow = false;
	return NVML_SUCCESS;
}

/* The context of an operational event is its Xid, where it has one. */
static unsigned int contexts(const struct nvmlEventSet_st *set)
{
	return set->told && set->last.type == nvmlEventTypeXidCriticalError;
}

static nvmlReturn_t context(nvmlEventSet_t set, unsigned int index)
{
	TRY(enter(GROUP_EVENTS));
	NEED(set);
	if (!set->told)
		return NVML_ERROR_NOT_FOUND;
	return index < contexts(set) ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlEventSetGetContextCount_v1(nvmlEventSet_t set, nvmlEventSetGetContextCount_v1_t *params)
{
	TRY(enter(GROUP_EVENTS));
	NEED(set);
	NEED(params);
	if (!set->told)
		return NVML_ERROR_NOT_FOUND;
	params->count = contexts(set);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetGetContextInfo_v1(nvmlEventSet_t set, nvmlEventSetGetContextInfo_v1_t *params)
{
	NEED(params);
	TRY(context(set, params->index));
	params->nvmlGpuOperationalEventContextType = NVML_GPU_OPERATIONAL_EVENT_CONTEXT_TYPE_LEGACY_XID;
	params->sourceEventContextType = 1;
	params->dataSize = sizeof(uint32_t);
	params->dataFormatVersion = 1;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetGetContextData_v1(nvmlEventSet_t set, nvmlEventSetGetContextData_v1_t *params)
{
	uint32_t xid;
	unsigned int room;

	NEED(params);
	TRY(context(set, params->index));
	room = params->dataSize;
	params->dataSize = sizeof xid;
	if (params->data == NULL || room < sizeof xid)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	xid = (uint32_t)set->last.data;
	memcpy(params->data, &xid, sizeof xid);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetGetGpuOperationalEventContextLegacyXid_v1(nvmlEventSet_t set, nvmlEventSetGetGpuOperationalEventContextLegacyXid_v1_t *params)
{
	NEED(params);
	TRY(context(set, params->index));
	params->xidCode = (unsigned int)set->last.data;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemEventSetCreate(nvmlSystemEventSetCreateRequest_t *request)
{
	TRY(enter(GROUP_EVENTS));
	NEED_VERSION(request, nvmlSystemEventSetCreateRequest_v1);
	request->set = calloc(1, sizeof *request->set);
	if (request->set == NULL)
		return NVML_ERROR_MEMORY;
	request->set->load = session();
	request->set->cursor = LOAD(page->head);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemEventSetFree(nvmlSystemEventSetFreeRequest_t *request)
{
	NEED_VERSION(request, nvmlSystemEventSetFreeRequest_v1);
	if (page == NULL || session() == 0)
		return NVML_ERROR_UNINITIALIZED;
	free(request->set);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemRegisterEvents(nvmlSystemRegisterEventRequest_t *request)
{
	TRY(enter(GROUP_EVENTS));
	NEED_VERSION(request, nvmlSystemRegisterEventRequest_v1);
	NEED(request->set);
	if (request->eventTypes & ~(unsigned long long)(nvmlSystemEventTypeGpuDriverUnbind | nvmlSystemEventTypeGpuDriverBind))
		return NVML_ERROR_INVALID_ARGUMENT;
	request->set->types |= request->eventTypes;
	return NVML_SUCCESS;
}

/* The number by which the driver calls a GPU. */
static unsigned int gpu_id(uint32_t gpu)
{
	unsigned int domain = 0, bus = 0, device = 0;

	parse_pci(page->gpu[gpu].pci, &domain, &bus, &device);
	return domain << 16 | bus << 8 | device;
}

/* nvmlSystemEventSetWait tells what it has before it says that the driver is gone. */
nvmlReturn_t nvmlSystemEventSetWait(nvmlSystemEventSetWaitRequest_t *request)
{
	struct nvmlSystemEventSet_st *set;
	uint64_t deadline;
	bool overflow = false;

	NEED_VERSION(request, nvmlSystemEventSetWaitRequest_v1);
	set = request->set;
	NEED(set);
	NEED(request->data);
	if (page == NULL || session() == 0)
		return NVML_ERROR_UNINITIALIZED;
	deadline = deadline_in(request->timeoutms);
	for (;;) {
		uint32_t head = LOAD(page->head);
		struct event event;

		wait_while_driver_hangs();
		request->numEvent = 0;
		while (request->numEvent < request->dataSize && take(&set->cursor, head, &event, &overflow))
			if (event.kind == EVENT_SYSTEM && (event.type & set->types))
				request->data[request->numEvent++] = (nvmlSystemEventData_v1_t){ event.type, gpu_id(event.gpu) };
		if (request->numEvent > 0)
			return NVML_SUCCESS;
		if (stale(set->load))
			return NVML_ERROR_UNINITIALIZED;
		if (!sleep_until(deadline, head))
			return NVML_ERROR_TIMEOUT;
	}
}
