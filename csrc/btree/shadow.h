/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shadow.h: a path from root to leaf, and making it writable; private to btree/.
 */
#ifndef COW_SHADOW_H
#define COW_SHADOW_H

#include "btree/node_cache.h"

/* The pinned path to where a key is or would be. */
struct cow_trail {
    struct cow_node *node[COW_BTREE_LEVELS_MAX]; /* [0] = leaf */
    uint16_t slot[COW_BTREE_LEVELS_MAX];         /* leaf: first slot not below the key; internal: the child taken */
    unsigned levels;
    bool found; /* slot[0] holds the key itself */
};
int cow_trail_load(struct cow_nodes *nodes, struct cow_root root, struct cow_key key, struct cow_trail *trail_out);
void cow_trail_unpin(struct cow_trail *trail);

/* What a change needs before it may begin. */
struct cow_shadow {
    unsigned copies;                             /* levels 0 .. copies - 1 are replaced */
    struct cow_node *copy[COW_BTREE_LEVELS_MAX];
    bool referenced[COW_BTREE_LEVELS_MAX];       /* what the original points to got one reference each, for the copy */
    struct cow_node *fresh[COW_BTREE_LEVELS_MAX + 1]; /* new nodes for splits; fresh[i] is of level i */
    unsigned fresh_count;
};
/* Gets ready to make the whole trail writable and to add fresh_count nodes, without a visible change: may fail, then
 * everything is as before. */
int cow_shadow_prepare(struct cow_nodes *nodes, const struct cow_trail *trail, unsigned fresh_count,
                       struct cow_shadow *shadow_out);
/* Puts the copies in place; cannot fail. The trail then consists of nodes that may be changed. */
void cow_shadow_link(struct cow_nodes *nodes, struct cow_root *root, struct cow_trail *trail,
                     const struct cow_shadow *shadow);

/* Whether the node may be changed in place, by a writer that may change its parent. */
int cow_node_writable(struct cow_nodes *nodes, struct cow_node *node, bool *writable_out);
/* One reference more for everything that the node points to; all or nothing. */
int cow_pointees_ref(struct cow_nodes *nodes, const struct cow_node *node);
/* One pointer to the node goes away, because its content was copied. referenced: a reference to each pointee was taken
 * for the copy; otherwise the copy takes the node's own over, and the node must have had the one pointer. */
void cow_node_forsake(struct cow_nodes *nodes, struct cow_node *node, bool referenced);
/* The only pointer to the node goes away, and what it points to has been taken care of. */
void cow_node_free(struct cow_nodes *nodes, struct cow_node *node);

/* Shrinks the tree after a removal at trail: merges, removes empty nodes, lowers the root. */
void cow_rebalance(struct cow_nodes *nodes, struct cow_root *root, struct cow_trail *trail);

#endif
