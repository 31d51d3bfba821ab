/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests about the content of files. There is no state of an open file: its inode is pinned by its node for as long as the
 * kernel knows it. Where the kernel can do without open (and no file of the mount is read-only by itself) it is told so
 * once, and opening a file then costs no request.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "fuse/mount.h"

#define COPY_BYTES ((size_t)1 << 20)

static void op_open(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *file)
{
    struct cow_mount *mount = cow_mount_of(req);
    struct cow_knode *node = cow_knode_of(mount, id);
    if (mount->no_open) {
        cow_reply_error(req, -ENOSYS);
        return;
    }
    bool writes = (file->flags & O_ACCMODE) != O_RDONLY || (file->flags & O_TRUNC);
    if (writes && (!node->seat || node->seat->sealed)) {
        cow_reply_error(req, -EROFS);
        return;
    }
    file->keep_cache = 1;
    (void)fuse_reply_open(req, file);
}

static void op_read(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *file)
{
    (void)file;
    struct cow_mount *mount = cow_mount_of(req);
    struct cow_knode *node = cow_knode_of(mount, id);
    uint8_t *buffer = cow_worker_buffer(size);
    int64_t n = -EISDIR;
    if (!buffer) n = -ENOMEM;
    else if (node->seat) n = cow_file_read(node->seat->tree, node->ino, (uint64_t)offset, buffer, size);
    if (n < 0) cow_reply_error(req, n);
    else (void)fuse_reply_buf(req, (const char *)buffer, (size_t)n);
}

static void op_write(fuse_req_t req, fuse_ino_t id, const char *bytes, size_t size, off_t offset, struct fuse_file_info *file)
{
    struct cow_mount *mount = cow_mount_of(req);
    struct cow_knode *node = cow_knode_of(mount, id);
    int64_t n = node->seat ? 0 : -EROFS;
    if (!n && !file->writepage) n = cow_drop_privileges(node, false);
    if (!n) n = cow_file_write(node->seat->tree, node->ino, (uint64_t)offset, bytes, size);
    if (n < 0) cow_reply_error(req, n);
    else (void)fuse_reply_write(req, (size_t)n);
}

static void op_fsync(fuse_req_t req, fuse_ino_t id, int only_data, struct fuse_file_info *file)
{
    (void)only_data;
    (void)file;
    struct cow_mount *mount = cow_mount_of(req);
    struct cow_knode *node = cow_knode_of(mount, id);
    cow_reply_error(req, node->seat ? cow_file_sync(node->seat->tree, node->ino) : 0);
}

/* ---- Space ---- */

static int extend(struct cow_knode *node, uint64_t end)
{
    cow_attr attr;
    int rc = cow_inode_stat(node->seat->tree, node->ino, &attr);
    return rc || attr.size_bytes >= end ? rc : cow_file_truncate(node->seat->tree, node->ino, end);
}

/* Blocks cannot be set aside: what is shared must be written elsewhere anyway. So allocating only sets the size. */
static int allocate(struct cow_knode *node, int mode, uint64_t offset, uint64_t length)
{
    const int known = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
    if (!node->seat) return -EROFS;
    if (mode & ~known) return -EOPNOTSUPP;
    int rc = cow_drop_privileges(node, false);
    if (!rc && (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)))
        rc = cow_file_punch(node->seat->tree, node->ino, offset, length);
    if (!rc && !(mode & FALLOC_FL_KEEP_SIZE)) rc = extend(node, offset + length);
    return rc;
}

static void op_fallocate(fuse_req_t req, fuse_ino_t id, int mode, off_t offset, off_t length, struct fuse_file_info *file)
{
    (void)file;
    struct cow_mount *mount = cow_mount_of(req);
    struct cow_knode *node = cow_knode_of(mount, id);
    int rc = offset < 0 || length <= 0 ? -EINVAL : allocate(node, mode, (uint64_t)offset, (uint64_t)length);
    cow_reply_error(req, rc);
}

/* The kernel does not write its dirty pages back before it asks where data is, so it is made to; the requests that this
 * takes are served by other workers, of which enough must stay free. */
static bool write_back_for_seek(struct cow_mount *mount, fuse_ino_t id)
{
    if (!mount->write_back) return true;
    bool room = atomic_fetch_add(&mount->flushing_seeks, 1) < (int)(mount->threads / 4);
    if (room) (void)fuse_lowlevel_notify_inval_inode(mount->session, id, 0, 0);
    atomic_fetch_sub(&mount->flushing_seeks, 1);
    return room;
}

static void op_lseek(fuse_req_t req, fuse_ino_t id, off_t offset, int whence, struct fuse_file_info *file)
{
    (void)file;
    struct cow_mount *mount = cow_mount_of(req);
    struct cow_knode *node = cow_knode_of(mount, id);
    cow_attr attr;
    int64_t at = node->seat && (whence == SEEK_DATA || whence == SEEK_HOLE) && offset >= 0 ? 0 : -EINVAL;
    if (at == 0 && !node->seat->sealed && !write_back_for_seek(mount, id)) {
        at = cow_inode_stat(node->seat->tree, node->ino, &attr); /* too many at once: all of it may be data */
        if (!at) at = (uint64_t)offset >= attr.size_bytes ? -ENXIO : whence == SEEK_DATA ? offset : (int64_t)attr.size_bytes;
    } else if (at == 0) {
        at = cow_file_seek(node->seat->tree, node->ino, (uint64_t)offset, whence == SEEK_DATA ? COW_SEEK_DATA : COW_SEEK_HOLE);
    }
    if (at < 0) cow_reply_error(req, at);
    else (void)fuse_reply_lseek(req, at);
}

/* ---- Copying ---- */

struct copy {
    struct cow_knode *from, *to;
    uint64_t from_offset, to_offset, length;
};

static int64_t copy_bytes(const struct copy *copy)
{
    size_t step = copy->length < COPY_BYTES ? (size_t)copy->length : COPY_BYTES;
    uint8_t *buffer = cow_worker_buffer(step);
    if (!buffer) return -ENOMEM;
    int64_t n = cow_file_read(copy->from->seat->tree, copy->from->ino, copy->from_offset, buffer, step);
    if (n <= 0) return n;
    return cow_file_write(copy->to->seat->tree, copy->to->ino, copy->to_offset, buffer, (size_t)n);
}

/* How much of it can share blocks: whole ones, and the source's last one where nothing of the goal lies behind it. */
static uint64_t clonable(const struct copy *copy, uint64_t from_size, uint64_t to_size)
{
    const uint64_t in_block = COW_BLOCK_BYTES - 1;
    if ((copy->from_offset | copy->to_offset) & in_block) return 0;
    bool to_the_end = copy->from_offset + copy->length == from_size && copy->to_offset + copy->length >= to_size;
    return to_the_end ? copy->length : copy->length & ~in_block;
}

static int64_t copy_range(struct copy *copy)
{
    if (!copy->from->seat || !copy->to->seat) return -EINVAL;
    cow_attr from, to;
    int rc = cow_drop_privileges(copy->to, false);
    if (!rc) rc = cow_inode_stat(copy->from->seat->tree, copy->from->ino, &from);
    if (!rc) rc = cow_inode_stat(copy->to->seat->tree, copy->to->ino, &to);
    if (rc) return rc;
    if (copy->from_offset >= from.size_bytes) return 0;
    if (copy->length > from.size_bytes - copy->from_offset) copy->length = from.size_bytes - copy->from_offset;
    uint64_t shared = clonable(copy, from.size_bytes, to.size_bytes);
    if (shared == 0) return copy_bytes(copy);
    rc = cow_file_clone(copy->from->seat->tree, copy->from->ino, copy->from_offset, copy->to->seat->tree, copy->to->ino,
                        copy->to_offset, shared);
    return rc ? rc : (int64_t)shared;
}

static void op_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset, struct fuse_file_info *from_file,
                               fuse_ino_t to, off_t to_offset, struct fuse_file_info *to_file, size_t length, int flags)
{
    (void)from_file;
    (void)to_file;
    struct cow_mount *mount = cow_mount_of(req);
    struct copy copy = {.from = cow_knode_of(mount, from),
                        .to = cow_knode_of(mount, to),
                        .from_offset = (uint64_t)from_offset,
                        .to_offset = (uint64_t)to_offset,
                        .length = length};
    int64_t n = flags || from_offset < 0 || to_offset < 0 ? -EINVAL : copy_range(&copy);
    if (n < 0) cow_reply_error(req, n);
    else (void)fuse_reply_write(req, (size_t)n);
}

void cow_ops_files(struct fuse_lowlevel_ops *ops)
{
    ops->open = op_open;
    ops->read = op_read;
    ops->write = op_write;
    ops->fsync = op_fsync;
    ops->fallocate = op_fallocate;
    ops->lseek = op_lseek;
    ops->copy_file_range = op_copy_file_range;
}
