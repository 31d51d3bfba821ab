/* SPDX-License-Identifier: Apache-2.0 */
/*
 * encode.h: the header blocks of one member: a ustar header, and before it a PAX extended header for what does not fit
 * (long names, fractions of seconds, large numbers, xattrs). The same fields give the same bytes.
 */
#ifndef COW_TAR_ENCODE_H
#define COW_TAR_ENCODE_H

#include "tar/buffer.h"
#include "tar/header.h"

struct cow_tar_fields {
    const char *path, *link; /* a directory's path ends with "/" */
    size_t path_bytes, link_bytes;
    uint8_t type; /* COW_TAR_* */
    uint32_t mode, uid, gid, major, minor;
    uint64_t size_bytes;
    int64_t mtime_ns;
};

/* Appends to blocks. xattrs: PAX records of them, may be empty. scratch is used and emptied. */
int cow_tar_encode(const struct cow_tar_fields *fields, const struct cow_tar_buffer *xattrs,
                   struct cow_tar_buffer *scratch, struct cow_tar_buffer *blocks);

#endif
