/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree.h: trees as objects: the table of open trees, their locks, their counters, fork, seal, delete, and the
 * inode items with a small write-back cache.
 *
 * A tree's state in memory is its root and counters; its record in the trees tree is brought up to date when a
 * generation closes. Content is changed only between cow_tree_write_begin and _end, which hold:
 *
 *   store->writers (shared)    no generation closes meanwhile; a transaction holds it exclusively
 *   tree->lock (exclusive)     no reader or other writer of this tree
 *
 * and read only between cow_tree_read_begin and _end (tree->lock shared). Lock order: writers, trees by id, then the
 * short locks of lookup, nodes, space (none of which calls out while held).
 */
#ifndef COW_TREE_H
#define COW_TREE_H

#include <pthread.h>

#include "btree/btree.h"
#include "cow.h"

struct cow_lookup; /* fs/lookup.h */
struct cow_hot_inode {
    struct cow_inode inode; /* ino 0 = empty */
    bool dirty;
};
#define COW_HOT_INODES 16u

struct cow_pin { /* an inode with open handles */
    uint64_t ino;
    uint32_t count;
};

struct cow_tree {
    struct cow_store *store;
    uint64_t id, parent, base;
    pthread_rwlock_t lock;

    /* under lock */
    struct cow_root root;
    uint64_t next_ino, inodes, apparent_bytes, size_bytes;
    uint64_t quota_bytes; /* fs/ keeps size_bytes from growing above it; 0 = none */
    int64_t created_ns;
    uint32_t flags;       /* COW_TREE_* of format.h */
    bool dead;            /* deleted: every operation answers -ESTALE; changed under the table lock as well */
    bool temp_stored;     /* the trees tree has a TEMP item for it */
    bool dirty;           /* its record is behind; in the store's dirty list */
    uint32_t own_epoch;   /* changes whenever its blocks may have become shared (fork, clone, reset) or committed (a
                             generation closed): what was known to be owned is not any more */
    uint32_t map_epoch;   /* changes whenever the content was replaced as a whole (reset, abort) */
    /* Both epochs are drawn from one counter of the store: a tree that is closed and opened again must not meet
     * entries of lookup that went stale in its former life. own_epoch changes at each commit, too. */
    uint32_t mutations;   /* puts and dels of the operation under way */
    cow_addr append_goal; /* where this tree's last data run ended */
    struct cow_hot_inode *hot; /* COW_HOT_INODES of them, made at the first write; slot = ino % COW_HOT_INODES */

    pthread_mutex_t pins_lock;
    struct cow_pin *pins; /* small open-addressed table */
    uint32_t pins_used, pins_capacity;

    uint32_t handles;     /* under the store's table lock */
    uint32_t saved;       /* 1 + index among the transaction's saved trees; 0 = not saved */
    struct cow_tree *next_dirty, *next_hash;
};

/* What an operation of fs/ may use of the store. */
struct cow_nodes *cow_tree_nodes(struct cow_tree *tree);
struct cow_space *cow_tree_space(struct cow_tree *tree);
struct cow_lookup *cow_tree_lookup(struct cow_tree *tree);
const uint8_t *cow_tree_hash_key(struct cow_tree *tree); /* 16 bytes */
struct cow_copy_up_counters { /* of the store */
    cow_counter copy_ups, bytes;
};
struct cow_copy_up_counters *cow_tree_copy_ups(struct cow_tree *tree);

/* ---- Brackets. put_count: an upper bound of puts and dels, for which space and memory are made sure of
 * (-ENOSPC, -ENOMEM before anything changed). begin answers -ESTALE, -EROFS, -ECHILD, -EIO (failed store). end takes
 * the operation's result: a failure after the tree was changed half-way fails the store. */
int cow_tree_read_begin(struct cow_tree *tree);
void cow_tree_read_end(struct cow_tree *tree);
int cow_tree_write_begin(struct cow_tree *tree, uint32_t put_count);
int64_t cow_tree_write_end(struct cow_tree *tree, int64_t result); /* returns result */
/* Whether a change that answered -ENOSPC may work when it is begun anew: begin makes room then, by a commit (released
 * blocks become reusable) or by giving free blocks back to the host. */
bool cow_tree_try_again(struct cow_tree *tree, int64_t result);
/* The same for two trees, both exclusive (the source's own_epoch changes); they may be one. */
int cow_tree_clone_begin(struct cow_tree *source, struct cow_tree *tree, uint32_t put_count);
int64_t cow_tree_clone_end(struct cow_tree *source, struct cow_tree *tree, int64_t result);

/* ---- Items, inside a bracket. put and del count as mutations. */
int64_t cow_tree_get(struct cow_tree *tree, struct cow_key key, void *value, size_t capacity);
int cow_tree_put(struct cow_tree *tree, struct cow_key key, const void *value, size_t value_bytes);
int cow_tree_del(struct cow_tree *tree, struct cow_key key);

/* What was changed so far in this bracket is whole by itself (a conversion that keeps the content, a path made
 * exclusive by putting the value that was there), so an error from here on need not fail the store. put and del
 * must therefore mark the tree dirty themselves; mutations alone only says "half-way". */
static inline void cow_tree_settle(struct cow_tree *tree) { tree->mutations = 0; }

/* ---- Inodes, inside a bracket (inodes.c). Reads see what was put. put is cheap (write-back; brought to the
 * B+tree when a generation closes and before a fork: cow_tree_flush_inodes; diff looks at both). */
int cow_tree_get_inode(struct cow_tree *tree, uint64_t ino, struct cow_inode *inode_out); /* -ENOENT */
int cow_tree_put_inode(struct cow_tree *tree, const struct cow_inode *inode);
int cow_tree_new_inode(struct cow_tree *tree, struct cow_inode *inode); /* gives ino, counts it, puts it */
int cow_tree_del_inode(struct cow_tree *tree, uint64_t ino);            /* the item only; counts it */
int cow_tree_flush_inodes(struct cow_tree *tree);
void cow_tree_drop_inodes(struct cow_tree *tree); /* empties the cache, whatever is in it */
/* Inside a clone bracket: blocks of tree became shared. */
void cow_tree_disown(struct cow_tree *tree);

/* Pins (inodes.c): open handles of an inode. */
int cow_tree_pin(struct cow_tree *tree, uint64_t ino);
bool cow_tree_unpin(struct cow_tree *tree, uint64_t ino); /* true when it was the last */
bool cow_tree_pinned(struct cow_tree *tree, uint64_t ino);

#endif
