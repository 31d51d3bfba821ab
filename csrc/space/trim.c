/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trim.c: when the host is full, all that is free in packed segments is given back to it. Runs that are released in one
 * piece are punched by the commit (commit.c); what came free in crumbs keeps its host blocks, while the allocator may hand
 * out blocks that were punched before and find no room on the host for them. Trimming evens that out. The lock is held
 * while a chunk is punched, so that no block of it can be allocated meanwhile; a block that may be allocated is in no
 * commit that matters to anybody.
 */
#include "space/internal.h"

static void trim_chunk(struct cow_space *space, struct space_file *file, uint32_t segment, uint32_t chunk,
                       uint32_t block_count)
{
    struct space_page *chunk_page, *record_page;
    uint32_t slot = chunk % COW_CHUNKS_PER_PAGE;
    if (space_page_get(space, space_chunk_key(segment, chunk), &chunk_page) != 0) return;
    int32_t add = space_chunks(chunk_page)->add[slot];
    if (add + space_chunks(chunk_page)->min[slot] > 0) return;
    if (space_page_get(space, space_record_key(segment, chunk), &record_page) != 0) return;
    uint32_t first = chunk << COW_CHUNK_SHIFT;
    uint32_t end = block_count - first < COW_CHUNK_BLOCKS ? block_count - first : COW_CHUNK_BLOCKS;
    for (uint32_t at = 0; at < end;) {
        uint32_t run = 0;
        while (at + run < end && space_block_free(space_records(record_page), add, at + run, space->reusable)) run++;
        if (run > 0) {
            uint64_t length = (uint64_t)run * COW_BLOCK_BYTES;
            int rc = file->file->dev->ops->punch(file->file, (uint64_t)(first + at) * COW_BLOCK_BYTES, length);
            if (rc == 0) space_count(&space->counters.punched_bytes, length);
        }
        at += run + 1;
    }
}

bool cow_space_wants_trim(const struct cow_space *space) { return __atomic_load_n(&space->trim_wanted, __ATOMIC_RELAXED); }

/* Errors do not matter: what cannot be read or punched is just not given back. */
void cow_space_trim(struct cow_space *space)
{
    space_lock(space);
    for (uint32_t segment = 1; segment < space->state.next_segment; segment++) {
        uint32_t block_count = 0;
        for (uint32_t chunk = 0; chunk == 0 || chunk << COW_CHUNK_SHIFT < block_count; chunk++) {
            struct space_page *page;
            struct cow_segment_entry *entry;
            struct space_file *file;
            space->epoch++; /* nothing is held from one chunk to the next */
            if (space_entry_get(space, segment, &page, &entry) != 0) break;
            if (entry->state != COW_SEGMENT_LIVE || entry->kind != COW_SEGMENT_PACKED) break;
            block_count = entry->block_count;
            if (space_file_get(space, SPACE_DATA, segment, 0, &file) != 0) break;
            trim_chunk(space, file, segment, chunk, block_count);
        }
    }
    __atomic_store_n(&space->trim_wanted, false, __ATOMIC_RELAXED);
    space->released_since_trim = false;
    space_unlock(space);
}
