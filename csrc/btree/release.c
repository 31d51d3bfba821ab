/* SPDX-License-Identifier: Apache-2.0 */
/*
 * release.c: taking a tree apart in bounded steps. The top of the stack is a node that lost one pointer. When others
 * point to it too, its count drops and that is all; looking and dropping is one step under share_lock (see shadow.c).
 * When it was the only pointer nobody else can reach the node: its children's pointers move to the stack, or its leaf's
 * data runs are let go, and its block is released.
 *
 * Depth first, so the stack holds at most one node's entries per level above what callers pushed: 12 * 126 of 2048. If
 * it is so full of other roots that the top does not fit, an entry that does is taken first. Whatever must be read is
 * read before anything changes; a failed node stays on the stack. Only a record that cannot be read between looking at
 * it and changing it leaves a count too high, and then the store may not commit any more (cow_space_lost).
 */
#include "btree/shadow.h"

/* Drops one of several pointers: *only_out is true, and nothing was done, when it is the only one. */
static int drop_shared(struct cow_nodes *nodes, cow_addr addr, bool *only_out)
{
    uint32_t refs = 0;
    pthread_mutex_lock(&nodes->share_lock);
    int rc = cow_space_refs(nodes->space, addr, &refs);
    *only_out = refs == 1;
    if (rc == 0 && refs > 1) rc = cow_space_unref(nodes->space, addr, 1, NULL);
    pthread_mutex_unlock(&nodes->share_lock);
    if (rc == 0 && refs == 0)
        rc = cow_fail(COW_EDAMAGE, "node %u is to be released but counted as free", cow_addr_block(addr));
    return rc;
}

static void open_internal(struct cow_nodes *nodes, struct cow_release *release, struct cow_node *node)
{
    unsigned count = cow_node_count(node->bytes);
    uint32_t at = release->depth - 1; /* the node's own place is the first child's */
    COW_ASSERT(at + count <= COW_RELEASE_STACK_MAX);
    cow_node_free(nodes, node);
    for (unsigned i = 0; i < count; i++)
        release->stack[at + i] =
            (struct cow_root){cow_entry_child(node->bytes, i), cow_entry_generation(node->bytes, i)};
    release->depth = at + count;
}

/* Brings the records of the leaf's data runs into memory. */
static int look_at_runs(struct cow_nodes *nodes, const struct cow_node *node)
{
    unsigned count = cow_node_count(node->bytes);
    for (unsigned i = 0; i < count; i++) {
        cow_addr addr;
        uint32_t blocks, refs;
        if (!cow_item_run(cow_leaf_key(node->bytes, i), cow_leaf_value(node->bytes, i), cow_leaf_length(node->bytes, i),
                          &addr, &blocks))
            continue;
        int rc = cow_space_refs(nodes->space, addr, &refs);
        if (rc == 0) rc = cow_space_refs(nodes->space, addr + blocks - 1, &refs);
        if (rc != 0) return rc;
    }
    return 0;
}

static int release_leaf(struct cow_nodes *nodes, struct cow_release *release, struct cow_node *node)
{
    int rc = look_at_runs(nodes, node);
    if (rc != 0) return rc;
    cow_node_free(nodes, node);
    release->depth--;
    unsigned count = cow_node_count(node->bytes);
    for (unsigned i = 0; i < count; i++) {
        cow_addr addr;
        uint32_t blocks;
        if (!cow_item_run(cow_leaf_key(node->bytes, i), cow_leaf_value(node->bytes, i), cow_leaf_length(node->bytes, i),
                          &addr, &blocks))
            continue;
        cow_space_drop(nodes->space, addr, blocks);
    }
    return 0;
}

/* Makes an entry the top whose handling does not overflow the stack. */
static int choose_top(struct cow_nodes *nodes, struct cow_release *release)
{
    if (release->depth - 1 + COW_NODE_ENTRIES_MAX <= COW_RELEASE_STACK_MAX) return 0;
    uint32_t top = release->depth - 1, room = COW_RELEASE_STACK_MAX - top;
    for (uint32_t i = release->depth; i-- > 0;) {
        struct cow_root entry = release->stack[i];
        uint32_t refs = 0;
        struct cow_node *node = NULL;
        int rc = cow_space_refs(nodes->space, entry.addr, &refs);
        if (rc == 0 && refs == 1) rc = cow_nodes_get(nodes, entry.addr, entry.generation, &node);
        if (rc != 0) return rc;
        bool fits = node == NULL || cow_node_level(node->bytes) == 0 || cow_node_count(node->bytes) <= room;
        if (node != NULL) cow_node_unpin(node);
        if (!fits) continue;
        release->stack[i] = release->stack[top];
        release->stack[top] = entry;
        return 0;
    }
    return cow_fail(ENOBUFS, "too many trees are being released at once");
}

static int release_one(struct cow_nodes *nodes, struct cow_release *release)
{
    int rc = choose_top(nodes, release);
    if (rc != 0) return rc;
    struct cow_root top = release->stack[release->depth - 1];
    bool only = false;
    rc = drop_shared(nodes, top.addr, &only);
    if (rc != 0) return rc;
    if (!only) {
        release->depth--;
        return 0;
    }
    struct cow_node *node = NULL;
    rc = cow_nodes_get(nodes, top.addr, top.generation, &node);
    if (rc != 0) return rc;
    if (cow_node_level(node->bytes) > 0) open_internal(nodes, release, node);
    else rc = release_leaf(nodes, release, node);
    cow_node_unpin(node);
    return rc;
}

int cow_btree_release(struct cow_nodes *nodes, struct cow_release *release, uint32_t budget, uint32_t *done_out)
{
    uint32_t done = 0;
    int rc = 0;
    COW_ASSERT(release->depth <= COW_RELEASE_STACK_MAX);
    while (rc == 0 && done < budget && release->depth > 0) {
        rc = release_one(nodes, release);
        if (rc == 0) done++;
    }
    *done_out = done;
    return rc;
}
