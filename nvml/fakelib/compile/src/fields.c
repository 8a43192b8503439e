/* Values by number: nvmlDeviceGetFieldValues. */
#include "fake.h"

/* R450 knew no fields from this one on (NVML_FI_MAX of CUDA 11.0). */
#define FIRST_FIELD_AFTER_R450 146

/* A scope that stands for all links, in fields that count by link. */
#define ALL_LINKS UINT_MAX

static nvmlReturn_t put_uint(uint64_t value, nvmlFieldValue_t *out)
{
	out->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
	out->value.ullVal = 0;
	return tell(value, &out->value.uiVal);
}

static nvmlReturn_t put_long(uint64_t value, nvmlFieldValue_t *out)
{
	out->valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
	return tell_long(value, &out->value.ullVal);
}

static nvmlReturn_t scripted(const struct gpu *gpu, nvmlFieldValue_t *out, bool *found)
{
	for (uint32_t i = 0; i < gpu->fields; i++) {
		const struct field *field = &gpu->field[i];

		if (field->id != out->fieldId || field->scope != out->scopeId)
			continue;
		*found = true;
		out->valueType = (nvmlValueType_t)field->type;
		out->value.ullVal = field->bits;
		return (nvmlReturn_t)field->failure;
	}
	*found = false;
	return NVML_SUCCESS;
}

/* How far a temperature is below a limit, for the T.limit fields of Ada and later. */
static nvmlReturn_t put_limit(const struct gpu *gpu, uint64_t limit, nvmlFieldValue_t *out)
{
	if (gpu->architecture < NVML_DEVICE_ARCH_ADA || limit == ABSENT || gpu->temperature_max == ABSENT)
		return NVML_ERROR_NOT_SUPPORTED;
	out->valueType = NVML_VALUE_TYPE_SIGNED_INT;
	out->value.ullVal = 0;
	out->value.siVal = (int)gpu->temperature_max - (int)limit;
	return NVML_SUCCESS;
}

static uint64_t of_links(const struct gpu *gpu, unsigned int scope, size_t member)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < gpu->links; i++)
		if (scope == ALL_LINKS || scope == i)
			sum += *(const uint64_t *)((const char *)&gpu->link[i] + member);
	return sum;
}

/* Fields that have a number for each of the first twelve links and one for all. */
static nvmlReturn_t put_numbered_link(const struct gpu *gpu, nvmlFieldValue_t *out, bool *found)
{
	static const struct {
		unsigned int first, seventh, total;
		size_t member;
	} counters[] = {
		{ NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_L0, NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_L6,
		  NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL, offsetof(struct link, crc_errors) },
		{ NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_L0, NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_L6,
		  NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL, offsetof(struct link, crc_data_errors) },
		{ NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_L0, NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_L6,
		  NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL, offsetof(struct link, replays) },
		{ NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_L0, NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_L6,
		  NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL, offsetof(struct link, recoveries) },
	};
	unsigned int id = out->fieldId;

	*found = true;
	for (size_t i = 0; i < sizeof counters / sizeof *counters; i++) {
		unsigned int link = ALL_LINKS;

		if (id >= counters[i].first && id < counters[i].first + 6)
			link = id - counters[i].first;
		else if (id >= counters[i].seventh && id < counters[i].seventh + 6)
			link = id - counters[i].seventh + 6;
		else if (id != counters[i].total)
			continue;
		if (gpu->links == 0 || gpu->link_version >= NVML_NVLINK_VERSION_5_0 || (link != ALL_LINKS && link >= gpu->links))
			return NVML_ERROR_NOT_SUPPORTED;
		return put_long(of_links(gpu, link, counters[i].member), out);
	}
	*found = false;
	return NVML_SUCCESS;
}

/* Fields whose scope is a link. */
static nvmlReturn_t put_link(const struct gpu *gpu, nvmlFieldValue_t *out)
{
	unsigned int scope = out->scopeId;

	if (gpu->links == 0)
		return NVML_ERROR_NOT_SUPPORTED;
	if (scope != ALL_LINKS && scope >= gpu->links)
		return NVML_ERROR_INVALID_ARGUMENT;
	switch (out->fieldId) {
	case NVML_FI_DEV_NVLINK_GET_STATE:
		return scope == ALL_LINKS ? NVML_ERROR_INVALID_ARGUMENT : put_uint(gpu->link[scope].state, out);
	case NVML_FI_DEV_NVLINK_GET_SPEED: return put_uint(gpu->link_mbps, out);
	case NVML_FI_DEV_NVLINK_GET_VERSION: return put_uint(gpu->link_version, out);
	case NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX:
	case NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_TX: return put_long(of_links(gpu, scope, offsetof(struct link, sent)) / 1024, out);
	case NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX:
	case NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_RX: return put_long(of_links(gpu, scope, offsetof(struct link, received)) / 1024, out);
	default: break;
	}
	/* The rest came with NVLink 5, or ended with it. */
	if (gpu->link_version < NVML_NVLINK_VERSION_5_0) {
		switch (out->fieldId) {
		case NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY: return put_long(of_links(gpu, scope, offsetof(struct link, replays)), out);
		case NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY: return put_long(of_links(gpu, scope, offsetof(struct link, recoveries)), out);
		case NVML_FI_DEV_NVLINK_ERROR_DL_CRC: return put_long(of_links(gpu, scope, offsetof(struct link, crc_errors)), out);
		default: return NVML_ERROR_NOT_SUPPORTED;
		}
	}
	switch (out->fieldId) {
	case NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY:
	case NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY:
	case NVML_FI_DEV_NVLINK_ERROR_DL_CRC: return NVML_ERROR_NOT_SUPPORTED;
	case NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES: return put_long(of_links(gpu, scope, offsetof(struct link, sent)), out);
	case NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES: return put_long(of_links(gpu, scope, offsetof(struct link, received)), out);
	case NVML_FI_DEV_NVLINK_COUNT_XMIT_PACKETS: return put_long(of_links(gpu, scope, offsetof(struct link, sent)) / 128, out);
	case NVML_FI_DEV_NVLINK_COUNT_RCV_PACKETS: return put_long(of_links(gpu, scope, offsetof(struct link, received)) / 128, out);
	case NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS:
		return put_long(of_links(gpu, scope, offsetof(struct link, recoveries)), out);
	case NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS:
		return put_long(of_links(gpu, scope, offsetof(struct link, recoveries_failed)), out);
	case NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS:
		return put_long(of_links(gpu, scope, offsetof(struct link, recoveries)) + of_links(gpu, scope, offsetof(struct link, recoveries_failed)), out);
	case NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS: return put_long(of_links(gpu, scope, offsetof(struct link, receive_errors)), out);
	case NVML_FI_DEV_NVLINK_COUNT_LOCAL_LINK_INTEGRITY_ERRORS:
		return put_long(of_links(gpu, scope, offsetof(struct link, integrity_errors)), out);
	case NVML_FI_DEV_NVLINK_COUNT_XMIT_DISCARDS: return put_long(of_links(gpu, scope, offsetof(struct link, transmit_discards)), out);
	case NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_ERRORS: return put_long(of_links(gpu, scope, offsetof(struct link, effective_errors)), out);
	case NVML_FI_DEV_NVLINK_COUNT_SYMBOL_ERRORS: return put_long(of_links(gpu, scope, offsetof(struct link, symbol_errors)), out);
	default: return put_long(0, out);
	}
}

static nvmlReturn_t put_ecc(const struct gpu *gpu, nvmlFieldValue_t *out)
{
	if (gpu->ecc_enabled == ABSENT)
		return NVML_ERROR_NOT_SUPPORTED;
	if (out->fieldId == NVML_FI_DEV_ECC_CURRENT)
		return put_uint(gpu->ecc_enabled, out);
	if (out->fieldId == NVML_FI_DEV_ECC_PENDING)
		return put_uint(gpu->ecc_pending, out);
	if (gpu->ecc_enabled == 0)
		return NVML_ERROR_NOT_SUPPORTED;
	switch (out->fieldId) {
	case NVML_FI_DEV_ECC_SBE_VOL_TOTAL: return put_long(gpu->ecc_corrected[0] + gpu->ecc_sram_corrected[0], out);
	case NVML_FI_DEV_ECC_DBE_VOL_TOTAL: return put_long(gpu->ecc_uncorrected[0] + gpu->ecc_sram_uncorrected[0], out);
	case NVML_FI_DEV_ECC_SBE_AGG_TOTAL: return put_long(gpu->ecc_corrected[1] + gpu->ecc_sram_corrected[1], out);
	case NVML_FI_DEV_ECC_DBE_AGG_TOTAL: return put_long(gpu->ecc_uncorrected[1] + gpu->ecc_sram_uncorrected[1], out);
	case NVML_FI_DEV_ECC_SBE_VOL_DEV: return put_long(gpu->ecc_corrected[0], out);
	case NVML_FI_DEV_ECC_DBE_VOL_DEV: return put_long(gpu->ecc_uncorrected[0], out);
	case NVML_FI_DEV_ECC_SBE_AGG_DEV: return put_long(gpu->ecc_corrected[1], out);
	case NVML_FI_DEV_ECC_DBE_AGG_DEV: return put_long(gpu->ecc_uncorrected[1], out);
	default: return NVML_ERROR_NOT_SUPPORTED;
	}
}

static nvmlReturn_t put(const struct gpu *gpu, nvmlFieldValue_t *out)
{
	unsigned int id = out->fieldId;
	nvmlReturn_t answer;
	bool found;

	answer = scripted(gpu, out, &found);
	if (found)
		return answer;
#ifdef OLD_DRIVER
	if (id >= FIRST_FIELD_AFTER_R450)
		return NVML_ERROR_INVALID_ARGUMENT;
#endif
	if (id == 0 || id >= NVML_FI_MAX)
		return NVML_ERROR_INVALID_ARGUMENT;
	answer = put_numbered_link(gpu, out, &found);
	if (found)
		return answer;
	if (id <= NVML_FI_DEV_ECC_DBE_AGG_CBU)
		return put_ecc(gpu, out);
	switch (id) {
	case NVML_FI_DEV_RETIRED_SBE: return put_long(gpu->pages_corrected, out);
	case NVML_FI_DEV_RETIRED_DBE: return put_long(gpu->pages_uncorrected, out);
	case NVML_FI_DEV_RETIRED_PENDING: return put_uint(gpu->pages_pending, out);

	case NVML_FI_DEV_PERF_POLICY_POWER: return put_long(gpu->violation_ns[VIOLATION_POWER], out);
	case NVML_FI_DEV_PERF_POLICY_SYNC_BOOST: return put_long(gpu->violation_ns[VIOLATION_SYNC_BOOST], out);
	case NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT: return put_long(gpu->violation_ns[VIOLATION_BOARD_LIMIT], out);
	case NVML_FI_DEV_PERF_POLICY_RELIABILITY: return put_long(gpu->violation_ns[VIOLATION_RELIABILITY], out);
	case NVML_FI_DEV_PERF_POLICY_THERMAL:
		return put_long(gpu->violation_ns[VIOLATION_SW_THERMAL] + gpu->violation_ns[VIOLATION_HW_THERMAL], out);
	case NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN: return put_long(gpu->violation_ns[VIOLATION_SW_THERMAL], out);
	case NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN: return put_long(gpu->violation_ns[VIOLATION_HW_THERMAL], out);
	case NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN: return put_long(gpu->violation_ns[VIOLATION_POWER_BRAKE], out);

	case NVML_FI_DEV_MEMORY_TEMP: return put_uint(gpu->memory_temperature, out);
	case NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT: return put_limit(gpu, gpu->temperature_shutdown, out);
	case NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT: return put_limit(gpu, gpu->temperature_slowdown, out);
	case NVML_FI_DEV_TEMPERATURE_MEM_MAX_TLIMIT: return put_limit(gpu, gpu->temperature_memory_max, out);
	case NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT: return put_limit(gpu, gpu->temperature_max, out);

	case NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION:
	case NVML_FI_DEV_ENERGY: return put_long(gpu->energy_mj, out);
	case NVML_FI_DEV_POWER_AVERAGE:
	case NVML_FI_DEV_POWER_INSTANT: return put_uint(gpu->power_mw, out);
	case NVML_FI_DEV_POWER_MIN_LIMIT: return put_uint(gpu->power_min_mw, out);
	case NVML_FI_DEV_POWER_MAX_LIMIT: return put_uint(gpu->power_max_mw, out);
	case NVML_FI_DEV_POWER_DEFAULT_LIMIT: return put_uint(gpu->power_default_mw, out);
	case NVML_FI_DEV_POWER_CURRENT_LIMIT:
	case NVML_FI_DEV_POWER_REQUESTED_LIMIT: return put_uint(gpu->power_limit_mw, out);

	case NVML_FI_DEV_PCIE_REPLAY_COUNTER: return put_uint(gpu->pcie_replays, out);
	case NVML_FI_DEV_PCIE_REPLAY_ROLLOVER_COUNTER: return put_uint(0, out);
	case NVML_FI_DEV_PCIE_L0_TO_RECOVERY_COUNTER: return put_uint(gpu->pcie_recoveries, out);
	case NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS: return put_uint(gpu->pcie_correctable, out);
	case NVML_FI_DEV_PCIE_COUNT_NON_FATAL_ERROR: return put_uint(gpu->pcie_non_fatal, out);
	case NVML_FI_DEV_PCIE_COUNT_FATAL_ERROR: return put_uint(gpu->pcie_fatal, out);
	case NVML_FI_DEV_PCIE_COUNT_UNSUPPORTED_REQ: return put_uint(gpu->pcie_unsupported_requests, out);
	case NVML_FI_DEV_PCIE_COUNT_TX_BYTES: return put_long(gpu->pcie_sent, out);
	case NVML_FI_DEV_PCIE_COUNT_RX_BYTES: return put_long(gpu->pcie_received, out);

	case NVML_FI_DEV_REMAPPED_COR: return put_uint(gpu->rows_corrected, out);
	case NVML_FI_DEV_REMAPPED_UNC: return put_uint(gpu->rows_uncorrected, out);
	case NVML_FI_DEV_REMAPPED_PENDING: return put_uint(gpu->rows_pending, out);
	case NVML_FI_DEV_REMAPPED_FAILURE: return put_uint(gpu->rows_failed, out);
	case NVML_FI_DEV_REMAPPED_ROWS_COR_INACTIVE:
	case NVML_FI_DEV_REMAPPED_ROWS_UNC_INACTIVE: return put_uint(gpu->rows_corrected == ABSENT ? ABSENT : 0, out);

	case NVML_FI_DEV_NVLINK_LINK_COUNT: return put_uint(gpu->links, out);
	case NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON: return put_uint(gpu->links == 0 ? ABSENT : gpu->link_mbps, out);
	case NVML_FI_DEV_NVSWITCH_CONNECTED_LINK_COUNT: return put_uint(gpu->links == 0 ? ABSENT : gpu->links, out);

	case NVML_FI_DEV_RESET_STATUS:
		return put_uint(gpu->recovery == ABSENT ? ABSENT : gpu->recovery == NVML_GPU_RECOVERY_ACTION_GPU_RESET, out);
	case NVML_FI_DEV_DRAIN_AND_RESET_STATUS:
		return put_uint(gpu->recovery == ABSENT ? ABSENT : gpu->recovery == NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET, out);
	case NVML_FI_DEV_GET_GPU_RECOVERY_ACTION: return put_uint(gpu->recovery, out);
	default: break;
	}
	if ((id >= NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY && id <= NVML_FI_DEV_NVLINK_GET_VERSION) ||
	    (id >= NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX && id <= NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_RX) ||
	    (id >= NVML_FI_DEV_NVLINK_COUNT_XMIT_PACKETS && id <= NVML_FI_DEV_NVLINK_COUNT_SYMBOL_BER) ||
	    (id >= NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_0 && id <= NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_15))
		return put_link(gpu, out);
	return NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values)
{
	struct gpu *gpu;

	TRY(enter_gpu(GROUP_FIELDS, device, &gpu));
	NEED(values);
	if (count < 1)
		return NVML_ERROR_INVALID_ARGUMENT;
	for (int i = 0; i < count; i++) {
		values[i].timestamp = (long long)now_us();
		values[i].latencyUsec = 1;
		values[i].nvmlReturn = put(gpu, &values[i]);
	}
	return NVML_SUCCESS;
}
