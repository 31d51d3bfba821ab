/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lookup.h: the hot-path cache. Two kinds of answers:
 *   name   (tree, directory, name) -> inode, or "no such name" (a negative entry)
 *   block  (tree, inode, block)    -> address, and whether the tree owns the block (may overwrite it in place)
 *
 * Truth: a hit equals what the tree would answer, at all times. Only write operations put or drop entries of what
 * they change, inside their write bracket; readers may put what they just read inside their read bracket. Entries
 * carry the tree's map_epoch (all entries of a tree go stale at once when it changes), and owned
 * carries the tree's own_epoch and the open generation. Names longer than COW_LOOKUP_NAME_BYTES are not cached.
 *
 * Fixed size, set-associative (4 ways), no allocation after open. Locks: one small mutex per group of sets.
 */
#ifndef COW_LOOKUP_H
#define COW_LOOKUP_H

#include "tree/tree.h"

#define COW_LOOKUP_NAME_BYTES 38u

struct cow_lookup_counters {
    cow_counter hits, misses, evictions;
};

int cow_lookup_open(uint64_t entries, struct cow_lookup **lookup_out);
void cow_lookup_close(struct cow_lookup *lookup);
const struct cow_lookup_counters *cow_lookup_counters(struct cow_lookup *lookup);

/* 1 = hit (*ino_out is 0 for a negative entry), 0 = miss. */
int cow_lookup_name_get(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, uint64_t *ino_out);
void cow_lookup_name_put(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, uint64_t ino);

/* 1 = hit: the block's address (0 = hole), and whether this block is known to be owned (false: ask the tree). */
int cow_lookup_block_get(struct cow_tree *tree, uint64_t ino, uint64_t block, cow_addr *addr_out, bool *owned_out);
void cow_lookup_block_put(struct cow_tree *tree, uint64_t ino, uint64_t block, cow_addr addr, bool owned);
void cow_lookup_block_drop(struct cow_tree *tree, uint64_t ino, uint64_t block, uint64_t count);
void cow_lookup_inode_drop(struct cow_tree *tree, uint64_t ino); /* all its blocks */

#endif
