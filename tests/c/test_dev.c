/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices: one suite of the contract of dev.h that all three devices pass, and what is special to host files:
 * hundreds of files on a limited number of descriptors, used by many threads.
 *
 *   test_dev         the tests
 *   test_dev speed   nanoseconds of a 4 KiB read and write beside those of the bare system calls
 */
#undef _FORTIFY_SOURCE /* its inline pread and pwrite would be in the way of those below */

#include "test.h"

#include "dev/dev.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- System calls that can be told to fail: linked instead of those of libc -------------------- */

static int sync_error, allocate_error; /* errno values, 0 = off */
static bool bad_weather;               /* reads and writes are interrupted, or short, most of the time */

int fdatasync(int fd)
{
    int error = __atomic_load_n(&sync_error, __ATOMIC_RELAXED);

    if (!error) return (int)syscall(SYS_fdatasync, fd);
    errno = error;
    return -1;
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    if (!allocate_error) return (int)syscall(SYS_fallocate, fd, mode, offset, length);
    errno = allocate_error;
    return -1;
}

/* What to make of a length, or 0 for an interruption. */
static size_t weather(size_t length)
{
    static uint64_t random;

    if (!bad_weather) return length;
    uint64_t luck = test_random(&random);
    return luck % 3 == 0 ? 0 : luck % 3 == 1 ? 1 + luck / 3 % length : length;
}

ssize_t pread(int fd, void *buffer, size_t length, off_t offset)
{
    size_t part = length ? weather(length) : 0;

    if (length == part || part) return syscall(SYS_pread64, fd, buffer, part, offset);
    errno = EINTR;
    return -1;
}

ssize_t pwrite(int fd, const void *buffer, size_t length, off_t offset)
{
    size_t part = length ? weather(length) : 0;

    if (length == part || part) return syscall(SYS_pwrite64, fd, buffer, part, offset);
    errno = EINTR;
    return -1;
}

/* ------------------------------------------------------------------------------------------------ */

static char scratch[64]; /* the host directory of the running test */
static struct cow_dev *(*make_device)(void);

static void make_scratch(void)
{
    const char *top = getenv("TMPDIR");

    (void)snprintf(scratch, sizeof scratch, "%.40s/pycow-dev-XXXXXX", top ? top : "/tmp");
    if (!mkdtemp(scratch)) {
        perror(scratch);
        exit(1);
    }
}

/* Files of the directory and of its folders, which are at most one level deep. */
static void empty_folder(const char *path, int depth)
{
    DIR *stream = opendir(path);
    struct dirent *entry;
    char name[600];

    while (stream && (entry = readdir(stream))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (snprintf(name, sizeof name, "%s/%s", path, entry->d_name) >= (int)sizeof name) continue;
        if (unlink(name) == 0 || depth == 0) continue;
        empty_folder(name, depth - 1);
        (void)rmdir(name);
    }
    if (stream) (void)closedir(stream);
}

static void remove_scratch(void)
{
    empty_folder(scratch, 1);
    CHECK_EQ(rmdir(scratch), 0);
}

static struct cow_dev *host_device(void)
{
    struct cow_dev *dev;

    make_scratch();
    MUST(cow_dev_files_open(scratch, false, &dev));
    return dev;
}

static struct cow_dev *memory_device(void)
{
    struct cow_dev *dev;

    MUST(cow_dev_memory_open(&dev));
    return dev;
}

static struct cow_dev *sim_device(void)
{
    struct cow_dev *dev;

    MUST(cow_dev_sim_open(&dev));
    return dev;
}

static void drop_device(struct cow_dev *dev)
{
    cow_dev_destroy(dev);
    if (make_device == host_device) remove_scratch();
}

static unsigned descriptors_open(void)
{
    DIR *stream = opendir("/proc/self/fd");
    unsigned count = 0;

    while (stream && readdir(stream))
        count++;
    if (stream) (void)closedir(stream);
    return count;
}

/* ---- The contract ------------------------------------------------------------------------------ */

static void test_names(void)
{
    static const char *const bad[] = {"", "/", "/a", "a/", "a/b/c", "..", "../a", "a/..", ".", "a/.", "//", "a//b"};
    struct cow_dev *dev = make_device();
    struct cow_dev_file *file, *again;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_EQ(cow_dev_open(dev, bad[i], COW_DEV_CREATE, &file), -EINVAL);
    CHECK_EQ(cow_dev_open(dev, "meta", 0, &file), -ENOENT);
    CHECK(strstr(cow_error_detail(), "meta"));
    CHECK_EQ(cow_dev_open(dev, "segments/1", COW_DEV_CREATE, &file), -ENOENT); /* no such folder yet */
    CHECK_EQ(dev->ops->sync_dir(dev, "segments"), -ENOENT);
    MUST(dev->ops->make_dir(dev, "segments"));
    MUST(dev->ops->make_dir(dev, "segments"));
    MUST(cow_dev_open(dev, "segments/1", COW_DEV_CREATE, &file));
    CHECK(strcmp(file->name, "segments/1") == 0);
    MUST(cow_dev_open(dev, "segments/1", 0, &again));
    MUST(cow_dev_write(file, 0, "abc", 3));
    char text[4] = "";
    CHECK_EQ(cow_dev_read(again, 0, text, 4), 3); /* the same file */
    CHECK(memcmp(text, "abc", 3) == 0);
    cow_dev_close(again);
    cow_dev_close(file);
    MUST(dev->ops->sync_dir(dev, "segments"));
    MUST(dev->ops->sync_dir(dev, ""));
    MUST(cow_dev_open(dev, "segments/1", COW_DEV_CREATE | COW_DEV_TRUNCATE, &file));
    uint64_t bytes = 9;
    MUST(dev->ops->size(file, &bytes));
    CHECK_EQ(bytes, 0);
    cow_dev_close(file);
    cow_dev_close(NULL);
    MUST(dev->ops->remove(dev, "segments/1"));
    CHECK_EQ(dev->ops->remove(dev, "segments/1"), -ENOENT);
    CHECK_EQ(cow_dev_open(dev, "segments/1", 0, &file), -ENOENT);
    CHECK_EQ(cow_dev_open(dev, "meta/1", COW_DEV_CREATE, &file), -ENOENT);
    drop_device(dev);
}

static void test_reads_and_writes(void)
{
    static uint8_t model[200000], bytes[200000], got[200001];
    struct cow_dev *dev = make_device();
    struct cow_dev_file *file;
    uint64_t random = 7, size = 0, found;

    memset(model, 0, sizeof model);
    MUST(cow_dev_open(dev, "meta", COW_DEV_CREATE, &file));
    for (unsigned i = 0; i < 400; i++) {
        uint64_t offset = test_random(&random) % 180000, length = test_random(&random) % (i % 4 ? 700 : 20000);
        test_fill(bytes, length, i);
        if (i % 7 == 3 && offset + length < size) { /* a hint: what it became is adopted */
            MUST(dev->ops->punch(file, offset, length));
            CHECK_EQ(cow_dev_read(file, offset, bytes, length), length);
            for (uint64_t b = 0; b < length; b++)
                CHECK(bytes[b] == 0 || bytes[b] == model[offset + b]);
        } else {
            MUST(cow_dev_write(file, offset, bytes, length));
        }
        memcpy(model + offset, bytes, length);
        if (length && offset + length > size) size = offset + length;
        MUST(dev->ops->size(file, &found));
        CHECK_EQ(found, size);
    }
    CHECK_EQ(cow_dev_read(file, 0, got, sizeof got), size);
    CHECK(memcmp(got, model, size) == 0);
    CHECK_EQ(cow_dev_read(file, size, got, 10), 0);
    CHECK_EQ(cow_dev_read(file, size + 5000, got, 10), 0);
    CHECK_EQ(cow_dev_read(file, size - 3, got, 10), 3);
    MUST(cow_dev_read_all(file, size - 3, got, 3));
    CHECK_EQ(cow_dev_read_all(file, size - 3, got, 4), -EUCLEAN);
    CHECK(strstr(cow_error_detail(), "meta"));
    CHECK_EQ(cow_dev_write(file, UINT64_MAX - 1, got, 4), -EFBIG);
    MUST(cow_dev_sync(file));
    CHECK(cow_counted(&dev->syncs) > 0 && cow_counted(&dev->bytes_read) >= size);
    CHECK(cow_counted(&dev->bytes_written) >= size);
    cow_dev_close(file);
    drop_device(dev);
}

static void test_reserve_and_usage(void)
{
    struct cow_dev *dev = make_device();
    struct cow_dev_file *file;
    uint8_t block[4096], zeros[4096] = {0};
    uint64_t bytes, before, after;

    MUST(cow_dev_open(dev, "meta", COW_DEV_CREATE, &file));
    MUST(dev->ops->reserve(file, 8192, 65536));
    MUST(dev->ops->size(file, &bytes));
    CHECK_EQ(bytes, 8192 + 65536);
    MUST(dev->ops->reserve(file, 0, 4096)); /* size is not made smaller */
    MUST(dev->ops->size(file, &bytes));
    CHECK_EQ(bytes, 8192 + 65536);
    MUST(cow_dev_read_all(file, 8192 + 65536 - 4096, block, 4096));
    CHECK(memcmp(block, zeros, 4096) == 0);
    MUST(dev->ops->usage(dev, &before));
    MUST(dev->ops->make_dir(dev, "segments"));
    struct cow_dev_file *other;
    MUST(cow_dev_open(dev, "segments/2", COW_DEV_CREATE, &other));
    for (unsigned i = 0; i < 64; i++) {
        test_fill(block, sizeof block, i);
        MUST(cow_dev_write(other, i * 4096u, block, sizeof block));
    }
    MUST(cow_dev_sync(other));
    MUST(dev->ops->usage(dev, &after));
    CHECK(after >= before + 64 * 4096 && after < before + 128 * 4096);
    MUST(dev->ops->punch(other, 0, 48 * 4096));
    MUST(cow_dev_sync(other));
    MUST(dev->ops->size(other, &bytes));
    CHECK_EQ(bytes, 64 * 4096);
    cow_dev_close(other);
    cow_dev_close(file);
    drop_device(dev);
}

static void count_name(void *context, const char *name)
{
    unsigned *seen = context;

    if (strcmp(name, "meta") == 0)
        seen[0]++;
    else if (strcmp(name, "lock") == 0)
        seen[1]++;
    else if (strcmp(name, "00000001") == 0)
        seen[2]++;
    else
        seen[3]++;
}

static void remove_name(void *context, const char *name)
{
    struct cow_dev *dev = context;

    MUST(dev->ops->remove(dev, name)); /* a callback may call the device */
}

static void test_list(void)
{
    static const char *const names[] = {"meta", "lock", "segments/00000001"};
    struct cow_dev *dev = make_device();
    struct cow_dev_file *file;
    unsigned seen[4] = {0};

    MUST(dev->ops->make_dir(dev, "segments"));
    for (size_t i = 0; i < 3; i++) {
        MUST(cow_dev_open(dev, names[i], COW_DEV_CREATE, &file));
        cow_dev_close(file);
    }
    MUST(dev->ops->list(dev, "", count_name, seen));
    CHECK(seen[0] == 1 && seen[1] == 1 && seen[2] == 0 && seen[3] == 0);
    MUST(dev->ops->list(dev, "segments", count_name, seen));
    CHECK(seen[0] == 1 && seen[1] == 1 && seen[2] == 1 && seen[3] == 0);
    CHECK_EQ(dev->ops->list(dev, "nowhere", count_name, seen), -ENOENT);
    MUST(dev->ops->list(dev, "", remove_name, dev));
    CHECK_EQ(dev->ops->remove(dev, "meta"), -ENOENT);
    drop_device(dev);
}

/* A removed file can be used until it is closed, and a new one of its name is another. */
static void test_removed_while_open(void)
{
    struct cow_dev *dev = make_device();
    struct cow_dev_file *old, *new;
    char text[4] = "";

    MUST(cow_dev_open(dev, "meta", COW_DEV_CREATE, &old));
    MUST(cow_dev_write(old, 0, "old", 3));
    MUST(dev->ops->remove(dev, "meta"));
    MUST(cow_dev_open(dev, "meta", COW_DEV_CREATE, &new));
    MUST(cow_dev_write(new, 0, "new", 3));
    MUST(cow_dev_read_all(old, 0, text, 3));
    CHECK(memcmp(text, "old", 3) == 0);
    MUST(cow_dev_sync(old));
    cow_dev_close(old);
    MUST(cow_dev_read_all(new, 0, text, 3));
    CHECK(memcmp(text, "new", 3) == 0);
    cow_dev_close(new);
    drop_device(dev);
}

static void test_readonly(void)
{
    struct cow_dev *dev = make_device();
    struct cow_dev_file *file;
    char text[3];

    MUST(cow_dev_open(dev, "meta", COW_DEV_CREATE, &file));
    MUST(cow_dev_write(file, 0, "abc", 3));
    dev->readonly = true;
    CHECK_EQ(cow_dev_write(file, 0, "abc", 3), -EROFS);
    CHECK_EQ(dev->ops->reserve(file, 0, 3), -EROFS);
    CHECK_EQ(dev->ops->punch(file, 0, 3), -EROFS);
    CHECK_EQ(dev->ops->remove(dev, "meta"), -EROFS);
    CHECK_EQ(dev->ops->make_dir(dev, "segments"), -EROFS);
    MUST(cow_dev_read_all(file, 0, text, 3));
    cow_dev_close(file);
    CHECK_EQ(cow_dev_open(dev, "none", COW_DEV_CREATE, &file), -ENOENT);
    CHECK_EQ(cow_dev_open(dev, "meta", COW_DEV_TRUNCATE, &file), -EROFS);
    MUST(cow_dev_open(dev, "meta", 0, &file));
    MUST(cow_dev_read_all(file, 0, text, 3));
    cow_dev_close(file);
    drop_device(dev);
}

/* ---- Threads ----------------------------------------------------------------------------------- */

#define HAMMER_FILES 900u
#define HAMMER_THREADS 6u
#define HAMMER_STEPS 2500u

struct hammer {
    struct cow_dev *dev;
    struct cow_dev_file *files[HAMMER_FILES];
    uint64_t seed;
};

static struct cow_dev_file *open_numbered(struct cow_dev *dev, unsigned number, unsigned flags)
{
    struct cow_dev_file *file;
    char name[40];

    (void)snprintf(name, sizeof name, "segments/%08x", number);
    MUST(cow_dev_open(dev, name, flags, &file));
    return file;
}

/* Thread t owns the 16 bytes at 16 * t of each file, so that contents are known whatever the order. */
static void hammer_step(struct hammer *hammer, unsigned thread, uint64_t *random, uint8_t *model)
{
    unsigned number = (unsigned)(test_random(random) % HAMMER_FILES);
    struct cow_dev_file *file = hammer->files[number];
    uint8_t bytes[16];
    uint64_t size;

    switch (test_random(random) % 8) {
    case 0: MUST(cow_dev_sync(file)); break;
    case 1: /* a second user of the same file comes and goes */
        file = open_numbered(hammer->dev, number, 0);
        MUST(hammer->dev->ops->size(file, &size));
        cow_dev_close(file);
        break;
    case 2:
    case 3:
    case 4:
        model[number]++;
        memset(bytes, model[number], sizeof bytes);
        MUST(cow_dev_write(file, 16 * thread, bytes, sizeof bytes));
        break;
    default:
        MUST(cow_dev_read_all(file, 16 * thread, bytes, sizeof bytes));
        CHECK(bytes[0] == model[number] && bytes[15] == model[number]);
        break;
    }
}

static void *hammer_thread(void *context)
{
    static unsigned next_thread;
    struct hammer *hammer = context;
    unsigned thread = __atomic_fetch_add(&next_thread, 1, __ATOMIC_RELAXED) % HAMMER_THREADS;
    uint64_t random = 100 + thread;
    uint8_t model[HAMMER_FILES] = {0};
    char name[40];

    for (unsigned i = 0; i < HAMMER_STEPS; i++) {
        hammer_step(hammer, thread, &random, model);
        if (i % 16 != 0) continue;
        /* Files of its own, made, written, closed unsynced, removed. */
        unsigned number = 0x10000 * (thread + 1) + i % 64;
        struct cow_dev_file *own = open_numbered(hammer->dev, number, COW_DEV_CREATE | COW_DEV_TRUNCATE);
        MUST(cow_dev_write(own, 0, "own", 3));
        if (i % 48 == 0) cow_dev_close(own);
        (void)snprintf(name, sizeof name, "segments/%08x", number);
        if (i % 32 == 0) MUST(hammer->dev->ops->remove(hammer->dev, name));
        if (i % 48 != 0) {
            MUST(cow_dev_read_all(own, 0, name, 3));
            cow_dev_close(own);
        }
    }
    return NULL;
}

static void hammer_with(unsigned thread_count)
{
    static struct hammer hammer;
    pthread_t threads[HAMMER_THREADS];
    uint8_t zeros[16 * HAMMER_THREADS] = {0};

    hammer.dev = make_device();
    MUST(hammer.dev->ops->make_dir(hammer.dev, "segments"));
    for (unsigned i = 0; i < HAMMER_FILES; i++) {
        hammer.files[i] = open_numbered(hammer.dev, i, COW_DEV_CREATE);
        MUST(cow_dev_write(hammer.files[i], 0, zeros, sizeof zeros));
    }
    for (unsigned i = 0; i < thread_count; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, hammer_thread, &hammer), 0);
    for (unsigned i = 0; i < thread_count; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    if (make_device == host_device) CHECK(descriptors_open() < 440);
    for (unsigned i = 0; i < HAMMER_FILES; i++) {
        MUST(cow_dev_sync(hammer.files[i]));
        cow_dev_close(hammer.files[i]);
    }
    drop_device(hammer.dev);
}

static void test_threads(void)
{
    hammer_with(HAMMER_THREADS);
}

/* ---- Host files -------------------------------------------------------------------------------- */

static void test_descriptors_are_bounded(void)
{
    static struct cow_dev_file *files[1500];
    unsigned before = descriptors_open();
    struct cow_dev *dev = host_device();
    char text[32], got[32];

    MUST(dev->ops->make_dir(dev, "segments"));
    for (unsigned i = 0; i < 1500; i++) {
        files[i] = open_numbered(dev, i, COW_DEV_CREATE);
        int length = snprintf(text, sizeof text, "file %u", i);
        MUST(cow_dev_write(files[i], 0, text, (size_t)length));
        CHECK(descriptors_open() < before + 410);
    }
    for (unsigned i = 0; i < 1500; i++) {
        int length = snprintf(text, sizeof text, "file %u", i);
        CHECK_EQ(cow_dev_read(files[i], 0, got, sizeof got), length);
        CHECK(memcmp(text, got, (size_t)length) == 0);
    }
    uint64_t syncs = cow_counted(&dev->syncs);
    CHECK(syncs >= 1100); /* who was closed with writes was synced first */
    for (unsigned i = 0; i < 1500; i++)
        MUST(cow_dev_sync(files[i]));
    CHECK_EQ(cow_counted(&dev->syncs), 1500); /* and is not synced again */
    for (unsigned i = 0; i < 1500; i++)
        cow_dev_close(files[i]);
    drop_device(dev);
    CHECK_EQ(descriptors_open(), before);
}

/* A file that vanished from the host while its descriptor was closed is an error, and stays away. */
static void test_reopen_makes_nothing(void)
{
    static struct cow_dev_file *files[500];
    struct cow_dev *dev = host_device();
    char path[600], text[4];

    MUST(dev->ops->make_dir(dev, "segments"));
    for (unsigned i = 0; i < 500; i++) {
        files[i] = open_numbered(dev, i, COW_DEV_CREATE);
        MUST(cow_dev_write(files[i], 0, "abc", 3));
    }
    (void)snprintf(path, sizeof path, "%s/segments/00000000", scratch);
    CHECK_EQ(unlink(path), 0);
    CHECK_EQ(cow_dev_read(files[0], 0, text, 3), -ENOENT);
    CHECK(strstr(cow_error_detail(), "segments/00000000"));
    CHECK_EQ(cow_dev_write(files[0], 0, text, 3), -ENOENT);
    CHECK(access(path, F_OK) != 0);
    for (unsigned i = 0; i < 500; i++)
        cow_dev_close(files[i]);
    drop_device(dev);
}

static void test_links_are_not_followed(void)
{
    struct cow_dev *dev = host_device();
    struct cow_dev_file *file;
    char path[600];

    (void)snprintf(path, sizeof path, "%s/meta", scratch);
    CHECK_EQ(symlink("/etc/passwd", path), 0);
    CHECK_EQ(cow_dev_open(dev, "meta", 0, &file), -ELOOP);
    CHECK_EQ(cow_dev_open(dev, "meta", COW_DEV_CREATE | COW_DEV_TRUNCATE, &file), -ELOOP);
    CHECK_EQ(dev->ops->make_dir(dev, "meta"), -ENOTDIR);
    drop_device(dev);
    CHECK_EQ(cow_dev_files_open("/nowhere/at/all", false, &dev), -ENOENT);
}

/* With few descriptors left in the process, files are closed earlier instead of failing. */
static void test_few_descriptors(void)
{
    static struct cow_dev_file *files[200];
    struct rlimit old, low;
    struct cow_dev *dev = host_device();
    char text[3];

    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = old;
    low.rlim_cur = descriptors_open() + 40;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
    MUST(dev->ops->make_dir(dev, "segments"));
    for (unsigned i = 0; i < 200; i++) {
        files[i] = open_numbered(dev, i, COW_DEV_CREATE);
        MUST(cow_dev_write(files[i], 0, "abc", 3));
    }
    for (unsigned i = 0; i < 200; i++)
        MUST(cow_dev_read_all(files[i], 0, text, 3));
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    for (unsigned i = 0; i < 200; i++)
        cow_dev_close(files[i]);
    drop_device(dev);
}

/* A write that the host cuts short in the middle (here by a limit) is an error that names the file. */
static void test_write_errors(void)
{
    static uint8_t bytes[65536];
    struct rlimit old, low;
    struct cow_dev *dev = host_device();
    struct cow_dev_file *file;

    CHECK_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = old;
    low.rlim_cur = 40000;
    (void)signal(SIGXFSZ, SIG_IGN);
    MUST(cow_dev_open(dev, "meta", COW_DEV_CREATE, &file));
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &low), 0);
    CHECK_EQ(cow_dev_write(file, 0, bytes, sizeof bytes), -EFBIG);
    CHECK(strstr(cow_error_detail(), "meta"));
    CHECK_EQ(dev->ops->reserve(file, 0, sizeof bytes), -EFBIG);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
    MUST(cow_dev_write(file, 0, bytes, sizeof bytes));
    MUST(cow_dev_sync(file));
    cow_dev_close(file);
    drop_device(dev);
}

static void test_interrupted_and_short(void)
{
    make_device = host_device;
    bad_weather = true;
    test_reads_and_writes();
    bad_weather = false;
}

/* A failed sync stays failed: for this file, after a close and an open of it, but not for others. */
static void test_sync_errors_stay(void)
{
    struct cow_dev *dev = host_device();
    struct cow_dev_file *file, *other;

    MUST(cow_dev_open(dev, "meta", COW_DEV_CREATE, &file));
    MUST(cow_dev_open(dev, "other", COW_DEV_CREATE, &other));
    MUST(cow_dev_sync(file));
    MUST(cow_dev_write(file, 0, "abc", 3));
    sync_error = EIO;
    CHECK_EQ(cow_dev_sync(other), -EIO); /* made before: not known to be durable */
    CHECK_EQ(cow_dev_sync(file), -EIO);
    CHECK(strstr(cow_error_detail(), "meta"));
    sync_error = 0;
    CHECK_EQ(cow_dev_sync(file), -EIO);
    cow_dev_close(file);
    MUST(cow_dev_open(dev, "meta", 0, &file));
    MUST(cow_dev_write(file, 0, "abc", 3));
    CHECK_EQ(cow_dev_sync(file), -EIO);
    cow_dev_close(file);
    CHECK_EQ(cow_dev_sync(other), -EIO);
    MUST(dev->ops->remove(dev, "meta")); /* a new file has nothing of it */
    MUST(cow_dev_open(dev, "meta", COW_DEV_CREATE, &file));
    MUST(cow_dev_sync(file));
    cow_dev_close(file);
    cow_dev_close(other);
    drop_device(dev);
}

/* The sync that fails is the one before a descriptor is closed to make room; the file is closed, too. */
static void test_sync_errors_of_eviction(void)
{
    static struct cow_dev_file *files[500];
    struct cow_dev *dev = host_device();
    unsigned failed = 0;

    MUST(dev->ops->make_dir(dev, "segments"));
    for (unsigned i = 0; i < 500; i++) {
        files[i] = open_numbered(dev, i, COW_DEV_CREATE);
        MUST(cow_dev_write(files[i], 0, "abc", 3));
        if (i < 100) cow_dev_close(files[i]); /* unsynced */
        if (i == 300) sync_error = EIO;
    }
    sync_error = 0;
    for (unsigned i = 0; i < 500; i++) {
        if (i < 100) files[i] = open_numbered(dev, i, 0);
        failed += cow_dev_sync(files[i]) == -EIO;
    }
    CHECK(failed >= 90 && failed <= 110); /* as many as had to make room */
    for (unsigned i = 0; i < 500; i++)
        cow_dev_close(files[i]);
    drop_device(dev);
}

static void test_host_that_cannot_reserve(void)
{
    struct cow_dev *dev = host_device();
    struct cow_dev_file *file;
    uint64_t bytes;

    MUST(cow_dev_open(dev, "meta", COW_DEV_CREATE, &file));
    allocate_error = EOPNOTSUPP;
    MUST(dev->ops->reserve(file, 4096, 4096));
    MUST(dev->ops->size(file, &bytes));
    CHECK_EQ(bytes, 8192);
    MUST(dev->ops->reserve(file, 0, 4096));
    MUST(dev->ops->size(file, &bytes));
    CHECK_EQ(bytes, 8192);
    MUST(dev->ops->punch(file, 0, 4096));
    allocate_error = ENOSPC;
    CHECK_EQ(dev->ops->reserve(file, 0, 1 << 20), -ENOSPC);
    allocate_error = 0;
    cow_dev_close(file);
    drop_device(dev);
}

/* ---- Speed ------------------------------------------------------------------------------------- */

static double ns_each(const struct timespec *start, unsigned count)
{
    struct timespec end;

    clock_gettime(CLOCK_MONOTONIC, &end);
    return ((double)(end.tv_sec - start->tv_sec) * 1e9 + (double)(end.tv_nsec - start->tv_nsec)) / count;
}

static int show_speed(void)
{
    enum { COUNT = 200000 };
    static uint8_t block[4096];
    struct cow_dev *dev = host_device();
    struct cow_dev_file *file;
    struct timespec start;
    double best[4] = {1e9, 1e9, 1e9, 1e9};
    char path[600];

    MUST(cow_dev_open(dev, "meta", COW_DEV_CREATE, &file));
    MUST(cow_dev_write(file, 0, block, sizeof block));
    (void)snprintf(path, sizeof path, "%s/meta", scratch);
    int fd = open(path, O_RDWR);
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned what = 0; what < 4; what++) {
            clock_gettime(CLOCK_MONOTONIC, &start);
            for (unsigned i = 0; i < COUNT; i++) {
                int64_t rc = 0;
                if (what == 0) rc = pread(fd, block, sizeof block, 0);
                if (what == 1) rc = cow_dev_read(file, 0, block, sizeof block);
                if (what == 2) rc = pwrite(fd, block, sizeof block, 0);
                if (what == 3) rc = cow_dev_write(file, 0, block, sizeof block);
                MUST(rc);
            }
            double each = ns_each(&start, COUNT);
            if (each < best[what]) best[what] = each;
        }
    }
    printf("4 KiB: pread %.0f ns, cow_dev_read %.0f ns; pwrite %.0f ns, cow_dev_write %.0f ns\n", best[0], best[1],
           best[2], best[3]);
    (void)close(fd);
    cow_dev_close(file);
    make_device = host_device;
    drop_device(dev);
    return 0;
}

static void contract(const char *device, struct cow_dev *(*make)(void))
{
    printf("-- %s\n", device);
    make_device = make;
    RUN(test_names);
    RUN(test_reads_and_writes);
    RUN(test_reserve_and_usage);
    RUN(test_list);
    RUN(test_removed_while_open);
    RUN(test_readonly);
    RUN(test_threads);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "speed") == 0) return show_speed();
    contract("memory", memory_device);
    contract("simulated", sim_device);
    contract("host files", host_device);
    RUN(test_descriptors_are_bounded);
    RUN(test_reopen_makes_nothing);
    RUN(test_links_are_not_followed);
    RUN(test_few_descriptors);
    RUN(test_write_errors);
    RUN(test_interrupted_and_short);
    RUN(test_sync_errors_stay);
    RUN(test_sync_errors_of_eviction);
    RUN(test_host_that_cannot_reserve);
    return TEST_RESULT();
}
