/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_kit.h: short ways to say what the tests of the file system say often. Functions are static, as the checks'
 * counters are.
 */
#ifndef PYCOW_FS_KIT_H
#define PYCOW_FS_KIT_H

#include <inttypes.h>
#include <sys/stat.h>

#include "fs/extents.h"
#include "fs/names.h"
#include "test.h"
#include "tree/store.h"

static inline cow_store *open_store(void)
{
    struct cow_dev *dev;
    cow_store *store;
    cow_options options = {.flags = COW_OPEN_CREATE, .lookup_entries = 512};
    MUST(cow_dev_memory_open(&dev));
    MUST(cow_store_open_dev(dev, &options, &store));
    return store;
}

static inline void problem(void *context, const char *text)
{
    (void)context;
    fprintf(stderr, "check: %s\n", text);
}

static inline void close_store(cow_store *store)
{
    cow_check_report report;
    CHECK_EQ(cow_store_check(store, 1, problem, NULL, &report), 0);
    CHECK_EQ(report.errors, 0);
    CHECK_EQ(cow_store_close(store), 0);
}

static inline int make(cow_tree *tree, uint64_t dir, const char *name, uint32_t mode, uint64_t *ino_out)
{
    cow_attr attr = {.mode = mode};
    return cow_dir_make(tree, dir, name, strlen(name), &attr, NULL, 0, ino_out);
}

static inline uint64_t must_make(cow_tree *tree, uint64_t dir, const char *name, uint32_t mode)
{
    uint64_t ino = 0;
    MUST(make(tree, dir, name, mode, &ino));
    return ino;
}

static inline uint64_t must_link(cow_tree *tree, uint64_t dir, const char *name, const char *target)
{
    cow_attr attr = {.mode = S_IFLNK | 0777};
    uint64_t ino = 0;
    MUST(cow_dir_make(tree, dir, name, strlen(name), &attr, target, strlen(target), &ino));
    return ino;
}

static inline int walk(cow_tree *tree, const char *path, uint32_t flags, uint64_t *ino_out)
{
    return cow_path_walk(tree, COW_ROOT_INO, path, strlen(path), flags, ino_out, NULL);
}

static inline int rename_paths(cow_tree *tree, const char *from, const char *to, uint32_t flags)
{
    uint64_t from_dir, to_dir;
    size_t from_at, from_bytes, to_at, to_bytes;
    int rc = cow_path_parent(tree, COW_ROOT_INO, from, strlen(from), &from_dir, &from_at, &from_bytes);
    if (!rc) rc = cow_path_parent(tree, COW_ROOT_INO, to, strlen(to), &to_dir, &to_at, &to_bytes);
    return rc ? rc : cow_dir_rename(tree, from_dir, from + from_at, from_bytes, to_dir, to + to_at, to_bytes, flags);
}

static inline int remove_path(cow_tree *tree, const char *path, uint32_t how)
{
    uint64_t dir;
    size_t at, bytes;
    int rc = cow_path_parent(tree, COW_ROOT_INO, path, strlen(path), &dir, &at, &bytes);
    return rc ? rc : cow_dir_remove(tree, dir, path + at, bytes, how);
}

static inline uint64_t size_of(cow_tree *tree)
{
    cow_tree_info info;
    MUST(cow_tree_get_info(tree, &info));
    return info.size_bytes;
}

static inline uint32_t nlink_of(cow_tree *tree, uint64_t ino)
{
    cow_attr attr;
    MUST(cow_inode_stat(tree, ino, &attr));
    return attr.nlink;
}

static inline bool is_zero(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (bytes[i]) return false;
    return true;
}

#endif
