/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rebalance.c: keeping a tree small after removals. Going up from the leaf, a node that became empty leaves its parent;
 * one that is less than half full takes in a neighbour when both together fill at most three quarters, so that the next
 * insertion does not split it again. The path's own node always is the one that stays: it is writable, while the
 * neighbour is only read and then given up like an original that was copied. Merging is a matter of economy: when a
 * neighbour cannot be read or referenced, nodes just stay as they are.
 */
#include "btree/shadow.h"

#define MERGED_BYTES_MAX (COW_NODE_CAPACITY / 4 * 3)

/* The references that taking over the neighbour's content needs; false = leave it. */
static bool claim_content(struct cow_nodes *nodes, const struct cow_node *neighbour, bool *referenced_out)
{
    uint32_t refs = 0;
    *referenced_out = false;
    if (cow_space_refs(nodes->space, neighbour->addr, &refs) != 0 || refs == 0) return false;
    if (refs == 1) return true;
    *referenced_out = true;
    return cow_pointees_ref(nodes, neighbour) == 0;
}

/* Merges the trail's node at level with the neighbour at index of its parent: true when it was done. */
static bool merge_with(struct cow_nodes *nodes, struct cow_trail *trail, unsigned level, unsigned index)
{
    struct cow_node *node = trail->node[level], *parent = trail->node[level + 1], *neighbour = NULL;
    unsigned slot = trail->slot[level + 1];
    if (cow_nodes_get_child(nodes, parent, index, &neighbour) != 0) return false;
    bool referenced = false;
    bool fits = cow_node_used(node->bytes) + cow_node_used(neighbour->bytes) <= MERGED_BYTES_MAX;
    if (!fits || !claim_content(nodes, neighbour, &referenced)) {
        cow_node_unpin(neighbour);
        return false;
    }
    if (index > slot) {
        cow_node_join(node->bytes, node->bytes, neighbour->bytes);
        cow_entry_remove(parent->bytes, index);
    } else {
        cow_node_join(node->bytes, neighbour->bytes, node->bytes);
        cow_entry_set_child(parent->bytes, index, node->addr, node->generation);
        cow_entry_remove(parent->bytes, slot);
        trail->slot[level + 1] = (uint16_t)index;
    }
    cow_node_forsake(nodes, neighbour, referenced);
    cow_node_unpin(neighbour);
    return true;
}

/* True when the parent lost an entry. */
static bool rebalance_level(struct cow_nodes *nodes, struct cow_trail *trail, unsigned level)
{
    struct cow_node *node = trail->node[level], *parent = trail->node[level + 1];
    unsigned slot = trail->slot[level + 1];
    if (cow_node_count(node->bytes) == 0) {
        cow_entry_remove(parent->bytes, slot);
        cow_node_free(nodes, node);
        return true;
    }
    if (cow_node_used(node->bytes) > COW_NODE_CAPACITY / 2) return false;
    if (slot + 1 < cow_node_count(parent->bytes) && merge_with(nodes, trail, level, slot + 1)) return true;
    return slot > 0 && merge_with(nodes, trail, level, slot - 1);
}

/* A root that lost entries: with one child it gives way to it, with none it becomes the empty leaf. */
static void lower_root(struct cow_nodes *nodes, struct cow_root *root, const struct cow_trail *trail)
{
    for (unsigned level = trail->levels - 1; level > 0; level--) {
        struct cow_node *node = trail->node[level];
        unsigned count = cow_node_count(node->bytes);
        if (count == 0) cow_node_init(node->bytes, 0, node->addr, node->generation);
        if (count != 1) return;
        *root = (struct cow_root){cow_entry_child(node->bytes, 0), cow_entry_generation(node->bytes, 0)};
        cow_node_free(nodes, node);
        if (root->addr != trail->node[level - 1]->addr) return;
    }
}

void cow_rebalance(struct cow_nodes *nodes, struct cow_root *root, struct cow_trail *trail)
{
    unsigned level = 0;
    while (level + 1 < trail->levels && rebalance_level(nodes, trail, level)) level++;
    if (level + 1 == trail->levels) lower_root(nodes, root, trail);
}
