/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transactions. One thread holds the writers lock exclusively, so no generation closes and nobody else writes. Before the
 * transaction's first change to a tree its record is saved, with a reference to its root: taking everything back is
 * giving each tree its saved root again (a fork that is dropped or moved back, O(1) a tree).
 */
#include <stdlib.h>

#include "tree/store.h"

static _Thread_local char thread_token;

bool cow_transaction_mine(const cow_store *store)
{
    return atomic_load_explicit(&store->transaction.owner, memory_order_relaxed) == &thread_token;
}

bool cow_transaction_undoes(const cow_store *store)
{
    return cow_transaction_mine(store) && store->transaction.undo;
}

/* A commit before the next change: too much of the open generation is in memory, or the host is full and it helps. */
static bool commit_is_due(cow_store *store)
{
    return cow_space_wants_commit(store->space) || cow_nodes_dirty(store->nodes) > COW_DIRTY_NODES_MAX ||
           cow_space_dirty_pages(store->space) > COW_DIRTY_PAGES_MAX;
}

int cow_writers_enter(cow_store *store)
{
    int rc = cow_store_usable(store);
    if (rc) return rc;
    if (store->readonly) return cow_fail(EROFS, "the store is open for reading only");
    if (cow_space_wants_trim(store->space)) cow_space_trim(store->space);
    if (cow_transaction_mine(store)) return 0;
    if (commit_is_due(store)) {
        rc = cow_commit(store);
        if (rc) return rc;
    }
    pthread_rwlock_rdlock(&store->writers);
    rc = cow_store_usable(store);
    if (rc) pthread_rwlock_unlock(&store->writers);
    return rc;
}

void cow_writers_leave(cow_store *store)
{
    if (!cow_transaction_mine(store)) pthread_rwlock_unlock(&store->writers);
}

void cow_tree_tell(struct cow_tree *tree, const cow_change *change)
{
    cow_store *store = tree->store;
    if (!cow_watched(&store->watchers)) return;
    cow_change told = *change;
    told.tree = tree->id;
    cow_watch_tell(&store->watchers, &told, !cow_transaction_mine(store));
}

static int grow_saved(struct cow_transaction *transaction)
{
    if (transaction->saved_count < transaction->saved_capacity) return 0;
    size_t capacity = transaction->saved_capacity ? transaction->saved_capacity * 2 : 8;
    struct cow_saved *saved = realloc(transaction->saved, capacity * sizeof *saved);
    if (!saved) return -ENOMEM;
    transaction->saved = saved;
    transaction->saved_capacity = capacity;
    return 0;
}

static void hold(struct cow_tree *tree)
{
    pthread_mutex_lock(&tree->store->table_lock);
    tree->handles++;
    pthread_mutex_unlock(&tree->store->table_lock);
}

int cow_transaction_save(struct cow_tree *tree)
{
    cow_store *store = tree->store;
    struct cow_transaction *transaction = &store->transaction;
    if (!cow_transaction_undoes(store) || tree->saved) return 0;
    int rc = grow_saved(transaction);
    if (!rc) rc = cow_tree_flush_inodes(tree);
    if (!rc) rc = cow_btree_ref(store->nodes, tree->root);
    if (rc) return rc;
    struct cow_saved *saved = &transaction->saved[transaction->saved_count++];
    *saved = (struct cow_saved){.tree = tree};
    cow_tree_to_record(tree, &saved->record);
    tree->saved = (uint32_t)transaction->saved_count;
    cow_tree_disown(tree);
    hold(tree);
    return 0;
}

int cow_transaction_note(struct cow_tree *tree, bool created)
{
    struct cow_transaction *transaction = &tree->store->transaction;
    if (!cow_transaction_undoes(tree->store)) return 0;
    if (!tree->saved) {
        if (!created) {
            int rc = cow_transaction_save(tree);
            if (rc) return rc;
        } else {
            int rc = grow_saved(transaction);
            if (rc) return rc;
            transaction->saved[transaction->saved_count++] = (struct cow_saved){.tree = tree};
            tree->saved = (uint32_t)transaction->saved_count;
            hold(tree);
        }
    }
    struct cow_saved *saved = &transaction->saved[tree->saved - 1];
    if (created) saved->created = true;
    else saved->deleted = true;
    return 0;
}

static int keep_saved(cow_store *store, struct cow_saved *saved)
{
    struct cow_root before = {saved->record.root_addr, saved->record.root_generation};
    int rc = saved->deleted ? cow_tree_drop(saved->tree) : 0;
    if (!rc && before.addr) rc = cow_release_push(store, before);
    return rc;
}

static int take_back_saved(cow_store *store, struct cow_saved *saved)
{
    struct cow_tree *tree = saved->tree;
    if (saved->created) {
        cow_tree_set_dead(tree, true);
        cow_tree_replaced(tree);
        return cow_tree_drop(tree);
    }
    struct cow_root now = tree->root;
    cow_tree_from_record(tree, &saved->record);
    cow_tree_set_dead(tree, false);
    cow_tree_replaced(tree);
    return cow_release_push(store, now);
}

static int begin(cow_store *store, bool undo)
{
    int rc = cow_store_usable(store);
    if (rc) return rc;
    if (store->readonly) return cow_fail(EROFS, "the store is open for reading only");
    if (cow_transaction_mine(store)) return cow_fail(EDEADLK, "this thread already is in a transaction");
    if (commit_is_due(store)) {
        rc = cow_commit(store);
        if (rc) return rc;
    }
    pthread_rwlock_wrlock(&store->writers);
    rc = cow_store_usable(store);
    if (rc) {
        pthread_rwlock_unlock(&store->writers);
        return rc;
    }
    store->transaction.undo = undo;
    atomic_store(&store->transaction.owner, &thread_token);
    return 0;
}

int cow_store_begin(cow_store *store) { return begin(store, true); }

int cow_store_begin_group(cow_store *store) { return begin(store, false); }

int cow_store_end(cow_store *store, int keep)
{
    int rc = cow_store_usable(store);
    if (rc == -ECHILD) return rc;
    if (!cow_transaction_mine(store)) return cow_fail(EINVAL, "this thread is in no transaction");
    struct cow_transaction *transaction = &store->transaction;
    rc = 0;
    for (size_t i = transaction->saved_count; i-- > 0;) {
        struct cow_saved *saved = &transaction->saved[i];
        struct cow_tree *tree = saved->tree;
        pthread_rwlock_wrlock(&tree->lock);
        tree->saved = 0;
        int one = atomic_load(&store->failed) ? 0 : keep ? keep_saved(store, saved) : take_back_saved(store, saved);
        if (!rc) rc = one;
        pthread_rwlock_unlock(&tree->lock);
        if (!keep || saved->deleted) cow_tree_tell(tree, &(cow_change){.what = COW_CHANGE_TREE});
        cow_table_put(tree);
    }
    transaction->saved_count = 0;
    if (rc) rc = cow_store_fail(store, rc, "the end of a transaction");
    atomic_store(&transaction->owner, NULL);
    pthread_rwlock_unlock(&store->writers);
    cow_watch_settle(&store->watchers);
    return rc;
}
