/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages.c: record, chunk and segment-table pages and journal batches. A page is a 64-byte header and a packed array.
 * The checksum is XXH3-64 of the whole page with the checksum's own field zeroed, so a page is accepted only
 * when all of its 4096 bytes are what was written, and for the place that they were written for. Records are
 * 15 bytes: two 8-byte stores each, the second of which is overwritten in its last byte by the next record.
 */
#include "format/pages.h"

#include "base/hash.h"

/* Header: offset of each field. */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,     /* u16 */
    AT_KIND = 10,       /* u16 */
    AT_SEGMENT = 12,    /* u32; page count of a batch */
    AT_INDEX = 16,      /* u32; sequence of a batch */
    AT_ZERO = 20,       /* u32 */
    AT_GENERATION = 24, /* u64 */
    AT_CHECKSUM = 32,   /* u64 */
    AT_ZEROS = 40,      /* to the end of the header */
};
#define PAGE_VERSION 1u
#define RECORD_BYTES 15u
#define CHUNK_BYTES 8u
#define ENTRY_BYTES 32u
static const uint8_t page_magic[8] = {'P', 'Y', 'C', 'O', 'W', 0, 'P', 'G'};
static const uint8_t batch_magic[8] = {'P', 'Y', 'C', 'O', 'W', 0, 'J', 'B'};

_Static_assert(COW_PAGE_HEADER_BYTES + COW_CHUNK_BLOCKS * RECORD_BYTES + 1 <= COW_PAGE_BYTES, "records fit");
_Static_assert(COW_PAGE_HEADER_BYTES + COW_CHUNKS_PER_PAGE * CHUNK_BYTES <= COW_PAGE_BYTES, "chunks fit");
_Static_assert(COW_PAGE_HEADER_BYTES + COW_SEGMENTS_PER_PAGE * ENTRY_BYTES <= COW_PAGE_BYTES, "segments fit");
_Static_assert(COW_PAGE_BYTES == COW_BLOCK_BYTES, "a page is hashed as a block");

size_t cow_page_body_bytes(enum cow_page_kind kind)
{
    if (kind == COW_PAGE_RECORDS) return sizeof(struct cow_record_page);
    if (kind == COW_PAGE_CHUNKS) return sizeof(struct cow_chunk_page);
    return sizeof(struct cow_segment_page);
}

uint64_t cow_page_home_offset(enum cow_page_kind kind, uint32_t index)
{
    const uint64_t group = COW_CHUNKS_PER_PAGE + 1;
    if (kind == COW_PAGE_CHUNKS) return index * group * COW_PAGE_BYTES;
    if (kind == COW_PAGE_SEGMENTS) return (uint64_t)index * COW_PAGE_BYTES;
    return (index / COW_CHUNKS_PER_PAGE * group + 1 + index % COW_CHUNKS_PER_PAGE) * COW_PAGE_BYTES;
}

static uint64_t page_checksum(const uint8_t *page)
{
    uint8_t copy[COW_PAGE_BYTES];
    memcpy(copy, page, COW_PAGE_BYTES);
    memset(copy + AT_CHECKSUM, 0, 8);
    return cow_hash_block(copy);
}

/* The checksum field is still zero. */
static void seal(uint8_t *page)
{
    cow_store64(page + AT_CHECKSUM, cow_hash_block(page));
}

static bool all_zero(const uint8_t *bytes, size_t length)
{
    return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

/* Each level of a count, so that sums of two do not overflow. */
static bool in_bounds(int32_t refs) { return refs >= -COW_REFS_MAX && refs <= COW_REFS_MAX; }

static void encode_records(const struct cow_record_page *records, uint8_t *at)
{
    for (unsigned i = 0; i < COW_CHUNK_BLOCKS; i++, at += RECORD_BYTES) {
        COW_ASSERT(records->generation[i] <= COW_GENERATION_MAX);
        cow_store64(at, (records->sum[i] & COW_SUM_MASK) | records->generation[i] << 48);
        cow_store64(at + 8, (records->generation[i] >> 16) | (uint64_t)(uint32_t)records->refs[i] << 24);
    }
}

static int decode_records(const uint8_t *at, uint64_t page_generation, struct cow_record_page *records)
{
    for (unsigned i = 0; i < COW_CHUNK_BLOCKS; i++, at += RECORD_BYTES) {
        uint64_t low = cow_load64(at), high = cow_load64(at + 8);
        records->sum[i] = low & COW_SUM_MASK;
        records->generation[i] = low >> 48 | (high & 0xffffffu) << 16;
        records->refs[i] = (int32_t)(uint32_t)(high >> 24);
        if (records->generation[i] > page_generation || !in_bounds(records->refs[i])) return -COW_EDAMAGE;
    }
    const size_t used = COW_PAGE_HEADER_BYTES + COW_CHUNK_BLOCKS * RECORD_BYTES;
    return all_zero(at, COW_PAGE_BYTES - used) ? 0 : -COW_EDAMAGE;
}

static void encode_chunks(const struct cow_chunk_page *chunks, uint8_t *at)
{
    for (unsigned i = 0; i < COW_CHUNKS_PER_PAGE; i++, at += CHUNK_BYTES) {
        cow_store32(at, (uint32_t)chunks->add[i]);
        cow_store32(at + 4, (uint32_t)chunks->min[i]);
    }
}

static int decode_chunks(const uint8_t *at, struct cow_chunk_page *chunks)
{
    for (unsigned i = 0; i < COW_CHUNKS_PER_PAGE; i++, at += CHUNK_BYTES) {
        chunks->add[i] = (int32_t)cow_load32(at);
        chunks->min[i] = (int32_t)cow_load32(at + 4);
        if (!in_bounds(chunks->add[i]) || !in_bounds(chunks->min[i])) return -COW_EDAMAGE;
        if (chunks->add[i] + chunks->min[i] < 0) return -COW_EDAMAGE;
    }
    return 0;
}

static void encode_segments(const struct cow_segment_page *segments, uint8_t *at)
{
    for (unsigned i = 0; i < COW_SEGMENTS_PER_PAGE; i++, at += ENTRY_BYTES) {
        const struct cow_segment_entry *entry = &segments->entries[i];
        at[0] = entry->kind;
        at[1] = entry->state;
        cow_store32(at + 4, entry->block_count);
        cow_store32(at + 8, entry->used_blocks);
        cow_store64(at + 16, entry->generation);
    }
}

static int decode_segments(const uint8_t *at, struct cow_segment_page *segments)
{
    for (unsigned i = 0; i < COW_SEGMENTS_PER_PAGE; i++, at += ENTRY_BYTES) {
        struct cow_segment_entry *entry = &segments->entries[i];
        entry->kind = at[0];
        entry->state = at[1];
        entry->block_count = cow_load32(at + 4);
        entry->used_blocks = cow_load32(at + 8);
        entry->generation = cow_load64(at + 16);
        bool exists = entry->state != COW_SEGMENT_FREE;
        if (entry->kind > COW_SEGMENT_WHOLE || entry->state > COW_SEGMENT_DEAD) return -COW_EDAMAGE;
        if (exists != (entry->kind != COW_SEGMENT_NONE)) return -COW_EDAMAGE;
        if (entry->block_count > COW_SEGMENT_BLOCKS_MAX || entry->used_blocks > entry->block_count) return -COW_EDAMAGE;
        if (entry->state != COW_SEGMENT_LIVE && entry->used_blocks != 0) return -COW_EDAMAGE;
        if (!all_zero(at + 2, 2) || !all_zero(at + 12, 4) || !all_zero(at + 24, 8)) return -COW_EDAMAGE;
    }
    return 0;
}

void cow_page_encode(const struct cow_page_id *id, uint64_t generation, const void *body, uint8_t *page)
{
    COW_ASSERT(generation > 0 && generation <= COW_GENERATION_MAX);
    memset(page, 0, COW_PAGE_BYTES);
    uint8_t *at = page + COW_PAGE_HEADER_BYTES;
    if (id->kind == COW_PAGE_RECORDS) {
        encode_records(body, at);
    } else if (id->kind == COW_PAGE_CHUNKS) {
        encode_chunks(body, at);
    } else {
        COW_ASSERT(id->kind == COW_PAGE_SEGMENTS);
        encode_segments(body, at);
    }
    memcpy(page + AT_MAGIC, page_magic, sizeof page_magic);
    cow_store16(page + AT_VERSION, PAGE_VERSION);
    cow_store16(page + AT_KIND, (uint16_t)id->kind);
    cow_store32(page + AT_SEGMENT, id->segment);
    cow_store32(page + AT_INDEX, id->index);
    cow_store64(page + AT_GENERATION, generation);
    seal(page);
}

int cow_page_identify(const uint8_t *page, struct cow_page_id *id_out, uint64_t *generation_out)
{
    unsigned kind = cow_load16(page + AT_KIND);
    uint64_t generation = cow_load64(page + AT_GENERATION);
    if (memcmp(page + AT_MAGIC, page_magic, sizeof page_magic) != 0) return cow_fail(COW_EDAMAGE, "not a record page");
    if (page_checksum(page) != cow_load64(page + AT_CHECKSUM)) {
        return cow_fail(COW_EDAMAGE, "record page: bad checksum");
    }
    if (cow_load16(page + AT_VERSION) != PAGE_VERSION || kind < COW_PAGE_RECORDS || kind > COW_PAGE_SEGMENTS) {
        return cow_fail(COW_EDAMAGE, "record page of unknown version or kind %u", kind);
    }
    if (generation == 0 || generation > COW_GENERATION_MAX || cow_load32(page + AT_ZERO) != 0 ||
        !all_zero(page + AT_ZEROS, COW_PAGE_HEADER_BYTES - AT_ZEROS)) {
        return cow_fail(COW_EDAMAGE, "record page with a bad header");
    }
    id_out->kind = (enum cow_page_kind)kind;
    id_out->segment = cow_load32(page + AT_SEGMENT);
    id_out->index = cow_load32(page + AT_INDEX);
    *generation_out = generation;
    return 0;
}

static int decode_body(const uint8_t *page, enum cow_page_kind kind, uint64_t generation, void *body)
{
    const uint8_t *at = page + COW_PAGE_HEADER_BYTES;
    if (kind == COW_PAGE_RECORDS) return decode_records(at, generation, body);
    if (kind == COW_PAGE_CHUNKS) return decode_chunks(at, body);
    return decode_segments(at, body);
}

int cow_page_decode(const uint8_t *page, const struct cow_page_id *id, void *body, uint64_t *generation_out)
{
    static const char *const names[] = {"", "record", "chunk", "segment-table"};
    if (page[0] == 0 && all_zero(page, COW_PAGE_BYTES)) {
        memset(body, 0, cow_page_body_bytes(id->kind));
        *generation_out = 0;
        return 0;
    }
    struct cow_page_id found;
    uint64_t generation;
    int rc = cow_page_identify(page, &found, &generation);
    if (rc == 0 && (found.kind != id->kind || found.segment != id->segment || found.index != id->index)) {
        rc = -COW_EDAMAGE;
    }
    if (rc == 0) rc = decode_body(page, id->kind, generation, body);
    if (rc != 0) {
        return cow_fail(COW_EDAMAGE, "damaged %s page %u of segment %u", names[id->kind], id->index, id->segment);
    }
    *generation_out = generation;
    return 0;
}

void cow_batch_encode(const struct cow_batch *batch, uint8_t *page)
{
    memset(page, 0, COW_PAGE_BYTES);
    memcpy(page + AT_MAGIC, batch_magic, sizeof batch_magic);
    cow_store16(page + AT_VERSION, PAGE_VERSION);
    cow_store32(page + AT_SEGMENT, batch->page_count);
    cow_store32(page + AT_INDEX, batch->sequence);
    cow_store64(page + AT_GENERATION, batch->generation);
    seal(page);
}

int cow_batch_decode(const uint8_t *page, struct cow_batch *batch_out)
{
    if (memcmp(page + AT_MAGIC, batch_magic, sizeof batch_magic) != 0 ||
        page_checksum(page) != cow_load64(page + AT_CHECKSUM) || cow_load16(page + AT_VERSION) != PAGE_VERSION) {
        return cow_fail(COW_EDAMAGE, "not a journal batch");
    }
    batch_out->page_count = cow_load32(page + AT_SEGMENT);
    batch_out->sequence = cow_load32(page + AT_INDEX);
    batch_out->generation = cow_load64(page + AT_GENERATION);
    if (batch_out->page_count == 0 || batch_out->generation == 0 || batch_out->generation > COW_GENERATION_MAX ||
        cow_load16(page + AT_KIND) != 0 || cow_load32(page + AT_ZERO) != 0 ||
        !all_zero(page + AT_ZEROS, COW_PAGE_BYTES - AT_ZEROS)) {
        return cow_fail(COW_EDAMAGE, "journal batch with a bad header");
    }
    return 0;
}
