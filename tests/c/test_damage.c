/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a damaged medium does. A store is made, its medium taken as bytes, and then each trial does one piece of damage to
 * a copy (a bit flipped, a block zeroed, swapped with another, or put back to what an earlier commit had there; a file cut
 * short or removed), opens it and reads all that is known. Allowed: the right bytes, or -EUCLEAN. Wrong bytes, other errors,
 * names that are missing without an error, a hang or a crash are failures. Then it is repaired: the store must be sound and
 * writable again, and still no byte may be wrong.
 *
 * A failure prints "kind place seed" and `test_damage kind place seed` runs that trial alone. Usage: test_damage [trials]
 */
#include "damage_kit.h"
#include "fs_kit.h"

#include <stdlib.h>
#include <unistd.h>

enum kind { FLIP, ZERO, SWAP, STALE, CUT, REMOVE, KINDS };
static const char *const kind_names[KINDS] = {"flip", "zero", "swap", "stale", "cut", "remove"};

static struct image now, before;
static struct knowledge known;
static uint64_t trials, opened, refused, harmed, repaired_count, hopeless;

/* ---- The store ---- */

static void write_file(cow_tree *tree, uint64_t dir, const char *name, size_t bytes, uint64_t seed)
{
    uint8_t *buffer = malloc(bytes + 1);
    if (!buffer) exit(1);
    test_fill(buffer, bytes, seed);
    uint64_t ino = must_make(tree, dir, name, S_IFREG | 0644);
    if (bytes) MUST(cow_file_write(tree, ino, 0, buffer, bytes));
    free(buffer);
}

static void fill_tree(cow_tree *tree, unsigned dirs, uint64_t seed)
{
    static const size_t sizes[] = {0, 40, 1900, 1901, 4096, 5000, 20000, 150000};
    for (unsigned d = 0; d < dirs; d++) {
        char name[64];
        (void)snprintf(name, sizeof name, "dir%u", d);
        uint64_t dir = must_make(tree, COW_ROOT_INO, name, S_IFDIR | 0755);
        for (unsigned f = 0; f < 14; f++) {
            (void)snprintf(name, sizeof name, "a file with a name of some length %u", f);
            write_file(tree, dir, name, sizes[f % 8], test_random(&seed));
        }
        uint64_t link = must_link(tree, dir, "link", "a file with a name of some length 3");
        MUST(cow_xattr_set(tree, link, "user.what", 9, "a symlink", 9, 0));
        MUST(cow_dir_link(tree, COW_ROOT_INO, (const char[2]){(char)('a' + (int)d), 0}, 1, link));
    }
    uint64_t sparse = must_make(tree, COW_ROOT_INO, "sparse", S_IFREG | 0600);
    for (uint64_t block = 0; block < 300; block += 3) MUST(cow_file_write(tree, sparse, block * 4096, "some bytes", 10));
}

static void build(void)
{
    struct cow_dev *dev;
    cow_store *store;
    cow_tree *image, *twin, *other, *catalog;
    cow_options options = {.flags = COW_OPEN_CREATE};
    struct cow_tuning tuning = {.journal_pages = 6};
    MUST(cow_dev_sim_open(&dev));
    dev->fixed_seed = 7;
    cow_dev_sim_hold(dev);
    MUST(cow_store_open_dev(dev, &options, &store));
    cow_store_tune(store, &tuning);
    MUST(cow_tree_open(store, COW_TREE_CATALOG, &catalog));
    write_file(catalog, COW_ROOT_INO, "names", 3000, 1);
    MUST(cow_tree_create(store, 0, &image));
    fill_tree(image, 5, 11);
    MUST(cow_store_commit(store));
    MUST(cow_tree_fork(image, COW_FORK_BASE, &twin));
    MUST(remove_path(twin, "/dir1", COW_REMOVE_TREE));
    MUST(cow_store_commit(store));
    image_take(&before, dev);
    MUST(cow_tree_seal(image));
    write_file(twin, COW_ROOT_INO, "new", 60000, 12);
    MUST(cow_store_commit(store));
    MUST(cow_tree_fork(twin, COW_FORK_SEALED, &other));
    MUST(cow_store_commit(store));
    write_file(twin, COW_ROOT_INO, "newer", 9000, 13);
    cow_tree_close(other);
    MUST(cow_tree_create(store, 0, &other));
    fill_tree(other, 1, 14);
    MUST(cow_store_commit(store));
    MUST(remove_path(twin, "/new", COW_REMOVE_FILE));
    knowledge_take(&known, store);
    cow_tree_close(catalog);
    cow_tree_close(image);
    cow_tree_close(twin);
    cow_tree_close(other);
    MUST(cow_store_close(store));
    image_take(&now, dev);
    cow_dev_destroy(dev);
}

/* ---- Damage ---- */

static size_t blocks_of(const struct image_file *file) { return file->length / COW_BLOCK_BYTES; }

/* The place as a file and a block that is not all zeros (those are mostly not in use). */
static const struct image_file *choose(unsigned place, uint64_t *seed, size_t *block_out)
{
    const struct image_file *file = &now.files[place % now.count];
    *block_out = 0;
    for (unsigned tries = 0; tries < 64 && blocks_of(file) > 0; tries++) {
        *block_out = test_random(seed) % blocks_of(file);
        if (!is_zero(file->bytes + *block_out * COW_BLOCK_BYTES, COW_BLOCK_BYTES)) break;
    }
    return file;
}

/* The altered file; length SIZE_MAX: it is removed. Says what was done. NULL bytes: nothing to damage there. */
static struct image_file damage(enum kind kind, unsigned place, uint64_t seed, char what[120])
{
    size_t block;
    const struct image_file *file = choose(place, &seed, &block);
    struct image_file altered = *file;
    altered.bytes = NULL;
    if (blocks_of(file) == 0 && kind != REMOVE) return altered;
    altered.bytes = malloc(file->length + 1);
    if (!altered.bytes) exit(1);
    memcpy(altered.bytes, file->bytes, file->length);
    uint8_t *at = altered.bytes + block * COW_BLOCK_BYTES;
    if (kind == FLIP) {
        size_t bit = test_random(&seed) % (COW_BLOCK_BYTES * 8);
        at[bit / 8] = (uint8_t)(at[bit / 8] ^ 1u << (bit % 8));
    } else if (kind == ZERO) {
        memset(at, 0, COW_BLOCK_BYTES);
    } else if (kind == SWAP) {
        size_t other = test_random(&seed) % blocks_of(file);
        memcpy(at, file->bytes + other * COW_BLOCK_BYTES, COW_BLOCK_BYTES);
        memcpy(altered.bytes + other * COW_BLOCK_BYTES, file->bytes + block * COW_BLOCK_BYTES, COW_BLOCK_BYTES);
    } else if (kind == STALE) {
        const struct image_file *old = image_find(&before, file->name);
        if (old && block < blocks_of(old)) memcpy(at, old->bytes + block * COW_BLOCK_BYTES, COW_BLOCK_BYTES);
    } else if (kind == CUT) {
        altered.length = test_random(&seed) % file->length;
    } else {
        altered.length = SIZE_MAX;
    }
    (void)snprintf(what, 120, "%s of %s block %zu", kind_names[kind], file->name, block);
    return altered;
}

static void fail(enum kind kind, unsigned place, uint64_t seed, const char *what, const char *why)
{
    char text[600];
    (void)snprintf(text, sizeof text, "test_damage %d %u %" PRIu64 ": %s: %s", (int)kind, place, seed, what, why);
    test_report(__FILE__, __LINE__, text);
}

/* ---- Trials ---- */

static struct cow_dev *device_of(const struct image_file *altered, bool simulated)
{
    struct cow_dev *dev;
    MUST(simulated ? cow_dev_sim_open(&dev) : cow_dev_memory_open(&dev));
    bool removed = altered->length == SIZE_MAX;
    image_put(&now, removed ? NULL : altered, removed ? altered->name : NULL, dev);
    if (simulated) cow_dev_sim_hold(dev);
    return dev;
}

static bool expected_refusal(int rc, enum kind kind, const char *what)
{
    if (rc == -EUCLEAN) return true;
    if (rc == -EPROTONOSUPPORT && kind == FLIP) return true; /* the version was hit */
    return rc == -ENOENT && kind >= CUT && strstr(what, "meta") != NULL; /* no store there any more */
}

static void judge(enum kind kind, unsigned place, uint64_t seed, const char *what, const struct verdict *verdict,
                  bool may_miss)
{
    if (verdict->wrong || verdict->other_error || (verdict->missing && !may_miss))
        fail(kind, place, seed, what, verdict->first);
}

/* What a superblock that is put back or lost shows is an earlier commit, not today's. */
static bool shows_the_past(const struct image_file *altered, const char *what, cow_store *store)
{
    (void)altered, (void)what;
    cow_stats stats;
    MUST(cow_store_stats(store, &stats));
    static uint64_t generation;
    if (generation == 0) generation = cow_load64(now.files[2].bytes + 24) > cow_load64(now.files[2].bytes + 4096 + 24)
                                          ? cow_load64(now.files[2].bytes + 24)
                                          : cow_load64(now.files[2].bytes + 4096 + 24);
    return stats.generation < generation;
}

static void read_trial(enum kind kind, unsigned place, uint64_t seed, const struct image_file *altered, const char *what)
{
    cow_store *store;
    struct verdict verdict;
    cow_options options = {.flags = seed % 8 == 1 ? COW_OPEN_READONLY : 0};
    int rc = cow_store_open_dev(device_of(altered, false), &options, &store);
    if (rc) {
        refused++;
        if (!expected_refusal(rc, kind, what)) fail(kind, place, seed, what, "opening it gives another error");
        return;
    }
    opened++;
    if (!shows_the_past(altered, what, store)) {
        knowledge_compare(&known, store, &verdict);
        judge(kind, place, seed, what, &verdict, false);
        harmed += verdict.damaged != 0;
        bool in_data = strncmp(altered->name, "segments/", 9) == 0;
        if (in_data && kind <= SWAP && verdict.bad_blocks > 2 * 4) fail(kind, place, seed, what, "more than its own blocks fail");
    }
    cow_check_report report;
    rc = cow_store_check(store, 1, NULL, NULL, &report);
    if (rc && rc != -EUCLEAN && rc != -EIO) fail(kind, place, seed, what, "check gives another error");
    cow_store_abandon(store);
}

struct kinds {
    unsigned count[16];
    char first[400];
};

static void tell(void *context, const cow_finding *finding)
{
    struct kinds *kinds = context;
    kinds->count[finding->kind % 16]++;
    if (finding->kind == COW_FOUND_DATA || kinds->first[0]) return;
    (void)snprintf(kinds->first, sizeof kinds->first, "kind %u: %s", finding->kind, finding->text);
}

static void use_repaired(cow_store *store)
{
    cow_tree *tree;
    uint8_t bytes[20000];
    test_fill(bytes, sizeof bytes, 99);
    MUST(cow_tree_create(store, 0, &tree));
    uint64_t ino = must_make(tree, COW_ROOT_INO, "after", S_IFREG | 0644);
    for (unsigned i = 0; i < 20; i++) MUST(cow_file_write(tree, ino, i * sizeof bytes, bytes, sizeof bytes));
    MUST(cow_store_commit(store));
    MUST(cow_tree_delete(tree));
    cow_tree_close(tree);
    MUST(cow_store_commit(store));
}

static void repair_trial(enum kind kind, unsigned place, uint64_t seed, const struct image_file *altered, const char *what)
{
    struct cow_dev *dev = device_of(altered, true);
    cow_repair_report report;
    struct kinds kinds = {{0}, ""}, after = {{0}, ""};
    int rc = cow_store_repair_dev(dev, NULL, tell, &kinds, &report);
    if (rc) {
        hopeless++;
        if (!expected_refusal(rc, kind, what)) fail(kind, place, seed, what, "repair gives another error");
        cow_dev_destroy(dev);
        return;
    }
    cow_store *store;
    cow_options options = {0};
    struct verdict verdict;
    rc = cow_store_open_dev(dev, &options, &store);
    if (rc) {
        fail(kind, place, seed, what, "a repaired store does not open");
        return;
    }
    cow_dev_sim_hold(dev);
    repaired_count++;
    bool past = kinds.count[COW_FOUND_SUPER] != 0;
    if (!past) {
        knowledge_compare(&known, store, &verdict);
        judge(kind, place, seed, what, &verdict, report.lost != 0);
    }
    use_repaired(store);
    cow_check_report check;
    rc = cow_store_examine(store, COW_CHECK_DATA, tell, &after, &check);
    if (rc || check.errors != after.count[COW_FOUND_DATA]) fail(kind, place, seed, what, after.first);
    MUST(cow_store_close(store));
    cow_dev_destroy(dev);
}

static void trial(enum kind kind, unsigned place, uint64_t seed)
{
    char what[120];
    struct image_file altered = damage(kind, place, seed, what);
    if (!altered.bytes) return;
    trials++;
    if (getenv("DAMAGE_VERBOSE")) fprintf(stderr, "%d %u %" PRIu64 ": %s\n", (int)kind, place, seed, what);
    read_trial(kind, place, seed, &altered, what);
    if (seed % 4 == 0) repair_trial(kind, place, seed, &altered, what);
    free(altered.bytes);
}

static uint64_t trial_count = 3000;

static void damage_and_repair(void)
{
    for (uint64_t i = 0; i < trial_count; i++) {
        enum kind kind = i % 10 < 5 ? FLIP : (enum kind)(i % 10 - 4);
        trial(kind, (unsigned)(i / 10), i * 2654435761u + i / 7);
        if (test_failed_checks > 20) break;
    }
    printf("%" PRIu64 " trials: %" PRIu64 " opened, %" PRIu64 " refused, %" PRIu64 " with unreadable files; %" PRIu64
           " repaired, %" PRIu64 " beyond repair\n", trials, opened, refused, harmed, repaired_count, hopeless);
}

static enum kind one_kind;
static unsigned one_place;
static uint64_t one_seed;

static void one_trial(void) { trial(one_kind, one_place, one_seed); }

int main(int argc, char **argv)
{
    build();
    if (argc == 4) {
        one_kind = (enum kind)(atoi(argv[1]) % KINDS);
        one_place = (unsigned)strtoul(argv[2], NULL, 10);
        one_seed = strtoull(argv[3], NULL, 10);
        RUN(one_trial);
    } else {
        if (argc > 1) trial_count = strtoull(argv[1], NULL, 10);
        RUN(damage_and_repair);
    }
    image_free(&now);
    image_free(&before);
    knowledge_free(&known);
    return TEST_RESULT();
}
