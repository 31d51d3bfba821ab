/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees: the brackets around every operation, and what is done with a tree as a whole. All of the latter is O(1) in the
 * size of the tree: it moves root pointers and their reference counts.
 */
#include "tree/tree.h"

#include "tree/store.h"

struct cow_nodes *cow_tree_nodes(struct cow_tree *tree) { return tree->store->nodes; }
struct cow_space *cow_tree_space(struct cow_tree *tree) { return tree->store->space; }
struct cow_lookup *cow_tree_lookup(struct cow_tree *tree) { return tree->store->lookup; }
const uint8_t *cow_tree_hash_key(struct cow_tree *tree) { return tree->store->hash_key; }
struct cow_copy_up_counters *cow_tree_copy_ups(struct cow_tree *tree) { return &tree->store->copy_up; }

void cow_tree_disown(struct cow_tree *tree) { tree->own_epoch = cow_store_next_epoch(tree->store); }

void cow_tree_replaced(struct cow_tree *tree)
{
    tree->own_epoch = tree->map_epoch = cow_store_next_epoch(tree->store);
    tree->append_goal = 0;
    cow_tree_drop_inodes(tree);
}

void cow_tree_set_dead(struct cow_tree *tree, bool dead)
{
    pthread_mutex_lock(&tree->store->table_lock);
    tree->dead = dead;
    pthread_mutex_unlock(&tree->store->table_lock);
}

static int stale(const struct cow_tree *tree)
{
    return cow_fail(ESTALE, "tree %llu was deleted", (unsigned long long)tree->id);
}

/* ---- Brackets ---- */

int cow_tree_read_begin(struct cow_tree *tree)
{
    int rc = cow_store_usable(tree->store);
    if (rc) return rc;
    pthread_rwlock_rdlock(&tree->lock);
    if (!tree->dead) return 0;
    pthread_rwlock_unlock(&tree->lock);
    return stale(tree);
}

void cow_tree_read_end(struct cow_tree *tree) { pthread_rwlock_unlock(&tree->lock); }

/* What a change to a locked tree needs: it is there, may be written, is saved by a transaction, and the change cannot
 * run out of space or memory half-way. */
static int prepare_write(struct cow_tree *tree, uint32_t put_count)
{
    if (tree->dead) return stale(tree);
    if (tree->flags & COW_TREE_SEALED) return cow_fail(EROFS, "tree %llu is sealed", (unsigned long long)tree->id);
    if (tree->id == COW_TREE_CATALOG) put_count &= ~COW_RESERVE_GROWS; /* names must go, too */
    int rc = cow_btree_reserve(tree->store->nodes, put_count + COW_HOT_INODES);
    if (!rc) rc = cow_transaction_save(tree);
    if (rc) return rc;
    if (!tree->dirty) cow_table_mark_dirty(tree);
    tree->mutations = 0;
    return 0;
}

static void after_write(struct cow_tree *tree, int64_t result)
{
    int lost = cow_space_lost(tree->store->space);
    if (lost) (void)cow_store_fail(tree->store, lost, "letting go of a block");
    if (result < 0 && tree->mutations > 0) (void)cow_store_fail(tree->store, (int)result, "an operation failed half-way");
}

static int write_begin_once(struct cow_tree *tree, uint32_t put_count)
{
    int rc = cow_writers_enter(tree->store);
    if (rc) return rc;
    pthread_rwlock_wrlock(&tree->lock);
    rc = prepare_write(tree, put_count);
    if (!rc) return 0;
    pthread_rwlock_unlock(&tree->lock);
    cow_writers_leave(tree->store);
    return rc;
}

bool cow_tree_try_again(struct cow_tree *tree, int64_t result)
{
    if (result != -ENOSPC) return false;
    struct cow_space *space = tree->store->space;
    return cow_space_wants_trim(space) || (!cow_transaction_mine(tree->store) && cow_space_wants_commit(space));
}

int cow_tree_write_begin(struct cow_tree *tree, uint32_t put_count)
{
    int rc = write_begin_once(tree, put_count);
    return cow_tree_try_again(tree, rc) ? write_begin_once(tree, put_count) : rc;
}

int64_t cow_tree_write_end(struct cow_tree *tree, int64_t result)
{
    after_write(tree, result);
    pthread_rwlock_unlock(&tree->lock);
    cow_writers_leave(tree->store);
    return result;
}

static void lock_two(struct cow_tree *a, struct cow_tree *b)
{
    if (a == b) {
        pthread_rwlock_wrlock(&a->lock);
        return;
    }
    pthread_rwlock_wrlock(a->id < b->id ? &a->lock : &b->lock);
    pthread_rwlock_wrlock(a->id < b->id ? &b->lock : &a->lock);
}

static void unlock_two(struct cow_tree *a, struct cow_tree *b)
{
    pthread_rwlock_unlock(&a->lock);
    if (a != b) pthread_rwlock_unlock(&b->lock);
}

/* The source of a clone is not changed, but its cached inodes must be in its B+tree, and what it owns it will share. */
static int prepare_source(struct cow_tree *source)
{
    if (source->dead) return stale(source);
    int rc = cow_btree_reserve(source->store->nodes, COW_HOT_INODES);
    if (!rc) rc = cow_tree_flush_inodes(source);
    if (!rc) cow_tree_disown(source);
    return rc;
}

int cow_tree_clone_begin(struct cow_tree *source, struct cow_tree *tree, uint32_t put_count)
{
    if (source->store != tree->store) return cow_fail(EXDEV, "blocks cannot be shared across stores");
    int rc = cow_writers_enter(tree->store);
    if (rc) return rc;
    lock_two(source, tree);
    rc = prepare_source(source);
    if (!rc) rc = prepare_write(tree, put_count);
    if (!rc) return 0;
    unlock_two(source, tree);
    cow_writers_leave(tree->store);
    return rc;
}

int64_t cow_tree_clone_end(struct cow_tree *source, struct cow_tree *tree, int64_t result)
{
    after_write(tree, result);
    unlock_two(source, tree);
    cow_writers_leave(tree->store);
    return result;
}

int64_t cow_tree_get(struct cow_tree *tree, struct cow_key key, void *value, size_t capacity)
{
    return cow_btree_get(tree->store->nodes, tree->root, key, value, capacity);
}

int cow_tree_put(struct cow_tree *tree, struct cow_key key, const void *value, size_t value_bytes)
{
    int rc = cow_btree_put(tree->store->nodes, &tree->root, key, value, value_bytes);
    if (!rc) tree->mutations++;
    return rc;
}

int cow_tree_del(struct cow_tree *tree, struct cow_key key)
{
    int rc = cow_btree_del(tree->store->nodes, &tree->root, key);
    if (!rc) tree->mutations++;
    return rc;
}

/* ---- Trees as a whole ---- */

static uint32_t record_flags(uint32_t fork_flags)
{
    return ((fork_flags & COW_FORK_SEALED) ? COW_TREE_SEALED : 0) | ((fork_flags & COW_FORK_TEMP) ? COW_TREE_TEMP : 0);
}

int cow_tree_new(cow_store *store, uint32_t flags, struct cow_tree **tree_out)
{
    if (flags & ~(uint32_t)COW_FORK_TEMP) return cow_fail(EINVAL, "flags of a new tree: only COW_FORK_TEMP");
    int rc = cow_writers_enter(store);
    if (rc) return rc;
    struct cow_tree_record record = {.next_ino = COW_ROOT_INO, .created_ns = cow_now_ns(), .flags = record_flags(flags)};
    struct cow_root root = {0};
    struct cow_tree *tree = NULL;
    rc = cow_btree_reserve(store->nodes, 4 | COW_RESERVE_GROWS);
    if (!rc) rc = cow_btree_create(store->nodes, &root);
    if (!rc) {
        record.root_addr = root.addr;
        record.root_generation = root.generation;
        rc = cow_table_add(store, &record, &tree);
        if (!rc) rc = cow_transaction_note(tree, true);
        else (void)cow_release_push(store, root);
    }
    cow_writers_leave(store);
    if (!rc) *tree_out = tree;
    return rc;
}

/* source is locked. */
static int branch_locked(struct cow_tree *source, uint32_t flags, struct cow_tree **tree_out)
{
    cow_store *store = source->store;
    if (source->dead) return stale(source);
    int rc = cow_btree_reserve(store->nodes, COW_HOT_INODES | COW_RESERVE_GROWS);
    if (!rc) rc = cow_tree_flush_inodes(source);
    if (!rc) rc = cow_btree_ref(store->nodes, source->root);
    if (rc) return rc;
    struct cow_tree_record record;
    cow_tree_to_record(source, &record);
    record.parent = source->id;
    record.created_ns = cow_now_ns();
    record.flags = record_flags(flags) | (source->flags & COW_TREE_ORPHANS);
    if (flags & COW_FORK_BASE) {
        record.base = 0; /* its own id, once it has one */
        record.size_bytes = 0;
        record.quota_bytes = 0;
    }
    rc = cow_table_add(store, &record, tree_out);
    if (rc) {
        (void)cow_release_push(store, source->root);
        return rc;
    }
    cow_tree_disown(source);
    cow_count(&store->forks, 1);
    return cow_transaction_note(*tree_out, true);
}

int cow_tree_branch(struct cow_tree *source, uint32_t flags, struct cow_tree **tree_out)
{
    if (flags & ~(uint32_t)(COW_FORK_BASE | COW_FORK_SEALED | COW_FORK_TEMP)) return cow_fail(EINVAL, "unknown fork flags");
    int rc = cow_writers_enter(source->store);
    if (rc) return rc;
    pthread_rwlock_wrlock(&source->lock);
    rc = branch_locked(source, flags, tree_out);
    pthread_rwlock_unlock(&source->lock);
    cow_writers_leave(source->store);
    return rc;
}

int cow_tree_seal(cow_tree *tree)
{
    int rc = cow_writers_enter(tree->store);
    if (rc) return rc;
    pthread_rwlock_wrlock(&tree->lock);
    if (!tree->dead && (tree->flags & COW_TREE_SEALED)) {
        rc = 0;
    } else {
        rc = prepare_write(tree, COW_HOT_INODES);
        if (!rc) rc = cow_tree_flush_inodes(tree);
        if (!rc) {
            tree->flags |= COW_TREE_SEALED;
            cow_tree_drop_inodes(tree);
        }
    }
    pthread_rwlock_unlock(&tree->lock);
    cow_writers_leave(tree->store);
    return rc;
}

int cow_tree_keep(cow_tree *tree)
{
    int rc = cow_writers_enter(tree->store);
    if (rc) return rc;
    pthread_rwlock_wrlock(&tree->lock);
    if (tree->dead) {
        rc = stale(tree);
    } else if (tree->flags & COW_TREE_TEMP) {
        rc = cow_transaction_save(tree);
        if (!rc) {
            tree->flags &= ~COW_TREE_TEMP;
            if (!tree->dirty) cow_table_mark_dirty(tree);
        }
    }
    pthread_rwlock_unlock(&tree->lock);
    cow_writers_leave(tree->store);
    return rc;
}

int cow_tree_set_quota(cow_tree *tree, uint64_t quota_bytes)
{
    cow_error_clear();
    if (!tree) return cow_fail(EINVAL, "a quota needs a tree");
    if (tree->id == COW_TREE_CATALOG) return cow_fail(EINVAL, "the catalog has no quota");
    int rc = cow_tree_write_begin(tree, 0);
    if (rc) return rc;
    tree->quota_bytes = quota_bytes;
    return (int)cow_tree_write_end(tree, 0);
}

int cow_tree_drop(struct cow_tree *tree)
{
    struct cow_root root = tree->root;
    int rc = cow_btree_reserve(tree->store->nodes, 4);
    if (!rc) rc = cow_table_forget(tree);
    if (rc) return rc;
    tree->root = (struct cow_root){0};
    return root.addr ? cow_release_push(tree->store, root) : 0;
}

int cow_tree_delete(cow_tree *tree)
{
    cow_store *store = tree->store;
    if (tree->id == COW_TREE_CATALOG) return cow_fail(EINVAL, "the catalog cannot be deleted");
    int rc = cow_writers_enter(store);
    if (rc) return rc;
    pthread_rwlock_wrlock(&tree->lock);
    if (tree->dead) {
        rc = stale(tree);
    } else if (cow_transaction_undoes(store)) {
        rc = cow_transaction_note(tree, false); /* gone when the transaction ends */
        if (!rc) cow_tree_set_dead(tree, true);
    } else {
        rc = cow_btree_reserve(store->nodes, 4); /* so that what fails, fails before anything changed */
        if (!rc) {
            cow_tree_set_dead(tree, true);
            rc = cow_tree_drop(tree);
            if (rc) rc = cow_store_fail(store, rc, "deleting a tree");
        }
    }
    if (!rc) cow_count(&store->deletes, 1);
    pthread_rwlock_unlock(&tree->lock);
    cow_writers_leave(store);
    if (!rc) cow_tree_tell(tree, &(cow_change){.what = COW_CHANGE_TREE});
    return rc;
}

/* Both trees are locked, for writing. */
static int reset_locked(struct cow_tree *tree, struct cow_tree *source)
{
    cow_store *store = tree->store;
    int rc = prepare_write(tree, COW_HOT_INODES);
    if (!rc) rc = prepare_source(source);
    if (!rc && tree == source) return 0;
    if (!rc) rc = cow_btree_ref(store->nodes, source->root);
    if (rc) return rc;
    struct cow_root before = tree->root;
    uint64_t next_ino = tree->next_ino;
    struct cow_tree_record record;
    cow_tree_to_record(source, &record);
    record.parent = tree->parent;
    record.created_ns = tree->created_ns;
    record.quota_bytes = tree->quota_bytes;
    record.flags = (tree->flags & ~COW_TREE_ORPHANS) | (source->flags & COW_TREE_ORPHANS);
    cow_tree_from_record(tree, &record);
    if (tree->next_ino < next_ino) tree->next_ino = next_ino; /* open handles must not meet another file's number */
    cow_tree_replaced(tree);
    rc = cow_release_push(store, before);
    return rc ? cow_store_fail(store, rc, "releasing what a rollback replaced") : 0;
}

int cow_tree_reset(cow_tree *tree, cow_tree *source)
{
    if (tree->store != source->store) return cow_fail(EXDEV, "a tree cannot be reset to one of another store");
    if (tree->id == COW_TREE_CATALOG) return cow_fail(EINVAL, "the catalog cannot be reset");
    int rc = cow_writers_enter(tree->store);
    if (rc) return rc;
    lock_two(tree, source);
    rc = reset_locked(tree, source);
    unlock_two(tree, source);
    cow_writers_leave(tree->store);
    if (!rc) cow_tree_tell(tree, &(cow_change){.what = COW_CHANGE_TREE});
    return rc;
}

int cow_tree_get_info(cow_tree *tree, cow_tree_info *info_out)
{
    int rc = cow_tree_read_begin(tree);
    if (rc) return rc;
    *info_out = (cow_tree_info){
        .id = tree->id,
        .parent = tree->parent,
        .sealed = (tree->flags & COW_TREE_SEALED) != 0,
        .temp = (tree->flags & COW_TREE_TEMP) != 0,
        .inodes = tree->inodes,
        .apparent_bytes = tree->apparent_bytes,
        .size_bytes = tree->size_bytes,
        .quota_bytes = tree->quota_bytes,
        .created_ns = tree->created_ns,
    };
    cow_tree_read_end(tree);
    return 0;
}

int cow_tree_get_usage(cow_tree *tree, cow_tree_usage *usage_out)
{
    int rc = cow_tree_read_begin(tree);
    if (rc) return rc;
    uint64_t nodes = 0, data = 0;
    rc = cow_btree_exclusive(tree->store->nodes, tree->root, &nodes, &data);
    if (!rc) {
        uint64_t data_bytes = data * COW_BLOCK_BYTES;
        *usage_out = (cow_tree_usage){
            .size_bytes = tree->size_bytes,
            .apparent_bytes = tree->apparent_bytes,
            .quota_bytes = tree->quota_bytes,
            .exclusive_bytes = data_bytes + nodes * COW_BLOCK_BYTES,
            .shared_bytes = tree->apparent_bytes > data_bytes ? tree->apparent_bytes - data_bytes : 0,
        };
    }
    cow_tree_read_end(tree);
    return rc;
}
