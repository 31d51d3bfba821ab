/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A random run of several forked trees against a model (fs_model.h): names, content, clones between trees, files that
 * are open without a name, commits, differences, and a check of the store at the end. Then threads.
 *
 *   test_fs_model                      the runs of CI
 *   test_fs_model random SEED STEPS    one random run; a failure prints this line
 *   test_fs_model bench [NAMES]        times of a large directory and of writes, for people
 */
#include <time.h>

#include "fs_kit.h"
#include "fs_model.h"

#define TREES 4

struct run {
    cow_store *store;
    cow_tree *tree[TREES];
    struct model model[TREES];
    uint64_t random, seed, steps;
};

static unsigned below(struct run *run, unsigned n)
{
    return (unsigned)(test_random(&run->random) % n);
}

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

static void any_name(struct run *run, char *name)
{
    (void)snprintf(name, 12, "n%c%u", "a.-z"[below(run, 4)], below(run, 6));
}

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
    int wanted = how == COW_REMOVE_FILE  ? (is_dir ? -EISDIR : 0)
                 : how == COW_REMOVE_DIR ? (!is_dir                       ? -ENOTDIR
                                            : model_is_empty(model, node) ? 0
                                                                          : -ENOTEMPTY)
                                         : 0;
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
        for (unsigned n = 0; n < 16; n++)
            blocks[n] = below(run, 3) && n ? blocks[n - 1] + 1 : below(run, 40);
        CHECK_EQ(cow_file_write_blocks(tree, node->ino, blocks, 16, bytes), 0);
        for (unsigned n = 0; n < 16; n++)
            model_write(node, blocks[n] * 4096, bytes + (size_t)n * 4096, 4096);
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
    if (offset < node->size)
        memset(node->data + offset, 0, length < node->size - offset ? length : node->size - offset);
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
        for (; node->used && node->pins; node->pins--)
            CHECK_EQ(cow_inode_put(run->tree[t], node->ino), 0);
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
    while (!run->tree[t])
        t = (t + 1) % TREES;
    cow_tree *tree = run->tree[t];
    struct model *model = &run->model[t];
    switch (below(run, 32)) {
    case 0:
    case 1:
    case 2:
    case 3: step_make(run, tree, model); break;
    case 4:
    case 5: step_link(run, tree, model); break;
    case 6:
    case 7: step_remove(run, tree, model); break;
    case 8:
    case 9:
    case 10: step_rename(run, tree, model); break;
    case 11:
    case 12:
    case 13: step_shape(run, tree, model); break;
    case 14:
    case 15:
    case 16: step_clone(run, tree, model); break;
    case 17: step_pin(run, tree, model); break;
    case 18: step_trees(run, t); break;
    case 19:
        if (below(run, 3) == 0) MUST(cow_store_commit(run->store));
        break;
    case 20:
    case 21:
    case 22:
    case 23: step_read(run, tree, model); break;
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
            fprintf(stderr, "step %" PRIu64 "; replay: test_fs_model random %" PRIu64 " %" PRIu64 "\n", i, seed, steps);
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
    for (uint64_t seed = 1; seed <= 6; seed++)
        random_run(seed, 2500);
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
        if (make(tree, dir, name, S_IFREG, &ino) == -EEXIST)
            MUST(cow_dir_lookup(tree, dir, name, strlen(name), &ino, NULL));
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
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
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
    for (unsigned i = 0; i < 128; i++)
        MUST(cow_file_write(tree, ino, (uint64_t)i << 20, buffer, sizeof buffer));
    printf("write   %8.2f MB/s\n", 128 * 1.048576 / (seconds() - start));
    start = seconds();
    for (unsigned i = 0; i < 128; i++)
        MUST(cow_file_read(tree, ino, (uint64_t)i << 20, buffer, sizeof buffer));
    printf("read    %8.2f MB/s\n", 128 * 1.048576 / (seconds() - start));
    cow_tree *fork;
    MUST(cow_tree_fork(tree, COW_FORK_BASE, &fork));
    for (unsigned pass = 0; pass < 2; pass++) {
        start = seconds();
        for (unsigned i = 0; i < 100000; i++)
            MUST(cow_file_write(fork, ino, (i * 7919ull % 400) << 12, buffer, 4096));
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
    RUN(test_model);
    RUN(test_threads);
    return TEST_RESULT();
}
