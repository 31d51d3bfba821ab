/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commit.c: the steps of a commit. Closing a generation encodes the dirty pages into one buffer and is the only step
 * that stops others; writing and syncing it goes on beside the next generation. Files are marked as unsynced after
 * they were written, and the mark is taken before they are synced, so a write of the next generation that comes in
 * between is synced again then.
 */
#include <stdlib.h>

#include "space/internal.h"

/* ---- Close and write --------------------------------------------------------------------------- */

static void fill_batch(struct cow_space *space, uint8_t *batch)
{
    struct cow_batch header = {
        .generation = space->open_generation,
        .page_count = (uint32_t)space->dirty_count,
        .sequence = space->journal_sequence,
    };
    cow_batch_encode(&header, batch);
    uint64_t at = COW_PAGE_BYTES;
    while (space->dirty.next != &space->dirty) {
        struct space_page *page = space->dirty.next;
        struct cow_page_id id = space_page_id(page);
        cow_page_encode(&id, space->open_generation, space_body(page), batch + at);
        space_page_closed(space, page, space->open_generation, space->state.journal_bytes + at);
        at += COW_PAGE_BYTES;
    }
    COW_ASSERT(at == space->batch_bytes);
}

int cow_space_commit_close(struct cow_space *space, struct cow_space_state *state_out)
{
    space_lock(space);
    COW_ASSERT(!space->committing && !space->readonly && space->batch == NULL);
    if (space->open_generation >= COW_GENERATION_MAX) {
        space_unlock(space);
        return cow_fail(EOVERFLOW, "all generations are used up");
    }
    if (space->dirty_count != 0) {
        size_t batch_bytes = (space->dirty_count + 1) * COW_PAGE_BYTES;
        space->batch = malloc(batch_bytes);
        if (space->batch == NULL) {
            space_unlock(space);
            return cow_fail(ENOMEM, "journal batch of %zu bytes", batch_bytes);
        }
        space->batch_bytes = batch_bytes;
        space->batch_half = space->state.journal_half;
        space->batch_offset = space->state.journal_bytes;
        fill_batch(space, space->batch);
        space->state.journal_bytes += batch_bytes;
        space->journal_sequence++;
    }
    space_hint_flush(space);
    space->batch_generation = space->open_generation++;
    space->nodes_pending_new = 0;
    space->committing = true;
    *state_out = space->state;
    space_unlock(space);
    return 0;
}

int cow_space_commit_write(struct cow_space *space)
{
    struct cow_dev_file *file = NULL;
    space_lock(space);
    COW_ASSERT(space->committing);
    int rc = space->batch == NULL ? 0 : space_journal_file(space, space->batch_half, &file);
    space_unlock(space);
    if (rc != 0 || file == NULL) return rc;
    rc = cow_dev_write(file, space->batch_offset, space->batch, space->batch_bytes);
    space_lock(space);
    space->journal_unsynced[space->batch_half] = true;
    uint64_t end = space->batch_offset + space->batch_bytes;
    if (rc == 0 && space->journal_reserved[space->batch_half] < end) space->journal_reserved[space->batch_half] = end;
    space_unlock(space);
    return rc;
}

/* ---- Sync -------------------------------------------------------------------------------------- */

static bool take_mark(struct cow_space *space, bool *mark)
{
    space_lock(space);
    bool was = *mark;
    *mark = false;
    space_unlock(space);
    return was;
}

static int sync_segments(struct cow_space *space)
{
    int rc = 0;
    space_lock(space);
    struct space_file *list = space->sync_list;
    space->sync_list = NULL;
    while (list != NULL) {
        struct space_file *file = list;
        list = file->sync_next;
        file->unsynced = false;
        if (rc == 0) {
            file->users++;
            space_unlock(space);
            rc = cow_dev_sync(file->file);
            space_lock(space);
            file->users--;
        }
        if (rc != 0) space_file_written(space, file);
    }
    space_unlock(space);
    return rc;
}

int cow_space_commit_sync(struct cow_space *space)
{
    static const char *const folders[3] = {"segments", "space", ""};
    bool *const marks[3] = {&space->segments_unsynced, &space->space_unsynced, &space->top_unsynced};
    int rc = sync_segments(space);
    if (rc == 0 && take_mark(space, &space->meta_unsynced)) rc = cow_dev_sync(space->meta);
    for (int half = 0; rc == 0 && half < 2; half++) {
        if (take_mark(space, &space->journal_unsynced[half])) rc = cow_dev_sync(space->journal[half]);
    }
    for (int i = 0; rc == 0 && i < 3; i++) {
        if (take_mark(space, marks[i])) rc = space->dev->ops->sync_dir(space->dev, folders[i]);
    }
    return rc;
}

/* ---- Done -------------------------------------------------------------------------------------- */

/* Whether all of the run was released as the hint says and is free still; it is not reusable yet, so it stays free. */
static bool still_released(struct cow_space *space, const struct space_hint *hint)
{
    uint32_t segment = cow_addr_segment(hint->addr);
    struct space_page *page;
    struct cow_segment_entry *entry;
    if (hint->generation <= space->reusable) return false;
    if (space_entry_get(space, segment, &page, &entry) != 0 || entry->state != COW_SEGMENT_LIVE) return false;
    for (uint32_t i = 0; i < hint->count; i++) {
        uint32_t block = cow_addr_block(hint->addr) + i;
        uint32_t chunk = block >> COW_CHUNK_SHIFT, slot = block & (COW_CHUNK_BLOCKS - 1);
        struct space_page *chunk_page, *record_page;
        if (space_page_get(space, space_chunk_key(segment, chunk), &chunk_page) != 0) return false;
        if (space_page_get(space, space_record_key(segment, chunk), &record_page) != 0) return false;
        const struct cow_record_page *records = space_records(record_page);
        int32_t add = space_chunks(chunk_page)->add[chunk % COW_CHUNKS_PER_PAGE];
        if (records->generation[slot] != hint->generation) return false;
        if (!space_block_free(records, add, slot, hint->generation)) return false;
    }
    return true;
}

/* With the lock, which it gives up while the host works. Failures do not matter: the blocks are just not given back. */
static void punch(struct cow_space *space, const struct space_hint *hint)
{
    struct space_file *file;
    uint64_t length = (uint64_t)hint->count * COW_BLOCK_BYTES;
    if (space_file_get(space, SPACE_DATA, cow_addr_segment(hint->addr), 0, &file) != 0) return;
    file->users++;
    space_unlock(space);
    int rc = file->file->dev->ops->punch(file->file, (uint64_t)cow_addr_block(hint->addr) * COW_BLOCK_BYTES, length);
    space_lock(space);
    file->users--;
    if (rc == 0) space_count(&space->counters.punched_bytes, length);
}

static void punch_released(struct cow_space *space, uint64_t reusable)
{
    space_lock(space);
    uint32_t count = space->hint_count, kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct space_hint hint = space->hints[i];
        if (hint.generation > reusable) {
            space->hints[kept++] = hint;
            continue;
        }
        space->epoch++;
        if (still_released(space, &hint)) punch(space, &hint);
    }
    for (uint32_t i = count; i < space->hint_count; i++) space->hints[kept++] = space->hints[i];
    space->hint_count = kept;
    space_unlock(space);
}

int cow_space_commit_done(struct cow_space *space, uint64_t durable, uint64_t pinned)
{
    uint64_t reusable = durable < pinned ? durable : pinned;
    space_lock(space);
    COW_ASSERT(!space->readonly);
    COW_ASSERT(durable == (space->committing ? space->batch_generation : space->durable));
    free(space->batch);
    space->batch = NULL;
    space->durable = durable;
    space_unlock(space);
    punch_released(space, reusable);
    space_lock(space);
    space->reusable = reusable;
    if (reusable == durable) {
        space->nodes_pending = space->nodes_pending_new;
        space->nodes_pending_known = true;
        space->data_pending = 0; /* but for what the open generation released meanwhile: it is only a hint */
    }
    space_want_commit(space, false);
    bool full = space->checkpoint_early || space->state.journal_bytes > (uint64_t)space->journal_pages * COW_PAGE_BYTES;
    space_unlock(space);
    int rc = space_dead_remove(space);
    int rc_checkpoint = full ? space_checkpoint(space) : 0;
    space_lock(space);
    space->committing = false;
    space->checkpoint_early = false;
    space_unlock(space);
    return rc != 0 ? rc : rc_checkpoint;
}
