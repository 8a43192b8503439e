/*
 * The page: all that the library knows. A Go program writes it (package
 * fakelib, which has the same layout) and any number of processes with the
 * library map it, to read alone. Every number is written whole, so that none is
 * ever seen half; a GPU's sequence is odd while several of its numbers that
 * belong together are being written.
 */
#ifndef PAGE_H
#define PAGE_H

#include <stdint.h>

#define PAGE_MAGIC  0x656761702d4c4d4eull /* "NML-page" */
#define PAGE_LAYOUT 3

#define MAX_GPUS      16
#define MAX_EVENTS    1024 /* those that a listener may be behind */
#define MAX_EXCLUDED  4
#define MAX_LINKS     18
#define MAX_INSTANCES 8
#define MAX_PROFILES  8
#define MAX_PROCESSES 32
#define MAX_FIELDS    64
#define MAX_SAMPLES   128
#define MAX_METRICS   128

/* What the GPU or its driver cannot say. */
#define ABSENT UINT64_MAX

/* No instance, in an event or a process. */
#define NO_INSTANCE UINT32_MAX

/* hang: 0 is none. */
#define HANG                 1
#define HANG_UNINTERRUPTIBLE 2

/* Calls are grouped by what they cost a real driver. */
enum group {
	GROUP_INIT,
	GROUP_LOOKUP,
	GROUP_IDENTITY,
	GROUP_READINGS,
	GROUP_HEALTH,
	GROUP_FIELDS,
	GROUP_LINKS,
	GROUP_PROCESSES,
	GROUP_SAMPLES,
	GROUP_GPM,
	GROUP_MIG,
	GROUP_EVENTS,
	GROUP_COUNT
};

enum clock { CLOCK_GRAPHICS, CLOCK_SM, CLOCK_MEMORY, CLOCK_VIDEO, CLOCK_COUNT };

/* What holds the clocks down, with the time that it did. */
enum violation {
	VIOLATION_POWER,
	VIOLATION_SYNC_BOOST,
	VIOLATION_SW_THERMAL,
	VIOLATION_HW_THERMAL,
	VIOLATION_POWER_BRAKE,
	VIOLATION_BOARD_LIMIT,
	VIOLATION_RELIABILITY,
	VIOLATION_COUNT
};

enum process_kind { PROCESS_COMPUTE, PROCESS_GRAPHICS, PROCESS_MPS };

/* One NVLink. */
struct link {
	uint64_t state; /* NVML_NVLINK_STATE_* */
	uint64_t replays, recoveries, crc_errors, crc_data_errors;
	/* Since NVLink 5, where the recoveries are those that went well. */
	uint64_t receive_errors, integrity_errors, transmit_discards, recoveries_failed, effective_errors, symbol_errors;
	uint64_t sent, received; /* bytes */
};

/* One kind of GPU instance that the GPU can be cut into. */
struct profile {
	uint32_t index; /* NVML_GPU_INSTANCE_PROFILE_* */
	uint32_t id;
	uint32_t slices, size;        /* of compute, of memory */
	uint32_t starts;              /* a bit for each memory slice that it may start at */
	uint32_t count;               /* of them that fit */
	uint32_t multiprocessors, copy_engines, decoders, encoders, jpeg, ofa;
	uint64_t memory_mb;
	char name[32]; /* 1g.10gb */
};

/* One MIG device: a compute instance in a GPU instance. */
struct instance {
	uint32_t present;
	uint32_t gi, ci;
	uint32_t profile;       /* place in profiles */
	uint32_t start, size;   /* of its GPU instance, in memory slices */
	uint32_t ci_start, ci_slices;
	uint64_t memory_used;
	uint32_t multiprocessors, reserved;
	char name[32]; /* 1c.2g.20gb */
	char uuid[48];
};

struct process {
	uint32_t pid, kind;
	uint32_t gi, ci;
	uint64_t memory; /* bytes, ABSENT if unknown */
	uint32_t sm, memory_utilization, encoder, decoder; /* percent */
	char name[32];
};

/* A field value that was scripted; it goes before what the library computes. */
struct field {
	uint32_t id, scope;
	uint32_t type;    /* NVML_VALUE_TYPE_* */
	uint32_t failure; /* NVML's, instead of a value */
	uint64_t bits;
};

/* What nvmlDeviceGetSamples tells of one moment. */
struct sample {
	uint64_t time; /* µs since 1970 */
	uint32_t power_mw, utilization, memory_utilization, sm_mhz, memory_mhz, reserved;
};

struct fabric {
	uint32_t state, status, clique, mask, summary, reserved;
	uint8_t cluster[16];
};

struct gpu {
	uint64_t sequence;

	/* What befalls its calls. */
	uint32_t present; /* 0: the driver has nothing at its address */
	uint32_t lost;
	uint32_t hang;
	uint32_t failure; /* what NVML answers to every call, 0 for none */
	uint32_t unbound; /* it is not present because the driver was unbound from it */
	uint32_t spare;

	char pci[16]; /* 0000:3b:00.0 */
	char uuid[48];
	char name[64];
	char serial[32];
	char vbios[32];
	char part[32];
	uint64_t minor;
	uint64_t addressing; /* NVML_DEVICE_ADDRESSING_MODE_* */
	uint32_t pci_device, pci_subsystem;
	uint32_t architecture, brand;
	uint32_t capability_major, capability_minor;
	uint32_t cores, bus_width;
	uint32_t module, has_gpm;

	uint64_t temperature, memory_temperature; /* °C */
	uint64_t temperature_slowdown, temperature_shutdown, temperature_max, temperature_memory_max;
	uint64_t power_mw, power_limit_mw, power_min_mw, power_max_mw, power_default_mw;
	uint64_t energy_mj;
	uint64_t memory_total, memory_used, memory_reserved, bar1_total; /* bytes */
	uint64_t utilization, memory_utilization;                       /* percent */
	uint64_t clock_mhz[CLOCK_COUNT], max_clock_mhz[CLOCK_COUNT];
	uint64_t clock_reasons; /* nvmlClocksEventReason* */
	uint64_t performance_state;
	uint64_t persistence;
	uint64_t violation_ns[VIOLATION_COUNT];

	uint64_t pcie_generation, pcie_width, pcie_max_generation, pcie_max_width;
	uint64_t pcie_sent_kbps, pcie_received_kbps; /* kB/s */
	uint64_t pcie_sent, pcie_received;           /* bytes */
	uint64_t pcie_replays;
	uint64_t pcie_max_generation_gpu; /* pcie_max_generation is that of GPU and slot together */
	uint64_t pcie_recoveries, pcie_correctable, pcie_non_fatal, pcie_fatal, pcie_unsupported_requests;

	uint64_t ecc_enabled, ecc_pending;
	uint64_t ecc_corrected[2], ecc_uncorrected[2];             /* of DRAM: volatile, aggregate */
	uint64_t ecc_sram_corrected[2], ecc_sram_uncorrected[2];
	uint64_t sram_exceeded, sram_unique;
	uint64_t rows_corrected, rows_uncorrected, rows_pending, rows_failed;
	uint64_t row_banks[5]; /* by spare rows: all, many, some, few, none */
	uint64_t pages_corrected, pages_uncorrected, pages_pending; /* retired, before Ampere */
	uint64_t recovery;                                          /* NVML_GPU_RECOVERY_ACTION_* */
	uint64_t event_types;

	uint32_t links, link_version;
	uint64_t link_mbps;
	struct link link[MAX_LINKS];
	struct fabric fabric;

	uint32_t has_mig, mig_mode, mig_next, mig_spare; /* mig_next comes with the next loading */
	uint32_t profiles, instances;
	struct profile profile[MAX_PROFILES];
	struct instance instance[MAX_INSTANCES];

	uint32_t processes, fields;
	struct process process[MAX_PROCESSES];
	struct field field[MAX_FIELDS];

	uint64_t samples; /* that were ever taken; the newest are kept */
	struct sample sample[MAX_SAMPLES];

	/* By NVML_GPM_METRIC_*: thousandths of the metric's unit, added up over
	 * microseconds until updated. */
	uint64_t updated; /* µs since 1970 */
	uint64_t metric_present[MAX_METRICS / 64];
	uint64_t metric[MAX_METRICS];
};

enum event_kind { EVENT_GPU, EVENT_SYSTEM };

struct event {
	uint32_t number; /* from 0; the head is the number of the next */
	uint32_t kind;
	uint32_t gpu, load;
	uint64_t type; /* nvmlEventType* or nvmlSystemEventType* */
	uint64_t data;
	uint64_t time; /* µs since 1970 */
	uint32_t gi, ci;
	uint32_t severity, log_level;
};

struct excluded {
	char pci[16];
	char uuid[48];
};

struct page {
	uint64_t magic;
	uint32_t layout, size;
	uint32_t load, load_reserved; /* number of this loading of the driver; 0: there is none */
	uint32_t head, head_reserved; /* of the events; a futex, woken too when anything above gpu changes */
	uint32_t hang;
	uint32_t init_failure; /* what NVML answers to nvmlInit, 0 for none */
	uint32_t gpus;         /* in PCI order, also those that are not present */
	uint32_t cuda;         /* 12080 */
	uint32_t sentinels;    /* 1: what is absent is told as all ones, or NaN */
	uint32_t exclusions;
	uint32_t latency_us[GROUP_COUNT];
	char driver[32];  /* version of the loaded driver, 570.195.03 */
	char library[32]; /* version of the library on the disk */
	struct excluded excluded[MAX_EXCLUDED];
	struct event event[MAX_EVENTS];
	struct gpu gpu[MAX_GPUS];
};

#endif
