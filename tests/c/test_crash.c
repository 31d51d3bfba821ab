/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Crash enumeration: a seeded workload (work.h) runs on the simulated device, through several processes: some end well,
 * most are killed at some operation of the medium, and the next one goes on with what the host's cache holds. Then the
 * medium is rebuilt as it may look after a power cut at each event (write, sync, creation, ...), in several ways each, and
 * opened. It must check clean, equal the last durable commit (or the one in flight, when its superblock made it), and go
 * on from there. For some images the power fails again while they recover: images of images.
 *
 *   test_crash                                         the runs of CI
 *   test_crash WORKLOADS IMAGES [FIRST]                longer: seeds from FIRST (1), IMAGES crash seeds an event
 *   test_crash replay SEED EVENT CRASH [EVENT CRASH]   one image again (or its image); a failure prints this line
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash_digest.h"
#include "work.h"

#define STEPS 70u       /* operations of one process */
#define FAILURES_MAX 5u

struct tally {
    uint64_t images, again, failures; /* images, images of images, of both that failed */
    uint64_t kills, landed;           /* processes killed; of them: the commit they were in was in the cache */
};

static const cow_options image_options = {.flags = COW_OPEN_CREATE};
static const struct cow_tuning image_tuning = {.journal_pages = 24, .release_at_once = 1};

/* ---- The workload ---- */

/* Runs until the medium takes no more, at the nth operation of a kind, and opens again. */
static void killed_run(struct work *w, unsigned mask, uint64_t nth, struct tally *tally)
{
    w->fault = EIO;
    cow_dev_sim_fail(w->sim, mask, nth, EIO, true);
    work_run(w, STEPS);
    cow_dev_sim_fail(w->sim, mask, UINT64_MAX, 0, false);
    w->fault = 0;
    (void)work_close(w, true);
    uint64_t flying = w->flying.ended ? w->flying.digest : 0;
    WORK_MUST(work_reopen(w));
    tally->kills++;
    tally->landed += flying != 0 && w->commits[w->commit_count - 1].digest == flying;
}

static void run_processes(struct work *w, uint64_t seed, struct tally *tally)
{
    work_init(w, seed);
    work_run(w, 2 * STEPS);
    for (unsigned i = 0; i < 6; i++) killed_run(w, COW_DEV_SIM_SYNC, work_random(w) % 12, tally);
    WORK_MUST(work_close(w, false));
    WORK_MUST(work_reopen(w));
    for (unsigned i = 0; i < 3; i++)
        killed_run(w, COW_DEV_SIM_WRITE | COW_DEV_SIM_SYNC | COW_DEV_SIM_OTHER, work_random(w) % 150, tally);
    work_run(w, STEPS);
}

/* ---- One image ---- */

static int go_on(cow_store *store)
{
    cow_tree *tree;
    int rc = cow_tree_create(store, 0, &tree);
    if (rc) return rc;
    cow_attr attr = {.mode = 0100644};
    uint64_t ino;
    rc = cow_dir_make(tree, COW_ROOT_INO, "f", 1, &attr, NULL, 0, &ino);
    if (!rc) rc = cow_file_write(tree, ino, 0, &image_options, sizeof image_options) < 0 ? -EIO : 0;
    if (!rc) rc = cow_store_commit(store);
    if (!rc) rc = cow_tree_delete(tree);
    cow_tree_close(tree);
    return rc ? rc : cow_store_commit(store);
}

/* Imports that were cut off are gone. */
static bool no_temporaries(cow_store *store)
{
    for (uint64_t id = COW_TREE_CATALOG; id < store->next_tree; id++) {
        cow_tree *tree;
        cow_tree_info info;
        if (cow_tree_open(store, id, &tree)) continue;
        WORK_MUST(cow_tree_get_info(tree, &info));
        cow_tree_close(tree);
        if (!info.temp) continue;
        fprintf(stderr, "  tree %llu is temporary and still there\n", (unsigned long long)id);
        return false;
    }
    return true;
}

/* Opens, checks, compares, goes on. The digest that was found, or a failure. Takes the image. */
static int verify(const struct work *w, struct cow_dev *image, uint64_t event, bool whole, uint64_t *digest_out)
{
    cow_store *store;
    int rc = cow_store_open_dev(image, &image_options, &store);
    if (rc) {
        fprintf(stderr, "  open: %d %s\n", rc, cow_error_detail());
        return 1;
    }
    cow_store_tune(store, &image_tuning);
    bool bad = !no_temporaries(store) || work_check(store) != 0;
    if (!bad) {
        rc = digest_store(store, digest_out);
        bad = rc != 0 || !work_may_show(w, event, *digest_out);
        if (bad) fprintf(stderr, "  content: %d, digest %llx\n", rc, (unsigned long long)*digest_out);
    }
    if (!bad && whole) {
        rc = go_on(store);
        if (rc) fprintf(stderr, "  going on: %d %s\n", rc, cow_error_detail());
        bad = rc != 0 || work_check(store) != 0;
    }
    rc = cow_store_close(store);
    return bad || rc;
}

/* ---- Images of images ---- */

static void copy_file(struct cow_dev *from, struct cow_dev *to, const char *name)
{
    static uint8_t piece[1 << 20];
    struct cow_dev_file *source, *target;
    uint64_t bytes;
    WORK_MUST(cow_dev_open(from, name, 0, &source));
    WORK_MUST(from->ops->size(source, &bytes));
    WORK_MUST(cow_dev_open(to, name, COW_DEV_CREATE, &target));
    for (uint64_t at = 0; at < bytes;) {
        int64_t n = cow_dev_read(source, at, piece, sizeof piece);
        WORK_MUST(n);
        WORK_MUST(cow_dev_write(target, at, piece, (size_t)n));
        at += (uint64_t)n;
    }
    WORK_MUST(cow_dev_sync(target));
    cow_dev_close(target);
    cow_dev_close(source);
}

struct copying {
    struct cow_dev *from, *to;
    const char *folder;
};

static void copy_one(void *context, const char *name)
{
    const struct copying *copying = context;
    char path[300];
    (void)snprintf(path, sizeof path, "%s%s%s", copying->folder, *copying->folder ? "/" : "", name);
    copy_file(copying->from, copying->to, path);
}

/* A simulated device on which all of the image is durable. Folders that the image lacks stay away. */
static struct cow_dev *simulate(struct cow_dev *image)
{
    static const char *const folders[] = {"", "segments", "space"};
    struct cow_dev *sim;
    WORK_MUST(cow_dev_sim_open(&sim));
    sim->fixed_seed = image->fixed_seed;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        struct copying copying = {image, sim, folders[i]};
        if (image->ops->sync_dir(image, folders[i]) == -ENOENT) continue;
        if (*folders[i]) WORK_MUST(sim->ops->make_dir(sim, folders[i]));
        WORK_MUST(image->ops->list(image, folders[i], copy_one, &copying));
        WORK_MUST(sim->ops->sync_dir(sim, folders[i]));
    }
    WORK_MUST(sim->ops->sync_dir(sim, ""));
    return sim;
}

static struct cow_dev *image_of(struct cow_dev *sim, uint64_t event, uint64_t crash)
{
    struct cow_dev *image;
    WORK_MUST(cow_dev_sim_crash(sim, event, crash, &image));
    return image;
}

/* Recovers the image on a simulated device of its own, which is returned: a log of the recovery and of going on. */
static struct cow_dev *recover(const struct work *w, uint64_t event, uint64_t crash, uint64_t *first_out, uint64_t *last_out,
                               uint64_t *digest_out)
{
    struct cow_dev *image = image_of(w->sim, event, crash), *sim = simulate(image);
    cow_store *store;
    cow_dev_destroy(image);
    *first_out = cow_dev_sim_events(sim);
    cow_dev_sim_hold(sim);
    WORK_MUST(cow_store_open_dev(sim, &image_options, &store));
    cow_store_tune(store, &image_tuning);
    WORK_MUST(digest_store(store, digest_out));
    WORK_MUST(cow_store_commit(store)); /* what opening did: temporary trees dropped, releases */
    *last_out = cow_dev_sim_events(sim);
    cow_store_abandon(store);
    return sim;
}

static int one_again(const struct work *w, struct cow_dev *sim, uint64_t event, uint64_t digest, uint64_t event2, uint64_t crash2)
{
    uint64_t found = 0;
    int bad = verify(w, image_of(sim, event2, crash2), event, true, &found);
    if (bad || found == digest) return bad;
    if (!work_promised(w, event)) return 0; /* the catalog is made anew each time, at another time */
    fprintf(stderr, "  content: a crash of the recovery shows digest %llx\n", (unsigned long long)found);
    return 1;
}

static void crash_recovery(const struct work *w, uint64_t seed, uint64_t event, uint64_t crash, struct tally *tally)
{
    uint64_t first, last, digest;
    struct cow_dev *sim = recover(w, event, crash, &first, &last, &digest);
    for (uint64_t event2 = first; event2 <= last && tally->failures < FAILURES_MAX; event2++) {
        uint64_t crash2 = (event + event2) % 7;
        tally->again++;
        if (one_again(w, sim, event, digest, event2, crash2) == 0) continue;
        tally->failures++;
        fprintf(stderr, "FAILED: test_crash replay %llu %llu %llu %llu %llu\n", (unsigned long long)seed,
                (unsigned long long)event, (unsigned long long)crash, (unsigned long long)event2, (unsigned long long)crash2);
    }
    cow_dev_destroy(sim);
}

/* ---- All of them ---- */

static void enumerate(uint64_t seed, uint64_t images, uint64_t stride, struct tally *tally)
{
    static struct work w;
    run_processes(&w, seed, tally);
    uint64_t events = cow_dev_sim_events(w.sim), number = seed;
    for (uint64_t event = seed % stride; event <= events; event += stride) {
        for (uint64_t crash = 0; crash < images && tally->failures < FAILURES_MAX; crash++, number++) {
            uint64_t digest = 0;
            tally->images++;
            if (verify(&w, image_of(w.sim, event, crash), event, number % 4 == 0, &digest) != 0) {
                tally->failures++;
                fprintf(stderr, "FAILED: test_crash replay %llu %llu %llu\n", (unsigned long long)seed,
                        (unsigned long long)event, (unsigned long long)crash);
            } else if (number % 64 == 0) {
                crash_recovery(&w, seed, event, crash, tally);
            }
        }
    }
    work_deinit(&w);
}

static int replay(int count, char **numbers)
{
    static struct work w;
    struct tally tally = {0};
    uint64_t n[5] = {0}, digest = 0;
    for (int i = 0; i < count && i < 5; i++) n[i] = strtoull(numbers[i], NULL, 10);
    run_processes(&w, n[0], &tally);
    int failed = verify(&w, image_of(w.sim, n[1], n[2]), n[1], true, &digest);
    if (!failed && count == 5) {
        uint64_t first, last;
        struct cow_dev *sim = recover(&w, n[1], n[2], &first, &last, &digest);
        failed = one_again(&w, sim, n[1], digest, n[3], n[4]);
        cow_dev_destroy(sim);
    }
    work_deinit(&w);
    return failed;
}

int main(int argc, char **argv)
{
    if (argc >= 5 && strcmp(argv[1], "replay") == 0) return replay(argc - 2, argv + 2);
    uint64_t workloads = argc > 2 ? strtoull(argv[1], NULL, 10) : 8, images = argc > 2 ? strtoull(argv[2], NULL, 10) : 4;
    uint64_t first = argc > 3 ? strtoull(argv[3], NULL, 10) : 1, stride = argc > 2 ? 1 : 2;
    struct tally tally = {0};
    for (uint64_t seed = first; seed < first + workloads && tally.failures < FAILURES_MAX; seed++) {
        enumerate(seed, images, stride, &tally);
        if (argc > 2) {
            printf("seed %llu: %llu images so far\n", (unsigned long long)seed, (unsigned long long)(tally.images + tally.again));
            (void)fflush(stdout);
        }
    }
    printf("crash: %llu images, %llu of crashed recoveries, %llu failed; %llu processes killed, %llu of them between writing "
           "and acknowledging a commit\n",
           (unsigned long long)tally.images, (unsigned long long)tally.again, (unsigned long long)tally.failures,
           (unsigned long long)tally.kills, (unsigned long long)tally.landed);
    return tally.failures != 0;
}
