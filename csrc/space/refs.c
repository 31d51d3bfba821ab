/* SPDX-License-Identifier: Apache-2.0 */
/*
 * refs.c: counts on two levels. A run is cut at chunk borders into pieces; a piece is either a part of one chunk, and
 * changes the refs of its records and then the chunk's min, or one or more whole chunks of one chunk page, and changes
 * their adds in one loop. Each operation first loads what it will touch and refuses what it must refuse, then changes it
 * all. A whole chunk whose lowest count goes to 0 is the one case in which whole chunks need records: the blocks at the
 * minimum are released.
 */
#include "space/internal.h"

struct piece {
    uint32_t segment, chunk;
    uint32_t first, end; /* blocks of the chunk */
    uint32_t whole;      /* that many whole chunks from chunk on; 0 = a part of one */
    struct cow_chunk_page *chunks;
    uint32_t slot; /* of the chunk in its page */
    struct space_page *chunk_page, *record_page;
};

/* Cuts the next piece off the run [*block, end), of at most whole_max whole chunks. */
static bool piece_next(struct piece *piece, uint32_t segment, uint64_t *block, uint64_t end, uint32_t whole_max)
{
    if (*block >= end) return false;
    piece->segment = segment;
    piece->chunk = (uint32_t)(*block >> COW_CHUNK_SHIFT);
    piece->first = (uint32_t)*block & (COW_CHUNK_BLOCKS - 1);
    piece->record_page = NULL;
    uint64_t left = end - *block;
    if (piece->first == 0 && left >= COW_CHUNK_BLOCKS) {
        uint64_t chunks = left >> COW_CHUNK_SHIFT;
        uint32_t room = COW_CHUNKS_PER_PAGE - piece->chunk % COW_CHUNKS_PER_PAGE;
        if (room > whole_max) room = whole_max;
        piece->whole = chunks < room ? (uint32_t)chunks : room;
        piece->end = COW_CHUNK_BLOCKS;
        *block += (uint64_t)piece->whole << COW_CHUNK_SHIFT;
        return true;
    }
    uint64_t room = COW_CHUNK_BLOCKS - piece->first;
    piece->whole = 0;
    piece->end = piece->first + (uint32_t)(left < room ? left : room);
    *block += piece->end - piece->first;
    return true;
}

/* The i-th chunk of a piece of whole chunks, alone. */
static struct piece piece_chunk(const struct piece *piece, uint32_t i)
{
    struct piece one = *piece;
    one.chunk += i;
    one.slot += i;
    one.whole = 1;
    return one;
}

static int load_chunk(struct cow_space *space, struct piece *piece)
{
    int rc = space_page_get(space, space_chunk_key(piece->segment, piece->chunk), &piece->chunk_page);
    if (rc != 0) return rc;
    piece->chunks = space_chunks(piece->chunk_page);
    piece->slot = piece->chunk % COW_CHUNKS_PER_PAGE;
    return 0;
}

static int load_records(struct cow_space *space, struct piece *piece)
{
    return space_page_get(space, space_record_key(piece->segment, piece->chunk), &piece->record_page);
}

static void hold(struct cow_space *space, struct piece *piece, bool records)
{
    piece->chunk_page = space_page_held(space, space_chunk_key(piece->segment, piece->chunk));
    piece->chunks = space_chunks(piece->chunk_page);
    piece->slot = piece->chunk % COW_CHUNKS_PER_PAGE;
    if (records) piece->record_page = space_page_held(space, space_record_key(piece->segment, piece->chunk));
}

static int fail_free(const struct piece *piece, uint32_t slot)
{
    return cow_fail(COW_EDAMAGE, "segment %u block %u is free but referred to", piece->segment,
                    (piece->chunk << COW_CHUNK_SHIFT) + slot);
}

static int fail_many(const struct piece *piece)
{
    return cow_fail(EMLINK, "segment %u chunk %u: too many references", piece->segment, piece->chunk);
}

int32_t space_min(const int32_t *refs, int32_t old_min, uint32_t from)
{
    for (unsigned i = from; i < COW_CHUNK_BLOCKS; i++)
        if (refs[i] == old_min) return old_min; /* most often another block keeps it where it was */
    int32_t min = refs[0];
    for (unsigned i = 1; i < COW_CHUNK_BLOCKS; i++)
        if (refs[i] < min) min = refs[i];
    return min;
}

bool space_block_free(const struct cow_record_page *records, int32_t add, uint32_t slot, uint64_t reusable)
{
    return add + records->refs[slot] == 0 && records->generation[slot] <= reusable;
}

/* ---- Adding references ------------------------------------------------------------------------- */

static int prepare_ref_whole(const struct piece *piece)
{
    const int32_t *add = piece->chunks->add + piece->slot, *min = piece->chunks->min + piece->slot;
    for (uint32_t i = 0; i < piece->whole; i++) {
        if (add[i] + min[i] > 0 && add[i] < COW_REFS_MAX - 1) continue;
        struct piece one = piece_chunk(piece, i);
        return add[i] + min[i] <= 0 ? fail_free(&one, 0) : fail_many(&one);
    }
    return 0;
}

static int prepare_ref(struct cow_space *space, struct piece *piece)
{
    int rc = load_chunk(space, piece);
    if (rc != 0) return rc;
    if (piece->whole > 0) return prepare_ref_whole(piece);
    int32_t add = piece->chunks->add[piece->slot];
    rc = load_records(space, piece);
    if (rc != 0) return rc;
    const struct cow_record_page *records = space_records(piece->record_page);
    for (uint32_t i = piece->first; i < piece->end; i++) {
        if (add + records->refs[i] <= 0) return fail_free(piece, i);
        if (records->refs[i] >= COW_REFS_MAX) return fail_many(piece);
    }
    return 0;
}

static void apply_ref(struct cow_space *space, struct piece *piece)
{
    hold(space, piece, piece->whole == 0);
    if (piece->whole > 0) {
        int32_t *add = piece->chunks->add + piece->slot;
        for (uint32_t i = 0; i < piece->whole; i++) add[i]++;
        space_page_dirty(space, piece->chunk_page);
        return;
    }
    struct cow_record_page *records = space_records(piece->record_page);
    int32_t old_min = piece->chunks->min[piece->slot];
    bool had_min = false;
    for (uint32_t i = piece->first; i < piece->end; i++) {
        had_min |= records->refs[i] == old_min;
        records->refs[i]++;
    }
    space_page_dirty(space, piece->record_page);
    if (!had_min) return;
    int32_t min = space_min(records->refs, old_min, piece->end);
    if (min == old_min) return;
    piece->chunks->min[piece->slot] = min;
    space_page_dirty(space, piece->chunk_page);
}

int cow_space_ref(struct cow_space *space, cow_addr addr, uint32_t count)
{
    uint32_t segment = cow_addr_segment(addr);
    uint64_t first = cow_addr_block(addr), end = first + count, at = first;
    struct piece piece;
    if (count == 0) return 0;
    space_lock(space);
    int rc = space_range_check(space, segment, cow_addr_block(addr), count);
    while (rc == 0 && piece_next(&piece, segment, &at, end, COW_CHUNKS_PER_PAGE)) rc = prepare_ref(space, &piece);
    if (rc == 0) {
        at = first;
        while (piece_next(&piece, segment, &at, end, COW_CHUNKS_PER_PAGE)) apply_ref(space, &piece);
    }
    space_unlock(space);
    return rc;
}

/* ---- Taking references away -------------------------------------------------------------------- */

void space_hint_flush(struct cow_space *space)
{
    if (space->hint.count >= SPACE_HINT_BLOCKS && space->hint_count < SPACE_HINTS) {
        space->hints[space->hint_count++] = space->hint;
    }
    space->hint.count = 0;
}

static void hint_add(struct cow_space *space, cow_addr addr)
{
    if (space->hint.count == 0 || space->hint.addr + space->hint.count != addr) {
        space_hint_flush(space);
        space->hint = (struct space_hint){.addr = addr, .generation = space->open_generation};
    }
    space->hint.count++;
}

/* Its count has just become 0. */
static void release_block(struct cow_space *space, const struct piece *piece, uint32_t slot)
{
    struct cow_record_page *records = space_records(piece->record_page);
    uint32_t block = (piece->chunk << COW_CHUNK_SHIFT) + slot;
    /* No commit knows it: free for use at once. A whole chunk waits for the commit all the same, because then it is given
     * back to the host. */
    if (records->generation[slot] == space->open_generation && !piece->whole) {
        records->generation[slot] = 0;
        space->released_since_trim |= piece->segment != 0;
        space_scan_released(space, piece->segment, block);
        return;
    }
    records->generation[slot] = space->open_generation;
    if (piece->segment == 0) {
        space->nodes_pending++;
        space->nodes_pending_new++;
    } else {
        space->data_pending++;
        space->released_since_trim = true;
        hint_add(space, cow_addr_make(piece->segment, block));
    }
}

static int prepare_unref_whole(struct cow_space *space, const struct piece *piece)
{
    const int32_t *add = piece->chunks->add + piece->slot, *min = piece->chunks->min + piece->slot;
    for (uint32_t i = 0; i < piece->whole; i++) {
        if (add[i] + min[i] > 1) continue;
        struct piece one = piece_chunk(piece, i);
        if (add[i] + min[i] <= 0) return fail_free(&one, 0);
        int rc = load_records(space, &one);
        if (rc != 0) return rc;
    }
    return 0;
}

static int prepare_unref(struct cow_space *space, struct piece *piece)
{
    int rc = load_chunk(space, piece);
    if (rc != 0) return rc;
    if (piece->whole > 0) return prepare_unref_whole(space, piece);
    int32_t add = piece->chunks->add[piece->slot];
    rc = load_records(space, piece);
    if (rc != 0) return rc;
    const struct cow_record_page *records = space_records(piece->record_page);
    for (uint32_t i = piece->first; i < piece->end; i++) {
        if (add + records->refs[i] <= 0) return fail_free(piece, i);
    }
    return 0;
}

/* A whole chunk whose lowest count went to 0. */
static uint32_t release_lowest(struct cow_space *space, struct piece *piece)
{
    hold(space, piece, true);
    const struct cow_record_page *records = space_records(piece->record_page);
    int32_t add = piece->chunks->add[piece->slot];
    uint32_t zeroed = 0;
    for (uint32_t i = 0; i < COW_CHUNK_BLOCKS; i++) {
        if (add + records->refs[i] != 0) continue;
        release_block(space, piece, i);
        zeroed++;
    }
    space_page_dirty(space, piece->record_page);
    return zeroed;
}

static uint32_t unref_whole(struct cow_space *space, struct piece *piece)
{
    hold(space, piece, false);
    int32_t *add = piece->chunks->add + piece->slot;
    const int32_t *min = piece->chunks->min + piece->slot;
    uint32_t zeroed = 0, at_zero = 0;
    for (uint32_t i = 0; i < piece->whole; i++) {
        add[i]--;
        at_zero += add[i] + min[i] == 0;
    }
    space_page_dirty(space, piece->chunk_page);
    for (uint32_t i = 0; i < piece->whole && at_zero > 0; i++) {
        if (add[i] + min[i] != 0) continue;
        struct piece one = piece_chunk(piece, i);
        zeroed += release_lowest(space, &one);
        at_zero--;
    }
    return zeroed;
}

static uint32_t unref_part(struct cow_space *space, struct piece *piece)
{
    hold(space, piece, true);
    struct cow_record_page *records = space_records(piece->record_page);
    int32_t add = piece->chunks->add[piece->slot], min = piece->chunks->min[piece->slot];
    uint32_t zeroed = 0;
    for (uint32_t i = piece->first; i < piece->end; i++) {
        int32_t refs = --records->refs[i];
        COW_ASSERT(add + refs >= 0);
        if (refs < min) min = refs;
        if (add + refs != 0) continue;
        release_block(space, piece, i);
        zeroed++;
    }
    space_page_dirty(space, piece->record_page);
    if (min != piece->chunks->min[piece->slot]) {
        piece->chunks->min[piece->slot] = min;
        space_page_dirty(space, piece->chunk_page);
    }
    return zeroed;
}

int cow_space_unref(struct cow_space *space, cow_addr addr, uint32_t count, uint32_t *zeroed_out)
{
    uint32_t segment = cow_addr_segment(addr), zeroed = 0;
    uint64_t first = cow_addr_block(addr), end = first + count, at = first;
    struct piece piece;
    space_lock(space);
    int rc = count == 0 ? 0 : space_range_check(space, segment, cow_addr_block(addr), count);
    if (rc == 0) rc = space_dead_reserve(space);
    while (rc == 0 && piece_next(&piece, segment, &at, end, COW_CHUNKS_PER_PAGE)) rc = prepare_unref(space, &piece);
    if (rc == 0) {
        at = first;
        while (piece_next(&piece, segment, &at, end, COW_CHUNKS_PER_PAGE)) {
            zeroed += piece.whole > 0 ? unref_whole(space, &piece) : unref_part(space, &piece);
        }
        if (zeroed != 0) space_used_sub(space, segment, zeroed);
    }
    space_unlock(space);
    if (rc == 0 && zeroed_out != NULL) *zeroed_out = zeroed;
    return rc;
}

void cow_space_set_lost(struct cow_space *space, int rc)
{
    int expected = 0;
    if (rc != 0) (void)__atomic_compare_exchange_n(&space->lost, &expected, rc, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

int cow_space_lost(const struct cow_space *space) { return __atomic_load_n(&space->lost, __ATOMIC_RELAXED); }

void cow_space_drop(struct cow_space *space, cow_addr addr, uint32_t count)
{
    cow_space_set_lost(space, cow_space_unref(space, addr, count, NULL));
}

/* ---- Questions --------------------------------------------------------------------------------- */

int cow_space_refs(struct cow_space *space, cow_addr addr, uint32_t *refs_out)
{
    uint64_t at = cow_addr_block(addr), end = at + 1;
    struct piece piece;
    (void)piece_next(&piece, cow_addr_segment(addr), &at, end, 1);
    space_lock(space);
    int rc = load_chunk(space, &piece);
    if (rc == 0) rc = load_records(space, &piece);
    if (rc == 0) {
        *refs_out = (uint32_t)(piece.chunks->add[piece.slot] + space_records(piece.record_page)->refs[piece.first]);
    }
    space_unlock(space);
    return rc;
}

int cow_space_owned_run(struct cow_space *space, cow_addr addr, uint32_t count, uint32_t *owned_out)
{
    uint64_t at = cow_addr_block(addr), end = at + count;
    uint32_t owned = 0;
    bool more = true;
    int rc = 0;
    struct piece piece;
    space_lock(space);
    while (more && rc == 0 && piece_next(&piece, cow_addr_segment(addr), &at, end, 1)) {
        rc = load_chunk(space, &piece);
        if (rc == 0) rc = load_records(space, &piece);
        if (rc != 0) break;
        const struct cow_record_page *records = space_records(piece.record_page);
        int32_t add = piece.chunks->add[piece.slot];
        for (uint32_t i = piece.first; more && i < piece.end; i++) {
            more = add + records->refs[i] == 1 && records->generation[i] == space->open_generation;
            if (more) owned++;
        }
    }
    space_unlock(space);
    if (rc == 0) *owned_out = owned;
    return rc;
}

int cow_space_owned(struct cow_space *space, cow_addr addr, bool *owned_out)
{
    uint32_t owned = 0;
    int rc = cow_space_owned_run(space, addr, 1, &owned);
    if (rc == 0) *owned_out = owned == 1;
    return rc;
}

int cow_space_exclusive(struct cow_space *space, cow_addr addr, uint32_t count, uint32_t *blocks_out)
{
    uint64_t at = cow_addr_block(addr), end = at + count;
    uint32_t blocks = 0;
    int rc = 0;
    struct piece piece;
    space_lock(space);
    while (rc == 0 && piece_next(&piece, cow_addr_segment(addr), &at, end, 1)) {
        space->epoch++; /* nothing is changed, so one piece at a time is enough */
        rc = load_chunk(space, &piece);
        if (rc != 0) break;
        int32_t add = piece.chunks->add[piece.slot];
        if (add + piece.chunks->min[piece.slot] > 1) continue;
        rc = load_records(space, &piece);
        if (rc != 0) break;
        const struct cow_record_page *records = space_records(piece.record_page);
        for (uint32_t i = piece.first; i < piece.end; i++) blocks += add + records->refs[i] == 1;
    }
    space_unlock(space);
    if (rc == 0) *blocks_out = blocks;
    return rc;
}
