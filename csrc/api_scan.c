/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scanning: every entry below a directory with its attributes, in batches, for callers to whom a call an entry costs too
 * much. Built on cow_dir_read: directories still to be read wait on a stack with their paths; one is read at a time, so
 * memory grows with the number of directories that wait, not with that of entries.
 */
#include <stdlib.h>
#include <sys/stat.h>

#include "base/common.h"
#include "cow.h"

#define BATCH_BYTES 65536u

struct waiting {
    uint64_t ino;
    char *path; /* "" for the start, otherwise "/a/b" */
    size_t path_bytes;
};

struct cow_scan {
    cow_tree *tree;
    struct waiting *stack;
    size_t count, capacity;
    struct waiting dir; /* being read; path NULL = none */
    uint64_t cookie;
    int64_t batch_bytes, at;
    uint64_t batch[BATCH_BYTES / 8];
};

static int push(cow_scan *scan, uint64_t ino, const struct waiting *above, const char *name, size_t name_bytes)
{
    if (scan->count == scan->capacity) {
        size_t capacity = scan->capacity ? scan->capacity * 2 : 64;
        struct waiting *stack = realloc(scan->stack, capacity * sizeof *stack);
        if (!stack) return -ENOMEM;
        scan->stack = stack;
        scan->capacity = capacity;
    }
    size_t bytes = above ? above->path_bytes + 1 + name_bytes : 0;
    char *path = malloc(bytes + 1);
    if (!path) return -ENOMEM;
    if (above) {
        memcpy(path, above->path, above->path_bytes);
        path[above->path_bytes] = '/';
        memcpy(path + above->path_bytes + 1, name, name_bytes);
    }
    scan->stack[scan->count++] = (struct waiting){ino, path, bytes};
    return 0;
}

int cow_scan_open(cow_tree *tree, uint64_t dir, cow_scan **scan_out)
{
    cow_attr attr;
    int rc = cow_inode_stat(tree, dir, &attr);
    if (rc) return rc;
    if (!S_ISDIR(attr.mode)) return cow_fail(ENOTDIR, "inode %llu is no directory", (unsigned long long)dir);
    cow_scan *scan = calloc(1, sizeof *scan);
    if (!scan) return -ENOMEM;
    scan->tree = tree;
    rc = push(scan, dir, NULL, NULL, 0);
    if (rc) {
        cow_scan_close(scan);
        return rc;
    }
    *scan_out = scan;
    return 0;
}

/* Makes sure of an unread entry: 1, or 0 at the end of everything. */
static int next_batch(cow_scan *scan)
{
    while (scan->at == scan->batch_bytes) {
        if (!scan->dir.path) {
            if (scan->count == 0) return 0;
            scan->dir = scan->stack[--scan->count];
            scan->cookie = 0;
        }
        int64_t n = cow_dir_read(scan->tree, scan->dir.ino, scan->cookie, COW_READ_ATTR, scan->batch, sizeof scan->batch);
        if (n < 0 && n != -ENOENT) return (int)n;
        scan->at = 0;
        scan->batch_bytes = n > 0 ? n : 0;
        if (n <= 0) { /* read to its end, or removed meanwhile */
            free(scan->dir.path);
            scan->dir.path = NULL;
        }
    }
    return 1;
}

/* Gives out one entry: 1, 0 when the path does not fit any more. */
static int give(cow_scan *scan, cow_attr *attr_out, char *paths, size_t path_capacity, size_t *path_bytes)
{
    const cow_dir_entry *entry = (const cow_dir_entry *)((const char *)scan->batch + scan->at);
    const char *name = (const char *)(entry + 1);
    size_t bytes = scan->dir.path_bytes + 1 + entry->name_bytes;
    if (path_capacity - *path_bytes < bytes) return 0;
    memcpy(attr_out, (const char *)entry + entry->record_bytes - sizeof *attr_out, sizeof *attr_out);
    if (S_ISDIR(attr_out->mode)) {
        int rc = push(scan, entry->ino, &scan->dir, name, entry->name_bytes);
        if (rc) return rc;
    }
    char *path = paths + *path_bytes;
    memcpy(path, scan->dir.path, scan->dir.path_bytes);
    path[scan->dir.path_bytes] = '/';
    memcpy(path + scan->dir.path_bytes + 1, name, entry->name_bytes);
    *path_bytes += bytes;
    scan->cookie = entry->cookie;
    scan->at += entry->record_bytes;
    return 1;
}

int64_t cow_scan_read(cow_scan *scan, cow_attr *attrs, uint32_t *path_ends, size_t capacity, char *paths,
                      size_t path_capacity)
{
    if (capacity == 0 || path_capacity < 65536 || path_capacity > UINT32_MAX)
        return cow_fail(ERANGE, "a scan needs room for one entry and 64 KiB of paths");
    size_t count = 0, path_bytes = 0;
    while (count < capacity) {
        int rc = next_batch(scan);
        if (rc > 0) rc = give(scan, &attrs[count], paths, path_capacity, &path_bytes);
        if (rc == 0) break;
        if (rc < 0) return rc;
        path_ends[count++] = (uint32_t)path_bytes;
    }
    if (count == 0 && scan->at != scan->batch_bytes) return cow_fail(ENAMETOOLONG, "a path of more than 64 KiB");
    return (int64_t)count;
}

void cow_scan_close(cow_scan *scan)
{
    if (!scan) return;
    while (scan->count > 0) free(scan->stack[--scan->count].path);
    free(scan->stack);
    free(scan->dir.path);
    free(scan);
}
