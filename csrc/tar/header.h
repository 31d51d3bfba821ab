/* SPDX-License-Identifier: Apache-2.0 */
/*
 * header.h: the bytes of tar header blocks: v7, ustar, star, GNU (read), ustar (written). No state; nothing
 * here knows a tree. Refusals are -EBADMSG with a detail that names the member, non-printable bytes escaped.
 */
#ifndef COW_TAR_HEADER_H
#define COW_TAR_HEADER_H

#include "base/common.h"

#define COW_TAR_BLOCK_BYTES 512u

/* Member types, as their flag bytes. */
enum cow_tar_type {
    COW_TAR_FILE_V7 = 0, /* a file, or with a trailing slash a directory */
    COW_TAR_FILE = '0',
    COW_TAR_LINK = '1',
    COW_TAR_SYMLINK = '2',
    COW_TAR_CHAR = '3',
    COW_TAR_BLOCK = '4',
    COW_TAR_DIR = '5',
    COW_TAR_FIFO = '6',
    COW_TAR_CONTIGUOUS = '7', /* a file */
    COW_TAR_PAX_GLOBAL = 'g',
    COW_TAR_PAX = 'x',
    COW_TAR_PAX_SOLARIS = 'X',
    COW_TAR_GNU_LONG_NAME = 'L',
    COW_TAR_GNU_LONG_LINK = 'K',
    COW_TAR_GNU_SPARSE = 'S',
    COW_TAR_GNU_VOLUME = 'V',
};

/* One header block, decoded. Names point into no buffer: they are copies, without terminator. */
struct cow_tar_header {
    uint8_t type;
    uint32_t mode; /* permission bits only */
    uint32_t uid, gid, major, minor;
    uint64_t size_bytes; /* as stored after the header; at most COW_FILE_BYTES_MAX */
    int64_t mtime_ns;
    size_t name_bytes, link_bytes;
    char name[256], link[100];
};

bool cow_tar_block_is_zero(const uint8_t *block);
int cow_tar_header_decode(const uint8_t *block, struct cow_tar_header *header_out);

/* A numeric field: octal, or base-256 when its first bit is set. -EBADMSG without detail when it is neither. */
int cow_tar_number(const uint8_t *field, size_t field_bytes, int64_t *value_out);
/* Seconds and nanoseconds (0..999,999,999) to nanoseconds, kept within what 64 bits hold (years 1677 to 2262). */
int64_t cow_tar_time(int64_t seconds, uint32_t nanoseconds);

/* -EBADMSG with the detail: member "NAME": reason. */
int cow_tar_refuse(const char *name, size_t name_bytes, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* NAME with bytes outside of printable ASCII as \xHH; a long one loses its beginning. Always terminated. */
void cow_tar_printable(const char *name, size_t name_bytes, char *out, size_t capacity);

#endif
