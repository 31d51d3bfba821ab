/* SPDX-License-Identifier: Apache-2.0 */
/*
 * alloc.c: free blocks, next-fit. Each packed segment (and segment 0) has a cursor that only moves on; chunks without
 * a free block cost one look at their counts. A pass looks at each chunk once; when it ends, the segment is left alone
 * until blocks have become reusable, so a segment full of blocks that are released but not reusable is not searched
 * again and again. Order of preference: the goal, the current segment, other packed segments with enough free blocks,
 * growth, a new segment; when the host is full, every free block there is.
 *
 * A writer whose goal was taken gets room to grow: a free run of some length, not right behind somebody else's blocks
 * but half-way into it, and the cursor moves past it. Requests for many blocks pass over tiny holes while
 * the segment is at least half full; they are left to small requests.
 */
#include <stdlib.h>

#include "space/internal.h"

#define GROW_BLOCKS_MAX 16384u  /* of a data segment: 64 MiB */
#define NODE_GROW_MAX 4096u
#define ROOM_BLOCKS 64u         /* the least that counts as room */
#define ROOM_CHUNKS 64u         /* how far to look for it */
#define HOLE_BLOCKS 16u         /* shorter holes are left to small requests */
#define TAIL_CHUNKS 64u         /* how far back to look for never-used nodes */

struct run {
    uint32_t block, count; /* count 0: none */
};

/* One chunk, loaded. */
struct chunk {
    uint32_t segment, index;
    uint32_t first, end; /* blocks of it that may be allocated */
    uint32_t slot;
    struct space_page *chunk_page, *record_page; /* no record page: no block is free */
};

static int chunk_load(struct cow_space *space, uint32_t segment, uint32_t index, uint64_t block_count,
                      struct chunk *chunk)
{
    uint64_t left = block_count - ((uint64_t)index << COW_CHUNK_SHIFT);
    chunk->segment = segment;
    chunk->index = index;
    chunk->first = segment == 0 && index == 0 ? SPACE_META_FIRST : 0;
    chunk->end = left < COW_CHUNK_BLOCKS ? (uint32_t)left : COW_CHUNK_BLOCKS;
    chunk->slot = index % COW_CHUNKS_PER_PAGE;
    chunk->record_page = NULL;
    int rc = space_page_get(space, space_chunk_key(segment, index), &chunk->chunk_page);
    if (rc != 0) return rc;
    const struct cow_chunk_page *chunks = space_chunks(chunk->chunk_page);
    if (chunks->add[chunk->slot] + chunks->min[chunk->slot] > 0) return 0;
    return space_page_get(space, space_record_key(segment, index), &chunk->record_page);
}

/* Free blocks of the chunk from a block on, at most limit: more need not be known. */
static uint32_t run_length(struct cow_space *space, const struct chunk *chunk, uint32_t from, uint32_t limit)
{
    if (chunk->record_page == NULL) return 0;
    const struct cow_record_page *records = space_records(chunk->record_page);
    int32_t add = space_chunks(chunk->chunk_page)->add[chunk->slot];
    uint32_t at = from, end = limit < chunk->end - from ? from + limit : chunk->end;
    while (at < end && space_block_free(records, add, at, space->reusable)) at++;
    return at - from;
}

/* The first free run of at least want blocks in the chunk, or else its longest one. */
static struct run chunk_search(struct cow_space *space, const struct chunk *chunk, uint32_t from, uint32_t want)
{
    struct run best = {0, 0};
    if (chunk->record_page == NULL) return best;
    uint32_t at = from > chunk->first ? from : chunk->first;
    while (at < chunk->end && best.count < want) {
        uint32_t length = run_length(space, chunk, at, want);
        if (length > best.count) best = (struct run){at, length};
        at += length + 1;
    }
    best.block += chunk->index << COW_CHUNK_SHIFT;
    return best;
}

/* Blocks of one loaded chunk come into use. The table page is held. */
static void take(struct cow_space *space, const struct chunk *chunk, struct run run)
{
    struct cow_record_page *records = space_records(chunk->record_page);
    struct cow_chunk_page *chunks = space_chunks(chunk->chunk_page);
    uint32_t first = run.block & (COW_CHUNK_BLOCKS - 1);
    int32_t add = chunks->add[chunk->slot], old_min = chunks->min[chunk->slot];
    COW_ASSERT(run.count > 0 && first >= chunk->first && first + run.count <= chunk->end);
    for (uint32_t i = first; i < first + run.count; i++) {
        COW_ASSERT(space_block_free(records, add, i, space->reusable));
        records->refs[i] = 1 - add;
        records->generation[i] = space->open_generation;
    }
    space_page_dirty(space, chunk->record_page);
    int32_t min = space_min(records->refs, old_min, first + run.count);
    if (min != old_min) {
        chunks->min[chunk->slot] = min;
        space_page_dirty(space, chunk->chunk_page);
    }
    space_used_add(space, chunk->segment, run.count);
}

/* ---- Passes ------------------------------------------------------------------------------------ */

static void pass_update(struct cow_space *space, struct space_scan *scan, uint64_t block_count, bool again)
{
    if (scan->pass == space->reusable + 1 && !again) return;
    scan->pass = space->reusable + 1;
    scan->chunks_left = (uint32_t)((block_count + COW_CHUNK_BLOCKS - 1) >> COW_CHUNK_SHIFT) + 1;
}

/* A pass may look at any number of chunks; only the table page must stay to the end of the operation. */
static void pins_limit(struct cow_space *space, const struct space_scan *scan)
{
    space->epoch++;
    if (scan->segment != 0) {
        (void)space_page_held(space, space_key(COW_PAGE_SEGMENTS, 0, scan->segment / COW_SEGMENTS_PER_PAGE));
    }
}

/* Continues the pass to a run of at least hole blocks (at most want of it are taken). */
static int pass_take(struct cow_space *space, struct space_scan *scan, uint64_t block_count, uint32_t want,
                     uint32_t hole, struct run *run_out)
{
    *run_out = (struct run){0, 0};
    pass_update(space, scan, block_count, false);
    while (scan->chunks_left > 0) {
        if (scan->cursor >= block_count) scan->cursor = 0;
        uint32_t index = scan->cursor >> COW_CHUNK_SHIFT;
        struct chunk chunk;
        int rc = chunk_load(space, scan->segment, index, block_count, &chunk);
        if (rc != 0) return rc;
        struct run run = chunk_search(space, &chunk, scan->cursor & (COW_CHUNK_BLOCKS - 1), want);
        if (run.count >= hole) {
            if (run.count > want) run.count = want;
            take(space, &chunk, run);
            scan->cursor = run.block + run.count;
            *run_out = run;
            return 0;
        }
        pins_limit(space, scan);
        /* Wraps to 0 behind the last chunk of a segment of 2^32 blocks as well. */
        scan->cursor = (index + 1) << COW_CHUNK_SHIFT;
        scan->chunks_left--;
    }
    return 0;
}

/* A block that may be used again at once: worth a look if the pass is over. */
void space_scan_released(struct cow_space *space, uint32_t segment, uint32_t block)
{
    struct space_scan *scan = &space->nodes;
    if (segment != 0) {
        if (space->scan_count == 0) return;
        scan = &space->scans[space->scan_current];
        if (scan->segment != segment) return;
    }
    if (scan->pass != space->reusable + 1 || scan->chunks_left != 0) return;
    scan->cursor = block;
    scan->chunks_left = 1;
}

/* ---- Nodes ------------------------------------------------------------------------------------- */

static int grow_nodes(struct cow_space *space, uint64_t need)
{
    uint64_t old = space->state.meta_blocks;
    uint64_t step = old / 8;
    if (step > NODE_GROW_MAX) step = NODE_GROW_MAX;
    uint64_t wish = old + (need > step ? need : step), least = old + need;
    wish = (wish + SPACE_GROW_BLOCKS - 1) / SPACE_GROW_BLOCKS * SPACE_GROW_BLOCKS;
    least = (least + SPACE_GROW_BLOCKS - 1) / SPACE_GROW_BLOCKS * SPACE_GROW_BLOCKS;
    int rc = space_meta_grow(space, wish);
    if (rc == -ENOSPC && least < wish) rc = space_meta_grow(space, least);
    if (rc != 0) return rc;
    if (space->nodes.pass == space->reusable + 1 && space->nodes.chunks_left == 0) {
        space->nodes.cursor = (uint32_t)old;
        space->nodes.chunks_left = (uint32_t)((space->state.meta_blocks - old) >> COW_CHUNK_SHIFT) + 1;
    }
    return 0;
}

int cow_space_alloc_node(struct cow_space *space, cow_addr *addr_out)
{
    struct run run;
    space_lock(space);
    int rc = pass_take(space, &space->nodes, space->state.meta_blocks, 1, 1, &run);
    if (rc == 0 && run.count == 0) {
        rc = grow_nodes(space, 1);
        if (rc == -ENOSPC) { /* what the pass left behind */
            pass_update(space, &space->nodes, space->state.meta_blocks, true);
            rc = 0;
        }
        if (rc == 0) rc = pass_take(space, &space->nodes, space->state.meta_blocks, 1, 1, &run);
        if (rc == 0 && run.count == 0) rc = cow_fail(ENOSPC, "no room for a tree node");
    }
    space_unlock(space);
    if (rc == 0) *addr_out = cow_addr_make(0, run.block);
    return rc;
}

/* Never-used node blocks at the end of segment 0: free for sure, whatever readers pin. */
static int unused_tail(struct cow_space *space, uint64_t *blocks_out)
{
    uint64_t blocks = 0, block_count = space->state.meta_blocks;
    uint32_t index = (uint32_t)((block_count + COW_CHUNK_BLOCKS - 1) >> COW_CHUNK_SHIFT);
    for (uint32_t looked = 0; index > 0 && looked < TAIL_CHUNKS; looked++) {
        struct chunk chunk;
        int rc = chunk_load(space, 0, --index, block_count, &chunk);
        if (rc != 0) return rc;
        if (chunk.record_page == NULL) break;
        const struct cow_record_page *records = space_records(chunk.record_page);
        int32_t add = space_chunks(chunk.chunk_page)->add[chunk.slot];
        uint32_t at = chunk.end;
        while (at > chunk.first && space_block_free(records, add, at - 1, 0)) at--;
        blocks += chunk.end - at;
        if (at > chunk.first) break;
    }
    *blocks_out = blocks;
    return 0;
}

static int nodes_available(struct cow_space *space, uint64_t *blocks_out)
{
    uint64_t unused = space->state.meta_blocks - SPACE_META_FIRST - space->state.node_blocks;
    if (!space->nodes_pending_known) {
        uint64_t tail;
        int rc = unused_tail(space, &tail);
        if (rc != 0) return rc;
        space->nodes_pending = unused > tail ? unused - tail : 0;
        space->nodes_pending_known = true;
    }
    *blocks_out = unused > space->nodes_pending ? unused - space->nodes_pending : 0;
    return 0;
}

bool cow_space_wants_commit(const struct cow_space *space)
{
    return __atomic_load_n(&space->commit_helps, __ATOMIC_RELAXED);
}

int cow_space_reserve_nodes(struct cow_space *space, uint32_t node_count, bool grows)
{
    uint64_t available = 0, need = node_count + (grows ? SPACE_LOW(SPACE_NODE_SLACK) : 0u);
    space_lock(space);
    int rc = space_journal_room(space, grows ? SPACE_JOURNAL_EMERGENCY : 0);
    if (rc == 0) rc = nodes_available(space, &available);
    if (rc == 0 && available < (uint64_t)node_count + SPACE_NODE_SLACK) {
        rc = grow_nodes(space, node_count + SPACE_NODE_SLACK - available);
        if (rc == -ENOSPC && available < need + SPACE_LOW(SPACE_NODE_SLACK) / 2 && space->nodes_pending > 0)
            space_want_commit(space, true);
        /* The slack is for this: deleting must be possible when the host is full. */
        if (rc == -ENOSPC && available >= need) rc = 0;
    }
    space_unlock(space);
    return rc;
}

/* ---- Packed segments --------------------------------------------------------------------------- */

static int scan_add(struct cow_space *space, uint32_t segment)
{
    if (space->scan_count == space->scan_capacity) {
        uint32_t capacity = space->scan_capacity == 0 ? 16 : 2 * space->scan_capacity;
        struct space_scan *scans = realloc(space->scans, capacity * sizeof *scans);
        if (scans == NULL) return cow_fail(ENOMEM, "list of segments");
        space->scans = scans;
        space->scan_capacity = capacity;
    }
    space->scans[space->scan_count++] = (struct space_scan){.segment = segment};
    return 0;
}

static void scan_select(struct cow_space *space, uint32_t at)
{
    space->scan_current = at;
    space->state.packed_segment = space->scans[at].segment;
}

static int scan_new(struct cow_space *space)
{
    uint32_t segment;
    int rc = scan_add(space, 0);
    if (rc != 0) return rc;
    space->scan_count--; /* there is memory for it */
    rc = space_segment_new(space, COW_SEGMENT_PACKED, SPACE_GROW_BLOCKS, &segment);
    if (rc != 0) return rc;
    rc = scan_add(space, segment);
    COW_ASSERT(rc == 0);
    scan_select(space, space->scan_count - 1);
    return 0;
}

/* The current segment must be there. */
static int scan_begin(struct cow_space *space)
{
    if (space->scan_count != 0) return 0;
    if (space->state.packed_segment == 0) return scan_new(space);
    struct space_page *page;
    struct cow_segment_entry *entry;
    int rc = space_entry_get(space, space->state.packed_segment, &page, &entry);
    if (rc != 0) return rc;
    if (entry->state != COW_SEGMENT_LIVE || entry->kind != COW_SEGMENT_PACKED) {
        return cow_fail(COW_EDAMAGE, "segment %u is not a packed one", space->state.packed_segment);
    }
    return scan_add(space, space->state.packed_segment);
}

/* Reads the table once, to know all packed segments. */
static int scan_list(struct cow_space *space)
{
    if (space->scans_complete) return 0;
    uint32_t known = space->scan_count;
    int rc = 0;
    for (uint32_t segment = 1; rc == 0 && segment < space->state.next_segment; segment++) {
        struct space_page *page;
        struct cow_segment_entry *entry;
        space->epoch++; /* nothing of the operation is held yet */
        rc = space_entry_get(space, segment, &page, &entry);
        if (rc != 0 || entry->state != COW_SEGMENT_LIVE || entry->kind != COW_SEGMENT_PACKED) continue;
        bool listed = false;
        for (uint32_t i = 0; i < known; i++) listed |= space->scans[i].segment == segment;
        if (!listed) rc = scan_add(space, segment);
    }
    if (rc != 0) space->scan_count = known;
    space->scans_complete = rc == 0;
    return rc;
}

static int grow_packed(struct cow_space *space, struct space_scan *scan, struct cow_segment_entry *entry)
{
    uint32_t old = entry->block_count;
    if (old >= COW_SEGMENT_BLOCKS_MAX) return -ENOSPC;
    uint32_t step = old / 4 / SPACE_GROW_BLOCKS * SPACE_GROW_BLOCKS;
    if (step < SPACE_GROW_BLOCKS) step = SPACE_GROW_BLOCKS;
    if (step > GROW_BLOCKS_MAX) step = GROW_BLOCKS_MAX;
    if (step > COW_SEGMENT_BLOCKS_MAX - old) step = COW_SEGMENT_BLOCKS_MAX - old;
    int rc = space_segment_grow(space, scan->segment, old + step);
    if (rc == -ENOSPC && step > SPACE_GROW_BLOCKS) {
        step = SPACE_GROW_BLOCKS;
        rc = space_segment_grow(space, scan->segment, old + step);
    }
    if (rc != 0) return rc;
    uint32_t chunk_count = step >> COW_CHUNK_SHIFT;
    if (scan->pass == space->reusable + 1 && scan->chunks_left == 0) {
        scan->cursor = old;
        scan->chunks_left = chunk_count;
    }
    return 0;
}

static struct space_scan *scan_find(struct cow_space *space, uint32_t segment)
{
    for (uint32_t i = 0; i < space->scan_count; i++) {
        if (space->scans[i].segment == segment) return &space->scans[i];
    }
    return NULL;
}

/* Takes what is free right at the address, within one chunk. */
static int take_at(struct cow_space *space, cow_addr addr, uint32_t want, struct run *run_out)
{
    uint32_t segment = cow_addr_segment(addr), block = cow_addr_block(addr);
    struct space_page *page;
    struct cow_segment_entry *entry;
    *run_out = (struct run){0, 0};
    if (segment == 0 || segment >= space->state.next_segment) return 0;
    int rc = space_entry_get(space, segment, &page, &entry);
    if (rc != 0) return rc;
    if (entry->state != COW_SEGMENT_LIVE || entry->kind != COW_SEGMENT_PACKED) return 0;
    if (block == entry->block_count && block < COW_SEGMENT_BLOCKS_MAX) {
        struct space_scan none = {.segment = segment}, *scan = scan_find(space, segment);
        rc = grow_packed(space, scan != NULL ? scan : &none, entry);
        if (rc == -ENOSPC) return 0;
        if (rc != 0) return rc;
    }
    if (block >= entry->block_count) return 0;
    struct chunk chunk;
    rc = chunk_load(space, segment, block >> COW_CHUNK_SHIFT, entry->block_count, &chunk);
    if (rc != 0) return rc;
    struct run run = {block, run_length(space, &chunk, block & (COW_CHUNK_BLOCKS - 1), want)};
    if (run.count > want) run.count = want;
    if (run.count != 0) take(space, &chunk, run);
    *run_out = run;
    return 0;
}

/* Takes the start of a room for a writer that will go on, and moves the cursor past the room. */
static int take_room(struct cow_space *space, struct space_scan *scan, uint32_t block_count, uint32_t want,
                     struct run *run_out)
{
    uint32_t chunk_count = block_count >> COW_CHUNK_SHIFT;
    uint32_t index = scan->cursor >> COW_CHUNK_SHIFT;
    *run_out = (struct run){0, 0};
    for (uint32_t looked = 0; looked < ROOM_CHUNKS && looked < chunk_count; looked++, index++) {
        if (index >= chunk_count) index = 0;
        struct chunk chunk;
        int rc = chunk_load(space, scan->segment, index, block_count, &chunk);
        if (rc != 0) return rc;
        struct run room = chunk_search(space, &chunk, 0, want > ROOM_BLOCKS ? want : ROOM_BLOCKS);
        if (room.count < ROOM_BLOCKS) continue;
        bool behind_other = (room.block & (COW_CHUNK_BLOCKS - 1)) != 0;
        if (behind_other && want <= room.count / 4) {
            room.block += room.count / 2;
            room.count -= room.count / 2;
        }
        struct run run = {room.block, room.count < want ? room.count : want};
        take(space, &chunk, run);
        uint32_t end = room.block + room.count;
        if (looked == 0 ? end > scan->cursor : scan->chunks_left >= looked) {
            scan->cursor = end;
            scan->chunks_left -= looked < scan->chunks_left ? looked : 0;
        }
        *run_out = run;
        return 0;
    }
    return 0;
}

/* ---- Data -------------------------------------------------------------------------------------- */

enum how { HOW_PASS, HOW_ROOM, HOW_GROW, HOW_ANYTHING };

/* One way of finding blocks in one packed segment. */
static int take_from(struct cow_space *space, uint32_t at, enum how how, uint32_t want, struct run *run_out)
{
    struct space_scan *scan = &space->scans[at];
    struct space_page *page;
    struct cow_segment_entry *entry;
    *run_out = (struct run){0, 0};
    if (how == HOW_PASS && scan->pass == space->reusable + 1 && scan->chunks_left == 0) return 0;
    int rc = space_entry_get(space, scan->segment, &page, &entry);
    if (rc != 0) return rc;
    if (how == HOW_GROW) {
        rc = grow_packed(space, scan, entry);
        if (rc != 0) return rc;
    }
    if (how == HOW_ROOM) return take_room(space, scan, entry->block_count, want, run_out);
    bool crowded = at != space->scan_current && entry->used_blocks >= entry->block_count / 16 * 15;
    if (how == HOW_PASS && crowded) return 0;
    uint32_t hole = 1;
    if (how == HOW_PASS && entry->used_blocks >= entry->block_count / 2) hole = want < HOLE_BLOCKS ? want : HOLE_BLOCKS;
    if (how == HOW_ANYTHING) pass_update(space, scan, entry->block_count, true);
    return pass_take(space, scan, entry->block_count, want, hole, run_out);
}

/* Tries all packed segments, the current one first. */
static int take_from_any(struct cow_space *space, enum how how, uint32_t want, struct run *run_out)
{
    uint32_t first = space->scan_current;
    for (uint32_t i = 0; i < space->scan_count; i++) {
        uint32_t at = (first + i) % space->scan_count;
        int rc = take_from(space, at, how, want, run_out);
        if (rc == -ENOSPC && how == HOW_GROW) continue;
        if (rc != 0) return rc;
        if (run_out->count == 0) continue;
        scan_select(space, at);
        return 0;
    }
    return 0;
}

/* New room on the host, and if there is none, whatever is left. */
static int take_new(struct cow_space *space, uint32_t want, struct run *run_out)
{
    int rc = take_from_any(space, HOW_GROW, want, run_out);
    if (rc != 0 || run_out->count != 0) return rc;
    rc = scan_new(space);
    if (rc == 0) return take_from(space, space->scan_current, HOW_PASS, want, run_out);
    if (rc != -ENOSPC) return rc;
    return take_from_any(space, HOW_ANYTHING, want, run_out);
}

static int take_data(struct cow_space *space, cow_addr goal, uint32_t want, cow_addr *addr_out, uint32_t *count_out)
{
    struct run run;
    int rc = take_at(space, goal, want, &run);
    if (rc != 0) return rc;
    if (run.count != 0) {
        *addr_out = goal;
        *count_out = run.count;
        return 0;
    }
    rc = scan_begin(space);
    if (rc == 0 && goal != 0) {
        rc = take_from(space, space->scan_current, HOW_ROOM, want, &run);
        if (rc == 0 && run.count == 0) rc = take_from(space, space->scan_current, HOW_GROW, want, &run);
        if (rc == -ENOSPC) rc = 0;
    }
    if (rc == 0 && run.count == 0) rc = take_from(space, space->scan_current, HOW_PASS, want, &run);
    if (rc == 0 && run.count == 0) rc = scan_list(space);
    if (rc == 0 && run.count == 0) rc = take_from_any(space, HOW_PASS, want, &run);
    if (rc == 0 && run.count == 0) rc = take_new(space, want, &run);
    if (rc == 0 && run.count == 0) rc = cow_fail(ENOSPC, "no room for %u blocks of data", want);
    if (rc != 0) return rc;
    *addr_out = cow_addr_make(space->state.packed_segment, run.block);
    *count_out = run.count;
    return 0;
}

int cow_space_alloc_data(struct cow_space *space, cow_addr goal, uint32_t want, cow_addr *addr_out, uint32_t *count_out)
{
    cow_addr addr = 0;
    uint32_t count = 0;
    if (want == 0) return cow_fail(EINVAL, "a run of no blocks");
    if (want > COW_SEGMENT_BLOCKS_MAX) want = COW_SEGMENT_BLOCKS_MAX;
    space_lock(space);
    int rc = space_journal_room(space, 2 * (want >> COW_CHUNK_SHIFT));
    if (rc == 0) rc = take_data(space, goal, want, &addr, &count);
    if (rc == -ENOSPC) space_host_full(space);
    if (rc == -ENOSPC && space->data_pending > 0) space_want_commit(space, true);
    /* Over the chunk's end, as long as it goes on there; what there is, is good when it does not. */
    while (rc == 0 && count < want && (cow_addr_block(addr) + count) % COW_CHUNK_BLOCKS == 0) {
        struct run run;
        if (take_at(space, addr + count, want - count, &run) != 0 || run.count == 0) break;
        count += run.count;
    }
    space_unlock(space);
    if (rc != 0) return rc;
    *addr_out = addr;
    *count_out = count;
    return 0;
}

/* ---- Whole-file segments ----------------------------------------------------------------------- */

static void use_whole(struct cow_space *space, uint32_t segment, uint32_t block_count)
{
    for (uint32_t first = 0; first < block_count; first += COW_CHUNK_BLOCKS) {
        uint32_t index = first >> COW_CHUNK_SHIFT;
        uint32_t count = block_count - first < COW_CHUNK_BLOCKS ? block_count - first : COW_CHUNK_BLOCKS;
        struct space_page *record_page = space_page_held(space, space_record_key(segment, index));
        struct space_page *chunk_page = space_page_held(space, space_chunk_key(segment, index));
        struct cow_record_page *records = space_records(record_page);
        for (uint32_t i = 0; i < count; i++) {
            COW_ASSERT(records->refs[i] == 0 && records->generation[i] == 0);
            records->refs[i] = 1;
            records->generation[i] = space->open_generation;
        }
        space_page_dirty(space, record_page);
        if (count < COW_CHUNK_BLOCKS) continue; /* blocks that do not exist keep the minimum at 0 */
        space_chunks(chunk_page)->min[index % COW_CHUNKS_PER_PAGE] = 1;
        space_page_dirty(space, chunk_page);
    }
    space_used_add(space, segment, block_count);
}

int cow_space_alloc_whole(struct cow_space *space, uint32_t block_count, cow_addr *addr_out)
{
    if (block_count == 0 || block_count > COW_SEGMENT_BLOCKS_MAX) {
        return cow_fail(EINVAL, "a segment of %u blocks", block_count);
    }
    uint32_t chunk_count = (block_count + COW_CHUNK_BLOCKS - 1) >> COW_CHUNK_SHIFT;
    space_lock(space);
    uint32_t segment = space->state.next_segment;
    int rc = space_journal_room(space, chunk_count + 4);
    for (uint32_t chunk = 0; rc == 0 && chunk < chunk_count; chunk++) {
        rc = space_page_add_empty(space, space_record_key(segment, chunk));
        if (rc == 0) rc = space_page_add_empty(space, space_chunk_key(segment, chunk));
    }
    if (rc == 0) rc = space_segment_new(space, COW_SEGMENT_WHOLE, block_count, &segment);
    if (rc == 0) use_whole(space, segment, block_count);
    space_unlock(space);
    if (rc == 0) *addr_out = cow_addr_make(segment, 0);
    return rc;
}
