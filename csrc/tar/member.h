/* SPDX-License-Identifier: Apache-2.0 */
/*
 * member.h: one member of an archive with everything that its header, GNU long names and PAX records say,
 * put together and checked as far as that goes without a tree.
 */
#ifndef COW_TAR_MEMBER_H
#define COW_TAR_MEMBER_H

#include "cow.h"
#include "tar/header.h"
#include "tar/sparse.h"

/* A whiteout's name has four bytes more than the name that it hides. */
#define COW_TAR_PATH_BYTES_MAX (COW_PATH_BYTES_MAX + 4u)
#define COW_TAR_NAME_BYTES_MAX (COW_NAME_BYTES_MAX + 4u)

struct cow_tar_member {
    uint8_t type; /* COW_TAR_FILE, LINK, SYMLINK, CHAR, BLOCK, DIR, FIFO */
    uint32_t mode, uid, gid, major, minor;
    int64_t mtime_ns, atime_ns;
    uint64_t stored_bytes; /* that follow in the archive, without padding */
    uint64_t size_bytes;   /* of the file */
    const struct cow_tar_buffer *pax; /* its own records, for the xattrs */
    size_t path_bytes, link_bytes;
    char path[COW_TAR_PATH_BYTES_MAX];    /* "a/b": relative, no empty, "." or ".." parts; "" = the root */
    char link[COW_SYMLINK_BYTES_MAX + 1u]; /* a symlink's target as it is; a hard link's like path */
};

/* What came before the member's header. */
struct cow_tar_extras {
    struct cow_tar_buffer pax, global; /* records */
    struct cow_tar_buffer long_name, long_link;
};

/* -EBADMSG with detail. A list of parts that stands in header blocks or in the content is left to the caller, and so is
 * size_bytes of a sparse file then. */
int cow_tar_member_make(const struct cow_tar_header *header, const struct cow_tar_extras *extras,
                        struct cow_sparse *sparse, struct cow_tar_member *member_out);

#endif
