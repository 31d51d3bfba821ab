/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each field goes into the ustar header when it fits, and else into a PAX record, with the nearest thing that fits left
 * in the header (readers that know PAX do not look at it). User and group names stay empty: they belong to a host.
 */
#include "tar/encode.h"

#include <stdio.h>

#include "tar/pax.h"

#define OCTAL_7_MAX 07777777u
#define OCTAL_11_MAX 077777777777u
#define NAME_BYTES 100u
#define PREFIX_BYTES 155u
#define PAX_NAME_DIR "PaxHeaders/"

static void put_octal(uint8_t *field, size_t digits, uint64_t value)
{
    for (size_t i = digits; i-- > 0; value >>= 3) field[i] = (uint8_t)('0' + (value & 7));
    field[digits] = 0;
}

/* Where to split a path into prefix and name; 0 = it fits the name alone; path_bytes = it does not fit. */
static size_t split_of(const char *path, size_t path_bytes)
{
    if (path_bytes <= NAME_BYTES) return 0;
    if (path_bytes > PREFIX_BYTES + 1 + NAME_BYTES) return path_bytes;
    size_t first = path_bytes - NAME_BYTES - 1; /* the name begins behind the slash */
    for (size_t at = first > 0 ? first : 1; at <= PREFIX_BYTES && at + 1 < path_bytes; at++)
        if (path[at] == '/') return at;
    return path_bytes;
}

static void seal_block(uint8_t *block)
{
    memcpy(block + 257, "ustar\0" "00", 8);
    memset(block + 148, ' ', 8);
    uint64_t sum = 0;
    for (size_t i = 0; i < COW_TAR_BLOCK_BYTES; i++) sum += block[i];
    put_octal(block + 148, 6, sum);
}

static int64_t whole_seconds(int64_t time_ns)
{
    int64_t seconds = time_ns / 1000000000;
    return time_ns % 1000000000 < 0 ? seconds - 1 : seconds;
}

static void put_numbers(uint8_t *block, const struct cow_tar_fields *fields)
{
    int64_t seconds = whole_seconds(fields->mtime_ns);
    put_octal(block + 100, 7, fields->mode & 07777);
    put_octal(block + 108, 7, fields->uid <= OCTAL_7_MAX ? fields->uid : 0);
    put_octal(block + 116, 7, fields->gid <= OCTAL_7_MAX ? fields->gid : 0);
    put_octal(block + 124, 11, fields->size_bytes <= OCTAL_11_MAX ? fields->size_bytes : 0);
    put_octal(block + 136, 11, seconds >= 0 && (uint64_t)seconds <= OCTAL_11_MAX ? (uint64_t)seconds : 0);
    block[156] = fields->type;
    if (fields->type == COW_TAR_CHAR || fields->type == COW_TAR_BLOCK) {
        put_octal(block + 329, 7, fields->major <= OCTAL_7_MAX ? fields->major : 0);
        put_octal(block + 337, 7, fields->minor <= OCTAL_7_MAX ? fields->minor : 0);
    }
}

/* The records for what the ustar header cannot hold. */
static int append_records(struct cow_tar_buffer *records, const struct cow_tar_fields *fields)
{
    int rc = 0;
    int64_t seconds = whole_seconds(fields->mtime_ns);
    bool device = fields->type == COW_TAR_CHAR || fields->type == COW_TAR_BLOCK;
    if (split_of(fields->path, fields->path_bytes) == fields->path_bytes)
        rc = cow_pax_append(records, "path", 4, fields->path, fields->path_bytes);
    if (rc == 0 && fields->link_bytes > NAME_BYTES)
        rc = cow_pax_append(records, "linkpath", 8, fields->link, fields->link_bytes);
    if (rc == 0 && fields->size_bytes > OCTAL_11_MAX) rc = cow_pax_append_number(records, "size", fields->size_bytes);
    if (rc == 0 && fields->uid > OCTAL_7_MAX) rc = cow_pax_append_number(records, "uid", fields->uid);
    if (rc == 0 && fields->gid > OCTAL_7_MAX) rc = cow_pax_append_number(records, "gid", fields->gid);
    if (rc == 0 && (fields->mtime_ns % 1000000000 != 0 || seconds < 0 || (uint64_t)seconds > OCTAL_11_MAX))
        rc = cow_pax_append_time(records, "mtime", fields->mtime_ns);
    if (rc == 0 && device && fields->major > OCTAL_7_MAX)
        rc = cow_pax_append_number(records, "SCHILY.devmajor", fields->major);
    if (rc == 0 && device && fields->minor > OCTAL_7_MAX)
        rc = cow_pax_append_number(records, "SCHILY.devminor", fields->minor);
    return rc;
}

static int append_pax(struct cow_tar_buffer *blocks, const struct cow_tar_buffer *records,
                      const struct cow_tar_fields *fields)
{
    uint8_t block[COW_TAR_BLOCK_BYTES] = {0};
    struct cow_tar_fields pax = {.type = COW_TAR_PAX, .mode = 0644, .size_bytes = records->used};
    size_t bytes = fields->path_bytes;
    while (bytes > 0 && fields->path[bytes - 1] == '/') bytes--;
    const char *slash = bytes > 0 ? memrchr(fields->path, '/', bytes) : NULL;
    const char *name = slash != NULL ? slash + 1 : fields->path;
    bytes -= (size_t)(name - fields->path);
    size_t room = NAME_BYTES - (sizeof PAX_NAME_DIR - 1);
    memcpy(block, PAX_NAME_DIR, sizeof PAX_NAME_DIR - 1);
    memcpy(block + sizeof PAX_NAME_DIR - 1, name, bytes < room ? bytes : room);
    put_numbers(block, &pax);
    seal_block(block);
    int rc = cow_tar_buffer_append(blocks, block, sizeof block);
    if (rc == 0) rc = cow_tar_buffer_append(blocks, records->bytes, records->used);
    size_t over = records->used % COW_TAR_BLOCK_BYTES;
    return rc == 0 && over > 0 ? cow_tar_buffer_append_zeros(blocks, COW_TAR_BLOCK_BYTES - over) : rc;
}

int cow_tar_encode(const struct cow_tar_fields *fields, const struct cow_tar_buffer *xattrs,
                   struct cow_tar_buffer *scratch, struct cow_tar_buffer *blocks)
{
    scratch->used = 0;
    int rc = append_records(scratch, fields);
    if (rc == 0) rc = cow_tar_buffer_append(scratch, xattrs->bytes, xattrs->used);
    if (rc == 0 && scratch->used > 0) rc = append_pax(blocks, scratch, fields);
    scratch->used = 0;
    if (rc < 0) return rc;

    uint8_t block[COW_TAR_BLOCK_BYTES] = {0};
    size_t split = split_of(fields->path, fields->path_bytes);
    if (split == 0) {
        memcpy(block, fields->path, fields->path_bytes);
    } else if (split < fields->path_bytes) {
        memcpy(block + 345, fields->path, split);
        memcpy(block, fields->path + split + 1, fields->path_bytes - split - 1);
    } else {
        memcpy(block, fields->path, NAME_BYTES);
    }
    if (fields->link_bytes > 0)
        memcpy(block + 157, fields->link, fields->link_bytes < NAME_BYTES ? fields->link_bytes : NAME_BYTES);
    put_numbers(block, fields);
    seal_block(block);
    return cow_tar_buffer_append(blocks, block, sizeof block);
}
