/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content goes from the fed bytes straight into the tree, in pieces that end on block borders; what is too small for
 * that is collected, so that a small file is one write however it was fed.
 */
#include <stdlib.h>

#include "tar/apply_private.h"

#define DIRECT_BYTES_MIN (64u * 1024u)

void cow_apply_part(struct cow_apply *apply, uint64_t offset, uint64_t length_bytes)
{
    COW_ASSERT(apply->fill == 0 && apply->part_left == 0);
    apply->at = offset;
    apply->part_left = length_bytes;
}

static int put(struct cow_apply *apply, const uint8_t *bytes, size_t count)
{
    int64_t rc = cow_file_write(apply->tree, apply->ino, apply->at, bytes, count);
    if (rc < 0) return (int)rc;
    apply->at += count;
    apply->end = apply->at;
    apply->wrote = true;
    return 0;
}

/* How much of count bytes is worth a write of its own: all when the part ends with them, else whole blocks. */
static size_t direct_bytes(const struct cow_apply *apply, size_t count)
{
    if (count == apply->part_left) return count;
    if (count < DIRECT_BYTES_MIN) return 0;
    uint64_t border = (apply->at + count) & ~(uint64_t)(COW_BLOCK_BYTES - 1);
    return (size_t)(border - apply->at);
}

int cow_apply_write(struct cow_apply *apply, const uint8_t *bytes, size_t count)
{
    COW_ASSERT(count <= apply->part_left);
    while (count > 0) {
        size_t direct = apply->fill == 0 ? direct_bytes(apply, count) : 0;
        if (direct > 0) {
            int rc = put(apply, bytes, direct);
            if (rc < 0) return rc;
            apply->part_left -= direct;
            bytes += direct;
            count -= direct;
            continue;
        }
        if (apply->buffer == NULL && (apply->buffer = malloc(COW_APPLY_BUFFER_BYTES)) == NULL) return -ENOMEM;
        size_t full = COW_APPLY_BUFFER_BYTES - (size_t)(apply->at % COW_BLOCK_BYTES);
        size_t step = count < full - apply->fill ? count : full - apply->fill;
        memcpy(apply->buffer + apply->fill, bytes, step);
        apply->fill += step;
        apply->part_left -= step;
        bytes += step;
        count -= step;
        if (apply->fill < full && apply->part_left > 0) continue;
        size_t fill = apply->fill;
        apply->fill = 0;
        int rc = put(apply, apply->buffer, fill);
        if (rc < 0) return rc;
    }
    return 0;
}
