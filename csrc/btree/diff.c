/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diff.c: two trees side by side. Each side stands before an element: a leaf item, or a whole subtree not looked into
 * yet, known by its lower bound. Subtrees of one address are stepped over together, whatever their levels. Otherwise
 * the side with the smaller key gives way: an item is reported as missing on the other side, a subtree is opened. With
 * equal keys the higher subtree is opened, because its first descendant may be what the other side stands before.
 *
 * So the cost is the nodes on the paths to differences: a shared subtree is opened only when a changed neighbour moved
 * its lower bound, at most once per level and place of change.
 */
#include "btree/node_cache.h"

struct side {
    struct cow_nodes *nodes;
    struct cow_node *node[COW_BTREE_LEVELS_MAX]; /* [0] = root, [depth - 1] = the node that holds the element */
    uint16_t slot[COW_BTREE_LEVELS_MAX];
    unsigned depth;
    struct cow_key first, last;
};

struct element {
    bool end, item;
    struct cow_key key; /* of the item; lower bound of the subtree */
    unsigned level;     /* of the subtree's root */
    cow_addr addr;      /* of the subtree's root */
    const uint8_t *value;
    size_t value_bytes;
};

/* Goes into a pinned node, at the first place that may hold keys >= first. */
static void side_push(struct side *side, struct cow_node *node)
{
    COW_ASSERT(side->depth < COW_BTREE_LEVELS_MAX);
    bool found;
    unsigned slot = cow_node_level(node->bytes) > 0 ? cow_entry_find(node->bytes, side->first)
                                                    : cow_leaf_find(node->bytes, side->first, &found);
    side->node[side->depth] = node;
    side->slot[side->depth] = (uint16_t)slot;
    side->depth++;
}

static int side_init(struct side *side, struct cow_nodes *nodes, struct cow_root root, struct cow_key first,
                     struct cow_key last)
{
    *side = (struct side){.nodes = nodes, .first = first, .last = last};
    if (root.addr == 0) return 0;
    struct cow_node *node = NULL;
    int rc = cow_nodes_get(nodes, root.addr, root.generation, &node);
    if (rc == 0) side_push(side, node);
    return rc;
}

static void side_deinit(struct side *side)
{
    while (side->depth > 0) cow_node_unpin(side->node[--side->depth]);
}

static inline void side_skip(struct side *side) { side->slot[side->depth - 1]++; }

static struct element side_peek(struct side *side)
{
    while (side->depth > 0) {
        struct cow_node *node = side->node[side->depth - 1];
        if (side->slot[side->depth - 1] < cow_node_count(node->bytes)) break;
        cow_node_unpin(node);
        side->depth--;
        if (side->depth > 0) side_skip(side);
    }
    struct element element = {.end = side->depth == 0};
    if (element.end) return element;
    const uint8_t *node = side->node[side->depth - 1]->bytes;
    unsigned slot = side->slot[side->depth - 1];
    element.item = cow_node_level(node) == 0;
    if (element.item) {
        element.key = cow_leaf_key(node, slot);
        element.value = cow_leaf_value(node, slot);
        element.value_bytes = cow_leaf_length(node, slot);
    } else {
        element.key = cow_entry_key(node, slot);
        element.level = cow_node_level(node) - 1;
        element.addr = cow_entry_child(node, slot);
    }
    element.end = cow_key_compare(element.key, side->last) > 0;
    return element;
}

static int side_open(struct side *side)
{
    struct cow_node *child = NULL;
    int rc = cow_nodes_get_child(side->nodes, side->node[side->depth - 1], side->slot[side->depth - 1], &child);
    if (rc == 0) side_push(side, child);
    return rc;
}

/* Opens the subtrees that stand in the way of a comparison: *opened_out is false when there is none. */
static int open_subtrees(struct side *a, const struct element *at_a, struct side *b, const struct element *at_b,
                         int order, bool *opened_out)
{
    bool open_a =
        !at_a->end && !at_a->item && (order < 0 || (order == 0 && (at_b->item || at_a->level >= at_b->level)));
    bool open_b =
        !at_b->end && !at_b->item && (order > 0 || (order == 0 && (at_a->item || at_b->level >= at_a->level)));
    *opened_out = open_a || open_b;
    int rc = open_a ? side_open(a) : 0;
    if (rc == 0 && open_b) rc = side_open(b);
    return rc;
}

static int compare_sides(struct side *a, struct side *b, cow_btree_diff_fn each, void *context)
{
    for (;;) {
        struct element at_a = side_peek(a), at_b = side_peek(b);
        if (at_a.end && at_b.end) return 0;
        if (!at_a.end && !at_b.end && !at_a.item && !at_b.item && at_a.addr == at_b.addr) {
            side_skip(a);
            side_skip(b);
            continue;
        }
        int order = at_a.end ? 1 : at_b.end ? -1 : cow_key_compare(at_a.key, at_b.key);
        bool opened = false;
        int rc = open_subtrees(a, &at_a, b, &at_b, order, &opened);
        if (rc != 0) return rc;
        if (opened) continue;
        if (order < 0) rc = each(context, at_a.key, at_a.value, at_a.value_bytes, NULL, 0);
        else if (order > 0) rc = each(context, at_b.key, NULL, 0, at_b.value, at_b.value_bytes);
        else if (at_a.value_bytes != at_b.value_bytes || memcmp(at_a.value, at_b.value, at_a.value_bytes) != 0)
            rc = each(context, at_a.key, at_a.value, at_a.value_bytes, at_b.value, at_b.value_bytes);
        if (rc != 0) return rc;
        if (order <= 0) side_skip(a);
        if (order >= 0) side_skip(b);
    }
}

int cow_btree_diff(struct cow_nodes *nodes, struct cow_root old_root, struct cow_root new_root, struct cow_key first,
                   struct cow_key last, cow_btree_diff_fn each, void *context)
{
    if (old_root.addr == new_root.addr) return 0;
    struct side a, b;
    int rc = side_init(&a, nodes, old_root, first, last);
    if (rc != 0) return rc;
    rc = side_init(&b, nodes, new_root, first, last);
    if (rc == 0) rc = compare_sides(&a, &b, each, context);
    side_deinit(&b);
    side_deinit(&a);
    return rc;
}
