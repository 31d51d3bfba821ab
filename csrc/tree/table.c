/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree objects in memory: a hash table by id of those that somebody holds or that changed since the last commit. An
 * object appears when a tree is opened or made and goes when its last handle was put and its record is stored, so
 * memory does not grow with the number of trees.
 */
#include <stdlib.h>

#include "tree/store.h"

static size_t bucket_of(const cow_store *store, uint64_t id)
{
    return (size_t)((id * 0x9E3779B97F4A7C15ull) >> 20) & (store->bucket_count - 1);
}

int cow_table_open(cow_store *store)
{
    store->bucket_count = 1024;
    store->buckets = calloc(store->bucket_count, sizeof *store->buckets);
    return store->buckets ? 0 : -ENOMEM;
}

static void free_tree(struct cow_tree *tree)
{
    pthread_rwlock_destroy(&tree->lock);
    pthread_mutex_destroy(&tree->pins_lock);
    free(tree->hot);
    free(tree->pins);
    free(tree);
}

void cow_table_close(cow_store *store)
{
    for (size_t i = 0; i < store->bucket_count && store->buckets; i++) {
        while (store->buckets[i]) {
            struct cow_tree *tree = store->buckets[i];
            store->buckets[i] = tree->next_hash;
            free_tree(tree);
        }
    }
    free(store->buckets);
    store->buckets = NULL;
}

void cow_tree_to_record(const struct cow_tree *tree, struct cow_tree_record *record_out)
{
    *record_out = (struct cow_tree_record){
        .root_addr = tree->root.addr,
        .root_generation = tree->root.generation,
        .parent = tree->parent,
        .base = tree->base,
        .next_ino = tree->next_ino,
        .inodes = tree->inodes,
        .apparent_bytes = tree->apparent_bytes,
        .size_bytes = tree->size_bytes,
        .quota_bytes = tree->quota_bytes,
        .created_ns = tree->created_ns,
        .flags = tree->flags,
    };
}

void cow_tree_from_record(struct cow_tree *tree, const struct cow_tree_record *record)
{
    tree->root = (struct cow_root){record->root_addr, record->root_generation};
    tree->parent = record->parent;
    tree->base = record->base;
    tree->next_ino = record->next_ino;
    tree->inodes = record->inodes;
    tree->apparent_bytes = record->apparent_bytes;
    tree->size_bytes = record->size_bytes;
    tree->quota_bytes = record->quota_bytes;
    tree->created_ns = record->created_ns;
    tree->flags = record->flags;
}

/* A larger table when chains grow; it is an optimisation, so no memory is no error. table_lock is held. */
static void grow(cow_store *store)
{
    if (store->tree_objects < store->bucket_count * 2) return;
    size_t old_count = store->bucket_count;
    struct cow_tree **old = store->buckets;
    struct cow_tree **buckets = calloc(old_count * 4, sizeof *buckets);
    if (!buckets) return;
    store->buckets = buckets;
    store->bucket_count = old_count * 4;
    for (size_t i = 0; i < old_count; i++) {
        while (old[i]) {
            struct cow_tree *tree = old[i];
            old[i] = tree->next_hash;
            size_t b = bucket_of(store, tree->id);
            tree->next_hash = buckets[b];
            buckets[b] = tree;
        }
    }
    free(old);
}

static void unlink_and_free(cow_store *store, struct cow_tree *tree)
{
    struct cow_tree **at = &store->buckets[bucket_of(store, tree->id)];
    while (*at != tree) at = &(*at)->next_hash;
    *at = tree->next_hash;
    store->tree_objects--;
    free_tree(tree);
}

static struct cow_tree *find(cow_store *store, uint64_t id)
{
    struct cow_tree *tree = store->buckets[bucket_of(store, id)];
    while (tree && tree->id != id) tree = tree->next_hash;
    return tree;
}

static struct cow_tree *insert(cow_store *store, uint64_t id, const struct cow_tree_record *record)
{
    struct cow_tree *tree = calloc(1, sizeof *tree);
    if (!tree) return NULL;
    tree->store = store;
    tree->id = id;
    cow_tree_from_record(tree, record);
    tree->own_epoch = tree->map_epoch = cow_store_next_epoch(store);
    tree->handles = 1;
    pthread_rwlock_init(&tree->lock, NULL);
    pthread_mutex_init(&tree->pins_lock, NULL);
    grow(store);
    size_t b = bucket_of(store, id);
    tree->next_hash = store->buckets[b];
    store->buckets[b] = tree;
    store->tree_objects++;
    return tree;
}

static int load_record(cow_store *store, uint64_t id, struct cow_tree_record *record_out)
{
    uint8_t bytes[COW_TREE_RECORD_BYTES];
    pthread_mutex_lock(&store->trees_lock);
    int64_t n = cow_btree_get(store->nodes, store->trees_root, cow_key_make(id, COW_ITEM_TREE, 0), bytes, sizeof bytes);
    pthread_mutex_unlock(&store->trees_lock);
    if (n == -ENOENT) return cow_fail(ENOENT, "there is no tree %llu", (unsigned long long)id);
    if (n < 0) return (int)n;
    return cow_tree_record_decode(bytes, (size_t)n, record_out);
}

int cow_table_get(cow_store *store, uint64_t id, struct cow_tree **tree_out)
{
    int rc = 0;
    pthread_mutex_lock(&store->table_lock);
    struct cow_tree *tree = find(store, id);
    if (tree) {
        if (tree->dead) rc = cow_fail(ENOENT, "there is no tree %llu", (unsigned long long)id);
        else tree->handles++;
    } else {
        struct cow_tree_record record;
        rc = load_record(store, id, &record);
        if (!rc) {
            tree = insert(store, id, &record);
            if (tree) tree->temp_stored = (record.flags & COW_TREE_TEMP) != 0;
            else rc = -ENOMEM;
        }
    }
    pthread_mutex_unlock(&store->table_lock);
    if (!rc) *tree_out = tree;
    return rc;
}

static void mark_dirty_locked(struct cow_tree *tree)
{
    if (tree->dirty) return;
    tree->dirty = true;
    tree->next_dirty = tree->store->dirty_trees;
    tree->store->dirty_trees = tree;
}

int cow_table_add(cow_store *store, const struct cow_tree_record *record, struct cow_tree **tree_out)
{
    pthread_mutex_lock(&store->table_lock);
    struct cow_tree *tree = insert(store, store->next_tree, record);
    if (tree) {
        store->next_tree++;
        store->tree_count++;
        if (tree->base == 0) tree->base = tree->id;
        mark_dirty_locked(tree);
    }
    pthread_mutex_unlock(&store->table_lock);
    if (!tree) return -ENOMEM;
    *tree_out = tree;
    return 0;
}

void cow_table_put(struct cow_tree *tree)
{
    cow_store *store = tree->store;
    pthread_mutex_lock(&store->table_lock);
    COW_ASSERT(tree->handles > 0);
    tree->handles--;
    if (tree->handles == 0 && !tree->dirty) unlink_and_free(store, tree);
    pthread_mutex_unlock(&store->table_lock);
}

void cow_table_mark_dirty(struct cow_tree *tree)
{
    pthread_mutex_lock(&tree->store->table_lock);
    mark_dirty_locked(tree);
    pthread_mutex_unlock(&tree->store->table_lock);
}

static int put_item(cow_store *store, struct cow_key key, const void *value, size_t bytes)
{
    pthread_mutex_lock(&store->trees_lock);
    int rc = cow_btree_put(store->nodes, &store->trees_root, key, value, bytes);
    pthread_mutex_unlock(&store->trees_lock);
    return rc;
}

static int del_item(cow_store *store, struct cow_key key)
{
    pthread_mutex_lock(&store->trees_lock);
    int rc = cow_btree_del(store->nodes, &store->trees_root, key);
    pthread_mutex_unlock(&store->trees_lock);
    return rc == -ENOENT ? 0 : rc;
}

static int store_record(struct cow_tree *tree)
{
    int rc = cow_tree_flush_inodes(tree);
    if (rc) return rc;
    struct cow_tree_record record;
    uint8_t bytes[COW_TREE_RECORD_BYTES];
    cow_tree_to_record(tree, &record);
    cow_tree_record_encode(&record, bytes);
    rc = put_item(tree->store, cow_key_make(tree->id, COW_ITEM_TREE, 0), bytes, sizeof bytes);
    bool temp = (tree->flags & COW_TREE_TEMP) != 0;
    if (rc || temp == tree->temp_stored) return rc;
    struct cow_key key = cow_key_make(0, COW_ITEM_TEMP, tree->id);
    rc = temp ? put_item(tree->store, key, "", 0) : del_item(tree->store, key);
    if (!rc) tree->temp_stored = temp;
    return rc;
}

int cow_table_flush(cow_store *store)
{
    for (;;) {
        pthread_mutex_lock(&store->table_lock);
        struct cow_tree *tree = store->dirty_trees;
        pthread_mutex_unlock(&store->table_lock);
        if (!tree) return 0;
        pthread_rwlock_wrlock(&tree->lock);
        int rc = tree->dead ? 0 : store_record(tree);
        cow_tree_disown(tree);
        if (!rc) cow_tree_drop_inodes(tree); /* a tree that rests costs little memory */
        pthread_rwlock_unlock(&tree->lock);
        if (rc) return rc;
        pthread_mutex_lock(&store->table_lock);
        store->dirty_trees = tree->next_dirty;
        tree->dirty = false;
        if (tree->handles == 0) unlink_and_free(store, tree);
        pthread_mutex_unlock(&store->table_lock);
    }
}

int cow_table_forget(struct cow_tree *tree)
{
    cow_store *store = tree->store;
    int rc = del_item(store, cow_key_make(tree->id, COW_ITEM_TREE, 0));
    if (!rc && tree->temp_stored) rc = del_item(store, cow_key_make(0, COW_ITEM_TEMP, tree->id));
    if (rc) return rc;
    tree->temp_stored = false;
    pthread_mutex_lock(&store->table_lock);
    store->tree_count--;
    pthread_mutex_unlock(&store->table_lock);
    return 0;
}

int cow_table_first_temp(cow_store *store, uint64_t *id_out)
{
    struct cow_cursor cursor;
    pthread_mutex_lock(&store->trees_lock);
    cow_cursor_init(&cursor, store->nodes, store->trees_root);
    int rc = cow_cursor_seek(&cursor, cow_key_make(0, COW_ITEM_TEMP, 0));
    if (!rc && cursor.valid && cursor.key.ino == 0 && cow_key_type(cursor.key) == COW_ITEM_TEMP) {
        *id_out = cow_key_offset(cursor.key);
        rc = 1;
    }
    cow_cursor_deinit(&cursor);
    pthread_mutex_unlock(&store->trees_lock);
    return rc;
}

int cow_table_each(cow_store *store, int (*each)(void *context, uint64_t id, const struct cow_tree_record *record),
                   void *context)
{
    struct cow_cursor cursor;
    cow_cursor_init(&cursor, store->nodes, store->trees_root);
    int rc = cow_cursor_seek(&cursor, cow_key_make(1, (enum cow_item_type)0, 0));
    while (!rc && cursor.valid) {
        struct cow_tree_record record;
        if (cow_key_type(cursor.key) == COW_ITEM_TREE) {
            rc = cow_tree_record_decode(cursor.value, cursor.value_bytes, &record);
            if (!rc) rc = each(context, cursor.key.ino, &record);
        }
        if (!rc) rc = cow_cursor_next(&cursor);
    }
    cow_cursor_deinit(&cursor);
    return rc;
}
