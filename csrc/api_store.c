/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public functions that join tree/ with what lies above it: a store has a catalog and a lookup cache, a new tree has a
 * root directory, an opened tree has no orphans left over from a crash.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/fs.h"
#include "tree/store.h"

/* ---- Opening ---- */

static int make_catalog(cow_store *store)
{
    cow_tree *catalog;
    int rc = cow_tree_create(store, 0, &catalog);
    if (rc) return rc;
    COW_ASSERT(catalog->id == COW_TREE_CATALOG);
    cow_tree_close(catalog);
    return cow_commit(store);
}

static int drop_temporary(cow_store *store)
{
    for (;;) {
        uint64_t id;
        int rc = cow_table_first_temp(store, &id);
        if (rc <= 0) return rc;
        cow_tree *tree;
        rc = cow_table_get(store, id, &tree);
        if (rc) return rc;
        rc = cow_tree_delete(tree);
        cow_tree_close(tree);
        if (rc) return rc;
    }
}

/* A store whose first commit did not get through has no trees yet, whether it was made just now or long ago. */
static int set_up(cow_store *store, const cow_options *options)
{
    int rc = cow_lookup_open(options->lookup_entries, &store->lookup);
    if (rc || store->readonly) return rc;
    if (store->next_tree == COW_TREE_CATALOG) rc = make_catalog(store);
    if (!rc) rc = drop_temporary(store);
    if (!rc && options->commit_interval_ms > 0) rc = cow_committer_start(store, options->commit_interval_ms);
    return rc;
}

static void tear_down(cow_store *store)
{
    cow_committer_stop(store);
    if (store->lookup) cow_lookup_close(store->lookup);
    cow_store_detach(store);
}

static int open_on(struct cow_dev *dev, const cow_options *options, struct cow_lockfile *lockfile, cow_store **store_out)
{
    cow_store *store;
    bool made = false;
    int rc = cow_store_attach(dev, options, lockfile, &made, &store);
    if (rc) {
        cow_lockfile_close(lockfile);
        return rc;
    }
    rc = set_up(store, options);
    if (rc) {
        tear_down(store);
        return rc;
    }
    *store_out = store;
    return 0;
}

int cow_store_open_dev(struct cow_dev *dev, const cow_options *options, cow_store **store_out)
{
    return open_on(dev, options, NULL, store_out);
}

static bool belongs_to_store(const char *name)
{
    static const char *const names[] = {".", "..", "lock", "meta", "journal.0", "journal.1", "segments", "space"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) return true;
    return false;
}

/* The new directory's name must be as durable as what will be in it. */
static int sync_parent(const char *path)
{
    char *parent = NULL;
    if (asprintf(&parent, "%s/..", path) < 0) return -ENOMEM;
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(parent);
    if (fd < 0) return errno == EACCES ? 0 : cow_fail(errno, "%s", path); /* a directory that only lets pass: not ours to sync */
    int rc = fsync(fd) < 0 && errno != EINVAL ? cow_fail(errno, "sync of the folder above %s", path) : 0;
    (void)close(fd);
    return rc;
}

/* A directory may become a store when it is missing or empty (or holds what a cut-off creation left). */
static int prepare_directory(const char *path, uint32_t flags)
{
    bool create = (flags & COW_OPEN_CREATE) && !(flags & COW_OPEN_READONLY);
    DIR *dir = opendir(path);
    if (!dir && errno == ENOENT && create) {
        if (mkdir(path, 0777) == 0) return sync_parent(path);
        if (errno == EEXIST) return 0;
        return cow_fail(errno, "%s", path);
    }
    if (!dir) return cow_fail(errno, "%s", path);
    bool is_store = false, foreign = false;
    for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        if (strcmp(entry->d_name, "meta") == 0) is_store = true;
        if (!belongs_to_store(entry->d_name)) foreign = true;
    }
    (void)closedir(dir);
    if (is_store) return 0;
    if (!create) return cow_fail(ENOENT, "%s: there is no store", path);
    if (foreign) return cow_fail(ENOTEMPTY, "%s: neither a store nor an empty directory", path);
    return 0;
}

int cow_store_open(const char *path, const cow_options *options, cow_store **store_out)
{
    if (!path || !options || !store_out) return cow_fail(EINVAL, "open needs a path, options and a place for the store");
    cow_error_clear();
    bool readonly = (options->flags & COW_OPEN_READONLY) != 0;
    int rc = prepare_directory(path, options->flags);
    if (rc) return rc;
    char *lock_path = NULL;
    if (asprintf(&lock_path, "%s/lock", path) < 0) return -ENOMEM;
    struct cow_lockfile *lockfile = NULL;
    rc = cow_lockfile_open(lock_path, readonly, &lockfile);
    free(lock_path);
    if (rc) return rc;
    struct cow_dev *dev;
    rc = cow_dev_files_open(path, readonly, &dev);
    if (rc) {
        cow_lockfile_close(lockfile);
        return rc;
    }
    return open_on(dev, options, lockfile, store_out);
}

void cow_store_abandon(cow_store *store)
{
    tear_down(store);
}

void cow_store_tune(cow_store *store, const struct cow_tuning *tuning)
{
    if (tuning->journal_pages) cow_space_set_journal_pages(store->space, tuning->journal_pages);
    if (!tuning->release_at_once) return;
    store->release_at_once = tuning->release_at_once;
    store->release_later = true;
}

int cow_store_close(cow_store *store)
{
    if (!store) return 0;
    int rc = cow_store_usable(store);
    if (rc == -ECHILD) return rc; /* the parent's: not ours to commit or free */
    cow_committer_stop(store);
    if (!rc && !store->readonly) rc = cow_commit(store);
    tear_down(store);
    return rc;
}

/* ---- Trees ---- */

int cow_tree_create(cow_store *store, uint32_t flags, cow_tree **tree_out)
{
    cow_tree *tree;
    int rc = cow_tree_new(store, flags, &tree);
    if (rc) return rc;
    rc = cow_tree_write_begin(tree, COW_FS_PUTS);
    if (!rc) rc = (int)cow_tree_write_end(tree, cow_fs_make_root(tree));
    if (rc) {
        (void)cow_tree_delete(tree);
        cow_tree_close(tree);
        return rc;
    }
    *tree_out = tree;
    return 0;
}

/* Nobody has a fresh fork's or a freshly opened tree's nameless inodes open. */
static int reclaim_orphans(cow_tree *tree)
{
    int rc = cow_tree_read_begin(tree);
    if (rc) return rc;
    bool needed = (tree->flags & COW_TREE_ORPHANS) && !(tree->flags & COW_TREE_SEALED) && !tree->store->readonly &&
                  tree->pins_used == 0;
    cow_tree_read_end(tree);
    for (int more = needed; more > 0;) {
        rc = cow_tree_write_begin(tree, COW_FS_PUTS);
        if (rc) return rc;
        more = (int)cow_tree_write_end(tree, cow_fs_reclaim_next(tree));
        if (more < 0) return more;
    }
    return 0;
}

int cow_tree_open(cow_store *store, uint64_t id, cow_tree **tree_out)
{
    int rc = cow_store_usable(store);
    if (rc) return rc;
    cow_tree *tree;
    rc = cow_table_get(store, id, &tree);
    if (rc) return rc;
    rc = reclaim_orphans(tree);
    if (rc) {
        cow_table_put(tree);
        return rc;
    }
    *tree_out = tree;
    return 0;
}

void cow_tree_close(cow_tree *tree)
{
    if (tree && cow_store_usable(tree->store) != -ECHILD) cow_table_put(tree);
}

int cow_tree_fork(cow_tree *source, uint32_t flags, cow_tree **tree_out)
{
    cow_tree *tree;
    int rc = cow_tree_branch(source, flags, &tree);
    if (rc) return rc;
    rc = reclaim_orphans(tree);
    if (rc) {
        (void)cow_tree_delete(tree);
        cow_table_put(tree);
        return rc;
    }
    *tree_out = tree;
    return 0;
}

/* ---- Stats ---- */

int cow_store_stats(cow_store *store, cow_stats *stats_out)
{
    int rc = cow_store_usable(store);
    if (rc == -ECHILD) return rc;
    uint64_t host_bytes = 0;
    rc = store->dev->ops->usage(store->dev, &host_bytes);
    if (rc) return rc;
    struct cow_space_state state;
    cow_space_get_state(store->space, &state);
    const struct cow_space_counters *space = cow_space_counters(store->space);
    const struct cow_nodes_counters *nodes = cow_nodes_counters(store->nodes);
    const struct cow_lookup_counters *lookup = cow_lookup_counters(store->lookup);
    pthread_mutex_lock(&store->table_lock);
    uint64_t trees = store->tree_count;
    pthread_mutex_unlock(&store->table_lock);
    *stats_out = (cow_stats){
        .generation = atomic_load(&store->durable_generation),
        .trees = trees,
        .data_bytes = state.data_blocks * COW_BLOCK_BYTES,
        .node_bytes = state.node_blocks * COW_BLOCK_BYTES,
        .host_bytes = host_bytes,
        .commits = cow_counted(&store->commits),
        .syncs = cow_counted(&store->dev->syncs),
        .bytes_read = cow_counted(&store->dev->bytes_read),
        .bytes_written = cow_counted(&store->dev->bytes_written),
        .blocks_allocated = cow_counted(&space->blocks_allocated),
        .blocks_freed = cow_counted(&space->blocks_freed),
        .nodes_read = cow_counted(&nodes->nodes_read),
        .nodes_written = cow_counted(&nodes->nodes_written),
        .nodes_copied = cow_counted(&nodes->nodes_copied),
        .nodes_visited = cow_counted(&nodes->nodes_visited),
        .node_hits = cow_counted(&nodes->hits),
        .node_misses = cow_counted(&nodes->misses),
        .node_evictions = cow_counted(&nodes->evictions),
        .node_cached_bytes = cow_nodes_cached_bytes(store->nodes),
        .record_hits = cow_counted(&space->record_hits),
        .record_misses = cow_counted(&space->record_misses),
        .record_evictions = cow_counted(&space->record_evictions),
        .record_cached_bytes = cow_space_cached_bytes(store->space),
        .lookup_hits = cow_counted(&lookup->hits),
        .lookup_misses = cow_counted(&lookup->misses),
        .lookup_evictions = cow_counted(&lookup->evictions),
        .copy_ups = cow_counted(&store->copy_up.copy_ups),
        .copy_up_bytes = cow_counted(&store->copy_up.bytes),
        .blocks_verified = cow_counted(&space->blocks_verified),
        .checksum_errors = cow_counted(&space->checksum_errors),
        .forks = cow_counted(&store->forks),
        .deletes = cow_counted(&store->deletes),
        .punched_bytes = cow_counted(&space->punched_bytes),
        .pending_delete_nodes = cow_release_pending(store),
    };
    return 0;
}
