/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing: a state machine that the reader pulls. One member at a time: its header blocks are made in memory, its
 * content is read from the tree straight into the caller's buffer, then padding. Of an inode with several names the
 * first in order carries the content, the others are hard links to it; for that the first names are remembered.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "tar/encode.h"
#include "tar/links.h"
#include "tar/pax.h"
#include "tar/source.h"

#define WHITEOUT ".wh."
#define WHITEOUT_BYTES (sizeof WHITEOUT - 1)

struct cow_tar {
    cow_tree *tree;
    struct cow_tar_source *source;
    bool layer; /* changes, with whiteouts */
    bool ended; /* the end marker is in head */
    int error;
    char detail[256];

    struct cow_tar_buffer head; /* header blocks of the member */
    size_t head_at;
    uint64_t ino, size_bytes, offset; /* its content */
    size_t padding_left;

    struct cow_tar_links links;
    struct cow_tar_buffer path, link, scratch, xattrs, names, value;
};

int cow_tar_open(cow_tree *old_tree, cow_tree *new_tree, cow_tar **tar_out)
{
    if (new_tree == NULL || tar_out == NULL) return cow_fail(EINVAL, "tar: bad arguments");
    struct cow_tar *tar = calloc(1, sizeof *tar);
    if (tar == NULL) return -ENOMEM;
    tar->tree = new_tree;
    tar->layer = old_tree != NULL;
    int rc = cow_tar_source_open(old_tree, new_tree, &tar->source);
    if (rc < 0) {
        free(tar);
        return rc;
    }
    *tar_out = tar;
    return 0;
}

void cow_tar_close(cow_tar *tar)
{
    if (tar == NULL) return;
    cow_tar_source_close(tar->source);
    cow_tar_links_deinit(&tar->links);
    struct cow_tar_buffer *buffers[] = {&tar->head,   &tar->path,  &tar->link, &tar->scratch,
                                        &tar->xattrs, &tar->names, &tar->value};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) cow_tar_buffer_deinit(buffers[i]);
    free(tar);
}

/* ---- Extended attributes ---- */

static int compare_texts(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int append_xattr(struct cow_tar *tar, uint64_t ino, const char *name)
{
    size_t name_bytes = strlen(name);
    tar->value.used = 0;
    int rc = cow_tar_buffer_reserve(&tar->value, COW_XATTR_VALUE_BYTES_MAX);
    if (rc < 0) return rc;
    int64_t bytes = cow_xattr_get(tar->tree, ino, name, name_bytes, tar->value.bytes, tar->value.capacity);
    if (bytes < 0) return (int)bytes;
    return cow_pax_append_xattr(&tar->xattrs, name, name_bytes, tar->value.bytes, (size_t)bytes);
}

/* The records of all extended attributes, by name. */
static int collect_xattrs(struct cow_tar *tar, uint64_t ino)
{
    tar->xattrs.used = 0;
    int64_t bytes = cow_xattr_list(tar->tree, ino, NULL, 0);
    if (bytes <= 0) return (int)bytes;
    tar->names.used = 0;
    int rc = cow_tar_buffer_reserve(&tar->names, (size_t)bytes + 1);
    if (rc < 0) return rc;
    bytes = cow_xattr_list(tar->tree, ino, (char *)tar->names.bytes, (size_t)bytes);
    if (bytes < 0) return (int)bytes;
    tar->names.bytes[bytes] = '\0';
    size_t count = 0, used = 0;
    for (size_t at = 0; at < (size_t)bytes; at += strlen((char *)tar->names.bytes + at) + 1) count++;
    if (count == 0) return 0;
    char **sorted = calloc(count, sizeof *sorted);
    if (sorted == NULL) return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        sorted[i] = (char *)tar->names.bytes + used;
        used += strlen(sorted[i]) + 1;
    }
    qsort(sorted, count, sizeof *sorted, compare_texts);
    for (size_t i = 0; i < count && rc == 0; i++) rc = append_xattr(tar, ino, sorted[i]);
    free(sorted);
    return rc;
}

/* ---- Members ---- */

static uint8_t type_of(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG: return COW_TAR_FILE;
    case S_IFDIR: return COW_TAR_DIR;
    case S_IFLNK: return COW_TAR_SYMLINK;
    case S_IFCHR: return COW_TAR_CHAR;
    case S_IFBLK: return COW_TAR_BLOCK;
    case S_IFIFO: return COW_TAR_FIFO;
    default: return 0; /* a socket: no tar holds one */
    }
}

static int append_path(struct cow_tar *tar, const char *path, size_t path_bytes, bool directory)
{
    tar->path.used = 0;
    if (path_bytes == 0) return cow_tar_buffer_append(&tar->path, "./", 2); /* the root has no other name */
    int rc = cow_tar_buffer_append(&tar->path, path, path_bytes);
    return rc == 0 && directory ? cow_tar_buffer_append(&tar->path, "/", 1) : rc;
}

static int read_target(struct cow_tar *tar, uint64_t ino)
{
    tar->link.used = 0;
    int rc = cow_tar_buffer_reserve(&tar->link, COW_SYMLINK_BYTES_MAX);
    if (rc < 0) return rc;
    int64_t bytes = cow_symlink_read(tar->tree, ino, (char *)tar->link.bytes, tar->link.capacity);
    if (bytes < 0) return (int)bytes;
    COW_ASSERT((size_t)bytes <= tar->link.capacity);
    tar->link.used = (size_t)bytes;
    return 0;
}

static int encode(struct cow_tar *tar, struct cow_tar_fields *fields)
{
    fields->path = (const char *)tar->path.bytes;
    fields->path_bytes = tar->path.used;
    fields->link = (const char *)tar->link.bytes;
    fields->link_bytes = tar->link.used;
    return cow_tar_encode(fields, &tar->xattrs, &tar->scratch, &tar->head);
}

static int make_whiteout(struct cow_tar *tar, const struct cow_tar_item *item)
{
    const char *slash = memrchr(item->path, '/', item->path_bytes);
    size_t parent_bytes = slash != NULL ? (size_t)(slash - item->path) + 1 : 0;
    tar->path.used = tar->link.used = tar->xattrs.used = 0;
    int rc = cow_tar_buffer_append(&tar->path, item->path, parent_bytes);
    if (rc == 0) rc = cow_tar_buffer_append(&tar->path, WHITEOUT, WHITEOUT_BYTES);
    if (rc == 0) rc = cow_tar_buffer_append(&tar->path, item->path + parent_bytes, item->path_bytes - parent_bytes);
    struct cow_tar_fields fields = {.type = COW_TAR_FILE};
    return rc < 0 ? rc : encode(tar, &fields);
}

/* 1 = the item is a further name of an inode that was written; its link text is set. */
static int is_link(struct cow_tar *tar, const struct cow_tar_item *item, const cow_attr *attr)
{
    if (S_ISDIR(attr->mode) || attr->nlink < 2) return 0;
    tar->link.used = 0;
    return cow_tar_links_find(&tar->links, item->ino, item->path, item->path_bytes, &tar->link);
}

/* In a layer a name with the prefix of a whiteout would delete something when the layer is applied. */
static int check_name(const struct cow_tar *tar, const struct cow_tar_item *item)
{
    const char *slash = memrchr(item->path, '/', item->path_bytes);
    const char *name = slash != NULL ? slash + 1 : item->path;
    size_t name_bytes = item->path_bytes - (size_t)(name - item->path);
    if (!tar->layer || name_bytes < WHITEOUT_BYTES || memcmp(name, WHITEOUT, WHITEOUT_BYTES) != 0) return 0;
    char printable[160];
    cow_tar_printable(item->path, item->path_bytes, printable, sizeof printable);
    return cow_fail(EINVAL, "\"/%s\": a layer cannot hold a name that begins with .wh.", printable);
}

static int make_member(struct cow_tar *tar, const struct cow_tar_item *item)
{
    cow_attr attr;
    int rc = check_name(tar, item);
    if (rc == 0) rc = cow_inode_stat(tar->tree, item->ino, &attr);
    if (rc < 0) return rc;
    struct cow_tar_fields fields = {.type = type_of(attr.mode), .mode = attr.mode & 07777, .uid = attr.uid,
                                    .gid = attr.gid, .mtime_ns = attr.mtime_ns};
    if (fields.type == 0) return 0;
    rc = append_path(tar, item->path, item->path_bytes, fields.type == COW_TAR_DIR);
    tar->link.used = tar->xattrs.used = 0;
    if (rc == 0) rc = is_link(tar, item, &attr);
    if (rc < 0) return rc;
    if (rc == 1) {
        fields.type = COW_TAR_LINK;
        return encode(tar, &fields);
    }
    if (fields.type == COW_TAR_SYMLINK) rc = read_target(tar, item->ino);
    if (rc == 0) rc = collect_xattrs(tar, item->ino);
    if (rc < 0) return rc;
    if (fields.type == COW_TAR_CHAR || fields.type == COW_TAR_BLOCK) {
        fields.major = major(attr.rdev);
        fields.minor = minor(attr.rdev);
    }
    if (fields.type == COW_TAR_FILE) {
        fields.size_bytes = attr.size_bytes;
        tar->ino = item->ino;
        tar->size_bytes = attr.size_bytes;
        tar->padding_left = (COW_TAR_BLOCK_BYTES - attr.size_bytes % COW_TAR_BLOCK_BYTES) % COW_TAR_BLOCK_BYTES;
    }
    return encode(tar, &fields);
}

/* Prepares the next member, or the end marker: 1, or 0 after that. */
static int next_member(struct cow_tar *tar)
{
    if (tar->ended) return 0;
    tar->head.used = tar->head_at = 0;
    tar->size_bytes = tar->offset = 0;
    struct cow_tar_item item;
    int rc = cow_tar_source_next(tar->source, &item);
    if (rc == 1) rc = item.deleted ? make_whiteout(tar, &item) : make_member(tar, &item);
    else if (rc == 0) {
        tar->ended = true;
        rc = cow_tar_buffer_append_zeros(&tar->head, (size_t)2 * COW_TAR_BLOCK_BYTES);
    }
    return rc < 0 ? rc : 1;
}

/* ---- Reading ---- */

/* Bytes of the current member, 0 when it has no more. */
static int64_t take(struct cow_tar *tar, uint8_t *buffer, size_t capacity)
{
    if (tar->head_at < tar->head.used) {
        size_t left = tar->head.used - tar->head_at, step = left < capacity ? left : capacity;
        memcpy(buffer, tar->head.bytes + tar->head_at, step);
        tar->head_at += step;
        return (int64_t)step;
    }
    if (tar->offset < tar->size_bytes) {
        uint64_t left = tar->size_bytes - tar->offset;
        size_t step = left < capacity ? (size_t)left : capacity;
        int64_t bytes = cow_file_read(tar->tree, tar->ino, tar->offset, buffer, step);
        if (bytes == 0) return cow_fail(EBUSY, "a file became shorter while it was written to a tar");
        if (bytes > 0) tar->offset += (uint64_t)bytes;
        return bytes;
    }
    size_t step = tar->padding_left < capacity ? tar->padding_left : capacity;
    memset(buffer, 0, step);
    tar->padding_left -= step;
    return (int64_t)step;
}

static int64_t fail(struct cow_tar *tar, int64_t rc)
{
    tar->error = (int)rc;
    snprintf(tar->detail, sizeof tar->detail, "%s", cow_error_detail());
    return rc;
}

int64_t cow_tar_read(cow_tar *tar, void *buffer, size_t capacity_bytes)
{
    if (tar == NULL || (buffer == NULL && capacity_bytes > 0)) return cow_fail(EINVAL, "tar: bad arguments");
    if (tar->error != 0) return cow_fail(-tar->error, "%s", tar->detail);
    cow_error_clear();
    if (capacity_bytes > INT64_MAX) capacity_bytes = INT64_MAX;
    size_t used = 0;
    while (used < capacity_bytes) {
        int64_t bytes = take(tar, (uint8_t *)buffer + used, capacity_bytes - used);
        if (bytes < 0) return fail(tar, bytes);
        used += (size_t)bytes;
        if (bytes > 0) continue;
        int rc = next_member(tar);
        if (rc < 0) return fail(tar, rc);
        if (rc == 0) break;
    }
    return (int64_t)used;
}
