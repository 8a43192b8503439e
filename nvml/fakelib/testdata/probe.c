/*
 * A user of the library that does what it is told on its standard input, one
 * call a line, and says what came of it: the return code, then values.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "nvml.h"

static nvmlDevice_t device, mig;
static nvmlEventSet_t set;
static nvmlSystemEventSet_t system_set;

#define IS(name) (strcmp(verb, name) == 0)

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void metrics(unsigned int first, unsigned int second)
{
	nvmlGpmMetricsGet_t *get = calloc(1, sizeof *get);
	int code;

	get->version = NVML_GPM_METRICS_GET_VERSION;
	get->numMetrics = 2;
	get->metrics[0].metricId = first;
	get->metrics[1].metricId = second;
	code = nvmlGpmSampleAlloc(&get->sample1);
	if (code == 0 && (code = nvmlGpmSampleAlloc(&get->sample2)) == 0 && (code = nvmlGpmSampleGet(device, get->sample1)) == 0) {
		nanosleep(&(struct timespec){ 0, 200000000 }, NULL);
		code = nvmlGpmSampleGet(device, get->sample2);
		if (code == 0)
			code = nvmlGpmMetricsGet(get);
	}
	printf("%d %d %.1f %d %.1f\n", code, get->metrics[0].nvmlReturn, get->metrics[0].value, get->metrics[1].nvmlReturn, get->metrics[1].value);
}

static void instances(void)
{
	unsigned int count, size;
	char name[96], uuid[96];
	int code = nvmlDeviceGetMaxMigDeviceCount(device, &count);

	printf("%d", code);
	for (unsigned int i = 0; code == 0 && i < count; i++) {
		nvmlDeviceAttributes_t a;
		nvmlMemory_t memory;
		unsigned int gi, ci;

		if (nvmlDeviceGetMigDeviceHandleByIndex(device, i, &mig) != 0)
			continue;
		size = sizeof name;
		if (nvmlDeviceGetName(mig, name, size) || nvmlDeviceGetUUID(mig, uuid, sizeof uuid) || nvmlDeviceGetGpuInstanceId(mig, &gi) ||
		    nvmlDeviceGetComputeInstanceId(mig, &ci) || nvmlDeviceGetAttributes_v2(mig, &a) || nvmlDeviceGetMemoryInfo(mig, &memory))
			printf(" ?");
		else
			printf(" [%s %.4s %u/%u %uof%u %llu]", strstr(name, "MIG"), uuid, gi, ci, a.computeInstanceSliceCount, a.gpuInstanceSliceCount, memory.total >> 20);
	}
	printf("\n");
}

int main(void)
{
	char line[256], verb[64], text[128], out[128] = "";
	unsigned long long big = 0;
	unsigned int a, b, c, d;
	int code;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof line, stdin) != NULL) {
		long long n = 0, m = 0;

		*text = *out = '\0';
		if (sscanf(line, "%63s %127s", verb, text) < 1)
			continue;
		sscanf(line, "%*s %lli %lli", &n, &m);
		a = b = c = d = 0;
		if (IS("init")) {
			printf("%d\n", nvmlInit_v2());
		} else if (IS("shutdown")) {
			printf("%d\n", nvmlShutdown());
		} else if (IS("version")) {
			code = nvmlSystemGetDriverVersion(out, sizeof out);
			printf("%d %s\n", code, out);
		} else if (IS("count")) {
			code = nvmlDeviceGetCount_v2(&a);
			printf("%d %u\n", code, a);
		} else if (IS("index")) {
			printf("%d\n", nvmlDeviceGetHandleByIndex_v2((unsigned)n, &device));
		} else if (IS("pci")) {
			printf("%d\n", nvmlDeviceGetHandleByPciBusId_v2(text, &device));
		} else if (IS("uuid")) {
			printf("%d\n", nvmlDeviceGetHandleByUUID(text, &device));
		} else if (IS("name")) {
			code = nvmlDeviceGetName(device, out, sizeof out);
			printf("%d %s\n", code, out);
		} else if (IS("address")) {
			nvmlPciInfo_t p = { 0 };
			code = nvmlDeviceGetPciInfo_v3(device, &p);
			printf("%d %s %08x\n", code, p.busId, p.pciDeviceId);
		} else if (IS("temperature")) {
			code = nvmlDeviceGetTemperature(device, NVML_TEMPERATURE_GPU, &a);
			printf("%d %u\n", code, a);
		} else if (IS("temperatureV")) {
			nvmlTemperature_t t = { .version = nvmlTemperature_v1 };
			code = nvmlDeviceGetTemperatureV(device, &t);
			printf("%d %d\n", code, t.temperature);
		} else if (IS("power")) {
			code = nvmlDeviceGetPowerUsage(device, &a);
			printf("%d %u\n", code, a);
		} else if (IS("memory")) {
			nvmlMemory_v2_t v = { .version = nvmlMemory_v2 };
			code = nvmlDeviceGetMemoryInfo_v2(device, &v);
			printf("%d %llu %llu %llu %llu\n", code, v.total, v.used, v.reserved, v.free);
		} else if (IS("utilization")) {
			nvmlUtilization_t u = { 0 };
			code = nvmlDeviceGetUtilizationRates(device, &u);
			printf("%d %u %u\n", code, u.gpu, u.memory);
		} else if (IS("clock")) {
			code = nvmlDeviceGetMaxClockInfo(device, (nvmlClockType_t)n, &a);
			printf("%d %u\n", code, a);
		} else if (IS("ecc")) {
			code = nvmlDeviceGetMemoryErrorCounter(device, (nvmlMemoryErrorType_t)n, NVML_VOLATILE_ECC, (nvmlMemoryLocation_t)m, &big);
			printf("%d %llu\n", code, code ? 0 : big);
		} else if (IS("rows")) {
			code = nvmlDeviceGetRemappedRows(device, &a, &b, &c, &d);
			printf("%d %u %u %u %u\n", code, a, b, c, d);
		} else if (IS("retired")) {
			code = nvmlDeviceGetRetiredPages(device, (nvmlPageRetirementCause_t)n, &a, NULL);
			printf("%d %u\n", code, a);
		} else if (IS("field")) {
			nvmlFieldValue_t f = { .fieldId = (unsigned)n, .scopeId = (unsigned)m };
			code = nvmlDeviceGetFieldValues(device, 1, &f);
			printf("%d %d %d %llu\n", code, f.nvmlReturn, f.valueType, f.nvmlReturn ? 0 : f.value.ullVal);
		} else if (IS("reasons")) {
			code = nvmlDeviceGetCurrentClocksEventReasons(device, &big);
			printf("%d %#llx\n", code, code ? 0 : big);
		} else if (IS("link")) {
			nvmlEnableState_t active = 0;
			code = nvmlDeviceGetNvLinkState(device, (unsigned)n, &active);
			printf("%d %d\n", code, active);
		} else if (IS("fabric")) {
			nvmlGpuFabricInfoV_t f = { .version = nvmlGpuFabricInfo_v3 };
			code = nvmlDeviceGetGpuFabricInfoV(device, &f);
			printf("%d %d %d %#x %d\n", code, f.state, f.status, f.healthMask, f.healthSummary);
		} else if (IS("pcie")) {
			code = nvmlDeviceGetCurrPcieLinkGeneration(device, &a) | nvmlDeviceGetCurrPcieLinkWidth(device, &b);
			printf("%d %u %u\n", code, a, b);
		} else if (IS("processes")) {
			nvmlProcessInfo_t p[4] = { 0 };
			a = 4;
			code = nvmlDeviceGetComputeRunningProcesses_v3(device, &a, p);
			printf("%d %u", code, a);
			for (unsigned int i = 0; code == 0 && i < a; i++)
				printf(" %u:%" PRIx64 ":%x", p[i].pid, (uint64_t)p[i].usedGpuMemory, p[i].gpuInstanceId);
			printf("\n");
		} else if (IS("utilizations")) {
			nvmlProcessUtilizationSample_t u[4] = { 0 };
			a = 4;
			code = nvmlDeviceGetProcessUtilization(device, u, &a, 0);
			printf("%d %u %u\n", code, u[0].pid, u[0].smUtil);
		} else if (IS("samples")) {
			nvmlSample_t s[128];
			nvmlValueType_t type;
			a = 128;
			code = nvmlDeviceGetSamples(device, (nvmlSamplingType_t)n, 0, &type, &a, s);
			printf("%d %u %u\n", code, a > 4, code ? 0 : s[0].sampleValue.uiVal);
		} else if (IS("metrics")) {
			metrics((unsigned)n, (unsigned)m);
		} else if (IS("mode")) {
			code = nvmlDeviceGetMigMode(device, &a, &b);
			printf("%d %u\n", code, a);
		} else if (IS("instances")) {
			instances();
		} else if (IS("excluded")) {
			nvmlExcludedDeviceInfo_t e = { 0 };
			code = nvmlGetExcludedDeviceCount(&a);
			if (code == 0 && a > 0)
				code = nvmlGetExcludedDeviceInfoByIndex(0, &e);
			printf("%d %u %s %s\n", code, a, e.pciInfo.busId, e.uuid);
		} else if (IS("unwritten")) {
			printf("%d\n", nvmlDeviceSetPersistenceMode(device, NVML_FEATURE_ENABLED));
		} else if (IS("set")) {
			printf("%d\n", nvmlEventSetCreate(&set));
		} else if (IS("supported")) {
			code = nvmlDeviceGetSupportedEventTypes(device, &big);
			printf("%d %#llx\n", code, code ? 0 : big);
		} else if (IS("register")) {
			printf("%d\n", nvmlDeviceRegisterEvents(device, (unsigned long long)n, set));
		} else if (IS("wait")) {
			nvmlEventData_t e = { 0 };
			code = nvmlEventSetWait_v2(set, &e, (unsigned)n);
			if (code == 0)
				nvmlDeviceGetUUID(e.device, out, sizeof out);
			printf("%d %#llx %llu %x %x %s\n", code, e.eventType, e.eventData, e.gpuInstanceId, e.computeInstanceId, out);
		} else if (IS("operational")) {
			nvmlGpuOperationalEventConfig_v1_t o = { .minSeverity = (unsigned)m };
			code = nvmlDeviceGetUUID(device, o.uuid, sizeof o.uuid);
			printf("%d\n", code ? code : (int)nvmlEventSetRegisterGpuOperationalEvents_v1(set, &o));
		} else if (IS("wait3")) {
			nvmlEventSetWait_v3_t w = { .timeoutMs = (unsigned)n };
			nvmlEventSetGetGpuOperationalEventContextLegacyXid_v1_t x = { 0 };
			code = nvmlEventSetWait_v3(set, &w);
			if (code == 0 && w.dataType == NVML_EVENT_DATA_TYPE_GPU_OPERATIONAL_EVENT)
				nvmlEventSetGetGpuOperationalEventContextLegacyXid_v1(set, &x);
			printf("%d %u %#llx %llu %u %u\n", code, w.dataType, w.eventType, w.eventData, w.severity, x.xidCode);
		} else if (IS("systemset")) {
			nvmlSystemEventSetCreateRequest_t r = { .version = nvmlSystemEventSetCreateRequest_v1 };
			code = nvmlSystemEventSetCreate(&r);
			if (code == 0) {
				nvmlSystemRegisterEventRequest_t g = { .version = nvmlSystemRegisterEventRequest_v1, .eventTypes = 3, .set = r.set };
				system_set = r.set;
				code = nvmlSystemRegisterEvents(&g);
			}
			printf("%d\n", code);
		} else if (IS("systemwait")) {
			nvmlSystemEventData_v1_t e[8] = { 0 };
			nvmlSystemEventSetWaitRequest_t w = { .version = nvmlSystemEventSetWaitRequest_v1, .timeoutms = (unsigned)n, .set = system_set, .data = e, .dataSize = 8 };
			code = nvmlSystemEventSetWait(&w);
			printf("%d %u %llu %#x\n", code, w.numEvent, e[0].eventType, e[0].gpuId);
		} else if (IS("bench")) {
			double began = now();
			for (long long i = 0; i < n; i++)
				nvmlDeviceGetTemperature(device, NVML_TEMPERATURE_GPU, &a);
			printf("0 %.0f\n", (now() - began) / (double)n * 1e9);
		} else {
			printf("? %s\n", verb);
		}
	}
	return 0;
}
