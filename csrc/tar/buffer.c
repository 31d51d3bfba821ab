/* SPDX-License-Identifier: Apache-2.0 */
/* Doubling growth through realloc. */
#include "tar/buffer.h"

#include <stdlib.h>

void cow_tar_buffer_deinit(struct cow_tar_buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (struct cow_tar_buffer){0};
}

int cow_tar_buffer_reserve(struct cow_tar_buffer *buffer, size_t more_bytes)
{
    if (more_bytes <= buffer->capacity - buffer->used) return 0;
    if (more_bytes > SIZE_MAX / 4 - buffer->used) return -ENOMEM;
    size_t capacity = buffer->capacity > 0 ? buffer->capacity : 256;
    while (capacity < buffer->used + more_bytes) capacity *= 2;
    uint8_t *bytes = realloc(buffer->bytes, capacity);
    if (bytes == NULL) return -ENOMEM;
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return 0;
}

int cow_tar_buffer_append(struct cow_tar_buffer *buffer, const void *bytes, size_t count)
{
    if (count == 0) return 0;
    int rc = cow_tar_buffer_reserve(buffer, count);
    if (rc < 0) return rc;
    memcpy(buffer->bytes + buffer->used, bytes, count);
    buffer->used += count;
    return 0;
}

int cow_tar_buffer_append_zeros(struct cow_tar_buffer *buffer, size_t count)
{
    if (count == 0) return 0;
    int rc = cow_tar_buffer_reserve(buffer, count);
    if (rc < 0) return rc;
    memset(buffer->bytes + buffer->used, 0, count);
    buffer->used += count;
    return 0;
}
