/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bytes.c: content of a file in memory, see dev_impl.h. A write first makes sure that it owns all chunks in its range
 * (only that can fail), then copies; so it is whole or nothing. The table of chunks grows by doubling with calloc,
 * which costs no memory for the parts that a sparse file never touches.
 */
#include "dev/dev_impl.h"

#include <stdlib.h>

#define CHUNK_BYTES 4096u

struct cow_bytes_chunk {
    uint32_t references; /* atomic */
    uint8_t bytes[CHUNK_BYTES];
};

static void chunk_put(struct cow_bytes_chunk *chunk)
{
    if (chunk && __atomic_sub_fetch(&chunk->references, 1, __ATOMIC_ACQ_REL) == 0) free(chunk);
}

void cow_bytes_init(struct cow_bytes *bytes)
{
    *bytes = (struct cow_bytes){0};
}

void cow_bytes_deinit(struct cow_bytes *bytes)
{
    for (size_t i = 0; i < bytes->chunk_count; i++)
        chunk_put(bytes->chunks[i]);
    free(bytes->chunks);
    cow_bytes_init(bytes);
}

/* The part of the range from offset on that lies in one chunk. */
static size_t part_of(uint64_t offset, uint64_t length)
{
    uint64_t room = CHUNK_BYTES - offset % CHUNK_BYTES;

    return (size_t)(length < room ? length : room);
}

size_t cow_bytes_read(const struct cow_bytes *bytes, uint64_t offset, void *buffer, size_t length)
{
    uint8_t *to = buffer;

    if (offset >= bytes->size) return 0;
    if (length > bytes->size - offset) length = (size_t)(bytes->size - offset);
    for (size_t done = 0; done < length;) {
        size_t part = part_of(offset + done, length - done);
        size_t index = (size_t)((offset + done) / CHUNK_BYTES);
        const struct cow_bytes_chunk *chunk = index < bytes->chunk_count ? bytes->chunks[index] : NULL;
        if (chunk)
            memcpy(to + done, chunk->bytes + (offset + done) % CHUNK_BYTES, part);
        else
            memset(to + done, 0, part);
        done += part;
    }
    return length;
}

static int table_reach(struct cow_bytes *bytes, size_t count)
{
    size_t capacity = 2 * bytes->chunk_count > count ? 2 * bytes->chunk_count : count;

    if (count <= bytes->chunk_count) return 0;
    struct cow_bytes_chunk **chunks = calloc(capacity, sizeof *chunks);
    if (!chunks) return cow_fail(ENOMEM, "table of %zu chunks", capacity);
    if (bytes->chunk_count) memcpy(chunks, bytes->chunks, bytes->chunk_count * sizeof *chunks);
    free(bytes->chunks);
    bytes->chunks = chunks;
    bytes->chunk_count = capacity;
    return 0;
}

/* Makes the chunk exist and belong to nobody else. */
static int chunk_own(struct cow_bytes *bytes, size_t index)
{
    struct cow_bytes_chunk *old = bytes->chunks[index];

    if (old && __atomic_load_n(&old->references, __ATOMIC_ACQUIRE) == 1) return 0;
    struct cow_bytes_chunk *chunk = malloc(sizeof *chunk);
    if (!chunk) return cow_fail(ENOMEM, "chunk of %zu bytes", sizeof *chunk);
    chunk->references = 1;
    if (old)
        memcpy(chunk->bytes, old->bytes, CHUNK_BYTES);
    else
        memset(chunk->bytes, 0, CHUNK_BYTES);
    bytes->chunks[index] = chunk;
    chunk_put(old);
    return 0;
}

int cow_bytes_write(struct cow_bytes *bytes, uint64_t offset, const void *buffer, size_t length)
{
    const uint8_t *from = buffer;
    int rc;

    if (length == 0) return 0;
    COW_ASSERT(offset <= COW_BYTES_LIMIT && length <= COW_BYTES_LIMIT - offset);
    size_t end = (size_t)((offset + length - 1) / CHUNK_BYTES) + 1;
    rc = table_reach(bytes, end);
    for (size_t i = (size_t)(offset / CHUNK_BYTES); i < end && !rc; i++)
        rc = chunk_own(bytes, i);
    if (rc) return rc;
    for (size_t done = 0; done < length;) {
        size_t part = part_of(offset + done, length - done);
        struct cow_bytes_chunk *chunk = bytes->chunks[(offset + done) / CHUNK_BYTES];
        memcpy(chunk->bytes + (offset + done) % CHUNK_BYTES, from + done, part);
        done += part;
    }
    cow_bytes_grow(bytes, offset + length);
    return 0;
}

/* Zeros up to the end of the table, below the size or not. */
static int zero_chunks(struct cow_bytes *bytes, uint64_t offset, uint64_t length)
{
    uint64_t limit = (uint64_t)bytes->chunk_count * CHUNK_BYTES;

    if (offset >= limit) return 0;
    if (length > limit - offset) length = limit - offset;
    for (uint64_t done = 0; done < length;) {
        size_t part = part_of(offset + done, length - done);
        size_t index = (size_t)((offset + done) / CHUNK_BYTES);
        if (part == CHUNK_BYTES) {
            chunk_put(bytes->chunks[index]);
            bytes->chunks[index] = NULL;
        } else if (bytes->chunks[index]) {
            int rc = chunk_own(bytes, index);
            if (rc) return rc;
            memset(bytes->chunks[index]->bytes + (offset + done) % CHUNK_BYTES, 0, part);
        }
        done += part;
    }
    return 0;
}

int cow_bytes_zero(struct cow_bytes *bytes, uint64_t offset, uint64_t length)
{
    if (offset >= bytes->size) return 0;
    if (length > bytes->size - offset) length = bytes->size - offset;
    return zero_chunks(bytes, offset, length);
}

void cow_bytes_grow(struct cow_bytes *bytes, uint64_t size)
{
    if (size > bytes->size) bytes->size = size;
}

int cow_bytes_shrink(struct cow_bytes *bytes, uint64_t size)
{
    if (size >= bytes->size) return 0;
    /* What lies beyond the end must be zeros, should the file grow again. */
    int rc = zero_chunks(bytes, size, bytes->size - size);
    if (!rc) bytes->size = size;
    return rc;
}

int cow_bytes_copy(const struct cow_bytes *source, struct cow_bytes *copy_out)
{
    struct cow_bytes copy = {.size = source->size, .chunk_count = source->chunk_count};

    if (copy.chunk_count) {
        copy.chunks = calloc(copy.chunk_count, sizeof *copy.chunks);
        if (!copy.chunks) return cow_fail(ENOMEM, "table of %zu chunks", copy.chunk_count);
    }
    for (size_t i = 0; i < copy.chunk_count; i++) {
        copy.chunks[i] = source->chunks[i];
        if (copy.chunks[i]) __atomic_add_fetch(&copy.chunks[i]->references, 1, __ATOMIC_RELAXED);
    }
    *copy_out = copy;
    return 0;
}

uint64_t cow_bytes_charged(const struct cow_bytes *bytes)
{
    uint64_t count = 0;

    for (size_t i = 0; i < bytes->chunk_count; i++)
        count += bytes->chunks[i] != NULL;
    return count * CHUNK_BYTES;
}
