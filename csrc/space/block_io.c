/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_io.c: the bytes of blocks. A write first asserts that it owns the run, then moves the bytes in one device call
 * without the lock, hashes them without the lock, and takes the lock again to note the sums: the record pages of
 * owned blocks are dirty, so they are still in memory and the last step cannot fail. A read takes the sums first,
 * then moves and verifies.
 */
#include <stdio.h>

#include "base/hash.h"
#include "cow.h"
#include "space/internal.h"

static bool owns(struct cow_space *space, uint32_t segment, uint32_t block)
{
    uint32_t chunk = block >> COW_CHUNK_SHIFT, slot = block & (COW_CHUNK_BLOCKS - 1);
    struct space_page *record_page = space_page_find(space, space_record_key(segment, chunk));
    struct space_page *chunk_page = space_page_find(space, space_chunk_key(segment, chunk));
    if (record_page == NULL || chunk_page == NULL) return false;
    const struct cow_record_page *records = space_records(record_page);
    return records->generation[slot] == space->open_generation &&
           records->refs[slot] + space_chunks(chunk_page)->add[chunk % COW_CHUNKS_PER_PAGE] == 1;
}

/* The chunk pages of the run, so that owns can see them: they may be clean. */
static int load_counts(struct cow_space *space, uint32_t segment, uint32_t block, uint32_t count)
{
    uint32_t last = (block + count - 1) >> COW_CHUNK_SHIFT;
    for (uint32_t chunk = block >> COW_CHUNK_SHIFT; chunk <= last; chunk++) {
        struct space_page *page;
        int rc = space_page_get(space, space_chunk_key(segment, chunk), &page);
        if (rc != 0) return rc;
    }
    return 0;
}

static int write_begin(struct cow_space *space, uint32_t segment, uint32_t block, uint32_t count,
                       struct space_file **file_out)
{
    space_lock(space);
    int rc = load_counts(space, segment, block, count);
    if (rc == 0) {
        for (uint32_t i = 0; i < count; i++) COW_ASSERT(owns(space, segment, block + i));
        rc = space_file_get(space, SPACE_DATA, segment, 0, file_out);
    }
    if (rc == 0) (*file_out)->users++;
    space_unlock(space);
    return rc;
}

/* Also after a failed write: some of it may have reached the file. */
static void write_end(struct cow_space *space, struct space_file *file)
{
    space_lock(space);
    file->users--;
    space_file_written(space, file);
    space_unlock(space);
}

static void set_sums(struct cow_space *space, uint32_t segment, uint32_t block, uint32_t count, const uint64_t *sums)
{
    space_lock(space);
    for (uint32_t i = 0; i < count; i++, block++) {
        struct space_page *page = space_page_held(space, space_record_key(segment, block >> COW_CHUNK_SHIFT));
        COW_ASSERT(page->dirty);
        space_records(page)->sum[block & (COW_CHUNK_BLOCKS - 1)] = sums[i] & COW_SUM_MASK;
    }
    space_unlock(space);
}

/* A part of it may have arrived, over blocks that are in use: what is there now is their content. */
static void failed_write(struct cow_space *space, struct space_file *file, uint32_t segment, uint32_t block,
                         uint32_t count, int rc)
{
    if (rc == -ENOSPC) {
        space_lock(space);
        space_host_full(space);
        space_unlock(space);
    }
    char detail[256];
    (void)snprintf(detail, sizeof detail, "%s", cow_error_detail());
    for (uint32_t i = 0; i < count; i++) {
        uint8_t bytes[COW_BLOCK_BYTES] = {0};
        if (cow_dev_read(file->file, (uint64_t)(block + i) * COW_BLOCK_BYTES, bytes, sizeof bytes) < 0) continue;
        uint64_t sum = cow_hash_block(bytes);
        set_sums(space, segment, block + i, 1, &sum);
    }
    (void)cow_fail(-rc, "%s", detail);
}

int cow_space_write(struct cow_space *space, cow_addr addr, uint32_t count, const void *blocks)
{
    uint32_t segment = cow_addr_segment(addr), block = cow_addr_block(addr);
    uint64_t sums[COW_CHUNK_BLOCKS];
    struct space_file *file;
    if (count == 0) return 0;
    COW_ASSERT(segment != 0 && (uint64_t)block + count <= COW_SEGMENT_BLOCKS_MAX);
    int rc = write_begin(space, segment, block, count, &file);
    if (rc != 0) return rc;
    rc = cow_dev_write(file->file, (uint64_t)block * COW_BLOCK_BYTES, blocks, (size_t)count * COW_BLOCK_BYTES);
    if (rc != 0) failed_write(space, file, segment, block, count, rc);
    write_end(space, file);
    const uint8_t *bytes = blocks;
    for (uint32_t done = 0; rc == 0 && done < count; ) {
        uint32_t part = count - done < COW_CHUNK_BLOCKS ? count - done : COW_CHUNK_BLOCKS;
        for (uint32_t i = 0; i < part; i++) sums[i] = cow_hash_block(bytes + (size_t)(done + i) * COW_BLOCK_BYTES);
        set_sums(space, segment, block + done, part, sums);
        done += part;
    }
    return rc;
}

static int get_sums(struct cow_space *space, uint32_t segment, uint32_t block, uint32_t count, uint64_t *sums)
{
    while (count > 0) {
        uint32_t slot = block & (COW_CHUNK_BLOCKS - 1);
        uint32_t part = COW_CHUNK_BLOCKS - slot < count ? COW_CHUNK_BLOCKS - slot : count;
        struct space_page *page;
        int rc = space_page_get(space, space_record_key(segment, block >> COW_CHUNK_SHIFT), &page);
        if (rc != 0) return rc;
        memcpy(sums, space_records(page)->sum + slot, part * sizeof *sums);
        if (space_page_doubtful(space, page)) memset(sums, 0xff, part * sizeof *sums); /* SUM_DOUBTFUL each */
        sums += part;
        block += part;
        count -= part;
    }
    return 0;
}

#define SUM_DOUBTFUL UINT64_MAX /* no block has it */

/* At most one chunk's worth of blocks. What the file does not have reads as zeros, which then fail to verify. */
static int read_verified(struct cow_space *space, struct cow_dev_file *file, cow_addr addr, uint32_t count,
                         const uint64_t *sums, uint8_t *bytes)
{
    uint32_t block = cow_addr_block(addr);
    size_t length = (size_t)count * COW_BLOCK_BYTES;
    int64_t got = cow_dev_read(file, (uint64_t)block * COW_BLOCK_BYTES, bytes, length);
    if (got < 0) return (int)got;
    memset(bytes + got, 0, length - (size_t)got);
    cow_count(&space->counters.blocks_verified, count);
    for (uint32_t i = 0; i < count; i++) {
        if ((cow_hash_block(bytes + (size_t)i * COW_BLOCK_BYTES) & COW_SUM_MASK) == sums[i]) continue;
        if (sums[i] == SUM_DOUBTFUL && (size_t)got >= (size_t)(i + 1) * COW_BLOCK_BYTES) continue;
        cow_count(&space->counters.checksum_errors, 1);
        return cow_fail(COW_EDAMAGE, "segment %u block %u: bad checksum", cow_addr_segment(addr), block + i);
    }
    return 0;
}

int cow_space_read(struct cow_space *space, cow_addr addr, uint32_t count, void *blocks)
{
    uint32_t segment = cow_addr_segment(addr), block = cow_addr_block(addr);
    uint64_t sums[COW_CHUNK_BLOCKS];
    struct space_file *file = NULL;
    uint8_t *bytes = blocks;
    int rc = 0;
    if (segment == 0 || (uint64_t)block + count > COW_SEGMENT_BLOCKS_MAX) {
        return cow_fail(COW_EDAMAGE, "segment %u block %u holds no data", segment, block);
    }
    for (uint32_t done = 0; rc == 0 && done < count; ) {
        uint32_t part = count - done < COW_CHUNK_BLOCKS ? count - done : COW_CHUNK_BLOCKS;
        space_lock(space);
        rc = get_sums(space, segment, block + done, part, sums);
        if (rc == 0 && file == NULL) {
            rc = space_file_get(space, SPACE_DATA, segment, 0, &file);
            if (rc == 0) file->users++;
        }
        space_unlock(space);
        if (rc != 0) break;
        rc = read_verified(space, file->file, addr + done, part, sums, bytes + (size_t)done * COW_BLOCK_BYTES);
        done += part;
    }
    if (file != NULL) {
        space_lock(space);
        file->users--;
        space_unlock(space);
    }
    return rc;
}

/* ---- Nodes ------------------------------------------------------------------------------------- */

int cow_space_set_sum(struct cow_space *space, cow_addr addr, uint64_t hash)
{
    uint32_t segment = cow_addr_segment(addr), block = cow_addr_block(addr);
    space_lock(space);
    int rc = load_counts(space, segment, block, 1);
    if (rc == 0) {
        /* A node may have been shared since it was born, so the count is not looked at. */
        struct space_page *page = space_page_held(space, space_record_key(segment, block >> COW_CHUNK_SHIFT));
        struct cow_record_page *records = space_records(page);
        uint32_t slot = block & (COW_CHUNK_BLOCKS - 1);
        COW_ASSERT(page->dirty && records->generation[slot] == space->open_generation);
        records->sum[slot] = hash & COW_SUM_MASK;
    }
    space_unlock(space);
    return rc;
}

int cow_space_read_node(struct cow_space *space, cow_addr addr, void *block)
{
    uint64_t sum;
    uint32_t number = cow_addr_block(addr);
    if (cow_addr_segment(addr) != 0 || number < SPACE_META_FIRST) {
        return cow_fail(COW_EDAMAGE, "segment %u block %u holds no node", cow_addr_segment(addr), number);
    }
    space_lock(space);
    int rc = get_sums(space, 0, number, 1, &sum);
    space_unlock(space);
    return rc != 0 ? rc : read_verified(space, space->meta, addr, 1, &sum, block);
}

int cow_space_write_nodes(struct cow_space *space, cow_addr addr, uint32_t count, const void *blocks)
{
    uint32_t block = cow_addr_block(addr);
    COW_ASSERT(cow_addr_segment(addr) == 0 && block >= SPACE_META_FIRST);
    int rc = cow_dev_write(space->meta, (uint64_t)block * COW_BLOCK_BYTES, blocks, (size_t)count * COW_BLOCK_BYTES);
    space_lock(space);
    space->meta_unsynced = true;
    space_unlock(space);
    return rc;
}
