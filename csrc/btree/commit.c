/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commit.c: the nodes' part of a commit. Closing hashes the dirty list and makes it the frozen list by swapping the two
 * arrays, so it needs no memory and nothing is changed when a sum cannot be set. From then on the nodes' generation is
 * not the open one: whoever wants to change them copies them. Writing sorts the list by address and joins neighbours in
 * one buffer. Frozen nodes that were dropped meanwhile are written too: the superblock to come refers to them, and
 * their blocks cannot be reused before it is durable.
 */
#include <stdlib.h>

#include "base/hash.h"
#include "btree/node_cache.h"

#define WRITE_NODES_MAX 64u /* 256 KiB in one write */

int cow_nodes_commit_close(struct cow_nodes *nodes)
{
    COW_ASSERT(nodes->frozen.count == 0);
    pthread_mutex_lock(&nodes->pool_lock);
    struct cow_node_list closing = nodes->dirty;
    pthread_mutex_unlock(&nodes->pool_lock);
    for (uint32_t i = 0; i < closing.count; i++) { /* no writer is active: the list and its nodes stand still */
        struct cow_node *node = closing.nodes[i];
        int rc = cow_space_set_sum(nodes->space, node->addr, cow_hash_block(node->bytes));
        if (rc != 0) return rc;
    }
    pthread_mutex_lock(&nodes->pool_lock);
    nodes->dirty = nodes->frozen;
    nodes->frozen = closing;
    pthread_mutex_unlock(&nodes->pool_lock);
    atomic_store(&nodes->frozen_generation, cow_nodes_generation(nodes));
    atomic_fetch_add(&nodes->open_generation, 1);
    return 0;
}

static int by_addr(const void *a, const void *b)
{
    const struct cow_node *left = *(struct cow_node *const *)a, *right = *(struct cow_node *const *)b;
    return left->addr < right->addr ? -1 : left->addr > right->addr;
}

/* Writes the first nodes of the list that are neighbours: returns how many. */
static int64_t write_neighbours(struct cow_nodes *nodes, struct cow_node *const *list, uint32_t count, uint8_t *buffer)
{
    uint32_t run = 1, run_max = buffer == NULL ? 1 : count < WRITE_NODES_MAX ? count : WRITE_NODES_MAX;
    while (run < run_max && list[run]->addr == list[0]->addr + run) run++;
    const uint8_t *bytes = list[0]->bytes;
    if (run > 1) {
        for (uint32_t i = 0; i < run; i++)
            memcpy(buffer + (size_t)i * COW_BLOCK_BYTES, list[i]->bytes, COW_BLOCK_BYTES);
        bytes = buffer;
    }
    int rc = cow_space_write_nodes(nodes->space, list[0]->addr, run, bytes);
    return rc != 0 ? rc : (int64_t)run;
}

int cow_nodes_commit_write(struct cow_nodes *nodes)
{
    struct cow_node_list *frozen = &nodes->frozen;
    if (frozen->count == 0) return 0;
    qsort(frozen->nodes, frozen->count, sizeof *frozen->nodes, by_addr);
    uint8_t *buffer = malloc((size_t)WRITE_NODES_MAX * COW_BLOCK_BYTES); /* without it nodes are written one by one */
    int64_t written = 0;
    for (uint32_t at = 0; at < frozen->count && written >= 0; at += (uint32_t)written) {
        written = write_neighbours(nodes, frozen->nodes + at, frozen->count - at, buffer);
        if (written < 0) break;
        cow_count(&nodes->counters.nodes_written, (uint64_t)written);
    }
    free(buffer);
    return written < 0 ? (int)written : 0;
}

void cow_nodes_commit_done(struct cow_nodes *nodes)
{
    atomic_store(&nodes->frozen_generation, 0);
    for (uint32_t i = 0; i < nodes->frozen.count; i++) cow_nodes_settle(nodes, nodes->frozen.nodes[i]);
    nodes->frozen.count = 0;
}
