/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Crash enumeration: a seeded workload of mixed operations runs on the simulated device; then the medium is rebuilt as it
 * may look after a power cut at each event (write, sync, creation, ...), in several ways each, and opened. It must check
 * clean and equal the last durable commit (or the one in flight, when its superblock made it).
 *
 *   test_crash                          the runs of CI
 *   test_crash WORKLOADS IMAGES         longer: seeds 1..WORKLOADS, IMAGES crash seeds an event
 *   test_crash replay SEED EVENT CRASH  one image again; a failure prints this line
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "crash_digest.h"
#include "dev/dev.h"

#define COMMITS_MAX 512u
#define TREES_MAX 12u

struct commit_point {
    uint64_t started, ended; /* events issued when the commit began and when it was durable */
    uint64_t digest;
};

struct workload {
    cow_store *store;
    struct cow_dev *sim;
    uint64_t random;
    cow_tree *trees[TREES_MAX];
    bool sealed[TREES_MAX];
    unsigned tree_count;
    struct commit_point commits[COMMITS_MAX];
    unsigned commit_count;
};

static const cow_options options = {.flags = COW_OPEN_CREATE, .record_cache_bytes = 1 << 20, .node_cache_bytes = 1 << 20};

#define MUST(expression) \
    do { \
        int64_t must_rc = (expression); \
        if (must_rc < 0) { \
            fprintf(stderr, "%s:%d: %s: %lld %s\n", __FILE__, __LINE__, #expression, (long long)must_rc, cow_error_detail()); \
            exit(1); \
        } \
    } while (0)

static uint64_t next_random(struct workload *w)
{
    w->random += 0x9E3779B97F4A7C15ull;
    uint64_t z = w->random;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

static unsigned below(struct workload *w, unsigned n) { return (unsigned)(next_random(w) % n); }

/* What a request may answer without being wrong: names clash and vanish at random. */
static void may_fail(int64_t rc)
{
    static const int fine[] = {0, ENOENT, EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, EINVAL, EROFS, ENXIO, ENODATA};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
        if (rc == -fine[i]) return;
    if (rc > 0) return;
    fprintf(stderr, "unexpected error %lld: %s\n", (long long)rc, cow_error_detail());
    exit(1);
}

static void start(struct workload *w, uint64_t seed)
{
    *w = (struct workload){.random = seed * 7919};
    MUST(cow_dev_sim_open(&w->sim));
    w->sim->fixed_seed = 1; /* replay needs the same layout each time */
    MUST(cow_store_open_dev(w->sim, &options, &w->store));
}

static void record_commit(struct workload *w)
{
    if (w->commit_count == COMMITS_MAX) return;
    struct commit_point *point = &w->commits[w->commit_count];
    point->started = cow_dev_sim_events(w->sim);
    MUST(cow_store_commit(w->store));
    point->ended = cow_dev_sim_events(w->sim);
    MUST(digest_store(w->store, &point->digest));
    w->commit_count++;
}

static void name_of(struct workload *w, char *name) { sprintf(name, "n%u", below(w, 24)); }

static uint64_t some_dir(struct workload *w, cow_tree *tree)
{
    uint64_t ino = COW_ROOT_INO;
    char name[16];
    for (unsigned i = below(w, 3); i > 0; i--) {
        cow_attr attr;
        uint64_t child;
        name_of(w, name);
        if (cow_dir_lookup(tree, ino, name, strlen(name), &child, &attr) == 0 && S_ISDIR(attr.mode)) ino = child;
    }
    return ino;
}

static void write_some(struct workload *w, cow_tree *tree, uint64_t ino)
{
    static uint8_t bytes[300000];
    static const unsigned sizes[] = {5, 700, 4096, 9000, 70000, 300000};
    unsigned length = sizes[below(w, 6)];
    memset(bytes, (int)below(w, 256), length);
    bytes[below(w, length)] = 1;
    uint64_t offset = below(w, 2) ? (uint64_t)below(w, 60) * 4096 : below(w, 100000);
    may_fail(cow_file_write(tree, ino, below(w, 5) ? offset : COW_APPEND, bytes, length));
}

static void file_operation(struct workload *w, cow_tree *tree)
{
    char name[16];
    uint64_t dir = some_dir(w, tree), ino;
    cow_attr attr;
    name_of(w, name);
    if (cow_dir_lookup(tree, dir, name, strlen(name), &ino, &attr) || !S_ISREG(attr.mode)) return;
    switch (below(w, 8)) {
    case 0: may_fail(cow_file_truncate(tree, ino, below(w, 300000))); break;
    case 1: may_fail(cow_file_punch(tree, ino, below(w, 100000), below(w, 100000))); break;
    case 2: {
        cow_tree *other = w->trees[below(w, w->tree_count)];
        uint64_t source;
        cow_attr source_attr;
        name_of(w, name);
        if (cow_dir_lookup(other, COW_ROOT_INO, name, strlen(name), &source, &source_attr) || !S_ISREG(source_attr.mode)) break;
        may_fail(cow_file_clone(other, source, 0, tree, ino, (uint64_t)below(w, 8) * 4096, 4096ull * (1 + below(w, 16))));
        break;
    }
    case 3: {
        attr.mode = 0600 + below(w, 64);
        may_fail(cow_inode_set(tree, ino, &attr, COW_SET_MODE));
        break;
    }
    case 4: may_fail(cow_xattr_set(tree, ino, "user.x", 6, name, below(w, 4), 0)); break;
    default: write_some(w, tree, ino); break;
    }
}

static void name_operation(struct workload *w, cow_tree *tree)
{
    char name[16], other[16];
    uint64_t dir = some_dir(w, tree), dir2 = some_dir(w, tree), ino;
    name_of(w, name);
    name_of(w, other);
    cow_attr attr = {.mode = S_IFREG | 0644};
    switch (below(w, 10)) {
    case 0: attr.mode = S_IFDIR | 0755; /* fall through */
    case 1:
    case 2:
    case 3: {
        int rc = cow_dir_make(tree, dir, name, strlen(name), &attr, NULL, 0, &ino);
        may_fail(rc);
        if (rc == 0 && S_ISREG(attr.mode)) write_some(w, tree, ino);
        break;
    }
    case 4: may_fail(cow_dir_remove(tree, dir, name, strlen(name), COW_REMOVE_FILE)); break;
    case 5: may_fail(cow_dir_remove(tree, dir, name, strlen(name), below(w, 2) ? COW_REMOVE_DIR : COW_REMOVE_TREE)); break;
    case 6: {
        attr.mode = S_IFLNK | 0777;
        may_fail(cow_dir_make(tree, dir, name, strlen(name), &attr, other, strlen(other), &ino));
        break;
    }
    case 7:
        if (cow_dir_lookup(tree, dir2, other, strlen(other), &ino, &attr) == 0 && !S_ISDIR(attr.mode))
            may_fail(cow_dir_link(tree, dir, name, strlen(name), ino));
        break;
    default:
        may_fail(cow_dir_rename(tree, dir, name, strlen(name), dir2, other, strlen(other), below(w, 4) ? 0 : COW_RENAME_EXCHANGE));
        break;
    }
}

static void drop_tree(struct workload *w, unsigned i)
{
    MUST(cow_tree_delete(w->trees[i]));
    cow_tree_close(w->trees[i]);
    w->tree_count--;
    w->trees[i] = w->trees[w->tree_count];
    w->sealed[i] = w->sealed[w->tree_count];
}

static void add_tree_handle(struct workload *w, cow_tree *tree, bool sealed)
{
    w->trees[w->tree_count] = tree;
    w->sealed[w->tree_count++] = sealed;
}

static void tree_operation(struct workload *w)
{
    cow_tree *tree;
    if (w->tree_count == 0) {
        MUST(cow_tree_create(w->store, 0, &tree));
        add_tree_handle(w, tree, false);
        return;
    }
    unsigned i = below(w, w->tree_count), j = below(w, w->tree_count);
    switch (below(w, 6)) {
    case 0:
        if (w->tree_count > 2) drop_tree(w, i);
        break;
    case 1:
        if (!w->sealed[i]) MUST(cow_tree_reset(w->trees[i], w->trees[j]));
        break;
    case 2:
        if (w->tree_count > 3 && i == 0) {
            MUST(cow_tree_seal(w->trees[i]));
            w->sealed[i] = true;
        }
        break;
    default:
        if (w->tree_count < TREES_MAX) {
            bool sealed = below(w, 3) == 0;
            uint32_t flags = (sealed ? COW_FORK_SEALED : 0) | (below(w, 2) ? COW_FORK_BASE : 0);
            MUST(cow_tree_fork(w->trees[i], flags, &tree));
            add_tree_handle(w, tree, sealed);
        }
        break;
    }
}

static void transaction(struct workload *w)
{
    MUST(cow_store_begin(w->store));
    bool keep = below(w, 2);
    uint64_t before = 0, after = 0;
    if (!keep) MUST(digest_store(w->store, &before));
    for (unsigned i = below(w, 6); i > 0; i--) {
        cow_tree *tree = w->trees[below(w, w->tree_count)];
        if (below(w, 2)) name_operation(w, tree);
        else file_operation(w, tree);
    }
    MUST(cow_store_end(w->store, keep));
    if (keep) return;
    MUST(digest_store(w->store, &after));
    if (before != after) {
        fprintf(stderr, "an aborted transaction left changes\n");
        exit(1);
    }
}

static void run(struct workload *w, unsigned steps)
{
    tree_operation(w);
    for (unsigned i = 0; i < steps; i++) {
        unsigned what = below(w, 40);
        cow_tree *tree = w->trees[below(w, w->tree_count)];
        if (what < 3) tree_operation(w);
        else if (what < 5) record_commit(w);
        else if (what < 6) transaction(w);
        else if (what < 22) name_operation(w, tree);
        else file_operation(w, tree);
    }
    record_commit(w);
}

static void stop(struct workload *w)
{
    while (w->tree_count > 0) cow_tree_close(w->trees[--w->tree_count]);
    MUST(cow_store_close(w->store));
}

static void print_problem(void *context, const char *text)
{
    (void)context;
    fprintf(stderr, "  check: %s\n", text);
}

/* 0 = as it must be. */
static int verify(struct workload *w, struct cow_dev *image, uint64_t event)
{
    unsigned durable = 0; /* commits that were acknowledged before the cut */
    while (durable < w->commit_count && w->commits[durable].ended <= event) durable++;
    cow_store *store;
    int rc = cow_store_open_dev(image, &options, &store);
    if (rc) {
        fprintf(stderr, "  open: %d %s\n", rc, cow_error_detail());
        return 1;
    }
    cow_check_report report;
    uint64_t digest = 0;
    rc = cow_store_check(store, 1, print_problem, NULL, &report);
    int bad = rc != 0 || report.errors != 0;
    if (rc) fprintf(stderr, "  check: %d %s\n", rc, cow_error_detail());
    if (!bad && w->commit_count > 0) {
        rc = digest_store(store, &digest);
        bool last = durable > 0 && digest == w->commits[durable - 1].digest;
        bool flying = durable < w->commit_count && event > w->commits[durable].started && digest == w->commits[durable].digest;
        bool nothing_yet = durable == 0; /* the empty store; its content is checked by check alone */
        bad = rc != 0 || !(last || flying || nothing_yet);
        if (bad) fprintf(stderr, "  content: %d, digest %llx, %u commits durable\n", rc, (unsigned long long)digest, durable);
    }
    /* It must also go on from there. */
    if (!bad) {
        cow_tree *tree;
        rc = cow_tree_create(store, 0, &tree);
        if (!rc) {
            rc = cow_tree_delete(tree);
            cow_tree_close(tree);
        }
        if (!rc) rc = cow_store_commit(store);
        if (!rc) rc = cow_store_check(store, 1, print_problem, NULL, &report);
        bad = rc != 0 || report.errors != 0;
        if (bad) fprintf(stderr, "  going on: %d %s\n", rc, cow_error_detail());
    }
    rc = cow_store_close(store);
    return bad || rc;
}

static int one_image(struct workload *w, uint64_t seed, uint64_t event, uint64_t crash)
{
    struct cow_dev *image;
    MUST(cow_dev_sim_crash(w->sim, event, crash, &image));
    if (verify(w, image, event) == 0) return 0;
    fprintf(stderr, "FAILED: test_crash replay %llu %llu %llu\n", (unsigned long long)seed, (unsigned long long)event,
            (unsigned long long)crash);
    return 1;
}

/* The log must outlive the store: the simulated device is destroyed with it, so images are made before stop. */
static unsigned enumerate(uint64_t seed, unsigned steps, uint64_t images, uint64_t stride, unsigned *tried)
{
    static struct workload w;
    start(&w, seed);
    run(&w, steps);
    unsigned failures = 0;
    uint64_t events = cow_dev_sim_events(w.sim);
    for (uint64_t event = seed % stride; event <= events && failures < 5; event += stride) {
        for (uint64_t crash = 0; crash < images; crash++, (*tried)++) failures += (unsigned)one_image(&w, seed, event, crash);
    }
    stop(&w);
    return failures;
}

#define STEPS 500u

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "replay") == 0) {
        static struct workload w;
        start(&w, strtoull(argv[2], NULL, 10));
        run(&w, STEPS);
        int failed = one_image(&w, strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
        stop(&w);
        return failed;
    }
    uint64_t workloads = argc > 1 ? strtoull(argv[1], NULL, 10) : 6, images = argc > 2 ? strtoull(argv[2], NULL, 10) : 4;
    uint64_t stride = argc > 2 ? 1 : 5;
    unsigned failures = 0, tried = 0;
    for (uint64_t seed = 1; seed <= workloads && failures < 5; seed++) failures += enumerate(seed, STEPS, images, stride, &tried);
    printf("crash: %u images, %u failed\n", tried, failures);
    return failures != 0;
}
