/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repair: opens a store in spite of its damage and commits it whole. The order: walk what the roots reach; make the
 * records fit the walk, so that there is free space that can be trusted; save what is left of trees with damaged nodes
 * into new ones; set counters right; walk and fit the records again, now to the saved trees; commit. All changes stay in
 * memory or in blocks that the last commit has free until that commit, so a crash leaves the store as it was.
 */
#include <stdio.h>
#include <stdlib.h>

#include "check/check.h"
#include "fs/fs.h"

struct repair {
    cow_store *store;
    struct cow_reporter reporter; /* counts, and hands on to found */
    cow_found_fn found;
    void *context;
    cow_repair_report report;
    struct cow_runs unverified;
    bool quiet; /* the second walk: it repeats what the first one said */
    uint64_t *ids;
    size_t id_count;
    cow_addr spoiled; /* a block that never verifies, 0 = not made */
};

static void note(void *context, const cow_finding *finding)
{
    struct repair *repair = context;
    if (repair->quiet) return;
    repair->report.found++;
    repair->report.repaired += finding->repaired;
    if (finding->kind == COW_FOUND_LOST) repair->report.lost++;
    if (finding->kind == COW_FOUND_DATA) repair->report.damaged++;
    if (repair->found) repair->found(repair->context, finding);
}

/* ---- Records ---- */

struct sink {
    struct repair *repair;
    struct cow_space_check *check;
};

static void fixed_records(void *context, const char *text)
{
    struct sink *sink = context;
    cow_finding finding = {.repaired = 1};
    bool records = false;
    cow_space_check_where(sink->check, &records, &finding.address, &finding.block_count);
    finding.kind = records ? COW_FOUND_RECORDS : COW_FOUND_COUNT;
    cow_report(&sink->repair->reporter, &finding, NULL, "%s", text);
}

static void unverified(void *context, cow_addr addr, uint32_t count)
{
    struct sink *sink = context;
    (void)cow_runs_add(&sink->repair->unverified, addr, count); /* without memory for it the number is still right */
}

static int walk_and_rebuild(struct repair *repair, bool verify_data, uint64_t *damaged_nodes)
{
    struct cow_walk walk;
    int rc = cow_walk_init(&walk, &repair->reporter, verify_data);
    if (!rc) rc = cow_walk_all(&walk);
    if (!rc) {
        struct sink sink = {repair, walk.space};
        struct cow_space_rebuild rebuild = {.problem = fixed_records, .unverified = unverified, .context = &sink};
        walk.space = NULL; /* rebuild frees it */
        rc = cow_space_rebuild(sink.check, &rebuild);
        repair->report.unverified += rebuild.unverified_blocks;
    }
    *damaged_nodes = walk.damaged_nodes;
    cow_walk_deinit(&walk);
    return rc;
}

/* ---- The list of trees ---- */

static int count_id(void *context, uint64_t id, const struct cow_tree_record *record)
{
    struct repair *repair = context;
    (void)record;
    if (repair->id_count % 1024 == 0) {
        uint64_t *ids = realloc(repair->ids, (repair->id_count + 1024) * sizeof *ids);
        if (!ids) return cow_fail(ENOMEM, "repair");
        repair->ids = ids;
    }
    repair->ids[repair->id_count++] = id;
    return 0;
}

static int put_record(cow_store *store, uint64_t id, const struct cow_tree_record *record)
{
    uint8_t bytes[COW_TREE_RECORD_BYTES];
    cow_tree_record_encode(record, bytes);
    int rc = cow_btree_reserve(store->nodes, 2);
    return rc ? rc : cow_btree_put(store->nodes, &store->trees_root, cow_key_make(id, COW_ITEM_TREE, 0), bytes, sizeof bytes);
}

static int get_record(cow_store *store, uint64_t id, struct cow_tree_record *record_out)
{
    uint8_t bytes[COW_TREE_RECORD_BYTES];
    int64_t n = cow_btree_get(store->nodes, store->trees_root, cow_key_make(id, COW_ITEM_TREE, 0), bytes, sizeof bytes);
    return n < 0 ? (int)n : cow_tree_record_decode(bytes, (size_t)n, record_out);
}

/* The list anew, without what was still to be released: the rebuild has freed that. */
static int mend_list(struct repair *repair)
{
    cow_store *store = repair->store;
    int rc = cow_salvage(store, store->trees_root, NULL, &store->trees_root);
    if (!rc) rc = cow_table_each(store, count_id, repair);
    if (rc) return rc;
    store->release_stored = 0;
    if (repair->id_count < store->tree_count) {
        cow_finding finding = {.kind = COW_FOUND_LOST};
        cow_report(&repair->reporter, &finding, NULL, "%llu of %llu trees were lost",
                   (unsigned long long)(store->tree_count - repair->id_count), (unsigned long long)store->tree_count);
    }
    store->tree_count = repair->id_count;
    if (repair->id_count && repair->ids[repair->id_count - 1] >= store->next_tree)
        store->next_tree = repair->ids[repair->id_count - 1] + 1;
    return 0;
}

static int mend_catalog(struct repair *repair)
{
    cow_store *store = repair->store;
    if (repair->id_count && repair->ids[0] == COW_TREE_CATALOG) return 0;
    cow_finding finding = {.kind = COW_FOUND_LOST, .tree = COW_TREE_CATALOG};
    cow_report(&repair->reporter, &finding, NULL, "the catalog of names was lost: an empty one was made");
    struct cow_tree_record record = {.next_ino = COW_ROOT_INO, .base = COW_TREE_CATALOG, .created_ns = cow_now_ns()};
    int rc = cow_btree_reserve(store->nodes, 4);
    struct cow_root root;
    if (!rc) rc = cow_btree_create(store->nodes, &root);
    if (rc) return rc;
    record.root_addr = root.addr;
    record.root_generation = root.generation;
    rc = put_record(store, COW_TREE_CATALOG, &record);
    struct cow_tree *tree;
    if (!rc) rc = cow_table_get(store, COW_TREE_CATALOG, &tree);
    if (rc) return rc;
    rc = cow_fs_make_root(tree);
    cow_table_mark_dirty(tree);
    cow_table_put(tree);
    store->tree_count++;
    return rc ? rc : cow_table_flush(store);
}

/* ---- Trees ---- */

static int count_damage(void *context, struct cow_root at, struct cow_key first, struct cow_key end)
{
    uint64_t *damaged = context;
    (void)at, (void)first, (void)end;
    ++*damaged;
    return 0;
}

static int tree_damage(cow_store *store, struct cow_root root, uint64_t *damaged_out)
{
    *damaged_out = 0;
    struct cow_btree_visitor visitor = {.damaged = count_damage, .context = damaged_out};
    return cow_btree_visit(store->nodes, root, &visitor);
}

/* Forks of one state become forks of what is saved of it. */
struct saved {
    struct cow_root was, is;
};

static int save_tree(struct repair *repair, uint64_t id, struct saved *last)
{
    cow_store *store = repair->store;
    struct cow_tree *tree;
    int rc = cow_table_get(store, id, &tree);
    if (rc) return rc;
    struct cow_root was = tree->root;
    if (last->was.addr == was.addr) {
        rc = cow_btree_ref(store->nodes, last->is);
        if (!rc) tree->root = last->is;
    } else {
        struct cow_gaps gaps = {0};
        rc = cow_salvage(store, was, &gaps, &tree->root);
        if (!rc) rc = cow_salvage_names(&repair->reporter, tree, &gaps, &repair->spoiled);
        free(gaps.gap);
        *last = (struct saved){was, tree->root};
    }
    cow_finding finding = {.kind = COW_FOUND_LOST, .tree = id};
    if (!rc) cow_report(&repair->reporter, &finding, NULL, "tree %llu keeps what could be read of it", (unsigned long long)id);
    cow_table_mark_dirty(tree);
    cow_table_put(tree);
    return rc ? rc : cow_table_flush(store);
}

static int save_trees(struct repair *repair)
{
    struct saved last = {0};
    for (size_t i = 0; i < repair->id_count; i++) {
        struct cow_tree_record record;
        uint64_t damaged = 0;
        int rc = get_record(repair->store, repair->ids[i], &record);
        if (!rc) rc = tree_damage(repair->store, (struct cow_root){record.root_addr, record.root_generation}, &damaged);
        if (!rc && damaged) rc = save_tree(repair, repair->ids[i], &last);
        if (rc) return rc;
    }
    return 0;
}

/* Names that do not fit although every node is whole, and counters. */
static int mend_tree(struct repair *repair, struct cow_names *names, uint64_t id)
{
    cow_store *store = repair->store;
    struct cow_tree_record record;
    int rc = get_record(store, id, &record);
    if (rc) return rc;
    struct cow_root was = {record.root_addr, record.root_generation};
    bool changed = false;
    if (was.addr == 0) return 0;
    rc = cow_btree_ref(store->nodes, was); /* what is being read must not change */
    if (!rc) rc = cow_names_check(names, id, &record, &changed);
    if (!rc && changed) rc = put_record(store, id, &record);
    return rc ? rc : cow_release_push(store, was);
}

static int mend_trees(struct repair *repair)
{
    struct cow_names names = {.reporter = &repair->reporter, .fix = true};
    int rc = 0;
    for (size_t i = 0; i < repair->id_count && !rc; i++) rc = mend_tree(repair, &names, repair->ids[i]);
    cow_names_deinit(&names);
    return rc;
}

/* ---- All ---- */

static void report_opening(struct repair *repair)
{
    cow_finding super = {.kind = COW_FOUND_SUPER, .repaired = 1}, journal = {.kind = COW_FOUND_JOURNAL, .repaired = 1};
    if (repair->store->super_damaged)
        cow_report(&repair->reporter, &super, NULL, "a superblock is damaged; generation %llu is used",
                   (unsigned long long)repair->store->super.generation);
    if (cow_space_journal_damaged(repair->store->space))
        cow_report(&repair->reporter, &journal, NULL, "the journal is damaged; records are made anew");
}

static int repair_all(struct repair *repair)
{
    cow_store *store = repair->store;
    uint64_t damaged = 0;
    report_opening(repair);
    int rc = walk_and_rebuild(repair, true, &damaged);
    if (!rc) rc = mend_list(repair);
    if (!rc) rc = mend_catalog(repair);
    if (!rc) rc = save_trees(repair);
    if (!rc) rc = mend_trees(repair);
    repair->quiet = true;
    if (!rc) rc = walk_and_rebuild(repair, false, &damaged);
    repair->quiet = false;
    if (!rc && repair->unverified.count) rc = cow_report_owners(&repair->reporter, &repair->unverified, COW_FOUND_UNVERIFIED);
    if (!rc && damaged) rc = cow_fail(COW_EDAMAGE, "%llu nodes are still damaged", (unsigned long long)damaged);
    return rc ? rc : cow_commit(store);
}

int cow_store_repair_dev(struct cow_dev *dev, struct cow_lockfile *lockfile, cow_found_fn found, void *context,
                         cow_repair_report *report_out)
{
    struct repair repair = {.found = found, .context = context};
    cow_options options = {.flags = COW_OPEN_SALVAGE};
    bool made = false;
    int rc = cow_store_attach(dev, &options, lockfile, &made, &repair.store);
    if (rc) return rc;
    repair.reporter = (struct cow_reporter){.store = repair.store, .found = note, .context = &repair};
    rc = cow_lookup_open(0, &repair.store->lookup);
    if (!rc && repair.store->trees_root.generation != atomic_load(&repair.store->open_generation)) rc = repair_all(&repair);
    if (repair.store->lookup) cow_lookup_close(repair.store->lookup);
    repair.store->lockfile = NULL;
    cow_store_detach(repair.store);
    cow_runs_deinit(&repair.unverified);
    free(repair.ids);
    if (!rc) *report_out = repair.report;
    return rc;
}

int cow_store_repair(const char *path, cow_found_fn found, void *context, cow_repair_report *report_out)
{
    if (!path || !report_out) return cow_fail(EINVAL, "repair needs a path and a place for the report");
    cow_error_clear();
    char *name = NULL;
    if (asprintf(&name, "%s/meta", path) < 0) return -ENOMEM;
    FILE *meta = fopen(name, "re");
    int rc = meta ? 0 : cow_fail(errno, "%s: there is no store", path);
    if (meta) (void)fclose(meta);
    free(name);
    if (rc) return rc;
    struct cow_lockfile *lockfile = NULL;
    if (asprintf(&name, "%s/lock", path) < 0) return -ENOMEM;
    rc = cow_lockfile_open(name, false, &lockfile);
    free(name);
    if (rc) return rc;
    struct cow_dev *dev;
    rc = cow_dev_files_open(path, false, &dev);
    if (!rc && cow_lockfile_oldest(lockfile) != UINT64_MAX) {
        rc = cow_fail(EAGAIN, "%s: another process reads it", path);
        cow_dev_destroy(dev);
    }
    if (!rc) rc = cow_store_repair_dev(dev, lockfile, found, context, report_out);
    cow_lockfile_close(lockfile);
    return rc;
}
