/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose are these blocks? Goes through all trees, each shared node once, and reports for each damaged or unverified run
 * the files that refer to it, and for damaged nodes the trees that cannot be read because of them.
 */
#include <stdlib.h>

#include "check/check.h"

struct search {
    struct cow_reporter *reporter;
    const struct cow_runs *runs;
    uint32_t kind;
    uint8_t *visited;
    uint64_t visited_blocks, tree;
    struct cow_root root;
};

int cow_runs_add(struct cow_runs *runs, cow_addr addr, uint32_t count)
{
    struct cow_addr_run *last = runs->count ? &runs->run[runs->count - 1] : NULL;
    if (last && last->addr + last->count == addr) {
        last->count += count;
        return 0;
    }
    if (runs->count == runs->capacity) {
        size_t capacity = runs->capacity ? 2 * runs->capacity : 64;
        if (runs->count >= COW_RUNS_MAX) {
            runs->more += count;
            return 0;
        }
        struct cow_addr_run *run = realloc(runs->run, capacity * sizeof *run);
        if (!run) return cow_fail(ENOMEM, "list of damaged blocks");
        runs->run = run;
        runs->capacity = capacity;
    }
    runs->run[runs->count++] = (struct cow_addr_run){addr, count};
    return 0;
}

void cow_runs_deinit(struct cow_runs *runs) { free(runs->run); }

/* The first run that ends behind addr. */
static size_t first_behind(const struct cow_runs *runs, cow_addr addr)
{
    size_t low = 0, high = runs->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (runs->run[middle].addr + runs->run[middle].count <= addr) low = middle + 1;
        else high = middle;
    }
    return low;
}

static int visit_node(void *context, cow_addr addr, unsigned level)
{
    struct search *search = context;
    (void)level;
    uint64_t block = cow_addr_block(addr);
    if (cow_addr_segment(addr) != 0 || block >= search->visited_blocks) return 1;
    uint8_t bit = (uint8_t)(1u << (block % 8));
    if (search->visited[block / 8] & bit) return 0;
    search->visited[block / 8] |= bit;
    return 1;
}

static int visit_item(void *context, struct cow_key key, const uint8_t *value, size_t value_bytes)
{
    struct search *search = context;
    struct cow_run run;
    if (cow_key_type(key) != COW_ITEM_EXTENT || cow_run_decode(value, value_bytes, &run)) return 0;
    const struct cow_runs *runs = search->runs;
    for (size_t i = first_behind(runs, run.addr); i < runs->count && runs->run[i].addr < run.addr + run.count; i++) {
        cow_addr first = runs->run[i].addr > run.addr ? runs->run[i].addr : run.addr;
        cow_addr end = runs->run[i].addr + runs->run[i].count;
        if (end > run.addr + run.count) end = run.addr + run.count;
        cow_finding finding = {.kind = search->kind, .tree = search->tree, .ino = key.ino, .address = first,
                               .file_block = cow_key_offset(key) + (first - run.addr), .block_count = end - first};
        const char *what = search->kind == COW_FOUND_DATA ? "are damaged" : "could not be verified";
        cow_report(search->reporter, &finding, &search->root, "tree %llu inode %llu: %llu blocks from file block %llu %s",
                   (unsigned long long)search->tree, (unsigned long long)key.ino, (unsigned long long)finding.block_count,
                   (unsigned long long)finding.file_block, what);
        cow_report_sharers(search->reporter, search->tree, key, first, &finding);
    }
    return 0;
}

static int damaged_node(void *context, struct cow_root at, struct cow_key first, struct cow_key end)
{
    struct search *search = context;
    if (search->kind != COW_FOUND_DATA) return 0;
    cow_finding finding = {.kind = COW_FOUND_NODE, .tree = search->tree, .address = at.addr, .block_count = 1};
    cow_report(search->reporter, &finding, NULL, "a node of tree %llu (inodes %llu to %llu): %s",
               (unsigned long long)search->tree, (unsigned long long)first.ino, (unsigned long long)end.ino,
               cow_error_detail());
    return 0;
}

static int search_root(struct search *search, uint64_t id, struct cow_root root)
{
    struct cow_btree_visitor visitor = {
        .node = visit_node, .item = visit_item, .damaged = damaged_node, .context = search};
    search->tree = id;
    search->root = root;
    return cow_btree_visit(search->reporter->store->nodes, root, &visitor);
}

static int search_tree(void *context, uint64_t id, const struct cow_tree_record *record)
{
    return search_root(context, id, (struct cow_root){record->root_addr, record->root_generation});
}

int cow_report_owners(struct cow_reporter *reporter, const struct cow_runs *runs, uint32_t kind)
{
    struct cow_space_state state;
    cow_space_get_state(reporter->store->space, &state);
    struct search search = {.reporter = reporter, .runs = runs, .kind = kind, .visited_blocks = state.meta_blocks};
    search.visited = calloc(1, state.meta_blocks / 8 + 1);
    if (!search.visited) return cow_fail(ENOMEM, "check");
    int rc = cow_each_tree(reporter->store, search_tree, &search);
    free(search.visited);
    return rc;
}
