/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rebuild.c: makes the records fit a walk (repair). Segment by segment the table entry is set right first, then each
 * chunk whose counts or minimum differ, or whose page was lost, is written anew from the counts that the walk expects.
 * Blocks that become free are released in the open generation, so nothing of the last commit is reused before the next
 * one is durable; blocks in use whose birth is not known count as old. Only pages that change become dirty. A damaged
 * journal is left behind: the next batch starts the other half and holds every page whose home is not up to date.
 */
#include <stdio.h>
#include <stdlib.h>

#include "space/check.h"

struct fix {
    struct cow_space_check *check;
    struct cow_space_rebuild *rebuild;
    cow_addr unverified; /* the run that grows now */
    uint32_t unverified_count;
};

static void flush_unverified(struct fix *fix)
{
    if (fix->unverified_count == 0) return;
    fix->rebuild->unverified_blocks += fix->unverified_count;
    if (fix->rebuild->unverified != NULL)
        fix->rebuild->unverified(fix->rebuild->context, fix->unverified, fix->unverified_count);
    fix->unverified_count = 0;
}

static void add_unverified(struct fix *fix, cow_addr addr)
{
    if (fix->unverified_count != 0 && fix->unverified + fix->unverified_count == addr) {
        fix->unverified_count++;
        return;
    }
    flush_unverified(fix);
    fix->unverified = addr;
    fix->unverified_count = 1;
}

/* ---- Chunks ------------------------------------------------------------------------------------ */

struct counts {
    uint64_t expected[COW_CHUNK_BLOCKS];
    uint64_t used;
};

static void expect_chunk(struct fix *fix, uint32_t segment, uint64_t first, uint64_t block_count, struct counts *counts)
{
    counts->used = 0;
    for (uint32_t i = 0; i < COW_CHUNK_BLOCKS; i++) {
        bool exists = first + i < block_count && (segment != 0 || first + i >= SPACE_META_FIRST);
        counts->expected[i] = exists ? space_check_expected(fix->check, cow_addr_make(segment, (uint32_t)first + i)) : 0;
        counts->used += counts->expected[i] != 0;
    }
}

static void set_counts(struct cow_space *space, struct space_page *chunk_page, struct space_page *record_page,
                       uint32_t slot, const struct counts *counts)
{
    struct cow_record_page *records = space_records(record_page);
    struct cow_chunk_page *chunks = space_chunks(chunk_page);
    int64_t was_add = record_page->lost || chunk_page->lost ? 0 : chunks->add[slot];
    int32_t min = INT32_MAX;
    for (uint32_t i = 0; i < COW_CHUNK_BLOCKS; i++) {
        bool in_use = counts->expected[i] != 0, was_used = was_add + records->refs[i] > 0;
        records->refs[i] = (int32_t)counts->expected[i];
        if (records->refs[i] < min) min = records->refs[i];
        if (record_page->lost || in_use != was_used)
            records->generation[i] = in_use ? space->durable : space->open_generation;
    }
    chunks->add[slot] = 0;
    chunks->min[slot] = min;
    space_page_dirty(space, record_page);
    space_page_dirty(space, chunk_page);
}

/* Checksums of blocks in use on a doubtful page: those that the medium contradicts are taken from it. */
static int renew_sums(struct fix *fix, uint32_t segment, uint32_t first, struct space_page *record_page,
                      const struct counts *counts)
{
    struct cow_space *space = fix->check->space;
    struct cow_record_page *records = space_records(record_page);
    for (uint32_t i = 0; i < COW_CHUNK_BLOCKS; i++) {
        cow_addr addr = cow_addr_make(segment, first + i);
        uint64_t hash;
        if (counts->expected[i] == 0 || records->generation[i] == space->open_generation) continue;
        int rc = space_hash_medium(space, addr, &hash);
        if (rc == -COW_EDAMAGE) continue; /* nothing there: it goes on failing */
        if (rc != 0) return rc;
        if (records->sum[i] == hash) continue;
        records->sum[i] = hash;
        add_unverified(fix, addr);
        space_page_dirty(space, record_page);
    }
    return 0;
}

static int fix_chunk(struct fix *fix, uint32_t segment, uint32_t index, const struct counts *counts)
{
    struct cow_space *space = fix->check->space;
    struct space_page *chunk_page, *record_page;
    uint32_t first = index << COW_CHUNK_SHIFT, slot = index % COW_CHUNKS_PER_PAGE;
    space->epoch++;
    int rc = space_page_get(space, space_chunk_key(segment, index), &chunk_page);
    if (rc == 0) rc = space_page_get(space, space_record_key(segment, index), &record_page);
    if (rc != 0) return rc;
    const struct cow_record_page *records = space_records(record_page);
    const struct cow_chunk_page *chunks = space_chunks(chunk_page);
    bool doubtful = space_page_doubtful(space, record_page);
    uint32_t wrong = 0;
    int32_t min = INT32_MAX;
    for (uint32_t i = 0; i < COW_CHUNK_BLOCKS; i++) {
        wrong += (int64_t)chunks->add[slot] + records->refs[i] != (int64_t)counts->expected[i];
        if (records->refs[i] < min) min = records->refs[i];
    }
    bool damaged = (record_page->lost || chunk_page->lost) && counts->used != 0;
    if (damaged || wrong != 0 || min != chunks->min[slot]) {
        space_check_report(fix->check, cow_addr_make(segment, first), COW_CHUNK_BLOCKS, damaged,
                           damaged ? "segment %u chunk %u: its records were lost, %u counts made anew"
                                   : "segment %u chunk %u: %u counts were wrong",
                           segment, index, wrong);
        set_counts(space, chunk_page, record_page, slot, counts);
    } else if (record_page->lost) {
        set_counts(space, chunk_page, record_page, slot, counts);
    }
    if (doubtful) rc = renew_sums(fix, segment, first, record_page, counts);
    record_page->lost = false;
    return rc;
}

/* A chunk page stays lost until all its chunks were made anew. */
static int fix_segment(struct fix *fix, uint32_t segment, uint64_t block_count, uint64_t *used_out)
{
    struct cow_space *space = fix->check->space;
    uint64_t used = 0;
    space_check_skip_to(fix->check, cow_addr_make(segment, 0));
    for (uint64_t first = 0; first < block_count; first += COW_CHUNK_BLOCKS) {
        struct counts counts;
        uint32_t index = (uint32_t)(first >> COW_CHUNK_SHIFT);
        expect_chunk(fix, segment, first, block_count, &counts);
        space_lock(space);
        int rc = fix_chunk(fix, segment, index, &counts);
        struct space_page *page = space_page_find(space, space_chunk_key(segment, index));
        bool last = index % COW_CHUNKS_PER_PAGE == COW_CHUNKS_PER_PAGE - 1 || first + COW_CHUNK_BLOCKS >= block_count;
        if (rc == 0 && last && page != NULL) page->lost = false;
        space_unlock(space);
        if (rc != 0) return rc;
        used += counts.used;
    }
    flush_unverified(fix);
    *used_out = used;
    return 0;
}

/* ---- The table --------------------------------------------------------------------------------- */

static uint64_t file_blocks(struct cow_space *space, uint32_t segment)
{
    struct space_file *file;
    uint64_t bytes = 0;
    if (space_file_get(space, SPACE_DATA, segment, 0, &file) != 0) return 0;
    if (file->file->dev->ops->size(file->file, &bytes) != 0) return 0;
    uint64_t blocks = bytes / COW_BLOCK_BYTES;
    return blocks < COW_SEGMENT_BLOCKS_MAX ? blocks : COW_SEGMENT_BLOCKS_MAX;
}

/* An entry that does not have all that is referred to, or was lost: made from what refers to it and from its file. */
static int fix_entry(struct fix *fix, uint32_t segment, struct cow_segment_entry *entry_out)
{
    struct cow_space *space = fix->check->space;
    struct space_page *page;
    struct cow_segment_entry *entry;
    uint64_t end = space_check_end_of(fix->check, segment);
    space_lock(space);
    int rc = space_entry_get(space, segment, &page, &entry);
    if (rc == 0) {
        bool wrong = end != 0 && (entry->state != COW_SEGMENT_LIVE || entry->block_count < end);
        bool lost = page->lost && entry->state == COW_SEGMENT_FREE;
        if (wrong || lost) {
            uint64_t blocks = file_blocks(space, segment);
            if (blocks < end) blocks = end;
            blocks = (blocks + COW_CHUNK_BLOCKS - 1) / COW_CHUNK_BLOCKS * COW_CHUNK_BLOCKS;
            if (blocks != 0) {
                *entry = (struct cow_segment_entry){.kind = COW_SEGMENT_PACKED, .state = COW_SEGMENT_LIVE,
                                                    .block_count = (uint32_t)blocks};
                space_page_dirty(space, page);
                space_check_report(fix->check, cow_addr_make(segment, 0), blocks, true,
                                   "segment %u: its table entry was lost", segment);
            }
        }
        if (segment % COW_SEGMENTS_PER_PAGE == COW_SEGMENTS_PER_PAGE - 1 || segment + 1 == space->state.next_segment)
            page->lost = false;
        *entry_out = *entry;
    }
    space_unlock(space);
    return rc;
}

/* A file that is missing or cut short gets its length again; what was in it goes on failing. */
static int fix_file(struct fix *fix, uint32_t segment, uint32_t block_count)
{
    struct cow_space *space = fix->check->space;
    struct space_file *file;
    uint64_t bytes = 0, wanted = (uint64_t)block_count * COW_BLOCK_BYTES;
    space_lock(space);
    int rc = space_file_get(space, SPACE_DATA, segment, 0, &file);
    bool missing = rc == -COW_EDAMAGE;
    if (missing) rc = space_file_get(space, SPACE_DATA, segment, COW_DEV_CREATE, &file);
    if (rc == 0) rc = file->file->dev->ops->size(file->file, &bytes);
    if (rc == 0 && bytes < wanted) {
        space_check_report(fix->check, cow_addr_make(segment, (uint32_t)(bytes / COW_BLOCK_BYTES)),
                           (wanted - bytes) / COW_BLOCK_BYTES, false, "segment %u: its file %s", segment,
                           missing ? "was missing" : "was cut short");
        rc = space_reserve(file->file, bytes, wanted - bytes);
        if (rc == 0) space_file_written(space, file);
    }
    space_unlock(space);
    return rc;
}

static int fix_data_segment(struct fix *fix, uint32_t segment, uint64_t *data_blocks)
{
    struct cow_space *space = fix->check->space;
    struct cow_segment_entry entry;
    uint64_t used = 0;
    int rc = fix_entry(fix, segment, &entry);
    if (rc != 0 || entry.state != COW_SEGMENT_LIVE) return rc;
    rc = fix_file(fix, segment, entry.block_count);
    if (rc == 0) rc = fix_segment(fix, segment, entry.block_count, &used);
    if (rc != 0) return rc;
    *data_blocks += used;
    space_lock(space);
    struct space_page *page;
    struct cow_segment_entry *now;
    rc = space_entry_get(space, segment, &page, &now);
    bool dies = used == 0 && entry.kind == COW_SEGMENT_WHOLE;
    if (rc == 0 && (now->used_blocks != used || dies)) {
        if (now->used_blocks != used)
            space_check_report(fix->check, 0, 0, false, "segment %u: %u blocks in use by its entry, %llu counted", segment,
                               now->used_blocks, (unsigned long long)used);
        now->used_blocks = (uint32_t)used;
        if (dies) {
            now->state = COW_SEGMENT_DEAD;
            now->generation = space->open_generation;
        }
        space_page_dirty(space, page);
    }
    space_unlock(space);
    return rc;
}

/* ---- All --------------------------------------------------------------------------------------- */

static void leave_journal(struct cow_space *space)
{
    for (size_t i = 0; i < (size_t)1 << (64 - space->bucket_shift); i++) {
        for (struct space_page *page = space->buckets[i]; page != NULL; page = page->hash_next) {
            if (page->behind) space_page_dirty(space, page);
        }
    }
    space->state.journal_half ^= 1;
    space->state.journal_bytes = 0;
    space->journal_sequence = 0;
    space->journal_damaged = false;
}

static int fix_totals(struct fix *fix, uint64_t node_blocks, uint64_t data_blocks)
{
    struct cow_space *space = fix->check->space;
    space_lock(space);
    struct cow_space_state *state = &space->state;
    if (state->node_blocks != node_blocks || state->data_blocks != data_blocks)
        space_check_report(fix->check, 0, 0, false, "%llu nodes and %llu data blocks by the superblock, %llu and %llu counted",
                           (unsigned long long)state->node_blocks, (unsigned long long)state->data_blocks,
                           (unsigned long long)node_blocks, (unsigned long long)data_blocks);
    state->node_blocks = node_blocks;
    state->data_blocks = data_blocks;
    space->nodes_pending_known = false;
    space->nodes_pending_new = 0;
    space->hint_count = 0;
    space->hint.count = 0;
    space->dead_count = 0;
    state->dead_segments = UINT32_MAX; /* look at all */
    int rc = space_dead_scan(space);
    state->dead_segments = space->dead_count;
    if (rc == -COW_EDAMAGE) rc = 0; /* there are not so many, of course */
    struct space_page *page;
    struct cow_segment_entry *entry;
    if (rc == 0 && state->packed_segment != 0) {
        rc = space_entry_get(space, state->packed_segment, &page, &entry);
        if (rc == 0 && (entry->state != COW_SEGMENT_LIVE || entry->kind != COW_SEGMENT_PACKED)) state->packed_segment = 0;
    }
    if (rc == 0 && space->journal_damaged) leave_journal(space);
    space_unlock(space);
    return rc;
}

int cow_space_rebuild(struct cow_space_check *check, struct cow_space_rebuild *rebuild)
{
    struct fix fix = {.check = check, .rebuild = rebuild};
    struct cow_space *space = check->space;
    uint64_t node_blocks = 0, data_blocks = 0;
    COW_ASSERT(space->salvage && !space->readonly);
    check->problem = rebuild->problem;
    check->context = rebuild->context;
    int rc = space_check_fold(check);
    if (rc == 0) rc = fix_segment(&fix, 0, space->state.meta_blocks, &node_blocks);
    for (uint32_t segment = 1; rc == 0 && segment < space->state.next_segment; segment++)
        rc = fix_data_segment(&fix, segment, &data_blocks);
    if (rc == 0) {
        space_check_skip_to(check, UINT64_MAX);
        rc = fix_totals(&fix, node_blocks, data_blocks);
    }
    rebuild->errors = check->errors;
    cow_space_check_cancel(check);
    return rc;
}

int cow_space_spoil(struct cow_space *space, cow_addr addr)
{
    static const uint8_t zeros[COW_BLOCK_BYTES];
    uint32_t block = cow_addr_block(addr);
    int rc = cow_space_write(space, addr, 1, zeros);
    if (rc != 0) return rc;
    space_lock(space);
    struct space_page *page = space_page_held(space, space_record_key(cow_addr_segment(addr), block >> COW_CHUNK_SHIFT));
    space_records(page)->sum[block & (COW_CHUNK_BLOCKS - 1)] ^= 1;
    space_unlock(space);
    return 0;
}
