/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scrub: verifies every block that the last commit has in use, segment by segment in the order in which they lie on the
 * medium, a few blocks a step, so that it can run for hours beside other work. It holds no lock between steps; blocks
 * that are written or released meanwhile are not its business. Damaged blocks are collected and given to their files at
 * the end, which needs one walk over the trees with writers waiting.
 */
#include <stdlib.h>

#include "check/check.h"

#define CHUNK 256u

struct cow_scrub {
    cow_store *store;
    uint32_t segment, segment_end;
    uint64_t block, blocks; /* next one, and how many the segment has */
    uint8_t used[COW_SPACE_CHUNK_BYTES]; /* of the chunk of the next block */
    bool entered, done;
    struct cow_runs runs;
    uint64_t damaged_records;
    cow_scrub_progress progress;
};

int cow_scrub_open(cow_store *store, cow_scrub **scrub_out)
{
    if (!store || !scrub_out) return cow_fail(EINVAL, "scrub needs a store and a place for its state");
    int rc = cow_store_usable(store);
    if (rc) return rc;
    cow_scrub *scrub = calloc(1, sizeof *scrub);
    if (!scrub) return cow_fail(ENOMEM, "scrub");
    struct cow_space_state state;
    cow_space_get_state(store->space, &state);
    scrub->store = store;
    scrub->segment_end = state.next_segment;
    scrub->progress.blocks_total = state.node_blocks + state.data_blocks;
    *scrub_out = scrub;
    return 0;
}

void cow_scrub_close(cow_scrub *scrub)
{
    if (!scrub) return;
    cow_runs_deinit(&scrub->runs);
    free(scrub);
}

static void damaged_records(cow_scrub *scrub, cow_found_fn found, void *context)
{
    struct cow_reporter reporter = {scrub->store, found, context, 0};
    cow_finding finding = {.kind = COW_FOUND_RECORDS, .address = cow_addr_make(scrub->segment, (uint32_t)scrub->block),
                           .block_count = CHUNK};
    cow_report(&reporter, &finding, NULL, "records of segment %u: %s", scrub->segment, cow_error_detail());
    scrub->damaged_records++;
    scrub->progress.findings++;
}

/* The next block in use: 1 and its address, 0 at the end. Looks at no more than *chunks chunks; 2 = call again. */
static int next_block(cow_scrub *scrub, uint32_t *chunks, cow_found_fn found, void *context, cow_addr *addr_out)
{
    struct cow_space *space = scrub->store->space;
    while (scrub->segment < scrub->segment_end) {
        int rc = 0;
        if (!scrub->entered) {
            if (*chunks == 0) return 2;
            --*chunks;
            rc = cow_space_segment_blocks(space, scrub->segment, &scrub->blocks);
            if (rc && rc != -COW_EDAMAGE) return rc;
            scrub->block = 0;
            if (rc) damaged_records(scrub, found, context);
            if (rc) scrub->blocks = 0;
            scrub->entered = true;
        }
        while (scrub->block < scrub->blocks) {
            uint32_t slot = (uint32_t)scrub->block % CHUNK;
            bool any = true;
            if (slot == 0) {
                if (*chunks == 0) return 2;
                --*chunks;
                rc = cow_space_chunk_used(space, scrub->segment, (uint32_t)(scrub->block / CHUNK), scrub->used, &any);
                if (rc && rc != -COW_EDAMAGE) return rc;
                if (rc) damaged_records(scrub, found, context);
                if (rc) memset(scrub->used, 0, sizeof scrub->used);
                if (rc || !any) {
                    scrub->block += CHUNK;
                    continue;
                }
            }
            scrub->block++;
            if (!(scrub->used[slot / 8] & 1u << (slot % 8))) continue;
            *addr_out = cow_addr_make(scrub->segment, (uint32_t)(scrub->block - 1));
            return 1;
        }
        scrub->segment++;
        scrub->entered = false;
    }
    return 0;
}

static int name_owners(cow_scrub *scrub, cow_found_fn found, void *context)
{
    cow_store *store = scrub->store;
    struct cow_reporter reporter = {store, found, context, 0};
    if (scrub->runs.count == 0) return 0;
    if (cow_transaction_mine(store)) return cow_fail(EBUSY, "a scrub cannot end inside of a transaction");
    cow_commits_hold(store);
    pthread_rwlock_wrlock(&store->writers);
    int rc = store->readonly ? 0 : cow_table_flush(store);
    if (!rc) rc = cow_report_owners(&reporter, &scrub->runs, COW_FOUND_DATA);
    pthread_rwlock_unlock(&store->writers);
    cow_commits_let_go(store);
    cow_finding rest = {.kind = COW_FOUND_DATA, .address = scrub->runs.run[0].addr, .block_count = scrub->runs.run[0].count};
    if (!rc && scrub->runs.more)
        cow_report(&reporter, &rest, NULL, "%llu more damaged blocks", (unsigned long long)scrub->runs.more);
    if (!rc && reporter.count == 0) cow_report(&reporter, &rest, NULL, "damaged blocks that no file refers to any more");
    scrub->progress.findings += reporter.count;
    return rc;
}

int cow_scrub_step(cow_scrub *scrub, uint32_t block_count, cow_found_fn found, void *context,
                   cow_scrub_progress *progress_out)
{
    if (!scrub || !progress_out) return cow_fail(EINVAL, "scrub needs its state and a place for the progress");
    int rc = cow_store_usable(scrub->store);
    uint32_t chunks = block_count / 4 + 1; /* looking for blocks is work as well */
    int more = 1;
    while (!rc && more == 1 && block_count-- > 0) {
        cow_addr addr = 0;
        bool damaged = false;
        more = next_block(scrub, &chunks, found, context, &addr);
        if (more != 1) break;
        rc = cow_space_verify(scrub->store->space, addr, &damaged);
        scrub->progress.blocks_done++;
        if (!rc && damaged) {
            scrub->progress.damaged++;
            rc = cow_runs_add(&scrub->runs, addr, 1);
        }
    }
    if (!rc && more < 0) rc = more;
    if (!rc && more == 0 && !scrub->done) {
        rc = name_owners(scrub, found, context);
        scrub->done = true;
    }
    if (rc) return rc;
    *progress_out = scrub->progress;
    return more != 0;
}
