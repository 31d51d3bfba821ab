/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buffer.h: a byte buffer that grows, for the records and names of the tar layer. Owned by whoever embeds it; a
 * zeroed struct is an empty buffer. Growing moves the bytes: keep offsets, not pointers.
 */
#ifndef COW_TAR_BUFFER_H
#define COW_TAR_BUFFER_H

#include "base/common.h"

struct cow_tar_buffer {
    uint8_t *bytes;
    size_t used, capacity;
};

void cow_tar_buffer_deinit(struct cow_tar_buffer *buffer);
int cow_tar_buffer_reserve(struct cow_tar_buffer *buffer, size_t more_bytes); /* -ENOMEM */
int cow_tar_buffer_append(struct cow_tar_buffer *buffer, const void *bytes, size_t count);
int cow_tar_buffer_append_zeros(struct cow_tar_buffer *buffer, size_t count);

#endif
