/* What the files of the library share. */
#ifndef FAKE_H
#define FAKE_H

#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include "nvml.h"

#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "page.h"

#define LOAD(word) __atomic_load_n(&(word), __ATOMIC_ACQUIRE)

#define WHOLE_GPU UINT32_MAX

/*
 * A handle names a GPU, or an instance by its place in the page, and the
 * loading of the driver in which it was given out: it is of no use in another.
 */
enum handle_kind { HANDLE_DEVICE = 0x4e564d44, HANDLE_GPU_INSTANCE, HANDLE_COMPUTE_INSTANCE };

struct handle {
	enum handle_kind kind;
	uint32_t load;
	uint32_t gpu, instance;
};

struct nvmlDevice_st { struct handle handle; };
struct nvmlGpuInstance_st { struct handle handle; };
struct nvmlComputeInstance_st { struct handle handle; };

extern struct page *page; /* NULL until nvmlInit found it */

/* Each is the beginning of a call: it takes as long as the script says, hangs
 * if it says so, and fails as the driver would. */
nvmlReturn_t enter(enum group group);
nvmlReturn_t enter_gpu(enum group group, nvmlDevice_t device, struct gpu **gpu);
nvmlReturn_t enter_device(enum group group, nvmlDevice_t device, struct gpu **gpu, struct instance **instance);
nvmlReturn_t touch(uint32_t gpu);

uint32_t session(void); /* the loading of the driver that this process has begun with; 0: none */
bool stale(uint32_t load);
void wait_while_driver_hangs(void);
struct handle *handle_of(uint32_t gpu, uint32_t instance, enum handle_kind kind);
uint64_t now_us(void);

/* Each hands out a value, or says that there is none. */
nvmlReturn_t tell(uint64_t value, unsigned int *out);
nvmlReturn_t tell_long(uint64_t value, unsigned long long *out);
nvmlReturn_t tell_text(const char *text, char *out, unsigned int length);

void fill_pci(const char *address, const struct gpu *gpu, nvmlPciInfo_t *out);
bool parse_pci(const char *text, unsigned int *domain, unsigned int *bus, unsigned int *device);

#define TRY(call) \
	do { \
		nvmlReturn_t try_ = (call); \
		if (try_ != NVML_SUCCESS) \
			return try_; \
	} while (0)

/* A pointer that has to be there. */
#define NEED(pointer) \
	do { \
		if ((pointer) == NULL) \
			return NVML_ERROR_INVALID_ARGUMENT; \
	} while (0)

/* The version in front of a structure. */
#define NEED_VERSION(pointer, wanted) \
	do { \
		NEED(pointer); \
		if ((pointer)->version != (wanted)) \
			return NVML_ERROR_ARGUMENT_VERSION_MISMATCH; \
	} while (0)

#endif
