/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment.c: host files and the segment table. Open files are kept in a small hash table, at most SPACE_FILES_MAX of
 * them beyond those in use or not yet synced. A new segment gets an emptied data file and an emptied home file of
 * its records, both reserved for the blocks that exist, so that neither data written to allocated blocks nor a
 * checkpoint needs host space later. Ids are never used twice, but for those that no commit got to know. A whole-file
 * segment without used blocks is dead: its files go when the commit that says so is durable and unpinned, and then its
 * table entry is cleared in the open generation.
 */
#include <stdio.h>
#include <stdlib.h>

#include "space/internal.h"

/* ---- Host files -------------------------------------------------------------------------------- */

static uint64_t file_key(enum space_file_kind kind, uint32_t segment) { return (uint64_t)kind << 32 | segment; }

static struct space_file **file_bucket(struct cow_space *space, uint64_t key)
{
    return &space->files[(key * 0x9e3779b97f4a7c15u) >> 54];
}

static struct space_file *file_find(struct cow_space *space, uint64_t key)
{
    struct space_file *file = *file_bucket(space, key);
    while (file != NULL && file->key != key) file = file->hash_next;
    return file;
}

static void file_close(struct cow_space *space, struct space_file *file)
{
    struct space_file **link = file_bucket(space, file->key);
    while (*link != file) link = &(*link)->hash_next;
    *link = file->hash_next;
    space->file_count--;
    cow_dev_close(file->file);
    free(file);
}

/* Closes one that nobody uses, if there is one. */
static void evict_file(struct cow_space *space)
{
    for (uint32_t step = 0; step < 2 * SPACE_FILE_BUCKETS; step++) {
        space->file_hand = (space->file_hand + 1) % SPACE_FILE_BUCKETS;
        for (struct space_file *file = space->files[space->file_hand]; file != NULL; file = file->hash_next) {
            if (file->users == 0 && !file->unsynced && !file->referenced) {
                file_close(space, file);
                return;
            }
            file->referenced = false;
        }
    }
}

void space_file_name(enum space_file_kind kind, uint32_t segment, char name[32])
{
    if (kind == SPACE_TABLE) {
        snprintf(name, 32, "space/table");
    } else {
        snprintf(name, 32, "%s/%08x", kind == SPACE_DATA ? "segments" : "space", segment);
    }
}

int space_file_get(struct cow_space *space, enum space_file_kind kind, uint32_t segment, unsigned flags,
                   struct space_file **file_out)
{
    struct space_file *file = file_find(space, file_key(kind, segment));
    if (file != NULL && flags == 0) {
        file->referenced = true;
        *file_out = file;
        return 0;
    }
    if (file != NULL && (flags & COW_DEV_TRUNCATE) == 0) {
        *file_out = file;
        return 0;
    }
    COW_ASSERT(file == NULL);
    if (space->file_count >= SPACE_FILES_MAX) evict_file(space);
    file = calloc(1, sizeof *file);
    if (file == NULL) return cow_fail(ENOMEM, "open file");
    char name[32];
    space_file_name(kind, segment, name);
    int rc = cow_dev_open(space->dev, name, flags, &file->file);
    if (rc != 0) {
        free(file);
        /* Data files are there as long as their segment is. */
        return rc == -ENOENT && kind == SPACE_DATA ? cow_fail(COW_EDAMAGE, "segment %u: its file is missing", segment) : rc;
    }
    if ((flags & COW_DEV_CREATE) != 0) {
        *(kind == SPACE_DATA ? &space->segments_unsynced : &space->space_unsynced) = true;
    }
    file->key = file_key(kind, segment);
    file->referenced = true;
    struct space_file **bucket = file_bucket(space, file->key);
    file->hash_next = *bucket;
    *bucket = file;
    space->file_count++;
    *file_out = file;
    return 0;
}

void space_file_written(struct cow_space *space, struct space_file *file)
{
    if (file->unsynced) return;
    file->unsynced = true;
    file->sync_next = space->sync_list;
    space->sync_list = file;
}

int space_file_forget(struct cow_space *space, enum space_file_kind kind, uint32_t segment)
{
    struct space_file *file = file_find(space, file_key(kind, segment));
    if (file == NULL) return 0;
    if (file->users != 0) return -EBUSY;
    for (struct space_file **link = &space->sync_list; file->unsynced && *link != NULL; link = &(*link)->sync_next) {
        if (*link == file) {
            *link = file->sync_next;
            break;
        }
    }
    file_close(space, file);
    return 0;
}

void space_files_close(struct cow_space *space)
{
    for (uint32_t i = 0; i < SPACE_FILE_BUCKETS; i++) {
        while (space->files[i] != NULL) file_close(space, space->files[i]);
    }
}

/* ---- The table --------------------------------------------------------------------------------- */

static uint64_t table_key(uint32_t segment)
{
    return space_key(COW_PAGE_SEGMENTS, 0, segment / COW_SEGMENTS_PER_PAGE);
}

int space_entry_get(struct cow_space *space, uint32_t segment, struct space_page **page_out,
                    struct cow_segment_entry **entry_out)
{
    int rc = space_page_get(space, table_key(segment), page_out);
    if (rc == 0) *entry_out = space_entry(*page_out, segment);
    return rc;
}

int space_range_check(struct cow_space *space, uint32_t segment, uint32_t block, uint32_t count)
{
    uint64_t first = 0, end = 0;
    if (segment == 0) {
        first = SPACE_META_FIRST;
        end = space->state.meta_blocks;
    } else if (segment < space->state.next_segment) {
        struct space_page *page;
        struct cow_segment_entry *entry;
        int rc = space_entry_get(space, segment, &page, &entry);
        if (rc != 0) return rc;
        if (entry->state == COW_SEGMENT_LIVE) end = entry->block_count;
    }
    if (block < first || (uint64_t)block + count > end) {
        return cow_fail(COW_EDAMAGE, "segment %u block %u (%u blocks) does not exist", segment, block, count);
    }
    return 0;
}

void space_used_add(struct cow_space *space, uint32_t segment, uint32_t blocks)
{
    space_count(&space->counters.blocks_allocated, blocks);
    if (segment == 0) {
        space->state.node_blocks += blocks;
        return;
    }
    struct space_page *page = space_page_held(space, table_key(segment));
    struct cow_segment_entry *entry = space_entry(page, segment);
    entry->used_blocks += blocks;
    COW_ASSERT(entry->state == COW_SEGMENT_LIVE && entry->used_blocks <= entry->block_count);
    space->state.data_blocks += blocks;
    space_page_dirty(space, page);
}

void space_used_sub(struct cow_space *space, uint32_t segment, uint32_t blocks)
{
    space_count(&space->counters.blocks_freed, blocks);
    if (segment == 0) {
        COW_ASSERT(space->state.node_blocks >= blocks);
        space->state.node_blocks -= blocks;
        return;
    }
    struct space_page *page = space_page_held(space, table_key(segment));
    struct cow_segment_entry *entry = space_entry(page, segment);
    COW_ASSERT(entry->used_blocks >= blocks && space->state.data_blocks >= blocks);
    entry->used_blocks -= blocks;
    space->state.data_blocks -= blocks;
    space_page_dirty(space, page);
    if (entry->used_blocks != 0 || entry->kind != COW_SEGMENT_WHOLE) return;
    entry->state = COW_SEGMENT_DEAD;
    entry->generation = space->open_generation;
    space->state.dead_segments++;
    COW_ASSERT(space->dead_count < space->dead_capacity);
    space->dead[space->dead_count++] = (struct space_dead){segment, space->open_generation};
}

/* ---- Making and growing segments --------------------------------------------------------------- */

/* Length of a home file that has room for the records of the first block_count blocks. */
static uint64_t home_bytes(uint64_t block_count)
{
    if (block_count == 0) return 0;
    uint32_t last = (uint32_t)((block_count - 1) >> COW_CHUNK_SHIFT);
    return cow_page_home_offset(COW_PAGE_RECORDS, last) + COW_PAGE_BYTES;
}

static int reserve_part(struct cow_dev_file *file, uint64_t from, uint64_t to)
{
    return to > from ? space_reserve(file, from, to - from) : 0;
}

static int reserve_home(struct cow_space *space, uint32_t segment, unsigned flags, uint64_t old_count, uint64_t count)
{
    struct space_file *file;
    int rc = space_file_get(space, SPACE_HOME, segment, flags, &file);
    return rc != 0 ? rc : reserve_part(file->file, home_bytes(old_count), home_bytes(count));
}

static int reserve_table(struct cow_space *space, uint32_t segment)
{
    uint64_t end = cow_page_home_offset(COW_PAGE_SEGMENTS, segment / COW_SEGMENTS_PER_PAGE) + COW_PAGE_BYTES;
    if (end <= space->table_reserved) return 0;
    struct space_file *file;
    int rc = space_file_get(space, SPACE_TABLE, 0, COW_DEV_CREATE, &file);
    if (rc == 0) rc = space_reserve(file->file, 0, end);
    if (rc == 0) space->table_reserved = end;
    return rc;
}

static int make_files(struct cow_space *space, uint32_t segment, uint32_t block_count)
{
    struct space_file *data;
    int rc = space_file_forget(space, SPACE_DATA, segment); /* of an attempt that failed */
    if (rc == 0) rc = space_file_forget(space, SPACE_HOME, segment);
    if (rc == 0) rc = reserve_table(space, segment);
    if (rc == 0) rc = space_file_get(space, SPACE_DATA, segment, COW_DEV_CREATE | COW_DEV_TRUNCATE, &data);
    if (rc != 0) return rc;
    rc = space_reserve(data->file, 0, (uint64_t)block_count * COW_BLOCK_BYTES);
    if (rc == 0) space_file_written(space, data);
    if (rc == 0) rc = reserve_home(space, segment, COW_DEV_CREATE | COW_DEV_TRUNCATE, 0, block_count);
    return rc;
}

static void unmake_files(struct cow_space *space, uint32_t segment)
{
    for (int kind = SPACE_DATA; kind <= SPACE_HOME; kind++) {
        char name[32];
        space_file_name((enum space_file_kind)kind, segment, name);
        if (space_file_forget(space, (enum space_file_kind)kind, segment) != 0) continue;
        (void)space->dev->ops->remove(space->dev, name); /* else it is emptied when the id comes up again */
    }
}

int space_segment_new(struct cow_space *space, enum cow_segment_kind kind, uint32_t block_count, uint32_t *segment_out)
{
    uint32_t segment = space->state.next_segment;
    struct space_page *page;
    struct cow_segment_entry *entry;
    if (segment == UINT32_MAX) return cow_fail(ENOSPC, "all segment ids are used up");
    int rc = space_entry_get(space, segment, &page, &entry);
    if (rc != 0) return rc;
    if (entry->state != COW_SEGMENT_FREE) return cow_fail(COW_EDAMAGE, "segment %u exists already", segment);
    rc = make_files(space, segment, block_count);
    if (rc != 0) {
        int code = -rc;
        unmake_files(space, segment);
        return cow_fail(code, "making segment %u of %u blocks", segment, block_count);
    }
    *entry = (struct cow_segment_entry){.kind = (uint8_t)kind, .state = COW_SEGMENT_LIVE, .block_count = block_count};
    space_page_dirty(space, page);
    space->state.next_segment++;
    *segment_out = segment;
    return 0;
}

int space_segment_grow(struct cow_space *space, uint32_t segment, uint32_t block_count)
{
    struct space_page *page;
    struct cow_segment_entry *entry;
    struct space_file *data;
    int rc = space_entry_get(space, segment, &page, &entry);
    if (rc == 0) rc = space_file_get(space, SPACE_DATA, segment, 0, &data);
    if (rc != 0) return rc;
    COW_ASSERT(block_count <= COW_SEGMENT_BLOCKS_MAX && block_count > entry->block_count);
    rc = reserve_part(data->file, (uint64_t)entry->block_count * COW_BLOCK_BYTES,
                      (uint64_t)block_count * COW_BLOCK_BYTES);
    if (rc == 0) rc = reserve_home(space, segment, COW_DEV_CREATE, entry->block_count, block_count);
    if (rc != 0) return rc;
    rc = space_file_get(space, SPACE_DATA, segment, 0, &data); /* it may have been closed meanwhile */
    if (rc != 0) return rc;
    space_file_written(space, data);
    entry->block_count = block_count;
    space_page_dirty(space, page);
    return 0;
}

int space_meta_grow(struct cow_space *space, uint64_t block_count)
{
    uint64_t old = space->state.meta_blocks;
    if (block_count > UINT32_MAX) return cow_fail(ENOSPC, "meta is as long as it can be");
    int rc = reserve_part(space->meta, old * COW_BLOCK_BYTES, block_count * COW_BLOCK_BYTES);
    if (rc == 0) {
        space->meta_unsynced = true;
        /* From the start when the file is new: its first blocks come without a growth. */
        uint64_t home_from = old <= SPACE_META_FIRST ? 0 : old;
        rc = reserve_home(space, 0, COW_DEV_CREATE, home_from, block_count);
    }
    if (rc == 0) space->state.meta_blocks = block_count;
    return rc;
}

/* ---- Dead segments ----------------------------------------------------------------------------- */

int space_dead_reserve(struct cow_space *space)
{
    if (space->dead_count < space->dead_capacity) return 0;
    size_t capacity = space->dead_capacity == 0 ? 64 : 2 * space->dead_capacity;
    struct space_dead *dead = realloc(space->dead, capacity * sizeof *dead);
    if (dead == NULL) return cow_fail(ENOMEM, "list of dead segments");
    space->dead = dead;
    space->dead_capacity = capacity;
    return 0;
}

int space_dead_scan(struct cow_space *space)
{
    for (uint32_t segment = 1; segment < space->state.next_segment; segment++) {
        if (space->dead_count == space->state.dead_segments) break;
        struct space_page *page;
        struct cow_segment_entry *entry;
        space->epoch++; /* one page at a time is enough */
        int rc = space_entry_get(space, segment, &page, &entry);
        if (rc != 0) return rc;
        if (entry->state != COW_SEGMENT_DEAD) continue;
        rc = space_dead_reserve(space);
        if (rc != 0) return rc;
        space->dead[space->dead_count++] = (struct space_dead){segment, entry->generation};
    }
    if (space->dead_count == space->state.dead_segments) return 0;
    return cow_fail(COW_EDAMAGE, "%zu of %llu dead segments found", space->dead_count,
                    (unsigned long long)space->state.dead_segments);
}

static void drop_pages(struct cow_space *space, uint32_t segment, uint32_t block_count)
{
    uint32_t chunk_count = (block_count + COW_CHUNK_BLOCKS - 1) >> COW_CHUNK_SHIFT;
    for (uint32_t chunk = 0; chunk < chunk_count; chunk++) {
        struct space_page *page = space_page_find(space, space_record_key(segment, chunk));
        if (page != NULL) space_page_drop(space, page);
        if (chunk % COW_CHUNKS_PER_PAGE != 0) continue;
        page = space_page_find(space, space_chunk_key(segment, chunk));
        if (page != NULL) space_page_drop(space, page);
    }
}

static int remove_host_file(struct cow_space *space, enum space_file_kind kind, uint32_t segment)
{
    char name[32];
    space_file_name(kind, segment, name);
    int rc = space->dev->ops->remove(space->dev, name);
    return rc == -ENOENT ? 0 : rc;
}

/* Unlocked. Files first, entry after: between the two a crash leaves a dead segment without files. */
static int remove_segment(struct cow_space *space, uint32_t segment)
{
    space_lock(space);
    int rc = space_file_forget(space, SPACE_DATA, segment);
    if (rc == 0) rc = space_file_forget(space, SPACE_HOME, segment);
    space_unlock(space);
    if (rc == 0) rc = remove_host_file(space, SPACE_DATA, segment);
    if (rc == 0) rc = remove_host_file(space, SPACE_HOME, segment);
    if (rc != 0) return rc;
    space_lock(space);
    struct space_page *page;
    struct cow_segment_entry *entry;
    space->segments_unsynced = true;
    space->space_unsynced = true;
    rc = space_entry_get(space, segment, &page, &entry);
    if (rc == 0) {
        COW_ASSERT(entry->state == COW_SEGMENT_DEAD && space->state.dead_segments > 0);
        drop_pages(space, segment, entry->block_count);
        memset(entry, 0, sizeof *entry);
        space_page_dirty(space, page);
        space->state.dead_segments--;
    }
    space_unlock(space);
    return rc;
}

int space_dead_remove(struct cow_space *space)
{
    int first_error = 0;
    space_lock(space);
    size_t at = space->dead_count;
    while (at > 0) { /* backwards: others only append */
        struct space_dead dead = space->dead[--at];
        if (dead.generation > space->reusable) continue;
        space_unlock(space);
        int rc = remove_segment(space, dead.segment);
        space_lock(space);
        if (rc == 0) {
            space->dead[at] = space->dead[--space->dead_count];
        } else if (rc != -EBUSY && first_error == 0) {
            first_error = rc;
        }
    }
    space_unlock(space);
    return first_error;
}
