/* The door: what every call passes before it may look at the page. */
#define _GNU_SOURCE
#include "fake.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct page *page;

/* The version of the library is that of the file on the disk when it was
 * loaded, whatever is installed over it later. */
static char own_version[sizeof ((struct page *)0)->library];

/* The handles of one loading. They are never freed: a caller may still hold
 * some of an earlier one, and is told so. */
struct handles {
	struct handle device[MAX_GPUS][1 + MAX_INSTANCES];
	struct handle gpu_instance[MAX_GPUS][MAX_INSTANCES];
	struct handle compute_instance[MAX_GPUS][MAX_INSTANCES];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* for all below, and for setting page */
static struct handles *handles;
static uint32_t begun; /* the loading of the driver; read without the lock */
static unsigned int users;

static void nap_us(uint64_t us)
{
	struct timespec left = { (time_t)(us / 1000000), (long)(us % 1000000) * 1000 };

	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		;
}

uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void map(void)
{
	const char *path = getenv("GPUVET_FAKE_NVML");
	struct stat st;
	struct page *mapped;
	int fd;

	if (page != NULL || path == NULL || (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		return;
	if (fstat(fd, &st) == 0 && st.st_size >= (off_t)sizeof *page) {
		mapped = mmap(NULL, sizeof *page, PROT_READ, MAP_SHARED, fd, 0);
		if (mapped != MAP_FAILED) {
			if (mapped->magic == PAGE_MAGIC && mapped->layout == PAGE_LAYOUT && mapped->size == sizeof *page)
				page = mapped;
			else
				munmap(mapped, sizeof *page);
		}
	}
	close(fd);
}

__attribute__((constructor)) static void remember_version(void)
{
	map();
	if (page != NULL)
		memcpy(own_version, page->library, sizeof own_version);
}

/*
 * A hang in the kernel cannot be interrupted, not even by SIGKILL. The nearest
 * that a process can come to it by itself is a write to a filesystem that is
 * frozen; without one this hang is like the other.
 */
static void write_to_frozen_filesystem(void)
{
	const char *path = getenv("GPUVET_FAKE_NVML_STUCK");
	ssize_t written; /* of no interest: it was for the waiting */
	int fd;

	if (path == NULL || (fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) < 0)
		return;
	written = write(fd, "", 1);
	(void)written;
	close(fd);
}

static void wait_while(const uint32_t *hang)
{
	bool written = false;

	while (LOAD(*hang) != 0) {
		if (LOAD(*hang) == HANG_UNINTERRUPTIBLE && !written) {
			write_to_frozen_filesystem();
			written = true;
		} else {
			nap_us(1000);
		}
	}
}

void wait_while_driver_hangs(void)
{
	wait_while(&page->hang);
}

static void take_time(enum group group)
{
	uint32_t us = LOAD(page->latency_us[group]);

	if (us != 0)
		nap_us(us);
}

uint32_t session(void)
{
	return LOAD(begun);
}

/* stale: the driver was unloaded since. */
bool stale(uint32_t load)
{
	return load == 0 || LOAD(page->load) != load;
}

nvmlReturn_t enter(enum group group)
{
	if (page == NULL || session() == 0)
		return NVML_ERROR_UNINITIALIZED;
	take_time(group);
	wait_while_driver_hangs();
	return stale(session()) ? NVML_ERROR_UNINITIALIZED : NVML_SUCCESS;
}

/* touch is what a call does to one GPU. */
nvmlReturn_t touch(uint32_t index)
{
	struct gpu *gpu = &page->gpu[index];

	wait_while(&gpu->hang);
	if (stale(session()))
		return NVML_ERROR_UNINITIALIZED;
	if (!LOAD(gpu->present) || LOAD(gpu->lost))
		return NVML_ERROR_GPU_IS_LOST;
	return (nvmlReturn_t)LOAD(gpu->failure);
}

nvmlReturn_t enter_device(enum group group, nvmlDevice_t device, struct gpu **gpu, struct instance **instance)
{
	TRY(enter(group));
	if (device == NULL || device->handle.kind != HANDLE_DEVICE || device->handle.load != session())
		return NVML_ERROR_INVALID_ARGUMENT;
	TRY(touch(device->handle.gpu));
	*gpu = &page->gpu[device->handle.gpu];
	*instance = NULL;
	if (device->handle.instance != WHOLE_GPU) {
		*instance = &(*gpu)->instance[device->handle.instance];
		if (!LOAD((*instance)->present))
			return NVML_ERROR_INVALID_ARGUMENT;
	}
	return NVML_SUCCESS;
}

/* enter_gpu is for calls that have no answer about a MIG device. */
nvmlReturn_t enter_gpu(enum group group, nvmlDevice_t device, struct gpu **gpu)
{
	struct instance *instance;

	TRY(enter_device(group, device, gpu, &instance));
	return instance == NULL ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

struct handle *handle_of(uint32_t gpu, uint32_t instance, enum handle_kind kind)
{
	struct handle *handle = NULL;

	switch (kind) {
	case HANDLE_DEVICE:
		handle = &handles->device[gpu][instance == WHOLE_GPU ? 0 : instance + 1];
		break;
	case HANDLE_GPU_INSTANCE:
		handle = &handles->gpu_instance[gpu][instance];
		break;
	case HANDLE_COMPUTE_INSTANCE:
		handle = &handles->compute_instance[gpu][instance];
		break;
	}
	*handle = (struct handle){ kind, session(), gpu, instance };
	return handle;
}

static nvmlReturn_t begin(void)
{
	uint32_t load = LOAD(page->load);

	if (load == 0)
		return NVML_ERROR_DRIVER_NOT_LOADED;
	if (strncmp(own_version, page->driver, sizeof own_version) != 0)
		return NVML_ERROR_LIB_RM_VERSION_MISMATCH;
	if (page->init_failure != 0)
		return (nvmlReturn_t)page->init_failure;
	if (load != begun) {
		struct handles *fresh = calloc(1, sizeof *fresh);

		if (fresh == NULL)
			return NVML_ERROR_MEMORY;
		handles = fresh;
		users = 0;
		__atomic_store_n(&begun, load, __ATOMIC_RELEASE);
	}
	users++;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
	nvmlReturn_t begins;

	(void)flags;
	pthread_mutex_lock(&lock);
	if (own_version[0] == '\0')
		remember_version();
	pthread_mutex_unlock(&lock);
	if (page == NULL)
		return NVML_ERROR_DRIVER_NOT_LOADED;
	take_time(GROUP_INIT);
	wait_while_driver_hangs();
	pthread_mutex_lock(&lock);
	begins = begin();
	pthread_mutex_unlock(&lock);
	return begins;
}

nvmlReturn_t nvmlInit_v2(void)
{
	return nvmlInitWithFlags(0);
}

nvmlReturn_t nvmlInit(void)
{
	return nvmlInitWithFlags(0);
}

nvmlReturn_t nvmlShutdown(void)
{
	nvmlReturn_t ends = NVML_ERROR_UNINITIALIZED;

	pthread_mutex_lock(&lock);
	if (users > 0) {
		if (--users == 0)
			__atomic_store_n(&begun, 0, __ATOMIC_RELEASE);
		ends = NVML_SUCCESS;
	}
	pthread_mutex_unlock(&lock);
	return ends;
}

/* not_written stands for every function of the header that is not here. */
nvmlReturn_t not_written(void)
{
	TRY(enter(GROUP_LOOKUP));
	return NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t tell(uint64_t value, unsigned int *out)
{
	NEED(out);
	if (value == ABSENT && !page->sentinels)
		return NVML_ERROR_NOT_SUPPORTED;
	*out = (unsigned int)value;
	return NVML_SUCCESS;
}

nvmlReturn_t tell_long(uint64_t value, unsigned long long *out)
{
	NEED(out);
	if (value == ABSENT && !page->sentinels)
		return NVML_ERROR_NOT_SUPPORTED;
	*out = value;
	return NVML_SUCCESS;
}

nvmlReturn_t tell_text(const char *text, char *out, unsigned int length)
{
	size_t size = strlen(text) + 1;

	NEED(out);
	if (size == 1)
		return NVML_ERROR_NOT_SUPPORTED;
	if (size > length)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	memcpy(out, text, size);
	return NVML_SUCCESS;
}
