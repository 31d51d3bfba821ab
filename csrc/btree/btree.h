/* SPDX-License-Identifier: Apache-2.0 */
/*
 * btree.h: the copy-on-write forest: B+trees that share nodes, after Rodeh, "B-trees, Shadowing, and Clones" (2008).
 *
 * A node is one 4 KiB block of segment 0. Its reference count (in space/) is the number of parents and roots
 * that point to it. To change a tree, the path from its root is made writable first (shadowed): a node with count 1
 * that was born in the open generation is changed in place; any other is copied to a new block, and then
 *   - count > 1: what it points to gets one reference more each, and the original one less;
 *   - count = 1 (committed before): the copy takes its pointers over and the original is released.
 * "What it points to" is children of an internal node, and the data runs of EXTENT items of a leaf (see
 * cow_item_run): put and del do NOT touch data references, the caller owns those; copying and releasing nodes do.
 *
 * Nodes in memory: one cache of clean nodes bounded in bytes (CLOCK), dirty nodes on top until their commit
 * wrote them. A node that is shared or was born before the open generation never changes in memory.
 *
 * Locks: the caller holds the tree's lock (shared to read, exclusive to write) and, to write, keeps the
 * generation open. The cache and pins have their own mutex.
 */
#ifndef COW_BTREE_H
#define COW_BTREE_H

#include "base/common.h"
#include "format/format.h"
#include "space/space.h"

struct cow_nodes; /* the node cache and all that btree calls need */

struct cow_nodes_counters {
    cow_counter nodes_read, nodes_written, nodes_copied, nodes_visited, hits, misses, evictions;
};

int cow_nodes_open(struct cow_space *space, uint64_t cache_bytes, uint64_t open_generation, struct cow_nodes **nodes_out);
void cow_nodes_close(struct cow_nodes *nodes);
const struct cow_nodes_counters *cow_nodes_counters(struct cow_nodes *nodes);
uint64_t cow_nodes_cached_bytes(struct cow_nodes *nodes);
uint64_t cow_nodes_dirty(struct cow_nodes *nodes); /* nodes of the open generation: commit early when many */

/* A tree's root. Plain value; copying it does not add a reference. addr 0 = no tree. */
struct cow_root {
    cow_addr addr;
    uint64_t generation; /* of the root node, checked when it is read */
};

int cow_btree_create(struct cow_nodes *nodes, struct cow_root *root_out); /* one empty leaf, count 1 */
int cow_btree_ref(struct cow_nodes *nodes, struct cow_root root);         /* one more root points there: a fork */

/* Copies the value of key: returns its length, or -ENOENT; at most capacity bytes are copied. */
int64_t cow_btree_get(struct cow_nodes *nodes, struct cow_root root, struct cow_key key, void *value, size_t capacity);
/* Inserts or replaces. value_bytes <= COW_VALUE_BYTES_MAX. On error the tree still is what it was. */
int cow_btree_put(struct cow_nodes *nodes, struct cow_root *root, struct cow_key key, const void *value, size_t value_bytes);
int cow_btree_del(struct cow_nodes *nodes, struct cow_root *root, struct cow_key key); /* -ENOENT */
/* Call before an operation of several puts and dels: makes sure of node space and memory for them. With COW_RESERVE_GROWS
 * in put_count it leaves the last of a full host to operations that free something. */
#define COW_RESERVE_GROWS 0x80000000u
int cow_btree_reserve(struct cow_nodes *nodes, uint32_t put_count);

/* A cursor over a tree that does not change meanwhile. Fields after valid are set while valid is true; value points
 * into a pinned node and stays until the cursor moves or ends. */
#define COW_BTREE_LEVELS_MAX 12
struct cow_node;
struct cow_cursor {
    struct cow_nodes *nodes;
    struct cow_root root;
    struct cow_node *path[COW_BTREE_LEVELS_MAX]; /* [0] = leaf */
    uint16_t slot[COW_BTREE_LEVELS_MAX];
    unsigned levels;
    bool valid;
    struct cow_key key;
    const uint8_t *value;
    size_t value_bytes;
};
void cow_cursor_init(struct cow_cursor *cursor, struct cow_nodes *nodes, struct cow_root root);
void cow_cursor_deinit(struct cow_cursor *cursor);
int cow_cursor_seek(struct cow_cursor *cursor, struct cow_key key);      /* first item >= key */
int cow_cursor_seek_last(struct cow_cursor *cursor, struct cow_key key); /* last item <= key */
int cow_cursor_next(struct cow_cursor *cursor);
int cow_cursor_previous(struct cow_cursor *cursor);
/* Whether the item is also reached from another tree: some node on the cursor's path has a count above 1. */
int cow_cursor_shared(const struct cow_cursor *cursor, bool *shared_out);

/* Walks two trees side by side in key order and reports each key whose value differs: old or new value is NULL where
 * the key is missing. Skips every subtree that both share (same address). Stops when each returns non-zero, and
 * returns that. The trees must not change meanwhile. */
typedef int (*cow_btree_diff_fn)(void *context, struct cow_key key, const uint8_t *old_value, size_t old_bytes,
                                 const uint8_t *new_value, size_t new_bytes);
int cow_btree_diff(struct cow_nodes *nodes, struct cow_root old_root, struct cow_root new_root, struct cow_key first,
                   struct cow_key last, cow_btree_diff_fn each, void *context);

/* Releasing a tree, in steps of bounded work and memory. The stack holds nodes that lost one pointer; step
 * handles at most budget nodes (count 1: its pointees are pushed and the node is released; else the count drops).
 * The stack is at most COW_RELEASE_STACK_MAX entries deep; its content is what a crash must find again (tree/ keeps
 * it in the trees tree at each commit). */
#define COW_RELEASE_STACK_MAX 2048
struct cow_release {
    uint32_t depth;
    struct cow_root stack[COW_RELEASE_STACK_MAX];
};
int cow_btree_release(struct cow_nodes *nodes, struct cow_release *release, uint32_t budget, uint32_t *done_out);

/* Blocks (nodes and data) that are reached only through count-1 pointers from this root; stops at shared nodes. */
int cow_btree_exclusive(struct cow_nodes *nodes, struct cow_root root, uint64_t *node_blocks_out, uint64_t *data_blocks_out);

/* Visits every node below root for check: node gets address, level, and whether to descend (return 1 yes, 0 no,
 * negative to stop); item gets each leaf item of visited leaves. Verifies node form, key order, and checksums. */
struct cow_btree_visitor {
    int (*node)(void *context, cow_addr addr, unsigned level);
    int (*item)(void *context, struct cow_key key, const uint8_t *value, size_t value_bytes);
    void *context;
    /* A node that is damaged (cow_error_detail says how), and the keys [first, end) that it covers: 0 = go on without
     * what lies below it. NULL: the visit ends with -EUCLEAN. */
    int (*damaged)(void *context, struct cow_root at, struct cow_key first, struct cow_key end);
};
int cow_btree_visit(struct cow_nodes *nodes, struct cow_root root, const struct cow_btree_visitor *visitor);

/* ---- Commit, called by txn in this order ----
 * close: under the store's exclusive lock: freezes all dirty nodes, hashes them and sets their sums, advances the open
 *        generation. From now on a change to one of them copies it.
 * write: writes the frozen nodes, neighbours in one call (no sync; space syncs meta).
 * done:  the superblock is durable: they are clean. */
int cow_nodes_commit_close(struct cow_nodes *nodes);
int cow_nodes_commit_write(struct cow_nodes *nodes);
void cow_nodes_commit_done(struct cow_nodes *nodes);

#endif
