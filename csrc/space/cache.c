/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache.c: decoded pages in a chained hash table. A page is in one of four states: clean and home (in the ring, may be
 * evicted by CLOCK), dirty (in the dirty list), behind (committed, home not written yet: in no list), or dirty and
 * behind. Only clean pages whose home is up to date can be evicted, and none that the operation under way has looked
 * up. Changing a page needs no memory, so it cannot fail once the page is there.
 */
#include <stdlib.h>
#include <time.h>

#include "space/internal.h"

#define BUCKETS_FIRST_LOG2 10u
#define BUCKETS_LAST_LOG2 22u
#define TORN_TRIES 8
#define TORN_SAME 2

static size_t bytes_of(const struct space_page *page)
{
    return sizeof *page + cow_page_body_bytes(space_page_id(page).kind);
}

static void set_relaxed(uint64_t *value, uint64_t to) { __atomic_store_n(value, to, __ATOMIC_RELAXED); }

static void list_init(struct space_page *head)
{
    head->previous = head;
    head->next = head;
}

static void list_add(struct space_page *head, struct space_page *page)
{
    page->previous = head->previous;
    page->next = head;
    head->previous->next = page;
    head->previous = page;
}

static void list_remove(struct space_page *page)
{
    page->previous->next = page->next;
    page->next->previous = page->previous;
    page->previous = NULL;
    page->next = NULL;
}

static void ring_add(struct cow_space *space, struct space_page *page)
{
    list_add(&space->clean, page);
    space->clean_bytes += bytes_of(page);
}

static void ring_remove(struct cow_space *space, struct space_page *page)
{
    if (space->hand == page) space->hand = page->next;
    list_remove(page);
    space->clean_bytes -= bytes_of(page);
}

int space_cache_init(struct cow_space *space, uint64_t cache_bytes)
{
    list_init(&space->clean);
    list_init(&space->dirty);
    space->hand = &space->clean;
    space->cache_bytes = cache_bytes;
    space->bucket_shift = 64 - BUCKETS_FIRST_LOG2;
    space->buckets = calloc((size_t)1 << BUCKETS_FIRST_LOG2, sizeof *space->buckets);
    return space->buckets == NULL ? cow_fail(ENOMEM, "record cache") : 0;
}

void space_cache_deinit(struct cow_space *space)
{
    if (space->buckets == NULL) return;
    for (size_t i = 0; i < (size_t)1 << (64 - space->bucket_shift); i++) {
        while (space->buckets[i] != NULL) {
            struct space_page *page = space->buckets[i];
            space->buckets[i] = page->hash_next;
            free(page);
        }
    }
    free(space->buckets);
    space->buckets = NULL;
}

static struct space_page **bucket_of(struct cow_space *space, uint64_t key)
{
    return &space->buckets[(key * 0x9e3779b97f4a7c15u) >> space->bucket_shift];
}

/* Twice the buckets; without memory for them the chains just grow longer. */
static void grow_table(struct cow_space *space)
{
    unsigned log2 = 64 - space->bucket_shift;
    if (log2 >= BUCKETS_LAST_LOG2) return;
    struct space_page **old = space->buckets;
    struct space_page **buckets = calloc((size_t)2 << log2, sizeof *buckets);
    if (buckets == NULL) return;
    space->buckets = buckets;
    space->bucket_shift--;
    for (size_t i = 0; i < (size_t)1 << log2; i++) {
        struct space_page *page = old[i];
        while (page != NULL) {
            struct space_page *next = page->hash_next;
            struct space_page **bucket = bucket_of(space, page->key);
            page->hash_next = *bucket;
            *bucket = page;
            page = next;
        }
    }
    free(old);
}

/* A new page that is in the table but in no list yet; the body is undefined. */
static struct space_page *page_new(struct cow_space *space, uint64_t key)
{
    struct space_page header = {.key = key, .pin = space->epoch, .referenced = true};
    struct space_page *page = malloc(bytes_of(&header));
    if (page == NULL) return NULL;
    if (space->page_count >> (64 - space->bucket_shift) != 0) grow_table(space);
    *page = header;
    struct space_page **bucket = bucket_of(space, key);
    page->hash_next = *bucket;
    *bucket = page;
    space->page_count++;
    set_relaxed(&space->page_bytes, space->page_bytes + bytes_of(page));
    return page;
}

/* Out of the table and out of memory; it is in no list. */
static void page_free(struct cow_space *space, struct space_page *page)
{
    struct space_page **link = bucket_of(space, page->key);
    while (*link != page) link = &(*link)->hash_next;
    *link = page->hash_next;
    space->page_count--;
    set_relaxed(&space->page_bytes, space->page_bytes - bytes_of(page));
    free(page);
}

void space_cache_trim(struct cow_space *space)
{
    /* Two rounds clear every reference bit; what is left then is pinned by the operation under way. */
    size_t steps = 2 * space->page_count + 2;
    while (space->clean_bytes > space->cache_bytes && steps-- > 0) {
        struct space_page *page = space->hand;
        space->hand = page->next;
        if (page == &space->clean || page->pin == space->epoch) continue;
        if (page->referenced) {
            page->referenced = false;
            continue;
        }
        ring_remove(space, page);
        page_free(space, page);
        space_count(&space->counters.record_evictions, 1);
    }
}

/* A reader of another process may see a page that the writer is just putting home: half old, half new. It is
 * whole a moment later. */
static void wait_for_writer(void)
{
    struct timespec pause = {.tv_sec = 0, .tv_nsec = 1000000};
    nanosleep(&pause, NULL);
}

static int read_home(struct cow_space *space, struct space_page *page)
{
    struct cow_page_id id = space_page_id(page);
    struct space_file *file;
    enum space_file_kind kind = id.kind == COW_PAGE_SEGMENTS ? SPACE_TABLE : SPACE_HOME;
    int rc = space_file_get(space, kind, id.segment, 0, &file);
    if (rc == -ENOENT) { /* nothing of the segment was put home yet */
        memset(space_body(page), 0, cow_page_body_bytes(id.kind));
        return 0;
    }
    if (rc != 0) return rc;
    uint8_t bytes[COW_PAGE_BYTES], last[COW_PAGE_BYTES];
    for (int tries = 0, same = 0;; tries++) {
        int64_t got = cow_dev_read(file->file, cow_page_home_offset(id.kind, id.index), bytes, sizeof bytes);
        if (got < 0) return (int)got;
        memset(bytes + got, 0, sizeof bytes - (size_t)got);
        rc = cow_page_decode(bytes, &id, space_body(page), &page->generation);
        if (rc == 0 && !space->readonly && page->generation > space->durable && !space->salvage) {
            return cow_fail(COW_EDAMAGE, "records of segment %u are newer than the superblock: the newest one was lost",
                            id.segment);
        }
        if (rc == -COW_EDAMAGE && space->salvage) {
            memset(space_body(page), 0, cow_page_body_bytes(id.kind));
            page->lost = true;
            return 0;
        }
        if (rc == 0 || !space->readonly || tries == TORN_TRIES) return rc;
        same = tries > 0 && memcmp(last, bytes, sizeof bytes) == 0 ? same + 1 : 0;
        if (same == TORN_SAME) return rc; /* nobody is writing it */
        memcpy(last, bytes, sizeof bytes);
        wait_for_writer();
    }
}

int space_page_load(struct cow_space *space, uint64_t key, struct space_page **page_out)
{
    space_count(&space->counters.record_misses, 1);
    struct space_page *page = page_new(space, key);
    if (page == NULL) return cow_fail(ENOMEM, "record page");
    int rc = read_home(space, page);
    if (rc != 0) {
        page_free(space, page);
        return rc;
    }
    ring_add(space, page);
    space_cache_trim(space);
    *page_out = page;
    return 0;
}

int space_page_add_empty(struct cow_space *space, uint64_t key)
{
    if (space_page_find(space, key) != NULL) return 0;
    struct space_page *page = page_new(space, key);
    if (page == NULL) return cow_fail(ENOMEM, "record page");
    memset(space_body(page), 0, cow_page_body_bytes(space_page_id(page).kind));
    ring_add(space, page);
    space_cache_trim(space);
    return 0;
}

int space_page_overlay(struct cow_space *space, uint64_t key, struct space_page **page_out)
{
    struct space_page *page = space_page_find(space, key);
    if (page == NULL) page = page_new(space, key);
    if (page == NULL) return cow_fail(ENOMEM, "record page");
    COW_ASSERT(page->previous == NULL);
    page->behind = true;
    *page_out = page;
    return 0;
}

void space_page_dirty(struct cow_space *space, struct space_page *page)
{
    if (page->dirty) return;
    COW_ASSERT(!space->readonly);
    if (!page->behind) ring_remove(space, page);
    page->dirty = true;
    list_add(&space->dirty, page);
    set_relaxed(&space->dirty_count, space->dirty_count + 1);
}

void space_page_closed(struct cow_space *space, struct space_page *page, uint64_t generation, uint64_t journal_offset)
{
    COW_ASSERT(page->dirty);
    list_remove(page);
    page->dirty = false;
    page->behind = true;
    page->generation = generation;
    page->journal_offset = journal_offset;
    set_relaxed(&space->dirty_count, space->dirty_count - 1);
}

void space_page_home(struct cow_space *space, struct space_page *page)
{
    COW_ASSERT(page->behind);
    page->behind = false;
    if (!page->dirty) ring_add(space, page);
}

void space_page_drop(struct cow_space *space, struct space_page *page)
{
    if (page->dirty) return;
    if (!page->behind) ring_remove(space, page);
    page_free(space, page);
}
