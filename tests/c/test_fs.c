/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file system inside trees: tables of POSIX cases, and a random run of several forked trees against a model
 * (fs_model.h), with commits, clones between trees, files that are open without a name, and a check of the store at the end.
 *
 *   test_fs                      the runs of CI
 *   test_fs random SEED STEPS    one random run; a failure prints this line
 *   test_fs bench [NAMES]        times of a large directory and of writes, for people
 */
#include <inttypes.h>
#include <sys/stat.h>
#include <time.h>

#include "fs_model.h"
#include "test.h"

static cow_store *open_store(void)
{
    struct cow_dev *dev;
    cow_store *store;
    cow_options options = {.flags = COW_OPEN_CREATE, .lookup_entries = 512};
    MUST(cow_dev_memory_open(&dev));
    MUST(cow_store_open_dev(dev, &options, &store));
    return store;
}

static void problem(void *context, const char *text)
{
    (void)context;
    fprintf(stderr, "check: %s\n", text);
}

static void close_store(cow_store *store)
{
    cow_check_report report;
    CHECK_EQ(cow_store_check(store, 1, problem, NULL, &report), 0);
    CHECK_EQ(report.errors, 0);
    CHECK_EQ(cow_store_close(store), 0);
}

static int make(cow_tree *tree, uint64_t dir, const char *name, uint32_t mode, uint64_t *ino_out)
{
    cow_attr attr = {.mode = mode};
    return cow_dir_make(tree, dir, name, strlen(name), &attr, NULL, 0, ino_out);
}

static uint64_t must_make(cow_tree *tree, uint64_t dir, const char *name, uint32_t mode)
{
    uint64_t ino = 0;
    MUST(make(tree, dir, name, mode, &ino));
    return ino;
}

static uint64_t must_link(cow_tree *tree, uint64_t dir, const char *name, const char *target)
{
    cow_attr attr = {.mode = S_IFLNK | 0777};
    uint64_t ino = 0;
    MUST(cow_dir_make(tree, dir, name, strlen(name), &attr, target, strlen(target), &ino));
    return ino;
}

static int walk(cow_tree *tree, const char *path, uint32_t flags, uint64_t *ino_out)
{
    return cow_path_walk(tree, COW_ROOT_INO, path, strlen(path), flags, ino_out, NULL);
}

static int rename_paths(cow_tree *tree, const char *from, const char *to, uint32_t flags)
{
    uint64_t from_dir, to_dir;
    size_t from_at, from_bytes, to_at, to_bytes;
    int rc = cow_path_parent(tree, COW_ROOT_INO, from, strlen(from), &from_dir, &from_at, &from_bytes);
    if (!rc) rc = cow_path_parent(tree, COW_ROOT_INO, to, strlen(to), &to_dir, &to_at, &to_bytes);
    return rc ? rc : cow_dir_rename(tree, from_dir, from + from_at, from_bytes, to_dir, to + to_at, to_bytes, flags);
}

static int remove_path(cow_tree *tree, const char *path, uint32_t how)
{
    uint64_t dir;
    size_t at, bytes;
    int rc = cow_path_parent(tree, COW_ROOT_INO, path, strlen(path), &dir, &at, &bytes);
    return rc ? rc : cow_dir_remove(tree, dir, path + at, bytes, how);
}

static uint64_t size_of(cow_tree *tree)
{
    cow_tree_info info;
    MUST(cow_tree_get_info(tree, &info));
    return info.size_bytes;
}

static uint32_t nlink_of(cow_tree *tree, uint64_t ino)
{
    cow_attr attr;
    MUST(cow_inode_stat(tree, ino, &attr));
    return attr.nlink;
}

/* ---- Names ---- */

static void test_names(void)
{
    cow_store *store = open_store();
    cow_tree *tree;
    uint64_t ino, other;
    char name[300];
    memset(name, 'n', sizeof name);
    MUST(cow_tree_create(store, 0, &tree));
    uint64_t dir = must_make(tree, COW_ROOT_INO, "dir", S_IFDIR | 0755);
    uint64_t file = must_make(tree, dir, "file", S_IFREG | 0644);
    CHECK_EQ(make(tree, dir, "file", S_IFREG, &ino), -EEXIST);
    CHECK_EQ(make(tree, dir, ".", S_IFREG, &ino), -EINVAL);
    CHECK_EQ(make(tree, dir, "..", S_IFDIR, &ino), -EINVAL);
    CHECK_EQ(make(tree, dir, "a/b", S_IFREG, &ino), -EINVAL);
    CHECK_EQ(make(tree, dir, "", S_IFREG, &ino), -ENOENT);
    CHECK_EQ(make(tree, dir, "typeless", 0644, &ino), -EINVAL);
    CHECK_EQ(make(tree, file, "x", S_IFREG, &ino), -ENOTDIR);
    CHECK_EQ(make(tree, 9999, "x", S_IFREG, &ino), -ENOENT);
    cow_attr attr = {.mode = S_IFREG};
    CHECK_EQ(cow_dir_make(tree, dir, name, 256, &attr, NULL, 0, &ino), -ENAMETOOLONG);
    CHECK_EQ(cow_dir_make(tree, dir, name, 255, &attr, NULL, 0, &ino), 0);
    CHECK_EQ(cow_dir_make(tree, dir, "a\0b", 3, &attr, NULL, 0, &ino), -EINVAL);
    CHECK_EQ(cow_dir_lookup(tree, dir, name, 255, &other, &attr), 0);
    CHECK_EQ(ino, other);
    CHECK_EQ(cow_dir_lookup(tree, dir, "..", 2, &other, NULL), 0);
    CHECK_EQ(other, COW_ROOT_INO);
    CHECK_EQ(cow_dir_lookup(tree, dir, "none", 4, &other, NULL), -ENOENT);
    CHECK_EQ(cow_dir_lookup(tree, dir, "none", 4, &other, NULL), -ENOENT);
    must_make(tree, dir, "none", S_IFIFO);
    CHECK_EQ(cow_dir_lookup(tree, dir, "none", 4, &other, NULL), 0);
    /* hard links */
    CHECK_EQ(cow_dir_link(tree, COW_ROOT_INO, "link", 4, file), 0);
    CHECK_EQ(cow_dir_link(tree, COW_ROOT_INO, "link2", 5, file), 0);
    CHECK_EQ(cow_dir_link(tree, COW_ROOT_INO, "link", 4, file), -EEXIST);
    CHECK_EQ(cow_dir_link(tree, COW_ROOT_INO, "dirlink", 7, dir), -EPERM);
    CHECK_EQ(nlink_of(tree, file), 3);
    CHECK_EQ(remove_path(tree, "/dir/file", COW_REMOVE_FILE), 0); /* the first one: another is promoted */
    size_t bytes;
    CHECK_EQ(cow_path_of(tree, file, name, sizeof name, &bytes), 0);
    CHECK(bytes == 5 || bytes == 6);
    CHECK_EQ(cow_path_of(tree, file, name, 3, &bytes), -ERANGE);
    CHECK_EQ(remove_path(tree, "/link", COW_REMOVE_DIR), -ENOTDIR);
    CHECK_EQ(remove_path(tree, "/link", COW_REMOVE_FILE), 0);
    CHECK_EQ(remove_path(tree, "/link2", COW_REMOVE_FILE), 0);
    CHECK_EQ(cow_inode_stat(tree, file, &attr), -ENOENT);
    CHECK_EQ(remove_path(tree, "/dir", COW_REMOVE_FILE), -EISDIR);
    CHECK_EQ(remove_path(tree, "/dir", COW_REMOVE_DIR), -ENOTEMPTY);
    CHECK_EQ(remove_path(tree, "/dir", COW_REMOVE_TREE), 0);
    CHECK_EQ(remove_path(tree, "/dir", COW_REMOVE_TREE), -ENOENT);
    CHECK_EQ(nlink_of(tree, COW_ROOT_INO), 2);
    model_verify_counts(tree);
    cow_tree_close(tree);
    close_store(store);
}

static void test_setgid(void)
{
    cow_store *store = open_store();
    cow_tree *tree;
    uint64_t ino;
    cow_attr attr = {.mode = S_IFDIR | S_ISGID | 0775, .uid = 1, .gid = 50};
    MUST(cow_tree_create(store, 0, &tree));
    MUST(cow_dir_make(tree, COW_ROOT_INO, "shared", 6, &attr, NULL, 0, &ino));
    uint64_t file = must_make(tree, ino, "file", S_IFREG | 0644), dir = must_make(tree, ino, "dir", S_IFDIR | 0755);
    MUST(cow_inode_stat(tree, file, &attr));
    CHECK_EQ(attr.gid, 50);
    CHECK_EQ(attr.mode, S_IFREG | 0644);
    MUST(cow_inode_stat(tree, dir, &attr));
    CHECK_EQ(attr.gid, 50);
    CHECK_EQ(attr.mode, S_IFDIR | S_ISGID | 0755);
    cow_tree_close(tree);
    close_store(store);
}

static void test_paths(void)
{
    cow_store *store = open_store();
    cow_tree *tree;
    MUST(cow_tree_create(store, 0, &tree));
    uint64_t a = must_make(tree, COW_ROOT_INO, "a", S_IFDIR | 0755), b = must_make(tree, a, "b", S_IFDIR | 0755);
    uint64_t file = must_make(tree, b, "f", S_IFREG | 0644), link = must_link(tree, COW_ROOT_INO, "to_b", "a/b");
    must_link(tree, b, "up", "../../a");
    must_link(tree, b, "abs", "/a/b/f");
    must_link(tree, COW_ROOT_INO, "loop", "loop");
    must_link(tree, COW_ROOT_INO, "gone", "nowhere");
    must_link(tree, COW_ROOT_INO, "chain", "to_b/abs");
    const struct {
        const char *path;
        uint32_t flags;
        int rc;
        uint64_t ino;
    } cases[] = {
        {"/", 0, 0, COW_ROOT_INO}, {"///", 0, 0, COW_ROOT_INO}, {".", 0, 0, COW_ROOT_INO}, {"/..", 0, 0, COW_ROOT_INO},
        {"", 0, -ENOENT, 0}, {"a/b/f", 0, 0, file}, {"/a//b/./f", 0, 0, file}, {"a/b/f/", 0, -ENOTDIR, 0},
        {"a/b/f/.", 0, -ENOTDIR, 0}, {"a/b/f/x", 0, -ENOTDIR, 0}, {"a/b/", 0, 0, b}, {"a/../a/b", 0, 0, b},
        {"to_b", 0, 0, b}, {"to_b", COW_WALK_NOFOLLOW, 0, link}, {"to_b/", COW_WALK_NOFOLLOW, 0, b},
        {"to_b/up/b/abs", 0, 0, file}, {"chain", 0, 0, file}, {"chain/", 0, -ENOTDIR, 0}, {"loop", 0, -ELOOP, 0},
        {"loop/x", 0, -ELOOP, 0}, {"gone", 0, -ENOENT, 0}, {"gone", COW_WALK_NOFOLLOW, 0, link + 4},
        {"nothing", 0, -ENOENT, 0}, {"nothing/..", 0, -ENOENT, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t ino = 0;
        int rc = walk(tree, cases[i].path, cases[i].flags, &ino);
        if (rc != cases[i].rc || ino != cases[i].ino) fprintf(stderr, "case %zu: \"%s\"\n", i, cases[i].path);
        CHECK_EQ(rc, cases[i].rc);
        CHECK_EQ(ino, cases[i].ino);
    }
    static char longest[5000];
    memset(longest, '/', sizeof longest);
    uint64_t ino, dir;
    size_t at, bytes;
    CHECK_EQ(cow_path_walk(tree, COW_ROOT_INO, longest, 4095, 0, &ino, NULL), 0);
    CHECK_EQ(cow_path_walk(tree, COW_ROOT_INO, longest, 4096, 0, &ino, NULL), -ENAMETOOLONG);
    CHECK_EQ(cow_path_walk(tree, COW_ROOT_INO, "a\0b", 3, 0, &ino, NULL), -EINVAL);
    CHECK_EQ(cow_path_parent(tree, COW_ROOT_INO, "/", 1, &dir, &at, &bytes), -EINVAL);
    CHECK_EQ(cow_path_parent(tree, COW_ROOT_INO, "a/..", 4, &dir, &at, &bytes), -EINVAL);
    CHECK_EQ(cow_path_parent(tree, COW_ROOT_INO, "to_b/new/", 9, &dir, &at, &bytes), 0);
    CHECK(dir == b && at == 5 && bytes == 3);
    CHECK_EQ(cow_path_parent(tree, b, "new", 3, &dir, &at, &bytes), 0);
    CHECK(dir == b && at == 0 && bytes == 3);
    CHECK_EQ(cow_path_parent(tree, file, "new", 3, &dir, &at, &bytes), -ENOTDIR);
    /* targets in parts */
    static char target[4096], got[4096];
    memset(target, 't', sizeof target);
    for (size_t i = 100; i < sizeof target; i += 100) target[i] = '/';
    cow_attr attr = {.mode = S_IFLNK};
    CHECK_EQ(cow_dir_make(tree, a, "long", 4, &attr, target, 4096, &ino), -ENAMETOOLONG);
    MUST(cow_dir_make(tree, a, "long", 4, &attr, target, 4095, &ino));
    CHECK_EQ(cow_symlink_read(tree, ino, got, sizeof got), 4095);
    CHECK(memcmp(target, got, 4095) == 0);
    CHECK_EQ(cow_symlink_read(tree, ino, got, 10), 4095);
    CHECK_EQ(cow_symlink_read(tree, file, got, 10), -EINVAL);
    MUST(cow_inode_stat(tree, ino, &attr));
    CHECK_EQ(attr.size_bytes, 4095);
    cow_tree_close(tree);
    close_store(store);
}

static void test_rename(void)
{
    static const struct {
        const char *from, *to;
        uint32_t flags;
        int rc;
    } cases[] = {
        /* made before each case: /d1/ /d1/sub/ /d1/f /d1/g /d2/ (empty) /d3/x /f /h -> hard link of /f /l -> symlink */
        {"/f", "/new", 0, 0}, {"/f", "/d2/new", 0, 0}, {"/f", "/d1/f", 0, 0}, {"/f", "/f", 0, 0}, {"/f", "/h", 0, 0},
        {"/f", "/h", COW_RENAME_NOREPLACE, -EEXIST}, {"/f", "/new", COW_RENAME_NOREPLACE, 0},
        {"/none", "/new", 0, -ENOENT}, {"/f", "/none/new", 0, -ENOENT}, {"/f", "/h/new", 0, -ENOTDIR},
        {"/f", "/d2", 0, -EISDIR}, {"/d2", "/f", 0, -ENOTDIR}, {"/d2", "/d1", 0, -ENOTEMPTY}, {"/d1", "/d2", 0, 0},
        {"/d1", "/d1/sub/new", 0, -EINVAL}, {"/d1", "/d1/new", 0, -EINVAL}, {"/d1", "/d1", 0, 0},
        {"/d1/sub", "/d1", 0, -ENOTEMPTY}, {"/d1/sub", "/sub", 0, 0}, {"/d1/sub", "/d2", 0, 0}, {"/l", "/f", 0, 0},
        {"/f", "/l", 0, 0}, {"/f", "/d1/f", COW_RENAME_EXCHANGE, 0}, {"/f", "/d1", COW_RENAME_EXCHANGE, 0},
        {"/d1/sub", "/f", COW_RENAME_EXCHANGE, 0}, {"/d1", "/d2", COW_RENAME_EXCHANGE, 0},
        {"/d1/sub", "/d3", COW_RENAME_EXCHANGE, 0}, {"/d1", "/d1/sub", COW_RENAME_EXCHANGE, -EINVAL},
        {"/d1/sub", "/d1", COW_RENAME_EXCHANGE, -EINVAL}, {"/f", "/new", COW_RENAME_EXCHANGE, -ENOENT},
        {"/f", "/h", COW_RENAME_EXCHANGE, 0}, {"/f", "/new", 3, -EINVAL}, {"/f", "/new", 8, -EINVAL},
        {"/f", "/d1/..", 0, -EINVAL}, {"/.", "/new", 0, -EINVAL}, {"/h", "/d1/g", 0, 0},
    };
    cow_store *store = open_store();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cow_tree *tree;
        MUST(cow_tree_create(store, 0, &tree));
        uint64_t d1 = must_make(tree, COW_ROOT_INO, "d1", S_IFDIR), d3;
        must_make(tree, d1, "sub", S_IFDIR);
        must_make(tree, d1, "f", S_IFREG);
        must_make(tree, d1, "g", S_IFREG);
        must_make(tree, COW_ROOT_INO, "d2", S_IFDIR);
        d3 = must_make(tree, COW_ROOT_INO, "d3", S_IFDIR);
        must_make(tree, d3, "x", S_IFREG);
        uint64_t f = must_make(tree, COW_ROOT_INO, "f", S_IFREG);
        MUST(cow_dir_link(tree, COW_ROOT_INO, "h", 1, f));
        must_link(tree, COW_ROOT_INO, "l", "f");
        uint64_t from = 0, to = 0, now = 0;
        (void)walk(tree, cases[i].from, COW_WALK_NOFOLLOW, &from);
        int had = walk(tree, cases[i].to, COW_WALK_NOFOLLOW, &to);
        int rc = rename_paths(tree, cases[i].from, cases[i].to, cases[i].flags);
        if (rc != cases[i].rc) fprintf(stderr, "case %zu: %s -> %s\n", i, cases[i].from, cases[i].to);
        CHECK_EQ(rc, cases[i].rc);
        if (rc == 0) {
            CHECK_EQ(walk(tree, cases[i].to, COW_WALK_NOFOLLOW, &now), 0);
            CHECK_EQ(now, from);
            int gone = walk(tree, cases[i].from, COW_WALK_NOFOLLOW, &now);
            if (cases[i].flags == COW_RENAME_EXCHANGE) CHECK(gone == 0 && now == to);
            else CHECK_EQ(gone, !had && from == to ? 0 : -ENOENT);
        }
        cow_attr root;
        MUST(cow_inode_stat(tree, COW_ROOT_INO, &root));
        uint32_t subdirs = 2;
        const char *tops[] = {"/d1", "/d2", "/d3", "/new", "/sub", "/f"};
        for (size_t n = 0; n < sizeof tops / sizeof *tops; n++) {
            cow_attr attr;
            if (cow_path_walk(tree, COW_ROOT_INO, tops[n], strlen(tops[n]), 1, &now, &attr) == 0) subdirs += S_ISDIR(attr.mode);
        }
        CHECK_EQ(root.nlink, subdirs);
        model_verify_counts(tree);
        MUST(cow_tree_delete(tree));
        cow_tree_close(tree);
    }
    close_store(store);
}

static void test_xattrs(void)
{
    cow_store *store = open_store();
    cow_tree *tree;
    static char value[70000], got[2000];
    MUST(cow_tree_create(store, 0, &tree));
    uint64_t ino = must_make(tree, COW_ROOT_INO, "f", S_IFREG);
    CHECK_EQ(cow_xattr_get(tree, ino, "user.a", 6, got, sizeof got), -ENODATA);
    CHECK_EQ(cow_xattr_set(tree, ino, "user.a", 6, "one", 3, COW_XATTR_REPLACE), -ENODATA);
    CHECK_EQ(cow_xattr_set(tree, ino, "user.a", 6, "one", 3, COW_XATTR_CREATE), 0);
    CHECK_EQ(cow_xattr_set(tree, ino, "user.a", 6, "two", 3, COW_XATTR_CREATE), -EEXIST);
    CHECK_EQ(cow_xattr_set(tree, ino, "user.a", 6, "three", 5, 0), 0);
    CHECK_EQ(cow_xattr_get(tree, ino, "user.a", 6, NULL, 0), 5);
    CHECK_EQ(cow_xattr_get(tree, ino, "user.a", 6, got, 4), -ERANGE);
    CHECK_EQ(cow_xattr_get(tree, ino, "user.a", 6, got, 5), 5);
    CHECK(memcmp(got, "three", 5) == 0);
    CHECK_EQ(cow_xattr_set(tree, ino, "user.b", 6, value, 1700, 0), 0);
    CHECK_EQ(cow_xattr_set(tree, ino, "user.c", 6, value, 1701, 0), -ENOSPC);
    CHECK_EQ(cow_xattr_set(tree, ino, "user.c", 6, value, 65537, 0), -E2BIG);
    CHECK_EQ(cow_xattr_set(tree, ino, "user.empty", 10, NULL, 0, 0), 0);
    CHECK_EQ(cow_xattr_get(tree, ino, "user.empty", 10, got, sizeof got), 0);
    CHECK_EQ(cow_xattr_set(tree, ino, "", 0, value, 1, 0), -ERANGE);
    CHECK_EQ(cow_xattr_set(tree, ino, value, 256, value, 1, 0), -ERANGE);
    CHECK_EQ(cow_xattr_list(tree, ino, NULL, 0), 7 + 7 + 11);
    CHECK_EQ(cow_xattr_list(tree, ino, got, 20), -ERANGE);
    CHECK_EQ(cow_xattr_list(tree, ino, got, sizeof got), 25);
    CHECK_EQ(cow_xattr_remove(tree, ino, "user.b", 6), 0);
    CHECK_EQ(cow_xattr_remove(tree, ino, "user.b", 6), -ENODATA);
    for (unsigned i = 0; i < 40; i++) {
        char name[16];
        int n = snprintf(name, sizeof name, "user.%u", i);
        MUST(cow_xattr_set(tree, ino, name, (size_t)n, value, 20, 0));
    }
    CHECK_EQ(remove_path(tree, "/f", COW_REMOVE_FILE), 0);
    model_verify_counts(tree);
    cow_tree_close(tree);
    close_store(store);
}

/* ---- Content ---- */

static void test_sizes(void)
{
    cow_store *store = open_store();
    cow_tree *image, *tree;
    static uint8_t data[1 << 20], got[1 << 20];
    test_fill(data, sizeof data, 1);
    MUST(cow_tree_create(store, 0, &image));
    uint64_t ino = must_make(image, COW_ROOT_INO, "big", S_IFREG);
    for (unsigned i = 0; i < 8; i++) CHECK_EQ(cow_file_write(image, ino, (uint64_t)i << 20, data, sizeof data), 1 << 20);
    cow_extent extents[4];
    CHECK_EQ(cow_file_extents(image, ino, 0, extents, 4), 1); /* written in order, so it lies in order */
    CHECK_EQ(extents[0].block_count, 2048);
    CHECK(extents[0].own && !extents[0].shared);
    MUST(cow_tree_fork(image, COW_FORK_BASE, &tree));
    CHECK_EQ(cow_file_extents(tree, ino, 0, extents, 4), 1);
    CHECK(!extents[0].own && extents[0].shared);
    CHECK_EQ(size_of(tree), 0);
    cow_stats before, after;
    MUST(cow_store_stats(store, &before));
    CHECK_EQ(cow_file_write(tree, ino, 5 * 4096 + 10, "hello", 5), 5);
    MUST(cow_store_stats(store, &after));
    CHECK_EQ(after.copy_ups - before.copy_ups, 1);
    CHECK_EQ(after.copy_up_bytes - before.copy_up_bytes, 4091);
    CHECK_EQ(size_of(tree), 4096);
    CHECK_EQ(cow_file_read(image, ino, 5 * 4096, got, 4096), 4096);
    CHECK(memcmp(got, data + 5 * 4096, 4096) == 0);
    MUST(cow_store_stats(store, &before)); /* again: in place, without the B+tree */
    CHECK_EQ(cow_file_write(tree, ino, 5 * 4096, data, 4096), 4096);
    MUST(cow_store_stats(store, &after));
    CHECK_EQ(after.copy_ups, before.copy_ups);
    CHECK_EQ(after.blocks_allocated, before.blocks_allocated);
    CHECK_EQ(after.nodes_copied, before.nodes_copied);
    uint64_t small = must_make(tree, COW_ROOT_INO, "small", S_IFREG);
    CHECK_EQ(cow_file_write(tree, small, 0, "hello", 5), 5);
    CHECK_EQ(size_of(tree), 4096 + 5);
    cow_tree *snapshot; /* in the open generation: a count of 1 does not mean that it may be overwritten */
    MUST(cow_tree_fork(tree, COW_FORK_SEALED, &snapshot));
    CHECK_EQ(cow_file_write(tree, ino, 5 * 4096, "after", 5), 5);
    CHECK_EQ(cow_file_read(snapshot, ino, 5 * 4096, got, 4096), 4096);
    CHECK(memcmp(got, data, 4096) == 0);
    CHECK_EQ(cow_file_write(snapshot, ino, 0, "x", 1), -EROFS);
    model_verify_counts(tree);
    model_verify_counts(image);
    cow_tree *heir; /* the only one to refer to blocks of the open generation, and yet they are not its own */
    MUST(cow_tree_create(store, 0, &heir));
    uint64_t left = must_make(heir, COW_ROOT_INO, "left", S_IFREG);
    MUST(cow_file_write(heir, left, 0, data, 65536));
    cow_tree_close(snapshot);
    MUST(cow_tree_fork(heir, COW_FORK_BASE, &snapshot));
    MUST(cow_tree_delete(heir));
    cow_tree_close(heir);
    MUST(cow_file_write(snapshot, left, 8192, "x", 1));
    CHECK_EQ(size_of(snapshot), 4096);
    model_verify_counts(snapshot);
    cow_tree_close(snapshot);
    cow_tree_close(tree);
    cow_tree_close(image);
    close_store(store);
}

static bool is_zero(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (bytes[i]) return false;
    return true;
}

static void test_sparse(void)
{
    cow_store *store = open_store();
    cow_tree *tree;
    static uint8_t data[32768], got[32768];
    memset(data, 0xab, sizeof data);
    MUST(cow_tree_create(store, 0, &tree));
    uint64_t ino = must_make(tree, COW_ROOT_INO, "f", S_IFREG);
    CHECK_EQ(cow_file_write(tree, ino, 1ull << 40, data, 4096), 4096);
    CHECK_EQ(cow_file_seek(tree, ino, 0, COW_SEEK_DATA), 1ll << 40);
    CHECK_EQ(cow_file_seek(tree, ino, 0, COW_SEEK_HOLE), 0);
    CHECK_EQ(cow_file_seek(tree, ino, 1ull << 40, COW_SEEK_HOLE), (1ll << 40) + 4096);
    CHECK_EQ(cow_file_seek(tree, ino, 1ull << 41, COW_SEEK_DATA), -ENXIO);
    CHECK_EQ(cow_file_write(tree, ino, 1ull << 55, data, 1), -EFBIG);
    MUST(cow_file_truncate(tree, ino, 0));
    MUST(cow_file_write(tree, ino, 0, data, 10000)); /* a stale tail must not come back */
    MUST(cow_file_truncate(tree, ino, 5000));
    MUST(cow_file_truncate(tree, ino, 9000));
    CHECK_EQ(cow_file_read(tree, ino, 0, got, sizeof got), 9000);
    CHECK(memcmp(got, data, 5000) == 0 && is_zero(got + 5000, 4000));
    MUST(cow_file_truncate(tree, ino, 100));
    MUST(cow_file_write(tree, ino, 20000, "x", 1));
    CHECK_EQ(cow_file_read(tree, ino, 0, got, sizeof got), 20001);
    CHECK(memcmp(got, data, 100) == 0 && is_zero(got + 100, 19900) && got[20000] == 'x');
    MUST(cow_file_write(tree, ino, 0, data, 32768));
    MUST(cow_file_punch(tree, ino, 1000, 20000));
    CHECK_EQ(cow_file_read(tree, ino, 0, got, sizeof got), 32768);
    CHECK(memcmp(got, data, 1000) == 0 && is_zero(got + 1000, 20000) && memcmp(got + 21000, data, 11768) == 0);
    cow_attr attr;
    MUST(cow_inode_stat(tree, ino, &attr));
    CHECK_EQ(attr.blocks_512, 8 * (8 - 4));
    CHECK_EQ(cow_file_punch(tree, ino, 0, 0), -EINVAL);
    MUST(cow_file_punch(tree, ino, 4096, UINT64_MAX));
    CHECK_EQ(cow_file_seek(tree, ino, 4096, COW_SEEK_DATA), -ENXIO);
    attr.size_bytes = 7;
    attr.mode = 0600;
    MUST(cow_inode_set(tree, ino, &attr, COW_SET_SIZE | COW_SET_MODE));
    MUST(cow_inode_stat(tree, ino, &attr));
    CHECK(attr.size_bytes == 7 && attr.mode == (S_IFREG | 0600));
    model_verify_counts(tree);
    CHECK_EQ(cow_file_truncate(tree, COW_ROOT_INO, 0), -EISDIR);
    CHECK_EQ(cow_file_write(tree, ino, COW_APPEND, "end", 3), 3);
    CHECK_EQ(cow_file_read(tree, ino, 0, got, sizeof got), 10);
    uint64_t blocks[] = {3, 900, 4, 5};
    MUST(cow_file_write_blocks(tree, ino, blocks, 4, data));
    MUST(cow_file_write_blocks(tree, ino, blocks, 4, data));
    uint64_t others[] = {900, 2, 5, 4, 100000};
    memset(got, 1, sizeof got);
    MUST(cow_file_read_blocks(tree, ino, others, 5, got));
    CHECK(got[0] == 0xab && is_zero(got + 4096, 4096) && got[8192] == 0xab && is_zero(got + 4 * 4096, 4096));
    model_verify_counts(tree);
    cow_tree_close(tree);
    close_store(store);
}

/* Many runs: truncation, punching and removal need several steps. */
static void test_fragments(void)
{
    cow_store *store = open_store();
    cow_tree *tree;
    static uint8_t block[4096], got[4096];
    memset(block, 7, sizeof block);
    MUST(cow_tree_create(store, 0, &tree));
    uint64_t ino = must_make(tree, COW_ROOT_INO, "f", S_IFREG), other = must_make(tree, COW_ROOT_INO, "g", S_IFREG);
    for (uint64_t i = 0; i < 300; i++) MUST(cow_file_write(tree, ino, i * 8192, block, 4096));
    MUST(cow_file_clone(tree, ino, 0, tree, other, 4096, 299 * 8192 + 4096));
    model_verify_counts(tree);
    CHECK_EQ(cow_file_read(tree, other, 4096 + 8192 * 100, got, 4096), 4096);
    CHECK(memcmp(got, block, 4096) == 0);
    MUST(cow_file_truncate(tree, ino, 8192 * 100 + 5));
    model_verify_counts(tree);
    MUST(cow_file_punch(tree, other, 5000, 8192 * 150));
    model_verify_counts(tree);
    MUST(cow_file_truncate(tree, ino, 8192 * 200));
    CHECK_EQ(cow_file_read(tree, ino, 8192 * 150, got, 4096), 4096);
    CHECK(is_zero(got, 4096));
    static uint8_t big[1 << 20];
    MUST(cow_file_write(tree, other, 3, big, sizeof big));
    model_verify_counts(tree);
    CHECK_EQ(remove_path(tree, "/g", COW_REMOVE_FILE), 0);
    CHECK_EQ(rename_paths(tree, "/f", "/h", 0), 0);
    must_make(tree, COW_ROOT_INO, "k", S_IFREG);
    CHECK_EQ(rename_paths(tree, "/k", "/h", 0), 0);
    cow_tree_info info;
    MUST(cow_tree_get_info(tree, &info));
    CHECK(info.inodes == 2 && info.apparent_bytes == 0);
    model_verify_counts(tree);
    cow_tree_close(tree);
    close_store(store);
}

static void test_clone_cases(void)
{
    cow_store *store = open_store();
    cow_tree *tree;
    static uint8_t data[20000], got[20000];
    test_fill(data, sizeof data, 9);
    MUST(cow_tree_create(store, 0, &tree));
    uint64_t a = must_make(tree, COW_ROOT_INO, "a", S_IFREG), b = must_make(tree, COW_ROOT_INO, "b", S_IFREG);
    MUST(cow_file_write(tree, a, 0, data, 20000));
    MUST(cow_file_write(tree, b, 0, "tiny", 4));
    CHECK_EQ(cow_file_clone(tree, a, 100, tree, b, 0, 4096), -EINVAL);
    CHECK_EQ(cow_file_clone(tree, a, 0, tree, b, 0, 100), -EINVAL);
    CHECK_EQ(cow_file_clone(tree, a, 0, tree, b, 0, 24576), -EINVAL);
    CHECK_EQ(cow_file_clone(tree, a, 0, tree, a, 4096, 8192), -EINVAL);
    CHECK_EQ(cow_file_clone(tree, a, 0, tree, COW_ROOT_INO, 0, 4096), -EISDIR);
    CHECK_EQ(cow_file_clone(tree, a, 0, tree, b, 4096, 20000), 0);
    CHECK_EQ(cow_file_read(tree, b, 0, got, 4), 4);
    CHECK(memcmp(got, "tiny", 4) == 0);
    CHECK_EQ(cow_file_read(tree, b, 4096, got, sizeof got), 20000);
    CHECK(memcmp(got, data, 20000) == 0);
    MUST(cow_file_truncate(tree, b, 65536)); /* a hole that has been read, and so may be cached */
    CHECK_EQ(cow_file_read(tree, b, 40960, got, 4096), 4096);
    CHECK(is_zero(got, 4096));
    CHECK_EQ(cow_file_clone(tree, a, 0, tree, b, 40960, 4096), 0);
    CHECK_EQ(cow_file_read(tree, b, 40960, got, 4096), 4096);
    CHECK(memcmp(got, data, 4096) == 0);
    MUST(cow_file_truncate(tree, b, 24096));
    cow_extent extents[4];
    CHECK_EQ(cow_file_extents(tree, a, 0, extents, 4), 1);
    CHECK(extents[0].shared);
    MUST(cow_file_write(tree, a, 0, "changed", 7)); /* neither side owns it now */
    CHECK_EQ(cow_file_read(tree, b, 4096, got, 20000), 20000);
    CHECK(memcmp(got, data, 20000) == 0);
    MUST(cow_file_truncate(tree, b, 30000));
    CHECK_EQ(cow_file_clone(tree, a, 0, tree, b, 0, 20000), -EINVAL); /* would end in the middle */
    CHECK_EQ(cow_file_clone(tree, a, 16384, tree, a, 20480, 3616), 0);
    CHECK_EQ(cow_file_read(tree, a, 20480, got, sizeof got), 3616);
    CHECK(memcmp(got, data + 16384, 3616) == 0);
    uint64_t c = must_make(tree, COW_ROOT_INO, "c", S_IFREG), d = must_make(tree, COW_ROOT_INO, "d", S_IFREG);
    MUST(cow_file_write(tree, c, 0, "inline", 6));
    CHECK_EQ(cow_file_clone(tree, c, 0, tree, d, 0, 6), 0);
    CHECK_EQ(cow_file_clone(tree, c, 0, tree, b, 0, 6), -EINVAL);
    CHECK_EQ(cow_file_read(tree, d, 0, got, 10), 6);
    CHECK(memcmp(got, "inline", 6) == 0);
    model_verify_counts(tree);
    cow_tree_close(tree);
    close_store(store);
}

static void test_orphans(void)
{
    struct cow_dev *dev;
    cow_store *store;
    cow_tree *tree;
    cow_options options = {.flags = COW_OPEN_CREATE};
    MUST(cow_dev_sim_open(&dev));
    MUST(cow_store_open_dev(dev, &options, &store));
    MUST(cow_tree_create(store, 0, &tree));
    uint64_t id = tree->id, ino = must_make(tree, COW_ROOT_INO, "f", S_IFREG), sub, deep;
    static uint8_t data[8192], got[8192];
    memset(data, 3, sizeof data);
    MUST(cow_inode_get(tree, ino));
    CHECK_EQ(remove_path(tree, "/f", COW_REMOVE_FILE), 0);
    CHECK_EQ(nlink_of(tree, ino), 0);
    CHECK_EQ(cow_file_write(tree, ino, 0, data, 8192), 8192);
    CHECK_EQ(cow_file_read(tree, ino, 0, got, 8192), 8192);
    CHECK_EQ(cow_dir_link(tree, COW_ROOT_INO, "again", 5, ino), -ENOENT);
    CHECK_EQ(cow_inode_get(tree, ino), 0);
    CHECK_EQ(cow_inode_put(tree, ino), 0);
    CHECK_EQ(nlink_of(tree, ino), 0);
    CHECK_EQ(cow_inode_put(tree, ino), 0);
    cow_attr attr;
    CHECK_EQ(cow_inode_stat(tree, ino, &attr), -ENOENT);
    model_verify_counts(tree);
    /* a subtree with something open in it */
    sub = must_make(tree, COW_ROOT_INO, "sub", S_IFDIR);
    deep = must_make(tree, sub, "deep", S_IFDIR);
    for (unsigned i = 0; i < 50; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "n%u", i);
        ino = must_make(tree, i % 2 ? deep : sub, name, i % 10 == 9 ? S_IFDIR : S_IFREG);
        if (i % 10 != 9) MUST(cow_file_write(tree, ino, 0, data, 100 * i));
    }
    uint64_t held = must_make(tree, deep, "held", S_IFREG);
    MUST(cow_inode_get(tree, held));
    MUST(cow_inode_get(tree, deep));
    CHECK_EQ(remove_path(tree, "/sub", COW_REMOVE_TREE), 0);
    CHECK_EQ(cow_inode_stat(tree, sub, &attr), -ENOENT);
    CHECK_EQ(make(tree, deep, "late", S_IFREG, &ino), -ENOENT);
    CHECK_EQ(cow_dir_read(tree, deep, 0, 0, got, sizeof got), 0);
    MUST(cow_file_write(tree, held, 0, data, 8192));
    model_verify_counts(tree);
    /* the power fails: what was open is gone after the next open */
    MUST(cow_store_commit(store));
    struct cow_dev *after;
    MUST(cow_dev_sim_crash(dev, cow_dev_sim_events(dev), 0, &after));
    MUST(cow_inode_put(tree, deep));
    MUST(cow_inode_put(tree, held));
    cow_tree_info info;
    MUST(cow_tree_get_info(tree, &info));
    CHECK_EQ(info.inodes, 1);
    cow_tree_close(tree);
    close_store(store);
    MUST(cow_store_open_dev(after, &options, &store));
    MUST(cow_tree_open(store, id, &tree));
    MUST(cow_tree_get_info(tree, &info));
    CHECK_EQ(info.inodes, 1);
    CHECK_EQ(info.apparent_bytes, 0);
    cow_tree_close(tree);
    close_store(store);
}

static void test_place_whole(void)
{
    cow_store *store = open_store();
    cow_tree *tree;
    static uint8_t data[300000], got[300000];
    test_fill(data, sizeof data, 4);
    MUST(cow_tree_create(store, 0, &tree));
    for (unsigned commit = 0; commit < 3; commit++) {
        char name[8] = {(char)('a' + commit), 0};
        uint64_t ino = must_make(tree, COW_ROOT_INO, name, S_IFREG);
        MUST(cow_tree_write_begin(tree, COW_FS_PUTS));
        MUST(cow_tree_write_end(tree, cow_fs_place_whole(tree, ino, sizeof data)));
        for (size_t at = 0, n; at < sizeof data; at += n) {
            n = sizeof data - at < 10007 ? sizeof data - at : 10007;
            MUST(cow_file_write(tree, ino, at, data + at, n));
            if (commit && at / 10007 % 7 == commit) MUST(cow_store_commit(store));
        }
        CHECK_EQ(cow_file_read(tree, ino, 0, got, sizeof got), sizeof data);
        CHECK(memcmp(got, data, sizeof data) == 0);
        cow_extent extents[8];
        if (commit == 0) CHECK_EQ(cow_file_extents(tree, ino, 0, extents, 8), 1);
    }
    uint64_t ino = must_make(tree, COW_ROOT_INO, "z", S_IFREG); /* jumps ahead: never written blocks must be holes */
    MUST(cow_tree_write_begin(tree, COW_FS_PUTS));
    MUST(cow_tree_write_end(tree, cow_fs_place_whole(tree, ino, sizeof data)));
    MUST(cow_file_write(tree, ino, 0, data, 100));
    MUST(cow_file_write(tree, ino, 100000, data, 100));
    MUST(cow_file_truncate(tree, ino, 250000));
    CHECK_EQ(cow_file_read(tree, ino, 0, got, sizeof got), 250000);
    CHECK(is_zero(got + 100, 99900) && is_zero(got + 100100, 149900));
    MUST(cow_file_truncate(tree, ino, 250000)); /* gives back what lies behind the end */
    cow_attr attr;
    MUST(cow_inode_stat(tree, ino, &attr));
    CHECK_EQ(attr.blocks_512, 8 * 2);
    model_verify_counts(tree);
    cow_tree_close(tree);
    close_store(store);
}

static void test_no_space(void)
{
    struct cow_dev *dev;
    cow_store *store;
    cow_tree *tree, *fork;
    cow_options options = {.flags = COW_OPEN_CREATE};
    static uint8_t data[65536], other[65536], got[65536];
    test_fill(data, sizeof data, 5);
    test_fill(other, sizeof other, 6);
    unsigned failures = 0;
    for (uint64_t nth = 0; nth < 12; nth++) {
        MUST(cow_dev_sim_open(&dev));
        MUST(cow_store_open_dev(dev, &options, &store));
        MUST(cow_tree_create(store, 0, &tree));
        uint64_t ino = must_make(tree, COW_ROOT_INO, "f", S_IFREG);
        MUST(cow_file_write(tree, ino, 0, data, sizeof data));
        MUST(cow_store_commit(store));
        MUST(cow_tree_fork(tree, COW_FORK_BASE, &fork));
        cow_dev_sim_fail(dev, COW_DEV_SIM_WRITE | COW_DEV_SIM_OTHER, nth, ENOSPC, true);
        int64_t n = cow_file_write(fork, ino, 100, other, 50000);
        cow_dev_sim_fail(dev, 0, UINT64_MAX, 0, false);
        failures += n < 0;
        CHECK_EQ(cow_file_read(fork, ino, 0, got, sizeof got), sizeof data);
        if (n < 0) CHECK(memcmp(got, data, sizeof data) == 0);
        else CHECK(memcmp(got, data, 100) == 0 && memcmp(got + 100, other, 50000) == 0);
        model_verify_counts(fork);
        CHECK_EQ(cow_file_write(fork, ino, 100, other, 50000), 50000); /* still in use */
        cow_tree_close(fork);
        cow_tree_close(tree);
        close_store(store);
    }
    CHECK(failures > 0);
}

/* ---- Differences: what happens to a tree, and what is to be told ---- */

static void build(cow_tree *tree)
{
    uint64_t a = must_make(tree, COW_ROOT_INO, "a", S_IFDIR | 0755), b = must_make(tree, a, "b", S_IFDIR | 0755);
    uint64_t f = must_make(tree, a, "f", S_IFREG | 0644), g = must_make(tree, b, "g", S_IFREG | 0644);
    static uint8_t data[40960];
    test_fill(data, sizeof data, 2);
    MUST(cow_file_write(tree, f, 0, data, sizeof data));
    MUST(cow_file_write(tree, g, 0, "small", 5));
    MUST(cow_dir_link(tree, COW_ROOT_INO, "hard", 4, f));
    must_make(tree, COW_ROOT_INO, "a.b", S_IFREG | 0644);
    must_link(tree, COW_ROOT_INO, "sym", "a/b");
}

static void act(cow_tree *tree, const char *what)
{
    uint64_t ino = 0, dir = 0;
    cow_attr attr = {.mode = 0700};
    MUST(walk(tree, "/a/f", 0, &ino));
    MUST(walk(tree, "/a", 0, &dir));
    if (strcmp(what, "write") == 0) MUST(cow_file_write(tree, ino, 8192, "x", 1));
    if (strcmp(what, "chmod") == 0) MUST(cow_inode_set(tree, dir, &attr, COW_SET_MODE));
    if (strcmp(what, "chmod twice") == 0) {
        MUST(cow_inode_set(tree, ino, &attr, COW_SET_MODE));
        attr.mode = 0644;
        MUST(cow_inode_set(tree, ino, &attr, COW_SET_MODE));
    }
    if (strcmp(what, "xattr") == 0) MUST(cow_xattr_set(tree, ino, "user.x", 6, "1", 1, 0));
    if (strcmp(what, "new dir") == 0) must_make(tree, must_make(tree, dir, "n", S_IFDIR), "inner", S_IFREG);
    if (strcmp(what, "remove tree") == 0) MUST(remove_path(tree, "/a", COW_REMOVE_TREE));
    if (strcmp(what, "move dir") == 0) MUST(rename_paths(tree, "/a/b", "/moved", 0));
    if (strcmp(what, "dir to file") == 0) {
        MUST(remove_path(tree, "/a/b", COW_REMOVE_TREE));
        must_make(tree, dir, "b", S_IFREG);
    }
    if (strcmp(what, "file to dir") == 0) {
        MUST(remove_path(tree, "/a.b", COW_REMOVE_FILE));
        must_make(tree, must_make(tree, COW_ROOT_INO, "a.b", S_IFDIR), "x", S_IFREG);
    }
    if (strcmp(what, "other dir") == 0) { /* another directory of the name, with one of the children */
        MUST(rename_paths(tree, "/a", "/old", 0));
        must_make(tree, COW_ROOT_INO, "a", S_IFDIR | 0755);
        MUST(rename_paths(tree, "/old/b", "/a/b", 0));
        MUST(remove_path(tree, "/old", COW_REMOVE_TREE));
        MUST(walk(tree, "/a/b/g", 0, &ino));
        MUST(cow_file_write(tree, ino, 0, "SMALL", 5));
    }
    if (strcmp(what, "retarget") == 0) {
        MUST(remove_path(tree, "/sym", COW_REMOVE_FILE));
        must_link(tree, COW_ROOT_INO, "sym", "a/f");
    }
    if (strcmp(what, "truncate") == 0) MUST(cow_file_truncate(tree, ino, 8192));
    if (strcmp(what, "write same") == 0) MUST(cow_file_write(tree, ino, 0, "", 0));
}

static void read_text(cow_diff *diff, char *text, size_t capacity)
{
    static uint8_t buffer[65536];
    size_t used = 0;
    text[0] = 0;
    CHECK_EQ(cow_diff_read(diff, buffer, 1000), -ERANGE);
    for (int64_t bytes; (bytes = cow_diff_read(diff, buffer, sizeof buffer)) > 0;) {
        for (size_t at = 0; at < (size_t)bytes;) {
            cow_diff_entry entry;
            memcpy(&entry, buffer + at, sizeof entry);
            const uint8_t *ranges = buffer + at + sizeof entry + entry.path_bytes;
            used += (size_t)snprintf(text + used, capacity - used, "%c%u %.*s", entry.kind, entry.what, entry.path_bytes,
                                     (const char *)buffer + at + sizeof entry);
            for (uint32_t i = 0; i < entry.range_count && entry.kind == 'C'; i++) {
                uint64_t range[2];
                memcpy(range, ranges + 16 * i, sizeof range);
                used += (size_t)snprintf(text + used, capacity - used, " %" PRIu64 "+%" PRIu64, range[0], range[1]);
            }
            used += (size_t)snprintf(text + used, capacity - used, "\n");
            at += entry.record_bytes;
        }
    }
}

static void test_diff(void)
{
    static const struct {
        const char *what, *wanted;
    } cases[] = {
        {"nothing", ""},
        {"write", "C3 /a/f 2+1\nC3 /hard 2+1\n"},
        {"chmod", "C1 /a\n"},
        {"chmod twice", ""},
        {"xattr", "C4 /a/f\nC4 /hard\n"},
        {"new dir", "C1 /a\nA1 /a/n\nA3 /a/n/inner\n"},
        {"remove tree", "D0 /a\n"},
        {"move dir", "C1 /a\nD0 /a/b\nA1 /moved\nA3 /moved/g\n"},
        {"dir to file", "C1 /a\nC3 /a/b\n"},
        {"file to dir", "C1 /a.b\nA3 /a.b/x\n"},
        {"other dir", "C1 /a\nC3 /a/b/g 0+1\nD0 /a/f\n"},
        {"retarget", "C3 /sym\n"},
        {"truncate", "C3 /a/f 2+8\nC3 /hard 2+8\n"},
        {"write same", ""},
    };
    cow_store *store = open_store();
    cow_tree *base;
    MUST(cow_tree_create(store, 0, &base));
    build(base);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cow_tree *tree;
        cow_diff *diff;
        char text[4096];
        MUST(cow_tree_fork(base, 0, &tree));
        act(tree, cases[i].what);
        MUST(cow_diff_open(base, tree, &diff));
        read_text(diff, text, sizeof text);
        cow_diff_close(diff);
        if (strcmp(text, cases[i].wanted) != 0)
            fprintf(stderr, "%s: got\n%swanted\n%s", cases[i].what, text, cases[i].wanted);
        CHECK(strcmp(text, cases[i].wanted) == 0);
        MUST(cow_diff_open(tree, tree, &diff));
        read_text(diff, text, sizeof text);
        cow_diff_close(diff);
        CHECK(text[0] == 0);
        MUST(cow_tree_delete(tree));
        cow_tree_close(tree);
    }
    cow_tree_close(base);
    close_store(store);
}

/* Siblings that give one inode number to different things. */
static void test_diff_siblings(void)
{
    cow_store *store = open_store();
    cow_tree *base, *left, *right;
    cow_diff *diff;
    char text[4096];
    MUST(cow_tree_create(store, 0, &base));
    build(base);
    MUST(cow_tree_fork(base, 0, &left));
    MUST(cow_tree_fork(base, 0, &right));
    uint64_t ino = must_make(left, COW_ROOT_INO, "one", S_IFREG);
    MUST(cow_file_write(left, ino, 0, "left", 4));
    CHECK_EQ(must_make(right, COW_ROOT_INO, "two", S_IFDIR), ino);
    MUST(cow_diff_open(left, right, &diff));
    read_text(diff, text, sizeof text);
    cow_diff_close(diff);
    CHECK(strcmp(text, "D0 /one\nA1 /two\n") == 0);
    must_make(right, COW_ROOT_INO, "one", S_IFREG);
    MUST(cow_diff_open(left, right, &diff));
    read_text(diff, text, sizeof text);
    cow_diff_close(diff);
    CHECK(strcmp(text, "C3 /one 0+1\nA1 /two\n") == 0);
    cow_tree_close(left);
    cow_tree_close(right);
    cow_tree_close(base);
    close_store(store);
}

/* ---- The random run ---- */

#define TREES 4

struct run {
    cow_store *store;
    cow_tree *tree[TREES];
    struct model model[TREES];
    uint64_t random, seed, steps;
};

static unsigned below(struct run *run, unsigned n) { return (unsigned)(test_random(&run->random) % n); }

static int any_node(struct run *run, const struct model *model, bool is_dir)
{
    for (unsigned tries = 0; tries < 400; tries++) {
        int i = (int)below(run, MODEL_NODES);
        if (model->node[i].used && model->node[i].is_dir == is_dir) return i;
    }
    return is_dir ? 0 : -1;
}

static int any_entry(struct run *run, const struct model *model)
{
    for (unsigned tries = 0; tries < 1000; tries++) {
        int i = (int)below(run, MODEL_ENTRIES);
        if (model->entry[i].used) return i;
    }
    return -1;
}

static void any_name(struct run *run, char *name) { (void)snprintf(name, 12, "n%c%u", "a.-z"[below(run, 4)], below(run, 6)); }

static uint64_t any_offset(struct run *run)
{
    uint64_t offset = below(run, MODEL_FILE_BYTES - 70000);
    switch (below(run, 4)) {
    case 0: return offset & ~(uint64_t)4095;
    case 1: return below(run, 3000);
    case 2: return below(run, 20) * 4096 + below(run, 3);
    default: return offset;
    }
}

static size_t any_length(struct run *run)
{
    switch (below(run, 4)) {
    case 0: return 1 + below(run, 200);
    case 1: return 4096 * (1 + below(run, 4));
    case 2: return 1 + below(run, 10000);
    default: return 1 + below(run, 65536);
    }
}

static void step_make(struct run *run, cow_tree *tree, struct model *model)
{
    char name[12];
    any_name(run, name);
    int dir = any_node(run, model, true);
    bool is_dir = below(run, 4) == 0;
    uint64_t ino = 0;
    int found = model_find(model, dir, name), node = found < 0 ? model_add_node(model, is_dir, 0) : -1;
    if (found < 0 && node < 0) return;
    int rc = make(tree, model->node[dir].ino, name, is_dir ? S_IFDIR | 0755 : S_IFREG | 0644, &ino);
    CHECK_EQ(rc, found >= 0 ? -EEXIST : 0);
    if (rc == 0 && node >= 0) {
        model->node[node].ino = ino;
        (void)model_add_entry(model, dir, name, node);
    }
}

static void step_link(struct run *run, cow_tree *tree, struct model *model)
{
    char name[12];
    any_name(run, name);
    int dir = any_node(run, model, true), node = any_node(run, model, false);
    if (node < 0) return;
    int rc = cow_dir_link(tree, model->node[dir].ino, name, strlen(name), model->node[node].ino);
    bool exists = model_find(model, dir, name) >= 0;
    CHECK_EQ(rc, model->node[node].nlink == 0 ? -ENOENT : exists ? -EEXIST : 0);
    if (rc == 0) (void)model_add_entry(model, dir, name, node);
}

static void drop_tree(struct model *model, int entry)
{
    int node = model->entry[entry].node;
    for (int i = 0; model->node[node].is_dir && i < MODEL_ENTRIES; i++)
        if (model->entry[i].used && model->entry[i].dir == node) drop_tree(model, i);
    model_drop_entry(model, entry);
}

static void step_remove(struct run *run, cow_tree *tree, struct model *model)
{
    int entry = any_entry(run, model);
    if (entry < 0) return;
    const struct model_entry *e = &model->entry[entry];
    int node = e->node;
    uint32_t how = 1u << below(run, below(run, 6) == 0 ? 3 : 2);
    bool is_dir = model->node[node].is_dir;
    int wanted = how == COW_REMOVE_FILE ? (is_dir ? -EISDIR : 0)
                 : how == COW_REMOVE_DIR ? (!is_dir ? -ENOTDIR : model_is_empty(model, node) ? 0 : -ENOTEMPTY) : 0;
    int rc = cow_dir_remove(tree, model->node[e->dir].ino, e->name, strlen(e->name), how);
    CHECK_EQ(rc, wanted);
    if (rc == 0) drop_tree(model, entry);
}

static int judge_rename(const struct model *model, int from, int dir, int to, uint32_t flags)
{
    int moved = model->entry[from].node;
    bool moved_dir = model->node[moved].is_dir;
    if (flags == COW_RENAME_EXCHANGE) {
        if (to < 0) return -ENOENT;
        int other = model->entry[to].node;
        if (other == moved) return 0;
        if (moved_dir && model_is_above(model, moved, dir)) return -EINVAL;
        if (model->node[other].is_dir && model_is_above(model, other, model->entry[from].dir)) return -EINVAL;
        return 0;
    }
    if (to >= 0 && (flags & COW_RENAME_NOREPLACE)) return -EEXIST;
    if (to >= 0 && model->entry[to].node == moved) return 0;
    if (moved_dir && model_is_above(model, moved, dir)) return -EINVAL;
    if (to < 0) return 0;
    const struct model_node *victim = &model->node[model->entry[to].node];
    if (moved_dir && !victim->is_dir) return -ENOTDIR;
    if (!moved_dir && victim->is_dir) return -EISDIR;
    return victim->is_dir && !model_is_empty(model, model->entry[to].node) ? -ENOTEMPTY : 0;
}

static void step_rename(struct run *run, cow_tree *tree, struct model *model)
{
    char name[12];
    any_name(run, name);
    int from = any_entry(run, model), dir = any_node(run, model, true);
    if (from < 0) return;
    int to = model_find(model, dir, name);
    uint32_t flags = below(run, 3);
    struct model_entry *e = &model->entry[from];
    int wanted = judge_rename(model, from, dir, to, flags), moved = e->node;
    int rc = cow_dir_rename(tree, model->node[e->dir].ino, e->name, strlen(e->name), model->node[dir].ino, name,
                            strlen(name), flags);
    CHECK_EQ(rc, wanted);
    if (rc || (to >= 0 && model->entry[to].node == moved)) return;
    if (flags == COW_RENAME_EXCHANGE) {
        int other = model->entry[to].node;
        e->node = other;
        model->entry[to].node = moved;
        if (model->node[other].is_dir) model->node[other].parent = e->dir;
        if (model->node[moved].is_dir) model->node[moved].parent = dir;
        return;
    }
    if (to >= 0) model_drop_entry(model, to);
    e->dir = dir;
    memcpy(e->name, name, sizeof name);
    if (model->node[moved].is_dir) model->node[moved].parent = dir;
}

static void model_write(struct model_node *node, uint64_t offset, const uint8_t *bytes, size_t length)
{
    memcpy(node->data + offset, bytes, length);
    if (node->size < offset + length) node->size = offset + length;
}

static void step_write(struct run *run, cow_tree *tree, struct model *model)
{
    static uint8_t bytes[65536];
    int i = any_node(run, model, false);
    if (i < 0) return;
    struct model_node *node = &model->node[i];
    uint64_t offset = any_offset(run);
    size_t length = any_length(run);
    test_fill(bytes, length, test_random(&run->random));
    bool append = below(run, 4) == 0 && node->size + length <= MODEL_FILE_BYTES;
    if (append) offset = node->size;
    if (below(run, 5) == 0) { /* a batch of blocks */
        uint64_t blocks[16];
        for (unsigned n = 0; n < 16; n++) blocks[n] = below(run, 3) && n ? blocks[n - 1] + 1 : below(run, 40);
        CHECK_EQ(cow_file_write_blocks(tree, node->ino, blocks, 16, bytes), 0);
        for (unsigned n = 0; n < 16; n++) model_write(node, blocks[n] * 4096, bytes + (size_t)n * 4096, 4096);
        return;
    }
    CHECK_EQ(cow_file_write(tree, node->ino, append ? COW_APPEND : offset, bytes, length), length);
    model_write(node, offset, bytes, length);
}

static void step_shape(struct run *run, cow_tree *tree, struct model *model)
{
    int i = any_node(run, model, false);
    if (i < 0) return;
    struct model_node *node = &model->node[i];
    uint64_t offset = any_offset(run);
    size_t length = any_length(run);
    if (below(run, 2)) {
        CHECK_EQ(cow_file_truncate(tree, node->ino, offset), 0);
        if (offset < node->size) memset(node->data + offset, 0, node->size - offset);
        node->size = offset;
        return;
    }
    CHECK_EQ(cow_file_punch(tree, node->ino, offset, length), 0);
    if (offset < node->size) memset(node->data + offset, 0, length < node->size - offset ? length : node->size - offset);
}

static void step_read(struct run *run, cow_tree *tree, struct model *model)
{
    static uint8_t got[65536];
    int i = any_node(run, model, false);
    if (i < 0) return;
    const struct model_node *node = &model->node[i];
    uint64_t offset = any_offset(run);
    size_t length = any_length(run);
    uint64_t wanted = offset >= node->size ? 0 : node->size - offset < length ? node->size - offset : length;
    CHECK_EQ(cow_file_read(tree, node->ino, offset, got, length), wanted);
    CHECK(memcmp(got, node->data + offset, wanted) == 0);
}

static void step_clone(struct run *run, cow_tree *tree, struct model *model)
{
    unsigned s = below(run, TREES);
    if (!run->tree[s]) return;
    int i = any_node(run, model, false), j = any_node(run, &run->model[s], false);
    if (i < 0 || j < 0 || (tree == run->tree[s] && i == j)) return;
    struct model_node *to = &model->node[i];
    const struct model_node *from = &run->model[s].node[j];
    uint64_t from_offset = (uint64_t)below(run, 40) * 4096, offset = (uint64_t)below(run, 40) * 4096;
    if (from_offset >= from->size) return;
    uint64_t length = (uint64_t)below(run, 30) * 4096, left = from->size - from_offset;
    if (length >= left) length = offset + left >= to->size ? left : left & ~(uint64_t)4095;
    CHECK_EQ(cow_file_clone(run->tree[s], from->ino, from_offset, tree, to->ino, offset, length), 0);
    if (length) model_write(to, offset, from->data + from_offset, length);
}

static void step_pin(struct run *run, cow_tree *tree, struct model *model)
{
    int i = any_node(run, model, false);
    if (i < 0) return;
    struct model_node *node = &model->node[i];
    if (node->pins) {
        CHECK_EQ(cow_inode_put(tree, node->ino), 0);
        node->pins--;
        model_lose(model, i);
    } else {
        CHECK_EQ(cow_inode_get(tree, node->ino), 0);
        node->pins++;
    }
}

static void unpin_all(struct run *run, unsigned t)
{
    for (int i = 0; i < MODEL_NODES; i++) {
        struct model_node *node = &run->model[t].node[i];
        for (; node->used && node->pins; node->pins--) CHECK_EQ(cow_inode_put(run->tree[t], node->ino), 0);
        if (node->used && !node->is_dir) model_lose(&run->model[t], i);
    }
}

static void step_trees(struct run *run, unsigned t)
{
    unsigned other = below(run, TREES);
    if (other == t) return;
    if (run->tree[other]) {
        model_verify_diff(&run->model[other], run->tree[other], &run->model[t], run->tree[t]);
        if (below(run, 3)) return;
        unpin_all(run, other);
        MUST(cow_tree_delete(run->tree[other]));
        cow_tree_close(run->tree[other]);
        run->tree[other] = NULL;
        return;
    }
    MUST(cow_tree_fork(run->tree[t], below(run, 2) ? COW_FORK_BASE : 0, &run->tree[other]));
    model_copy(&run->model[other], &run->model[t]);
}

static void one_step(struct run *run)
{
    unsigned t = below(run, TREES);
    while (!run->tree[t]) t = (t + 1) % TREES;
    cow_tree *tree = run->tree[t];
    struct model *model = &run->model[t];
    switch (below(run, 32)) {
    case 0: case 1: case 2: case 3: step_make(run, tree, model); break;
    case 4: case 5: step_link(run, tree, model); break;
    case 6: case 7: step_remove(run, tree, model); break;
    case 8: case 9: case 10: step_rename(run, tree, model); break;
    case 11: case 12: case 13: step_shape(run, tree, model); break;
    case 14: case 15: case 16: step_clone(run, tree, model); break;
    case 17: step_pin(run, tree, model); break;
    case 18: step_trees(run, t); break;
    case 19: if (below(run, 3) == 0) MUST(cow_store_commit(run->store)); break;
    case 20: case 21: case 22: case 23: step_read(run, tree, model); break;
    default: step_write(run, tree, model); break;
    }
}

static void random_run(uint64_t seed, uint64_t steps)
{
    static struct run run;
    memset(&run, 0, sizeof run);
    run.seed = run.random = seed;
    run.store = open_store();
    MUST(cow_tree_create(run.store, 0, &run.tree[0]));
    model_init(&run.model[0]);
    unsigned failed = test_failed_checks;
    for (uint64_t i = 0; i < steps && failed == test_failed_checks; i++) {
        one_step(&run);
        for (unsigned t = 0; t < TREES && (i % 64 == 63 || i + 1 == steps); t++)
            if (run.tree[t]) model_verify(&run.model[t], run.tree[t]);
        if (failed != test_failed_checks)
            fprintf(stderr, "step %" PRIu64 "; replay: test_fs random %" PRIu64 " %" PRIu64 "\n", i, seed, steps);
    }
    for (unsigned t = 0; t < TREES; t++) {
        if (run.tree[t]) {
            unpin_all(&run, t);
            cow_tree_close(run.tree[t]);
        }
        model_deinit(&run.model[t]);
    }
    close_store(run.store);
}

static void test_model(void)
{
    for (uint64_t seed = 1; seed <= 6; seed++) random_run(seed, 2500);
}

/* ---- Many threads ---- */

#define THREADS 4

struct worker {
    cow_store *store;
    cow_tree *shared, *fork; /* one tree for all, and a fork of it that two workers share */
    unsigned number;
    bool committer;
};

/* Each worker has names and files of its own; what it wrote last it must read. */
static void *work(void *context)
{
    struct worker *worker = context;
    static const char other[] = "w0";
    uint8_t data[3000], got[3000];
    uint64_t random = worker->number;
    char dir_name[8], name[16];
    (void)snprintf(dir_name, sizeof dir_name, "w%u", worker->number);
    cow_tree *tree = worker->number % 2 ? worker->fork : worker->shared;
    uint64_t dir = must_make(tree, COW_ROOT_INO, dir_name, S_IFDIR), ino, found;
    uint64_t common = 0;
    CHECK_EQ(walk(tree, "/common", 0, &common), 0);
    for (unsigned i = 0; i < 300; i++) {
        (void)snprintf(name, sizeof name, "f%u", i % 20);
        size_t length = 1 + (size_t)(test_random(&random) % sizeof data);
        uint64_t offset = test_random(&random) % 40000;
        test_fill(data, length, test_random(&random));
        if (make(tree, dir, name, S_IFREG, &ino) == -EEXIST) MUST(cow_dir_lookup(tree, dir, name, strlen(name), &ino, NULL));
        CHECK_EQ(cow_file_write(tree, ino, offset, data, length), length);
        CHECK_EQ(cow_file_read(tree, ino, offset, got, length), length);
        CHECK(memcmp(data, got, length) == 0);
        (void)cow_dir_lookup(tree, COW_ROOT_INO, other, 2, &found, NULL);
        CHECK(cow_file_read(tree, common, 0, got, sizeof got) == (int64_t)sizeof got && got[0] == 'c');
        if (i % 10 == 0) MUST(cow_file_clone(worker->shared, common, 0, tree, ino, 65536, 4096 * 3));
        if (i % 7 == 0) CHECK_EQ(cow_dir_remove(tree, dir, name, strlen(name), COW_REMOVE_FILE), 0);
        if (i % 50 == 49) {
            cow_diff *diff;
            cow_tree *snapshot;
            MUST(cow_tree_fork(tree, COW_FORK_SEALED, &snapshot));
            MUST(cow_diff_open(worker->shared, snapshot, &diff));
            cow_diff_close(diff);
            MUST(cow_tree_delete(snapshot));
            cow_tree_close(snapshot);
        }
        if (worker->committer && i % 20 == 0) MUST(cow_store_commit(worker->store));
    }
    CHECK_EQ(cow_dir_remove(tree, COW_ROOT_INO, dir_name, strlen(dir_name), COW_REMOVE_TREE), 0);
    return NULL;
}

static void test_threads(void)
{
    cow_store *store = open_store();
    cow_tree *tree, *fork;
    static uint8_t data[20000];
    memset(data, 'c', sizeof data);
    MUST(cow_tree_create(store, 0, &tree));
    uint64_t ino = must_make(tree, COW_ROOT_INO, "common", S_IFREG);
    MUST(cow_file_write(tree, ino, 0, data, sizeof data));
    MUST(cow_tree_fork(tree, COW_FORK_BASE, &fork));
    pthread_t thread[THREADS];
    struct worker worker[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        worker[i] = (struct worker){store, tree, fork, i, i == 0};
        CHECK_EQ(pthread_create(&thread[i], NULL, work, &worker[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
    cow_tree_info info;
    MUST(cow_tree_get_info(fork, &info));
    CHECK_EQ(info.inodes, 2);
    CHECK_EQ(info.size_bytes, 0);
    model_verify_counts(tree);
    model_verify_counts(fork);
    cow_tree_close(fork);
    cow_tree_close(tree);
    close_store(store);
}

/* ---- For people ---- */

static double seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void bench(unsigned names)
{
    cow_store *store = open_store();
    cow_tree *tree;
    char name[24];
    MUST(cow_tree_create(store, 0, &tree));
    uint64_t dir = must_make(tree, COW_ROOT_INO, "d", S_IFDIR), ino;
    double start = seconds();
    for (unsigned i = 0; i < names; i++) {
        (void)snprintf(name, sizeof name, "name-%u", i);
        must_make(tree, dir, name, S_IFREG);
    }
    printf("make    %8.2f us each\n", (seconds() - start) * 1e6 / names);
    start = seconds();
    for (unsigned i = 0; i < names; i++) {
        (void)snprintf(name, sizeof name, "name-%u", (unsigned)(i * 7919ull % names));
        MUST(cow_dir_lookup(tree, dir, name, strlen(name), &ino, NULL));
    }
    printf("lookup  %8.2f us each\n", (seconds() - start) * 1e6 / names);
    start = seconds();
    static uint8_t buffer[1 << 20];
    uint64_t cookie = 0, count = 0;
    for (int64_t bytes; (bytes = cow_dir_read(tree, dir, cookie, 0, buffer, sizeof buffer)) > 0;) {
        for (size_t at = 0; at < (size_t)bytes; count++) {
            cow_dir_entry entry;
            memcpy(&entry, buffer + at, sizeof entry);
            cookie = entry.cookie;
            at += entry.record_bytes;
        }
    }
    CHECK_EQ(count, names);
    printf("list    %8.2f us each\n", (seconds() - start) * 1e6 / names);
    start = seconds();
    MUST(cow_dir_remove(tree, COW_ROOT_INO, "d", 1, COW_REMOVE_TREE));
    printf("remove  %8.2f us each\n", (seconds() - start) * 1e6 / names);
    ino = must_make(tree, COW_ROOT_INO, "f", S_IFREG);
    start = seconds();
    for (unsigned i = 0; i < 128; i++) MUST(cow_file_write(tree, ino, (uint64_t)i << 20, buffer, sizeof buffer));
    printf("write   %8.2f MB/s\n", 128 * 1.048576 / (seconds() - start));
    start = seconds();
    for (unsigned i = 0; i < 128; i++) MUST(cow_file_read(tree, ino, (uint64_t)i << 20, buffer, sizeof buffer));
    printf("read    %8.2f MB/s\n", 128 * 1.048576 / (seconds() - start));
    cow_tree *fork;
    MUST(cow_tree_fork(tree, COW_FORK_BASE, &fork));
    for (unsigned pass = 0; pass < 2; pass++) {
        start = seconds();
        for (unsigned i = 0; i < 100000; i++) MUST(cow_file_write(fork, ino, (i * 7919ull % 400) << 12, buffer, 4096));
        printf("rewrite %8.2f us each (400 blocks)\n", (seconds() - start) * 1e6 / 100000);
    }
    cow_tree_close(fork);
    cow_tree_close(tree);
    MUST(cow_store_close(store));
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "random") == 0) {
        random_run(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
        return test_failed_checks != 0;
    }
    if (argc >= 2 && strcmp(argv[1], "bench") == 0) {
        bench(argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 1000000);
        return 0;
    }
    RUN(test_names);
    RUN(test_setgid);
    RUN(test_paths);
    RUN(test_rename);
    RUN(test_xattrs);
    RUN(test_sizes);
    RUN(test_sparse);
    RUN(test_fragments);
    RUN(test_clone_cases);
    RUN(test_orphans);
    RUN(test_place_whole);
    RUN(test_no_space);
    RUN(test_diff);
    RUN(test_diff_siblings);
    RUN(test_model);
    RUN(test_threads);
    return TEST_RESULT();
}
