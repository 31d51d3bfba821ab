/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.c: compares what a walk found with what the records say. Expected references are collected as runs and folded,
 * from time to time, into a sorted array of disjoint spans with a count each; the batch grows with the array, so
 * folding costs O(n log n) in all. At the end records and spans are gone through side by side in address order.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "space/check.h"

#define BATCH_MIN 4096u

/* ---- Collecting -------------------------------------------------------------------------------- */

int cow_space_check_begin(struct cow_space *space, struct cow_space_check **check_out)
{
    struct cow_space_check *check = calloc(1, sizeof *check);
    if (check == NULL) return cow_fail(ENOMEM, "check");
    check->space = space;
    *check_out = check;
    return 0;
}

static void check_free(struct cow_space_check *check)
{
    free(check->spans);
    free(check->starts);
    free(check->ends);
    free(check);
}

static int compare_addrs(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static size_t span_push(struct span *spans, size_t count, struct span span)
{
    if (span.count == 0 || span.refs == 0) return count;
    struct span *last = count > 0 ? &spans[count - 1] : NULL;
    if (last != NULL && last->addr + last->count == span.addr && last->refs == span.refs) {
        last->count += span.count;
        return count;
    }
    spans[count] = span;
    return count + 1;
}

/* One sweep over the borders of the runs and of the old spans. */
static size_t sweep(const struct cow_space_check *check, struct span *out)
{
    size_t start = 0, end = 0, old = 0, count = 0;
    bool inside = false; /* of spans[old] */
    cow_addr position = 0;
    while (end < check->run_count || old < check->span_count) {
        uint64_t refs = start - end, next = UINT64_MAX;
        if (start < check->run_count && check->starts[start] < next) next = check->starts[start];
        if (end < check->run_count && check->ends[end] < next) next = check->ends[end];
        if (old < check->span_count) {
            const struct span *span = &check->spans[old];
            uint64_t border = inside ? span->addr + span->count : span->addr;
            if (inside) refs += span->refs;
            if (border < next) next = border;
        }
        count = span_push(out, count, (struct span){position, next - position, refs});
        position = next;
        while (start < check->run_count && check->starts[start] == next) start++;
        while (end < check->run_count && check->ends[end] == next) end++;
        if (inside && check->spans[old].addr + check->spans[old].count == next) {
            inside = false;
            old++;
        }
        if (!inside && old < check->span_count && check->spans[old].addr == next) inside = true;
    }
    return count;
}

int space_check_fold(struct cow_space_check *check)
{
    if (check->run_count == 0) return 0;
    qsort(check->starts, check->run_count, sizeof *check->starts, compare_addrs);
    qsort(check->ends, check->run_count, sizeof *check->ends, compare_addrs);
    struct span *spans = malloc((2 * (check->run_count + check->span_count) + 1) * sizeof *spans);
    if (spans == NULL) return cow_fail(ENOMEM, "check");
    check->span_count = sweep(check, spans);
    free(check->spans);
    struct span *smaller = realloc(spans, (check->span_count + 1) * sizeof *spans);
    check->spans = smaller != NULL ? smaller : spans;
    check->run_count = 0;
    return 0;
}

static int batch_grow(struct cow_space_check *check)
{
    size_t capacity = check->span_count / 2 < BATCH_MIN ? BATCH_MIN : check->span_count / 2;
    if (capacity <= check->run_capacity) return 0;
    uint64_t *starts = realloc(check->starts, capacity * sizeof *starts);
    if (starts != NULL) check->starts = starts;
    uint64_t *ends = realloc(check->ends, capacity * sizeof *ends);
    if (ends != NULL) check->ends = ends;
    if (starts == NULL || ends == NULL) return cow_fail(ENOMEM, "check");
    check->run_capacity = capacity;
    return 0;
}

int cow_space_check_expect(struct cow_space_check *check, cow_addr addr, uint32_t count)
{
    if (count == 0) return 0;
    if (check->run_count == check->run_capacity) {
        int rc = space_check_fold(check);
        if (rc == 0) rc = batch_grow(check);
        if (rc != 0) return rc;
    }
    check->starts[check->run_count] = addr;
    check->ends[check->run_count] = addr + count < addr ? UINT64_MAX : addr + count;
    check->run_count++;
    return 0;
}

/* ---- Comparing --------------------------------------------------------------------------------- */

void cow_space_check_cancel(struct cow_space_check *check) { check_free(check); }

void cow_space_check_partial(struct cow_space_check *check) { check->partial = true; }

void cow_space_check_where(const struct cow_space_check *check, bool *records_out, cow_addr *addr_out,
                           uint64_t *count_out)
{
    *records_out = check->where.refs != 0;
    *addr_out = check->where.addr;
    *count_out = check->where.count;
}

void space_check_report(struct cow_space_check *check, cow_addr addr, uint64_t count, bool records, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    check->errors++;
    check->where = (struct span){addr, count, records};
    if (check->problem != NULL) check->problem(check->context, text);
}

uint64_t space_check_end_of(const struct cow_space_check *check, uint32_t segment)
{
    size_t low = 0, high = check->span_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (cow_addr_segment(check->spans[middle].addr) <= segment) low = middle + 1;
        else high = middle;
    }
    if (low == 0 || cow_addr_segment(check->spans[low - 1].addr) != segment) return 0;
    uint64_t end = cow_addr_block(check->spans[low - 1].addr) + check->spans[low - 1].count;
    return end < COW_SEGMENT_BLOCKS_MAX ? end : COW_SEGMENT_BLOCKS_MAX;
}

static void flush_difference(struct cow_space_check *check)
{
    const struct span *span = &check->difference;
    if (span->count == 0) return;
    uint32_t block = cow_addr_block(span->addr);
    space_check_report(check, span->addr, span->count, false, "segment %u blocks %u..%llu: count is %lld, should be %llu", cow_addr_segment(span->addr), block,
           (unsigned long long)(block + span->count - 1), (long long)check->difference_refs,
           (unsigned long long)span->refs);
    check->difference.count = 0;
}

static void compare_block(struct cow_space_check *check, cow_addr addr, int64_t refs, uint64_t expected)
{
    struct span *span = &check->difference;
    bool differs = refs < 0 || (uint64_t)refs < expected || ((uint64_t)refs > expected && !check->partial);
    bool goes_on = span->count != 0 && span->addr + span->count == addr && span->refs == expected &&
                   check->difference_refs == refs;
    if (span->count != 0 && !goes_on) flush_difference(check);
    if (!differs) return;
    if (span->count == 0) {
        *span = (struct span){addr, 0, expected};
        check->difference_refs = refs;
    }
    span->count++;
}

/* Expectations before addr that no segment has: reported. UINT64_MAX: all that are left. */
void space_check_skip_to(struct cow_space_check *check, cow_addr addr)
{
    while (check->at < check->span_count && check->spans[check->at].addr < addr) {
        const struct span *span = &check->spans[check->at];
        cow_addr first = span->addr > check->position ? span->addr : check->position;
        cow_addr end = span->addr + span->count < addr ? span->addr + span->count : addr;
        if (first < end) {
            flush_difference(check);
            space_check_report(check, first, end - first, false, "segment %u blocks %u..%llu: referred to, but do not exist", cow_addr_segment(first),
                   cow_addr_block(first), (unsigned long long)(cow_addr_block(first) + (end - first) - 1));
        }
        if (span->addr + span->count > addr) break;
        check->at++;
    }
    if (addr > check->position) check->position = addr;
}

/* The expected count of the block; called in ascending order. */
uint64_t space_check_expected(struct cow_space_check *check, cow_addr addr)
{
    if (addr > check->position) space_check_skip_to(check, addr);
    while (check->at < check->span_count && check->spans[check->at].addr + check->spans[check->at].count <= addr) {
        check->at++;
    }
    check->position = addr + 1;
    if (check->at == check->span_count || check->spans[check->at].addr > addr) return 0;
    return check->spans[check->at].refs;
}

static int copy_chunk(struct cow_space *space, uint32_t segment, uint32_t index, int64_t refs[COW_CHUNK_BLOCKS],
                      bool *min_ok)
{
    struct space_page *chunk_page, *record_page;
    space_lock(space);
    int rc = space_page_get(space, space_chunk_key(segment, index), &chunk_page);
    if (rc == 0) rc = space_page_get(space, space_record_key(segment, index), &record_page);
    if (rc == 0) {
        const struct cow_record_page *records = space_records(record_page);
        int32_t add = space_chunks(chunk_page)->add[index % COW_CHUNKS_PER_PAGE];
        int32_t min = space_chunks(chunk_page)->min[index % COW_CHUNKS_PER_PAGE];
        for (uint32_t i = 0; i < COW_CHUNK_BLOCKS; i++) refs[i] = (int64_t)add + records->refs[i];
        *min_ok = space_min(records->refs, min, 0) == min;
        for (uint32_t i = 0; i < COW_CHUNK_BLOCKS; i++) *min_ok = *min_ok && records->refs[i] >= min;
    }
    space_unlock(space);
    return rc;
}

static int compare_segment(struct cow_space_check *check, uint32_t segment, uint64_t block_count, uint64_t *used_out)
{
    uint64_t used = 0;
    space_check_skip_to(check, cow_addr_make(segment, 0));
    for (uint64_t first = 0; first < block_count; first += COW_CHUNK_BLOCKS) {
        int64_t refs[COW_CHUNK_BLOCKS];
        bool min_ok = true;
        uint32_t index = (uint32_t)(first >> COW_CHUNK_SHIFT);
        int rc = copy_chunk(check->space, segment, index, refs, &min_ok);
        if (rc == -COW_EDAMAGE) {
            flush_difference(check);
            space_check_report(check, cow_addr_make(segment, (uint32_t)first), COW_CHUNK_BLOCKS, true, "segment %u chunk %u: its records are damaged", segment, index);
            check->position = cow_addr_make(segment, (uint32_t)first + COW_CHUNK_BLOCKS);
            continue;
        }
        if (rc != 0) return rc;
        if (!min_ok)
            space_check_report(check, cow_addr_make(segment, (uint32_t)first), COW_CHUNK_BLOCKS, false, "segment %u chunk %u: the lowest count is not what it says", segment, index);
        for (uint32_t i = 0; i < COW_CHUNK_BLOCKS; i++) {
            cow_addr addr = cow_addr_make(segment, (uint32_t)first + i);
            uint64_t expected = first + i < block_count ? space_check_expected(check, addr) : 0;
            compare_block(check, addr, refs[i], expected);
            used += refs[i] > 0;
        }
    }
    flush_difference(check);
    *used_out = used;
    return 0;
}

static int compare_data_segment(struct cow_space_check *check, uint32_t segment, uint64_t *data_blocks,
                                uint64_t *dead_segments)
{
    struct space_page *page;
    struct cow_segment_entry *found, entry = {0};
    space_lock(check->space);
    int rc = space_entry_get(check->space, segment, &page, &found);
    if (rc == 0) entry = *found;
    space_unlock(check->space);
    if (rc == -COW_EDAMAGE) {
        space_check_report(check, cow_addr_make(segment, 0), 1, true, "segment %u: its table entry is damaged", segment);
        return 0;
    }
    if (rc != 0) return rc;
    if (entry.state == COW_SEGMENT_DEAD) ++*dead_segments;
    if (entry.state != COW_SEGMENT_LIVE) return 0;
    uint64_t used = 0;
    rc = compare_segment(check, segment, entry.block_count, &used);
    if (rc != 0) return rc;
    if (used != entry.used_blocks) {
        space_check_report(check, 0, 0, false, "segment %u: %u blocks in use by its entry, %llu by the records", segment, entry.used_blocks,
               (unsigned long long)used);
    }
    if (used == 0 && entry.kind == COW_SEGMENT_WHOLE) space_check_report(check, 0, 0, false, "segment %u: empty but not dead", segment);
    *data_blocks += used;
    return 0;
}

static void compare_total(struct cow_space_check *check, const char *what, uint64_t state, uint64_t counted)
{
    if (state == counted) return;
    space_check_report(check, 0, 0, false, "%s: %llu by the superblock, %llu counted", what, (unsigned long long)state,
           (unsigned long long)counted);
}

static int compare_all(struct cow_space_check *check)
{
    struct cow_space_state state;
    uint64_t node_blocks = 0, data_blocks = 0, dead_segments = 0;
    cow_space_get_state(check->space, &state);
    int rc = space_check_fold(check);
    if (rc == 0) rc = compare_segment(check, 0, state.meta_blocks, &node_blocks);
    for (uint32_t segment = 1; rc == 0 && segment < state.next_segment; segment++) {
        rc = compare_data_segment(check, segment, &data_blocks, &dead_segments);
    }
    if (rc != 0) return rc;
    space_check_skip_to(check, UINT64_MAX);
    compare_total(check, "node blocks", state.node_blocks, node_blocks);
    compare_total(check, "data blocks", state.data_blocks, data_blocks);
    compare_total(check, "dead segments", state.dead_segments, dead_segments);
    return 0;
}

int cow_space_check_end(struct cow_space_check *check, void (*problem)(void *context, const char *text), void *context,
                        uint64_t *errors_out)
{
    check->problem = problem;
    check->context = context;
    int rc = compare_all(check);
    if (rc == 0) *errors_out = check->errors;
    check_free(check);
    return rc;
}
