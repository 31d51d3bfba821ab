/* SPDX-License-Identifier: Apache-2.0 */
/*
 * space.h: every 4 KiB block of the store: where it is, how often it is referred to, when it changed hands,
 * and what its checksum is. It also moves the bytes of data blocks.
 *
 * Blocks live in segments. Segment 0 is the file "meta" (its blocks 0 and 1 are the superblocks, the rest are
 * B+tree nodes); segment N is "segments/%08x", packed (shared by many files) or whole-file (one large file from
 * offset 0; the host file goes away with the last reference).
 *
 * For each block there is a record: checksum (48 bits of XXH3), generation (of its allocation while in use,
 * of its release while free), reference count. A reference to a run of blocks must not cost its length (a
 * 1 GiB file is one extent), so counts are kept on two levels: a chunk of 256 blocks has an addend for
 * all of them and the minimum of their own counts:
 *
 *      count(block) = chunk.add + record.refs        free  <=>  count = 0        chunk has free  <=>  add + min = 0
 *
 * Records are kept in 4 KiB pages (chunk pages, record pages, segment-table pages) in "space/%08x" and
 * "space/table". A commit appends the changed pages to a journal ("journal.0" or ".1"); they go to their home
 * later, when the journal half is full (checkpoint). A page in memory that is newer than its home stays there
 * until the checkpoint. Opening reads the journal that the superblock names, so home pages may be torn or stale.
 *
 * Invariants
 *   - A block may be allocated only when its count is 0 and its release is durable and no reader of another
 *     process pins it: record.generation <= reusable generation (a block born and released in the
 *     open generation gets generation 0 at once).
 *   - A block may be overwritten in place only when cow_space_owned says so: count 1 and born in the open
 *     generation.
 *   - Counts never go below 0 (asserted) or above 2^31 - 1 (-EMLINK, nothing changed).
 * Lock: one mutex for records and allocation; data I/O runs outside of it.
 * After a crash: the records of the last durable commit, exactly.
 */
#ifndef COW_SPACE_H
#define COW_SPACE_H

#include "base/common.h"
#include "dev/dev.h"

struct cow_space;

/* What the superblock keeps for this module. */
struct cow_space_state {
    uint32_t next_segment;   /* first segment id never used; starts at 1 */
    uint32_t journal_half;   /* 0 or 1 */
    uint64_t journal_bytes;  /* valid bytes of that half */
    uint64_t dead_segments;  /* whole-file segments whose host file is still to be removed */
    uint64_t data_blocks;    /* in use */
    uint64_t node_blocks;    /* in use */
    uint64_t meta_blocks;    /* length of segment 0 */
    uint32_t packed_segment; /* the packed segment written to last, 0 = none */
};
#define COW_SPACE_STATE_INIT {.next_segment = 1, .meta_blocks = 16}

struct cow_space_counters {
    cow_counter blocks_allocated, blocks_freed, blocks_verified, checksum_errors;
    cow_counter record_hits, record_misses, record_evictions, punched_bytes;
};

/* durable: generation of the superblock that state came from (0 for a new store). The open generation is then
 * durable + 1. Reads the journal; cost independent of the amount of data.
 * Only never-used blocks can be allocated until the first cow_space_commit_done says what readers of other
 * processes pin; so a writer calls cow_space_commit_done(space, durable, pinned) right after open, without a commit,
 * or every session starts on fresh space. A reader that gets -EUCLEAN reads the superblock again and retries when its
 * generation changed: the writer may have gone round the journal meanwhile. */
int cow_space_open(struct cow_dev *dev, const struct cow_space_state *state, uint64_t durable,
                   uint64_t cache_bytes, struct cow_space **space_out);
/* The same for a store that is damaged, to repair it: a record page that is damaged counts as lost, and the journal is
 * replayed as far as it is whole. What such pages say about checksums is doubtful: blocks are then read unverified. Until
 * cow_space_rebuild nothing may be allocated or released. */
int cow_space_open_salvage(struct cow_dev *dev, const struct cow_space_state *state, uint64_t durable,
                           uint64_t cache_bytes, struct cow_space **space_out);
bool cow_space_journal_damaged(struct cow_space *space);
void cow_space_close(struct cow_space *space);
void cow_space_set_journal_pages(struct cow_space *space, uint32_t pages); /* tests: checkpoint above so many */
const struct cow_space_counters *cow_space_counters(struct cow_space *space);
uint64_t cow_space_cached_bytes(struct cow_space *space);
/* Record pages changed since the last commit: the caller commits early when it grows large. */
uint64_t cow_space_dirty_pages(struct cow_space *space);
void cow_space_get_state(struct cow_space *space, struct cow_space_state *state_out);

/* ---- Allocation: new blocks have count 1 and belong to the open generation ---- */

int cow_space_alloc_node(struct cow_space *space, cow_addr *addr_out);
/* Makes sure that the next node_count calls of alloc_node succeed without host space (ENOSPC comes here). On a
 * full host the last node blocks are for those that do not grow the store: deletions, and what commits write. */
int cow_space_reserve_nodes(struct cow_space *space, uint32_t node_count, bool grows);
/* A run of 1..want blocks in a packed segment. goal (0 = none): continue there when it is free, so that a file
 * written in order lies in order; a writer that finds its goal taken gets room behind it to grow. */
int cow_space_alloc_data(struct cow_space *space, cow_addr goal, uint32_t want, cow_addr *addr_out,
                         uint32_t *count_out);
/* A segment of its own for block_count (<= COW_SEGMENT_BLOCKS_MAX) blocks of one file. */
int cow_space_alloc_whole(struct cow_space *space, uint32_t block_count, cow_addr *addr_out);

/* The host is full, but a commit would give room: blocks were released that only become reusable with it, or the journal
 * could start anew. Whoever begins a change commits first then; a failed allocation is tried again after a commit. */
bool cow_space_wants_commit(const struct cow_space *space);
/* The host is full, and free blocks may still be backed there (while others that may be allocated are not): gives all back.
 * At any time. */
bool cow_space_wants_trim(const struct cow_space *space);
void cow_space_trim(struct cow_space *space);

/* ---- References to runs: cost grows with chunks touched, not blocks ---- */

int cow_space_ref(struct cow_space *space, cow_addr addr, uint32_t count);
/* Blocks whose count reaches 0 are released; *zeroed_out (may be NULL) says how many. */
int cow_space_unref(struct cow_space *space, cow_addr addr, uint32_t count, uint32_t *zeroed_out);
/* For a reference that nobody remembers any more, so that letting go of it cannot be tried again. If that fails (a record
 * must be read and cannot be), counts are too high from now on; cow_space_lost then answers the error, and the store must
 * not commit again: opened anew, it shows its last commit, whose counts are right. */
void cow_space_drop(struct cow_space *space, cow_addr addr, uint32_t count);
void cow_space_set_lost(struct cow_space *space, int rc); /* of something else that could not be let go; 0 = nothing */
int cow_space_lost(const struct cow_space *space);        /* 0 or a negative errno value */
int cow_space_refs(struct cow_space *space, cow_addr addr, uint32_t *refs_out);
int cow_space_owned(struct cow_space *space, cow_addr addr, bool *owned_out);
/* How many of the run's first blocks are owned (0..count): lets a writer overwrite a run in place. */
int cow_space_owned_run(struct cow_space *space, cow_addr addr, uint32_t count, uint32_t *owned_out);
/* How many blocks of the run have count 1. Chunks that are whole in the run cost O(1) when all are shared. */
int cow_space_exclusive(struct cow_space *space, cow_addr addr, uint32_t count, uint32_t *blocks_out);

/* ---- Data ---- */

/* Writes whole blocks and records their checksums. Only to owned blocks. */
int cow_space_write(struct cow_space *space, cow_addr addr, uint32_t count, const void *blocks);
/* Reads whole blocks and verifies them: -EUCLEAN names segment and block. */
int cow_space_read(struct cow_space *space, cow_addr addr, uint32_t count, void *blocks);

/* ---- Scrub: beside other work ----
 * Blocks that a segment has; 0 = there is no such segment. */
int cow_space_segment_blocks(struct cow_space *space, uint32_t segment, uint64_t *blocks_out);
/* Which of a chunk's blocks the durable commit has in use, a bit each. */
#define COW_SPACE_CHUNK_BYTES 32u
int cow_space_chunk_used(struct cow_space *space, uint32_t segment, uint32_t chunk, uint8_t used[COW_SPACE_CHUNK_BYTES],
                         bool *any_out);
/* Verifies a block on the medium: *damaged_out is false also for what is not in use any more. */
int cow_space_verify(struct cow_space *space, cow_addr addr, bool *damaged_out);

/* ---- Nodes: btree/ does their I/O through these ---- */

int cow_space_set_sum(struct cow_space *space, cow_addr addr, uint64_t hash); /* while the generation closes */
int cow_space_read_node(struct cow_space *space, cow_addr addr, void *block); /* verified */
int cow_space_write_nodes(struct cow_space *space, cow_addr addr, uint32_t count, const void *blocks); /* no sums */
struct cow_dev_file *cow_space_meta_file(struct cow_space *space); /* superblocks; opened by cow_space_open */

/* ---- Commit, called by txn in this order ----
 * close:  under the store's exclusive lock; all sums are set. Copies the changed pages into a batch, advances the
 *         open generation, and says what the superblock of the closing generation must hold.
 * write:  appends the batch to the journal (no sync).
 * sync:   syncs every file written since the last sync (segments, meta, journal) and folders with new files.
 * done:   the superblock is durable: released blocks become reusable (at most up to pinned, the oldest
 *         generation that a reader of another process sees; UINT64_MAX = none), large released runs are
 *         punched, dead segments removed, and the journal checkpointed when its half is full.
 * After an error from write or sync the store is failed: no more commits. An error from done is of housekeeping
 * only: the commit stands, the store stays usable, and the work is tried again at the next done. The next close comes
 * after done returned. */
int cow_space_commit_close(struct cow_space *space, struct cow_space_state *state_out);
int cow_space_commit_write(struct cow_space *space);
int cow_space_commit_sync(struct cow_space *space);
int cow_space_commit_done(struct cow_space *space, uint64_t durable, uint64_t pinned);

/* ---- Check: compares counts with those of a walk ----
 * The walk calls expect for every reference that it finds; end compares all segments and reports each run of
 * blocks that differs, and blocks that lie in no segment. Bounded memory: counts are kept run-length coded in a
 * sorted, merged array. */
struct cow_space_check;
int cow_space_check_begin(struct cow_space *space, struct cow_space_check **check_out);
int cow_space_check_expect(struct cow_space_check *check, cow_addr addr, uint32_t count);
void cow_space_check_cancel(struct cow_space_check *check);
void cow_space_check_partial(struct cow_space_check *check); /* the walk did not see everything: only counts that are too low */
/* While problem is called: which blocks it is about (count 0: none), and whether their records are what is damaged. */
void cow_space_check_where(const struct cow_space_check *check, bool *records_out, cow_addr *addr_out,
                           uint64_t *count_out);
/* As end, but sets right what differs: counts, minima, the segment table, totals, and the checksums of doubtful pages
 * (unverified is told each run of blocks whose bytes were taken as they are). Only after cow_space_open_salvage. */
struct cow_space_rebuild {
    void (*problem)(void *context, const char *text);
    void (*unverified)(void *context, cow_addr addr, uint32_t count);
    void *context;
    uint64_t errors, unverified_blocks;
};
int cow_space_rebuild(struct cow_space_check *check, struct cow_space_rebuild *rebuild);
/* Makes sure that an owned block never verifies again. */
int cow_space_spoil(struct cow_space *space, cow_addr addr);
int cow_space_check_end(struct cow_space_check *check, void (*problem)(void *context, const char *text), void *context,
                        uint64_t *errors_out);

#endif
