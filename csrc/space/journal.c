/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal.c: the two halves of the journal. Commits append batches to the current half. Recovery reads the batches
 * that the superblock names and lays their pages over whatever stands at home; those pages are "behind" until a
 * checkpoint.
 *
 * A checkpoint runs between two commits: it writes each page that is behind to its home with its content as of the
 * durable commit, syncs the homes, and makes the next commit start the other half. That content is what is in memory
 * when the page did not change since, and otherwise it is read back from the page's last batch in the journal. The half
 * that the durable superblock names covers every page that the checkpoint may tear, and stays as it is until a
 * superblock that names the other half is durable. A checkpoint that fails changes nothing but homes that are covered,
 * and is tried again after the next commit.
 */
#include <stdio.h>
#include <stdlib.h>

#include "space/internal.h"

#define PIECE_PAGES 64u

int space_journal_file(struct cow_space *space, uint32_t half, struct cow_dev_file **file_out)
{
    if (space->journal[half] == NULL) {
        char name[32];
        uint64_t bytes = 0;
        snprintf(name, sizeof name, "journal.%u", half);
        struct cow_dev_file *file;
        int rc = cow_dev_open(space->dev, name, space->readonly ? 0 : COW_DEV_CREATE, &file);
        if (rc != 0) return rc;
        rc = file->dev->ops->size(file, &bytes);
        if (rc != 0) {
            cow_dev_close(file);
            return rc;
        }
        space->journal[half] = file;
        space->journal_reserved[half] = bytes;
        if (!space->readonly) space->top_unsynced = true;
    }
    *file_out = space->journal[half];
    return 0;
}

static int reserve_half(struct cow_space *space, uint32_t half, uint64_t bytes)
{
    struct cow_dev_file *file;
    int rc = space_journal_file(space, half, &file);
    if (rc != 0 || bytes <= space->journal_reserved[half]) return rc;
    rc = space_reserve(file, space->journal_reserved[half], bytes - space->journal_reserved[half]);
    if (rc == 0) {
        space->journal_reserved[half] = bytes;
        space->journal_unsynced[half] = true;
    }
    return rc;
}

int space_journal_room(struct cow_space *space, uint64_t extra_pages)
{
    uint32_t half = space->state.journal_half;
    uint64_t least = space->dirty_count + extra_pages + 1 + SPACE_JOURNAL_EMERGENCY;
    uint64_t need = space->state.journal_bytes + (least + SPACE_JOURNAL_SLACK) * COW_PAGE_BYTES;
    if (space->journal[half] != NULL && space->journal_reserved[half] >= need) return 0;
    int rc = reserve_half(space, half, need + (uint64_t)SPACE_JOURNAL_SLACK * COW_PAGE_BYTES);
    /* The other half while there is room on the host: a checkpoint must be possible, and changes after it. */
    if (rc == 0) rc = reserve_half(space, half ^ 1, (uint64_t)SPACE_JOURNAL_SLACK * COW_PAGE_BYTES);
    if (rc != -ENOSPC) return rc;
    (void)reserve_half(space, half, space->state.journal_bytes + least * COW_PAGE_BYTES); /* more is a wish */
    uint64_t least_bytes = space->state.journal_bytes + least * COW_PAGE_BYTES;
    uint64_t low_bytes = least_bytes + (uint64_t)SPACE_LOW(SPACE_JOURNAL_SLACK) * COW_PAGE_BYTES;
    if (space->journal_reserved[half] < low_bytes && space->state.journal_bytes + space->dirty_count > 0) {
        space->checkpoint_early = true;
        space_want_commit(space, true);
    }
    return space->journal_reserved[half] >= least_bytes ? 0 : rc;
}

/* ---- Recovery ---------------------------------------------------------------------------------- */

static int recover_page(struct cow_space *space, const uint8_t *bytes, uint64_t generation, uint64_t offset)
{
    struct cow_page_id id;
    uint64_t page_generation;
    struct space_page *page;
    int rc = cow_page_identify(bytes, &id, &page_generation);
    if (rc != 0) return rc;
    bool known = id.kind == COW_PAGE_SEGMENTS ? id.segment == 0 : id.segment < space->state.next_segment;
    if (page_generation != generation || !known || id.index >= 1u << 30) {
        return cow_fail(COW_EDAMAGE, "page of another batch");
    }
    rc = space_page_overlay(space, space_key(id.kind, id.segment, id.index), &page);
    if (rc != 0) return rc;
    page->journal_offset = offset;
    rc = cow_page_decode(bytes, &id, space_body(page), &page->generation);
    if (rc == 0 || !space->salvage) return rc;
    memset(space_body(page), 0, cow_page_body_bytes(id.kind));
    page->lost = true;
    return rc;
}

/* In a salvage the pages of a batch stand for themselves. */
static int recover_page_if_whole(struct cow_space *space, const uint8_t *bytes, uint64_t generation, uint64_t offset)
{
    int rc = recover_page(space, bytes, generation, offset);
    if (rc != -COW_EDAMAGE || !space->salvage) return rc;
    space->journal_damaged = true;
    return 0;
}

static int recover_batch(struct cow_space *space, struct cow_dev_file *file, uint8_t *piece, uint64_t *offset,
                         uint64_t *last_generation)
{
    struct cow_batch batch;
    int rc = cow_dev_read_all(file, *offset, piece, COW_PAGE_BYTES);
    if (rc == 0) rc = cow_batch_decode(piece, &batch);
    if (rc != 0) return rc;
    uint64_t left = (space->state.journal_bytes - *offset) / COW_PAGE_BYTES;
    if (batch.sequence != space->journal_sequence || batch.generation <= *last_generation ||
        batch.generation > space->durable || batch.page_count >= left) {
        return cow_fail(COW_EDAMAGE, "batch out of order");
    }
    *offset += COW_PAGE_BYTES;
    for (uint32_t done = 0; done < batch.page_count; ) {
        uint32_t count = batch.page_count - done < PIECE_PAGES ? batch.page_count - done : PIECE_PAGES;
        rc = cow_dev_read_all(file, *offset, piece, (size_t)count * COW_PAGE_BYTES);
        for (uint32_t i = 0; rc == 0 && i < count; i++, *offset += COW_PAGE_BYTES) {
            rc = recover_page_if_whole(space, piece + (size_t)i * COW_PAGE_BYTES, batch.generation, *offset);
        }
        if (rc != 0) return rc;
        done += count;
    }
    space->journal_sequence++;
    *last_generation = batch.generation;
    return 0;
}

int space_journal_recover(struct cow_space *space)
{
    uint64_t offset = 0, last_generation = 0;
    struct cow_dev_file *file;
    if (space->state.journal_bytes == 0) return 0;
    int rc = space_journal_file(space, space->state.journal_half, &file);
    if (rc == -ENOENT && space->salvage) {
        space->journal_damaged = true;
        return 0;
    }
    if (rc == -ENOENT) return cow_fail(COW_EDAMAGE, "journal.%u is missing", space->state.journal_half);
    if (rc != 0) return rc;
    uint8_t *piece = malloc((size_t)PIECE_PAGES * COW_PAGE_BYTES);
    if (piece == NULL) return cow_fail(ENOMEM, "journal recovery");
    while (rc == 0 && offset < space->state.journal_bytes) {
        rc = recover_batch(space, file, piece, &offset, &last_generation);
    }
    free(piece);
    if (rc == -COW_EDAMAGE && space->salvage) {
        space->journal_damaged = true;
        return 0;
    }
    if (rc == -COW_EDAMAGE) {
        return cow_fail(COW_EDAMAGE, "journal.%u is damaged at byte %llu", space->state.journal_half,
                        (unsigned long long)offset);
    }
    return rc;
}

/* ---- Checkpoint -------------------------------------------------------------------------------- */

struct checkpoint {
    struct cow_space *space;
    struct space_page **pages; /* sorted by home; NULL: dropped */
    size_t count;
    uint8_t *piece;
    struct space_file *file; /* in use, or NULL */
};

static bool is_table(const struct space_page *page) { return space_page_id(page).kind == COW_PAGE_SEGMENTS; }

static uint64_t home_offset(const struct space_page *page)
{
    struct cow_page_id id = space_page_id(page);
    return cow_page_home_offset(id.kind, id.index);
}

static bool same_home(const struct space_page *a, const struct space_page *b)
{
    return is_table(a) == is_table(b) && a->key >> 32 == b->key >> 32;
}

static int compare_homes(const void *left, const void *right)
{
    const struct space_page *a = *(struct space_page *const *)left, *b = *(struct space_page *const *)right;
    if (is_table(a) != is_table(b)) return is_table(a) ? -1 : 1;
    if (a->key >> 32 != b->key >> 32) return a->key >> 32 < b->key >> 32 ? -1 : 1;
    uint64_t at = home_offset(a), bt = home_offset(b);
    return at < bt ? -1 : at > bt;
}

/* All pages that are behind. They stay in memory until they are home. */
static int collect(struct checkpoint *cp)
{
    struct cow_space *space = cp->space;
    size_t bucket_count = (size_t)1 << (64 - space->bucket_shift), behind = 0;
    for (size_t i = 0; i < bucket_count; i++) {
        for (struct space_page *page = space->buckets[i]; page != NULL; page = page->hash_next) behind += page->behind;
    }
    cp->pages = malloc((behind + 1) * sizeof *cp->pages);
    if (cp->pages == NULL) return cow_fail(ENOMEM, "checkpoint");
    for (size_t i = 0; i < bucket_count; i++) {
        for (struct space_page *page = space->buckets[i]; page != NULL; page = page->hash_next) {
            if (page->behind) cp->pages[cp->count++] = page;
        }
    }
    return 0;
}

/* Pages of segments whose files were removed have no home any more. */
static int drop_removed(struct checkpoint *cp)
{
    struct cow_space *space = cp->space;
    size_t kept = 0;
    for (size_t i = 0; i < cp->count; i++) {
        struct cow_page_id id = space_page_id(cp->pages[i]);
        struct space_page *table;
        struct cow_segment_entry *entry;
        if (id.kind != COW_PAGE_SEGMENTS && id.segment != 0) {
            space->epoch++;
            int rc = space_entry_get(space, id.segment, &table, &entry);
            if (rc != 0) return rc;
            if (entry->state == COW_SEGMENT_FREE && !cp->pages[i]->dirty) {
                space_page_drop(space, cp->pages[i]);
                continue;
            }
        }
        cp->pages[kept++] = cp->pages[i];
    }
    cp->count = kept;
    return 0;
}

/* The page's bytes as of the durable commit. */
static int committed_image(struct checkpoint *cp, struct space_page *page, uint8_t *bytes)
{
    struct cow_space *space = cp->space;
    struct cow_page_id id = space_page_id(page), found;
    uint64_t found_generation;
    space_lock(space);
    bool dirty = page->dirty;
    uint64_t generation = page->generation, offset = page->journal_offset;
    struct cow_dev_file *journal = space->journal[space->state.journal_half];
    if (!dirty) cow_page_encode(&id, generation, space_body(page), bytes);
    space_unlock(space);
    if (!dirty) return 0;
    int rc = cow_dev_read_all(journal, offset, bytes, COW_PAGE_BYTES);
    if (rc == 0) rc = cow_page_identify(bytes, &found, &found_generation);
    if (rc != 0) return rc;
    if (found.kind != id.kind || found.segment != id.segment || found.index != id.index ||
        found_generation != generation) {
        return cow_fail(COW_EDAMAGE, "journal.%u at byte %llu holds another page", space->state.journal_half,
                        (unsigned long long)offset);
    }
    return 0;
}

static int use_home(struct checkpoint *cp, const struct space_page *page)
{
    space_lock(cp->space);
    int rc = space_file_get(cp->space, is_table(page) ? SPACE_TABLE : SPACE_HOME, (uint32_t)(page->key >> 32),
                            COW_DEV_CREATE, &cp->file);
    if (rc == 0) cp->file->users++;
    space_unlock(cp->space);
    return rc;
}

static int leave_home(struct checkpoint *cp, int rc)
{
    if (cp->file == NULL) return rc;
    if (rc == 0) rc = cow_dev_sync(cp->file->file);
    space_lock(cp->space);
    cp->file->users--;
    space_unlock(cp->space);
    cp->file = NULL;
    return rc;
}

/* Neighbours in one write. */
static int write_homes(struct checkpoint *cp)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < cp->count; ) {
        struct space_page *first = cp->pages[i];
        if (i > 0 && !same_home(first, cp->pages[i - 1])) rc = leave_home(cp, 0);
        if (rc == 0 && cp->file == NULL) rc = use_home(cp, first);
        size_t count = 0;
        while (rc == 0 && count < PIECE_PAGES && i + count < cp->count) {
            struct space_page *page = cp->pages[i + count];
            if (!same_home(page, first)) break;
            if (home_offset(page) != home_offset(first) + count * COW_PAGE_BYTES) break;
            rc = committed_image(cp, page, cp->piece + count * COW_PAGE_BYTES);
            count++;
        }
        if (rc == 0) rc = cow_dev_write(cp->file->file, home_offset(first), cp->piece, count * COW_PAGE_BYTES);
        i += count;
    }
    return leave_home(cp, rc);
}

static int sync_folder(struct cow_space *space)
{
    space_lock(space);
    bool unsynced = space->space_unsynced;
    space->space_unsynced = false;
    space_unlock(space);
    if (!unsynced) return 0;
    int rc = space->dev->ops->sync_dir(space->dev, "space");
    if (rc == 0) return 0;
    space_lock(space);
    space->space_unsynced = true;
    space_unlock(space);
    return rc;
}

static void flip(struct checkpoint *cp)
{
    struct cow_space *space = cp->space;
    space_lock(space);
    for (size_t i = 0; i < cp->count; i++) space_page_home(space, cp->pages[i]);
    space->state.journal_half ^= 1;
    space->state.journal_bytes = 0;
    space->journal_sequence = 0;
    space->epoch++;
    space_cache_trim(space);
    space_unlock(space);
}

int space_checkpoint(struct cow_space *space)
{
    struct checkpoint cp = {.space = space};
    cp.piece = malloc((size_t)PIECE_PAGES * COW_PAGE_BYTES);
    if (cp.piece == NULL) return cow_fail(ENOMEM, "checkpoint");
    space_lock(space);
    /* Before anything else: commits into the other half must not run out of host space. */
    uint64_t dirty_bytes = (space->dirty_count + 1 + SPACE_JOURNAL_EMERGENCY) * COW_PAGE_BYTES;
    uint64_t good_bytes = dirty_bytes + (uint64_t)SPACE_JOURNAL_SLACK * COW_PAGE_BYTES;
    int rc = reserve_half(space, space->state.journal_half ^ 1, good_bytes);
    if (rc == -ENOSPC) rc = reserve_half(space, space->state.journal_half ^ 1, dirty_bytes);
    if (rc == 0) rc = collect(&cp);
    if (rc == 0) rc = drop_removed(&cp);
    space_unlock(space);
    if (rc == 0 && cp.count > 0) qsort(cp.pages, cp.count, sizeof *cp.pages, compare_homes);
    if (rc == 0) rc = write_homes(&cp);
    if (rc == 0) rc = sync_folder(space);
    if (rc == 0) flip(&cp);
    free(cp.pages);
    free(cp.piece);
    return rc;
}
