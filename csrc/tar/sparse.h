/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparse.h: where the stored bytes of a member lie in its file. An ordinary file is one part; GNU sparse files (old
 * headers of type S, PAX 0.0, 0.1, 1.0) have a list. Nothing is believed: parts are in order, do not overlap, lie
 * inside of the file, and together are as long as what is stored. Memory is bounded by COW_SPARSE_PARTS_MAX.
 */
#ifndef COW_TAR_SPARSE_H
#define COW_TAR_SPARSE_H

#include "tar/pax.h"

#define COW_SPARSE_PARTS_MAX (1u << 18)

struct cow_sparse_part {
    uint64_t offset, length_bytes;
};

struct cow_sparse {
    struct cow_sparse_part *parts;
    size_t count, capacity;
    bool is_sparse, has_size, has_offset;
    bool map_in_data;       /* PAX 1.0: the list stands before the content, in decimal lines */
    uint64_t size_bytes;    /* of the file */
    uint64_t offset;        /* PAX 0.0: waits for its length */
    uint64_t major, minor;

    /* the list before the content, being read */
    uint64_t map_bytes, map_numbers, map_wanted, map_value;
    unsigned map_digits;
};

void cow_sparse_clear(struct cow_sparse *sparse); /* for the next member; keeps the memory */
void cow_sparse_deinit(struct cow_sparse *sparse);
int cow_sparse_add(struct cow_sparse *sparse, uint64_t offset, uint64_t length_bytes);

/* Takes a "GNU.sparse.*" record, except name: 1 = taken, 0 = not one of them. */
int cow_sparse_take_record(struct cow_sparse *sparse, const struct cow_pax_record *record);
/* After all records: says whether the list comes with the data. */
int cow_sparse_settle(struct cow_sparse *sparse);
/* The header block of type S, then its extension blocks while *more_out says so. */
int cow_sparse_take_header(struct cow_sparse *sparse, const uint8_t *block, bool *more_out);
int cow_sparse_take_extension(struct cow_sparse *sparse, const uint8_t *block, bool *more_out);
/* PAX 1.0: consumes bytes of the list; *done_out when it is whole. map_bytes says how many it had. */
int cow_sparse_take_map(struct cow_sparse *sparse, const uint8_t *bytes, size_t count, size_t *used_out,
                        bool *done_out);
/* Checks the list against the stored bytes that belong to it. */
int cow_sparse_verify(const struct cow_sparse *sparse, uint64_t stored_bytes);

#endif
