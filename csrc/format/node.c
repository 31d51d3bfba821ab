/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node.c: changing and judging the bytes of nodes; the layout is in node.h. A leaf's heap grows down. A removed value
 * becomes garbage that is only counted; when an insertion finds the gap too small but gap and garbage together large
 * enough, the heap is rebuilt through a copy. The lowest value's bytes go back to the gap at once, so the pattern "put,
 * replace, replace" at a heap's end does not rebuild each time.
 */
#include "format/format.h"

#define NODE_SLOTS COW_NODE_HEADER_BYTES

static inline void set_count(uint8_t *node, unsigned count) { cow_store16(node + 8, (uint16_t)count); }
static inline void set_heap(uint8_t *node, unsigned heap) { cow_store16(node + 10, (uint16_t)heap); }
static inline void set_garbage(uint8_t *node, unsigned garbage) { cow_store16(node + 12, (uint16_t)garbage); }
static inline uint8_t *slot_at(uint8_t *node, unsigned index)
{
    return node + NODE_SLOTS + (size_t)index * COW_SLOT_BYTES;
}
static inline unsigned slot_offset(const uint8_t *slot) { return cow_load16(slot + 16); }
static inline unsigned slot_length(const uint8_t *slot) { return cow_load16(slot + 18); }
static inline void set_slot_value(uint8_t *slot, unsigned offset, unsigned length)
{
    cow_store16(slot + 16, (uint16_t)offset);
    cow_store16(slot + 18, (uint16_t)length);
}

void cow_node_init(uint8_t *node, unsigned level, cow_addr addr, uint64_t generation)
{
    COW_ASSERT(level < COW_NODE_LEVELS_MAX);
    memset(node, 0, COW_BLOCK_BYTES);
    cow_store32(node, COW_NODE_MAGIC);
    cow_store16(node + 4, COW_FORMAT_VERSION);
    node[6] = (uint8_t)level;
    if (level == 0) set_heap(node, COW_BLOCK_BYTES);
    cow_store64(node + 16, addr);
    cow_store64(node + 24, generation);
}

void cow_node_copy(uint8_t *node, const uint8_t *source, cow_addr addr, uint64_t generation)
{
    memcpy(node, source, COW_BLOCK_BYTES);
    cow_store64(node + 16, addr);
    cow_store64(node + 24, generation);
}

/* ---- Leaves -------------------------------------------------------------------------------------- */

static void leaf_compact(uint8_t *node)
{
    uint8_t copy[COW_BLOCK_BYTES];
    unsigned heap = cow_leaf_heap(node);
    memcpy(copy + heap, node + heap, COW_BLOCK_BYTES - heap);
    unsigned count = cow_node_count(node), end = COW_BLOCK_BYTES;
    for (unsigned i = 0; i < count; i++) {
        uint8_t *slot = slot_at(node, i);
        unsigned length = slot_length(slot);
        end -= length;
        memcpy(node + end, copy + (length > 0 ? slot_offset(slot) : heap), length);
        set_slot_value(slot, end, length);
    }
    COW_ASSERT(end == heap + cow_leaf_garbage(node));
    set_heap(node, end);
    set_garbage(node, 0);
}

/* Gives a slot's value bytes back. */
static void leaf_discard_value(uint8_t *node, const uint8_t *slot)
{
    unsigned heap = cow_leaf_heap(node), length = slot_length(slot);
    if (length == 0) return;
    if (slot_offset(slot) == heap) set_heap(node, heap + length);
    else set_garbage(node, cow_leaf_garbage(node) + length);
}

/* Takes value bytes from the gap, for the slot. */
static void leaf_place_value(uint8_t *node, uint8_t *slot, const void *value, unsigned length)
{
    unsigned offset = cow_leaf_heap(node) - length;
    if (length > 0) memcpy(node + offset, value, length);
    set_heap(node, offset);
    set_slot_value(slot, offset, length);
}

void cow_leaf_insert(uint8_t *node, unsigned index, struct cow_key key, const void *value, size_t value_bytes)
{
    unsigned length = (unsigned)value_bytes, count = cow_node_count(node);
    COW_ASSERT(value_bytes <= COW_VALUE_BYTES_MAX && index <= count);
    COW_ASSERT(cow_leaf_room(node) >= COW_SLOT_BYTES + length);
    if (cow_leaf_gap(node) < COW_SLOT_BYTES + length) leaf_compact(node);
    uint8_t *slot = slot_at(node, index);
    memmove(slot + COW_SLOT_BYTES, slot, (size_t)(count - index) * COW_SLOT_BYTES);
    cow_store64(slot, key.ino);
    cow_store64(slot + 8, key.low);
    leaf_place_value(node, slot, value, length);
    set_count(node, count + 1);
}

void cow_leaf_replace(uint8_t *node, unsigned index, const void *value, size_t value_bytes)
{
    COW_ASSERT(value_bytes <= COW_VALUE_BYTES_MAX && index < cow_node_count(node));
    uint8_t *slot = slot_at(node, index);
    unsigned length = (unsigned)value_bytes, old = slot_length(slot);
    if (length <= old) {
        if (length > 0) memcpy(node + slot_offset(slot), value, length);
        if (length < old) {
            set_slot_value(slot, slot_offset(slot), length);
            set_garbage(node, cow_leaf_garbage(node) + old - length);
        }
        return;
    }
    COW_ASSERT(cow_leaf_room(node) + old >= length);
    leaf_discard_value(node, slot);
    set_slot_value(slot, COW_BLOCK_BYTES, 0);
    if (cow_leaf_gap(node) < length) leaf_compact(node);
    leaf_place_value(node, slot, value, length);
}

void cow_leaf_remove(uint8_t *node, unsigned index)
{
    unsigned count = cow_node_count(node);
    COW_ASSERT(index < count);
    uint8_t *slot = slot_at(node, index);
    leaf_discard_value(node, slot);
    memmove(slot, slot + COW_SLOT_BYTES, (size_t)(count - index - 1) * COW_SLOT_BYTES);
    set_count(node, count - 1);
    if (count > 1) return;
    set_heap(node, COW_BLOCK_BYTES);
    set_garbage(node, 0);
}

/* ---- Internal nodes ------------------------------------------------------------------------------ */

void cow_entry_insert(uint8_t *node, unsigned index, struct cow_key key, cow_addr child, uint64_t generation)
{
    unsigned count = cow_node_count(node);
    COW_ASSERT(count < COW_NODE_ENTRIES_MAX && index <= count);
    uint8_t *at = node + NODE_SLOTS + (size_t)index * COW_ENTRY_BYTES;
    memmove(at + COW_ENTRY_BYTES, at, (size_t)(count - index) * COW_ENTRY_BYTES);
    cow_entry_set_key(node, index, key);
    cow_entry_set_child(node, index, child, generation);
    set_count(node, count + 1);
}

void cow_entry_remove(uint8_t *node, unsigned index)
{
    unsigned count = cow_node_count(node);
    COW_ASSERT(index < count);
    uint8_t *at = node + NODE_SLOTS + (size_t)index * COW_ENTRY_BYTES;
    memmove(at, at + COW_ENTRY_BYTES, (size_t)(count - index - 1) * COW_ENTRY_BYTES);
    set_count(node, count - 1);
}

/* ---- Nodes of either kind ------------------------------------------------------------------------ */

void cow_node_append(uint8_t *node, const uint8_t *source, unsigned first, unsigned count)
{
    unsigned have = cow_node_count(node);
    if (cow_node_level(node) > 0) {
        COW_ASSERT(have + count <= COW_NODE_ENTRIES_MAX);
        memcpy(node + NODE_SLOTS + (size_t)have * COW_ENTRY_BYTES, cow_entry(source, first),
               (size_t)count * COW_ENTRY_BYTES);
        set_count(node, have + count);
        return;
    }
    for (unsigned i = 0; i < count; i++)
        cow_leaf_insert(node, have + i, cow_leaf_key(source, first + i), cow_leaf_value(source, first + i),
                        cow_leaf_length(source, first + i));
}

void cow_node_truncate(uint8_t *node, unsigned count)
{
    unsigned have = cow_node_count(node);
    COW_ASSERT(count <= have);
    if (cow_node_level(node) > 0) {
        set_count(node, count);
        return;
    }
    while (have > count) cow_leaf_remove(node, --have);
}

void cow_node_join(uint8_t *node, const uint8_t *left, const uint8_t *right)
{
    uint8_t joined[COW_BLOCK_BYTES];
    COW_ASSERT(cow_node_level(left) == cow_node_level(right));
    COW_ASSERT(cow_node_used(left) + cow_node_used(right) <= COW_NODE_CAPACITY);
    cow_node_init(joined, cow_node_level(node), cow_node_addr(node), cow_node_generation(node));
    cow_node_append(joined, left, 0, cow_node_count(left));
    cow_node_append(joined, right, 0, cow_node_count(right));
    memcpy(node, joined, COW_BLOCK_BYTES);
}

/* ---- Judging ------------------------------------------------------------------------------------- */

static int damaged(cow_addr addr, const char *what)
{
    return cow_fail(COW_EDAMAGE, "node %u: %s", cow_addr_block(addr), what);
}

static int validate_header(const uint8_t *node, cow_addr addr, uint64_t generation)
{
    if (cow_load32(node) != COW_NODE_MAGIC) return damaged(addr, "not a node");
    if (cow_load16(node + 4) != COW_FORMAT_VERSION) return damaged(addr, "unknown format version");
    if (cow_node_addr(node) != addr) return damaged(addr, "holds another address");
    if (cow_node_generation(node) != generation) return damaged(addr, "is of another generation than its pointer says");
    if (cow_node_level(node) >= COW_NODE_LEVELS_MAX) return damaged(addr, "level out of bounds");
    uint64_t zero = (uint64_t)node[7] | cow_load16(node + 14);
    for (unsigned i = 32; i < COW_NODE_HEADER_BYTES; i += 8) zero |= cow_load64(node + i);
    if (zero != 0) return damaged(addr, "reserved bytes are not zero");
    return 0;
}

static int validate_order(const uint8_t *node, cow_addr addr, unsigned stride)
{
    unsigned count = cow_node_count(node);
    for (unsigned i = 1; i < count; i++) {
        const uint8_t *at = node + NODE_SLOTS + (size_t)i * stride;
        if (cow_key_compare(cow_node_load_key(at - stride), cow_node_load_key(at)) >= 0)
            return damaged(addr, "keys are not in order");
    }
    return 0;
}

/* Marks bytes as taken, in a bitmap of the block: false when one of them was. */
static bool take_bytes(uint64_t *taken, unsigned offset, unsigned length)
{
    while (length > 0) {
        unsigned bit = offset % 64, run = length < 64 - bit ? length : 64 - bit;
        uint64_t mask = (run == 64 ? ~(uint64_t)0 : (((uint64_t)1 << run) - 1)) << bit;
        if ((taken[offset / 64] & mask) != 0) return false;
        taken[offset / 64] |= mask;
        offset += run;
        length -= run;
    }
    return true;
}

static int validate_leaf(const uint8_t *node, cow_addr addr)
{
    unsigned count = cow_node_count(node), heap = cow_leaf_heap(node), used = 0;
    if (count > COW_NODE_SLOTS_MAX) return damaged(addr, "too many slots");
    if (heap > COW_BLOCK_BYTES || heap < NODE_SLOTS + count * COW_SLOT_BYTES)
        return damaged(addr, "heap out of bounds");
    uint64_t taken[COW_BLOCK_BYTES / 64] = {0};
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *slot = cow_leaf_slot(node, i);
        unsigned offset = slot_offset(slot), length = slot_length(slot);
        if (length > COW_VALUE_BYTES_MAX || offset + length > COW_BLOCK_BYTES || (length > 0 && offset < heap))
            return damaged(addr, "value out of bounds");
        if (!take_bytes(taken, offset, length)) return damaged(addr, "values overlap");
        used += length;
    }
    if (heap + used + cow_leaf_garbage(node) != COW_BLOCK_BYTES) return damaged(addr, "heap does not add up");
    return validate_order(node, addr, COW_SLOT_BYTES);
}

static int validate_internal(const uint8_t *node, cow_addr addr)
{
    unsigned count = cow_node_count(node);
    if (count == 0 || count > COW_NODE_ENTRIES_MAX) return damaged(addr, "count of entries out of bounds");
    if (cow_leaf_heap(node) != 0 || cow_leaf_garbage(node) != 0) return damaged(addr, "reserved bytes are not zero");
    for (unsigned i = 0; i < count; i++) {
        cow_addr child = cow_entry_child(node, i);
        if (child == 0 || cow_addr_segment(child) != 0 || child == addr)
            return damaged(addr, "child address out of bounds");
        if (cow_entry_generation(node, i) > cow_node_generation(node))
            return damaged(addr, "child is newer than its parent");
    }
    return validate_order(node, addr, COW_ENTRY_BYTES);
}

int cow_node_validate(const uint8_t *node, cow_addr addr, uint64_t generation)
{
    int rc = validate_header(node, addr, generation);
    if (rc != 0) return rc;
    return cow_node_level(node) > 0 ? validate_internal(node, addr) : validate_leaf(node, addr);
}
