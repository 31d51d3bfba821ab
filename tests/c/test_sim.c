/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated device: which crash images there may be, and that all of these kinds do come up among the seeds; that
 * the same numbers give the same image; and injected faults.
 */
#include "test.h"

#include "dev/dev.h"

#define SEEDS 400u

static struct cow_dev *sim;

static void start(void)
{
    MUST(cow_dev_sim_open(&sim));
}

static void stop(void)
{
    cow_dev_destroy(sim);
}

static struct cow_dev_file *make_file(const char *name)
{
    struct cow_dev_file *file;

    MUST(cow_dev_open(sim, name, COW_DEV_CREATE, &file));
    return file;
}

/* A file that is there for good, with bytes of fill. */
static struct cow_dev_file *make_durable(const char *name, const char *folder, uint8_t fill, size_t bytes)
{
    static uint8_t content[65536];
    struct cow_dev_file *file = make_file(name);

    memset(content, fill, bytes);
    MUST(cow_dev_write(file, 0, content, bytes));
    MUST(cow_dev_sync(file));
    MUST(sim->ops->sync_dir(sim, folder));
    return file;
}

/* The content of a file in an image, or -ENOENT. */
static int64_t look_at(uint64_t event_count, uint64_t seed, const char *name, uint8_t *bytes, size_t capacity)
{
    struct cow_dev *image;
    struct cow_dev_file *file;

    MUST(cow_dev_sim_crash(sim, event_count, seed, &image));
    int64_t got = cow_dev_open(image, name, 0, &file);
    if (!got) {
        got = cow_dev_read(file, 0, bytes, capacity);
        cow_dev_close(file);
    }
    cow_dev_destroy(image);
    return got;
}

static int64_t look(uint64_t seed, const char *name, uint8_t *bytes, size_t capacity)
{
    return look_at(cow_dev_sim_events(sim), seed, name, bytes, capacity);
}

static void test_unsynced_names(void)
{
    unsigned there = 0;

    start();
    struct cow_dev_file *file = make_file("meta");
    MUST(cow_dev_write(file, 0, "abc", 3));
    MUST(cow_dev_sync(file)); /* the content is durable, the name is not */
    uint8_t bytes[8];
    CHECK_EQ(look(0, "meta", bytes, 8), -ENOENT);
    CHECK_EQ(look(1, "meta", bytes, 8), 3);
    for (uint64_t seed = 2; seed < SEEDS; seed++) {
        int64_t got = look(seed, "meta", bytes, 8);
        CHECK(got == -ENOENT || (got == 3 && memcmp(bytes, "abc", 3) == 0));
        there += got == 3;
    }
    CHECK(there > 20 && there < SEEDS - 20);
    MUST(sim->ops->sync_dir(sim, ""));
    for (uint64_t seed = 0; seed < SEEDS; seed++)
        CHECK_EQ(look(seed, "meta", bytes, 8), 3);

    MUST(sim->ops->remove(sim, "meta")); /* a removal may be undone, until it is synced */
    there = 0;
    for (uint64_t seed = 2; seed < SEEDS; seed++)
        there += look(seed, "meta", bytes, 8) == 3;
    CHECK(there > 20 && there < SEEDS - 20);
    CHECK_EQ(look(0, "meta", bytes, 8), 3);
    CHECK_EQ(look(1, "meta", bytes, 8), -ENOENT);
    MUST(sim->ops->sync_dir(sim, ""));
    for (uint64_t seed = 0; seed < SEEDS; seed++)
        CHECK_EQ(look(seed, "meta", bytes, 8), -ENOENT);
    cow_dev_close(file);
    stop();
}

static void test_folders(void)
{
    uint8_t bytes[8];
    unsigned there = 0;

    start();
    MUST(sim->ops->make_dir(sim, "segments"));
    struct cow_dev_file *file = make_durable("segments/1", "segments", 7, 4);
    CHECK_EQ(look(0, "segments/1", bytes, 8), -ENOENT); /* its folder is not durable */
    for (uint64_t seed = 2; seed < SEEDS; seed++)
        there += look(seed, "segments/1", bytes, 8) == 4;
    CHECK(there > 20 && there < SEEDS - 20);
    MUST(sim->ops->sync_dir(sim, ""));
    for (uint64_t seed = 0; seed < SEEDS; seed++)
        CHECK_EQ(look(seed, "segments/1", bytes, 8), 4);
    uint64_t events = cow_dev_sim_events(sim);
    MUST(sim->ops->make_dir(sim, "segments")); /* there already: nothing happens */
    CHECK_EQ(cow_dev_sim_events(sim), events);
    cow_dev_close(file);
    stop();
}

/* A name that is removed and made again is another file: never the content of one under the other's rules. */
static void test_name_made_again(void)
{
    uint8_t bytes[8];
    bool seen[3] = {false};

    start();
    struct cow_dev_file *old = make_durable("meta", "", 'o', 3);
    cow_dev_close(old);
    MUST(sim->ops->remove(sim, "meta"));
    struct cow_dev_file *new = make_file("meta");
    MUST(cow_dev_write(new, 0, "new!", 4));
    MUST(cow_dev_sync(new));
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int64_t got = look(seed, "meta", bytes, 8);
        if (got == -ENOENT)
            seen[0] = true;
        else if (got == 3 && memcmp(bytes, "ooo", 3) == 0)
            seen[1] = true;
        else if (got == 4 && memcmp(bytes, "new!", 4) == 0)
            seen[2] = true;
        else
            CHECK_EQ(got, -ENOENT); /* none of the three */
    }
    CHECK(seen[0] && seen[1] && seen[2]);
    cow_dev_close(new);
    stop();
}

/* Two writes to one place: each sector has the old bytes or those of either write, and all mixtures come up. */
static void test_overlapping_writes(void)
{
    static uint8_t bytes[4096], block[4096];
    unsigned none = 0, first = 0, second = 0, torn = 0;

    start();
    struct cow_dev_file *file = make_durable("meta", "", 'o', 4096);
    memset(block, '1', sizeof block);
    MUST(cow_dev_write(file, 0, block, sizeof block));
    memset(block, '2', sizeof block);
    MUST(cow_dev_write(file, 0, block, sizeof block));
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        unsigned count[256] = {0};
        CHECK_EQ(look(seed, "meta", bytes, sizeof bytes), sizeof bytes);
        for (unsigned i = 0; i < sizeof bytes; i++) {
            CHECK_EQ(bytes[i], bytes[i / 512 * 512]); /* a sector is whole */
            count[bytes[i]]++;
        }
        CHECK_EQ(count['o'] + count['1'] + count['2'], 4096);
        none += count['o'] == 4096;
        first += count['1'] == 4096;
        second += count['2'] == 4096;
        torn += count['o'] < 4096 && count['1'] < 4096 && count['2'] < 4096;
    }
    CHECK(none > 5 && first > 5 && second > 5 && torn > 5);
    MUST(cow_dev_sync(file));
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        CHECK_EQ(look(seed, "meta", bytes, sizeof bytes), sizeof bytes);
        CHECK(memcmp(bytes, block, sizeof bytes) == 0);
    }
    cow_dev_close(file);
    stop();
}

static void test_growth(void)
{
    static uint8_t bytes[16384], block[4096];
    unsigned lost = 0, whole = 0, zeros = 0, hole = 0;

    start();
    struct cow_dev_file *file = make_durable("meta", "", 'o', 4096);
    memset(block, 'n', sizeof block);
    MUST(cow_dev_write(file, 4096, block, sizeof block));
    MUST(cow_dev_write(file, 8192, block, sizeof block));
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int64_t got = look(seed, "meta", bytes, sizeof bytes);
        CHECK(got == 4096 || got == 8192 || got == 12288);
        for (int64_t i = 0; i < got; i++)
            CHECK(i < 4096 ? bytes[i] == 'o' : bytes[i] == 'n' || bytes[i] == 0);
        lost += got == 4096;
        whole += got == 12288 && bytes[4096] == 'n' && bytes[12287] == 'n';
        zeros += got == 12288 && bytes[12287] == 0; /* the size without the data */
        hole += got == 12288 && bytes[4096] == 0 && bytes[8191] == 0 && bytes[12287] == 'n';
    }
    CHECK(lost > 5 && whole > 5 && zeros > 5 && hole > 5);
    CHECK_EQ(look(0, "meta", bytes, sizeof bytes), 4096);
    CHECK_EQ(look(1, "meta", bytes, sizeof bytes), 12288);

    MUST(cow_dev_sync(file));
    MUST(sim->ops->reserve(file, 12288, 4096));
    CHECK_EQ(look(0, "meta", bytes, sizeof bytes), 12288);
    CHECK_EQ(look(1, "meta", bytes, sizeof bytes), 16384);
    CHECK(bytes[16383] == 0);
    MUST(cow_dev_sync(file));
    for (uint64_t seed = 0; seed < SEEDS; seed++)
        CHECK_EQ(look(seed, "meta", bytes, sizeof bytes), 16384);
    cow_dev_close(file);
    stop();
}

static void test_punch_and_truncate(void)
{
    static uint8_t bytes[8192];
    unsigned kept = 0, gone = 0;

    start();
    struct cow_dev_file *file = make_durable("meta", "", 'o', 8192);
    MUST(sim->ops->punch(file, 0, 4096));
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        CHECK_EQ(look(seed, "meta", bytes, sizeof bytes), 8192);
        for (unsigned i = 0; i < 8192; i++)
            CHECK(bytes[i] == 'o' || (i < 4096 && bytes[i] == 0));
        kept += bytes[0] == 'o';
        gone += bytes[0] == 0;
    }
    CHECK(kept > 20 && gone > 20);
    cow_dev_close(file);
    MUST(cow_dev_open(sim, "meta", COW_DEV_TRUNCATE, &file));
    CHECK_EQ(look(0, "meta", bytes, sizeof bytes), 8192);
    CHECK_EQ(look(1, "meta", bytes, sizeof bytes), 0);
    uint64_t events = cow_dev_sim_events(sim);
    cow_dev_close(file);
    MUST(cow_dev_open(sim, "meta", COW_DEV_CREATE | COW_DEV_TRUNCATE, &file)); /* empty already */
    CHECK_EQ(cow_dev_sim_events(sim), events);
    MUST(cow_dev_sync(file));
    CHECK_EQ(look(0, "meta", bytes, sizeof bytes), 0);
    cow_dev_close(file);
    stop();
}

/* A workload against a model of it: seed 1 is the state at each event, seed 0 that of the last syncs; images do not
 * depend on the order in which they are asked for; images do not change each other or the device. */
static void test_images_at_each_event(void)
{
    enum { STEPS = 300, BYTES = 20000 };
    static uint8_t now[BYTES], synced[STEPS + 3][BYTES], after[STEPS + 3][BYTES], got[BYTES], again[BYTES];
    uint8_t piece[3000];
    uint64_t random = 5;

    start();
    struct cow_dev_file *file = make_durable("meta", "", 0, BYTES);
    uint64_t base = cow_dev_sim_events(sim);
    for (unsigned i = 1; i <= STEPS; i++) {
        uint64_t length = 1 + test_random(&random) % sizeof piece, offset = test_random(&random) % (BYTES - length);
        memcpy(synced[i], synced[i - 1], BYTES);
        if (i % 9 == 0) {
            MUST(cow_dev_sync(file));
            memcpy(synced[i], now, BYTES);
        } else {
            test_fill(piece, length, i);
            MUST(cow_dev_write(file, offset, piece, length));
            memcpy(now + offset, piece, length);
        }
        memcpy(after[i], now, BYTES);
        CHECK_EQ(cow_dev_sim_events(sim), base + i);
    }
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned step = 1; step <= STEPS; step++) {
            unsigned i = round == 0 ? step : STEPS + 1 - step;
            CHECK_EQ(look_at(base + i, 0, "meta", got, BYTES), BYTES);
            CHECK(memcmp(got, synced[i], BYTES) == 0);
            CHECK_EQ(look_at(base + i, 1, "meta", got, BYTES), BYTES);
            CHECK(memcmp(got, after[i], BYTES) == 0);
        }
    }
    for (unsigned i = 1; i <= STEPS; i += 7) {
        MUST(look_at(base + i, i + 2, "meta", got, BYTES));
        MUST(look_at(base + STEPS - i, 3, "meta", again, BYTES));
        MUST(look_at(base + i, i + 2, "meta", again, BYTES));
        CHECK(memcmp(got, again, BYTES) == 0);
    }
    struct cow_dev *image;
    struct cow_dev_file *copy;
    MUST(cow_dev_sim_crash(sim, base + STEPS, 1, &image)); /* an ordinary, writable device */
    MUST(cow_dev_open(image, "meta", 0, &copy));
    memset(got, 0xee, BYTES);
    MUST(cow_dev_write(copy, 0, got, BYTES));
    cow_dev_close(copy);
    cow_dev_destroy(image);
    MUST(cow_dev_read_all(file, 0, got, BYTES));
    CHECK(memcmp(got, now, BYTES) == 0);
    CHECK_EQ(cow_dev_sim_crash(sim, base + STEPS + 1, 0, &image), -EINVAL);
    cow_dev_close(file);
    stop();
}

static void test_faults(void)
{
    uint8_t bytes[4096], block[4096];
    struct cow_dev_file *other;

    start();
    struct cow_dev_file *file = make_durable("meta", "", 'o', 4096);
    memset(block, 'n', sizeof block);
    cow_dev_sim_fail(sim, COW_DEV_SIM_WRITE, 1, ENOSPC, false);
    MUST(cow_dev_write(file, 0, "x", 1));
    CHECK_EQ(cow_dev_write(file, 0, block, 4096), -ENOSPC);
    CHECK(strstr(cow_error_detail(), "meta"));
    MUST(cow_dev_read_all(file, 0, bytes, 4096)); /* as far as it came */
    CHECK(bytes[2047] == 'n' && bytes[2048] == 'o');
    MUST(cow_dev_write(file, 0, block, 4096));

    cow_dev_sim_fail(sim, COW_DEV_SIM_SYNC, 0, EIO, false);
    CHECK_EQ(cow_dev_sync(file), -EIO);
    CHECK_EQ(look(0, "meta", bytes, 4096), 4096);
    CHECK(bytes[0] == 'o'); /* nothing became durable */
    MUST(cow_dev_sync(file));

    cow_dev_sim_fail(sim, COW_DEV_SIM_READ | COW_DEV_SIM_SYNC, 2, -EIO, true);
    MUST(cow_dev_read_all(file, 0, bytes, 4096));
    MUST(sim->ops->sync_dir(sim, ""));
    MUST(cow_dev_write(file, 0, block, 4096)); /* not of these kinds */
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(cow_dev_read(file, 0, bytes, 4096), -EIO);
        CHECK_EQ(sim->ops->sync_dir(sim, ""), -EIO);
    }
    cow_dev_sim_fail(sim, COW_DEV_SIM_OTHER, 0, ENOMEM, true);
    uint64_t events = cow_dev_sim_events(sim), size;
    CHECK_EQ(cow_dev_open(sim, "other", COW_DEV_CREATE, &other), -ENOMEM);
    CHECK_EQ(sim->ops->size(file, &size), -ENOMEM);
    CHECK_EQ(sim->ops->reserve(file, 0, 1), -ENOMEM);
    CHECK_EQ(sim->ops->remove(sim, "meta"), -ENOMEM);
    CHECK_EQ(cow_dev_sim_events(sim), events);
    cow_dev_sim_fail(sim, 0, UINT64_MAX, 0, false);
    MUST(cow_dev_read_all(file, 0, bytes, 4096));
    MUST(sim->ops->remove(sim, "meta"));
    cow_dev_close(file);
    stop();
}

int main(void)
{
    RUN(test_unsynced_names);
    RUN(test_folders);
    RUN(test_name_made_again);
    RUN(test_overlapping_writes);
    RUN(test_growth);
    RUN(test_punch_and_truncate);
    RUN(test_images_at_each_event);
    RUN(test_faults);
    return TEST_RESULT();
}
