/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attributes as stat(2) gives them. Some are not stored: a directory's size stands for its entries, and an inline file
 * says that it occupies what its bytes need, because programs take 0 blocks for "nothing but a hole".
 */
#include <sys/stat.h>

#include "fs/extents.h"
#include "fs/names.h"

#define DIRENT_SIZE 32u /* what one entry adds to a directory's size */
#define SECTOR_BYTES 512u

int cow_fs_stat(struct cow_tree *tree, uint64_t ino, cow_attr *attr_out)
{
    struct cow_inode inode;
    int rc = cow_tree_get_inode(tree, ino, &inode);
    if (rc) return rc;
    uint64_t sectors = inode.mapped_blocks * (COW_BLOCK_BYTES / SECTOR_BYTES);
    if (inode.flags & COW_INODE_INLINE) {
        uint64_t bytes = inode.size_bytes < COW_INLINE_BYTES_MAX ? inode.size_bytes : COW_INLINE_BYTES_MAX;
        sectors = (bytes + SECTOR_BYTES - 1) / SECTOR_BYTES;
    }
    *attr_out = (cow_attr){
        .ino = ino,
        .mode = inode.mode,
        .uid = inode.uid,
        .gid = inode.gid,
        .nlink = inode.nlink,
        .rdev = inode.rdev,
        .size_bytes = S_ISDIR(inode.mode) ? inode.entries * DIRENT_SIZE : inode.size_bytes,
        .blocks_512 = sectors,
        .atime_ns = inode.atime_ns,
        .mtime_ns = inode.mtime_ns,
        .ctime_ns = inode.ctime_ns,
        .btime_ns = inode.btime_ns,
    };
    return 0;
}

int cow_fs_set(struct cow_tree *tree, uint64_t ino, const cow_attr *attr, uint32_t mask)
{
    const uint32_t known =
        COW_SET_MODE | COW_SET_UID | COW_SET_GID | COW_SET_SIZE | COW_SET_ATIME | COW_SET_MTIME | COW_SET_CTIME;
    if (mask & ~known) return cow_fail(EINVAL, "unknown bits in a mask of attributes: %x", mask);
    if (mask & COW_SET_SIZE) {
        int rc = cow_fs_truncate(tree, ino, attr->size_bytes);
        if (rc) return rc;
    }
    struct cow_inode inode;
    int rc = cow_tree_get_inode(tree, ino, &inode);
    if (rc || mask == 0) return rc;
    if (mask & COW_SET_MODE) inode.mode = (inode.mode & S_IFMT) | (attr->mode & 07777u);
    if (mask & COW_SET_UID) inode.uid = attr->uid;
    if (mask & COW_SET_GID) inode.gid = attr->gid;
    if (mask & COW_SET_ATIME) inode.atime_ns = attr->atime_ns;
    if (mask & COW_SET_MTIME) inode.mtime_ns = attr->mtime_ns;
    inode.ctime_ns = mask & COW_SET_CTIME ? attr->ctime_ns : cow_now_ns();
    return cow_tree_put_inode(tree, &inode);
}

int64_t cow_fs_read_link(struct cow_tree *tree, uint64_t ino, char *buffer, size_t capacity)
{
    struct cow_inode inode;
    int rc = cow_tree_get_inode(tree, ino, &inode);
    if (rc) return rc;
    if (!S_ISLNK(inode.mode)) return -EINVAL;
    if (inode.size_bytes > COW_SYMLINK_BYTES_MAX)
        return cow_fail(COW_EDAMAGE, "symlink %llu is too long", (unsigned long long)ino);
    for (uint64_t at = 0, n = 0; at < inode.size_bytes && at < capacity; n++) {
        char part[COW_SYMLINK_PART_BYTES];
        int64_t bytes = cow_tree_get(tree, cow_key_make(ino, COW_ITEM_SYMLINK, n), part, sizeof part);
        if (bytes <= 0 || (uint64_t)bytes > sizeof part || (uint64_t)bytes > inode.size_bytes - at) {
            if (bytes < 0 && bytes != -ENOENT) return bytes;
            return cow_fail(COW_EDAMAGE, "the target of symlink %llu is damaged", (unsigned long long)ino);
        }
        size_t wanted = capacity - at < (uint64_t)bytes ? (size_t)(capacity - at) : (size_t)bytes;
        memcpy(buffer + at, part, wanted);
        at += (uint64_t)bytes;
    }
    return (int64_t)inode.size_bytes;
}
