/* SPDX-License-Identifier: Apache-2.0 */
/*
 * btree.c: making trees, looking up, inserting, replacing, removing. put and del load the path, work out what they will
 * need, prepare all of it (shadow.c), and only then change anything, so an error leaves the tree as it was. Splits go
 * from the leaf up and use the nodes prepared for them, one per level. A split is made where the halves are nearest in
 * bytes, except that an item that goes behind the end of a node gets a node of its own: keys that come in order fill
 * every node.
 */
#include "btree/shadow.h"

#define RESERVE_LEVELS_MIN 4u /* heights below it are not told apart when reserving */

int cow_btree_create(struct cow_nodes *nodes, struct cow_root *root_out)
{
    struct cow_node *node = NULL;
    int rc = cow_nodes_new(nodes, 0, &node);
    if (rc != 0) return rc;
    *root_out = (struct cow_root){node->addr, node->generation};
    cow_node_unpin(node);
    return 0;
}

int cow_btree_ref(struct cow_nodes *nodes, struct cow_root root)
{
    COW_ASSERT(root.addr != 0);
    if (root.generation == cow_nodes_generation(nodes)) cow_nodes_mark_shared(nodes, root.addr);
    return cow_space_ref(nodes->space, root.addr, 1);
}

int cow_btree_reserve(struct cow_nodes *nodes, uint32_t put_count)
{
    bool grows = (put_count & COW_RESERVE_GROWS) != 0;
    put_count &= ~COW_RESERVE_GROWS;
    unsigned levels = atomic_load_explicit(&nodes->tallest, memory_order_relaxed);
    if (levels < RESERVE_LEVELS_MIN) levels = RESERVE_LEVELS_MIN;
    /* Each put may copy a path that shares only the root with the last one's, and split it. */
    uint32_t node_count = put_count * (2 * levels - 1) + 2;
    int rc = cow_nodes_reserve_memory(nodes, node_count);
    return rc != 0 ? rc : cow_space_reserve_nodes(nodes->space, node_count, grows);
}

int64_t cow_btree_get(struct cow_nodes *nodes, struct cow_root root, struct cow_key key, void *value, size_t capacity)
{
    if (root.addr == 0) return -ENOENT;
    struct cow_node *node = NULL;
    int rc = cow_nodes_get(nodes, root.addr, root.generation, &node);
    if (rc != 0) return rc;
    while (cow_node_level(node->bytes) > 0) {
        struct cow_node *child = NULL;
        rc = cow_nodes_get_child(nodes, node, cow_entry_find(node->bytes, key), &child);
        cow_node_unpin(node);
        if (rc != 0) return rc;
        node = child;
    }
    bool found = false;
    unsigned index = cow_leaf_find(node->bytes, key, &found);
    int64_t length = -ENOENT;
    if (found) {
        length = (int64_t)cow_leaf_length(node->bytes, index);
        size_t copied = (size_t)length < capacity ? (size_t)length : capacity;
        if (copied > 0) memcpy(value, cow_leaf_value(node->bytes, index), copied);
    }
    cow_node_unpin(node);
    return length;
}

/* ---- Splitting ----------------------------------------------------------------------------------- */

/* What a split hands to the level above: a new right neighbour. */
struct split {
    struct cow_key key;
    cow_addr addr;
    uint64_t generation;
};

static unsigned item_bytes(const uint8_t *leaf, unsigned index)
{
    return COW_SLOT_BYTES + cow_leaf_length(leaf, index);
}

/* Where to split a leaf that gets an item of new_bytes at index: how many items, the new one counted, stay left. */
static unsigned split_point(const uint8_t *leaf, unsigned index, unsigned new_bytes)
{
    unsigned count = cow_node_count(leaf), total = cow_node_used(leaf) + new_bytes;
    if (index == count) return count;
    unsigned left = 0, best = 0, best_distance = UINT32_MAX;
    for (unsigned taken = 1; taken <= count; taken++) { /* of count + 1 items, at least one stays on each side */
        unsigned last = taken - 1;
        left += last == index ? new_bytes : item_bytes(leaf, last < index ? last : last - 1);
        unsigned right = total - left;
        if (left > COW_NODE_CAPACITY || right > COW_NODE_CAPACITY) continue;
        unsigned distance = left > right ? left - right : right - left;
        if (distance < best_distance) {
            best_distance = distance;
            best = taken;
        }
    }
    COW_ASSERT(best > 0); /* no item takes more than half of a leaf */
    return best;
}

static struct split split_leaf(struct cow_node *node, struct cow_node *right, unsigned index, struct cow_key key,
                               const void *value, size_t value_bytes)
{
    unsigned count = cow_node_count(node->bytes);
    unsigned keep = split_point(node->bytes, index, COW_SLOT_BYTES + (unsigned)value_bytes);
    if (index < keep) {
        cow_node_append(right->bytes, node->bytes, keep - 1, count - (keep - 1));
        cow_node_truncate(node->bytes, keep - 1);
        cow_leaf_insert(node->bytes, index, key, value, value_bytes);
    } else {
        cow_node_append(right->bytes, node->bytes, keep, index - keep);
        cow_leaf_insert(right->bytes, index - keep, key, value, value_bytes);
        cow_node_append(right->bytes, node->bytes, index, count - index);
        cow_node_truncate(node->bytes, keep);
    }
    return (struct split){cow_node_first_key(right->bytes), right->addr, right->generation};
}

static struct split split_internal(struct cow_node *node, struct cow_node *right, unsigned index, struct split below)
{
    unsigned count = cow_node_count(node->bytes);
    unsigned keep = index == count ? count : count / 2;
    cow_node_append(right->bytes, node->bytes, keep, count - keep);
    cow_node_truncate(node->bytes, keep);
    if (index < keep) cow_entry_insert(node->bytes, index, below.key, below.addr, below.generation);
    else cow_entry_insert(right->bytes, index - keep, below.key, below.addr, below.generation);
    return (struct split){cow_node_first_key(right->bytes), right->addr, right->generation};
}

static void grow_root(struct cow_root *root, const struct cow_node *old_root, struct cow_node *top, struct split below)
{
    cow_entry_insert(top->bytes, 0, cow_node_first_key(old_root->bytes), old_root->addr, old_root->generation);
    cow_entry_insert(top->bytes, 1, below.key, below.addr, below.generation);
    *root = (struct cow_root){top->addr, top->generation};
}

/* How many new nodes the insertion at the trail's end makes: 0 when its leaf has room. */
static int count_splits(const struct cow_trail *trail, size_t value_bytes, unsigned *splits_out)
{
    const uint8_t *leaf = trail->node[0]->bytes;
    size_t room = cow_leaf_room(leaf);
    size_t needed = trail->found ? value_bytes : COW_SLOT_BYTES + value_bytes;
    if (trail->found) room += cow_leaf_length(leaf, trail->slot[0]);
    *splits_out = 0;
    if (needed <= room) return 0;
    unsigned level = 1;
    while (level < trail->levels && cow_node_count(trail->node[level]->bytes) == COW_NODE_ENTRIES_MAX) level++;
    *splits_out = level == trail->levels ? level + 1 : level;
    if (*splits_out > COW_BTREE_LEVELS_MAX) return cow_fail(EFBIG, "a tree cannot have more than %u levels",
                                                            COW_BTREE_LEVELS_MAX);
    return 0;
}

/* Inserts where the leaf has no room, with the new nodes: one per level, the last for a new root. */
static void insert_splitting(struct cow_root *root, struct cow_trail *trail, const struct cow_shadow *shadow,
                             struct cow_key key, const void *value, size_t value_bytes)
{
    struct split below = split_leaf(trail->node[0], shadow->fresh[0], trail->slot[0], key, value, value_bytes);
    for (unsigned level = 1; level < trail->levels; level++) {
        struct cow_node *node = trail->node[level];
        unsigned index = trail->slot[level] + 1u;
        if (cow_node_count(node->bytes) < COW_NODE_ENTRIES_MAX) {
            cow_entry_insert(node->bytes, index, below.key, below.addr, below.generation);
            return;
        }
        below = split_internal(node, shadow->fresh[level], index, below);
    }
    grow_root(root, trail->node[trail->levels - 1], shadow->fresh[trail->levels], below);
}

/* ---- put and del --------------------------------------------------------------------------------- */

/* All levels are writable: the path of the second and later changes in one generation. */
static int trail_writable(struct cow_nodes *nodes, const struct cow_trail *trail, bool *writable_out)
{
    int rc = 0;
    *writable_out = true;
    for (unsigned i = trail->levels; i-- > 0 && rc == 0 && *writable_out;)
        rc = cow_node_writable(nodes, trail->node[i], writable_out);
    return rc;
}

static void apply_put(struct cow_root *root, struct cow_trail *trail, const struct cow_shadow *shadow,
                      struct cow_key key, const void *value, size_t value_bytes)
{
    uint8_t *leaf = trail->node[0]->bytes;
    unsigned index = trail->slot[0];
    bool splits = shadow != NULL && shadow->fresh_count > 0;
    if (trail->found && !splits) {
        cow_leaf_replace(leaf, index, value, value_bytes);
        return;
    }
    if (trail->found) cow_leaf_remove(leaf, index);
    for (unsigned level = 1; level < trail->levels; level++) { /* bounds stay true */
        uint8_t *node = trail->node[level]->bytes;
        if (trail->slot[level] == 0 && cow_key_compare(key, cow_entry_key(node, 0)) < 0)
            cow_entry_set_key(node, 0, key);
    }
    if (splits) insert_splitting(root, trail, shadow, key, value, value_bytes);
    else cow_leaf_insert(leaf, index, key, value, value_bytes);
}

static int put_at(struct cow_nodes *nodes, struct cow_root *root, struct cow_trail *trail, struct cow_key key,
                  const void *value, size_t value_bytes)
{
    unsigned splits = 0;
    bool writable = false;
    int rc = count_splits(trail, value_bytes, &splits);
    if (rc == 0) rc = trail_writable(nodes, trail, &writable);
    if (rc != 0) return rc;
    if (writable && splits == 0) {
        apply_put(root, trail, NULL, key, value, value_bytes);
        return 0;
    }
    struct cow_shadow shadow;
    rc = cow_shadow_prepare(nodes, trail, splits, &shadow);
    if (rc != 0) return rc;
    cow_shadow_link(nodes, root, trail, &shadow);
    apply_put(root, trail, &shadow, key, value, value_bytes);
    for (unsigned i = 0; i < shadow.fresh_count; i++) cow_node_unpin(shadow.fresh[i]);
    return 0;
}

int cow_btree_put(struct cow_nodes *nodes, struct cow_root *root, struct cow_key key, const void *value,
                  size_t value_bytes)
{
    if (value_bytes > COW_VALUE_BYTES_MAX) return cow_fail(EINVAL, "a value of %zu bytes is too long", value_bytes);
    struct cow_trail trail;
    int rc = cow_trail_load(nodes, *root, key, &trail);
    if (rc != 0) return rc;
    rc = put_at(nodes, root, &trail, key, value, value_bytes);
    cow_trail_unpin(&trail);
    return rc;
}

int cow_btree_del(struct cow_nodes *nodes, struct cow_root *root, struct cow_key key)
{
    if (root->addr == 0) return -ENOENT;
    struct cow_trail trail;
    int rc = cow_trail_load(nodes, *root, key, &trail);
    if (rc != 0) return rc;
    if (!trail.found) {
        cow_trail_unpin(&trail);
        return -ENOENT;
    }
    struct cow_shadow shadow;
    rc = cow_shadow_prepare(nodes, &trail, 0, &shadow);
    if (rc == 0) {
        cow_shadow_link(nodes, root, &trail, &shadow);
        cow_leaf_remove(trail.node[0]->bytes, trail.slot[0]);
        cow_rebalance(nodes, root, &trail);
    }
    cow_trail_unpin(&trail);
    return rc;
}
