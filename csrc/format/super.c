/* SPDX-License-Identifier: Apache-2.0 */
/*
 * super.c: the superblock: one 4096-byte block whose used bytes all lie in its first 512-byte sector. Magic and version
 * keep their offsets in every format version, so that a store of another version is recognised as one before
 * anything else is looked at. The checksum is XXH3-64 of the block with its own field zeroed.
 */
#include "base/hash.h"
#include "format/format.h"

enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_BLOCK_BYTES = 12,
    AT_CHECKSUM = 16,
    AT_GENERATION = 24,
    AT_UUID = 32,
    AT_HASH_KEY = 48,
    AT_CREATED = 64,
    AT_TREES_ADDR = 72,
    AT_TREES_GENERATION = 80,
    AT_NEXT_TREE = 88,
    AT_TREE_COUNT = 96,
    AT_NEXT_DEAD = 104,
    AT_NEXT_SEGMENT = 112,
    AT_JOURNAL_HALF = 116,
    AT_PACKED_SEGMENT = 120,
    AT_JOURNAL_BYTES = 128,
    AT_DEAD_SEGMENTS = 136,
    AT_DATA_BLOCKS = 144,
    AT_NODE_BLOCKS = 152,
    AT_META_BLOCKS = 160,
    AT_END = 168, /* zeros from here on */
};
#define META_BLOCKS_MIN 16u
static const uint8_t super_magic[8] = {'P', 'Y', 'C', 'O', 'W', 0, 'S', 'B'};

void cow_super_encode(const struct cow_super *super, uint8_t *block)
{
    memset(block, 0, COW_BLOCK_BYTES);
    memcpy(block + AT_MAGIC, super_magic, sizeof super_magic);
    cow_store32(block + AT_VERSION, COW_FORMAT_VERSION);
    cow_store32(block + AT_BLOCK_BYTES, COW_BLOCK_BYTES);
    cow_store64(block + AT_GENERATION, super->generation);
    memcpy(block + AT_UUID, super->uuid, sizeof super->uuid);
    memcpy(block + AT_HASH_KEY, super->hash_key, sizeof super->hash_key);
    cow_store64(block + AT_CREATED, (uint64_t)super->created_ns);
    cow_store64(block + AT_TREES_ADDR, super->trees_addr);
    cow_store64(block + AT_TREES_GENERATION, super->trees_generation);
    cow_store64(block + AT_NEXT_TREE, super->next_tree);
    cow_store64(block + AT_TREE_COUNT, super->tree_count);
    cow_store64(block + AT_NEXT_DEAD, super->next_dead);
    cow_store32(block + AT_NEXT_SEGMENT, super->next_segment);
    cow_store32(block + AT_JOURNAL_HALF, super->journal_half);
    cow_store32(block + AT_PACKED_SEGMENT, super->packed_segment);
    cow_store64(block + AT_JOURNAL_BYTES, super->journal_bytes);
    cow_store64(block + AT_DEAD_SEGMENTS, super->dead_segments);
    cow_store64(block + AT_DATA_BLOCKS, super->data_blocks);
    cow_store64(block + AT_NODE_BLOCKS, super->node_blocks);
    cow_store64(block + AT_META_BLOCKS, super->meta_blocks);
    cow_store64(block + AT_CHECKSUM, cow_hash_block(block));
}

static bool rest_is_zero(const uint8_t *block)
{
    return cow_load32(block + AT_PACKED_SEGMENT + 4) == 0 && block[AT_END] == 0 &&
           memcmp(block + AT_END, block + AT_END + 1, COW_BLOCK_BYTES - AT_END - 1) == 0;
}

/* What no commit can have written. */
static bool plausible(const struct cow_super *super)
{
    if (super->generation > COW_GENERATION_MAX) return false;
    if ((super->generation == 0) != (super->trees_addr == 0)) return false; /* generation 0: a store just made */
    if (super->trees_generation > super->generation || cow_addr_segment(super->trees_addr) != 0) return false;
    if (super->next_segment == 0 || super->packed_segment >= super->next_segment) return false;
    if (super->dead_segments >= super->next_segment) return false;
    if (super->journal_half > 1 || super->journal_bytes % COW_PAGE_BYTES != 0) return false;
    if (super->meta_blocks < META_BLOCKS_MIN || super->meta_blocks > UINT32_MAX) return false;
    return super->node_blocks <= super->meta_blocks - META_BLOCKS_MIN;
}

static void decode_fields(const uint8_t *block, struct cow_super *super)
{
    super->generation = cow_load64(block + AT_GENERATION);
    memcpy(super->uuid, block + AT_UUID, sizeof super->uuid);
    memcpy(super->hash_key, block + AT_HASH_KEY, sizeof super->hash_key);
    super->created_ns = (int64_t)cow_load64(block + AT_CREATED);
    super->trees_addr = cow_load64(block + AT_TREES_ADDR);
    super->trees_generation = cow_load64(block + AT_TREES_GENERATION);
    super->next_tree = cow_load64(block + AT_NEXT_TREE);
    super->tree_count = cow_load64(block + AT_TREE_COUNT);
    super->next_dead = cow_load64(block + AT_NEXT_DEAD);
    super->next_segment = cow_load32(block + AT_NEXT_SEGMENT);
    super->journal_half = cow_load32(block + AT_JOURNAL_HALF);
    super->packed_segment = cow_load32(block + AT_PACKED_SEGMENT);
    super->journal_bytes = cow_load64(block + AT_JOURNAL_BYTES);
    super->dead_segments = cow_load64(block + AT_DEAD_SEGMENTS);
    super->data_blocks = cow_load64(block + AT_DATA_BLOCKS);
    super->node_blocks = cow_load64(block + AT_NODE_BLOCKS);
    super->meta_blocks = cow_load64(block + AT_META_BLOCKS);
}

int cow_super_decode(const uint8_t *block, struct cow_super *super_out)
{
    if (memcmp(block + AT_MAGIC, super_magic, sizeof super_magic) != 0) {
        return cow_fail(COW_EDAMAGE, "not a superblock");
    }
    uint32_t version = cow_load32(block + AT_VERSION);
    if (version != COW_FORMAT_VERSION) {
        return cow_fail(EPROTONOSUPPORT, "store of format version %u; this is version %u", version, COW_FORMAT_VERSION);
    }
    uint8_t copy[COW_BLOCK_BYTES];
    memcpy(copy, block, COW_BLOCK_BYTES);
    memset(copy + AT_CHECKSUM, 0, 8);
    if (cow_hash_block(copy) != cow_load64(block + AT_CHECKSUM)) {
        return cow_fail(COW_EDAMAGE, "superblock: bad checksum");
    }
    struct cow_super super;
    decode_fields(block, &super);
    if (cow_load32(block + AT_BLOCK_BYTES) != COW_BLOCK_BYTES || !rest_is_zero(block) || !plausible(&super)) {
        return cow_fail(COW_EDAMAGE, "superblock of generation %llu with impossible fields",
                        (unsigned long long)super.generation);
    }
    *super_out = super;
    return 0;
}
