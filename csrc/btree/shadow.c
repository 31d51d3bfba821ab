/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shadow.c: making a path writable. A node that is not writable has no writable descendants (a parent is as young as
 * its youngest child, and below a shared node all is shared), so a path is a writable upper part and a lower part to
 * copy. Preparing allocates all nodes and takes all references; that can fail and be undone. Linking then only drops
 * pointers to originals.
 *
 * Two trees may copy the same shared node at the same time. Each takes references on the pointees first and then drops
 * its pointer to the original; whoever comes second finds that it has the last pointer, and releases the original with
 * the references that it held itself. share_lock makes "look at the count, drop one" one step, here and in release.c.
 * A count of 1 seen by the writer that holds the only pointer is stable: nobody else can add one.
 *
 * The fast path needs no look at counts: a node born in the open generation is not shared unless mark_shared said so
 * when a reference was added, and all references to nodes are added in btree/. Writers of different trees see each
 * other's marks because the mark is set before the count is raised, under locks of space/.
 *
 * Dropping pointers touches records that were looked at when preparing. If one of those must be read again and the
 * medium fails just then, the count stays too high, and the store may not commit any more (cow_space_lost).
 */
#include "btree/shadow.h"

/* ---- The path ------------------------------------------------------------------------------------ */

static inline void descend(struct cow_trail *trail, unsigned level, struct cow_node *node, struct cow_key key)
{
    trail->node[level] = node;
    if (level == 0) trail->slot[0] = (uint16_t)cow_leaf_find(node->bytes, key, &trail->found);
    else trail->slot[level] = (uint16_t)cow_entry_find(node->bytes, key);
}

static inline void note_height(struct cow_nodes *nodes, unsigned levels)
{
    if (atomic_load_explicit(&nodes->tallest, memory_order_relaxed) < levels)
        atomic_store_explicit(&nodes->tallest, levels, memory_order_relaxed);
}

int cow_trail_load(struct cow_nodes *nodes, struct cow_root root, struct cow_key key, struct cow_trail *trail_out)
{
    struct cow_node *node = NULL;
    int rc = cow_nodes_get(nodes, root.addr, root.generation, &node);
    if (rc != 0) return rc;
    unsigned level = cow_node_level(node->bytes);
    trail_out->levels = level + 1;
    note_height(nodes, level + 1);
    descend(trail_out, level, node, key);
    while (level > 0) {
        rc = cow_nodes_get_child(nodes, trail_out->node[level], trail_out->slot[level], &node);
        if (rc != 0) {
            for (unsigned i = level; i < trail_out->levels; i++) cow_node_unpin(trail_out->node[i]);
            return rc;
        }
        descend(trail_out, --level, node, key);
    }
    return 0;
}

void cow_trail_unpin(struct cow_trail *trail)
{
    for (unsigned i = 0; i < trail->levels; i++) cow_node_unpin(trail->node[i]);
    trail->levels = 0;
}

/* ---- References ---------------------------------------------------------------------------------- */

int cow_node_writable(struct cow_nodes *nodes, struct cow_node *node, bool *writable_out)
{
    *writable_out = node->generation == cow_nodes_generation(nodes);
    if (!*writable_out || !atomic_load_explicit(&node->shared, memory_order_acquire)) return 0;
    uint32_t refs = 0;
    int rc = cow_space_refs(nodes->space, node->addr, &refs);
    if (rc != 0) return rc;
    COW_ASSERT(refs > 0);
    *writable_out = refs == 1;
    if (refs == 1) atomic_store_explicit(&node->shared, false, memory_order_release); /* the others went away */
    return 0;
}

/* What slot or entry index points to; count 0 = nothing. */
static void pointee(const struct cow_node *node, unsigned index, cow_addr *addr_out, uint32_t *count_out)
{
    *addr_out = 0;
    *count_out = 0;
    if (cow_node_level(node->bytes) > 0) {
        *addr_out = cow_entry_child(node->bytes, index);
        *count_out = 1;
        return;
    }
    if (!cow_item_run(cow_leaf_key(node->bytes, index), cow_leaf_value(node->bytes, index),
                      cow_leaf_length(node->bytes, index), addr_out, count_out))
        *count_out = 0;
}

/* Takes back references of the first end pointees. Their records are dirty, so they are in memory. */
static void pointees_unref(struct cow_nodes *nodes, const struct cow_node *node, unsigned end)
{
    for (unsigned i = 0; i < end; i++) {
        cow_addr addr;
        uint32_t count;
        pointee(node, i, &addr, &count);
        if (count > 0) cow_space_drop(nodes->space, addr, count);
    }
}

int cow_pointees_ref(struct cow_nodes *nodes, const struct cow_node *node)
{
    unsigned end = cow_node_count(node->bytes);
    bool internal = cow_node_level(node->bytes) > 0;
    uint64_t open = cow_nodes_generation(nodes);
    for (unsigned i = 0; i < end; i++) {
        cow_addr addr;
        uint32_t count;
        pointee(node, i, &addr, &count);
        if (count == 0) continue;
        if (internal && cow_entry_generation(node->bytes, i) == open) cow_nodes_mark_shared(nodes, addr);
        int rc = cow_space_ref(nodes->space, addr, count);
        if (rc == 0) continue;
        pointees_unref(nodes, node, i);
        return rc;
    }
    return 0;
}

void cow_node_free(struct cow_nodes *nodes, struct cow_node *node)
{
    cow_nodes_drop(nodes, node); /* before its block can be given to another */
    uint32_t zeroed = 0;
    int rc = cow_space_unref(nodes->space, node->addr, 1, &zeroed);
    COW_ASSERT(rc != 0 || zeroed == 1);
    cow_space_set_lost(nodes->space, rc);
}

void cow_node_forsake(struct cow_nodes *nodes, struct cow_node *node, bool referenced)
{
    if (!referenced) {
        cow_node_free(nodes, node);
        return;
    }
    uint32_t refs = 0;
    pthread_mutex_lock(&nodes->share_lock);
    int rc = cow_space_refs(nodes->space, node->addr, &refs);
    if (rc == 0 && refs > 1) rc = cow_space_unref(nodes->space, node->addr, 1, NULL);
    pthread_mutex_unlock(&nodes->share_lock);
    cow_space_set_lost(nodes->space, rc);
    if (rc != 0 || refs != 1) return;
    pointees_unref(nodes, node, cow_node_count(node->bytes)); /* the others left while we copied */
    cow_node_free(nodes, node);
}

/* ---- Preparing and linking ----------------------------------------------------------------------- */

static void shadow_undo(struct cow_nodes *nodes, const struct cow_trail *trail, struct cow_shadow *shadow)
{
    for (unsigned i = 0; i < COW_BTREE_LEVELS_MAX; i++) {
        if (shadow->referenced[i]) pointees_unref(nodes, trail->node[i], cow_node_count(trail->node[i]->bytes));
        if (shadow->copy[i] == NULL) continue;
        cow_node_free(nodes, shadow->copy[i]);
        cow_node_unpin(shadow->copy[i]);
    }
    for (unsigned i = 0; i < shadow->fresh_count; i++) {
        cow_node_free(nodes, shadow->fresh[i]);
        cow_node_unpin(shadow->fresh[i]);
    }
}

static int shadow_allocate(struct cow_nodes *nodes, unsigned fresh_count, struct cow_shadow *shadow)
{
    for (unsigned i = 0; i < shadow->copies; i++) {
        int rc = cow_nodes_new(nodes, i, &shadow->copy[i]);
        if (rc != 0) return rc;
    }
    for (unsigned i = 0; i < fresh_count; i++) {
        int rc = cow_nodes_new(nodes, i, &shadow->fresh[i]);
        if (rc != 0) return rc;
        shadow->fresh_count = i + 1;
    }
    return 0;
}

/* From the top down: the references taken for a copy make what is below it shared. */
static int shadow_ref(struct cow_nodes *nodes, const struct cow_trail *trail, struct cow_shadow *shadow)
{
    for (unsigned i = shadow->copies; i-- > 0;) {
        uint32_t refs = 0;
        int rc = cow_space_refs(nodes->space, trail->node[i]->addr, &refs);
        if (rc != 0) return rc;
        if (refs == 0) return cow_fail(COW_EDAMAGE, "node %u is in use but counted as free",
                                       cow_addr_block(trail->node[i]->addr));
        if (refs == 1) continue;
        rc = cow_pointees_ref(nodes, trail->node[i]);
        if (rc != 0) return rc;
        shadow->referenced[i] = true;
    }
    return 0;
}

int cow_shadow_prepare(struct cow_nodes *nodes, const struct cow_trail *trail, unsigned fresh_count,
                       struct cow_shadow *shadow_out)
{
    COW_ASSERT(fresh_count <= COW_BTREE_LEVELS_MAX);
    memset(shadow_out, 0, sizeof *shadow_out);
    unsigned copies = trail->levels;
    bool writable = true;
    while (copies > 0) {
        int rc = cow_node_writable(nodes, trail->node[copies - 1], &writable);
        if (rc != 0) return rc;
        if (!writable) break;
        copies--;
    }
    shadow_out->copies = copies;
    int rc = shadow_allocate(nodes, fresh_count, shadow_out);
    if (rc == 0) rc = shadow_ref(nodes, trail, shadow_out);
    if (rc != 0) shadow_undo(nodes, trail, shadow_out);
    return rc;
}

void cow_shadow_link(struct cow_nodes *nodes, struct cow_root *root, struct cow_trail *trail,
                     const struct cow_shadow *shadow)
{
    for (unsigned i = shadow->copies; i-- > 0;) {
        struct cow_node *original = trail->node[i], *copy = shadow->copy[i];
        cow_node_copy(copy->bytes, original->bytes, copy->addr, copy->generation);
        if (i + 1 == trail->levels) *root = (struct cow_root){copy->addr, copy->generation};
        else cow_entry_set_child(trail->node[i + 1]->bytes, trail->slot[i + 1], copy->addr, copy->generation);
        trail->node[i] = copy;
        cow_node_forsake(nodes, original, shadow->referenced[i]);
        cow_node_unpin(original);
    }
    cow_count(&nodes->counters.nodes_copied, shadow->copies);
}
