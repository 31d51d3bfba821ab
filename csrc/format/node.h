/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node.h: the bytes of B+tree nodes; included by format.h, which gives the sizes. A node is one block:
 *
 *    0  u32 magic "COWN"        16  u64 own address
 *    4  u16 format version      24  u64 generation that it was born in
 *    6  u8  level, 0 = leaf     32  zeros up to 64
 *    7  u8  zero
 *    8  u16 count of slots or entries
 *   10  u16 heap start, 12  u16 garbage bytes in the heap (leaves; 0 in internal nodes)
 *   14  u16 zero
 *
 * Leaf: from 64 on slots {u64 ino, u64 low, u16 offset, u16 length}, sorted; values lie between the heap start and
 * the end of the block. Removing leaves garbage, which is squeezed out when the gap between slots and heap is too
 * small. Internal: from 64 on entries {u64 ino, u64 low, u64 child address, u64 child generation}, sorted.
 *
 * An entry's key is a lower bound of all keys below it. A search takes entry 0 also for smaller keys (it counts as
 * minus infinity); inserting such a key lowers entry 0's key, so that bounds stay true.
 *
 * Functions that change a node trust it (cow_node_validate ran when it was read) and assert that what is added fits.
 */
#ifndef COW_NODE_H
#define COW_NODE_H

#define COW_NODE_MAGIC 0x4e574f43u
#define COW_NODE_CAPACITY (COW_BLOCK_BYTES - COW_NODE_HEADER_BYTES)
#define COW_NODE_LEVELS_MAX 12u /* = COW_BTREE_LEVELS_MAX */
#define COW_NODE_SLOTS_MAX (COW_NODE_CAPACITY / COW_SLOT_BYTES)

/* ---- Header ---- */

static inline unsigned cow_node_level(const uint8_t *node) { return node[6]; }
static inline unsigned cow_node_count(const uint8_t *node) { return cow_load16(node + 8); }
static inline cow_addr cow_node_addr(const uint8_t *node) { return cow_load64(node + 16); }
static inline uint64_t cow_node_generation(const uint8_t *node) { return cow_load64(node + 24); }
static inline unsigned cow_leaf_heap(const uint8_t *node) { return cow_load16(node + 10); }
static inline unsigned cow_leaf_garbage(const uint8_t *node) { return cow_load16(node + 12); }

/* An empty node; the rest of the block becomes zeros. */
void cow_node_init(uint8_t *node, unsigned level, cow_addr addr, uint64_t generation);
/* The content of source under an address and generation of its own. */
void cow_node_copy(uint8_t *node, const uint8_t *source, cow_addr addr, uint64_t generation);
/* Everything that is needed to trust a block read as the node (addr, generation): -EUCLEAN with a detail. */
int cow_node_validate(const uint8_t *node, cow_addr addr, uint64_t generation);

/* ---- Searching ---- */

static inline struct cow_key cow_node_load_key(const uint8_t *at)
{
    return (struct cow_key){cow_load64(at), cow_load64(at + 8)};
}

/* How many of the sorted keys, stride bytes apart, are below key. Written without branches on the keys. */
static inline unsigned cow_node_search(const uint8_t *first, unsigned stride, unsigned count, struct cow_key key)
{
    unsigned low = 0;
    while (count > 0) {
        unsigned half = count / 2;
        struct cow_key probe = cow_node_load_key(first + (size_t)(low + half) * stride);
        bool below = (probe.ino < key.ino) | ((probe.ino == key.ino) & (probe.low < key.low));
        low = below ? low + half + 1 : low;
        count = below ? count - half - 1 : half;
    }
    return low;
}

/* ---- Leaves ---- */

static inline const uint8_t *cow_leaf_slot(const uint8_t *node, unsigned index)
{
    return node + COW_NODE_HEADER_BYTES + (size_t)index * COW_SLOT_BYTES;
}
static inline struct cow_key cow_leaf_key(const uint8_t *node, unsigned index)
{
    return cow_node_load_key(cow_leaf_slot(node, index));
}
static inline unsigned cow_leaf_length(const uint8_t *node, unsigned index)
{
    return cow_load16(cow_leaf_slot(node, index) + 18);
}
static inline const uint8_t *cow_leaf_value(const uint8_t *node, unsigned index)
{
    return node + cow_load16(cow_leaf_slot(node, index) + 16);
}
/* The first slot whose key is not below key (may be the count), and whether it is key itself. */
static inline unsigned cow_leaf_find(const uint8_t *node, struct cow_key key, bool *found_out)
{
    unsigned count = cow_node_count(node);
    /* The probes of a search depend on each other; fetching all slots at once costs one trip to memory, not five. */
    for (unsigned at = 0; at < count * COW_SLOT_BYTES; at += 64) __builtin_prefetch(node + COW_NODE_HEADER_BYTES + at);
    unsigned index = cow_node_search(node + COW_NODE_HEADER_BYTES, COW_SLOT_BYTES, count, key);
    *found_out = index < count && cow_key_compare(cow_leaf_key(node, index), key) == 0;
    return index;
}
/* Bytes between the slots and the heap. */
static inline unsigned cow_leaf_gap(const uint8_t *node)
{
    return cow_leaf_heap(node) - COW_NODE_HEADER_BYTES - cow_node_count(node) * COW_SLOT_BYTES;
}
/* Bytes that new items may take, each with its slot. */
static inline unsigned cow_leaf_room(const uint8_t *node) { return cow_leaf_gap(node) + cow_leaf_garbage(node); }

void cow_leaf_insert(uint8_t *node, unsigned index, struct cow_key key, const void *value, size_t value_bytes);
void cow_leaf_replace(uint8_t *node, unsigned index, const void *value, size_t value_bytes);
void cow_leaf_remove(uint8_t *node, unsigned index);

/* ---- Internal nodes ---- */

static inline const uint8_t *cow_entry(const uint8_t *node, unsigned index)
{
    return node + COW_NODE_HEADER_BYTES + (size_t)index * COW_ENTRY_BYTES;
}
static inline struct cow_key cow_entry_key(const uint8_t *node, unsigned index)
{
    return cow_node_load_key(cow_entry(node, index));
}
static inline cow_addr cow_entry_child(const uint8_t *node, unsigned index)
{
    return cow_load64(cow_entry(node, index) + 16);
}
static inline uint64_t cow_entry_generation(const uint8_t *node, unsigned index)
{
    return cow_load64(cow_entry(node, index) + 24);
}
/* The entry whose subtree holds key, or would hold it. */
static inline unsigned cow_entry_find(const uint8_t *node, struct cow_key key)
{
    unsigned count = cow_node_count(node);
    unsigned index = cow_node_search(node + COW_NODE_HEADER_BYTES, COW_ENTRY_BYTES, count, key);
    if (index < count && cow_key_compare(cow_entry_key(node, index), key) == 0) return index;
    return index == 0 ? 0 : index - 1;
}
static inline void cow_entry_set_key(uint8_t *node, unsigned index, struct cow_key key)
{
    uint8_t *at = node + COW_NODE_HEADER_BYTES + (size_t)index * COW_ENTRY_BYTES;
    cow_store64(at, key.ino);
    cow_store64(at + 8, key.low);
}
static inline void cow_entry_set_child(uint8_t *node, unsigned index, cow_addr child, uint64_t generation)
{
    uint8_t *at = node + COW_NODE_HEADER_BYTES + (size_t)index * COW_ENTRY_BYTES;
    cow_store64(at + 16, child);
    cow_store64(at + 24, generation);
}
void cow_entry_insert(uint8_t *node, unsigned index, struct cow_key key, cow_addr child, uint64_t generation);
void cow_entry_remove(uint8_t *node, unsigned index);

/* ---- Nodes of either kind ---- */

/* Bytes that the items or entries take. */
static inline unsigned cow_node_used(const uint8_t *node)
{
    if (cow_node_level(node) > 0) return cow_node_count(node) * COW_ENTRY_BYTES;
    return COW_NODE_CAPACITY - cow_leaf_room(node);
}
/* The lower bound of a node that is not empty. */
static inline struct cow_key cow_node_first_key(const uint8_t *node)
{
    return cow_node_load_key(node + COW_NODE_HEADER_BYTES); /* slots and entries both begin with their key */
}
/* Appends count items or entries of source, from first on. Both have one level; their keys are in order. */
void cow_node_append(uint8_t *node, const uint8_t *source, unsigned first, unsigned count);
/* Removes all from index count on. */
void cow_node_truncate(uint8_t *node, unsigned count);
/* node becomes left followed by right; it may be one of them. Together they fit. */
void cow_node_join(uint8_t *node, const uint8_t *left, const uint8_t *right);

#endif
