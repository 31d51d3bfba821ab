/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check: walks everything that the roots reach and compares with what the store recorded. Each shared node is visited once
 * (a bitmap over the blocks of segment 0), each pointer to it is counted; space/ then compares the counts. With
 * COW_CHECK_DATA every data block is read and verified as well. Then names.c goes through the trees one by one. Runs
 * alone: the writers lock is held.
 */
#include "check/check.h"
#include "fs/extents.h"

#include <stdlib.h>

#define READ_BLOCKS 64u

static int visit_node(void *context, cow_addr addr, unsigned level)
{
    struct cow_walk *walk = context;
    (void)level;
    uint64_t block = cow_addr_block(addr);
    if (cow_addr_segment(addr) != 0 || block >= walk->visited_blocks) return 1; /* found damaged when it is read */
    int rc = cow_space_check_expect(walk->space, addr, 1);
    if (rc) return rc;
    uint8_t bit = (uint8_t)(1u << (block % 8));
    if (walk->visited[block / 8] & bit) return 0;
    walk->visited[block / 8] |= bit;
    walk->report.nodes++;
    return 1;
}

static int damaged_node(void *context, struct cow_root at, struct cow_key first, struct cow_key end)
{
    struct cow_walk *walk = context;
    cow_finding finding = {.kind = COW_FOUND_NODE, .tree = walk->tree, .address = at.addr, .block_count = 1};
    walk->damaged_nodes++;
    cow_report(walk->reporter, &finding, NULL, "a node of tree %llu (inodes %llu to %llu): %s",
               (unsigned long long)walk->tree, (unsigned long long)first.ino, (unsigned long long)end.ino,
               cow_error_detail());
    return 0;
}

/* How many of the blocks lie within the file. Those behind its end may be laid out but not written: an import knows the
 * size of a large file before its content. */
static uint32_t blocks_within(struct cow_walk *walk, uint64_t ino, uint64_t file_block, uint32_t count)
{
    uint8_t bytes[COW_INODE_BYTES];
    struct cow_inode inode;
    int64_t length = cow_btree_get(walk->reporter->store->nodes, walk->root, cow_key_make(ino, COW_ITEM_INODE, 0), bytes,
                                   sizeof bytes);
    if (length < 0 || cow_inode_decode(ino, bytes, (size_t)length, &inode)) return count; /* reported elsewhere */
    uint64_t end = cow_blocks_of(inode.size_bytes);
    if (file_block >= end) return 0;
    return end - file_block < count ? (uint32_t)(end - file_block) : count;
}

/* Blocks [at, at + count) of the run; one finding, however many they are. */
static void damaged_blocks(struct cow_walk *walk, struct cow_key key, const struct cow_run *run, uint32_t at,
                           uint32_t count)
{
    if (count > 0) count = blocks_within(walk, key.ino, cow_key_offset(key) + at, count);
    if (count == 0) return;
    cow_finding finding = {.kind = COW_FOUND_DATA, .tree = walk->tree, .ino = key.ino,
                           .file_block = cow_key_offset(key) + at, .address = run->addr + at, .block_count = count};
    walk->damaged_data++;
    cow_report(walk->reporter, &finding, &walk->root, "tree %llu inode %llu, %u blocks from file block %llu: %s",
               (unsigned long long)walk->tree, (unsigned long long)key.ino, count,
               (unsigned long long)finding.file_block, cow_error_detail());
    cow_report_sharers(walk->reporter, walk->tree, key, finding.address, &finding);
}

/* Pieces first; block by block where a piece is damaged. */
static int verify_run(struct cow_walk *walk, struct cow_key key, const struct cow_run *run)
{
    struct cow_space *space = walk->reporter->store->space;
    uint32_t bad = 0; /* damaged blocks just before the one that is looked at */
    for (uint32_t done = 0; done < run->count;) {
        uint32_t n = run->count - done < READ_BLOCKS ? run->count - done : READ_BLOCKS;
        int rc = cow_space_read(space, run->addr + done, n, walk->buffer);
        if (rc && rc != -COW_EDAMAGE) return rc;
        for (uint32_t i = 0; rc && i < n; i++) {
            int one = cow_space_read(space, run->addr + done + i, 1, walk->buffer);
            if (one && one != -COW_EDAMAGE) return one;
            if (!one) damaged_blocks(walk, key, run, done + i - bad, bad);
            bad = one ? bad + 1 : 0;
        }
        if (!rc) damaged_blocks(walk, key, run, done - bad, bad);
        if (!rc) bad = 0;
        done += n;
    }
    damaged_blocks(walk, key, run, run->count - bad, bad);
    return 0;
}

static int visit_item(void *context, struct cow_key key, const uint8_t *value, size_t value_bytes)
{
    struct cow_walk *walk = context;
    if (cow_key_type(key) == COW_ITEM_INODE) walk->report.inodes++;
    if (cow_key_type(key) != COW_ITEM_EXTENT) return 0;
    struct cow_run run;
    if (cow_run_decode(value, value_bytes, &run)) return 0; /* names.c reports it */
    walk->report.extents++;
    walk->report.blocks += run.count;
    int rc = cow_space_check_expect(walk->space, run.addr, run.count);
    return rc || !walk->verify_data ? rc : verify_run(walk, key, &run);
}

static int visit_root(struct cow_walk *walk, uint64_t tree, struct cow_root root)
{
    struct cow_btree_visitor visitor = {
        .node = visit_node, .item = visit_item, .damaged = damaged_node, .context = walk};
    walk->tree = tree;
    walk->root = root;
    return cow_btree_visit(walk->reporter->store->nodes, root, &visitor);
}

/* An item of the trees tree. */
static int visit_list_item(void *context, struct cow_key key, const uint8_t *value, size_t value_bytes)
{
    struct cow_walk *walk = context;
    struct cow_tree_record record;
    if (key.ino == 0 || cow_key_type(key) != COW_ITEM_TREE) return 0;
    walk->report.trees++;
    if (cow_tree_record_decode(value, value_bytes, &record)) {
        cow_finding finding = {.kind = COW_FOUND_TREE, .tree = key.ino};
        cow_report(walk->reporter, &finding, NULL, "the record of tree %llu is damaged", (unsigned long long)key.ino);
        return 0;
    }
    int rc = visit_root(walk, key.ino, (struct cow_root){record.root_addr, record.root_generation});
    walk->tree = 0;
    return rc;
}

struct each_tree {
    int (*each)(void *context, uint64_t id, const struct cow_tree_record *record);
    void *context;
};

static int each_item(void *context, struct cow_key key, const uint8_t *value, size_t value_bytes)
{
    struct each_tree *each = context;
    struct cow_tree_record record;
    if (key.ino == 0 || cow_key_type(key) != COW_ITEM_TREE) return 0;
    return cow_tree_record_decode(value, value_bytes, &record) ? 0 : each->each(each->context, key.ino, &record);
}

static int pass_over(void *context, struct cow_root at, struct cow_key first, struct cow_key end)
{
    (void)context, (void)at, (void)first, (void)end;
    return 0;
}

int cow_each_tree(cow_store *store, int (*each)(void *context, uint64_t id, const struct cow_tree_record *record),
                  void *context)
{
    struct each_tree all = {each, context};
    struct cow_btree_visitor visitor = {.item = each_item, .damaged = pass_over, .context = &all};
    return cow_btree_visit(store->nodes, store->trees_root, &visitor);
}

int cow_walk_init(struct cow_walk *walk, struct cow_reporter *reporter, bool verify_data)
{
    struct cow_space_state state;
    cow_space_get_state(reporter->store->space, &state);
    *walk = (struct cow_walk){.reporter = reporter, .verify_data = verify_data, .visited_blocks = state.meta_blocks};
    walk->visited = calloc(1, state.meta_blocks / 8 + 1);
    walk->buffer = malloc((size_t)READ_BLOCKS * COW_BLOCK_BYTES);
    if (!walk->visited || !walk->buffer) return cow_fail(ENOMEM, "check");
    return cow_space_check_begin(reporter->store->space, &walk->space);
}

void cow_walk_deinit(struct cow_walk *walk)
{
    if (walk->space) cow_space_check_cancel(walk->space);
    free(walk->visited);
    free(walk->buffer);
}

int cow_walk_all(struct cow_walk *walk)
{
    cow_store *store = walk->reporter->store;
    struct cow_btree_visitor list = {
        .node = visit_node, .item = visit_list_item, .damaged = damaged_node, .context = walk};
    int rc = cow_btree_visit(store->nodes, store->trees_root, &list);
    for (uint32_t i = 0; i < store->release.depth && !rc; i++) rc = visit_root(walk, 0, store->release.stack[i]);
    if (rc || walk->report.trees == store->tree_count) return rc;
    cow_finding finding = {.kind = COW_FOUND_TREE};
    cow_report(walk->reporter, &finding, NULL, "%llu trees are listed, %llu by the superblock",
               (unsigned long long)walk->report.trees, (unsigned long long)store->tree_count);
    return 0;
}

/* ---- The public calls ---- */

struct space_sink {
    struct cow_reporter *reporter;
    struct cow_space_check *space;
};

static void space_problem(void *context, const char *text)
{
    struct space_sink *sink = context;
    cow_finding finding = {0};
    bool records = false;
    cow_space_check_where(sink->space, &records, &finding.address, &finding.block_count);
    finding.kind = records ? COW_FOUND_RECORDS : COW_FOUND_COUNT;
    cow_report(sink->reporter, &finding, NULL, "%s", text);
}

static int compare_counts(struct cow_walk *walk)
{
    struct space_sink sink = {walk->reporter, walk->space};
    uint64_t errors = 0;
    walk->space = NULL; /* end frees it */
    return cow_space_check_end(sink.space, space_problem, &sink, &errors);
}

static int names_of_tree(void *context, uint64_t id, const struct cow_tree_record *record)
{
    struct cow_tree_record copy = *record;
    bool changed = false;
    return cow_names_check(context, id, &copy, &changed);
}

static int examine(struct cow_reporter *reporter, uint32_t flags, cow_check_report *report)
{
    struct cow_walk walk;
    int rc = cow_walk_init(&walk, reporter, (flags & COW_CHECK_DATA) != 0);
    if (!rc) rc = cow_walk_all(&walk);
    if (walk.damaged_nodes) cow_space_check_partial(walk.space);
    if (!rc) rc = compare_counts(&walk);
    struct cow_names names = {.reporter = reporter, .whole_trees = (flags & COW_CHECK_WHOLE) != 0};
    if (!rc) rc = cow_each_tree(reporter->store, names_of_tree, &names);
    *report = walk.report;
    report->orphans = names.orphans;
    cow_names_deinit(&names);
    cow_walk_deinit(&walk);
    return rc;
}

int cow_store_examine(cow_store *store, uint32_t flags, cow_found_fn found, void *context, cow_check_report *report_out)
{
    if (!store || !report_out) return cow_fail(EINVAL, "check needs a store and a place for the report");
    if (flags & ~(uint32_t)(COW_CHECK_DATA | COW_CHECK_WHOLE)) return cow_fail(EINVAL, "flags of check: %u", flags);
    int rc = cow_store_usable(store);
    if (!rc && !store->readonly) rc = cow_commit(store);
    if (rc) return rc;
    struct cow_reporter reporter = {store, found, context, 0};
    cow_check_report report = {0};
    cow_commits_hold(store);
    pthread_rwlock_wrlock(&store->writers);
    /* Records in the trees tree must be those of now: something may have changed since the commit above. */
    rc = store->readonly ? 0 : cow_table_flush(store);
    if (!rc) rc = examine(&reporter, flags, &report);
    pthread_rwlock_unlock(&store->writers);
    cow_commits_let_go(store);
    report.errors = reporter.count;
    if (!rc) *report_out = report;
    return rc;
}

struct text_sink {
    void (*problem)(void *context, const char *text);
    void *context;
};

static void tell_text(void *context, const cow_finding *finding)
{
    const struct text_sink *sink = context;
    sink->problem(sink->context, finding->text);
}

int cow_store_check(cow_store *store, int verify_data, void (*problem)(void *context, const char *text), void *context,
                    cow_check_report *report_out)
{
    struct text_sink sink = {problem, context};
    return cow_store_examine(store, verify_data ? COW_CHECK_DATA : 0, problem ? tell_text : NULL, &sink, report_out);
}
