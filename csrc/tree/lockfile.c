/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file "lock": who has the store open, among processes. Locks are open-file-description locks (they go with the
 * descriptor, so a killed process leaves none behind).
 *
 *   byte 0                      the writer's lock
 *   byte 4096 + slot            held by reader number slot
 *   byte 5120                   held (shared) by readers who may not write this file: keep everything
 *   8 bytes at 8192 + 8 * slot  the generation that this reader sees; blocks released after it are kept
 *
 * A reader takes a slot with generation 0 (keeps everything), reads the superblock, and then stores its generation: so
 * there is no moment at which the writer could reuse what the reader is about to see.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "tree/store.h"

#define SLOTS 1024u
#define SLOT_LOCKS 4096
#define KEEP_ALL (SLOT_LOCKS + (off_t)SLOTS)
#define SLOT_VALUES 8192

struct cow_lockfile {
    int fd;
    bool pinning; /* a slot is ours, or KEEP_ALL */
    bool keep_all;
    unsigned slot;
};

static int try_lock(int fd, short type, off_t start)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 1};
    int rc;
    do rc = fcntl(fd, F_OFD_SETLK, &lock);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : 0;
}

int cow_lockfile_open(const char *path, bool readonly, struct cow_lockfile **lockfile_out)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (readonly ? 0 : O_CREAT), 0644);
    bool keep_all = fd < 0 && readonly && errno == EACCES;
    if (keep_all) fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && readonly && (errno == EROFS || errno == ENOENT)) {
        *lockfile_out = NULL; /* nobody can write there, or nobody ever did: there is nothing to pin against */
        return 0;
    }
    if (fd < 0) return cow_fail(errno, "%s (%s)", path, strerror(errno));
    int pinned = keep_all ? try_lock(fd, F_RDLCK, KEEP_ALL) : 0;
    if (pinned) {
        (void)close(fd);
        return cow_fail(-pinned, "%s", path);
    }
    if (!readonly) {
        int rc = try_lock(fd, F_WRLCK, 0);
        if (rc) {
            (void)close(fd);
            if (rc == -EACCES) rc = -EAGAIN;
            return cow_fail(-rc, "another process has the store open for writing");
        }
    }
    struct cow_lockfile *lockfile = calloc(1, sizeof *lockfile);
    if (!lockfile) {
        (void)close(fd);
        return -ENOMEM;
    }
    lockfile->fd = fd;
    lockfile->keep_all = lockfile->pinning = keep_all;
    *lockfile_out = lockfile;
    return 0;
}

void cow_lockfile_close(struct cow_lockfile *lockfile)
{
    if (!lockfile) return;
    (void)close(lockfile->fd);
    free(lockfile);
}

static int take_slot(struct cow_lockfile *lockfile)
{
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        int rc = try_lock(lockfile->fd, F_WRLCK, SLOT_LOCKS + (off_t)slot);
        if (rc == -EAGAIN || rc == -EACCES) continue;
        if (rc) return cow_fail(-rc, "lock");
        lockfile->slot = slot;
        return 0;
    }
    return cow_fail(EUSERS, "%u processes read the store already", SLOTS);
}

int cow_lockfile_pin(struct cow_lockfile *lockfile, uint64_t generation)
{
    /* A slot may still have the value of the reader before: an older generation than this reader will see, which keeps
     * more than is needed until the value is written, never less. */
    if (!lockfile->pinning) {
        int rc = take_slot(lockfile);
        if (rc) return rc;
        lockfile->pinning = true;
    }
    if (lockfile->keep_all) return 0;
    uint8_t bytes[8];
    cow_store64(bytes, generation);
    ssize_t n = pwrite(lockfile->fd, bytes, sizeof bytes, SLOT_VALUES + 8 * (off_t)lockfile->slot);
    if (n != (ssize_t)sizeof bytes) return cow_fail(n < 0 ? errno : EIO, "lock");
    return 0;
}

static uint64_t slot_value(const struct cow_lockfile *lockfile, unsigned slot)
{
    uint8_t bytes[8];
    ssize_t n = pread(lockfile->fd, bytes, sizeof bytes, SLOT_VALUES + 8 * (off_t)slot);
    return n == (ssize_t)sizeof bytes ? cow_load64(bytes) : 0;
}

uint64_t cow_lockfile_oldest(struct cow_lockfile *lockfile)
{
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = KEEP_ALL, .l_len = 1};
    if (fcntl(lockfile->fd, F_OFD_GETLK, &all) < 0 || all.l_type != F_UNLCK) return 0;
    uint64_t oldest = UINT64_MAX;
    off_t start = SLOT_LOCKS;
    const off_t end = SLOT_LOCKS + (off_t)SLOTS;
    while (start < end) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = end - start};
        if (fcntl(lockfile->fd, F_OFD_GETLK, &lock) < 0) return 0; /* unknown: keep everything */
        if (lock.l_type == F_UNLCK) break;
        for (off_t at = lock.l_start; at < lock.l_start + lock.l_len; at++) {
            uint64_t value = slot_value(lockfile, (unsigned)(at - SLOT_LOCKS));
            if (value < oldest) oldest = value;
        }
        start = lock.l_start + lock.l_len;
    }
    return oldest;
}
