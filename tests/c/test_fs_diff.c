/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Differences of two trees: what is done to a tree, and what is to be told of it. (test_fs_model.c compares those of a
 * random run.)
 */
#include "fs_kit.h"
#include "fs_model.h"

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
            used += (size_t)snprintf(text + used, capacity - used, "%c%u %.*s", entry.kind, entry.what,
                                     entry.path_bytes, (const char *)buffer + at + sizeof entry);
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

int main(void)
{
    RUN(test_diff);
    RUN(test_diff_siblings);
    return TEST_RESULT();
}
