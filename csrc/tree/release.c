/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Subtrees that lost their last root. What is small is released at once; of what is large the rest waits on a bounded
 * stack, which each commit stores as DEAD items in the trees tree, so a crash resumes where the last commit was.
 */
#include "tree/store.h"

#define STACK_ROOM (COW_RELEASE_STACK_MAX - 1536u) /* pushing above this releases first: a subtree needs room to unfold */

static int step_locked(cow_store *store, uint32_t budget)
{
    if (store->release.depth == 0) return 0;
    uint32_t done = 0;
    store->release_changed = true;
    return cow_btree_release(store->nodes, &store->release, budget, &done);
}

int cow_release_step(cow_store *store, uint32_t budget, bool *more_out)
{
    pthread_mutex_lock(&store->release_lock);
    int rc = step_locked(store, budget);
    *more_out = store->release.depth > 0;
    pthread_mutex_unlock(&store->release_lock);
    return rc;
}

int cow_release_push(cow_store *store, struct cow_root root)
{
    bool alone = !store->committer.running && !store->release_later; /* nobody else would do the rest */
    uint32_t at_once = store->release_at_once;
    pthread_mutex_lock(&store->release_lock);
    int rc = 0;
    while (!rc && store->release.depth >= STACK_ROOM) rc = step_locked(store, at_once);
    if (!rc) {
        store->release.stack[store->release.depth++] = root;
        store->release_changed = true;
        rc = step_locked(store, at_once);
        while (!rc && alone && store->release.depth > 0) rc = step_locked(store, at_once);
    }
    bool more = store->release.depth > 0;
    pthread_mutex_unlock(&store->release_lock);
    if (more) cow_committer_kick(store);
    return rc;
}

uint64_t cow_release_pending(cow_store *store)
{
    pthread_mutex_lock(&store->release_lock);
    uint64_t depth = store->release.depth;
    pthread_mutex_unlock(&store->release_lock);
    return depth;
}

int cow_release_flush(cow_store *store)
{
    if (!store->release_changed) return 0;
    struct cow_release *release = &store->release;
    int rc = 0;
    pthread_mutex_lock(&store->trees_lock);
    for (uint32_t i = 0; i < release->depth && !rc; i++) {
        uint8_t bytes[COW_DEAD_BYTES];
        cow_dead_encode(release->stack[i].addr, release->stack[i].generation, bytes);
        rc = cow_btree_put(store->nodes, &store->trees_root, cow_key_make(0, COW_ITEM_DEAD, i), bytes, sizeof bytes);
    }
    for (uint32_t i = release->depth; i < store->release_stored && !rc; i++)
        rc = cow_btree_del(store->nodes, &store->trees_root, cow_key_make(0, COW_ITEM_DEAD, i));
    pthread_mutex_unlock(&store->trees_lock);
    if (rc) return rc;
    store->release_stored = release->depth;
    store->release_changed = false;
    return 0;
}

int cow_release_load(cow_store *store)
{
    struct cow_cursor cursor;
    cow_cursor_init(&cursor, store->nodes, store->trees_root);
    int rc = cow_cursor_seek(&cursor, cow_key_make(0, COW_ITEM_DEAD, 0));
    struct cow_release *release = &store->release;
    while (!rc && cursor.valid && cursor.key.ino == 0 && cow_key_type(cursor.key) == COW_ITEM_DEAD) {
        if (release->depth == COW_RELEASE_STACK_MAX || cow_key_offset(cursor.key) != release->depth) {
            rc = cow_fail(COW_EDAMAGE, "the list of subtrees to release is damaged");
            break;
        }
        struct cow_root *entry = &release->stack[release->depth];
        rc = cow_dead_decode(cursor.value, cursor.value_bytes, &entry->addr, &entry->generation);
        if (!rc) {
            release->depth++;
            rc = cow_cursor_next(&cursor);
        }
    }
    cow_cursor_deinit(&cursor);
    store->release_stored = release->depth;
    return rc;
}
