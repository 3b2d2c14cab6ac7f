/* A driver that is none, for tests: what it answers is decided when it is compiled. */
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#ifndef INIT
#define INIT 0
#endif
#ifndef VERSION
#define VERSION 13000
#endif
#ifndef COUNT
#define COUNT 2
#endif
/* Memory of the first GPU. */
#ifndef GIB
#define GIB 80
#endif
/* Not zero for a GPU in disorder: a call that needs it does not come back. */
#ifndef HANGS
#define HANGS 0
#endif
/* The number of a GPU that does not answer. */
#ifndef LOST
#define LOST -1
#endif

int cuInit(unsigned flags) { return flags == 0 ? INIT : 1; }
int cuDriverGetVersion(int* version) { *version = VERSION; return 0; }

static int say(int code, const char** text, const char* unknown, const char* no_device) {
    *text = code == 999 ? unknown : code == 100 ? no_device : NULL;
    return *text ? 0 : 1;
}
int cuGetErrorName(int code, const char** text) { return say(code, text, "CUDA_ERROR_UNKNOWN", "CUDA_ERROR_NO_DEVICE"); }
int cuGetErrorString(int code, const char** text) { return say(code, text, "unknown error", "no device"); }

int cuDeviceGetCount(int* count) { *count = COUNT; return 0; }
int cuDeviceGet(int* device, int number) { *device = 10 + number; return 0 <= number && number < COUNT ? 0 : 101; }
int cuDeviceGetName(char* name, int bytes, int device) {
    if (device == 10 + LOST) return 999;
    strncpy(name, device == 10 ? "Fake H100" : "Fake GTX 1080", bytes);
    return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    int first = device == 10;
    switch (attribute) {
        case 16: *value = first ? 132 : 20; return 0; /* multiprocessors */
        case 17: *value = !first; return 0;           /* drives a display */
        case 20: *value = 0; return 0;                /* compute mode */
        case 75: *value = first ? 9 : 6; return 0;    /* compute capability */
        case 76: *value = first ? 0 : 1; return 0;
        case 95: *value = 1; return 0;                /* cooperative launch */
        default: return 1;
    }
}
int cuDeviceGetPCIBusId(char* id, int bytes, int device) {
    strncpy(id, device == 10 ? "0000:3B:00.0" : "0000:AF:00.0", bytes);
    return 0;
}
int cuDeviceTotalMem_v2(size_t* bytes, int device) { *bytes = (size_t)(device == 10 ? GIB : 8) << 30; return 0; }

/* The context is the device, so that a wrong one shows. */
static void* current;
int cuDevicePrimaryCtxRetain(void** context, int device) { *context = (void*)(size_t)device; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return current ? 999 : 0 * device; }
int cuCtxPushCurrent_v2(void* context) { current = context; return 0; }
int cuCtxPopCurrent_v2(void** context) { *context = current; current = NULL; return 0; }
int cuMemGetInfo_v2(size_t* free, size_t* total) {
    while (HANGS) pause();
    if (current != (void*)10) return 2; /* out of memory */
    *free = (size_t)79 << 30;
    *total = (size_t)80 << 30;
    return 0;
}
