/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inode items with a small write-back cache, so that the size and time of a file that is being written do not cost a
 * B+tree update per write; and the pins of open inodes. The cache has one slot per (ino modulo COW_HOT_INODES); only
 * puts fill it, so readers, which share the tree's lock, never write to it.
 */
#include <stdlib.h>

#include "tree/store.h"

static struct cow_hot_inode *slot_of(const struct cow_tree *tree, uint64_t ino)
{
    return tree->hot ? &tree->hot[ino % COW_HOT_INODES] : NULL;
}

static int write_through(struct cow_tree *tree, struct cow_hot_inode *slot)
{
    if (!slot->dirty) return 0;
    uint8_t bytes[COW_INODE_BYTES];
    cow_inode_encode(&slot->inode, bytes);
    struct cow_key key = cow_key_make(slot->inode.ino, COW_ITEM_INODE, 0);
    int rc = cow_btree_put(tree->store->nodes, &tree->root, key, bytes, sizeof bytes);
    if (!rc) slot->dirty = false;
    return rc;
}

int cow_tree_get_inode(struct cow_tree *tree, uint64_t ino, struct cow_inode *inode_out)
{
    const struct cow_hot_inode *slot = slot_of(tree, ino);
    if (slot && slot->inode.ino == ino && ino != 0) {
        *inode_out = slot->inode;
        return 0;
    }
    uint8_t bytes[COW_INODE_BYTES];
    struct cow_key key = cow_key_make(ino, COW_ITEM_INODE, 0);
    int64_t n = cow_btree_get(tree->store->nodes, tree->root, key, bytes, sizeof bytes);
    if (n < 0) return (int)n;
    return cow_inode_decode(ino, bytes, (size_t)n, inode_out);
}

int cow_tree_put_inode(struct cow_tree *tree, const struct cow_inode *inode)
{
    if (!tree->hot) {
        tree->hot = calloc(COW_HOT_INODES, sizeof *tree->hot);
        if (!tree->hot) return -ENOMEM;
    }
    struct cow_hot_inode *slot = slot_of(tree, inode->ino);
    if (slot->inode.ino != inode->ino) {
        int rc = write_through(tree, slot);
        if (rc) return rc;
    }
    slot->inode = *inode;
    slot->dirty = true;
    tree->mutations++;
    return 0;
}

int cow_tree_new_inode(struct cow_tree *tree, struct cow_inode *inode)
{
    inode->ino = tree->next_ino;
    int rc = cow_tree_put_inode(tree, inode);
    if (rc) return rc;
    tree->next_ino++;
    tree->inodes++;
    return 0;
}

int cow_tree_del_inode(struct cow_tree *tree, uint64_t ino)
{
    struct cow_hot_inode *slot = slot_of(tree, ino);
    bool cached = slot && slot->inode.ino == ino;
    int rc = cow_btree_del(tree->store->nodes, &tree->root, cow_key_make(ino, COW_ITEM_INODE, 0));
    if (rc == -ENOENT && cached) rc = 0; /* it never got as far as the B+tree */
    if (rc) return rc;
    if (cached) *slot = (struct cow_hot_inode){0};
    COW_ASSERT(tree->inodes > 0);
    tree->inodes--;
    tree->mutations++;
    return 0;
}

int cow_tree_flush_inodes(struct cow_tree *tree)
{
    for (unsigned i = 0; tree->hot && i < COW_HOT_INODES; i++) {
        int rc = write_through(tree, &tree->hot[i]);
        if (rc) return rc;
    }
    return 0;
}

void cow_tree_drop_inodes(struct cow_tree *tree)
{
    free(tree->hot);
    tree->hot = NULL;
}

/* ---- Pins: open addressing with linear probing, at most half full, removal by shifting back ---- */

static size_t pin_home(const struct cow_tree *tree, uint64_t ino)
{
    return (size_t)((ino * 0x9E3779B97F4A7C15ull) >> 32) & (tree->pins_capacity - 1);
}

static struct cow_pin *find_pin(struct cow_tree *tree, uint64_t ino)
{
    if (tree->pins_capacity == 0) return NULL;
    size_t at = pin_home(tree, ino);
    while (tree->pins[at].ino != 0 && tree->pins[at].ino != ino) at = (at + 1) & (tree->pins_capacity - 1);
    return &tree->pins[at];
}

static int grow_pins(struct cow_tree *tree)
{
    if (tree->pins_used * 2 < tree->pins_capacity) return 0;
    uint32_t old_capacity = tree->pins_capacity;
    struct cow_pin *old = tree->pins;
    uint32_t capacity = old_capacity ? old_capacity * 2 : 8;
    struct cow_pin *pins = calloc(capacity, sizeof *pins);
    if (!pins) return -ENOMEM;
    tree->pins = pins;
    tree->pins_capacity = capacity;
    for (uint32_t i = 0; i < old_capacity; i++)
        if (old[i].ino) *find_pin(tree, old[i].ino) = old[i];
    free(old);
    return 0;
}

int cow_tree_pin(struct cow_tree *tree, uint64_t ino)
{
    pthread_mutex_lock(&tree->pins_lock);
    int rc = grow_pins(tree);
    if (!rc) {
        struct cow_pin *pin = find_pin(tree, ino);
        if (pin->ino == 0) {
            pin->ino = ino;
            tree->pins_used++;
        }
        pin->count++;
    }
    pthread_mutex_unlock(&tree->pins_lock);
    return rc;
}

static void remove_pin(struct cow_tree *tree, struct cow_pin *pin)
{
    size_t mask = tree->pins_capacity - 1;
    size_t hole = (size_t)(pin - tree->pins);
    tree->pins[hole] = (struct cow_pin){0};
    tree->pins_used--;
    for (size_t at = (hole + 1) & mask; tree->pins[at].ino != 0; at = (at + 1) & mask) {
        size_t home = pin_home(tree, tree->pins[at].ino);
        if (((at - home) & mask) < ((at - hole) & mask)) continue; /* it may stay: its home is behind the hole */
        tree->pins[hole] = tree->pins[at];
        tree->pins[at] = (struct cow_pin){0};
        hole = at;
    }
}

bool cow_tree_unpin(struct cow_tree *tree, uint64_t ino)
{
    bool last = false;
    pthread_mutex_lock(&tree->pins_lock);
    struct cow_pin *pin = find_pin(tree, ino);
    if (ino != 0 && pin && pin->ino == ino && --pin->count == 0) {
        remove_pin(tree, pin);
        last = true;
    }
    pthread_mutex_unlock(&tree->pins_lock);
    return last;
}

bool cow_tree_pinned(struct cow_tree *tree, uint64_t ino)
{
    pthread_mutex_lock(&tree->pins_lock);
    const struct cow_pin *pin = find_pin(tree, ino);
    bool pinned = pin && pin->ino == ino;
    pthread_mutex_unlock(&tree->pins_lock);
    return pinned;
}
