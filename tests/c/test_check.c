/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What check says about trees whose nodes are whole but whose items do not fit each other, which only an error in the
 * store itself can bring about: each kind of mistake is put into a tree by hand, found with its place, also in a fork that
 * is compared with its parent only, and set right by repair as far as it can be.
 */
#include <stdlib.h>

#include "fs_kit.h"

struct seen {
    unsigned count, kinds[16];
    uint64_t tree, ino;
    char path[64];
};

static void tell(void *context, const cow_finding *finding)
{
    struct seen *seen = context;
    seen->count++;
    seen->kinds[finding->kind]++;
    if (seen->ino) return;
    seen->tree = finding->tree;
    seen->ino = finding->ino;
    (void)snprintf(seen->path, sizeof seen->path, "%s", finding->path);
}

static struct cow_inode inode_of(cow_tree *tree, uint64_t ino)
{
    struct cow_inode inode;
    MUST(cow_tree_get_inode(tree, ino, &inode));
    return inode;
}

static void break_nlink(cow_tree *tree, uint64_t dir, uint64_t ino)
{
    (void)dir;
    struct cow_inode inode = inode_of(tree, ino);
    inode.nlink = 7;
    MUST(cow_tree_put_inode(tree, &inode));
}

static void break_entries(cow_tree *tree, uint64_t dir, uint64_t ino)
{
    (void)ino;
    struct cow_inode inode = inode_of(tree, dir);
    inode.entries++;
    MUST(cow_tree_put_inode(tree, &inode));
}

static void break_mapped(cow_tree *tree, uint64_t dir, uint64_t ino)
{
    (void)dir;
    struct cow_inode inode = inode_of(tree, ino);
    inode.mapped_blocks += 3;
    MUST(cow_tree_put_inode(tree, &inode));
}

static void break_parent(cow_tree *tree, uint64_t dir, uint64_t ino)
{
    (void)dir;
    struct cow_inode inode = inode_of(tree, ino);
    inode.parent = COW_ROOT_INO;
    MUST(cow_tree_put_inode(tree, &inode));
}

static void break_entry(cow_tree *tree, uint64_t dir, uint64_t ino)
{
    (void)ino;
    uint8_t bytes[64];
    struct cow_dirent dirent = {.ino = 4711, .type = S_IFREG >> 12, .name_bytes = 4, .name = (const uint8_t *)"gone"};
    uint64_t hash = cow_name_hash(tree, "gone", 4);
    MUST(cow_tree_put(tree, cow_key_make(dir, COW_ITEM_DIRENT, hash), bytes, cow_dirent_encode(&dirent, bytes)));
}

static void break_counter(cow_tree *tree, uint64_t dir, uint64_t ino)
{
    (void)dir, (void)ino;
    tree->inodes += 5;
    tree->apparent_bytes += 100;
}

struct mistake {
    const char *name;
    void (*make)(cow_tree *tree, uint64_t dir, uint64_t ino);
    uint32_t kind;
    bool mended; /* by repair */
    const char *path;
};
static const struct mistake mistakes[] = {
    {"nlink", break_nlink, COW_FOUND_INODE, true, "/dir/file"},
    {"entries", break_entries, COW_FOUND_INODE, true, "/dir"},
    {"mapped blocks", break_mapped, COW_FOUND_INODE, true, "/dir/file"},
    {"parent", break_parent, COW_FOUND_NAME, false, ""},
    {"entry", break_entry, COW_FOUND_NAME, false, "/dir"},
    {"counter", break_counter, COW_FOUND_TREE, true, ""},
};

static void try_mistake(const struct mistake *mistake, bool in_fork)
{
    struct cow_dev *dev;
    cow_store *store;
    cow_tree *tree, *parent = NULL;
    cow_options options = {.flags = COW_OPEN_CREATE};
    MUST(cow_dev_sim_open(&dev));
    cow_dev_sim_hold(dev);
    cow_dev_sim_hold(dev);
    MUST(cow_store_open_dev(dev, &options, &store));
    MUST(cow_tree_create(store, 0, &tree));
    uint64_t dir = must_make(tree, COW_ROOT_INO, "dir", S_IFDIR | 0755);
    uint64_t ino = must_make(tree, dir, "file", S_IFREG | 0644);
    uint8_t bytes[20000];
    test_fill(bytes, sizeof bytes, 3);
    MUST(cow_file_write(tree, ino, 0, bytes, sizeof bytes));
    if (in_fork) {
        parent = tree;
        MUST(cow_tree_fork(parent, COW_FORK_BASE, &tree));
    }
    cow_check_report report;
    MUST(cow_store_examine(store, COW_CHECK_DATA, NULL, NULL, &report));
    CHECK_EQ(report.errors, 0);

    MUST(cow_tree_write_begin(tree, 8));
    mistake->make(tree, dir, ino);
    MUST(cow_tree_write_end(tree, 0));
    for (uint32_t flags = 0; flags <= COW_CHECK_WHOLE; flags += COW_CHECK_WHOLE) {
        struct seen seen = {0};
        MUST(cow_store_examine(store, flags, tell, &seen, &report));
        if (seen.kinds[mistake->kind] == 0) fprintf(stderr, "%s is not found\n", mistake->name);
        CHECK(seen.kinds[mistake->kind] > 0);
        if (*mistake->path) CHECK_EQ(strcmp(seen.path, mistake->path), 0);
        if (seen.ino) CHECK_EQ(seen.tree, tree->id);
    }
    cow_tree_close(tree);
    cow_tree_close(parent);
    MUST(cow_store_close(store));

    cow_repair_report repair;
    MUST(cow_store_repair_dev(dev, NULL, NULL, NULL, &repair));
    options.flags = 0;
    MUST(cow_store_open_dev(dev, &options, &store));
    MUST(cow_store_examine(store, COW_CHECK_DATA | COW_CHECK_WHOLE, NULL, NULL, &report));
    CHECK_EQ(report.errors == 0, mistake->mended);
    MUST(cow_store_close(store));
}

static void test_mistakes(void)
{
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        try_mistake(&mistakes[i], false);
        try_mistake(&mistakes[i], true);
    }
}

/* Forks are compared by their difference: of a fork that changed one inode, that inode's items are gone through (of a
 * directory all its entries), and nothing of one that changed nothing. */
static void test_forks_cost_their_changes(void)
{
    cow_store *store = open_store();
    cow_tree *image, *fork;
    cow_stats before, after;
    cow_check_report report;
    MUST(cow_tree_create(store, 0, &image));
    uint64_t dir = 0;
    for (unsigned i = 0; i < 3000; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "file number %u", i);
        if (i % 100 == 0) dir = must_make(image, COW_ROOT_INO, name, S_IFDIR | 0755);
        else (void)must_make(image, dir, name, S_IFREG | 0644);
    }
    MUST(cow_tree_seal(image));
    MUST(cow_store_examine(store, 0, NULL, NULL, &report));
    uint64_t nodes = report.nodes;
    for (unsigned i = 0; i < 500; i++) {
        MUST(cow_tree_fork(image, COW_FORK_BASE, &fork));
        if (i % 5 == 0) (void)must_make(fork, dir, "new", S_IFREG | 0644);
        cow_tree_close(fork);
    }
    MUST(cow_store_commit(store));
    MUST(cow_store_stats(store, &before));
    MUST(cow_store_examine(store, 0, NULL, NULL, &report));
    MUST(cow_store_stats(store, &after));
    CHECK_EQ(report.errors, 0);
    CHECK(nodes > 100);
    printf("%llu nodes, %llu visited for 500 forks\n", (unsigned long long)nodes,
           (unsigned long long)(after.nodes_visited - before.nodes_visited));
    CHECK(after.nodes_visited - before.nodes_visited < 500 * nodes / 10); /* in full: 500 times nodes */
    cow_tree_close(image);
    close_store(store);
}

int main(void)
{
    RUN(test_mistakes);
    RUN(test_forks_cost_their_changes);
    return TEST_RESULT();
}
