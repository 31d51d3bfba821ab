/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names: looking them up, making, linking and removing them, listing a directory. Each operation first reads and
 * checks all that can be wrong, then changes items in an order that does not matter to anybody, because the tree is
 * locked. (Renaming is in rename.c, what follows the loss of a last name in orphan.c.)
 */
#include <sys/stat.h>

#include "fs/extents.h"
#include "fs/names.h"

int cow_dir_get(struct cow_tree *tree, uint64_t dir, struct cow_inode *inode_out)
{
    int rc = cow_tree_get_inode(tree, dir, inode_out);
    if (rc) return rc;
    if (!S_ISDIR(inode_out->mode)) return -ENOTDIR;
    return inode_out->nlink == 0 ? -ENOENT : 0; /* removed, but still open */
}

void cow_dir_touch(struct cow_inode *dir)
{
    dir->mtime_ns = dir->ctime_ns = cow_now_ns();
}

static int lookup_dots(const struct cow_inode *dir, size_t name_bytes, uint64_t *ino_out)
{
    *ino_out = name_bytes == 1 ? dir->ino : dir->parent;
    return *ino_out ? 0 : -ENOENT;
}

int cow_fs_lookup(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, uint64_t *ino_out)
{
    int rc = cow_name_check(name, name_bytes);
    if (rc) return rc;
    if (cow_lookup_name_get(tree, dir, name, name_bytes, ino_out) == 1) return *ino_out ? 0 : -ENOENT;
    struct cow_inode inode;
    rc = cow_tree_get_inode(tree, dir, &inode);
    if (rc) return rc;
    if (!S_ISDIR(inode.mode)) return -ENOTDIR;
    if (cow_name_check_new(name, name_bytes)) { /* "." or ".." */
        cow_error_clear();
        return lookup_dots(&inode, name_bytes, ino_out);
    }
    struct cow_entry entry;
    rc = cow_name_find(tree, dir, name, name_bytes, &entry);
    if (rc && rc != -ENOENT) return rc;
    *ino_out = rc ? 0 : entry.ino;
    cow_lookup_name_put(tree, dir, name, name_bytes, *ino_out);
    return rc;
}

/* ---- Making ---- */

static int check_kind(const cow_attr *attr, const char *target, size_t target_bytes)
{
    switch (attr->mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK: return 0;
    case S_IFLNK: break;
    default: return cow_fail(EINVAL, "mode %o has no file type", attr->mode);
    }
    if (target_bytes == 0 || !target) return cow_fail(ENOENT, "a symlink needs a target");
    if (target_bytes > COW_SYMLINK_BYTES_MAX)
        return cow_fail(ENAMETOOLONG, "a symlink target of %zu bytes", target_bytes);
    return memchr(target, 0, target_bytes) ? cow_fail(EINVAL, "a symlink target may not hold NUL") : 0;
}

static struct cow_inode new_inode(const cow_attr *attr, const struct cow_inode *dir)
{
    int64_t now = cow_now_ns();
    struct cow_inode inode = {.mode = attr->mode & (S_IFMT | 07777u), .uid = attr->uid, .gid = attr->gid, .nlink = 1};
    inode.atime_ns = attr->atime_ns ? attr->atime_ns : now;
    inode.mtime_ns = attr->mtime_ns ? attr->mtime_ns : now;
    inode.ctime_ns = attr->ctime_ns ? attr->ctime_ns : now;
    inode.btime_ns = attr->btime_ns ? attr->btime_ns : now;
    if (S_ISCHR(inode.mode) || S_ISBLK(inode.mode)) inode.rdev = attr->rdev;
    if (S_ISLNK(inode.mode) && !(inode.mode & 07777u)) inode.mode |= 0777u;
    if (S_ISDIR(inode.mode)) inode.nlink = 2;
    if (dir->mode & S_ISGID) {
        inode.gid = dir->gid;
        if (S_ISDIR(inode.mode)) inode.mode |= S_ISGID;
    }
    return inode;
}

static int put_target(struct cow_tree *tree, uint64_t ino, const char *target, size_t target_bytes)
{
    for (size_t at = 0, n = 0; at < target_bytes; n++) {
        size_t part = target_bytes - at < COW_SYMLINK_PART_BYTES ? target_bytes - at : COW_SYMLINK_PART_BYTES;
        int rc = cow_tree_put(tree, cow_key_make(ino, COW_ITEM_SYMLINK, n), target + at, part);
        if (rc) return rc;
        at += part;
    }
    return 0;
}

int cow_fs_make(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, const cow_attr *attr,
                const char *target, size_t target_bytes, uint64_t *ino_out)
{
    struct cow_inode parent;
    struct cow_entry entry;
    int rc = cow_name_check_new(name, name_bytes);
    if (!rc) rc = check_kind(attr, target, target_bytes);
    if (!rc) rc = cow_dir_get(tree, dir, &parent);
    if (rc) return rc;
    rc = cow_name_find(tree, dir, name, name_bytes, &entry);
    if (rc != -ENOENT) return rc ? rc : -EEXIST;
    rc = cow_name_room(tree, dir, name, name_bytes);
    if (rc) return rc;
    struct cow_inode inode = new_inode(attr, &parent);
    inode.parent = dir;
    inode.name_hash = cow_name_hash(tree, name, name_bytes);
    bool is_link = S_ISLNK(inode.mode), is_dir = S_ISDIR(inode.mode);
    if (is_link) inode.size_bytes = target_bytes;
    rc = cow_tree_new_inode(tree, &inode);
    if (!rc && is_link) rc = put_target(tree, inode.ino, target, target_bytes);
    entry = (struct cow_entry){inode.ino, inode.mode & S_IFMT};
    if (!rc) rc = cow_name_add(tree, &parent, name, name_bytes, entry);
    if (rc) return rc;
    if (is_dir) parent.nlink++;
    cow_dir_touch(&parent);
    rc = cow_tree_put_inode(tree, &parent);
    if (!rc) *ino_out = inode.ino;
    return rc;
}

int cow_fs_make_root(struct cow_tree *tree)
{
    int64_t now = cow_now_ns();
    struct cow_inode root = {.mode = S_IFDIR | 0755u, .nlink = 2, .parent = COW_ROOT_INO};
    root.atime_ns = root.mtime_ns = root.ctime_ns = root.btime_ns = now;
    int rc = cow_tree_new_inode(tree, &root);
    COW_ASSERT(rc || root.ino == COW_ROOT_INO);
    return rc;
}

int cow_fs_link(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, uint64_t ino)
{
    struct cow_inode parent, inode;
    struct cow_entry entry;
    int rc = cow_name_check_new(name, name_bytes);
    if (!rc) rc = cow_dir_get(tree, dir, &parent);
    if (!rc) rc = cow_tree_get_inode(tree, ino, &inode);
    if (rc) return rc;
    if (S_ISDIR(inode.mode)) return cow_fail(EPERM, "a directory has one name");
    if (inode.nlink == 0) return cow_fail(ENOENT, "inode %llu was removed", (unsigned long long)ino);
    if (inode.nlink == UINT32_MAX) return -EMLINK;
    rc = cow_name_find(tree, dir, name, name_bytes, &entry);
    if (rc != -ENOENT) return rc ? rc : -EEXIST;
    rc = cow_name_room(tree, dir, name, name_bytes);
    if (!rc) rc = cow_link_add(tree, &inode, dir, cow_name_hash(tree, name, name_bytes));
    if (!rc) rc = cow_name_add(tree, &parent, name, name_bytes, (struct cow_entry){ino, inode.mode & S_IFMT});
    if (rc) return rc;
    inode.nlink++;
    inode.ctime_ns = cow_now_ns();
    cow_dir_touch(&parent);
    rc = cow_tree_put_inode(tree, &inode);
    return rc ? rc : cow_tree_put_inode(tree, &parent);
}

/* ---- Removing ---- */

static int check_removal(const struct cow_inode *inode, uint32_t how)
{
    bool is_dir = S_ISDIR(inode->mode);
    switch (how) {
    case COW_REMOVE_FILE: return is_dir ? -EISDIR : 0;
    case COW_REMOVE_DIR:
        if (!is_dir) return -ENOTDIR;
        return inode->entries ? -ENOTEMPTY : 0;
    case COW_REMOVE_TREE: return 0;
    default: return cow_fail(EINVAL, "how to remove: %u", how);
    }
}

int cow_fs_remove(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, uint32_t how,
                  uint64_t *orphan_out)
{
    struct cow_inode parent, inode;
    struct cow_entry entry;
    *orphan_out = 0;
    int rc = cow_name_check_new(name, name_bytes);
    if (!rc) rc = cow_dir_get(tree, dir, &parent);
    if (!rc) rc = cow_name_find(tree, dir, name, name_bytes, &entry);
    if (!rc) rc = cow_tree_get_inode(tree, entry.ino, &inode);
    if (!rc) rc = check_removal(&inode, how);
    if (!rc) rc = cow_name_remove(tree, &parent, name, name_bytes);
    if (rc) return rc;
    bool is_dir = S_ISDIR(inode.mode);
    if (is_dir) parent.nlink--;
    cow_dir_touch(&parent);
    rc = cow_tree_put_inode(tree, &parent);
    if (rc) return rc;
    inode.nlink = is_dir ? 0 : inode.nlink - 1;
    inode.ctime_ns = cow_now_ns();
    if (inode.nlink == 0) return cow_inode_release(tree, &inode, orphan_out);
    rc = cow_link_remove(tree, &inode, dir, cow_name_hash(tree, name, name_bytes));
    return rc ? rc : cow_tree_put_inode(tree, &inode);
}

/* ---- Listing ---- */

#define COOKIE_INDEX_BITS 7u

struct lister {
    struct cow_tree *tree;
    uint8_t *buffer;
    size_t capacity, used;
    bool want_attr;
};

static size_t padded(size_t bytes)
{
    return (bytes + 7) & ~(size_t)7;
}

/* 1 = put, 0 = no room. */
static int list_entry(struct lister *lister, const struct cow_dirent *dirent, uint64_t cookie)
{
    size_t entry_bytes = padded(sizeof(cow_dir_entry) + dirent->name_bytes);
    size_t record_bytes = entry_bytes + (lister->want_attr ? sizeof(cow_attr) : 0);
    if (lister->capacity - lister->used < record_bytes) return 0;
    cow_dir_entry entry = {.ino = dirent->ino,
                           .cookie = cookie,
                           .mode = (uint32_t)dirent->type << 12,
                           .name_bytes = dirent->name_bytes,
                           .record_bytes = (uint16_t)record_bytes};
    uint8_t *record = lister->buffer + lister->used;
    if (lister->want_attr) {
        cow_attr attr;
        int rc = cow_fs_stat(lister->tree, dirent->ino, &attr);
        if (rc) return rc;
        entry.mode = attr.mode;
        memcpy(record + entry_bytes, &attr, sizeof attr);
    }
    memset(record, 0, entry_bytes);
    memcpy(record, &entry, sizeof entry);
    memcpy(record + sizeof entry, dirent->name, dirent->name_bytes);
    lister->used += record_bytes;
    return 1;
}

/* Entries of the bucket under the cursor, from index skip on. 1 = all put. */
static int list_bucket(struct lister *lister, const struct cow_cursor *cursor, uint64_t skip)
{
    struct cow_dirent dirent;
    size_t at = 0;
    uint64_t hash = cow_key_offset(cursor->key), index = 0;
    int rc;
    while ((rc = cow_dirent_next(cursor->value, cursor->value_bytes, &at, &dirent)) == 1) {
        index++;
        if (index <= skip) continue;
        rc = list_entry(lister, &dirent, hash << COOKIE_INDEX_BITS | index);
        if (rc != 1) return rc;
    }
    return rc < 0 ? rc : 1;
}

int64_t cow_fs_read_dir(struct cow_tree *tree, uint64_t dir, uint64_t cookie, uint32_t flags, void *buffer,
                        size_t capacity)
{
    struct cow_inode inode;
    int rc = cow_tree_get_inode(tree, dir, &inode);
    if (rc) return rc;
    if (!S_ISDIR(inode.mode)) return -ENOTDIR;
    struct lister lister = {tree, buffer, capacity, 0, (flags & COW_READ_ATTR) != 0};
    uint64_t hash = cookie >> COOKIE_INDEX_BITS, skip = cookie & ((1u << COOKIE_INDEX_BITS) - 1);
    struct cow_cursor cursor;
    cow_cursor_init(&cursor, cow_tree_nodes(tree), tree->root);
    rc = cow_cursor_seek(&cursor, cow_key_make(dir, COW_ITEM_DIRENT, hash));
    bool full = false;
    while (!rc && !full && cursor.valid && cursor.key.ino == dir && cow_key_type(cursor.key) == COW_ITEM_DIRENT) {
        rc = list_bucket(&lister, &cursor, cow_key_offset(cursor.key) == hash ? skip : 0);
        if (rc < 0) break;
        full = rc == 0;
        rc = full ? 0 : cow_cursor_next(&cursor);
    }
    cow_cursor_deinit(&cursor);
    if (rc) return rc;
    if (full && lister.used == 0) return cow_fail(ERANGE, "%zu bytes do not hold one directory entry", capacity);
    return (int64_t)lister.used;
}
