/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths. A walk consumes components from the front of what is left; a symlink puts its target in front of the rest.
 * Two buffers take turns in holding what is left, so nothing is allocated and nothing recurses. The way back, from an
 * inode to a path, writes names from the end of the buffer while it goes up the parents.
 */
#include <sys/stat.h>

#include "fs/names.h"

#define LINKS_MAX 40u
#define LEVELS_MAX 4096u

struct walk {
    struct cow_tree *tree;
    uint64_t at;      /* the inode reached */
    uint32_t mode;    /* of it */
    const char *rest; /* what is left */
    size_t rest_bytes;
    unsigned links;
    char buffers[2][COW_PATH_BYTES_MAX + 1];
};

static int check_path(const char *path, size_t path_bytes)
{
    if (path_bytes == 0) return cow_fail(ENOENT, "an empty path");
    if (path_bytes > COW_PATH_BYTES_MAX) return cow_fail(ENAMETOOLONG, "a path of %zu bytes", path_bytes);
    return memchr(path, 0, path_bytes) ? cow_fail(EINVAL, "a path may not hold NUL") : 0;
}

static int arrive(struct walk *walk, uint64_t ino)
{
    struct cow_inode inode;
    int rc = cow_tree_get_inode(walk->tree, ino, &inode);
    if (rc) return rc;
    walk->at = ino;
    walk->mode = inode.mode;
    return 0;
}

static void skip_slashes(struct walk *walk)
{
    while (walk->rest_bytes && *walk->rest == '/') {
        walk->rest++;
        walk->rest_bytes--;
    }
}

/* Takes the next component off; 0 bytes at the end. */
static size_t take(struct walk *walk, const char **name_out)
{
    skip_slashes(walk);
    const char *slash = walk->rest_bytes ? memchr(walk->rest, '/', walk->rest_bytes) : NULL;
    size_t bytes = slash ? (size_t)(slash - walk->rest) : walk->rest_bytes;
    *name_out = walk->rest;
    walk->rest += bytes;
    walk->rest_bytes -= bytes;
    return bytes;
}

/* Whether only slashes are left. */
static bool at_end(const struct walk *walk)
{
    for (size_t i = 0; i < walk->rest_bytes; i++)
        if (walk->rest[i] != '/') return false;
    return true;
}

/* Goes on with the target of symlink ino from directory walk->at. */
static int follow(struct walk *walk, uint64_t ino)
{
    if (++walk->links > LINKS_MAX) return cow_fail(ELOOP, "more than %u symlinks", LINKS_MAX);
    char *buffer = walk->buffers[walk->links % 2];
    int64_t target = cow_fs_read_link(walk->tree, ino, buffer, COW_PATH_BYTES_MAX);
    if (target < 0) return (int)target;
    if ((size_t)target + walk->rest_bytes > COW_PATH_BYTES_MAX)
        return cow_fail(ENAMETOOLONG, "a path with its symlinks is too long");
    memcpy(buffer + target, walk->rest, walk->rest_bytes);
    walk->rest = buffer;
    walk->rest_bytes += (size_t)target;
    return *buffer == '/' ? arrive(walk, COW_ROOT_INO) : 0;
}

static int step(struct walk *walk, const char *name, size_t name_bytes, bool follow_last)
{
    if (!S_ISDIR(walk->mode)) return -ENOTDIR;
    if (name_bytes == 1 && name[0] == '.') return 0;
    uint64_t ino, dir = walk->at;
    uint32_t dir_mode = walk->mode;
    int rc = cow_fs_lookup(walk->tree, dir, name, name_bytes, &ino);
    if (!rc) rc = arrive(walk, ino);
    if (rc) return rc;
    if (S_ISLNK(walk->mode) && (walk->rest_bytes > 0 || follow_last)) { /* "link/" is what it leads to */
        walk->at = dir;
        walk->mode = dir_mode;
        return follow(walk, ino);
    }
    return 0;
}

static int begin(struct walk *walk, struct cow_tree *tree, uint64_t start, const char *path, size_t path_bytes)
{
    walk->tree = tree;
    walk->rest = path;
    walk->rest_bytes = path_bytes;
    walk->links = 0;
    int rc = check_path(path, path_bytes);
    return rc ? rc : arrive(walk, path[0] == '/' ? COW_ROOT_INO : start);
}

int cow_fs_walk(struct cow_tree *tree, uint64_t start, const char *path, size_t path_bytes, uint32_t flags,
                uint64_t *ino_out)
{
    struct walk walk;
    int rc = begin(&walk, tree, start, path, path_bytes);
    if (rc) return rc;
    const char *name;
    size_t name_bytes;
    while ((name_bytes = take(&walk, &name)) > 0) {
        rc = step(&walk, name, name_bytes, !(flags & COW_WALK_NOFOLLOW));
        if (rc) return rc;
        if (at_end(&walk) && walk.rest_bytes > 0 && !S_ISDIR(walk.mode)) return -ENOTDIR; /* "file/" */
    }
    if (!S_ISDIR(walk.mode) && path[path_bytes - 1] == '/') return -ENOTDIR;
    *ino_out = walk.at;
    return 0;
}

int cow_fs_parent(struct cow_tree *tree, uint64_t start, const char *path, size_t path_bytes, uint64_t *dir_out,
                  size_t *name_offset_out, size_t *name_bytes_out)
{
    int rc = check_path(path, path_bytes);
    if (rc) return rc;
    size_t end = path_bytes;
    while (end > 0 && path[end - 1] == '/')
        end--;
    size_t at = end;
    while (at > 0 && path[at - 1] != '/')
        at--;
    rc = end == at ? cow_fail(EINVAL, "the path has no last name") : cow_name_check_new(path + at, end - at);
    if (rc) return rc;
    uint64_t dir = path[0] == '/' ? COW_ROOT_INO : start;
    if (at > 0) {
        rc = cow_fs_walk(tree, start, path, at, 0, &dir);
    } else {
        struct cow_inode inode;
        rc = cow_tree_get_inode(tree, dir, &inode);
        if (!rc && !S_ISDIR(inode.mode)) rc = -ENOTDIR;
    }
    if (rc) return rc;
    *dir_out = dir;
    *name_offset_out = at;
    *name_bytes_out = end - at;
    return 0;
}

int cow_fs_path_of(struct cow_tree *tree, uint64_t ino, char *buffer, size_t capacity, size_t *path_bytes_out)
{
    struct cow_inode inode;
    int rc = cow_tree_get_inode(tree, ino, &inode);
    size_t at = capacity; /* buffer[at..capacity) is written */
    for (unsigned level = 0; !rc && inode.ino != COW_ROOT_INO; level++) {
        char name[COW_NAME_BYTES_MAX];
        if (inode.nlink == 0) return cow_fail(ENOENT, "inode %llu has no name", (unsigned long long)ino);
        if (level == LEVELS_MAX) return cow_fail(ELOOP, "more than %u levels of directories", LEVELS_MAX);
        int name_bytes = cow_name_of(tree, inode.parent, inode.name_hash, inode.ino, 0, name);
        if (name_bytes < 0) return name_bytes;
        if (at < (size_t)name_bytes + 1) return -ERANGE;
        at -= (size_t)name_bytes;
        memcpy(buffer + at, name, (size_t)name_bytes);
        buffer[--at] = '/';
        rc = cow_tree_get_inode(tree, inode.parent, &inode);
    }
    if (rc) return rc;
    if (at == capacity) { /* the root */
        if (capacity == 0) return -ERANGE;
        buffer[--at] = '/';
    }
    memmove(buffer, buffer + at, capacity - at);
    *path_bytes_out = capacity - at;
    return 0;
}
