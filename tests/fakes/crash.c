/* A broken build of llama.cpp: preloaded, it raises a signal at a decode.

   CRASH_WITH    extra, flash or threads: only while llama.cpp uses them; always: in any case.
   CRASH_SIGNAL  its number.
   CRASH_AFTER   decodes that go well before; 0 without it.

   llama.cpp is loaded with RTLD_LOCAL, so what it calls is found here first, and what is called
   from here must be looked up in its own libraries. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool uses_extra, uses_flash;
static int n_threads = 1;
static int n_decodes;

static void * real(const char * library, const char * name) {
    return dlsym(dlopen(library, RTLD_LAZY | RTLD_NOLOAD), name);
}

typedef void (*set_threads)(void * backend, int n);
static set_threads real_set_threads;

static void note_threads(void * backend, int n) {
    n_threads = n;
    real_set_threads(backend, n);
}

void * ggml_backend_reg_get_proc_address(void * reg, const char * name) {
    void * (*find)(void *, const char *) =
        real("libggml-base.so.0", "ggml_backend_reg_get_proc_address");
    void * found = find(reg, name);
    if (!strcmp(name, "ggml_backend_dev_get_extra_bufts")) {
        uses_extra = true;
    }
    if (!strcmp(name, "ggml_backend_set_n_threads") && found) {
        real_set_threads = (set_threads) found;
        return (void *) note_threads;
    }
    return found;
}

void * ggml_flash_attn_ext(void * ctx, void * q, void * k, void * v, void * mask, float scale,
                           float max_bias, float logit_softcap) {
    void * (*attend)(void *, void *, void *, void *, void *, float, float, float) =
        real("libggml-base.so.0", "ggml_flash_attn_ext");
    uses_flash = true;
    return attend(ctx, q, k, v, mask, scale, max_bias, logit_softcap);
}

static bool is_broken(void) {
    const char * with = getenv("CRASH_WITH");
    if (!with || n_decodes++ < atoi(getenv("CRASH_AFTER") ? getenv("CRASH_AFTER") : "0")) {
        return false;
    }
    return !strcmp(with, "always") || (!strcmp(with, "extra") && uses_extra) ||
           (!strcmp(with, "flash") && uses_flash) || (!strcmp(with, "threads") && n_threads > 1);
}

int ggml_backend_sched_graph_compute_async(void * sched, void * graph) {
    if (is_broken()) {
        raise(atoi(getenv("CRASH_SIGNAL")));
    }
    int (*compute)(void *, void *) =
        real("libggml-base.so.0", "ggml_backend_sched_graph_compute_async");
    return compute(sched, graph);
}
