/* NVIDIA's management library with one card, as where the driver is too old for CUDA's runtime. */
#include <string.h>

typedef struct { unsigned long long total, free, used; } memory_t;

int nvmlInit_v2(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "535.183.01", size); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = (void *)1; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) { *major = 9; *minor = 0; return 0; }
int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *later) { *now = *later = 0; return 0; }
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) { *count = 0; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **found) { return 6; }
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    memory->total = 80ULL << 30; memory->free = 78ULL << 30; memory->used = 2ULL << 30; return 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned size) { strncpy(text, "NVIDIA H100", size); return 0; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) { strncpy(text, "GPU-1", size); return 0; }
