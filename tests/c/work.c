/* SPDX-License-Identifier: Apache-2.0 */
#include "work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "crash_digest.h"
#include "fs/fs.h"

static const struct cow_tuning tuning = {.journal_pages = 24, .release_at_once = 1};

uint64_t work_random(struct work *w)
{
    w->random += 0x9E3779B97F4A7C15ull;
    uint64_t z = w->random;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

static void pause_faults(struct work *w, bool paused)
{
    cow_dev_sim_pause(w->sim, paused);
    if (w->on_pause) w->on_pause(paused);
}

static unsigned below(struct work *w, unsigned n) { return (unsigned)(work_random(w) % n); }

static bool failed(const struct work *w) { return atomic_load(&w->store->failed) != 0; }

/* Judges what an operation answered: names clash and vanish at random; an injected fault may come through. True when it
 * worked. */
static bool worked(struct work *w, int64_t rc)
{
    static const int fine[] = {ENOENT, EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, EINVAL, EROFS, ENXIO, ENODATA};
    if (rc >= 0) return true;
    if (w->fault && (rc == -w->fault || rc == -EIO || rc == -ESTALE)) {
        /* A failed store says so; without a fault of that kind there is no other reason for EIO. */
        if (rc == -EIO && w->fault != EIO && !failed(w)) {
            fprintf(stderr, "EIO although %s was injected and the store did not fail: %s\n", strerror(w->fault), cow_error_detail());
            exit(1);
        }
        if (!*cow_error_detail() && rc != -ENOMEM) {
            fprintf(stderr, "error %lld without a detail\n", (long long)rc);
            exit(1);
        }
        w->errors++;
        return false;
    }
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
        if (rc == -fine[i]) return false;
    fprintf(stderr, "unexpected error %lld: %s\n", (long long)rc, cow_error_detail());
    exit(1);
}

/* ---- Content ---- */

static void name_of(struct work *w, char *name) { sprintf(name, "n%u", below(w, 24)); }

static uint64_t some_dir(struct work *w, cow_tree *tree)
{
    uint64_t ino = COW_ROOT_INO;
    char name[16];
    for (unsigned i = below(w, 3); i > 0; i--) {
        cow_attr attr;
        uint64_t child;
        name_of(w, name);
        if (cow_dir_lookup(tree, ino, name, strlen(name), &child, &attr) == 0 && S_ISDIR(attr.mode)) ino = child;
    }
    return ino;
}

static void write_some(struct work *w, cow_tree *tree, uint64_t ino)
{
    static uint8_t bytes[300000];
    static const unsigned sizes[] = {5, 700, 4096, 9000, 70000, 300000};
    unsigned length = sizes[below(w, 6)];
    memset(bytes, (int)below(w, 256), length);
    bytes[below(w, length)] = 1;
    uint64_t offset = below(w, 2) ? (uint64_t)below(w, 60) * 4096 : below(w, 100000);
    (void)worked(w, cow_file_write(tree, ino, below(w, 5) ? offset : COW_APPEND, bytes, length));
}

static void clone_some(struct work *w, cow_tree *tree, uint64_t ino)
{
    cow_tree *other = w->trees[below(w, w->tree_count)];
    uint64_t source, offset = (uint64_t)below(w, 8) * 4096, length = 4096ull * (1 + below(w, 16));
    cow_attr attr;
    char name[16];
    name_of(w, name);
    if (cow_dir_lookup(other, COW_ROOT_INO, name, strlen(name), &source, &attr) || !S_ISREG(attr.mode)) return;
    (void)worked(w, cow_file_clone(other, source, 0, tree, ino, offset, length));
}

static void file_operation(struct work *w, cow_tree *tree)
{
    char name[16];
    uint64_t dir = some_dir(w, tree), ino;
    cow_attr attr;
    name_of(w, name);
    if (cow_dir_lookup(tree, dir, name, strlen(name), &ino, &attr) || !S_ISREG(attr.mode)) return;
    switch (below(w, 8)) {
    case 0: (void)worked(w, cow_file_truncate(tree, ino, below(w, 300000))); break;
    case 1: (void)worked(w, cow_file_punch(tree, ino, below(w, 100000), below(w, 100000))); break;
    case 2: clone_some(w, tree, ino); break;
    case 3: {
        attr.mode = 0600 + below(w, 64);
        (void)worked(w, cow_inode_set(tree, ino, &attr, COW_SET_MODE));
        break;
    }
    case 4: (void)worked(w, cow_xattr_set(tree, ino, "user.x", 6, name, below(w, 4), 0)); break;
    default: write_some(w, tree, ino); break;
    }
}

static void name_operation(struct work *w, cow_tree *tree)
{
    char name[16], other[16];
    uint64_t dir = some_dir(w, tree), dir2 = some_dir(w, tree), ino;
    name_of(w, name);
    name_of(w, other);
    size_t length = strlen(name), other_length = strlen(other);
    cow_attr attr = {.mode = S_IFREG | 0644};
    switch (below(w, 10)) {
    case 0: attr.mode = S_IFDIR | 0755; /* fall through */
    case 1:
    case 2:
    case 3:
        if (worked(w, cow_dir_make(tree, dir, name, length, &attr, NULL, 0, &ino)) && S_ISREG(attr.mode)) write_some(w, tree, ino);
        break;
    case 4: (void)worked(w, cow_dir_remove(tree, dir, name, length, COW_REMOVE_FILE)); break;
    case 5: (void)worked(w, cow_dir_remove(tree, dir, name, length, below(w, 2) ? COW_REMOVE_DIR : COW_REMOVE_TREE)); break;
    case 6:
        attr.mode = S_IFLNK | 0777;
        (void)worked(w, cow_dir_make(tree, dir, name, length, &attr, other, other_length, &ino));
        break;
    case 7:
        if (cow_dir_lookup(tree, dir2, other, other_length, &ino, &attr) == 0 && !S_ISDIR(attr.mode))
            (void)worked(w, cow_dir_link(tree, dir, name, length, ino));
        break;
    default: {
        uint32_t flags = below(w, 4) ? 0 : COW_RENAME_EXCHANGE;
        (void)worked(w, cow_dir_rename(tree, dir, name, length, dir2, other, other_length, flags));
        break;
    }
    }
}

/* Many small files at once, so that trees have many nodes and a deletion leaves a list behind. */
static void bulk_operation(struct work *w, cow_tree *tree)
{
    char name[16], content[1500];
    uint64_t dir, ino;
    cow_attr attr = {.mode = S_IFDIR | 0700};
    unsigned number = below(w, 4);
    sprintf(name, "bulk%u", number);
    if (below(w, 3) == 0) {
        (void)worked(w, cow_dir_remove(tree, COW_ROOT_INO, name, strlen(name), COW_REMOVE_TREE));
        return;
    }
    if (!worked(w, cow_dir_make(tree, COW_ROOT_INO, name, strlen(name), &attr, NULL, 0, &dir))) return;
    attr.mode = S_IFREG | 0600;
    memset(content, (int)number, sizeof content);
    for (unsigned i = 0; i < 30; i++) {
        sprintf(name, "f%u", i);
        if (!worked(w, cow_dir_make(tree, dir, name, strlen(name), &attr, NULL, 0, &ino))) return;
        if (!worked(w, cow_file_write(tree, ino, 0, content, sizeof content))) return;
    }
}

/* ---- Trees ---- */

static void forget_handle(struct work *w, unsigned i)
{
    cow_tree_close(w->trees[i]);
    w->tree_count--;
    w->trees[i] = w->trees[w->tree_count];
    w->sealed[i] = w->sealed[w->tree_count];
}

static void add_handle(struct work *w, cow_tree *tree, bool sealed)
{
    w->trees[w->tree_count] = tree;
    w->sealed[w->tree_count++] = sealed;
}

static void make_first_tree(struct work *w)
{
    cow_tree *tree;
    if (worked(w, cow_tree_create(w->store, 0, &tree))) add_handle(w, tree, false);
}

static void fork_some(struct work *w, unsigned i)
{
    cow_tree *tree;
    bool sealed = below(w, 3) == 0;
    uint32_t flags = (sealed ? COW_FORK_SEALED : 0) | (below(w, 2) ? COW_FORK_BASE : 0);
    if (w->tree_count == WORK_TREES_MAX) return;
    if (worked(w, cow_tree_fork(w->trees[i], flags, &tree))) add_handle(w, tree, sealed);
}

static void tree_operation(struct work *w)
{
    if (w->tree_count == 0) {
        make_first_tree(w);
        return;
    }
    unsigned i = below(w, w->tree_count), j = below(w, w->tree_count);
    switch (below(w, 6)) {
    case 0:
        if (w->tree_count > 2 && worked(w, cow_tree_delete(w->trees[i]))) forget_handle(w, i);
        break;
    case 1:
        if (!w->sealed[i]) (void)worked(w, cow_tree_reset(w->trees[i], w->trees[j]));
        break;
    case 2:
        if (w->tree_count > 3 && i == 0 && worked(w, cow_tree_seal(w->trees[i]))) w->sealed[i] = true;
        break;
    default: fork_some(w, i); break;
    }
}

/* Works on what deletions left over, as the background thread does. */
static void release_operation(struct work *w)
{
    bool more;
    int rc = cow_writers_enter(w->store);
    if (!worked(w, rc)) return;
    rc = cow_release_step(w->store, 1 + below(w, 8), &more);
    if (rc) rc = cow_store_fail(w->store, rc, "releasing a deleted tree");
    cow_writers_leave(w->store);
    (void)worked(w, rc);
}

/* ---- Imports ---- */

/* A member in a segment of its own, and written only in part if the import is cut off. */
static int import_whole(struct work *w, cow_tree *tree)
{
    static uint8_t bytes[100000];
    uint64_t ino;
    cow_attr attr = {.mode = S_IFREG | 0644};
    int rc = cow_dir_make(tree, COW_ROOT_INO, "whole", 5, &attr, NULL, 0, &ino);
    if (rc == -EEXIST) return 0;
    if (!rc) rc = cow_tree_write_begin(tree, COW_FS_PUTS);
    if (!rc) rc = (int)cow_tree_write_end(tree, cow_fs_place_whole(tree, ino, sizeof bytes));
    memset(bytes, (int)below(w, 256), sizeof bytes);
    return rc ? rc : cow_file_write(tree, ino, 0, bytes, sizeof bytes) < 0 ? -w->fault : 0;
}

/* Copies a tree through a tar stream, with commits in between. */
static int import_stream(struct work *w, cow_tree *source, cow_tree *tree)
{
    static uint8_t piece[70000];
    cow_tar *tar;
    cow_untar *untar;
    cow_untar_result result;
    int rc = cow_tar_open(NULL, source, &tar);
    if (rc) return rc;
    rc = cow_untar_open(tree, 0, &untar);
    if (rc) {
        cow_tar_close(tar);
        return rc;
    }
    int64_t n = 0;
    while (!rc && (n = cow_tar_read(tar, piece, sizeof piece)) > 0) {
        rc = cow_untar_feed(untar, piece, (size_t)n);
        if (!rc && below(w, 4) == 0) rc = work_commit(w);
    }
    if (!rc && n < 0) rc = (int)n;
    if (!rc) rc = cow_untar_finish(untar, &result);
    cow_untar_close(untar);
    cow_tar_close(tar);
    return rc;
}

static void import_operation(struct work *w)
{
    cow_tree *source = w->trees[below(w, w->tree_count)], *tree;
    if (w->tree_count == WORK_TREES_MAX) return;
    if (!worked(w, cow_tree_create(w->store, COW_FORK_TEMP, &tree))) return;
    int rc = below(w, 2) ? import_whole(w, tree) : 0;
    if (!rc) rc = import_stream(w, source, tree);
    (void)worked(w, rc);
    if (!rc && below(w, 8) == 0) { /* left behind: gone when the store is next opened */
        cow_tree_close(tree);
        return;
    }
    if (!rc) rc = cow_tree_keep(tree);
    if (rc) {
        (void)cow_tree_delete(tree);
        cow_tree_close(tree);
        return;
    }
    add_handle(w, tree, false);
}

/* ---- Transactions and commits ---- */

static uint64_t digest_now(struct work *w)
{
    uint64_t digest = 0;
    pause_faults(w, true);
    WORK_MUST(digest_store(w->store, &digest));
    pause_faults(w, false);
    return digest;
}

static void transaction_steps(struct work *w)
{
    for (unsigned i = below(w, 6); i > 0 && !failed(w); i--) {
        cow_tree *tree = w->trees[below(w, w->tree_count)];
        if (below(w, 2)) name_operation(w, tree);
        else file_operation(w, tree);
    }
}

static void transaction(struct work *w)
{
    bool keep = below(w, 2);
    if (!worked(w, cow_store_begin(w->store))) return;
    uint64_t before = keep ? 0 : digest_now(w);
    transaction_steps(w);
    if (!worked(w, cow_store_end(w->store, keep)) || keep || failed(w)) return;
    if (before == digest_now(w)) return;
    fprintf(stderr, "an aborted transaction left changes\n");
    exit(1);
}

int work_commit(struct work *w)
{
    if (failed(w)) return cow_store_commit(w->store);
    struct work_commit commit = {.started = cow_dev_sim_events(w->sim), .digest = digest_now(w)};
    int rc = cow_store_commit(w->store);
    commit.ended = cow_dev_sim_events(w->sim);
    if (rc) {
        w->flying = commit;
        return rc;
    }
    if (w->commit_count == WORK_COMMITS_MAX) {
        fprintf(stderr, "more than %u commits\n", WORK_COMMITS_MAX);
        exit(1);
    }
    w->commits[w->commit_count++] = commit;
    return 0;
}

void work_run(struct work *w, unsigned steps)
{
    for (unsigned i = 0; i < steps && !failed(w); i++) {
        if (w->tree_count == 0) make_first_tree(w);
        if (w->tree_count == 0) continue;
        unsigned what = below(w, 46);
        cow_tree *tree = w->trees[below(w, w->tree_count)];
        if (what < 3) tree_operation(w);
        else if (what < 5) (void)worked(w, work_commit(w));
        else if (what < 6) transaction(w);
        else if (what < 7) import_operation(w);
        else if (what < 8) release_operation(w);
        else if (what < 11) bulk_operation(w, tree);
        else if (what < 27) name_operation(w, tree);
        else file_operation(w, tree);
    }
    if (!failed(w)) (void)worked(w, work_commit(w));
}

/* ---- Stores that come and go ---- */

static int open_store(struct work *w)
{
    cow_dev_sim_hold(w->sim);
    int rc = cow_store_open_dev(w->sim, &w->options, &w->store);
    if (rc) w->store = NULL;
    else cow_store_tune(w->store, &tuning);
    return rc;
}

void work_init(struct work *w, uint64_t seed)
{
    *w = (struct work){.random = seed * 7919};
    w->options = (cow_options){.flags = COW_OPEN_CREATE, .record_cache_bytes = 1, .node_cache_bytes = 1, .lookup_entries = 64};
    WORK_MUST(cow_dev_sim_open(&w->sim));
    w->sim->fixed_seed = 1; /* replay needs the same layout each time */
    WORK_MUST(open_store(w));
}

int work_close(struct work *w, bool kill)
{
    int rc = 0;
    while (!kill && w->tree_count > 0) cow_tree_close(w->trees[--w->tree_count]);
    w->tree_count = 0;
    if (!w->store) return 0;
    if (kill) cow_store_abandon(w->store);
    else rc = cow_store_close(w->store);
    w->store = NULL;
    return rc;
}

void work_deinit(struct work *w)
{
    (void)work_close(w, true);
    cow_dev_destroy(w->sim);
    w->sim = NULL;
}

static void reopen_trees(struct work *w)
{
    for (uint64_t id = COW_TREE_CATALOG + 1; id < w->store->next_tree && w->tree_count < WORK_TREES_MAX; id++) {
        cow_tree *tree;
        cow_tree_info info;
        if (cow_tree_open(w->store, id, &tree)) continue;
        WORK_MUST(cow_tree_get_info(tree, &info));
        add_handle(w, tree, info.sealed != 0);
    }
}

int work_reopen(struct work *w)
{
    uint64_t digest;
    int rc = open_store(w);
    if (rc) return rc;
    pause_faults(w, true);
    WORK_MUST(digest_store(w->store, &digest));
    const struct work_commit *last = w->commit_count ? &w->commits[w->commit_count - 1] : NULL;
    bool landed = w->flying.ended && digest == w->flying.digest;
    if (!landed && last && digest != last->digest) {
        fprintf(stderr, "the store shows neither its last commit nor the one that was cut off\n");
        exit(1);
    }
    uint64_t started = landed ? w->flying.started : cow_dev_sim_events(w->sim);
    w->commits[w->commit_count++] = (struct work_commit){started, cow_dev_sim_events(w->sim), digest};
    w->flying = (struct work_commit){0};
    reopen_trees(w);
    pause_faults(w, false);
    return 0;
}

bool work_promised(const struct work *w, uint64_t event)
{
    return w->commit_count > 0 && w->commits[0].ended <= event;
}

bool work_may_show(const struct work *w, uint64_t event, uint64_t digest)
{
    unsigned durable = 0; /* commits that were known to be durable before the cut */
    while (durable < w->commit_count && w->commits[durable].ended <= event) durable++;
    if (durable == 0) return true; /* nothing was promised yet; its content is checked by check alone */
    if (digest == w->commits[durable - 1].digest) return true;
    return durable < w->commit_count && event > w->commits[durable].started && digest == w->commits[durable].digest;
}

static void print_problem(void *context, const char *text)
{
    (void)context;
    fprintf(stderr, "  check: %s\n", text);
}

unsigned work_check(cow_store *store)
{
    cow_check_report report;
    int rc = cow_store_check(store, 1, print_problem, NULL, &report);
    if (rc == 0) return (unsigned)report.errors;
    fprintf(stderr, "  check: %d %s\n", rc, cow_error_detail());
    return 1;
}
