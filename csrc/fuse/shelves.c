/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directories of a mounted store that are no part of a tree: "containers", "images", ... A shelf has its children twice,
 * sorted by name for lookups and in the order of their making for listings (a listing goes on behind the last serial it
 * told, whatever came or went meanwhile). Shelves are few and small. One that was removed is kept until the end: the
 * kernel may still know its node.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "fuse/mount.h"

#define SHELF_INO_BIT ((uint64_t)1 << 63)

static struct cow_shelf *make_shelf(struct cow_mount *mount, struct cow_shelf *parent, const char *name, size_t name_bytes,
                                    uint64_t tree)
{
    struct cow_shelf *shelf = calloc(1, sizeof *shelf);
    if (!shelf) return NULL;
    shelf->parent = parent;
    shelf->tree = tree;
    shelf->serial = ++mount->next_serial;
    shelf->node = (struct cow_knode){.shelf = shelf, .ino = SHELF_INO_BIT | shelf->serial};
    shelf->changed_ns = cow_now_ns();
    shelf->name_bytes = name_bytes;
    memcpy(shelf->name, name, name_bytes);
    return shelf;
}

int cow_shelves_open(struct cow_mount *mount)
{
    pthread_rwlock_init(&mount->shelves_lock, NULL);
    mount->top = make_shelf(mount, NULL, "", 0, 0);
    return mount->top ? 0 : -ENOMEM;
}

static void free_shelf(struct cow_shelf *shelf)
{
    free(shelf->by_serial);
    free(shelf->by_name);
    free(shelf);
}

/* Goes down to a shelf without children, frees it, and looks again from its parent. */
static void free_below(struct cow_shelf *top)
{
    struct cow_shelf *at = top;
    while (at) {
        if (at->count > 0) {
            at = at->by_serial[--at->count];
            continue;
        }
        struct cow_shelf *up = at == top ? NULL : at->parent;
        free_shelf(at);
        at = up;
    }
}

void cow_shelves_close(struct cow_mount *mount)
{
    free_below(mount->top);
    while (mount->removed) {
        struct cow_shelf *shelf = mount->removed;
        mount->removed = shelf->parent;
        free_shelf(shelf);
    }
    pthread_rwlock_destroy(&mount->shelves_lock);
}

/* ---- Searching ---- */

static int compare(const struct cow_shelf *shelf, const char *name, size_t name_bytes)
{
    size_t common = shelf->name_bytes < name_bytes ? shelf->name_bytes : name_bytes;
    int order = memcmp(shelf->name, name, common);
    if (order) return order;
    return shelf->name_bytes < name_bytes ? -1 : shelf->name_bytes > name_bytes;
}

/* Where name stands, or would, in by_name. */
static size_t place_of(const struct cow_shelf *shelf, const char *name, size_t name_bytes)
{
    size_t low = 0, high = shelf->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (compare(shelf->by_name[middle], name, name_bytes) < 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

static size_t after_serial(const struct cow_shelf *shelf, uint64_t serial)
{
    size_t low = 0, high = shelf->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (shelf->by_serial[middle]->serial <= serial) low = middle + 1;
        else high = middle;
    }
    return low;
}

static struct cow_shelf *child_of(const struct cow_shelf *shelf, const char *name, size_t name_bytes)
{
    size_t at = place_of(shelf, name, name_bytes);
    if (at == shelf->count || compare(shelf->by_name[at], name, name_bytes) != 0) return NULL;
    return shelf->by_name[at];
}

int cow_shelf_find(struct cow_mount *mount, struct cow_shelf *shelf, const char *name, uint64_t *tree_out,
                   struct cow_shelf **child_out)
{
    pthread_rwlock_rdlock(&mount->shelves_lock);
    struct cow_shelf *child = child_of(shelf, name, strlen(name));
    if (child) {
        *tree_out = child->tree;
        *child_out = child->tree ? NULL : child;
    }
    pthread_rwlock_unlock(&mount->shelves_lock);
    return child ? 0 : -ENOENT;
}

void cow_shelf_stat(struct cow_mount *mount, struct cow_shelf *shelf, struct stat *st_out)
{
    pthread_rwlock_rdlock(&mount->shelves_lock);
    struct timespec changed = {shelf->changed_ns / 1000000000, shelf->changed_ns % 1000000000};
    *st_out = (struct stat){.st_ino = shelf->node.ino,
                            .st_mode = S_IFDIR | 0555,
                            .st_nlink = 2 + shelf->count,
                            .st_uid = geteuid(),
                            .st_gid = getegid(),
                            .st_blksize = COW_BLOCK_BYTES,
                            .st_mtim = changed,
                            .st_ctim = changed,
                            .st_atim = changed};
    pthread_rwlock_unlock(&mount->shelves_lock);
}

int cow_shelf_next(struct cow_mount *mount, struct cow_shelf *shelf, uint64_t serial, struct cow_shelf *copy_out)
{
    pthread_rwlock_rdlock(&mount->shelves_lock);
    size_t at = after_serial(shelf, serial);
    bool found = at < shelf->count;
    if (found) *copy_out = *shelf->by_serial[at];
    pthread_rwlock_unlock(&mount->shelves_lock);
    return found;
}

/* ---- Changing ---- */

static int grow_shelf(struct cow_shelf *shelf)
{
    if (shelf->count < shelf->capacity) return 0;
    size_t capacity = shelf->capacity ? shelf->capacity * 2 : 8;
    struct cow_shelf **by_serial = realloc(shelf->by_serial, capacity * sizeof(struct cow_shelf *));
    if (by_serial) shelf->by_serial = by_serial;
    struct cow_shelf **by_name = realloc(shelf->by_name, capacity * sizeof(struct cow_shelf *));
    if (by_name) shelf->by_name = by_name;
    if (!by_serial || !by_name) return -ENOMEM;
    shelf->capacity = capacity;
    return 0;
}

static int add_child(struct cow_mount *mount, struct cow_shelf *shelf, const char *name, size_t name_bytes, uint64_t tree)
{
    int rc = grow_shelf(shelf);
    struct cow_shelf *child = rc ? NULL : make_shelf(mount, shelf, name, name_bytes, tree);
    if (!child) return -ENOMEM;
    size_t at = place_of(shelf, name, name_bytes);
    memmove(&shelf->by_name[at + 1], &shelf->by_name[at], (shelf->count - at) * sizeof *shelf->by_name);
    shelf->by_name[at] = child;
    shelf->by_serial[shelf->count++] = child;
    shelf->changed_ns = cow_now_ns();
    return 0;
}

static void remove_child(struct cow_mount *mount, struct cow_shelf *shelf, struct cow_shelf *child)
{
    size_t name_at = place_of(shelf, child->name, child->name_bytes);
    size_t serial_at = after_serial(shelf, child->serial) - 1;
    COW_ASSERT(shelf->by_name[name_at] == child && shelf->by_serial[serial_at] == child);
    shelf->count--;
    memmove(&shelf->by_name[name_at], &shelf->by_name[name_at + 1], (shelf->count - name_at) * sizeof *shelf->by_name);
    memmove(&shelf->by_serial[serial_at], &shelf->by_serial[serial_at + 1],
            (shelf->count - serial_at) * sizeof *shelf->by_serial);
    shelf->changed_ns = cow_now_ns();
    if (child->tree) {
        free_shelf(child);
        return;
    }
    child->parent = mount->removed;
    mount->removed = child;
}

static void tell_kernel(struct cow_mount *mount, struct cow_shelf *shelf, const char *name, size_t name_bytes)
{
    fuse_ino_t id = cow_knode_id(mount, &shelf->node);
    cow_notify_entry(mount, id, name, name_bytes);
    cow_notify_inode(mount, id, NULL, 0);
}

struct part {
    const char *name;
    size_t bytes;
};

/* The next part of a path; 0 at its end, negative for a name that cannot be. */
static int next_part(const char **path, const char *end, struct part *part)
{
    if (*path == end) return 0;
    const char *slash = memchr(*path, '/', (size_t)(end - *path));
    *part = (struct part){*path, (size_t)((slash ? slash : end) - *path)};
    *path = slash ? slash + 1 : end;
    if (part->bytes == 0 || part->bytes > COW_NAME_BYTES_MAX || memchr(part->name, 0, part->bytes))
        return cow_fail(EINVAL, "a path of the mount with a bad name in it");
    if (part->name[0] == '.' && (part->bytes == 1 || (part->bytes == 2 && part->name[1] == '.')))
        return cow_fail(EINVAL, "a path of the mount with a bad name in it");
    return 1;
}

static int set_entry(struct cow_mount *mount, const char *path, const char *end, uint64_t tree)
{
    struct cow_shelf *shelf = mount->top;
    struct part part;
    int rc;
    while ((rc = next_part(&path, end, &part)) == 1) {
        bool last = path == end;
        struct cow_shelf *child = child_of(shelf, part.name, part.bytes);
        if (child && !last && child->tree) return cow_fail(EEXIST, "a part of that path is a tree in the mount");
        if (child && last && !child->tree && tree)
            return cow_fail(EEXIST, "that path is a directory of other trees in the mount");
        if (child && last && child->tree == tree) return 0;
        if (child && last) child->tree = tree;
        if (!child) rc = add_child(mount, shelf, part.name, part.bytes, last ? tree : 0);
        if (rc < 0) return rc;
        if (!child || last) tell_kernel(mount, shelf, part.name, part.bytes);
        shelf = last ? shelf : child_of(shelf, part.name, part.bytes);
    }
    return rc;
}

/* tree 0 makes a directory. */
int cow_mount_set_entry(cow_mount *mount, const char *path, size_t path_bytes, uint64_t tree)
{
    if (!mount || !path || mount->tree_id) return cow_fail(EINVAL, "entries are for the mount of a whole store");
    pthread_rwlock_wrlock(&mount->shelves_lock);
    int rc = path_bytes ? set_entry(mount, path, path + path_bytes, tree) : cow_fail(EINVAL, "an empty path");
    pthread_rwlock_unlock(&mount->shelves_lock);
    cow_notify_settle(mount);
    return rc;
}

static int remove_entry(struct cow_mount *mount, const char *path, const char *end)
{
    struct cow_shelf *shelf = mount->top, *child = NULL;
    struct part part;
    int rc;
    while ((rc = next_part(&path, end, &part)) == 1) {
        shelf = child ? child : shelf;
        child = child_of(shelf, part.name, part.bytes);
        if (!child) return -ENOENT;
    }
    if (rc < 0 || !child) return rc < 0 ? rc : -ENOENT;
    if (child->count > 0) return -ENOTEMPTY;
    while (child->parent) { /* directories that became empty go with it, but those at the top stay */
        shelf = child->parent;
        struct part gone = {child->name, child->name_bytes};
        tell_kernel(mount, shelf, gone.name, gone.bytes);
        remove_child(mount, shelf, child);
        child = shelf;
        if (shelf->count > 0 || !shelf->parent || !shelf->parent->parent) break;
    }
    return 0;
}

int cow_mount_remove_entry(cow_mount *mount, const char *path, size_t path_bytes)
{
    if (!mount || !path || mount->tree_id) return cow_fail(EINVAL, "entries are for the mount of a whole store");
    pthread_rwlock_wrlock(&mount->shelves_lock);
    int rc = remove_entry(mount, path, path + path_bytes);
    pthread_rwlock_unlock(&mount->shelves_lock);
    cow_notify_settle(mount);
    return rc;
}
