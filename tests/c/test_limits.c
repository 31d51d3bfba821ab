/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limits of docs/LIMITS.md, at their edge and one above; and the public functions with arguments that no caller
 * should give: missing pointers, lengths and offsets near 2^64, flags that do not exist, trees of another store.
 */
#include "fs_kit.h"

static char text[8192];

static void test_names(void)
{
    cow_store *store = open_store();
    cow_tree *tree;
    cow_attr attr = {.mode = S_IFREG | 0644}, link = {.mode = S_IFLNK | 0777};
    uint64_t ino;
    size_t bytes;
    MUST(cow_tree_create(store, 0, &tree));
    memset(text, 'n', sizeof text);
    CHECK_EQ(cow_dir_make(tree, COW_ROOT_INO, text, 255, &attr, NULL, 0, &ino), 0);
    CHECK_EQ(cow_dir_lookup(tree, COW_ROOT_INO, text, 255, &ino, NULL), 0);
    CHECK_EQ(cow_dir_make(tree, COW_ROOT_INO, text, 256, &attr, NULL, 0, &ino), -ENAMETOOLONG);
    CHECK_EQ(cow_dir_lookup(tree, COW_ROOT_INO, text, SIZE_MAX, &ino, NULL), -ENAMETOOLONG);
    CHECK_EQ(cow_dir_make(tree, COW_ROOT_INO, "", 0, &attr, NULL, 0, &ino), -ENOENT);
    CHECK_EQ(cow_dir_make(tree, COW_ROOT_INO, "a/b", 3, &attr, NULL, 0, &ino), -EINVAL);
    CHECK_EQ(cow_dir_make(tree, COW_ROOT_INO, "a\0b", 3, &attr, NULL, 0, &ino), -EINVAL);
    CHECK_EQ(cow_dir_make(tree, COW_ROOT_INO, "..", 2, &attr, NULL, 0, &ino), -EINVAL);
    CHECK_EQ(cow_dir_make(tree, COW_ROOT_INO, "l", 1, &link, text, 4095, &ino), 0);
    CHECK_EQ(cow_symlink_read(tree, ino, text, sizeof text), 4095);
    CHECK_EQ(cow_dir_make(tree, COW_ROOT_INO, "m", 1, &link, text, 4096, &ino), -ENAMETOOLONG);
    CHECK_EQ(cow_dir_make(tree, COW_ROOT_INO, "m", 1, &link, text, 0, &ino), -ENOENT);

    uint64_t dir = must_make(tree, COW_ROOT_INO, "d", S_IFDIR | 0755);
    for (size_t i = 0; i < sizeof text; i += 2) memcpy(text + i, "./", 2);
    memcpy(text, "d/", 2);
    CHECK_EQ(cow_path_walk(tree, COW_ROOT_INO, text, 4094, 0, &ino, NULL), 0);
    CHECK_EQ(ino, dir);
    text[4094] = '.';
    CHECK_EQ(cow_path_walk(tree, COW_ROOT_INO, text, 4095, 0, &ino, NULL), 0);
    CHECK_EQ(cow_path_walk(tree, COW_ROOT_INO, text, 4096, 0, &ino, NULL), -ENAMETOOLONG);
    CHECK_EQ(cow_path_walk(tree, COW_ROOT_INO, text, SIZE_MAX, 0, &ino, NULL), -ENAMETOOLONG);
    CHECK_EQ(cow_path_of(tree, dir, text, 1, &bytes), -ERANGE);
    CHECK_EQ(cow_path_of(tree, dir, text, 0, &bytes), -ERANGE);
    CHECK_EQ(cow_path_of(tree, dir, text, 2, &bytes), 0);
    cow_tree_close(tree);
    close_store(store);
}

/* A chain of links: 40 are followed, 41 are not. */
static void test_symlinks(void)
{
    cow_store *store = open_store();
    cow_tree *tree;
    uint64_t ino;
    MUST(cow_tree_create(store, 0, &tree));
    must_make(tree, COW_ROOT_INO, "l0", S_IFREG);
    for (unsigned i = 1; i <= 41; i++) {
        char name[8], target[8];
        (void)snprintf(name, sizeof name, "l%u", i);
        (void)snprintf(target, sizeof target, "l%u", i - 1);
        must_link(tree, COW_ROOT_INO, name, target);
    }
    must_link(tree, COW_ROOT_INO, "self", "self");
    CHECK_EQ(walk(tree, "/l40", 0, &ino), 0);
    CHECK_EQ(walk(tree, "/l41", 0, &ino), -ELOOP);
    CHECK_EQ(walk(tree, "/l41", COW_WALK_NOFOLLOW, &ino), 0);
    CHECK_EQ(walk(tree, "/self", 0, &ino), -ELOOP);
    CHECK_EQ(walk(tree, "/self/x", 0, &ino), -ELOOP);
    cow_tree_close(tree);
    close_store(store);
}

static void test_sizes(void)
{
    const uint64_t max = COW_FILE_BYTES_MAX;
    cow_store *store = open_store();
    cow_tree *tree;
    cow_attr attr;
    uint8_t bytes[8192] = {1, 2, 3}, got[8192];
    MUST(cow_tree_create(store, 0, &tree));
    uint64_t ino = must_make(tree, COW_ROOT_INO, "f", S_IFREG), copy = must_make(tree, COW_ROOT_INO, "g", S_IFREG);
    CHECK_EQ(max, (uint64_t)1 << 55);
    CHECK_EQ(cow_file_write(tree, ino, max - 3, bytes, 3), 3);
    CHECK_EQ(cow_file_write(tree, ino, max - 3, bytes, 4), -EFBIG);
    CHECK_EQ(cow_file_write(tree, ino, max, bytes, 1), -EFBIG);
    CHECK_EQ(cow_file_write(tree, ino, COW_APPEND, bytes, 1), -EFBIG);
    MUST(cow_inode_stat(tree, ino, &attr));
    CHECK_EQ(attr.size_bytes, max);
    CHECK_EQ(attr.blocks_512, 8);
    CHECK_EQ(cow_file_read(tree, ino, max - 3, got, 100), 3);
    CHECK(memcmp(got, bytes, 3) == 0);
    CHECK_EQ(cow_file_seek(tree, ino, 0, COW_SEEK_DATA), max - 4096);
    static const uint64_t beyond[] = {(uint64_t)1 << 55, (uint64_t)1 << 62, INT64_MAX, (uint64_t)1 << 63, UINT64_MAX - 1};
    for (unsigned i = 0; i < 5; i++) {
        CHECK_EQ(cow_file_write(tree, copy, beyond[i], bytes, 1), -EFBIG);
        CHECK_EQ(cow_file_write(tree, copy, beyond[i], bytes, 0), beyond[i] == max ? 0 : -EFBIG);
        CHECK_EQ(cow_file_read(tree, copy, beyond[i], got, 1), 0);
        CHECK_EQ(cow_file_truncate(tree, copy, beyond[i]), beyond[i] == max ? 0 : -EFBIG);
        CHECK_EQ(cow_file_punch(tree, copy, beyond[i], UINT64_MAX), 0);
        CHECK_EQ(cow_file_seek(tree, copy, beyond[i], COW_SEEK_DATA), -ENXIO);
        CHECK(cow_file_clone(tree, ino, beyond[i], tree, copy, 0, 4096) < 0);
        CHECK(cow_file_clone(tree, ino, 0, tree, copy, beyond[i], 4096) < 0);
        CHECK(cow_file_clone(tree, ino, 0, tree, copy, 0, beyond[i]) < 0 || beyond[i] == max);
        uint64_t block = beyond[i];
        CHECK_EQ(cow_file_write_blocks(tree, copy, &block, 1, bytes), -EFBIG);
        CHECK_EQ(cow_file_read_blocks(tree, copy, &block, 1, got), -EFBIG);
    }
    uint64_t last = (max >> COW_BLOCK_SHIFT) - 1, over = last + 1;
    CHECK_EQ(cow_file_write_blocks(tree, copy, &last, 1, bytes), 0);
    CHECK_EQ(cow_file_write_blocks(tree, copy, &over, 1, bytes), -EFBIG);
    CHECK_EQ(cow_file_punch(tree, ino, 0, UINT64_MAX), 0);
    CHECK_EQ(cow_file_truncate(tree, ino, 0), 0);
    CHECK_EQ(cow_file_write(tree, ino, 0, bytes, (size_t)INT64_MAX + 1), -EINVAL);
    cow_tree_close(tree);
    close_store(store);
}

static void test_xattrs(void)
{
    cow_store *store = open_store();
    cow_tree *tree;
    MUST(cow_tree_create(store, 0, &tree));
    memset(text, 'x', sizeof text);
    CHECK_EQ(cow_xattr_set(tree, COW_ROOT_INO, text, 255, text, 1700, 0), 0);
    CHECK_EQ(cow_xattr_get(tree, COW_ROOT_INO, text, 255, NULL, 0), 1700);
    char small[10];
    CHECK_EQ(cow_xattr_get(tree, COW_ROOT_INO, text, 255, small, sizeof small), -ERANGE);
    CHECK_EQ(cow_xattr_list(tree, COW_ROOT_INO, small, sizeof small), -ERANGE);
    CHECK_EQ(cow_xattr_set(tree, COW_ROOT_INO, text, 256, text, 1, 0), -ERANGE);
    CHECK_EQ(cow_xattr_set(tree, COW_ROOT_INO, text, SIZE_MAX, text, 1, 0), -ERANGE);
    CHECK(cow_xattr_set(tree, COW_ROOT_INO, "", 0, text, 1, 0) < 0);
    CHECK_EQ(cow_xattr_set(tree, COW_ROOT_INO, "a\0b", 3, text, 1, 0), -EINVAL);
    CHECK_EQ(cow_xattr_set(tree, COW_ROOT_INO, "a", 1, text, 1701, 0), -ENOSPC);
    CHECK_EQ(cow_xattr_set(tree, COW_ROOT_INO, "a", 1, text, SIZE_MAX, 0), -E2BIG);
    CHECK_EQ(cow_xattr_set(tree, COW_ROOT_INO, "a", 1, text, 1, 77), -EINVAL);
    for (unsigned i = 0; i < 500; i++) {
        char name[16];
        int n = snprintf(name, sizeof name, "user.%u", i);
        CHECK_EQ(cow_xattr_set(tree, COW_ROOT_INO, name, (size_t)n, text, 1700, 0), 0);
    }
    cow_tree_close(tree);
    close_store(store);
}

/* ---- Arguments that nobody should give ---- */

static void test_missing_pointers(void)
{
    cow_store *store = open_store();
    cow_tree *tree, *none = NULL;
    cow_untar *untar;
    MUST(cow_tree_create(store, 0, &tree));
    uint64_t ino = must_make(tree, COW_ROOT_INO, "f", S_IFREG), out;
    size_t bytes;
    cow_attr attr = {.mode = S_IFREG};
    cow_options options = {0};
    const int64_t answers[] = {
        cow_store_open(NULL, &options, &store), cow_store_open("x", NULL, &store), cow_store_open("x", &options, NULL),
        cow_path_walk(none, 1, "a", 1, 0, &out, NULL), cow_path_walk(tree, 1, NULL, 1, 0, &out, NULL),
        cow_path_walk(tree, 1, "a", 1, 0, NULL, NULL), cow_path_parent(tree, 1, "a", 1, NULL, &bytes, &bytes),
        cow_path_of(tree, ino, NULL, 5, &bytes), cow_path_of(tree, ino, text, 5, NULL),
        cow_inode_stat(tree, ino, NULL), cow_inode_stat(none, ino, &attr), cow_inode_set(tree, ino, NULL, 1),
        cow_inode_get(none, ino), cow_inode_put(none, ino), cow_dir_lookup(tree, 1, NULL, 1, &out, NULL),
        cow_dir_lookup(tree, 1, "a", 1, NULL, NULL), cow_dir_make(tree, 1, NULL, 1, &attr, NULL, 0, &out),
        cow_dir_make(tree, 1, "a", 1, NULL, NULL, 0, &out), cow_dir_make(tree, 1, "a", 1, &attr, NULL, 0, NULL),
        cow_dir_link(tree, 1, NULL, 1, ino), cow_dir_remove(tree, 1, NULL, 1, COW_REMOVE_FILE),
        cow_dir_rename(tree, 1, NULL, 1, 1, "b", 1, 0), cow_dir_rename(tree, 1, "f", 1, 1, NULL, 1, 0),
        cow_dir_read(tree, 1, 0, 0, NULL, 100), cow_symlink_read(tree, ino, NULL, 100),
        cow_xattr_get(tree, ino, NULL, 1, text, 5), cow_xattr_get(tree, ino, "a", 1, NULL, 5),
        cow_xattr_set(tree, ino, NULL, 1, "b", 1, 0), cow_xattr_set(tree, ino, "a", 1, NULL, 1, 0),
        cow_xattr_list(tree, ino, NULL, 5), cow_xattr_remove(tree, ino, NULL, 1), cow_file_read(tree, ino, 0, NULL, 5),
        cow_file_write(tree, ino, 0, NULL, 5), cow_file_write(none, ino, 0, "a", 1), cow_file_truncate(none, ino, 0),
        cow_file_punch(none, ino, 0, 1), cow_file_seek(none, ino, 0, COW_SEEK_DATA),
        cow_file_clone(none, ino, 0, tree, ino, 0, 0), cow_file_clone(tree, ino, 0, none, ino, 0, 0),
        cow_file_extents(tree, ino, 0, NULL, 5), cow_file_read_blocks(tree, ino, NULL, 1, text),
        cow_file_read_blocks(tree, ino, &out, 1, NULL), cow_file_write_blocks(tree, ino, NULL, 1, text),
        cow_file_write_blocks(tree, ino, &out, 1, NULL), cow_tree_set_quota(none, 1),
    };
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++)
        if (answers[i] != -EINVAL) fprintf(stderr, "answer %zu: %lld\n", i, (long long)answers[i]);
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) CHECK_EQ(answers[i], -EINVAL);
    CHECK_EQ(cow_store_close(NULL), 0);
    cow_tree_close(NULL);
    cow_diff_close(NULL);
    cow_untar_close(NULL);
    cow_tar_close(NULL);
    MUST(cow_untar_open(tree, 0, &untar));
    cow_untar_close(untar);
    cow_tree_close(tree);
    close_store(store);
}

static void test_flags_and_kinds(void)
{
    cow_store *store = open_store(), *other = open_store();
    cow_tree *tree, *fork, *foreign;
    cow_diff *diff;
    cow_tar *tar;
    uint64_t ino;
    MUST(cow_tree_create(store, 0, &tree));
    MUST(cow_tree_create(other, 0, &foreign));
    uint64_t file = must_make(tree, COW_ROOT_INO, "f", S_IFREG);
    must_make(foreign, COW_ROOT_INO, "f", S_IFREG);
    CHECK_EQ(cow_tree_create(store, 99, &fork), -EINVAL);
    CHECK_EQ(cow_tree_fork(tree, 99, &fork), -EINVAL);
    CHECK_EQ(cow_tree_open(store, 0, &fork), -ENOENT);
    CHECK_EQ(cow_tree_open(store, UINT64_MAX, &fork), -ENOENT);
    CHECK_EQ(cow_dir_remove(tree, COW_ROOT_INO, "f", 1, 0), -EINVAL);
    CHECK_EQ(cow_dir_remove(tree, COW_ROOT_INO, "f", 1, 99), -EINVAL);
    CHECK_EQ(cow_dir_rename(tree, 1, "f", 1, 1, "g", 1, 99), -EINVAL);
    CHECK_EQ(cow_file_seek(tree, file, 0, 77), -EINVAL);
    CHECK_EQ(cow_file_read(tree, COW_ROOT_INO, 0, text, 5), -EISDIR);
    CHECK_EQ(cow_dir_lookup(tree, file, "a", 1, &ino, NULL), -ENOTDIR);
    CHECK_EQ(cow_symlink_read(tree, file, text, 5), -EINVAL);
    CHECK(cow_dir_read(tree, file, 0, 0, text, 100) == -ENOTDIR);
    CHECK_EQ(cow_dir_read(tree, COW_ROOT_INO, UINT64_MAX, 0, text, 100), 0);
    CHECK_EQ(cow_dir_read(tree, COW_ROOT_INO, 0, 0, text, 3), -ERANGE);
    CHECK_EQ(cow_dir_link(tree, COW_ROOT_INO, "d", 1, COW_ROOT_INO), -EPERM);
    for (uint64_t bad = UINT64_MAX - 1; bad != 1; bad = bad == UINT64_MAX - 1 ? 0 : bad == 0 ? 12345 : 1) {
        CHECK_EQ(cow_file_read(tree, bad, 0, text, 5), -ENOENT);
        CHECK_EQ(cow_file_write(tree, bad, 0, text, 5), -ENOENT);
        CHECK_EQ(cow_inode_get(tree, bad), -ENOENT);
        CHECK_EQ(cow_inode_put(tree, bad), 0);
    }
    MUST(cow_inode_get(tree, file)); /* unpinning what was not pinned has not spoilt the table */
    CHECK_EQ(remove_path(tree, "/f", COW_REMOVE_FILE), 0);
    CHECK_EQ(cow_file_write(tree, file, 0, "still", 5), 5);
    CHECK_EQ(cow_inode_put(tree, file), 0);
    CHECK_EQ(cow_file_write(tree, file, 0, "gone", 4), -ENOENT);
    CHECK(cow_file_clone(foreign, file, 0, tree, file, 0, 4096) == -EXDEV);
    CHECK_EQ(cow_tree_reset(tree, foreign), -EXDEV);
    CHECK(cow_diff_open(foreign, tree, &diff) < 0);
    CHECK(cow_tar_open(foreign, tree, &tar) < 0);
    CHECK_EQ(cow_store_end(store, 1), -EINVAL);
    MUST(cow_store_begin(store));
    CHECK_EQ(cow_store_begin(store), -EDEADLK);
    CHECK_EQ(cow_store_commit(store), -EBUSY);
    MUST(cow_store_end(store, 1));
    CHECK_EQ(cow_store_end(store, 0), -EINVAL);
    cow_tree_close(foreign);
    cow_tree_close(tree);
    close_store(other);
    close_store(store);
}

int main(void)
{
    RUN(test_names);
    RUN(test_symlinks);
    RUN(test_sizes);
    RUN(test_xattrs);
    RUN(test_missing_pointers);
    RUN(test_flags_and_kinds);
    return TEST_RESULT();
}
