/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node_cache.h: nodes in memory; private to btree/.
 *
 * A node is in the cache's table under its address until it is evicted or dropped (its block was released). Pins keep
 * its memory: a node without pins that is in no list is freed by the last unpin. Nodes of the open generation are
 * dirty: the dirty list holds a pin, so they always are in the cache. When the generation closes the list as a whole
 * becomes the frozen list, which keeps its pins until commit_done; then the nodes join the CLOCK list and may go.
 *
 * A frozen node whose block is released meanwhile leaves the table but is still written: the superblock about to be
 * written refers to it.
 *
 * Locks, each short: one mutex per shard (table, CLOCK list), pool_lock (dirty list, spare memory), share_lock (see
 * shadow.c). Order: share_lock, then a shard or pool_lock, then those of space/; shard and pool_lock are never held
 * together, nor while another module is called.
 */
#ifndef COW_NODE_CACHE_H
#define COW_NODE_CACHE_H

#include <pthread.h>
#include <stdatomic.h>

#include "btree/btree.h"

#define COW_CACHE_LINE 64
#define COW_NODE_SHARDS 16u
#define COW_NODE_DROPPED 0x80000000u /* in pins: not in the table any more */

struct cow_node {
    /* Under the shard's mutex: */
    struct cow_node *next_hash;
    struct cow_node *previous, *next; /* in the shard's CLOCK list; next also chains spare and evicted memory */
    bool listed;                      /* in the CLOCK list */
    bool referenced;                  /* since the hand came by */

    _Atomic bool shared;    /* of the open generation: its count may be above 1 */
    _Atomic uint32_t pins;
    cow_addr addr;          /* constant while in the table, as is generation */
    uint64_t generation;
    uint32_t dirty_index;   /* in the dirty list, under pool_lock */
    _Alignas(COW_CACHE_LINE) uint8_t bytes[COW_BLOCK_BYTES];
};

struct cow_node_shard {
    _Alignas(COW_CACHE_LINE) pthread_mutex_t lock;
    struct cow_node **buckets;
    uint64_t mask;
    struct cow_node clock; /* head of the list: next is the oldest */
    uint64_t clean, total; /* nodes in the CLOCK list, in the table */
    uint64_t hits, misses, evictions;
};

struct cow_node_list {
    struct cow_node **nodes;
    uint32_t count, capacity;
};

struct cow_nodes {
    struct cow_space *space;
    struct cow_node_shard shards[COW_NODE_SHARDS];
    uint64_t shard_limit; /* clean nodes per shard */
    _Atomic uint64_t open_generation;
    _Atomic uint64_t frozen_generation; /* 0 = none */
    _Atomic uint32_t tallest;           /* most levels seen in a tree */

    pthread_mutex_t pool_lock;
    struct cow_node_list dirty;
    struct cow_node *spares; /* memory for when malloc fails */
    uint32_t spare_count;

    struct cow_node_list frozen; /* the committing thread's */
    pthread_mutex_t share_lock;
    struct cow_nodes_counters counters; /* hits, misses, visited and evictions are summed when asked for */
};

/* Pins the node: from memory, or read from the medium and validated. */
int cow_nodes_get(struct cow_nodes *nodes, cow_addr addr, uint64_t generation, struct cow_node **node_out);
/* The same for a child; its level must be one below its parent's. */
int cow_nodes_get_child(struct cow_nodes *nodes, const struct cow_node *parent, unsigned index,
                        struct cow_node **node_out);
void cow_node_unpin(struct cow_node *node);
/* A new, empty node of the open generation: block, memory, dirty; pinned for the caller. */
int cow_nodes_new(struct cow_nodes *nodes, unsigned level, struct cow_node **node_out);
/* Forgets a node whose block is about to be released. The caller's pin stays. */
void cow_nodes_drop(struct cow_nodes *nodes, struct cow_node *node);
/* A reference to a node of the open generation is about to be added. */
void cow_nodes_mark_shared(struct cow_nodes *nodes, cow_addr addr);
/* Makes sure of memory for node_count more nodes. */
int cow_nodes_reserve_memory(struct cow_nodes *nodes, uint32_t node_count);
/* Adds a clean node that came through a commit to the CLOCK list; its list's pin goes. */
void cow_nodes_settle(struct cow_nodes *nodes, struct cow_node *node);

static inline uint64_t cow_nodes_generation(const struct cow_nodes *nodes)
{
    return atomic_load_explicit(&nodes->open_generation, memory_order_relaxed);
}

#endif
