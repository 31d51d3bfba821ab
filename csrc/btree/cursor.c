/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cursor.c: moving over a tree's items in order. A cursor pins the path from its root to its leaf; stepping to the next
 * leaf goes up to the first level that has a further entry and down again at its edge, so no node is looked up twice. A
 * cursor that ran off an end, failed or was never placed has no path and is not valid.
 */
#include "btree/node_cache.h"

void cow_cursor_init(struct cow_cursor *cursor, struct cow_nodes *nodes, struct cow_root root)
{
    memset(cursor, 0, sizeof *cursor);
    cursor->nodes = nodes;
    cursor->root = root;
}

/* Unpins levels first .. levels - 1 and forgets the whole path. */
static void drop_path(struct cow_cursor *cursor, unsigned first)
{
    for (unsigned i = first; i < cursor->levels; i++) cow_node_unpin(cursor->path[i]);
    cursor->levels = 0;
    cursor->valid = false;
    cursor->value = NULL;
    cursor->value_bytes = 0;
}

void cow_cursor_deinit(struct cow_cursor *cursor) { drop_path(cursor, 0); }

/* Shows the item at the leaf's slot. */
static int show(struct cow_cursor *cursor)
{
    const uint8_t *leaf = cursor->path[0]->bytes;
    cursor->key = cow_leaf_key(leaf, cursor->slot[0]);
    cursor->value = cow_leaf_value(leaf, cursor->slot[0]);
    cursor->value_bytes = cow_leaf_length(leaf, cursor->slot[0]);
    cursor->valid = true;
    return 0;
}

enum edge { EDGE_FIRST, EDGE_LAST };

/* Loads the nodes below level along one edge. On error the cursor has no path. */
static int descend_edge(struct cow_cursor *cursor, unsigned level, enum edge edge)
{
    while (level > 0) {
        struct cow_node *child = NULL;
        int rc = cow_nodes_get_child(cursor->nodes, cursor->path[level], cursor->slot[level], &child);
        if (rc != 0) {
            drop_path(cursor, level);
            return rc;
        }
        level--;
        unsigned count = cow_node_count(child->bytes);
        cursor->path[level] = child;
        cursor->slot[level] = (uint16_t)(edge == EDGE_FIRST || count == 0 ? 0 : count - 1);
    }
    return 0;
}

/* Unpins the levels below level, which are about to be replaced. */
static void unpin_below(struct cow_cursor *cursor, unsigned level)
{
    for (unsigned i = 0; i < level; i++) cow_node_unpin(cursor->path[i]);
}

/* Only the root may be an empty leaf, so an empty one after a step is damage. */
static int show_stepped(struct cow_cursor *cursor)
{
    if (cow_node_count(cursor->path[0]->bytes) > 0) return show(cursor);
    unsigned block = cow_addr_block(cursor->path[0]->addr);
    drop_path(cursor, 0);
    return cow_fail(COW_EDAMAGE, "node %u: an empty leaf below another node", block);
}

static int step_next(struct cow_cursor *cursor)
{
    unsigned level = 0;
    while (level < cursor->levels && cursor->slot[level] + 1u >= cow_node_count(cursor->path[level]->bytes)) level++;
    if (level == cursor->levels) {
        drop_path(cursor, 0);
        return 0;
    }
    cursor->slot[level]++;
    unpin_below(cursor, level);
    int rc = descend_edge(cursor, level, EDGE_FIRST);
    return rc != 0 ? rc : show_stepped(cursor);
}

static int step_previous(struct cow_cursor *cursor)
{
    unsigned level = 0;
    while (level < cursor->levels && cursor->slot[level] == 0) level++;
    if (level == cursor->levels) {
        drop_path(cursor, 0);
        return 0;
    }
    cursor->slot[level]--;
    unpin_below(cursor, level);
    int rc = descend_edge(cursor, level, EDGE_LAST);
    return rc != 0 ? rc : show_stepped(cursor);
}

/* Loads the path to where key is or would be; *found_out says whether the leaf's slot holds it. */
static int load_path(struct cow_cursor *cursor, struct cow_key key, bool *found_out)
{
    drop_path(cursor, 0);
    *found_out = false;
    if (cursor->root.addr == 0) return 0;
    struct cow_node *node = NULL;
    int rc = cow_nodes_get(cursor->nodes, cursor->root.addr, cursor->root.generation, &node);
    if (rc != 0) return rc;
    unsigned level = cow_node_level(node->bytes);
    cursor->levels = level + 1;
    cursor->path[level] = node;
    while (level > 0) {
        cursor->slot[level] = (uint16_t)cow_entry_find(node->bytes, key);
        rc = cow_nodes_get_child(cursor->nodes, node, cursor->slot[level], &node);
        if (rc != 0) {
            drop_path(cursor, level);
            return rc;
        }
        cursor->path[--level] = node;
    }
    cursor->slot[0] = (uint16_t)cow_leaf_find(node->bytes, key, found_out);
    return 0;
}

int cow_cursor_seek(struct cow_cursor *cursor, struct cow_key key)
{
    bool found = false;
    int rc = load_path(cursor, key, &found);
    if (rc != 0 || cursor->levels == 0) return rc;
    if (cursor->slot[0] < cow_node_count(cursor->path[0]->bytes)) return show(cursor);
    return step_next(cursor); /* behind this leaf's last item */
}

int cow_cursor_seek_last(struct cow_cursor *cursor, struct cow_key key)
{
    bool found = false;
    int rc = load_path(cursor, key, &found);
    if (rc != 0 || cursor->levels == 0) return rc;
    if (found) return show(cursor);
    return step_previous(cursor); /* the slot is the first one above key */
}

int cow_cursor_next(struct cow_cursor *cursor) { return cursor->valid ? step_next(cursor) : 0; }

int cow_cursor_previous(struct cow_cursor *cursor) { return cursor->valid ? step_previous(cursor) : 0; }

int cow_cursor_shared(const struct cow_cursor *cursor, bool *shared_out)
{
    COW_ASSERT(cursor->valid);
    *shared_out = false;
    for (unsigned level = cursor->levels; level-- > 0 && !*shared_out;) {
        uint32_t refs;
        int rc = cow_space_refs(cursor->nodes->space, cursor->path[level]->addr, &refs);
        if (rc != 0) return rc;
        *shared_out = refs > 1;
    }
    return 0;
}
