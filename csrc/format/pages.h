/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages.h: the bytes of space/: pages of records, chunk counts and segments, and the batches of the journal.
 *
 * Every page is 4096 bytes and proves itself: magic, version, kind, segment, index, generation of the commit that wrote
 * it, and an XXH3 checksum of the page. A page of zeros is one that was never written and decodes as all zero:
 * free blocks, generation 0, no segment. Included by format.h.
 */
#ifndef COW_FORMAT_PAGES_H
#define COW_FORMAT_PAGES_H

#include "base/common.h"

#define COW_PAGE_BYTES 4096u
#define COW_PAGE_HEADER_BYTES 64u
#define COW_CHUNK_BLOCKS 256u     /* records per page; one chunk */
#define COW_CHUNK_SHIFT 8u
#define COW_CHUNKS_PER_PAGE 504u
#define COW_SEGMENTS_PER_PAGE 126u
#define COW_SUM_MASK ((((uint64_t)1) << 48) - 1)        /* what a record keeps of a block's hash */
#define COW_GENERATION_MAX ((((uint64_t)1) << 40) - 1)
#define COW_REFS_MAX (1 << 30)    /* bound of refs, add and min, either sign */

enum cow_page_kind {
    COW_PAGE_RECORDS = 1,  /* index = chunk of the segment */
    COW_PAGE_CHUNKS = 2,   /* index = chunk / COW_CHUNKS_PER_PAGE */
    COW_PAGE_SEGMENTS = 3, /* segment 0; index = segment id / COW_SEGMENTS_PER_PAGE */
};

struct cow_page_id {
    enum cow_page_kind kind;
    uint32_t segment, index;
};

/* The three bodies, unpacked. */
struct cow_record_page {
    uint64_t sum[COW_CHUNK_BLOCKS];        /* 48 bits */
    uint64_t generation[COW_CHUNK_BLOCKS]; /* 40 bits; of the birth while in use, of the release while free */
    int32_t refs[COW_CHUNK_BLOCKS];        /* the block's own count; the chunk's add comes on top */
};
struct cow_chunk_page {
    int32_t add[COW_CHUNKS_PER_PAGE]; /* for all blocks of the chunk */
    int32_t min[COW_CHUNKS_PER_PAGE]; /* smallest refs of its 256 records */
};

enum cow_segment_kind { COW_SEGMENT_NONE = 0, COW_SEGMENT_PACKED = 1, COW_SEGMENT_WHOLE = 2 };
enum cow_segment_state { COW_SEGMENT_FREE = 0, COW_SEGMENT_LIVE = 1, COW_SEGMENT_DEAD = 2 };
struct cow_segment_entry {
    uint8_t kind, state;   /* a segment that does not exist (any more) is all zero */
    uint32_t block_count;  /* blocks that exist */
    uint32_t used_blocks;  /* with a count above 0 */
    uint64_t generation;   /* DEAD: in which it died */
};
struct cow_segment_page {
    struct cow_segment_entry entries[COW_SEGMENTS_PER_PAGE];
};

size_t cow_page_body_bytes(enum cow_page_kind kind);
/* Where a page stands in its home file ("space/table" for segments, "space/%08x" for the others): a chunk page and then
 * the record pages of its chunks. */
uint64_t cow_page_home_offset(enum cow_page_kind kind, uint32_t index);
void cow_page_encode(const struct cow_page_id *id, uint64_t generation, const void *body, uint8_t *page);
/* Verifies a page that is not empty and says which one it is: -EUCLEAN. */
int cow_page_identify(const uint8_t *page, struct cow_page_id *id_out, uint64_t *generation_out);
/* Decodes the page that should be id; an empty one gives zeros and generation 0. -EUCLEAN leaves body undefined. */
int cow_page_decode(const uint8_t *page, const struct cow_page_id *id, void *body, uint64_t *generation_out);

/* A batch: one header page, then page_count pages as above, all of the batch's generation. */
struct cow_batch {
    uint64_t generation;
    uint32_t page_count;
    uint32_t sequence; /* number of the batch in its journal half, from 0 */
};
void cow_batch_encode(const struct cow_batch *batch, uint8_t *page);
int cow_batch_decode(const uint8_t *page, struct cow_batch *batch_out);

#endif
