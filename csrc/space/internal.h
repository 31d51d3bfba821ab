/* SPDX-License-Identifier: Apache-2.0 */
/*
 * internal.h: what the files of space/ share and nobody else sees.
 *
 *   cache.c     decoded pages by (segment, kind, index)      refs.c      counts on two levels
 *   segment.c   host files and the segment table             alloc.c     free blocks
 *   journal.c   batches, recovery, checkpoint                block_io.c  bytes of data and nodes
 *   commit.c    the steps of a commit                        check.c     counts against a walk
 *   trim.c      all that is free back to a full host
 *
 * Lock: everything in struct cow_space is under its mutex, but for what is said to be otherwise. Functions named
 * space_* expect it held unless they say "unlocked". An operation begins with space_lock, which starts a new epoch:
 * every page that it looks up is pinned to the end of the epoch, so that it can first load all that it needs (which may
 * fail) and then change all of it (which cannot).
 */
#ifndef COW_SPACE_INTERNAL_H
#define COW_SPACE_INTERNAL_H

#include <pthread.h>

#include "format/format.h"
#include "space/space.h"

#define SPACE_META_FIRST 16u          /* first block of segment 0 that is ever allocated */
#define SPACE_GROW_BLOCKS 256u        /* smallest growth of a host file; a whole chunk */
#define SPACE_JOURNAL_PAGES 1024u     /* a half above it is checkpointed */
#define SPACE_JOURNAL_SLACK 256u      /* pages of the journal reserved beyond the dirty ones */
#define SPACE_JOURNAL_EMERGENCY 32u   /* what must be there of them when the host is full */
#define SPACE_NODE_SLACK 512u         /* node blocks reserved beyond those asked for, for deletes on a full host */
#define SPACE_LOW(slack) ((slack) / 2) /* of a slack: with less, a full host makes the next change commit first */
#define SPACE_HINTS 4096u             /* released runs remembered to be punched */
#define SPACE_HINT_BLOCKS 16u         /* shorter ones are not worth it */
#define SPACE_FILE_BUCKETS 1024u
#define SPACE_FILES_MAX 2048u

struct space_page {
    uint64_t key; /* segment << 32 | kind << 30 | index */
    struct space_page *hash_next;
    struct space_page *previous, *next; /* in the ring of clean pages or the list of dirty ones */
    uint64_t generation;     /* of the commit that last held it */
    uint64_t journal_offset; /* behind: where that commit put it in the current half */
    uint64_t pin;            /* epoch of the last look-up */
    bool dirty;              /* changed since the last close */
    bool behind;             /* its home is older than its last commit */
    bool referenced;
    bool lost;               /* salvage: its bytes were damaged, the body is zeros */
    /* its body follows */
};

static inline uint64_t space_key(enum cow_page_kind kind, uint32_t segment, uint32_t index)
{
    return (uint64_t)segment << 32 | (uint64_t)kind << 30 | index;
}
static inline struct cow_page_id space_page_id(const struct space_page *page)
{
    return (struct cow_page_id){.kind = (enum cow_page_kind)(page->key >> 30 & 3),
                                .segment = (uint32_t)(page->key >> 32),
                                .index = (uint32_t)page->key & 0x3fffffffu};
}
static inline void *space_body(struct space_page *page) { return page + 1; }
static inline struct cow_record_page *space_records(struct space_page *page) { return space_body(page); }
static inline struct cow_chunk_page *space_chunks(struct space_page *page) { return space_body(page); }
static inline struct cow_segment_entry *space_entry(struct space_page *page, uint32_t segment)
{
    return &((struct cow_segment_page *)space_body(page))->entries[segment % COW_SEGMENTS_PER_PAGE];
}

enum space_file_kind { SPACE_DATA = 1, SPACE_HOME = 2, SPACE_TABLE = 3 };
struct space_file {
    uint64_t key; /* kind << 32 | segment */
    struct cow_dev_file *file;
    struct space_file *hash_next, *sync_next;
    uint32_t users; /* calls that use it without the lock */
    bool unsynced;  /* in the list of files to sync */
    bool referenced;
};

/* Where the allocator stands in a segment. A pass looks at each chunk once; a new one starts when blocks
 * have become reusable. */
struct space_scan {
    uint32_t segment;
    uint32_t cursor;      /* block */
    uint32_t chunks_left; /* of this pass */
    uint64_t pass;        /* reusable generation + 1 that it was started for */
};

struct space_dead {
    uint32_t segment;
    uint64_t generation;
};

struct space_hint {
    cow_addr addr;
    uint32_t count;
    uint64_t generation;
};

struct cow_space {
    struct cow_dev *dev;
    struct cow_dev_file *meta;       /* constant while open */
    struct cow_dev_file *journal[2]; /* NULL: not there yet */
    pthread_mutex_t lock;
    struct cow_space_counters counters; /* written under lock or atomically; read at any time */

    struct cow_space_state state; /* as of now; journal_bytes counts the batch under way */
    uint64_t open_generation, durable, reusable;
    bool readonly;
    int lost;             /* atomic: see cow_space_lost */
    bool salvage;         /* see cow_space_open_salvage */
    bool journal_damaged; /* salvage: homes may be older than they should be */
    bool meta_unsynced, journal_unsynced[2];
    bool top_unsynced, segments_unsynced, space_unsynced; /* folders */
    uint64_t journal_reserved[2];
    uint32_t journal_sequence, journal_pages; /* batches in the half; a half above so many pages is checkpointed */
    uint64_t table_reserved; /* bytes of space/table */

    struct space_page **buckets;
    unsigned bucket_shift; /* 64 - log2 of the bucket count */
    size_t page_count;
    uint64_t cache_bytes, page_bytes, clean_bytes; /* page_bytes is read without the lock */
    uint64_t dirty_count;                          /* read without the lock */
    uint64_t epoch;
    struct space_page clean; /* ring head */
    struct space_page dirty; /* list head */
    struct space_page *hand;

    struct space_file *files[SPACE_FILE_BUCKETS];
    struct space_file *sync_list;
    uint32_t file_count, file_hand;

    struct space_scan nodes;
    struct space_scan *scans; /* packed segments known */
    uint32_t scan_count, scan_capacity, scan_current;
    bool scans_complete;       /* all packed segments of the table are in scans */
    uint64_t nodes_pending;    /* free node blocks that may not be reusable yet */
    uint64_t nodes_pending_new; /* of them: released in the open generation */
    bool nodes_pending_known;
    uint64_t data_pending; /* data blocks released that may not be reusable yet */
    bool trim_wanted;      /* the host is full: give back all that is free; read without the lock */
    bool released_since_trim; /* else that would be in vain */
    bool commit_helps;     /* the host is full, and a commit would give room; read without the lock */
    bool checkpoint_early; /* the journal half cannot grow: start the other with the next commit */

    struct space_dead *dead;
    size_t dead_count, dead_capacity;

    struct space_hint hint; /* the run that grows now */
    struct space_hint hints[SPACE_HINTS];
    uint32_t hint_count;

    bool committing; /* between close and done */
    uint8_t *batch;
    size_t batch_bytes;
    uint64_t batch_offset, batch_generation;
    uint32_t batch_half;
};

/* Counting under the lock needs no locked instruction. */
static inline void space_count(cow_counter *counter, uint64_t n)
{
    __atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}
static inline void space_lock(struct cow_space *space)
{
    pthread_mutex_lock(&space->lock);
    space->epoch++;
}
static inline void space_want_commit(struct cow_space *space, bool wanted)
{
    __atomic_store_n(&space->commit_helps, wanted, __ATOMIC_RELAXED);
}
static inline void space_unlock(struct cow_space *space) { pthread_mutex_unlock(&space->lock); }

/* ---- cache.c */
int space_cache_init(struct cow_space *space, uint64_t cache_bytes);
void space_cache_deinit(struct cow_space *space);
/* Finds a page in memory (NULL: not there) and pins it for the epoch. */
static inline struct space_page *space_page_find(struct cow_space *space, uint64_t key)
{
    struct space_page *page = space->buckets[(key * 0x9e3779b97f4a7c15u) >> space->bucket_shift];
    while (page != NULL && page->key != key) page = page->hash_next;
    if (page != NULL) {
        page->referenced = true;
        page->pin = space->epoch;
    }
    return page;
}
int space_page_load(struct cow_space *space, uint64_t key, struct space_page **page_out);
static inline int space_page_get(struct cow_space *space, uint64_t key, struct space_page **page_out)
{
    *page_out = space_page_find(space, key);
    if (*page_out == NULL) return space_page_load(space, key, page_out);
    space_count(&space->counters.record_hits, 1);
    return 0;
}
/* A page that this operation has loaded before. */
static inline struct space_page *space_page_held(struct cow_space *space, uint64_t key)
{
    struct space_page *page = space_page_find(space, key);
    COW_ASSERT(page != NULL);
    return page;
}
/* Makes sure that the page is in memory, without reading: it was never written. */
int space_page_add_empty(struct cow_space *space, uint64_t key);
/* For recovery: the page in memory, new or not, its body to be filled in; it is behind from now on. */
int space_page_overlay(struct cow_space *space, uint64_t key, struct space_page **page_out);
void space_page_dirty(struct cow_space *space, struct space_page *page);
void space_page_closed(struct cow_space *space, struct space_page *page, uint64_t generation, uint64_t journal_offset);
void space_page_home(struct cow_space *space, struct space_page *page); /* home has caught up */
void space_page_drop(struct cow_space *space, struct space_page *page);
void space_cache_trim(struct cow_space *space);
/* Salvage: whether the sums on a page may be wrong although the blocks are right. */
static inline bool space_page_doubtful(const struct cow_space *space, const struct space_page *page)
{
    return space->salvage && (page->lost || (space->journal_damaged && !page->behind && !page->dirty));
}

static inline uint64_t space_chunk_key(uint32_t segment, uint32_t chunk)
{
    return space_key(COW_PAGE_CHUNKS, segment, chunk / COW_CHUNKS_PER_PAGE);
}
static inline uint64_t space_record_key(uint32_t segment, uint32_t chunk)
{
    return space_key(COW_PAGE_RECORDS, segment, chunk);
}

/* ---- segment.c */
int space_file_get(struct cow_space *space, enum space_file_kind kind, uint32_t segment, unsigned flags,
                   struct space_file **file_out);
void space_file_written(struct cow_space *space, struct space_file *file);
int space_file_forget(struct cow_space *space, enum space_file_kind kind, uint32_t segment); /* -EBUSY */
void space_files_close(struct cow_space *space);
void space_file_name(enum space_file_kind kind, uint32_t segment, char name[32]);
int space_entry_get(struct cow_space *space, uint32_t segment, struct space_page **page_out,
                    struct cow_segment_entry **entry_out);
/* -EUCLEAN unless the run lies in a live segment. Pins the table page. */
int space_range_check(struct cow_space *space, uint32_t segment, uint32_t block, uint32_t count);
/* Counts blocks that came into use or went out of it; the table page is held. */
void space_used_add(struct cow_space *space, uint32_t segment, uint32_t blocks);
void space_used_sub(struct cow_space *space, uint32_t segment, uint32_t blocks);
int space_segment_new(struct cow_space *space, enum cow_segment_kind kind, uint32_t block_count, uint32_t *segment_out);
int space_segment_grow(struct cow_space *space, uint32_t segment, uint32_t block_count);
int space_meta_grow(struct cow_space *space, uint64_t block_count);
int space_dead_reserve(struct cow_space *space);
int space_dead_scan(struct cow_space *space);
int space_dead_remove(struct cow_space *space); /* unlocked */

/* ---- refs.c */
bool space_block_free(const struct cow_record_page *records, int32_t add, uint32_t slot, uint64_t reusable);
/* The smallest of a chunk's refs, which cannot be below old_min. Looks from a record on, where old_min is likely. */
int32_t space_min(const int32_t *refs, int32_t old_min, uint32_t from);
void space_hint_flush(struct cow_space *space);

/* Data found no room on the host. */
static inline void space_host_full(struct cow_space *space)
{
    if (space->released_since_trim) __atomic_store_n(&space->trim_wanted, true, __ATOMIC_RELAXED);
}

/* ---- alloc.c */
void space_scan_released(struct cow_space *space, uint32_t segment, uint32_t block);

/* ---- block_io.c: the hash of a block as it is on the medium; -EUCLEAN when there is nothing. With the lock. */
int space_hash_medium(struct cow_space *space, cow_addr addr, uint64_t *hash_out);

/* ---- journal.c */
int space_journal_file(struct cow_space *space, uint32_t half, struct cow_dev_file **file_out);
int space_journal_recover(struct cow_space *space);
/* Makes sure that the journal can hold what is dirty and some more: -ENOSPC. */
int space_journal_room(struct cow_space *space, uint64_t extra_pages);
int space_checkpoint(struct cow_space *space); /* unlocked */

static inline int space_reserve(struct cow_dev_file *file, uint64_t offset, uint64_t length)
{
    return file->dev->ops->reserve(file, offset, length);
}

#endif
