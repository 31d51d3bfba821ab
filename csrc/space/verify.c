/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify.c: blocks as they are on the medium, for scrub and for rebuilding. Scrub works beside writers: a block of the
 * durable commit is never written in place, so a checksum that does not match is damage unless the block was released
 * meanwhile, which its record then shows.
 */
#include "base/hash.h"
#include "space/internal.h"

/* The file that holds the block. */
static int file_of(struct cow_space *space, cow_addr addr, struct space_file **file_out)
{
    *file_out = NULL; /* meta, which stays open */
    if (cow_addr_segment(addr) == 0) return 0;
    return space_file_get(space, SPACE_DATA, cow_addr_segment(addr), 0, file_out);
}

static int hash_of(struct cow_space *space, const struct space_file *file, cow_addr addr, uint64_t *hash_out)
{
    uint8_t bytes[COW_BLOCK_BYTES];
    struct cow_dev_file *medium = file != NULL ? file->file : space->meta;
    int rc = cow_dev_read_all(medium, (uint64_t)cow_addr_block(addr) * COW_BLOCK_BYTES, bytes, sizeof bytes);
    if (rc == 0) *hash_out = cow_hash_block(bytes) & COW_SUM_MASK;
    return rc;
}

int space_hash_medium(struct cow_space *space, cow_addr addr, uint64_t *hash_out)
{
    struct space_file *file;
    int rc = file_of(space, addr, &file);
    return rc != 0 ? rc : hash_of(space, file, addr, hash_out);
}

struct committed {
    bool used;
    uint64_t sum, born;
};

static int look(struct cow_space *space, cow_addr addr, struct committed *committed)
{
    uint32_t segment = cow_addr_segment(addr), block = cow_addr_block(addr);
    uint32_t chunk = block >> COW_CHUNK_SHIFT, slot = block & (COW_CHUNK_BLOCKS - 1);
    struct space_page *chunk_page, *record_page;
    space->epoch++;
    int rc = space_page_get(space, space_chunk_key(segment, chunk), &chunk_page);
    if (rc == 0) rc = space_page_get(space, space_record_key(segment, chunk), &record_page);
    if (rc != 0) return rc;
    const struct cow_record_page *records = space_records(record_page);
    int32_t refs = space_chunks(chunk_page)->add[chunk % COW_CHUNKS_PER_PAGE] + records->refs[slot];
    committed->used = refs > 0 && records->generation[slot] <= space->durable;
    committed->sum = records->sum[slot];
    committed->born = records->generation[slot];
    return 0;
}

int cow_space_verify(struct cow_space *space, cow_addr addr, bool *damaged_out)
{
    struct committed before = {0}, after = {0};
    struct space_file *file = NULL;
    uint64_t hash = 0;
    *damaged_out = false;
    space_lock(space);
    int rc = look(space, addr, &before);
    int medium = rc == 0 && before.used ? file_of(space, addr, &file) : 0;
    if (file != NULL) file->users++;
    space_unlock(space);
    if (rc != 0 || !before.used) return rc;
    if (medium == 0) medium = hash_of(space, file, addr, &hash);
    cow_count(&space->counters.blocks_verified, 1);
    space_lock(space);
    if (file != NULL) file->users--;
    rc = look(space, addr, &after);
    space_unlock(space);
    if (medium != 0 && medium != -COW_EDAMAGE) return medium;
    if (rc != 0 || (medium == 0 && hash == before.sum)) return rc;
    *damaged_out = after.used && after.sum == before.sum && after.born == before.born;
    if (*damaged_out) cow_count(&space->counters.checksum_errors, 1);
    return 0;
}

int cow_space_segment_blocks(struct cow_space *space, uint32_t segment, uint64_t *blocks_out)
{
    struct space_page *page;
    struct cow_segment_entry *entry;
    int rc = 0;
    *blocks_out = 0;
    space_lock(space);
    if (segment == 0) {
        *blocks_out = space->state.meta_blocks;
    } else if (segment < space->state.next_segment) {
        rc = space_entry_get(space, segment, &page, &entry);
        if (rc == 0 && entry->state == COW_SEGMENT_LIVE) *blocks_out = entry->block_count;
    }
    space_unlock(space);
    return rc;
}

int cow_space_chunk_used(struct cow_space *space, uint32_t segment, uint32_t chunk, uint8_t used[COW_SPACE_CHUNK_BYTES],
                         bool *any_out)
{
    *any_out = false;
    memset(used, 0, COW_SPACE_CHUNK_BYTES);
    space_lock(space);
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < COW_CHUNK_BLOCKS; i++) {
        struct committed committed = {0};
        rc = look(space, cow_addr_make(segment, (chunk << COW_CHUNK_SHIFT) + i), &committed);
        if (rc != 0 || !committed.used) continue;
        used[i / 8] = (uint8_t)(used[i / 8] | 1u << (i % 8));
        *any_out = true;
    }
    space_unlock(space);
    return rc;
}
