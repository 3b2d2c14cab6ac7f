/* A GPU that is none, for tests: its machine code is a shared library, and its kernel a thread of this process. */
#define _GNU_SOURCE
#include "cuda.c"

#include <dlfcn.h>
#include <elf.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Blocks that one multiprocessor runs at once. */
#ifndef RESIDENT
#define RESIDENT 2
#endif
/* Bytes that an allocation may have. */
#ifndef MEMORY
#define MEMORY (1 << 30)
#endif
/* What pinning memory comes to. */
#ifndef PIN
#define PIN 0
#endif
/* What the kernel ends in at once, instead of running. */
#ifndef CRASH
#define CRASH 0
#endif

/* Whether the driver does not answer any more once the kernel runs. */
#ifndef HANG
#define HANG 0
#endif

/* Objects that were made and not given back yet: a test asks for them. */
int fake_live;
static unsigned long long arena_bytes = 4096;

typedef int (*Kernel)(unsigned char* segment, unsigned long long epoch_offset_ns);
static struct { void* library; Kernel run; } module;
static struct { Kernel run; unsigned char* segment; unsigned long long offset; int started, done; pthread_t thread; } launched;
static const void* const clock_kernel = &clock_kernel;

int cuCtxSetCurrent(void* context) { current = context; return 0; }
int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    if (bytes > MEMORY) return 2;
    fake_live++;
    *address = (uint64_t)malloc(bytes);
    return 0;
}
int cuMemFree_v2(uint64_t address) { fake_live--; free((void*)address); return 0; }
int cuMemsetD8Async(uint64_t address, unsigned char value, size_t bytes, void* stream) {
    (void)stream;
    memset((void*)address, value, bytes);
    return 0;
}
int cuMemcpyDtoH_v2(void* to, uint64_t from, size_t bytes) { memcpy(to, (void*)from, bytes); return 0; }
int cuMemHostRegister_v2(void* base, size_t bytes, unsigned flags) {
    if (PIN != 0) return PIN;
    /* Portable and mapped, whole pages. */
    if (flags != 3 || (uint64_t)base % 4096 != 0 || bytes % 4096 != 0) return 1;
    fake_live++;
    return 0;
}
int cuMemHostGetDevicePointer_v2(uint64_t* address, void* base, unsigned flags) { (void)flags; *address = (uint64_t)base; return 0; }
int cuMemHostUnregister(void* base) { (void)base; fake_live--; return 0; }

int cuModuleLoadData(void** handle, const void* image) {
    const Elf64_Ehdr* elf = image;
    if (memcmp(elf->e_ident, ELFMAG, SELFMAG) != 0) return 200;
    const size_t bytes = elf->e_shoff + (size_t)elf->e_shnum * elf->e_shentsize;
    char path[64];
    const int file = memfd_create("fake-module", 0);
    if (write(file, image, bytes) != (ssize_t)bytes) return 999;
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    module.library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    close(file);
    if (!module.library) return 209;
    module.run = (Kernel)dlsym(module.library, "rh_ring_kernel");
    fake_live++;
    *handle = &module;
    return 0;
}
int cuModuleUnload(void* handle) { (void)handle; fake_live--; return dlclose(module.library); }
int cuModuleGetFunction(void** handle, void* of, const char* name) {
    (void)of;
    if (strcmp(name, "rh_clock") == 0) *handle = (void*)clock_kernel;
    else if (strcmp(name, "rh_ring_kernel") == 0) *handle = (void*)module.run;
    else return 500;
    return 0;
}
int cuModuleGetGlobal_v2(uint64_t* address, size_t* bytes, void* of, const char* name) {
    (void)of;
    if (strcmp(name, "rh_arena_bytes") != 0) return 500;
    *address = (uint64_t)&arena_bytes;
    *bytes = sizeof arena_bytes;
    return 0;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* kernel, int threads, size_t shared) {
    (void)kernel, (void)threads, (void)shared;
    *blocks = RESIDENT;
    return 0;
}

static void* run(void* nothing) {
    launched.run(launched.segment, launched.offset);
    __atomic_store_n(&launched.done, 1, __ATOMIC_RELEASE);
    return nothing;
}
int cuStreamCreate(void** handle, unsigned flags) {
    fake_live++;
    *handle = &launched;
    return flags == 1 ? 0 : 1;
}
int cuStreamSynchronize(void* handle) {
    (void)handle;
    if (!launched.started) return 0;
    if (CRASH != 0) return CRASH;
    launched.started = 0;
    return pthread_join(launched.thread, NULL);
}
int cuStreamDestroy_v2(void* handle) { fake_live--; return cuStreamSynchronize(handle); }
int cuStreamQuery(void* handle) {
    (void)handle;
    while (HANG && launched.started) pause();
    if (CRASH != 0 && launched.started) return CRASH;
    return launched.started && !__atomic_load_n(&launched.done, __ATOMIC_ACQUIRE) ? 600 : 0;
}
int cuLaunchCooperativeKernel(void* kernel, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned by, unsigned bz,
                              unsigned shared, void* stream, void** arguments) {
    (void)shared, (void)stream;
    if (y != 1 || z != 1 || by != 1 || bz != 1 || threads == 0) return 1;
    if (kernel == clock_kernel) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        **(uint64_t**)arguments[0] = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
        return 0;
    }
    if (x > RESIDENT * 132) return 720;
    /* The arena is zero; the library has one of its own. */
    for (size_t i = 0; i < arena_bytes; i++) if ((*(unsigned char**)arguments[0])[i] != 0) return 1;
    launched.run = (Kernel)kernel;
    launched.segment = *(unsigned char**)arguments[1];
    launched.offset = *(unsigned long long*)arguments[2];
    launched.started = 1;
    launched.done = 0;
    return CRASH != 0 ? 0 : pthread_create(&launched.thread, NULL, run, NULL);
}
