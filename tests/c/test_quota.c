/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quotas. The random test does each operation twice: on a twin without a quota, which says how large the tree becomes,
 * and on the tree with a quota near that. It must succeed exactly when the result fits (or is no larger than before), and
 * otherwise leave everything as it was.
 *
 *   test_quota                      the runs of CI
 *   test_quota random SEED STEPS    one random run; a failure prints this line
 */
#include "fs_kit.h"
#include "fs_model.h"

#define FILES 6u

struct run {
    cow_store *store;
    cow_tree *image, *tree;
    uint64_t random;
    unsigned refused, done;
};

static unsigned below(struct run *run, unsigned n)
{
    return (unsigned)(test_random(&run->random) % n);
}

struct operation {
    unsigned kind;
    uint64_t ino, other, offset, other_offset, length;
    uint64_t blocks[8];
};

static uint8_t bytes[3u << 20];

static int64_t perform(const struct operation *op, cow_tree *tree, cow_tree *image)
{
    switch (op->kind) {
    case 0: return cow_file_write(tree, op->ino, op->offset, bytes, op->length);
    case 1: return cow_file_write(tree, op->ino, COW_APPEND, bytes, op->length);
    case 2: return cow_file_write_blocks(tree, op->ino, op->blocks, 8, bytes);
    case 3: return cow_file_truncate(tree, op->ino, op->offset);
    case 4: return cow_file_punch(tree, op->ino, op->offset, op->length);
    case 5: return cow_file_clone(tree, op->other, op->other_offset, tree, op->ino, op->offset & ~4095ull, op->length);
    case 6: return cow_file_clone(image, op->other, op->other_offset, tree, op->ino, op->offset & ~4095ull, op->length);
    default: {
        cow_attr attr = {.size_bytes = op->offset};
        return cow_inode_set(tree, op->ino, &attr, COW_SET_SIZE);
    }
    }
}

static uint64_t file_size(cow_tree *tree, uint64_t ino)
{
    cow_attr attr;
    MUST(cow_inode_stat(tree, ino, &attr));
    return attr.size_bytes;
}

static struct operation any_operation(struct run *run)
{
    static const unsigned lengths[] = {1, 300, 1900, 1901, 4095, 4096, 5000, 20000, 100000, 1500000};
    struct operation op = {.kind = below(run, 8), .ino = 2 + below(run, FILES), .other = 2 + below(run, FILES)};
    op.offset = below(run, 4) ? below(run, 40) * 1024u : below(run, 200000);
    if (below(run, 12) == 0) op.offset += (uint64_t)1 << 40;
    op.length = lengths[below(run, 9 + (below(run, 8) == 0))];
    op.other_offset = below(run, 3) * 4096u;
    for (unsigned i = 0; i < 8; i++) op.blocks[i] = below(run, 2) && i ? op.blocks[i - 1] + 1 : below(run, 30);
    if (op.kind == 5 || op.kind == 6) {
        cow_tree *source = op.kind == 5 ? run->tree : run->image;
        uint64_t size = file_size(source, op.other);
        if (op.other_offset > size) op.other_offset = 0;
        if (below(run, 2) || size - op.other_offset < op.length) op.length = size - op.other_offset;
        else op.length &= ~4095ull;
    }
    return op;
}

/* Names, sizes and content of all files in one number. */
static uint64_t digest(cow_tree *tree)
{
    static uint8_t buffer[65536];
    uint64_t hash = size_of(tree);
    for (uint64_t ino = 2; ino < 2 + FILES; ino++) {
        cow_attr attr;
        MUST(cow_inode_stat(tree, ino, &attr));
        hash = (hash ^ attr.size_bytes) * 0x100000001B3u;
        int64_t n = cow_file_read(tree, ino, 0, buffer, sizeof buffer);
        MUST(n);
        for (int64_t i = 0; i < n; i++) hash = (hash ^ buffer[i]) * 0x100000001B3u;
    }
    return hash;
}

static void print_operation(const struct operation *op)
{
    fprintf(stderr, "operation %u: inode %" PRIu64 " offset %" PRIu64 " length %" PRIu64 " from %" PRIu64 " at %" PRIu64 "\n",
            op->kind, op->ino, op->offset, op->length, op->other, op->other_offset);
}

static void one_step(struct run *run)
{
    struct operation op = any_operation(run);
    cow_tree *twin;
    uint64_t before = size_of(run->tree);
    MUST(cow_tree_set_quota(run->tree, 0));
    MUST(cow_tree_fork(run->tree, 0, &twin));
    int64_t wanted = perform(&op, twin, run->image);
    uint64_t size = size_of(twin);
    static const int64_t around[] = {0, 0, -1, 1, -4096, 4096, -100000};
    uint64_t quota = (uint64_t)((int64_t)size + around[below(run, 7)]);
    if ((int64_t)quota <= 0) quota = 1;
    MUST(cow_tree_set_quota(run->tree, quota));
    uint64_t was = digest(run->tree);
    bool shrinks = (op.kind == 3 || op.kind == 7) && op.offset <= file_size(run->tree, op.ino);
    int64_t rc = perform(&op, run->tree, run->image);
    if (wanted >= 0 && size > quota && size > before && !shrinks) {
        CHECK_EQ(rc, -EDQUOT);
        CHECK_EQ(digest(run->tree), was);
        if (rc != -EDQUOT || digest(run->tree) != was) print_operation(&op);
        run->refused++;
    } else {
        CHECK_EQ(rc, wanted);
        if (rc != wanted) print_operation(&op);
        CHECK_EQ(digest(run->tree), digest(twin));
        run->done++;
    }
    MUST(cow_tree_delete(twin));
    cow_tree_close(twin);
    if (below(run, 20) == 0) MUST(cow_store_commit(run->store));
    if (below(run, 40) != 0) return;
    cow_tree *next;
    MUST(cow_tree_fork(run->tree, below(run, 2) ? COW_FORK_BASE : 0, &next));
    MUST(cow_tree_delete(run->tree));
    cow_tree_close(run->tree);
    run->tree = next;
}

static void random_run(uint64_t seed, unsigned steps)
{
    struct run run = {.random = seed};
    run.store = open_store();
    MUST(cow_tree_create(run.store, 0, &run.image));
    test_fill(bytes, sizeof bytes, seed);
    for (unsigned i = 0; i < FILES; i++) {
        char name[8];
        (void)snprintf(name, sizeof name, "f%u", i);
        uint64_t ino = must_make(run.image, COW_ROOT_INO, name, S_IFREG);
        CHECK_EQ(ino, 2 + i);
        if (i % 3) MUST(cow_file_write(run.image, ino, 0, bytes, i % 3 == 1 ? 30001 : 500));
    }
    MUST(cow_tree_fork(run.image, COW_FORK_BASE, &run.tree));
    unsigned failed = test_failed_checks;
    for (unsigned i = 0; i < steps && failed == test_failed_checks; i++) {
        one_step(&run);
        if (failed != test_failed_checks)
            fprintf(stderr, "step %u; replay: test_quota random %llu %u\n", i, (unsigned long long)seed, steps);
    }
    if (steps > 200) CHECK(run.refused > steps / 20 && run.done > steps / 20);
    MUST(cow_tree_set_quota(run.tree, 0));
    model_verify_counts(run.tree);
    cow_tree_close(run.tree);
    cow_tree_close(run.image);
    close_store(run.store);
}

static void test_random_operations(void)
{
    for (uint64_t seed = 1; seed <= 4; seed++) random_run(seed, 600);
}

/* What needs no quota works in a tree that is above it; what needs some does not, to the byte. */
static void test_edges(void)
{
    cow_store *store = open_store();
    cow_tree *tree;
    cow_tree_info info;
    uint64_t other;
    MUST(cow_tree_create(store, 0, &tree));
    uint64_t ino = must_make(tree, COW_ROOT_INO, "f", S_IFREG);
    MUST(cow_tree_set_quota(tree, 10000));
    CHECK_EQ(cow_file_write(tree, ino, 0, bytes, 10001), -EDQUOT);
    CHECK(strstr(cow_error_detail(), "10000") != NULL);
    CHECK_EQ(file_size(tree, ino), 0);
    CHECK_EQ(cow_file_write(tree, ino, 0, bytes, 10000), 10000);
    CHECK_EQ(cow_file_write(tree, ino, COW_APPEND, bytes, 1), -EDQUOT);
    CHECK_EQ(cow_file_write(tree, ino, 5000, bytes, 5000), 5000);
    CHECK_EQ(cow_file_truncate(tree, ino, 10001), -EDQUOT); /* its last block would weigh one more */
    MUST(cow_tree_set_quota(tree, 1));
    CHECK_EQ(cow_file_write(tree, ino, 0, bytes, 10000), 10000);
    CHECK_EQ(make(tree, COW_ROOT_INO, "g", S_IFREG, &other), 0);
    CHECK_EQ(cow_xattr_set(tree, other, "user.a", 6, "b", 1, 0), 0);
    CHECK_EQ(cow_file_write(tree, other, 0, "x", 1), -EDQUOT);
    CHECK_EQ(cow_file_truncate(tree, other, (uint64_t)1 << 50), 0); /* a hole weighs nothing */
    CHECK_EQ(cow_file_truncate(tree, ino, 9), 0);
    CHECK_EQ(size_of(tree), 9);
    CHECK_EQ(remove_path(tree, "/f", COW_REMOVE_FILE), 0);
    CHECK_EQ(cow_file_write(tree, other, 0, "x", 1), 1);
    CHECK_EQ(cow_file_write(tree, other, 1, "x", 1), -EDQUOT);
    MUST(cow_tree_get_info(tree, &info));
    CHECK_EQ(info.quota_bytes, 1);
    CHECK_EQ(cow_tree_set_quota(NULL, 1), -EINVAL);
    cow_tree_close(tree);
    close_store(store);
}

static uint64_t quota_of(cow_tree *tree)
{
    cow_tree_usage usage;
    MUST(cow_tree_get_usage(tree, &usage));
    return usage.quota_bytes;
}

static void test_inheritance(void)
{
    struct cow_dev *dev;
    cow_store *store;
    cow_tree *tree, *twin, *snapshot, *own;
    cow_options options = {.flags = COW_OPEN_CREATE};
    MUST(cow_dev_sim_open(&dev));
    cow_dev_sim_hold(dev); /* for the second store */
    MUST(cow_store_open_dev(dev, &options, &store));
    MUST(cow_tree_create(store, 0, &tree));
    MUST(cow_tree_set_quota(tree, 5000));
    MUST(cow_tree_fork(tree, 0, &twin));
    MUST(cow_tree_fork(tree, COW_FORK_SEALED, &snapshot));
    MUST(cow_tree_fork(tree, COW_FORK_BASE, &own));
    CHECK_EQ(quota_of(twin), 5000);
    CHECK_EQ(quota_of(snapshot), 5000);
    CHECK_EQ(quota_of(own), 0);
    CHECK_EQ(cow_tree_set_quota(snapshot, 1), -EROFS);
    MUST(cow_tree_set_quota(tree, 7000));
    MUST(cow_tree_reset(tree, snapshot));
    CHECK_EQ(quota_of(tree), 7000);
    MUST(cow_store_begin(store));
    MUST(cow_tree_set_quota(tree, 9000));
    MUST(cow_store_end(store, 0));
    CHECK_EQ(quota_of(tree), 7000);
    uint64_t id = tree->id, own_id = own->id;
    cow_tree *all[] = {tree, twin, snapshot, own};
    for (unsigned i = 0; i < 4; i++) cow_tree_close(all[i]);
    MUST(cow_store_close(store));
    MUST(cow_store_open_dev(dev, &options, &store));
    MUST(cow_tree_open(store, id, &tree));
    MUST(cow_tree_open(store, own_id, &own));
    CHECK_EQ(quota_of(tree), 7000);
    CHECK_EQ(quota_of(own), 0);
    cow_tree_close(tree);
    cow_tree_close(own);
    MUST(cow_tree_open(store, COW_TREE_CATALOG, &tree));
    CHECK_EQ(cow_tree_set_quota(tree, 1), -EINVAL);
    cow_tree_close(tree);
    close_store(store);
}

/* Threads that write into one tree never get it above its quota. */
struct writer {
    cow_tree *tree;
    uint64_t ino;
    uint64_t written;
};

static void *write_until_full(void *context)
{
    struct writer *writer = context;
    for (unsigned i = 0; i < 400; i++) {
        int64_t n = cow_file_write(writer->tree, writer->ino, COW_APPEND, bytes, 1000 + i);
        if (n == -EDQUOT) continue;
        CHECK_EQ(n, 1000 + i);
        writer->written += (uint64_t)n;
    }
    return NULL;
}

static void test_threads(void)
{
    cow_store *store = open_store();
    cow_tree *tree;
    struct writer writer[3];
    pthread_t thread[3];
    uint64_t total = 0;
    MUST(cow_tree_create(store, 0, &tree));
    MUST(cow_tree_set_quota(tree, 300000));
    for (unsigned i = 0; i < 3; i++) {
        char name[] = {(char)('a' + i), 0};
        writer[i] = (struct writer){tree, must_make(tree, COW_ROOT_INO, name, S_IFREG), 0};
        CHECK_EQ(pthread_create(&thread[i], NULL, write_until_full, &writer[i]), 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(thread[i], NULL);
        total += writer[i].written;
    }
    CHECK_EQ(size_of(tree), total);
    CHECK(total <= 300000 && total > 297000);
    cow_tree_close(tree);
    close_store(store);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "random") == 0) {
        random_run(strtoull(argv[2], NULL, 10), (unsigned)strtoul(argv[3], NULL, 10));
        return test_failed_checks != 0;
    }
    RUN(test_edges);
    RUN(test_inheritance);
    RUN(test_random_operations);
    RUN(test_threads);
    return TEST_RESULT();
}
