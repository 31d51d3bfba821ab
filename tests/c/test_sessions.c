/* SPDX-License-Identifier: Apache-2.0 */
/* What many short sessions of one store leave behind: opened, changed, committed, closed. */
#include <string.h>
#include <sys/stat.h>

#include "dev/dev.h"
#include "test.h"
#include "tree/store.h"

static const cow_options options = {.flags = COW_OPEN_CREATE};

static cow_store *open_on(struct cow_dev *sim)
{
    cow_store *store;
    cow_dev_sim_hold(sim);
    MUST(cow_store_open_dev(sim, &options, &store));
    return store;
}

static void rewrite(cow_store *store, uint64_t id, uint64_t seed)
{
    static uint8_t bytes[200000];
    cow_tree *tree;
    uint64_t ino;
    test_fill(bytes, sizeof bytes, seed);
    MUST(cow_tree_open(store, id, &tree));
    MUST(cow_dir_lookup(tree, COW_ROOT_INO, "f", 1, &ino, NULL));
    MUST(cow_file_write(tree, ino, 0, bytes, sizeof bytes));
    cow_tree_close(tree);
}

/* One commit a session: what the session before released must be used again. */
static void test_space_is_reused(void)
{
    struct cow_dev *sim;
    MUST(cow_dev_sim_open(&sim));
    cow_store *store = open_on(sim);
    cow_tree *tree;
    uint64_t ino, data_early = 0, meta_early = 0;
    cow_attr attr = {.mode = S_IFREG | 0644};
    MUST(cow_tree_create(store, 0, &tree));
    cow_tree_info info;
    MUST(cow_tree_get_info(tree, &info));
    MUST(cow_dir_make(tree, COW_ROOT_INO, "f", 1, &attr, NULL, 0, &ino));
    cow_tree_close(tree);
    MUST(cow_store_close(store));
    for (uint64_t session = 0; session < 100; session++) {
        store = open_on(sim);
        rewrite(store, info.id, session);
        MUST(cow_store_commit(store));
        struct cow_space_state state;
        cow_space_get_state(store->space, &state);
        struct cow_dev_file *segment;
        uint64_t bytes;
        MUST(cow_dev_open(sim, "segments/00000001", 0, &segment));
        MUST(sim->ops->size(segment, &bytes));
        cow_dev_close(segment);
        MUST(cow_store_close(store));
        if (session == 10) {
            data_early = bytes;
            meta_early = state.meta_blocks;
        }
        if (session == 99) {
            CHECK_EQ(bytes, data_early);
            CHECK_EQ(state.meta_blocks, meta_early);
        }
    }
    cow_dev_destroy(sim);
}

static void test_default_caches(void)
{
    struct cow_dev *sim;
    MUST(cow_dev_sim_open(&sim));
    cow_store *store = open_on(sim);
    cow_stats stats;
    MUST(cow_store_commit(store));
    MUST(cow_store_close(store));
    store = open_on(sim);
    cow_tree *tree;
    for (int i = 0; i < 50; i++) {
        MUST(cow_tree_create(store, 0, &tree));
        cow_tree_close(tree);
    }
    MUST(cow_store_commit(store));
    MUST(cow_store_stats(store, &stats));
    CHECK(stats.record_cached_bytes > 0);
    CHECK_EQ(stats.record_evictions, 0);
    CHECK_EQ(stats.node_evictions, 0);
    MUST(cow_store_close(store));
    cow_dev_destroy(sim);
}

/* A write over a block of the open generation that fails half-way leaves a readable block: a part of it arrived. */
static void test_failed_overwrite_reads(void)
{
    struct cow_dev *sim;
    MUST(cow_dev_sim_open(&sim));
    cow_store *store = open_on(sim);
    cow_tree *tree;
    uint64_t ino;
    static uint8_t old[8192], new[8192], got[8192];
    cow_attr attr = {.mode = S_IFREG | 0644};
    memset(old, 1, sizeof old);
    memset(new, 2, sizeof new);
    MUST(cow_tree_create(store, 0, &tree));
    MUST(cow_dir_make(tree, COW_ROOT_INO, "f", 1, &attr, NULL, 0, &ino));
    MUST(cow_file_write(tree, ino, 0, old, sizeof old));
    cow_dev_sim_fail(sim, COW_DEV_SIM_WRITE, 0, EIO, false);
    CHECK_EQ(cow_file_write(tree, ino, 0, new, sizeof new), -EIO);
    CHECK_EQ(cow_file_read(tree, ino, 0, got, sizeof got), (int64_t)sizeof got);
    for (size_t i = 0; i < sizeof got; i++) CHECK(got[i] == 1 || got[i] == 2);
    cow_check_report report;
    MUST(cow_store_check(store, 1, NULL, NULL, &report));
    CHECK_EQ(report.errors, 0);
    cow_tree_close(tree);
    MUST(cow_store_close(store));
    cow_dev_destroy(sim);
}

int main(void)
{
    RUN(test_failed_overwrite_reads);
    RUN(test_space_is_reused);
    RUN(test_default_caches);
    return TEST_RESULT();
}
