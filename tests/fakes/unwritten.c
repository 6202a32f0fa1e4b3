/* Preloaded, memory for ggml that was never written holds what is no number. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

int posix_memalign(void ** place, size_t alignment, size_t n_bytes) {
    int (*allocate)(void **, size_t, size_t) = dlsym(RTLD_NEXT, "posix_memalign");
    int status = allocate(place, alignment, n_bytes);
    if (!status) {
        memset(*place, 0xff, n_bytes);
    }
    return status;
}
