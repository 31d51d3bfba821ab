/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk.c: going through whole trees, with one frame per level instead of recursion. exclusive counts what only one root
 * reaches and never enters a node that others point to. visit is for checking: it takes nodes that are on the medium
 * from there and not from the cache, so that it sees what a reader after a restart would see, and tests what a single
 * node cannot tell: that each one lies within the bounds which its parent gives it.
 */
#include <stdlib.h>

#include "btree/node_cache.h"

/* ---- exclusive ----------------------------------------------------------------------------------- */

struct walk {
    struct cow_node *node[COW_BTREE_LEVELS_MAX];
    uint16_t slot[COW_BTREE_LEVELS_MAX];
    unsigned depth;
};

static int leaf_exclusive(struct cow_nodes *nodes, const struct cow_node *leaf, uint64_t *data_blocks)
{
    unsigned count = cow_node_count(leaf->bytes);
    for (unsigned i = 0; i < count; i++) {
        cow_addr addr;
        uint32_t blocks, exclusive = 0;
        if (!cow_item_run(cow_leaf_key(leaf->bytes, i), cow_leaf_value(leaf->bytes, i), cow_leaf_length(leaf->bytes, i),
                          &addr, &blocks))
            continue;
        int rc = cow_space_exclusive(nodes->space, addr, blocks, &exclusive);
        if (rc != 0) return rc;
        *data_blocks += exclusive;
    }
    return 0;
}

/* Enters a node when only one pointer leads to it. parent NULL: the root. */
static int enter_exclusive(struct cow_nodes *nodes, struct walk *walk, struct cow_root at,
                           const struct cow_node *parent, unsigned slot, uint64_t *node_blocks, uint64_t *data_blocks)
{
    uint32_t refs = 0;
    int rc = cow_space_refs(nodes->space, at.addr, &refs);
    if (rc != 0 || refs != 1) return rc;
    struct cow_node *node = NULL;
    rc = parent == NULL ? cow_nodes_get(nodes, at.addr, at.generation, &node)
                        : cow_nodes_get_child(nodes, parent, slot, &node);
    if (rc != 0) return rc;
    ++*node_blocks;
    if (cow_node_level(node->bytes) == 0) {
        rc = leaf_exclusive(nodes, node, data_blocks);
        cow_node_unpin(node);
        return rc;
    }
    walk->node[walk->depth] = node;
    walk->slot[walk->depth++] = 0;
    return 0;
}

int cow_btree_exclusive(struct cow_nodes *nodes, struct cow_root root, uint64_t *node_blocks_out,
                        uint64_t *data_blocks_out)
{
    struct walk walk = {.depth = 0};
    uint64_t node_blocks = 0, data_blocks = 0;
    int rc = root.addr == 0 ? 0 : enter_exclusive(nodes, &walk, root, NULL, 0, &node_blocks, &data_blocks);
    while (rc == 0 && walk.depth > 0) {
        struct cow_node *node = walk.node[walk.depth - 1];
        unsigned slot = walk.slot[walk.depth - 1]++;
        if (slot == cow_node_count(node->bytes)) {
            cow_node_unpin(node);
            walk.depth--;
            continue;
        }
        struct cow_root child = {cow_entry_child(node->bytes, slot), cow_entry_generation(node->bytes, slot)};
        rc = enter_exclusive(nodes, &walk, child, node, slot, &node_blocks, &data_blocks);
    }
    while (walk.depth > 0) cow_node_unpin(walk.node[--walk.depth]);
    if (rc != 0) return rc;
    *node_blocks_out = node_blocks;
    *data_blocks_out = data_blocks;
    return 0;
}

/* ---- visit --------------------------------------------------------------------------------------- */

struct visit_frame {
    uint8_t bytes[COW_BLOCK_BYTES];
    struct cow_key end; /* keys are below it, when bounded */
    bool bounded;
    unsigned slot;
};

struct visit {
    struct cow_nodes *nodes;
    const struct cow_btree_visitor *visitor;
    unsigned depth;
    struct visit_frame frame[COW_BTREE_LEVELS_MAX];
};

/* The bytes of a node: from memory while the medium need not have them. */
static int fetch(struct cow_nodes *nodes, cow_addr addr, uint64_t generation, uint8_t *bytes)
{
    if (addr == 0 || cow_addr_segment(addr) != 0)
        return cow_fail(COW_EDAMAGE, "node pointer %llx leads out of the node segment", (unsigned long long)addr);
    if (generation == cow_nodes_generation(nodes) || generation == atomic_load(&nodes->frozen_generation)) {
        struct cow_node *node = NULL;
        int rc = cow_nodes_get(nodes, addr, generation, &node);
        if (rc != 0) return rc;
        memcpy(bytes, node->bytes, COW_BLOCK_BYTES);
        cow_node_unpin(node);
    } else {
        int rc = cow_space_read_node(nodes->space, addr, bytes);
        if (rc != 0) return rc;
        cow_count(&nodes->counters.nodes_read, 1);
    }
    return cow_node_validate(bytes, addr, generation);
}

static int out_of_bounds(cow_addr addr)
{
    return cow_fail(COW_EDAMAGE, "node %u: its keys are not within its parent's bounds", cow_addr_block(addr));
}

/* Checks a fetched node against what its parent's entry says. */
static int check_bounds(const struct visit_frame *frame, const struct visit_frame *parent, cow_addr addr)
{
    unsigned count = cow_node_count(frame->bytes);
    if (parent == NULL) return 0;
    if (cow_node_level(frame->bytes) + 1 != cow_node_level(parent->bytes))
        return cow_fail(COW_EDAMAGE, "node %u: level does not fit below its parent", cow_addr_block(addr));
    if (count == 0) return cow_fail(COW_EDAMAGE, "node %u: an empty leaf below another node", cow_addr_block(addr));
    if (cow_key_compare(cow_node_first_key(frame->bytes), cow_entry_key(parent->bytes, parent->slot)) < 0)
        return out_of_bounds(addr);
    struct cow_key last = cow_node_level(frame->bytes) == 0 ? cow_leaf_key(frame->bytes, count - 1)
                                                            : cow_entry_key(frame->bytes, count - 1);
    return frame->bounded && cow_key_compare(last, frame->end) >= 0 ? out_of_bounds(addr) : 0;
}

static int visit_items(const struct visit *visit, const uint8_t *leaf)
{
    unsigned count = cow_node_count(leaf);
    for (unsigned i = 0; i < count && visit->visitor->item != NULL; i++) {
        int rc = visit->visitor->item(visit->visitor->context, cow_leaf_key(leaf, i), cow_leaf_value(leaf, i),
                                      cow_leaf_length(leaf, i));
        if (rc != 0) return rc;
    }
    return 0;
}

/* Fetches a node into the next frame and goes into it. parent NULL: the root, whose level the visitor is told now. */
static int visit_enter(struct visit *visit, struct cow_root at, const struct visit_frame *parent)
{
    COW_ASSERT(visit->depth < COW_BTREE_LEVELS_MAX);
    const struct cow_btree_visitor *visitor = visit->visitor;
    struct visit_frame *frame = &visit->frame[visit->depth];
    frame->slot = 0;
    frame->bounded = false;
    if (parent != NULL) {
        bool last = parent->slot + 1 == cow_node_count(parent->bytes);
        frame->bounded = !last || parent->bounded;
        frame->end = last ? parent->end : cow_entry_key(parent->bytes, parent->slot + 1);
    }
    int rc = fetch(visit->nodes, at.addr, at.generation, frame->bytes);
    if (rc == 0) rc = check_bounds(frame, parent, at.addr);
    if (rc == -COW_EDAMAGE && visitor->damaged != NULL) {
        const struct cow_key least = {0, 0}, most = {UINT64_MAX, UINT64_MAX};
        struct cow_key first = parent != NULL ? cow_entry_key(parent->bytes, parent->slot) : least;
        return visitor->damaged(visitor->context, at, first, frame->bounded ? frame->end : most);
    }
    if (rc != 0) return rc;
    if (parent == NULL && visitor->node != NULL) {
        rc = visitor->node(visitor->context, at.addr, cow_node_level(frame->bytes));
        if (rc <= 0) return rc;
    }
    if (cow_node_level(frame->bytes) == 0) return visit_items(visit, frame->bytes);
    visit->depth++;
    return 0;
}

/* One entry of the deepest frame. */
static int visit_step(struct visit *visit)
{
    struct visit_frame *frame = &visit->frame[visit->depth - 1];
    if (frame->slot == cow_node_count(frame->bytes)) {
        visit->depth--;
        return 0;
    }
    struct cow_root child = {cow_entry_child(frame->bytes, frame->slot),
                             cow_entry_generation(frame->bytes, frame->slot)};
    int descend = 1;
    if (visit->visitor->node != NULL)
        descend = visit->visitor->node(visit->visitor->context, child.addr, cow_node_level(frame->bytes) - 1);
    int rc = descend > 0 ? visit_enter(visit, child, frame) : descend;
    frame->slot++;
    return rc;
}

int cow_btree_visit(struct cow_nodes *nodes, struct cow_root root, const struct cow_btree_visitor *visitor)
{
    if (root.addr == 0) return 0;
    struct visit *visit = malloc(sizeof *visit);
    if (visit == NULL) return cow_fail(ENOMEM, "no memory for a walk");
    visit->nodes = nodes;
    visit->visitor = visitor;
    visit->depth = 0;
    int rc = visit_enter(visit, root, NULL);
    while (rc == 0 && visit->depth > 0) rc = visit_step(visit);
    free(visit);
    return rc;
}
