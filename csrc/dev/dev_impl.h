/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dev_impl.h: what the concrete devices share among themselves; nobody outside of dev/ includes it.
 *
 * cow_bytes is a file's content in memory: a size, and chunks of 4 KiB that exist only where something was
 * written. A copy shares the chunks (reference counts); the first write through either side copies the chunk, so
 * a copy costs its number of chunks and not their bytes. Different cow_bytes may be used by different threads even when
 * they share chunks; one cow_bytes has no lock of its own.
 */
#ifndef COW_DEV_IMPL_H
#define COW_DEV_IMPL_H

#include "dev/dev.h"

#define COW_DEV_NAME_BYTES_MAX 255u

/* "name" or "folder/name", parts not empty and not "." or "..". */
int cow_dev_check_name(const char *name);
int cow_dev_check_folder(const char *folder); /* a single part, or "" for the top */
uint32_t cow_dev_name_hash(const char *name);
/* Where the last part of name starts. */
const char *cow_dev_base_name(const char *name);
/* -EFBIG when the range leaves what the device can address. */
int cow_dev_check_range(const char *name, uint64_t offset, uint64_t length, uint64_t limit);

/* Names to be given to a callback once the device's lock is free again. Start from {0}. */
struct cow_dev_names {
    char *text; /* NUL-terminated names one after another */
    size_t length, capacity;
};
int cow_dev_names_add(struct cow_dev_names *names, const char *name);
void cow_dev_names_each(const struct cow_dev_names *names, void (*each)(void *context, const char *name),
                        void *context);
void cow_dev_names_deinit(struct cow_dev_names *names);

#define COW_BYTES_LIMIT ((uint64_t)1 << 37)

struct cow_bytes_chunk;
struct cow_bytes {
    uint64_t size;
    struct cow_bytes_chunk **chunks; /* NULL = zeros */
    size_t chunk_count;              /* length of chunks; content beyond it is zeros */
};

void cow_bytes_init(struct cow_bytes *bytes);
void cow_bytes_deinit(struct cow_bytes *bytes);
/* Bytes read, short at the end. */
size_t cow_bytes_read(const struct cow_bytes *bytes, uint64_t offset, void *buffer, size_t length);
/* All or -ENOMEM with nothing changed; grows the size. Ranges are checked by the caller. */
int cow_bytes_write(struct cow_bytes *bytes, uint64_t offset, const void *buffer, size_t length);
/* Zeros in the range, below the size only; the size stays. */
int cow_bytes_zero(struct cow_bytes *bytes, uint64_t offset, uint64_t length);
void cow_bytes_grow(struct cow_bytes *bytes, uint64_t size);  /* to at least size, with zeros */
int cow_bytes_shrink(struct cow_bytes *bytes, uint64_t size); /* to at most size */
int cow_bytes_copy(const struct cow_bytes *source, struct cow_bytes *copy_out);
uint64_t cow_bytes_charged(const struct cow_bytes *bytes); /* bytes of the chunks that exist */

/* Puts a file into a memory device: takes over the content of bytes (which is empty afterwards) also on
 * error. The folder must be there. */
int cow_dev_memory_add(struct cow_dev *dev, const char *name, struct cow_bytes *bytes);

#endif
