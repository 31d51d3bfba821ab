/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dev_file.c: a directory of host files, with at most FD_LIMIT descriptors open.
 *
 * There is one object per name in use, shared by all who have it open. Its descriptor comes and goes: `state` is one
 * atomic word that counts the calls that use the descriptor now, tells whether it is open, and numbers the writes. A
 * call adds 1 (file_get), and when the word said open it goes straight to the system call; no lock is taken. Only
 * when the descriptor is closed does it take the device's lock and open it again, never making the file anew. To
 * close, the evictor (under the device's lock) changes the word from "open, no user" to "closed" by compare and swap.
 * Which one to close is second chance: the open ones are in a ring, one that was used since the ring last came to
 * it is passed over once.
 *
 * No error of a sync is lost. The kernel reports a failed write-back once, and may forget it with the last descriptor,
 * and a second fdatasync after a failed one returns 0 though the data is gone. So a file with writes that are not
 * synced is synced before its descriptor is closed, a failure is remembered (`sync_error`) and every later sync of that
 * file fails with it; an object with unsynced writes or a remembered failure outlives its last close.
 *
 * Locks: sync_lock of a file before the device's lock; never the other way around.
 */
#include "dev/dev.h"
#include "dev/dev_impl.h"
#include "dev/host_dir.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define FD_LIMIT 400u
#define EVICT_TRIES 16u
#define BUCKETS 4096u

/* state: users in the low 20 bits, then the open bit, then the number of writes. */
#define STATE_USERS (((uint64_t)1 << 20) - 1)
#define STATE_OPEN ((uint64_t)1 << 20)
#define STATE_WRITE ((uint64_t)1 << 21)
/* Counts as a write nobody of this process made: what an earlier process left unsynced is not known. */
#define WRITES_AT_OPEN 1u

struct host_file {
    struct cow_dev_file base; /* base.name points to name */
    uint64_t state;           /* atomic */
    uint64_t synced;          /* atomic: the number of the last write that is known to be durable */
    int sync_error;           /* atomic: errno value of the first failed sync, for good */
    int fd;                   /* valid while STATE_OPEN; changed under the device's lock */
    uint8_t used;             /* atomic: since the evictor last looked */
    bool removed;             /* has no name any more, is pinned; this and the following under the device's lock */
    uint32_t handles;
    struct host_file *before, *after; /* in the ring of open files */
    struct host_file *next;           /* in its bucket */
    pthread_mutex_t sync_lock;
    char name[];
};

struct host_dev {
    struct cow_dev base;
    int directory;
    pthread_mutex_t lock;
    struct host_file *hand; /* where the evictor goes on in the ring; NULL = no file is open */
    uint32_t open_count;
    struct host_file *buckets[BUCKETS];
};

static struct host_dev *host_of(struct cow_dev *dev)
{
    return (struct host_dev *)dev;
}

static struct host_file *file_of(struct cow_dev_file *file)
{
    return (struct host_file *)file;
}

static int refuse_readonly(const struct cow_dev *dev, const char *name)
{
    return dev->readonly ? cow_fail(EROFS, "%s: the store is open for reading only", name) : 0;
}

static uint64_t load_state(const struct host_file *file)
{
    return __atomic_load_n(&file->state, __ATOMIC_ACQUIRE);
}

/* ---- The ring and the table (under the device's lock) ------------------------------------------ */

static void ring_add(struct host_dev *host, struct host_file *file)
{
    struct host_file *hand = host->hand;

    if (hand) { /* just behind the hand: it is come to last */
        file->after = hand;
        file->before = hand->before;
        hand->before->after = file;
        hand->before = file;
    } else {
        file->before = file->after = file;
        host->hand = file;
    }
    host->open_count++;
}

static void ring_remove(struct host_dev *host, struct host_file *file)
{
    if (file->after == file) {
        host->hand = NULL;
    } else {
        if (host->hand == file) host->hand = file->after;
        file->before->after = file->after;
        file->after->before = file->before;
    }
    file->before = file->after = NULL;
    host->open_count--;
}

static struct host_file **find(struct host_dev *host, const char *name)
{
    struct host_file **link = &host->buckets[cow_dev_name_hash(name) % BUCKETS];

    while (*link && strcmp((*link)->name, name) != 0)
        link = &(*link)->next;
    return link;
}

/* Frees the object; returns the descriptor to be closed or -1 (closing the last descriptor of a removed
 * file frees its blocks, which takes time: better without the lock). */
static int forget(struct host_dev *host, struct host_file *file)
{
    int fd = -1;

    if (!file->removed) *find(host, file->name) = file->next;
    if (load_state(file) & STATE_OPEN) {
        ring_remove(host, file);
        fd = file->fd;
    }
    pthread_mutex_destroy(&file->sync_lock);
    free(file);
    return fd;
}

static void close_fd(int fd)
{
    if (fd >= 0) (void)close(fd); /* after a sync it has nothing left to report */
}

static bool has_unsynced_writes(const struct host_file *file, uint64_t state)
{
    uint64_t writes = state / STATE_WRITE;

    return writes > WRITES_AT_OPEN && __atomic_load_n(&file->synced, __ATOMIC_ACQUIRE) < writes &&
           __atomic_load_n(&file->sync_error, __ATOMIC_RELAXED) == 0;
}

static void forget_if_idle(struct host_dev *host, struct host_file *file)
{
    uint64_t state = load_state(file);

    if (file->handles > 0 || (state & STATE_USERS)) return;
    if (has_unsynced_writes(file, state) || __atomic_load_n(&file->sync_error, __ATOMIC_RELAXED)) return;
    close_fd(forget(host, file));
}

/* Takes a pin away. The last one of a removed file that nobody has open frees it: the descriptor to be closed is
 * returned, otherwise -1. */
static int unpin(struct host_dev *host, struct host_file *file)
{
    uint64_t before = __atomic_fetch_sub(&file->state, 1, __ATOMIC_ACQ_REL);

    if (!file->removed) {
        forget_if_idle(host, file);
        return -1;
    }
    return file->handles == 0 && (before & STATE_USERS) == 1 ? forget(host, file) : -1;
}

/* ---- Sync -------------------------------------------------------------------------------------- */

static int sync_failed(const struct host_file *file, int error)
{
    return cow_fail(error, "%s: sync failed, what was written before it may be lost", file->name);
}

/* Makes the writes up to number target durable. The caller has the file pinned and open. Callers that wait for the lock
 * find their writes synced by the one before them. */
static int sync_pinned(struct host_file *file, uint64_t target)
{
    int error;

    pthread_mutex_lock(&file->sync_lock);
    error = __atomic_load_n(&file->sync_error, __ATOMIC_RELAXED);
    if (!error && __atomic_load_n(&file->synced, __ATOMIC_RELAXED) < target) {
        uint64_t writes = load_state(file) / STATE_WRITE;
        int rc;
        do
            rc = fdatasync(file->fd);
        while (rc < 0 && errno == EINTR);
        cow_count(&file->base.dev->syncs, 1);
        if (rc < 0) {
            error = errno;
            __atomic_store_n(&file->sync_error, error, __ATOMIC_RELAXED);
        } else {
            __atomic_store_n(&file->synced, writes, __ATOMIC_RELEASE);
        }
    }
    pthread_mutex_unlock(&file->sync_lock);
    return error ? sync_failed(file, error) : 0;
}

/* ---- Descriptors (under the device's lock) ----------------------------------------------------- */

static bool try_close(struct host_dev *host, struct host_file *file, uint64_t state)
{
    COW_ASSERT(state & STATE_OPEN);
    if (!__atomic_compare_exchange_n(&file->state, &state, state & ~STATE_OPEN, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED))
        return false;
    ring_remove(host, file);
    close_fd(file->fd);
    file->fd = -1;
    forget_if_idle(host, file);
    return true;
}

/* Syncs a file so that it can be closed. Leaves the lock meanwhile; a failure stays with the file. */
static void sync_to_close(struct host_dev *host, struct host_file *file)
{
    uint64_t state = __atomic_fetch_add(&file->state, 1, __ATOMIC_ACQUIRE);

    pthread_mutex_unlock(&host->lock);
    (void)sync_pinned(file, state / STATE_WRITE);
    pthread_mutex_lock(&host->lock);
    close_fd(unpin(host, file));
}

/* Closes one descriptor, or makes one ready to be closed. False when all of them are in use. */
static bool evict(struct host_dev *host)
{
    struct host_file *unsynced = NULL;

    for (uint32_t steps = 2 * host->open_count; steps > 0 && host->hand; steps--) {
        struct host_file *file = host->hand;
        host->hand = file->after;
        if (__atomic_exchange_n(&file->used, 0, __ATOMIC_RELAXED)) continue;
        uint64_t state = load_state(file);
        if (state & STATE_USERS) continue;
        if (has_unsynced_writes(file, state)) {
            if (!unsynced) unsynced = file;
            continue;
        }
        if (try_close(host, file, state)) return true;
    }
    if (!unsynced) return false;
    sync_to_close(host, unsynced);
    return true;
}

static void make_room(struct host_dev *host)
{
    for (unsigned tries = 0; host->open_count >= FD_LIMIT && tries < EVICT_TRIES; tries++)
        if (!evict(host)) return;
}

static int open_fd(struct host_dev *host, const char *name, unsigned flags, int *fd_out)
{
    int how = O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | (host->base.readonly ? O_RDONLY : O_RDWR);
    int fd;

    if ((flags & COW_DEV_CREATE) && !host->base.readonly) how |= O_CREAT;
    do
        fd = openat(host->directory, name, how, 0600); /* what containers hold is private */
    while (fd < 0 && errno == EINTR);
    if (fd < 0) return cow_fail(errno, "%s: open", name);
    *fd_out = fd;
    return 0;
}

/* Opens the descriptor of a pinned file again. May leave the lock meanwhile. */
static int reopen_locked(struct host_dev *host, struct host_file *file)
{
    for (unsigned tries = 0;; tries++) {
        make_room(host);
        if (load_state(file) & STATE_OPEN) return 0;
        if (file->removed) return cow_fail(ENOENT, "%s: was removed", file->name);
        int fd = -1, rc = open_fd(host, file->name, 0, &fd);
        if (!rc) {
            file->fd = fd;
            ring_add(host, file);
            __atomic_fetch_or(&file->state, STATE_OPEN, __ATOMIC_RELEASE);
            return 0;
        }
        /* The process or the host has no descriptors left: live with fewer. */
        if ((rc != -EMFILE && rc != -ENFILE) || tries > 2 * FD_LIMIT || !evict(host)) return rc;
    }
}

static int reopen(struct host_file *file)
{
    struct host_dev *host = host_of(file->base.dev);

    pthread_mutex_lock(&host->lock);
    int rc = reopen_locked(host, file);
    pthread_mutex_unlock(&host->lock);
    if (rc) __atomic_fetch_sub(&file->state, 1, __ATOMIC_RELEASE);
    return rc;
}

/* Pins: until file_put the descriptor stays open. */
static inline int file_get(struct host_file *file)
{
    if (!__atomic_load_n(&file->used, __ATOMIC_RELAXED)) __atomic_store_n(&file->used, 1, __ATOMIC_RELAXED);
    uint64_t before = __atomic_fetch_add(&file->state, 1, __ATOMIC_ACQUIRE);
    return (before & STATE_OPEN) ? 0 : reopen(file);
}

static inline void file_put(struct host_file *file)
{
    __atomic_fetch_sub(&file->state, 1, __ATOMIC_RELEASE);
}

/* After any change of the file. The number goes up when the change is done: a sync that began before it
 * was need not cover it, and one that begins after the writer returned sees the number. */
static inline void file_put_written(struct host_file *file)
{
    __atomic_fetch_add(&file->state, STATE_WRITE - 1, __ATOMIC_RELEASE);
}

/* ---- Open and close ---------------------------------------------------------------------------- */

static int file_new(struct host_dev *host, const char *name, unsigned flags, struct host_file **file_out)
{
    size_t name_bytes = strlen(name) + 1;
    struct host_file *file = calloc(1, sizeof *file + name_bytes);

    if (!file) return cow_fail(ENOMEM, "%s: file object", name);
    int error = pthread_mutex_init(&file->sync_lock, NULL);
    if (error) {
        free(file);
        return cow_fail(error, "%s: lock of the file", name);
    }
    int rc = open_fd(host, name, flags, &file->fd);
    if (rc) {
        pthread_mutex_destroy(&file->sync_lock);
        free(file);
        return rc;
    }
    memcpy(file->name, name, name_bytes);
    file->base = (struct cow_dev_file){.dev = &host->base, .name = file->name};
    file->state = STATE_OPEN + WRITES_AT_OPEN * STATE_WRITE;
    file->used = 1;
    file->next = NULL;
    *find(host, name) = file; /* the end of its bucket */
    ring_add(host, file);
    *file_out = file;
    return 0;
}

static int open_locked(struct host_dev *host, const char *name, unsigned flags, struct host_file **file_out)
{
    for (unsigned tries = 0;; tries++) {
        make_room(host);
        int rc = 0;
        *file_out = *find(host, name);
        if (!*file_out) rc = file_new(host, name, flags, file_out);
        if (!rc) {
            (*file_out)->handles++;
            return 0;
        }
        if ((rc != -EMFILE && rc != -ENFILE) || tries > 2 * FD_LIMIT || !evict(host)) return rc;
    }
}

static int truncate_file(struct host_file *file)
{
    int rc = file_get(file);

    if (rc) return rc;
    do
        rc = ftruncate(file->fd, 0);
    while (rc < 0 && errno == EINTR);
    if (rc < 0) rc = cow_fail(errno, "%s: truncation", file->name);
    file_put_written(file);
    return rc;
}

static void host_close(struct cow_dev_file *base)
{
    struct host_dev *host = host_of(base->dev);
    struct host_file *file = file_of(base);
    int fd = -1;

    pthread_mutex_lock(&host->lock);
    COW_ASSERT(file->handles > 0);
    if (--file->handles == 0) {
        if (file->removed)
            fd = unpin(host, file); /* the pin that remove_known left */
        else
            forget_if_idle(host, file);
    }
    pthread_mutex_unlock(&host->lock);
    close_fd(fd);
}

static int host_open(struct cow_dev *dev, const char *name, unsigned flags, struct cow_dev_file **file_out)
{
    struct host_dev *host = host_of(dev);
    struct host_file *file = NULL;
    int rc = cow_dev_check_name(name);

    if (!rc && (flags & COW_DEV_TRUNCATE)) rc = refuse_readonly(dev, name);
    if (rc) return rc;
    pthread_mutex_lock(&host->lock);
    rc = open_locked(host, name, flags, &file);
    pthread_mutex_unlock(&host->lock);
    if (rc) return rc;
    if (flags & COW_DEV_TRUNCATE) rc = truncate_file(file);
    if (rc) {
        host_close(&file->base);
        return rc;
    }
    *file_out = &file->base;
    return 0;
}

/* ---- Bytes ------------------------------------------------------------------------------------- */

static int check_range(const struct host_file *file, uint64_t offset, uint64_t length)
{
    return cow_dev_check_range(file->name, offset, length, INT64_MAX);
}

static int64_t host_read(struct cow_dev_file *base, uint64_t offset, void *buffer, size_t length)
{
    struct host_file *file = file_of(base);
    int rc = check_range(file, offset, length);
    size_t done = 0;

    if (!rc) rc = file_get(file);
    if (rc) return rc;
    while (done < length) {
        ssize_t got = pread(file->fd, (uint8_t *)buffer + done, length - done, (off_t)(offset + done));
        if (got == 0) break;
        if (got > 0) {
            done += (size_t)got;
        } else if (errno != EINTR) {
            rc = cow_fail(errno, "%s: read of %zu bytes at %llu", file->name, length, (unsigned long long)offset);
            break;
        }
    }
    file_put(file);
    cow_count(&base->dev->bytes_read, done);
    return rc ? rc : (int64_t)done;
}

static int host_write(struct cow_dev_file *base, uint64_t offset, const void *buffer, size_t length)
{
    struct host_file *file = file_of(base);
    int rc = refuse_readonly(base->dev, file->name);
    size_t done = 0;

    if (!rc) rc = check_range(file, offset, length);
    if (!rc) rc = file_get(file);
    if (rc) return rc;
    while (done < length && !rc) {
        ssize_t put = pwrite(file->fd, (const uint8_t *)buffer + done, length - done, (off_t)(offset + done));
        if (put > 0)
            done += (size_t)put;
        else if (put == 0 || errno != EINTR)
            rc = cow_fail(put == 0 ? EIO : errno, "%s: write of %zu bytes at %llu", file->name, length,
                          (unsigned long long)offset);
    }
    file_put_written(file);
    cow_count(&base->dev->bytes_written, done);
    return rc;
}

static int host_sync(struct cow_dev_file *base)
{
    struct host_file *file = file_of(base);
    int error = __atomic_load_n(&file->sync_error, __ATOMIC_RELAXED);
    uint64_t target = load_state(file) / STATE_WRITE;

    if (error) return sync_failed(file, error);
    if (base->dev->readonly || __atomic_load_n(&file->synced, __ATOMIC_ACQUIRE) >= target) return 0;
    int rc = file_get(file);
    if (rc) return rc;
    rc = sync_pinned(file, target);
    file_put(file);
    return rc;
}

static int host_size(struct cow_dev_file *base, uint64_t *bytes_out)
{
    struct host_file *file = file_of(base);
    struct stat status;
    int rc = file_get(file);

    if (rc) return rc;
    if (fstat(file->fd, &status) < 0)
        rc = cow_fail(errno, "%s: size", file->name);
    else
        *bytes_out = (uint64_t)status.st_size;
    file_put(file);
    return rc;
}

static bool is_unsupported(int error)
{
    return error == EOPNOTSUPP || error == ENOSYS;
}

/* The host cannot reserve: at least the size is as if it could. Nobody writes beyond the end of a file
 * while it is being reserved. */
static int grow_only(struct host_file *file, uint64_t size)
{
    struct stat status;

    if (fstat(file->fd, &status) < 0) return cow_fail(errno, "%s: size", file->name);
    if ((uint64_t)status.st_size >= size || ftruncate(file->fd, (off_t)size) == 0) return 0;
    return cow_fail(errno, "%s: growth to %llu bytes", file->name, (unsigned long long)size);
}

static int host_allocate(struct cow_dev_file *base, int mode, uint64_t offset, uint64_t length)
{
    struct host_file *file = file_of(base);
    int rc = refuse_readonly(base->dev, file->name);

    if (!rc) rc = check_range(file, offset, length);
    if (rc || length == 0) return rc;
    rc = file_get(file);
    if (rc) return rc;
    do
        rc = fallocate(file->fd, mode, (off_t)offset, (off_t)length);
    while (rc < 0 && errno == EINTR);
    if (rc < 0 && is_unsupported(errno))
        rc = mode == 0 ? grow_only(file, offset + length) : 0;
    else if (rc < 0)
        rc = cow_fail(errno, "%s: %s of %llu bytes at %llu", file->name, mode == 0 ? "reservation" : "release",
                      (unsigned long long)length, (unsigned long long)offset);
    file_put_written(file);
    return rc;
}

static int host_reserve(struct cow_dev_file *file, uint64_t offset, uint64_t length)
{
    return host_allocate(file, 0, offset, length);
}

static int host_punch(struct cow_dev_file *file, uint64_t offset, uint64_t length)
{
    return host_allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}

/* ---- The name space ---------------------------------------------------------------------------- */

static int unlink_name(struct host_dev *host, const char *name)
{
    return unlinkat(host->directory, name, 0) == 0 ? 0 : cow_fail(errno, "%s: removal", name);
}

/* The file is known here. Who has it open goes on using it, so its descriptor must stay: it cannot be
 * opened again. */
static int remove_known(struct host_dev *host, struct host_file *file, int *fd_out)
{
    __atomic_fetch_add(&file->state, 1, __ATOMIC_ACQUIRE);
    int rc = file->handles > 0 ? reopen_locked(host, file) : 0;
    /* That may have left the lock for a while. */
    if (!rc && file->removed) rc = cow_fail(ENOENT, "%s: was removed", file->name);
    if (!rc) rc = unlink_name(host, file->name);
    if (!rc) {
        *find(host, file->name) = file->next;
        file->removed = true;
        if (file->handles > 0) return 0; /* the pin stays until the last close */
    }
    *fd_out = unpin(host, file);
    return rc;
}

static int host_remove(struct cow_dev *dev, const char *name)
{
    struct host_dev *host = host_of(dev);
    int rc = cow_dev_check_name(name);

    if (!rc) rc = refuse_readonly(dev, name);
    if (rc) return rc;
    int fd = -1;
    pthread_mutex_lock(&host->lock);
    struct host_file *file = *find(host, name);
    if (file) rc = remove_known(host, file, &fd);
    pthread_mutex_unlock(&host->lock);
    close_fd(fd); /* frees the blocks of a file that nobody has open */
    return file ? rc : unlink_name(host, name);
}

static int host_make_dir(struct cow_dev *dev, const char *name)
{
    int rc = cow_dev_check_folder(name);

    if (!rc) rc = refuse_readonly(dev, name);
    return rc ? rc : cow_host_make_dir(host_of(dev)->directory, name);
}

static int host_sync_dir(struct cow_dev *dev, const char *name)
{
    int rc = cow_dev_check_folder(name);

    if (rc || dev->readonly) return rc;
    cow_count(&dev->syncs, 1);
    return cow_host_sync_dir(host_of(dev)->directory, name);
}

static int host_list(struct cow_dev *dev, const char *folder, void (*each)(void *context, const char *name),
                     void *context)
{
    struct cow_dev_names names = {0};
    int rc = cow_dev_check_folder(folder);

    if (!rc) rc = cow_host_list(host_of(dev)->directory, folder, &names);
    if (!rc) cow_dev_names_each(&names, each, context);
    cow_dev_names_deinit(&names);
    return rc;
}

static int host_usage(struct cow_dev *dev, uint64_t *bytes_out)
{
    return cow_host_usage(host_of(dev)->directory, bytes_out);
}

static void host_destroy(struct cow_dev *dev)
{
    struct host_dev *host = host_of(dev);

    for (unsigned b = 0; b < BUCKETS; b++) {
        while (host->buckets[b]) {
            COW_ASSERT(host->buckets[b]->handles == 0);
            close_fd(forget(host, host->buckets[b]));
        }
    }
    COW_ASSERT(host->open_count == 0);
    close_fd(host->directory);
    pthread_mutex_destroy(&host->lock);
    free(host);
}

static const struct cow_dev_ops host_ops = {
    .open = host_open,
    .close = host_close,
    .read = host_read,
    .write = host_write,
    .sync = host_sync,
    .size = host_size,
    .reserve = host_reserve,
    .punch = host_punch,
    .remove = host_remove,
    .make_dir = host_make_dir,
    .sync_dir = host_sync_dir,
    .list = host_list,
    .usage = host_usage,
    .destroy = host_destroy,
};

int cow_dev_files_open(const char *path, bool readonly, struct cow_dev **dev_out)
{
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (directory < 0) return cow_fail(errno, "%s: open", path);
    struct host_dev *host = calloc(1, sizeof *host);
    if (!host) {
        close_fd(directory);
        return cow_fail(ENOMEM, "device of %s", path);
    }
    int error = pthread_mutex_init(&host->lock, NULL);
    if (error) {
        free(host);
        close_fd(directory);
        return cow_fail(error, "lock of the device of %s", path);
    }
    host->base.ops = &host_ops;
    host->base.readonly = readonly;
    host->directory = directory;
    *dev_out = &host->base;
    return 0;
}
