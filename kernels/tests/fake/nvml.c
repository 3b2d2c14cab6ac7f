/* NVIDIA's management library, made up, for tests: it knows the GPUs of `cuda.c`. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef INIT
#define INIT 0
#endif
/* Of the first GPU's memory. The second has no ECC. */
#ifndef UNCORRECTED
#define UNCORRECTED 0
#endif
#ifndef PENDING
#define PENDING 0
#endif
#ifndef FAILED
#define FAILED 0
#endif

/* Where the first GPU's second NVLink ends: its NVLink switch. */
#ifndef SWITCH
#define SWITCH "00000000:05:00.0"
#endif

static int devices[2], set;

int nvmlInit_v2(void) { return INIT; }
int nvmlShutdown(void) { return 0; }
const char* nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : NULL; }
int nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** device) {
    *device = strcmp(id, "0000:3b:00.0") == 0 ? &devices[0] : strcmp(id, "0000:af:00.0") == 0 ? &devices[1] : NULL;
    return *device ? 0 : 6;
}
int nvmlDeviceGetTotalEccErrors(void* device, int type, int counter, unsigned long long* count) {
    /* Uncorrected, volatile. */
    if (type != 1 || counter != 0) return 2;
    *count = UNCORRECTED;
    return device == &devices[0] ? 0 : 3;
}
int nvmlDeviceGetRemappedRows(void* device, unsigned* corrected, unsigned* uncorrected, unsigned* pending, unsigned* failed) {
    *corrected = *uncorrected = 7;
    *pending = PENDING;
    *failed = FAILED;
    return device == &devices[0] ? 0 : 3;
}
int nvmlDeviceGetRetiredPagesPendingStatus(void* device, int* pending) {
    *pending = 0;
    return device == &devices[1] ? 0 : 3;
}

typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char at[32]; } Pci;

int nvmlDeviceGetPciInfo_v3(void* device, Pci* info) {
    strcpy(info->at, device == &devices[0] ? "00000000:3B:00.0" : "00000000:AF:00.0");
    return 0;
}
/* The first GPU has four NVLinks, of which the third is down and the fourth ends nobody knows where; the second has none. */
int nvmlDeviceGetNvLinkState(void* device, unsigned link, int* up) {
    if (device != &devices[0]) return 3;
    *up = link != 2;
    return link < 4 ? 0 : 2;
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void* device, unsigned link, Pci* info) {
    static const char* ends[4] = {"00000000:AF:00.0", SWITCH, "00000000:06:00.0", "FFFFFFFF:FF:FF.0"};
    strcpy(info->at, ends[link]);
    return device == &devices[0] ? 0 : 3;
}

typedef struct { void* device; unsigned long long type, data; unsigned gpu, compute; } Event;

int nvmlEventSetCreate(void** made) { *made = &set; return 0; }
int nvmlEventSetFree(void* of) { return of == &set ? 0 : 2; }
int nvmlDeviceRegisterEvents(void* device, unsigned long long types, void* to) {
    return device == &devices[0] && types == 8 && to == &set ? 0 : 2;
}
/* A report is a file of this name with a number in it; it is reported once. */
int nvmlEventSetWait_v2(void* of, Event* event, unsigned limit_ms) {
    const char* path = getenv("FAKE_XID");
    if (of != &set || !path) return 999;
    for (unsigned waited_ms = 0;; waited_ms++) {
        FILE* file = fopen(path, "r");
        if (file) {
            *event = (Event){&devices[0], 8, 0, 0, 0};
            const int read = fscanf(file, "%llu", &event->data);
            fclose(file);
            unlink(path);
            return read == 1 ? 0 : 999;
        }
        if (waited_ms >= limit_ms) return 10;
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
}
