/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_kit.h: stores for the fuzz targets. What fails here ends the run.
 */
#ifndef PYCOW_STORE_KIT_H
#define PYCOW_STORE_KIT_H

#include <sys/stat.h>

#include "fuzz.h"
#include "tree/store.h"

#define KIT_MUST(call) FUZZ_CHECK((call) >= 0)

static const cow_options kit_options = {
    .flags = COW_OPEN_CREATE, .node_cache_bytes = 1u << 20, .record_cache_bytes = 1u << 20, .lookup_entries = 256};

static inline cow_store *kit_open_memory(void)
{
    struct cow_dev *dev;
    cow_store *store;
    KIT_MUST(cow_dev_memory_open(&dev));
    dev->fixed_seed = 1;
    KIT_MUST(cow_store_open_dev(dev, &kit_options, &store));
    return store;
}

static inline uint64_t kit_make(cow_tree *tree, uint64_t dir, const char *name, uint32_t mode, const char *target)
{
    cow_attr attr = {.mode = mode, .mtime_ns = 1};
    uint64_t ino = 0;
    KIT_MUST(cow_dir_make(tree, dir, name, strlen(name), &attr, target, target ? strlen(target) : 0, &ino));
    return ino;
}

static inline void kit_problem(void *context, const char *text)
{
    (void)context;
    fprintf(stderr, "check: %s\n", text);
}

static inline void kit_check(cow_store *store)
{
    cow_check_report report;
    KIT_MUST(cow_store_check(store, 1, kit_problem, NULL, &report));
    FUZZ_CHECK(report.errors == 0);
}

#endif
