/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file system inside trees: tables of POSIX cases for names, attributes and content, counts of own bytes, files
 * that are open without a name, and a medium that is full.
 */
#include "fs_kit.h"
#include "fs_model.h"

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
        {"/", 0, 0, COW_ROOT_INO},
        {"///", 0, 0, COW_ROOT_INO},
        {".", 0, 0, COW_ROOT_INO},
        {"/..", 0, 0, COW_ROOT_INO},
        {"", 0, -ENOENT, 0},
        {"a/b/f", 0, 0, file},
        {"/a//b/./f", 0, 0, file},
        {"a/b/f/", 0, -ENOTDIR, 0},
        {"a/b/f/.", 0, -ENOTDIR, 0},
        {"a/b/f/x", 0, -ENOTDIR, 0},
        {"a/b/", 0, 0, b},
        {"a/../a/b", 0, 0, b},
        {"to_b", 0, 0, b},
        {"to_b", COW_WALK_NOFOLLOW, 0, link},
        {"to_b/", COW_WALK_NOFOLLOW, 0, b},
        {"to_b/up/b/abs", 0, 0, file},
        {"chain", 0, 0, file},
        {"chain/", 0, -ENOTDIR, 0},
        {"loop", 0, -ELOOP, 0},
        {"loop/x", 0, -ELOOP, 0},
        {"gone", 0, -ENOENT, 0},
        {"gone", COW_WALK_NOFOLLOW, 0, link + 4},
        {"nothing", 0, -ENOENT, 0},
        {"nothing/..", 0, -ENOENT, 0},
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
    for (size_t i = 100; i < sizeof target; i += 100)
        target[i] = '/';
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
        {"/f", "/new", 0, 0},
        {"/f", "/d2/new", 0, 0},
        {"/f", "/d1/f", 0, 0},
        {"/f", "/f", 0, 0},
        {"/f", "/h", 0, 0},
        {"/f", "/h", COW_RENAME_NOREPLACE, -EEXIST},
        {"/f", "/new", COW_RENAME_NOREPLACE, 0},
        {"/none", "/new", 0, -ENOENT},
        {"/f", "/none/new", 0, -ENOENT},
        {"/f", "/h/new", 0, -ENOTDIR},
        {"/f", "/d2", 0, -EISDIR},
        {"/d2", "/f", 0, -ENOTDIR},
        {"/d2", "/d1", 0, -ENOTEMPTY},
        {"/d1", "/d2", 0, 0},
        {"/d1", "/d1/sub/new", 0, -EINVAL},
        {"/d1", "/d1/new", 0, -EINVAL},
        {"/d1", "/d1", 0, 0},
        {"/d1/sub", "/d1", 0, -ENOTEMPTY},
        {"/d1/sub", "/sub", 0, 0},
        {"/d1/sub", "/d2", 0, 0},
        {"/l", "/f", 0, 0},
        {"/f", "/l", 0, 0},
        {"/f", "/d1/f", COW_RENAME_EXCHANGE, 0},
        {"/f", "/d1", COW_RENAME_EXCHANGE, 0},
        {"/d1/sub", "/f", COW_RENAME_EXCHANGE, 0},
        {"/d1", "/d2", COW_RENAME_EXCHANGE, 0},
        {"/d1/sub", "/d3", COW_RENAME_EXCHANGE, 0},
        {"/d1", "/d1/sub", COW_RENAME_EXCHANGE, -EINVAL},
        {"/d1/sub", "/d1", COW_RENAME_EXCHANGE, -EINVAL},
        {"/f", "/new", COW_RENAME_EXCHANGE, -ENOENT},
        {"/f", "/h", COW_RENAME_EXCHANGE, 0},
        {"/f", "/new", 3, -EINVAL},
        {"/f", "/new", 8, -EINVAL},
        {"/f", "/d1/..", 0, -EINVAL},
        {"/.", "/new", 0, -EINVAL},
        {"/h", "/d1/g", 0, 0},
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
            if (cases[i].flags == COW_RENAME_EXCHANGE)
                CHECK(gone == 0 && now == to);
            else
                CHECK_EQ(gone, !had && from == to ? 0 : -ENOENT);
        }
        cow_attr root;
        MUST(cow_inode_stat(tree, COW_ROOT_INO, &root));
        uint32_t subdirs = 2;
        const char *tops[] = {"/d1", "/d2", "/d3", "/new", "/sub", "/f"};
        for (size_t n = 0; n < sizeof tops / sizeof *tops; n++) {
            cow_attr attr;
            if (cow_path_walk(tree, COW_ROOT_INO, tops[n], strlen(tops[n]), 1, &now, &attr) == 0)
                subdirs += S_ISDIR(attr.mode);
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
    for (unsigned i = 0; i < 8; i++)
        CHECK_EQ(cow_file_write(image, ino, (uint64_t)i << 20, data, sizeof data), 1 << 20);
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
    for (uint64_t i = 0; i < 300; i++)
        MUST(cow_file_write(tree, ino, i * 8192, block, 4096));
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
        if (n < 0)
            CHECK(memcmp(got, data, sizeof data) == 0);
        else
            CHECK(memcmp(got, data, 100) == 0 && memcmp(got + 100, other, 50000) == 0);
        model_verify_counts(fork);
        CHECK_EQ(cow_file_write(fork, ino, 100, other, 50000), 50000); /* still in use */
        cow_tree_close(fork);
        cow_tree_close(tree);
        close_store(store);
    }
    CHECK(failures > 0);
}

/* What a transaction takes back must not be seen through any cache. */
static void test_abort(void)
{
    cow_store *store = open_store();
    cow_tree *tree;
    uint64_t other;
    static uint8_t data[8192], got[8192];
    MUST(cow_tree_create(store, 0, &tree));
    uint64_t ino = must_make(tree, COW_ROOT_INO, "f", S_IFREG);
    MUST(cow_file_write(tree, ino, 0, data, sizeof data));
    MUST(cow_store_begin(store));
    memset(got, 1, sizeof got);
    MUST(cow_file_write(tree, ino, 0, got, sizeof got));
    MUST(rename_paths(tree, "/f", "/g", 0));
    must_make(tree, COW_ROOT_INO, "h", S_IFDIR);
    CHECK_EQ(walk(tree, "/f", 0, &other), -ENOENT);
    MUST(cow_store_end(store, 0));
    CHECK_EQ(walk(tree, "/f", 0, &other), 0);
    CHECK_EQ(walk(tree, "/g", 0, &other), -ENOENT);
    CHECK_EQ(walk(tree, "/h", 0, &other), -ENOENT);
    CHECK_EQ(cow_file_read(tree, ino, 4096, got, 4096), 4096);
    CHECK(is_zero(got, 4096));
    MUST(cow_file_write(tree, ino, 4096, "x", 1));
    model_verify_counts(tree);
    cow_tree_close(tree);
    close_store(store);
}

int main(void)
{
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
    RUN(test_abort);
    return TEST_RESULT();
}
