/* SPDX-License-Identifier: Apache-2.0 */
/*
 * space.c: opening and closing, and the few numbers that others ask for. Opening costs a read of the journal half that
 * the superblock names; everything else is read when it is needed.
 */
#include <stdlib.h>

#include "space/internal.h"

static int make_folders(struct cow_space *space)
{
    int rc = space->dev->ops->make_dir(space->dev, "segments");
    if (rc == 0) rc = space->dev->ops->make_dir(space->dev, "space");
    space->top_unsynced = true;
    space->segments_unsynced = true;
    space->space_unsynced = true;
    return rc;
}

static int table_size(struct cow_space *space)
{
    struct space_file *file;
    int rc = space_file_get(space, SPACE_TABLE, 0, 0, &file);
    if (rc == -ENOENT) return 0;
    return rc != 0 ? rc : file->file->dev->ops->size(file->file, &space->table_reserved);
}

static int open_files(struct cow_space *space)
{
    bool fresh = space->durable == 0 && !space->readonly;
    int rc = fresh ? make_folders(space) : 0;
    if (rc == 0) rc = cow_dev_open(space->dev, "meta", fresh ? COW_DEV_CREATE : 0, &space->meta);
    if (rc == 0 && fresh) {
        rc = space_reserve(space->meta, 0, SPACE_META_FIRST * (uint64_t)COW_BLOCK_BYTES);
        space->meta_unsynced = true;
    }
    if (rc == 0) rc = space_journal_recover(space);
    if (rc == 0 && !space->readonly) rc = table_size(space);
    if (rc == 0 && !space->readonly) rc = space_dead_scan(space);
    if (rc == -COW_EDAMAGE && space->salvage) rc = 0; /* rebuild makes the list anew */
    return rc;
}

static int open_space(struct cow_dev *dev, const struct cow_space_state *state, uint64_t durable, uint64_t cache_bytes,
                      bool salvage, struct cow_space **space_out)
{
    struct cow_space *space = calloc(1, sizeof *space);
    if (space == NULL) return cow_fail(ENOMEM, "space");
    if (pthread_mutex_init(&space->lock, NULL) != 0) {
        free(space);
        return cow_fail(ENOMEM, "space");
    }
    space->dev = dev;
    space->readonly = dev->readonly;
    space->salvage = salvage;
    space->state = *state;
    space->durable = durable;
    space->open_generation = durable + 1;
    space->journal_pages = SPACE_JOURNAL_PAGES;
    space->released_since_trim = true; /* by sessions before this one */
    space_lock(space);
    int rc = space_cache_init(space, cache_bytes);
    if (rc == 0) rc = open_files(space);
    space_unlock(space);
    if (rc != 0) {
        cow_space_close(space);
        return rc;
    }
    *space_out = space;
    return 0;
}

int cow_space_open(struct cow_dev *dev, const struct cow_space_state *state, uint64_t durable, uint64_t cache_bytes,
                   struct cow_space **space_out)
{
    return open_space(dev, state, durable, cache_bytes, false, space_out);
}

int cow_space_open_salvage(struct cow_dev *dev, const struct cow_space_state *state, uint64_t durable,
                           uint64_t cache_bytes, struct cow_space **space_out)
{
    return open_space(dev, state, durable, cache_bytes, true, space_out);
}

bool cow_space_journal_damaged(struct cow_space *space) { return space->journal_damaged; }

void cow_space_close(struct cow_space *space)
{
    if (space == NULL) return;
    space_files_close(space);
    cow_dev_close(space->meta);
    cow_dev_close(space->journal[0]);
    cow_dev_close(space->journal[1]);
    space_cache_deinit(space);
    free(space->scans);
    free(space->dead);
    free(space->batch);
    pthread_mutex_destroy(&space->lock);
    free(space);
}

void cow_space_set_journal_pages(struct cow_space *space, uint32_t pages)
{
    space_lock(space);
    space->journal_pages = pages;
    space_unlock(space);
}

const struct cow_space_counters *cow_space_counters(struct cow_space *space) { return &space->counters; }

uint64_t cow_space_cached_bytes(struct cow_space *space) { return cow_counted(&space->page_bytes); }

uint64_t cow_space_dirty_pages(struct cow_space *space) { return cow_counted(&space->dirty_count); }

void cow_space_get_state(struct cow_space *space, struct cow_space_state *state_out)
{
    space_lock(space);
    *state_out = space->state;
    space_unlock(space);
}

struct cow_dev_file *cow_space_meta_file(struct cow_space *space) { return space->meta; }
