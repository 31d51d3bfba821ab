/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences of operations against the model of tests/c: names, content, clones, pins, forks, diffs; and here also quotas
 * that come and go, transactions that are taken back, rollbacks, reopening, and processes that die (what was not committed
 * is gone). After each such turn, and at the end, all trees must equal their models and the store must check clean.
 */
#include "dev/dev.h"
#include "fs_steps.h"
#include "fuzz.h"

static struct run run;
static struct model committed[TREES]; /* as of the last commit */
static uint64_t committed_id[TREES];  /* 0 = there was none */
static struct cow_dev *sim;

static const cow_options options = {
    .flags = COW_OPEN_CREATE, .node_cache_bytes = 1u << 20, .record_cache_bytes = 1u << 20, .lookup_entries = 256};
static const struct cow_tuning tuning = {.journal_pages = 8, .release_at_once = 4};

static void keep(void)
{
    for (unsigned t = 0; t < TREES; t++) {
        committed_id[t] = run.tree[t] ? run.tree[t]->id : 0;
        if (run.tree[t]) model_copy(&committed[t], &run.model[t]);
    }
}

static void verify(void)
{
    for (unsigned t = 0; t < TREES; t++)
        if (run.tree[t]) model_verify(&run.model[t], run.tree[t]);
    FUZZ_CHECK(test_failed_checks == 0);
}

static void commit(void)
{
    MUST(cow_store_commit(run.store));
    keep();
}

static void let_go(void)
{
    for (unsigned t = 0; t < TREES; t++) {
        if (!run.tree[t]) continue;
        unpin_all(&run, t);
        cow_tree_close(run.tree[t]);
        run.tree[t] = NULL;
    }
}

/* Closes or dies, and opens again. */
static void turn(bool die)
{
    if (!die) {
        for (unsigned t = 0; t < TREES; t++)
            if (run.tree[t]) unpin_all(&run, t);
        keep();
    }
    let_go();
    if (die) cow_store_abandon(run.store);
    else MUST(cow_store_close(run.store));
    cow_dev_sim_hold(sim);
    MUST(cow_store_open_dev(sim, &options, &run.store));
    cow_store_tune(run.store, &tuning);
    for (unsigned t = 0; t < TREES; t++) {
        if (!committed_id[t]) continue;
        MUST(cow_tree_open(run.store, committed_id[t], &run.tree[t]));
        model_copy(&run.model[t], &committed[t]);
    }
    verify();
}

static unsigned any_tree(void)
{
    unsigned t = below(&run, TREES);
    while (!run.tree[t]) t = (t + 1) % TREES;
    return t;
}

/* Some steps in a transaction that is taken back; pins are not part of it, so there must be none. */
static void take_back(void)
{
    static struct model before[TREES];
    cow_tree *trees[TREES];
    for (unsigned t = 0; t < TREES; t++) {
        trees[t] = run.tree[t];
        if (!trees[t]) continue;
        unpin_all(&run, t);
        model_copy(&before[t], &run.model[t]);
    }
    MUST(cow_store_begin(run.store));
    for (unsigned i = below(&run, 6); i > 0; i--) {
        unsigned t = any_tree();
        switch (below(&run, 5)) {
        case 0: step_make(&run, run.tree[t], &run.model[t]); break;
        case 1: step_remove(&run, run.tree[t], &run.model[t]); break;
        case 2: step_rename(&run, run.tree[t], &run.model[t]); break;
        case 3: step_shape(&run, run.tree[t], &run.model[t]); break;
        default: step_write(&run, run.tree[t], &run.model[t]); break;
        }
    }
    MUST(cow_store_end(run.store, 0));
    for (unsigned t = 0; t < TREES; t++)
        if (trees[t]) model_copy(&run.model[t], &before[t]);
    verify();
}

static void roll_back(void)
{
    unsigned t = any_tree(), other = any_tree();
    if (t == other) return;
    unpin_all(&run, t);
    unpin_all(&run, other);
    MUST(cow_tree_reset(run.tree[t], run.tree[other]));
    model_copy(&run.model[t], &run.model[other]);
}

/* A write with a quota: all of it or nothing. */
static void write_with_quota(void)
{
    static uint8_t bytes[70000];
    unsigned t = any_tree();
    cow_tree *tree = run.tree[t];
    int i = any_node(&run, &run.model[t], false);
    if (i < 0) return;
    struct model_node *node = &run.model[t].node[i];
    uint64_t offset = any_offset(&run), quota = 1 + below(&run, 400000), before = size_of(tree);
    size_t length = any_length(&run);
    test_fill(bytes, length, quota);
    MUST(cow_tree_set_quota(tree, quota));
    int64_t rc = cow_file_write(tree, node->ino, offset, bytes, length);
    FUZZ_CHECK(rc == (int64_t)length || rc == -EDQUOT);
    FUZZ_CHECK(rc < 0 ? size_of(tree) == before : size_of(tree) <= quota || size_of(tree) == before);
    if (rc > 0) model_write(node, offset, bytes, length);
    MUST(cow_tree_set_quota(tree, 0));
}

static void start(const uint8_t *data, size_t size)
{
    memset(&run, 0, sizeof run);
    memset(committed_id, 0, sizeof committed_id);
    run.choices = data;
    run.choice_count = size;
    run.random = 1;
    run.commit = commit;
    MUST(cow_dev_sim_open(&sim));
    sim->fixed_seed = 1;
    cow_dev_sim_hold(sim);
    MUST(cow_store_open_dev(sim, &options, &run.store));
    cow_store_tune(run.store, &tuning);
    MUST(cow_tree_create(run.store, 0, &run.tree[0]));
    model_init(&run.model[0]);
    commit();
}

static void finish(void)
{
    verify();
    let_go();
    cow_check_report report;
    MUST(cow_store_check(run.store, 1, problem, NULL, &report));
    FUZZ_CHECK(report.errors == 0);
    for (unsigned t = 0; t < TREES; t++) {
        model_deinit(&run.model[t]);
        model_deinit(&committed[t]);
    }
    MUST(cow_store_close(run.store));
    cow_dev_destroy(sim);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    start(data, size);
    for (unsigned steps = 0; run.choice_count > 0 && steps < 600; steps++) {
        switch (below(&run, 40)) {
        case 0: turn(false); break;
        case 1: turn(true); break;
        case 2: take_back(); break;
        case 3: roll_back(); break;
        case 4: write_with_quota(); break;
        case 5: commit(); break;
        default: one_step(&run); break;
        }
        FUZZ_CHECK(test_failed_checks == 0);
    }
    finish();
    return 0;
}
