/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Four spellings of one list. Each adds its parts here as they come; order and bounds are checked once at the end, when
 * the file's size and the stored bytes are known. Functions return -EBADMSG without a detail: the caller knows the
 * member's name.
 */
#include "tar/sparse.h"

#include <stdlib.h>

#include "tar/header.h"

enum {
    AT_HEADER_PARTS = 386, HEADER_PARTS = 4, AT_HEADER_MORE = 482, AT_REAL_SIZE = 483,
    EXTENSION_PARTS = 21, AT_EXTENSION_MORE = 504,
    NUMBER_BYTES = 12,
};

void cow_sparse_clear(struct cow_sparse *sparse)
{
    struct cow_sparse_part *parts = sparse->parts;
    size_t capacity = sparse->capacity;
    *sparse = (struct cow_sparse){.parts = parts, .capacity = capacity};
}

void cow_sparse_deinit(struct cow_sparse *sparse)
{
    free(sparse->parts);
    *sparse = (struct cow_sparse){0};
}

int cow_sparse_add(struct cow_sparse *sparse, uint64_t offset, uint64_t length_bytes)
{
    if (sparse->count == COW_SPARSE_PARTS_MAX) return -EBADMSG;
    if (sparse->count == sparse->capacity) {
        size_t capacity = sparse->capacity > 0 ? sparse->capacity * 2 : 8;
        struct cow_sparse_part *parts = realloc(sparse->parts, capacity * sizeof *parts);
        if (parts == NULL) return -ENOMEM;
        sparse->parts = parts;
        sparse->capacity = capacity;
    }
    sparse->parts[sparse->count++] = (struct cow_sparse_part){offset, length_bytes};
    return 0;
}

/* "offset,length,offset,length" */
static int take_list(struct cow_sparse *sparse, const char *text, size_t text_bytes)
{
    sparse->count = 0;
    uint64_t offset = 0;
    for (size_t at = 0, field = 0; at < text_bytes; field++) {
        const char *comma = memchr(text + at, ',', text_bytes - at);
        size_t length = comma != NULL ? (size_t)(comma - text) - at : text_bytes - at;
        uint64_t value;
        if (cow_pax_number(text + at, length, COW_FILE_BYTES_MAX, &value) < 0) return -EBADMSG;
        if (field % 2 == 0) {
            if (comma == NULL) return -EBADMSG;
            offset = value;
        } else {
            int rc = cow_sparse_add(sparse, offset, value);
            if (rc < 0) return rc;
        }
        at += length + 1;
    }
    return 0;
}

int cow_sparse_take_record(struct cow_sparse *sparse, const struct cow_pax_record *record)
{
    const char *value = record->value;
    size_t bytes = record->value_bytes;
    uint64_t number;
    int rc = 0;
    if (cow_pax_key_is(record, "GNU.sparse.major")) {
        rc = cow_pax_number(value, bytes, 9, &sparse->major);
    } else if (cow_pax_key_is(record, "GNU.sparse.minor")) {
        rc = cow_pax_number(value, bytes, 9, &sparse->minor);
    } else if (cow_pax_key_is(record, "GNU.sparse.size") || cow_pax_key_is(record, "GNU.sparse.realsize")) {
        rc = cow_pax_number(value, bytes, COW_FILE_BYTES_MAX, &sparse->size_bytes);
        sparse->has_size = true;
    } else if (cow_pax_key_is(record, "GNU.sparse.map")) {
        rc = take_list(sparse, value, bytes);
    } else if (cow_pax_key_is(record, "GNU.sparse.offset")) {
        if (sparse->has_offset) return -EBADMSG;
        rc = cow_pax_number(value, bytes, COW_FILE_BYTES_MAX, &sparse->offset);
        sparse->has_offset = true;
    } else if (cow_pax_key_is(record, "GNU.sparse.numbytes")) {
        if (!sparse->has_offset) return -EBADMSG;
        rc = cow_pax_number(value, bytes, COW_FILE_BYTES_MAX, &number);
        if (rc == 0) rc = cow_sparse_add(sparse, sparse->offset, number);
        sparse->has_offset = false;
    } else if (!cow_pax_key_is(record, "GNU.sparse.numblocks")) {
        return 0;
    }
    sparse->is_sparse = true;
    return rc < 0 ? rc : 1;
}

int cow_sparse_settle(struct cow_sparse *sparse)
{
    if (!sparse->is_sparse) return 0;
    if (sparse->has_offset || !sparse->has_size || sparse->major > 1) return -EBADMSG;
    if (sparse->major == 1) {
        if (sparse->minor != 0 || sparse->count != 0) return -EBADMSG;
        sparse->map_in_data = true;
    }
    return 0;
}

/* A part whose offset or length is empty ends the list. */
static int take_parts(struct cow_sparse *sparse, const uint8_t *at, size_t count)
{
    for (size_t i = 0; i < count; i++, at += 2 * NUMBER_BYTES) {
        if (at[0] == 0 || at[NUMBER_BYTES] == 0) return 0;
        int64_t offset, length;
        if (cow_tar_number(at, NUMBER_BYTES, &offset) < 0 || offset < 0 ||
            cow_tar_number(at + NUMBER_BYTES, NUMBER_BYTES, &length) < 0 || length < 0)
            return -EBADMSG;
        int rc = cow_sparse_add(sparse, (uint64_t)offset, (uint64_t)length);
        if (rc < 0) return rc;
    }
    return 0;
}

int cow_sparse_take_header(struct cow_sparse *sparse, const uint8_t *block, bool *more_out)
{
    int64_t size;
    if (cow_tar_number(block + AT_REAL_SIZE, NUMBER_BYTES, &size) < 0 || size < 0 ||
        (uint64_t)size > COW_FILE_BYTES_MAX)
        return -EBADMSG;
    sparse->size_bytes = (uint64_t)size;
    sparse->has_size = sparse->is_sparse = true;
    *more_out = block[AT_HEADER_MORE] != 0;
    return take_parts(sparse, block + AT_HEADER_PARTS, HEADER_PARTS);
}

int cow_sparse_take_extension(struct cow_sparse *sparse, const uint8_t *block, bool *more_out)
{
    size_t before = sparse->count;
    *more_out = block[AT_EXTENSION_MORE] != 0;
    int rc = take_parts(sparse, block, EXTENSION_PARTS);
    if (rc == 0 && *more_out && sparse->count == before) return -EBADMSG; /* an endless chain of empty ones */
    return rc;
}

/* One number of the list is whole. The first says how many pairs follow. */
static int take_map_number(struct cow_sparse *sparse)
{
    uint64_t value = sparse->map_value;
    if (sparse->map_digits == 0) return -EBADMSG;
    sparse->map_value = 0;
    sparse->map_digits = 0;
    if (sparse->map_numbers++ == 0) {
        if (value > COW_SPARSE_PARTS_MAX) return -EBADMSG;
        sparse->map_wanted = 1 + 2 * value;
        return 0;
    }
    if (sparse->map_numbers % 2 == 0) {
        sparse->offset = value;
        return 0;
    }
    return cow_sparse_add(sparse, sparse->offset, value);
}

int cow_sparse_take_map(struct cow_sparse *sparse, const uint8_t *bytes, size_t count, size_t *used_out,
                        bool *done_out)
{
    *done_out = false;
    for (size_t i = 0; i < count; i++) {
        sparse->map_bytes++;
        if (bytes[i] == '\n') {
            int rc = take_map_number(sparse);
            if (rc < 0) return rc;
            if (sparse->map_numbers == sparse->map_wanted) {
                *used_out = i + 1;
                *done_out = true;
                return 0;
            }
            continue;
        }
        if (bytes[i] < '0' || bytes[i] > '9' || ++sparse->map_digits > 18) return -EBADMSG;
        sparse->map_value = sparse->map_value * 10 + (uint64_t)(bytes[i] - '0');
    }
    *used_out = count;
    return 0;
}

int cow_sparse_verify(const struct cow_sparse *sparse, uint64_t stored_bytes)
{
    uint64_t end = 0, total = 0;
    for (size_t i = 0; i < sparse->count; i++) {
        const struct cow_sparse_part *part = &sparse->parts[i];
        if (part->offset < end || part->offset > sparse->size_bytes) return -EBADMSG;
        if (part->length_bytes > sparse->size_bytes - part->offset) return -EBADMSG;
        end = part->offset + part->length_bytes;
        total += part->length_bytes;
    }
    return total == stored_bytes ? 0 : -EBADMSG;
}
