/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults while running: a store is made and closed; then it is opened again and worked with (work.h) while the n-th operation
 * of the medium, or the n-th allocation of memory, fails: once, or from then on. For every n. What must hold:
 *
 *   - the error that comes out is the one that went in (or "the store failed", with a reason); no crash, assertion or hang;
 *   - with the fault gone, a store that did not fail reads, commits and checks clean;
 *   - opened again, it shows its last commit (or the one that the fault cut off), checks clean, and goes on.
 *
 * Nothing leaks: the sanitizer says so. malloc and its kin are wrapped by the linker (CMakeLists.txt).
 *
 *   test_faults                              the runs of CI
 *   test_faults SEEDS                        longer: every n, seeds 1..SEEDS
 *   test_faults replay SEED CASE N           one run again; a failure prints this line
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "work.h"

#define STEPS 60u
#define N_MAX 100000u
#define HANG_SECONDS 120u

#define ALL (COW_DEV_SIM_READ | COW_DEV_SIM_WRITE | COW_DEV_SIM_SYNC | COW_DEV_SIM_OTHER)
#define MEMORY 0u /* as mask: allocations instead of the medium */

struct fault_case {
    const char *name;
    unsigned mask;
    int error;
    bool sticky;
    unsigned stride; /* in CI; n starts at the seed */
};

static const struct fault_case cases[] = {
    {"a read fails", COW_DEV_SIM_READ, EIO, false, 5},
    {"reads fail", COW_DEV_SIM_READ, EIO, true, 11},
    {"a write fails", COW_DEV_SIM_WRITE, EIO, false, 3},
    {"writes fail", COW_DEV_SIM_WRITE, EIO, true, 3},
    {"a write finds the host full", COW_DEV_SIM_WRITE, ENOSPC, false, 3},
    {"writes find the host full", COW_DEV_SIM_WRITE, ENOSPC, true, 3},
    {"a sync fails", COW_DEV_SIM_SYNC, EIO, false, 3},
    {"syncs fail", COW_DEV_SIM_SYNC, EIO, true, 3},
    {"a sync finds the host full", COW_DEV_SIM_SYNC, ENOSPC, false, 3},
    {"another operation fails", COW_DEV_SIM_OTHER, EIO, false, 3},
    {"other operations fail", COW_DEV_SIM_OTHER, EIO, true, 3},
    {"another operation finds the host full", COW_DEV_SIM_OTHER, ENOSPC, false, 3},
    {"other operations find the host full", COW_DEV_SIM_OTHER, ENOSPC, true, 3},
    {"changes find the host full", COW_DEV_SIM_WRITE | COW_DEV_SIM_OTHER, ENOSPC, true, 3},
    {"everything fails", ALL, EIO, true, 17},
    {"an allocation fails", MEMORY, ENOMEM, false, 15},
    {"allocations fail", MEMORY, ENOMEM, true, 31},
};
#define CASE_COUNT (sizeof cases / sizeof *cases)

/* ---- Memory ---- */

static struct {
    uint64_t left; /* allocations until one fails; UINT64_MAX = off */
    uint64_t failed;
    bool sticky, paused;
} memory = {.left = UINT64_MAX};

static bool memory_fails(void)
{
    if (memory.paused || memory.left == UINT64_MAX) return false;
    if (memory.left > 0) {
        memory.left--;
        return false;
    }
    if (!memory.sticky) memory.left = UINT64_MAX;
    memory.failed++;
    errno = ENOMEM;
    return true;
}

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);

void *__wrap_malloc(size_t bytes) { return memory_fails() ? NULL : __real_malloc(bytes); }
void *__wrap_calloc(size_t count, size_t bytes) { return memory_fails() ? NULL : __real_calloc(count, bytes); }
void *__wrap_realloc(void *old, size_t bytes) { return memory_fails() ? NULL : __real_realloc(old, bytes); }
void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return memory_fails() ? NULL : __real_aligned_alloc(alignment, bytes);
}

static void pause_memory(bool paused) { memory.paused = paused; }

/* ---- One run ---- */

static char current[160]; /* how to run it again; empty between runs */

static void tell(void)
{
    if (*current) fputs(current, stderr);
}

static void tell_signal(int number)
{
    ssize_t ignored = write(STDERR_FILENO, current, strlen(current));
    (void)ignored;
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

static void arm(struct work *w, const struct fault_case *fault, uint64_t n)
{
    w->fault = fault->error;
    if (fault->mask != MEMORY) {
        cow_dev_sim_fail(w->sim, fault->mask, n, fault->error, fault->sticky);
        return;
    }
    memory.sticky = fault->sticky;
    memory.failed = 0;
    memory.left = n;
}

static void disarm(struct work *w)
{
    memory.left = UINT64_MAX;
    cow_dev_sim_fail(w->sim, ALL, UINT64_MAX, 0, false);
    w->fault = 0;
}

static void must_be(bool condition, const char *what)
{
    if (condition) return;
    fprintf(stderr, "%s (%s)\n", what, cow_error_detail());
    exit(1);
}

/* The fault is gone, the store still open: it works, or it says why not. */
static void judge_open_store(struct work *w)
{
    if (!w->store) return;
    if (atomic_load(&w->store->failed)) {
        must_be(cow_store_commit(w->store) == -EIO, "a failed store answers something else than EIO");
        must_be(strstr(cow_error_detail(), "must be opened again: ") != NULL, "a failed store without a reason");
        return;
    }
    WORK_MUST(work_commit(w));
    must_be(work_check(w->store) == 0, "problems in a store that did not fail");
}

/* Returns the faults that were injected. */
static uint64_t run_one(uint64_t seed, size_t number, uint64_t n)
{
    static struct work w;
    const struct fault_case *fault = &cases[number];
    (void)snprintf(current, sizeof current, "FAILED: test_faults replay %llu %zu %llu (%s)\n", (unsigned long long)seed, number,
                   (unsigned long long)n, fault->name);
    (void)alarm(HANG_SECONDS);
    work_init(&w, seed);
    w.on_pause = pause_memory;
    work_run(&w, STEPS);
    WORK_MUST(work_close(&w, false));

    arm(&w, fault, n);
    int rc = work_reopen(&w);
    must_be(rc == 0 || rc == -fault->error || rc == -EIO, "opening answers another error than was injected");
    if (rc == 0) work_run(&w, STEPS);
    uint64_t injected = fault->mask == MEMORY ? memory.failed : cow_dev_sim_faults(w.sim);
    disarm(&w);
    judge_open_store(&w);
    (void)work_close(&w, n % 2);
    WORK_MUST(work_reopen(&w));
    must_be(work_check(w.store) == 0, "problems in the store opened again");
    work_run(&w, 5);
    must_be(work_check(w.store) == 0, "problems in the store that went on");
    WORK_MUST(work_close(&w, false));
    work_deinit(&w);
    *current = 0;
    return injected;
}

/* Until n is past the last operation of its kind. */
static uint64_t run_case(uint64_t seed, size_t number, bool every, uint64_t *injected)
{
    uint64_t runs = 0, stride = every ? 1 : cases[number].stride;
    for (uint64_t n = every ? 0 : seed % stride; n < N_MAX; n += stride, runs++) {
        uint64_t faults = run_one(seed, number, n);
        *injected += faults;
        if (faults == 0) break;
    }
    return runs;
}

int main(int argc, char **argv)
{
    (void)signal(SIGABRT, tell_signal);
    (void)signal(SIGSEGV, tell_signal);
    (void)signal(SIGALRM, tell_signal);
    (void)atexit(tell);
    if (argc == 5 && strcmp(argv[1], "replay") == 0) {
        size_t number = strtoul(argv[3], NULL, 10);
        if (number >= CASE_COUNT) return 2;
        uint64_t faults = run_one(strtoull(argv[2], NULL, 10), number, strtoull(argv[4], NULL, 10));
        printf("faults: %llu injected\n", (unsigned long long)faults);
        return 0;
    }
    uint64_t seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 2, total = 0, injected = 0;
    for (size_t number = 0; number < CASE_COUNT; number++) {
        uint64_t runs = 0;
        for (uint64_t seed = 1; seed <= seeds; seed++) runs += run_case(seed, number, argc > 1, &injected);
        printf("ok   %s: %llu runs\n", cases[number].name, (unsigned long long)runs);
        (void)fflush(stdout);
        total += runs;
    }
    printf("faults: %llu runs, %llu faults injected\n", (unsigned long long)total, (unsigned long long)injected);
    return 0;
}
