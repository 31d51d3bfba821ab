/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests about attributes, extended attributes, and the file system as a whole.
 */
#include <sys/statvfs.h>

#include "fuse/mount.h"

#define NS_PER_S 1000000000
#define CAPABILITY "security.capability"
#define INODES_FREE ((fsfilcnt_t)1 << 40) /* there is no table of inodes that could become full */

static int stat_node(struct cow_mount *mount, struct cow_knode *node, struct stat *st_out)
{
    if (!node->seat) {
        cow_shelf_stat(mount, node->shelf, st_out);
        return 0;
    }
    cow_attr attr;
    int rc = cow_inode_stat(node->seat->tree, node->ino, &attr);
    if (!rc) cow_attr_to_stat(mount, node->seat->id, &attr, st_out);
    return rc;
}

static void reply_attr(fuse_req_t req, struct cow_mount *mount, struct cow_knode *node)
{
    struct stat st;
    int rc = stat_node(mount, node, &st);
    if (rc) cow_reply_error(req, rc);
    else (void)fuse_reply_attr(req, &st, mount->timeout_s);
}

static void op_getattr(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *file)
{
    (void)file;
    struct cow_mount *mount = cow_mount_of(req);
    reply_attr(req, mount, cow_knode_of(mount, id));
}

/* ---- Setting ---- */

/* After a write, a truncation (unless the caller may keep them) or a change of the owner: set-user-ID, set-group-ID of
 * a program, and file capabilities go. */
int cow_drop_privileges(struct cow_knode *node, bool always)
{
    if (!always && !cow_raw_kills_privileges()) return 0;
    cow_attr attr;
    int rc = cow_inode_stat(node->seat->tree, node->ino, &attr);
    if (rc || S_ISDIR(attr.mode) || S_ISLNK(attr.mode)) return rc;
    rc = cow_xattr_remove(node->seat->tree, node->ino, CAPABILITY, sizeof CAPABILITY - 1);
    if (rc && rc != -ENODATA) return rc;
    uint32_t mode = attr.mode & ~(uint32_t)S_ISUID;
    if (mode & S_IXGRP) mode &= ~(uint32_t)S_ISGID;
    if (mode == attr.mode) return 0;
    attr.mode = mode;
    return cow_inode_set(node->seat->tree, node->ino, &attr, COW_SET_MODE);
}

static int64_t to_ns(struct timespec t) { return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec; }

static uint32_t wanted(const struct stat *st, int to_set, cow_attr *attr_out)
{
    uint32_t mask = 0;
    int64_t now = cow_now_ns();
    *attr_out = (cow_attr){.mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid, .size_bytes = (uint64_t)st->st_size};
    if (to_set & FUSE_SET_ATTR_MODE) mask |= COW_SET_MODE;
    if (to_set & FUSE_SET_ATTR_UID) mask |= COW_SET_UID;
    if (to_set & FUSE_SET_ATTR_GID) mask |= COW_SET_GID;
    if (to_set & FUSE_SET_ATTR_SIZE) mask |= COW_SET_SIZE;
    if (to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW)) mask |= COW_SET_ATIME;
    if (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) mask |= COW_SET_MTIME;
    if (to_set & FUSE_SET_ATTR_CTIME) mask |= COW_SET_CTIME;
    attr_out->atime_ns = to_set & FUSE_SET_ATTR_ATIME_NOW ? now : to_ns(st->st_atim);
    attr_out->mtime_ns = to_set & FUSE_SET_ATTR_MTIME_NOW ? now : to_ns(st->st_mtim);
    attr_out->ctime_ns = to_ns(st->st_ctim);
    return mask;
}

static int set_node(struct cow_mount *mount, struct cow_knode *node, const struct stat *st, int to_set)
{
    if (!node->seat) return -EROFS;
    cow_attr attr;
    uint32_t mask = wanted(st, to_set, &attr);
    int rc = 0;
    if (mask & (COW_SET_UID | COW_SET_GID)) rc = cow_drop_privileges(node, true);
    else if (mask & COW_SET_SIZE) rc = cow_drop_privileges(node, false);
    if (!rc) rc = cow_inode_set(node->seat->tree, node->ino, &attr, mask);
    if (!rc && (mask & COW_SET_MODE) && mount->acl) rc = cow_acl_chmod(node->seat, node->ino, attr.mode);
    return rc;
}

static void op_setattr(fuse_req_t req, fuse_ino_t id, struct stat *st, int to_set, struct fuse_file_info *file)
{
    (void)file;
    struct cow_mount *mount = cow_mount_of(req);
    struct cow_knode *node = cow_knode_of(mount, id);
    int rc = set_node(mount, node, st, to_set);
    if (rc) cow_reply_error(req, rc);
    else reply_attr(req, mount, node);
}

static void op_readlink(fuse_req_t req, fuse_ino_t id)
{
    struct cow_mount *mount = cow_mount_of(req);
    struct cow_knode *node = cow_knode_of(mount, id);
    char target[COW_SYMLINK_BYTES_MAX + 1];
    int64_t n = node->seat ? cow_symlink_read(node->seat->tree, node->ino, target, COW_SYMLINK_BYTES_MAX) : -EINVAL;
    if (n < 0) {
        cow_reply_error(req, n);
        return;
    }
    target[n < COW_SYMLINK_BYTES_MAX ? n : COW_SYMLINK_BYTES_MAX] = 0;
    (void)fuse_reply_readlink(req, target);
}

/* ---- Extended attributes ---- */

static void reply_value(fuse_req_t req, int64_t n, const void *value, size_t capacity)
{
    if (n < 0) cow_reply_error(req, n);
    else if (capacity == 0) (void)fuse_reply_xattr(req, (size_t)n);
    else (void)fuse_reply_buf(req, value, (size_t)n);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t id, const char *name, size_t capacity)
{
    struct cow_mount *mount = cow_mount_of(req);
    struct cow_knode *node = cow_knode_of(mount, id);
    char value[COW_XATTR_VALUE_BYTES_MAX];
    size_t room = capacity < sizeof value ? capacity : sizeof value;
    int64_t n = node->seat ? cow_xattr_get(node->seat->tree, node->ino, name, strlen(name), value, room) : -ENODATA;
    reply_value(req, n, value, capacity);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t id, size_t capacity)
{
    struct cow_mount *mount = cow_mount_of(req);
    struct cow_knode *node = cow_knode_of(mount, id);
    char *names = capacity ? (char *)cow_worker_buffer(capacity) : NULL;
    if (capacity && !names) cow_reply_error(req, -ENOMEM);
    else reply_value(req, node->seat ? cow_xattr_list(node->seat->tree, node->ino, names, capacity) : 0, names, capacity);
}

/* An access ACL that says no more than a mode does is not stored; 1 = it was dealt with. */
static int set_access_acl(struct cow_knode *node, const void *value, size_t bytes)
{
    cow_attr attr;
    bool minimal = false;
    int rc = cow_inode_stat(node->seat->tree, node->ino, &attr);
    mode_t mode = attr.mode;
    if (!rc) rc = cow_acl_to_mode(value, bytes, &mode, &minimal);
    if (rc < 0) return rc;
    attr.mode = mode;
    if (rc == 1) rc = cow_inode_set(node->seat->tree, node->ino, &attr, COW_SET_MODE);
    if (rc || !minimal) return rc;
    rc = cow_xattr_remove(node->seat->tree, node->ino, COW_ACL_ACCESS, sizeof COW_ACL_ACCESS - 1);
    return rc && rc != -ENODATA ? rc : 1;
}

static void op_setxattr(fuse_req_t req, fuse_ino_t id, const char *name, const char *value, size_t bytes, int flags)
{
    struct cow_mount *mount = cow_mount_of(req);
    struct cow_knode *node = cow_knode_of(mount, id);
    int rc = node->seat ? 0 : -EROFS;
    if (!rc && mount->acl && strcmp(name, COW_ACL_ACCESS) == 0) rc = set_access_acl(node, value, bytes);
    if (rc == 0) rc = cow_xattr_set(node->seat->tree, node->ino, name, strlen(name), value, bytes, (uint32_t)flags);
    cow_reply_error(req, rc);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t id, const char *name)
{
    struct cow_mount *mount = cow_mount_of(req);
    struct cow_knode *node = cow_knode_of(mount, id);
    cow_reply_error(req, node->seat ? cow_xattr_remove(node->seat->tree, node->ino, name, strlen(name)) : -EROFS);
}

/* ---- The file system ---- */

/* Free is what the host has left; used is what the store takes of it. */
static void op_statfs(fuse_req_t req, fuse_ino_t id)
{
    struct cow_mount *mount = cow_mount_of(req);
    struct cow_knode *node = cow_knode_of(mount, id);
    struct statvfs host;
    cow_stats stats;
    cow_tree_info info = {0};
    int rc = statvfs(mount->store_path, &host) ? -errno : 0;
    if (!rc) rc = cow_store_stats(mount->store, &stats);
    if (!rc && node->seat) rc = cow_tree_get_info(node->seat->tree, &info);
    if (rc) {
        cow_reply_error(req, rc);
        return;
    }
    uint64_t unit = host.f_frsize ? host.f_frsize : COW_BLOCK_BYTES;
    uint64_t free_blocks = host.f_bfree * unit / COW_BLOCK_BYTES;
    struct statvfs answer = {.f_bsize = COW_BLOCK_BYTES,
                             .f_frsize = COW_BLOCK_BYTES,
                             .f_blocks = free_blocks + stats.host_bytes / COW_BLOCK_BYTES,
                             .f_bfree = free_blocks,
                             .f_bavail = host.f_bavail * unit / COW_BLOCK_BYTES,
                             .f_files = INODES_FREE + info.inodes,
                             .f_ffree = INODES_FREE,
                             .f_favail = INODES_FREE,
                             .f_namemax = COW_NAME_BYTES_MAX};
    (void)fuse_reply_statfs(req, &answer);
}

void cow_ops_attrs(struct fuse_lowlevel_ops *ops)
{
    ops->getattr = op_getattr;
    ops->setattr = op_setattr;
    ops->readlink = op_readlink;
    ops->getxattr = op_getxattr;
    ops->setxattr = op_setxattr;
    ops->listxattr = op_listxattr;
    ops->removexattr = op_removexattr;
    ops->statfs = op_statfs;
}
