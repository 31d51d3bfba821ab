/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_dir.c: directories of the host. Each call opens the directory anew, because reading one moves a position that
 * the descriptor shares with everybody. A file that vanishes while it is looked at is not counted.
 */
#include "dev/host_dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *shown(const char *folder)
{
    return folder[0] ? folder : "the store's directory";
}

static int open_folder(int top, const char *folder, int *fd_out)
{
    int fd = openat(top, folder[0] ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0) return cow_fail(errno, "%s: open", shown(folder));
    *fd_out = fd;
    return 0;
}

int cow_host_make_dir(int top, const char *folder)
{
    struct stat status;

    if (folder[0] == 0 || mkdirat(top, folder, 0700) == 0) return 0;
    if (errno != EEXIST) return cow_fail(errno, "%s: making the folder", folder);
    if (fstatat(top, folder, &status, AT_SYMLINK_NOFOLLOW) < 0) return cow_fail(errno, "%s: status", folder);
    return S_ISDIR(status.st_mode) ? 0 : cow_fail(ENOTDIR, "%s: is in the way of a folder", folder);
}

int cow_host_sync_dir(int top, const char *folder)
{
    int fd = -1, result, rc = open_folder(top, folder, &fd);

    if (rc) return rc;
    do
        result = fsync(fd);
    while (result < 0 && errno == EINTR);
    if (result < 0) rc = cow_fail(errno, "%s: sync", shown(folder));
    (void)close(fd);
    return rc;
}

struct visitor {
    int (*visit)(struct visitor *visitor, const char *name, const struct stat *status);
    struct cow_dev_names *names; /* or folders to be looked at later */
    uint64_t bytes;
};

static int visit_entries(DIR *stream, const char *folder, struct visitor *visitor)
{
    int rc = 0;

    while (!rc) {
        struct stat status;
        errno = 0;
        const struct dirent *entry = readdir(stream);
        if (!entry) return errno ? cow_fail(errno, "%s: reading the folder", shown(folder)) : 0;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (fstatat(dirfd(stream), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0)
            rc = visitor->visit(visitor, entry->d_name, &status);
        else if (errno != ENOENT)
            rc = cow_fail(errno, "%s: status of %s", shown(folder), entry->d_name);
    }
    return rc;
}

static int visit_folder(int top, const char *folder, struct visitor *visitor)
{
    int fd = -1, rc = open_folder(top, folder, &fd);

    if (rc) return rc;
    DIR *stream = fdopendir(fd);
    if (!stream) {
        rc = cow_fail(errno, "%s: reading the folder", shown(folder));
        (void)close(fd);
        return rc;
    }
    rc = visit_entries(stream, folder, visitor);
    (void)closedir(stream);
    return rc;
}

static int visit_name(struct visitor *visitor, const char *name, const struct stat *status)
{
    return S_ISREG(status->st_mode) ? cow_dev_names_add(visitor->names, name) : 0;
}

int cow_host_list(int top, const char *folder, struct cow_dev_names *names)
{
    struct visitor visitor = {.visit = visit_name, .names = names};

    return visit_folder(top, folder, &visitor);
}

static int visit_charged(struct visitor *visitor, const char *name, const struct stat *status)
{
    if (S_ISREG(status->st_mode)) visitor->bytes += (uint64_t)status->st_blocks * 512;
    return S_ISDIR(status->st_mode) && visitor->names ? cow_dev_names_add(visitor->names, name) : 0;
}

int cow_host_usage(int top, uint64_t *bytes_out)
{
    struct cow_dev_names folders = {0};
    struct visitor visitor = {.visit = visit_charged, .names = &folders};
    int rc = visit_folder(top, "", &visitor);

    visitor.names = NULL; /* one level only */
    for (size_t at = 0; at < folders.length && !rc; at += strlen(folders.text + at) + 1)
        rc = visit_folder(top, folders.text + at, &visitor);
    cow_dev_names_deinit(&folders);
    if (rc) return rc;
    *bytes_out = visitor.bytes;
    return 0;
}
