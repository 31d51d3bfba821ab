/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and leaving a store: choosing the newest whole superblock, loading what it names, and the state "failed".
 * A new store gets its two first superblocks before it counts as made: generation 0 has no trees tree; the first
 * commit (generation 1) writes one.
 */
#include "tree/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

static atomic_uint process_forks; /* how often this process is a forked child */

static void count_fork(void) { atomic_fetch_add(&process_forks, 1); }

static void register_fork_counter(void) { (void)pthread_atfork(NULL, NULL, count_fork); }

int cow_store_usable(const cow_store *store)
{
    if (store->forks_seen != atomic_load_explicit(&process_forks, memory_order_relaxed))
        return cow_fail(ECHILD, "this handle belongs to the parent process; open the store again in the child");
    if (atomic_load_explicit(&store->failed, memory_order_acquire))
        return cow_fail(EIO, "the store failed and must be opened again: %s", store->failure);
    return 0;
}

int cow_store_fail(cow_store *store, int code, const char *what)
{
    int expected = 0;
    char text[sizeof store->failure];
    const char *detail = cow_error_detail();
    (void)snprintf(text, sizeof text, "%s (%s)%s%.120s", what, strerror(-code), *detail ? ": " : "", detail);
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    if (!atomic_load(&store->failed)) memcpy(store->failure, text, sizeof text);
    atomic_compare_exchange_strong(&store->failed, &expected, code);
    pthread_mutex_unlock(&lock);
    return cow_fail(-code, "%s", text);
}

uint32_t cow_store_next_epoch(cow_store *store) { return atomic_fetch_add(&store->epoch, 1) + 1; }

/* Reads one slot: 1 = whole, 0 = nothing usable there. */
static int read_slot(struct cow_dev_file *meta, unsigned slot, struct cow_super *super_out)
{
    uint8_t block[COW_BLOCK_BYTES];
    int64_t n = cow_dev_read(meta, (uint64_t)slot * COW_BLOCK_BYTES, block, sizeof block);
    if (n < 0) return (int)n;
    if (n < (int64_t)sizeof block) return 0;
    int rc = cow_super_decode(block, super_out);
    if (rc == -COW_EDAMAGE) return 0;
    if (rc) return rc;
    if (super_out->generation % 2 != slot) return 0;
    return 1;
}

/* found[i]: whether slot i holds a whole superblock. */
static int read_slots(struct cow_dev *dev, struct cow_super supers[2], int found[2])
{
    struct cow_dev_file *meta;
    int rc = cow_dev_open(dev, "meta", 0, &meta);
    if (rc) return rc;
    for (unsigned slot = 0; slot < 2 && rc >= 0; slot++) rc = found[slot] = read_slot(meta, slot, &supers[slot]);
    cow_dev_close(meta);
    return rc < 0 ? rc : 0;
}

static int read_super(struct cow_dev *dev, struct cow_super *super_out)
{
    struct cow_super supers[2];
    int found[2];
    int rc = read_slots(dev, supers, found);
    if (rc) return rc;
    if (!found[0] && !found[1]) return cow_fail(COW_EDAMAGE, "no superblock of the store is whole");
    if (found[0] && found[1]) *super_out = supers[supers[1].generation > supers[0].generation];
    else *super_out = supers[found[1]];
    return 0;
}

static int random_bytes(const struct cow_dev *dev, uint8_t *bytes, size_t length)
{
    if (dev->fixed_seed) {
        memset(bytes, (int)(dev->fixed_seed & 0xff), length);
        return 0;
    }
    while (length > 0) {
        ssize_t n = getrandom(bytes, length, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return cow_fail(errno, "getrandom");
        bytes += n;
        length -= (size_t)n;
    }
    return 0;
}

void cow_store_put_space_state(struct cow_super *super, const struct cow_space_state *state)
{
    super->next_segment = state->next_segment;
    super->journal_half = state->journal_half;
    super->packed_segment = state->packed_segment;
    super->journal_bytes = state->journal_bytes;
    super->dead_segments = state->dead_segments;
    super->data_blocks = state->data_blocks;
    super->node_blocks = state->node_blocks;
    super->meta_blocks = state->meta_blocks;
}

static struct cow_space_state space_state(const struct cow_super *super)
{
    return (struct cow_space_state){
        .next_segment = super->next_segment,
        .journal_half = super->journal_half,
        .journal_bytes = super->journal_bytes,
        .dead_segments = super->dead_segments,
        .data_blocks = super->data_blocks,
        .node_blocks = super->node_blocks,
        .meta_blocks = super->meta_blocks,
        .packed_segment = super->packed_segment,
    };
}

/* The files of a new store. The superblock comes last and is durable when this returns: before that the directory is
 * not a store yet, and making it can be tried again. */
static int make_files(struct cow_dev *dev, struct cow_super *super_out)
{
    struct cow_super super = {.next_tree = COW_TREE_CATALOG, .created_ns = cow_now_ns()};
    struct cow_space_state state = COW_SPACE_STATE_INIT;
    cow_store_put_space_state(&super, &state);
    int rc = random_bytes(dev, super.uuid, sizeof super.uuid);
    if (!rc) rc = random_bytes(dev, super.hash_key, sizeof super.hash_key);
    static const char *const folders[] = {"segments", "space"};
    for (size_t i = 0; i < 2 && !rc; i++) rc = dev->ops->make_dir(dev, folders[i]);
    static const char *const files[] = {"journal.0", "journal.1", "space/table", "space/00000000"};
    for (size_t i = 0; i < sizeof files / sizeof *files && !rc; i++) {
        struct cow_dev_file *file;
        rc = cow_dev_open(dev, files[i], COW_DEV_CREATE | COW_DEV_TRUNCATE, &file);
        if (!rc) {
            rc = cow_dev_sync(file);
            cow_dev_close(file);
        }
    }
    if (!rc) rc = dev->ops->sync_dir(dev, "space");
    if (!rc) rc = dev->ops->sync_dir(dev, ""); /* all there before "meta" can be */
    if (rc) return rc;

    struct cow_dev_file *meta;
    rc = cow_dev_open(dev, "meta", COW_DEV_CREATE | COW_DEV_TRUNCATE, &meta);
    if (rc) return rc;
    uint8_t block[COW_BLOCK_BYTES];
    cow_super_encode(&super, block);
    rc = cow_dev_write(meta, 0, block, sizeof block);
    if (!rc) rc = cow_dev_sync(meta);
    cow_dev_close(meta);
    if (!rc) rc = dev->ops->sync_dir(dev, "");
    if (!rc) *super_out = super;
    return rc;
}

/* A "meta" without any whole superblock is the trace of a creation that was cut off only when it is no longer than that
 * one block: anything longer is a damaged store, and is left alone. */
static int is_stillborn(struct cow_dev *dev, bool *stillborn_out)
{
    struct cow_dev_file *meta;
    int rc = cow_dev_open(dev, "meta", 0, &meta);
    if (rc) return rc;
    uint64_t bytes = 0;
    rc = dev->ops->size(meta, &bytes);
    cow_dev_close(meta);
    *stillborn_out = bytes <= COW_BLOCK_BYTES;
    return rc;
}

static int find_or_make(struct cow_dev *dev, uint32_t flags, struct cow_super *super_out, bool *made_out)
{
    *made_out = false;
    bool may_create = (flags & COW_OPEN_CREATE) && !dev->readonly;
    int rc = read_super(dev, super_out);
    if (rc == -COW_EDAMAGE && may_create) {
        bool stillborn = false;
        rc = is_stillborn(dev, &stillborn);
        if (rc) return rc;
        if (!stillborn) return cow_fail(COW_EDAMAGE, "no superblock of the store is whole");
        rc = -ENOENT;
    }
    if (rc != -ENOENT) return rc;
    if (!may_create) return cow_fail(ENOENT, "there is no store");
    rc = make_files(dev, super_out);
    *made_out = !rc;
    return rc;
}

static int init_locks(cow_store *store)
{
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    cow_watchers_init(&store->watchers);
    int rc = pthread_rwlock_init(&store->writers, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    if (!rc) rc = pthread_mutex_init(&store->table_lock, NULL);
    if (!rc) rc = pthread_mutex_init(&store->trees_lock, NULL);
    if (!rc) rc = pthread_mutex_init(&store->release_lock, NULL);
    if (!rc) rc = pthread_mutex_init(&store->commit_lock, NULL);
    if (!rc) rc = pthread_cond_init(&store->commit_ended, NULL);
    return -rc;
}

int cow_store_write_super(cow_store *store, const struct cow_super *super)
{
    uint8_t block[COW_BLOCK_BYTES];
    cow_super_encode(super, block);
    struct cow_dev_file *meta = cow_space_meta_file(store->space);
    int rc = cow_dev_write(meta, (super->generation % 2) * COW_BLOCK_BYTES, block, sizeof block);
    return rc ? rc : cow_dev_sync(meta);
}

/* A superblock that was read may not be durable yet: the last process can have died between writing and syncing it, and
 * the host's cache still has it. What it released may be reused only when it is, so it is made so before anything else.
 * Written again, because a sync that failed once says nothing. */
static int settle_super(cow_store *store) { return cow_store_write_super(store, &store->super); }

void cow_store_reclaim(cow_store *store)
{
    uint64_t pinned = store->lockfile ? cow_lockfile_oldest(store->lockfile) : UINT64_MAX;
    (void)cow_space_commit_done(store->space, store->super.generation, pinned);
}

#define NODE_CACHE_BYTES ((uint64_t)64 << 20)
#define RECORD_CACHE_BYTES ((uint64_t)32 << 20)

static int load(cow_store *store, const cow_options *options)
{
    uint64_t node_cache = options->node_cache_bytes ? options->node_cache_bytes : NODE_CACHE_BYTES;
    uint64_t record_cache = options->record_cache_bytes ? options->record_cache_bytes : RECORD_CACHE_BYTES;
    const struct cow_super *super = &store->super;
    struct cow_space_state state = space_state(super);
    int rc = store->salvage ? cow_space_open_salvage(store->dev, &state, super->generation, record_cache, &store->space)
                            : cow_space_open(store->dev, &state, super->generation, record_cache, &store->space);
    if (!rc && !store->readonly && !store->salvage) rc = settle_super(store);
    if (rc) return rc;
    if (!store->readonly && !store->salvage) cow_store_reclaim(store);
    rc = cow_nodes_open(store->space, node_cache, super->generation + 1, &store->nodes);
    if (rc) return rc;
    memcpy(store->hash_key, super->hash_key, sizeof store->hash_key);
    store->trees_root = (struct cow_root){super->trees_addr, super->trees_generation};
    store->next_tree = super->next_tree;
    store->tree_count = super->tree_count;
    atomic_store(&store->durable_generation, super->generation);
    atomic_store(&store->open_generation, super->generation + 1);
    rc = cow_table_open(store);
    if (rc) return rc;
    if (store->trees_root.addr == 0) {
        if (store->readonly) return cow_fail(ENOENT, "the store was never committed to");
        return cow_btree_create(store->nodes, &store->trees_root);
    }
    return store->readonly || store->salvage ? 0 : cow_release_load(store);
}

static void unload(cow_store *store)
{
    cow_table_close(store);
    if (store->nodes) cow_nodes_close(store->nodes);
    if (store->space) cow_space_close(store->space);
    store->nodes = NULL;
    store->space = NULL;
}

static int load_and_probe(cow_store *store, const cow_options *options)
{
    struct cow_cursor cursor;
    int rc = load(store, options);
    if (rc) return rc;
    cow_cursor_init(&cursor, store->nodes, store->trees_root);
    rc = cow_cursor_seek(&cursor, (struct cow_key){0, 0});
    cow_cursor_deinit(&cursor);
    return rc;
}

/* The newest superblock whose list of trees begins; a damaged one is what the repaired store's will replace. */
static int load_salvage(cow_store *store, const cow_options *options)
{
    struct cow_super supers[2];
    int found[2];
    int rc = read_slots(store->dev, supers, found);
    if (rc) return rc;
    bool both = found[0] && found[1];
    store->super_damaged = !both && store->super.generation > 1;
    rc = load_and_probe(store, options);
    if (rc != -COW_EDAMAGE || !both) return rc;
    unsigned other = supers[1].generation > supers[0].generation ? 0 : 1;
    if (supers[other].generation == 0) return rc;
    unload(store);
    store->super = supers[other];
    store->super_damaged = true;
    return load_and_probe(store, options);
}

/* A reader may find the journal that its superblock names overwritten: the writer went through both halves since. The
 * superblock of today names another. */
static int load_retrying(cow_store *store, const cow_options *options)
{
    int rc = load(store, options);
    for (unsigned tries = 0; rc == -COW_EDAMAGE && store->readonly && tries < 8; tries++) {
        struct cow_super super;
        if (read_super(store->dev, &super) || super.generation == store->super.generation) break;
        unload(store);
        store->super = super;
        rc = load(store, options);
    }
    return rc;
}

int cow_store_attach(struct cow_dev *dev, const cow_options *options, struct cow_lockfile *lockfile, bool *made_out,
                     cow_store **store_out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_fork_counter);
    cow_store *store = calloc(1, sizeof *store);
    if (!store) {
        cow_dev_destroy(dev);
        return -ENOMEM;
    }
    store->dev = dev;
    store->readonly = (options->flags & COW_OPEN_READONLY) != 0;
    store->salvage = (options->flags & COW_OPEN_SALVAGE) != 0;
    dev->readonly = store->readonly;
    store->lockfile = lockfile;
    store->release_at_once = COW_RELEASE_AT_ONCE;
    store->forks_seen = atomic_load(&process_forks);
    int rc = init_locks(store);
    if (!rc && lockfile && store->readonly) rc = cow_lockfile_pin(lockfile, 0);
    if (!rc) rc = find_or_make(dev, options->flags, &store->super, made_out);
    if (!rc && lockfile && store->readonly) rc = cow_lockfile_pin(lockfile, store->super.generation);
    if (!rc) rc = store->salvage ? load_salvage(store, options) : load_retrying(store, options);
    if (rc) {
        store->lockfile = NULL; /* stays the caller's on error */
        cow_store_detach(store);
        return rc;
    }
    *store_out = store;
    return 0;
}

void cow_store_detach(cow_store *store)
{
    unload(store);
    cow_dev_destroy(store->dev);
    if (store->lockfile) cow_lockfile_close(store->lockfile);
    free(store->transaction.saved);
    pthread_rwlock_destroy(&store->writers);
    cow_watchers_deinit(&store->watchers);
    pthread_mutex_destroy(&store->table_lock);
    pthread_mutex_destroy(&store->trees_lock);
    pthread_mutex_destroy(&store->release_lock);
    pthread_mutex_destroy(&store->commit_lock);
    pthread_cond_destroy(&store->commit_ended);
    free(store);
}
