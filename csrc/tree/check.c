/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check: walks everything that the roots reach and compares with what the store recorded. Each shared node is visited once
 * (a bitmap over the blocks of segment 0), each pointer to it is counted; space/ then compares the counts. With
 * verify_data every data block is read and verified as well. Runs alone: the writers lock is held.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tree/store.h"

struct check {
    cow_store *store;
    struct cow_space_check *space;
    bool verify_data;
    void (*problem)(void *context, const char *text);
    void *context;
    uint8_t *visited; /* a bit per block of segment 0 */
    uint64_t visited_blocks;
    cow_check_report report;
    uint8_t *buffer; /* for reading data */
};
#define READ_BLOCKS 64u

static void problem(struct check *check, const char *text)
{
    check->report.errors++;
    if (check->problem) check->problem(check->context, text);
}

/* Damage is reported and the walk goes on; what is not damage ends it. */
static int note(struct check *check, int rc, const char *what)
{
    if (rc != -COW_EDAMAGE) return rc;
    char text[320];
    (void)snprintf(text, sizeof text, "%s: %s", what, cow_error_detail());
    problem(check, text);
    return 0;
}

static int visit_node(void *context, cow_addr addr, unsigned level)
{
    struct check *check = context;
    (void)level;
    int rc = cow_space_check_expect(check->space, addr, 1);
    if (rc) return rc;
    uint64_t block = cow_addr_block(addr);
    if (cow_addr_segment(addr) != 0 || block >= check->visited_blocks) {
        problem(check, "a pointer leads out of the node segment");
        return 0;
    }
    uint8_t bit = (uint8_t)(1u << (block % 8));
    if (check->visited[block / 8] & bit) return 0;
    check->visited[block / 8] |= bit;
    check->report.nodes++;
    return 1;
}

static int verify_run(struct check *check, cow_addr addr, uint32_t count)
{
    for (uint32_t done = 0; done < count;) {
        uint32_t n = count - done < READ_BLOCKS ? count - done : READ_BLOCKS;
        int rc = cow_space_read(check->store->space, addr + done, n, check->buffer);
        rc = note(check, rc, "file data");
        if (rc) return rc;
        done += n;
    }
    return 0;
}

static int visit_item(void *context, struct cow_key key, const uint8_t *value, size_t value_bytes)
{
    struct check *check = context;
    if (cow_key_type(key) == COW_ITEM_INODE) {
        struct cow_inode inode;
        check->report.inodes++;
        return note(check, cow_inode_decode(key.ino, value, value_bytes, &inode), "inode");
    }
    if (cow_key_type(key) != COW_ITEM_EXTENT) return 0;
    struct cow_run run;
    int rc = cow_run_decode(value, value_bytes, &run);
    if (rc) return note(check, rc, "extent");
    check->report.extents++;
    check->report.blocks += run.count;
    rc = cow_space_check_expect(check->space, run.addr, run.count);
    if (rc || !check->verify_data) return rc;
    return verify_run(check, run.addr, run.count);
}

static int visit_root(struct check *check, struct cow_root root, const char *what)
{
    struct cow_btree_visitor visitor = {.node = visit_node, .item = visit_item, .context = check};
    return note(check, cow_btree_visit(check->store->nodes, root, &visitor), what);
}

static int visit_tree(void *context, uint64_t id, const struct cow_tree_record *record)
{
    struct check *check = context;
    char what[40];
    (void)snprintf(what, sizeof what, "tree %llu", (unsigned long long)id);
    check->report.trees++;
    return visit_root(check, (struct cow_root){record->root_addr, record->root_generation}, what);
}

static int ignore_item(void *context, struct cow_key key, const uint8_t *value, size_t value_bytes)
{
    (void)context, (void)key, (void)value, (void)value_bytes;
    return 0;
}

static int walk_all(struct check *check)
{
    cow_store *store = check->store;
    struct cow_btree_visitor trees = {.node = visit_node, .item = ignore_item, .context = check};
    int rc = note(check, cow_btree_visit(store->nodes, store->trees_root, &trees), "the trees tree");
    if (!rc) rc = note(check, cow_table_each(store, visit_tree, check), "the trees tree");
    for (uint32_t i = 0; i < store->release.depth && !rc; i++)
        rc = visit_root(check, store->release.stack[i], "a deleted tree");
    if (!rc && check->report.trees != store->tree_count) problem(check, "the number of trees is not what the superblock says");
    return rc;
}

static int run_check(struct check *check)
{
    struct cow_space_state state;
    cow_space_get_state(check->store->space, &state);
    check->visited_blocks = state.meta_blocks;
    check->visited = calloc(1, state.meta_blocks / 8 + 1);
    check->buffer = malloc((size_t)READ_BLOCKS * COW_BLOCK_BYTES);
    int rc = check->visited && check->buffer ? 0 : -ENOMEM;
    if (!rc) rc = cow_space_check_begin(check->store->space, &check->space);
    if (rc) return rc;
    rc = walk_all(check);
    uint64_t errors = 0;
    int end = cow_space_check_end(check->space, check->problem, check->context, &errors);
    check->report.errors += errors;
    return rc ? rc : end;
}

int cow_store_check(cow_store *store, int verify_data, void (*problem_fn)(void *context, const char *text), void *context,
                    cow_check_report *report_out)
{
    int rc = cow_store_usable(store);
    if (!rc && !store->readonly) rc = cow_commit(store);
    if (rc) return rc;
    struct check check = {.store = store, .verify_data = verify_data != 0, .problem = problem_fn, .context = context};
    cow_commits_hold(store);
    pthread_rwlock_wrlock(&store->writers);
    /* Records in the trees tree must be those of now: something may have changed since the commit above. */
    rc = store->readonly ? 0 : cow_table_flush(store);
    if (!rc) rc = run_check(&check);
    pthread_rwlock_unlock(&store->writers);
    cow_commits_let_go(store);
    free(check.visited);
    free(check.buffer);
    if (!rc) *report_out = check.report;
    return rc;
}
