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
#include "fs_steps.h"

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
