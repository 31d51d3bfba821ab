/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Truncating and making holes, and what a file's mapping looks like afterwards. The end moves at once, in the first
 * step; the runs behind it go in bounded steps, and until they are gone they only weigh (see extents.h). A partly kept
 * block is zeroed behind the new end, which may need a new block: that comes first, while nothing has changed.
 */
#include "fs/extents.h"

#define UNMAP_STEP 10u

static int truncate_inline(struct cow_tree *tree, struct cow_inode *inode, uint64_t size)
{
    struct cow_inline was, content;
    int rc = cow_inline_get(tree, inode, &was);
    if (rc || size >= was.length) return rc;
    content = was;
    content.length = (size_t)size;
    return cow_inline_put(tree, inode, &was, &content);
}

static int put_touched(struct cow_tree *tree, struct cow_inode *inode, int result)
{
    if (result < 0) return result;
    int rc = cow_tree_put_inode(tree, inode);
    return rc ? rc : result;
}

static int shrink(struct cow_tree *tree, struct cow_inode *inode, uint64_t size)
{
    uint64_t tail_end = cow_blocks_of(size) << COW_BLOCK_SHIFT;
    if (tail_end > inode->size_bytes) tail_end = inode->size_bytes;
    int rc = cow_zero_part(tree, inode, size, tail_end);
    if (!rc) rc = cow_resize(tree, inode, size);
    if (!rc) cow_file_touch(inode);
    if (!rc) rc = cow_unmap(tree, inode, cow_blocks_of(size), COW_BLOCKS_END, UNMAP_STEP);
    return put_touched(tree, inode, rc);
}

static int extend(struct cow_tree *tree, struct cow_inode *inode, uint64_t size)
{
    int rc = cow_quota_extend(tree, inode, size);
    if (!rc) rc = cow_trim_gap(tree, inode, cow_blocks_of(size));
    if (rc) return rc;
    rc = cow_resize(tree, inode, size);
    cow_file_touch(inode);
    return put_touched(tree, inode, rc);
}

int cow_fs_truncate(struct cow_tree *tree, uint64_t ino, uint64_t size)
{
    struct cow_inode inode;
    int rc = cow_file_get(tree, ino, &inode);
    if (rc) return rc;
    if (size > COW_FILE_BYTES_MAX) return cow_fail(EFBIG, "a file of that size");
    if (inode.flags & COW_INODE_INLINE) {
        rc = truncate_inline(tree, &inode, size);
        if (rc) return rc;
        inode.size_bytes = size;
        cow_file_touch(&inode);
        return cow_tree_put_inode(tree, &inode);
    }
    return size > inode.size_bytes ? extend(tree, &inode, size) : shrink(tree, &inode, size);
}

static int punch_inline(struct cow_tree *tree, struct cow_inode *inode, uint64_t offset, uint64_t end)
{
    struct cow_inline was, content;
    int rc = cow_inline_get(tree, inode, &was);
    if (rc) return rc;
    if (end > was.length) end = was.length;
    if (offset >= end) return 0;
    content = was;
    content.birth = tree->id;
    memset(content.bytes + offset, 0, end - offset);
    if (end == was.length) content.length = (size_t)offset; /* bytes behind the item are zeros */
    rc = cow_inline_put(tree, inode, &was, &content);
    cow_file_touch(inode);
    return put_touched(tree, inode, rc);
}

/* The parts of blocks at either end of the range. */
static int punch_edges(struct cow_tree *tree, struct cow_inode *inode, uint64_t offset, uint64_t end)
{
    const uint64_t mask = COW_BLOCK_BYTES - 1;
    uint64_t head_end = cow_blocks_of(offset) << COW_BLOCK_SHIFT;
    if (head_end > end) head_end = end;
    int rc = cow_zero_part(tree, inode, offset, head_end);
    if (rc) return rc;
    cow_tree_settle(tree);
    uint64_t tail_start = end & ~mask;
    if (end == inode->size_bytes || tail_start < head_end) return 0;
    return cow_zero_part(tree, inode, tail_start, end);
}

int cow_fs_punch(struct cow_tree *tree, uint64_t ino, uint64_t offset, uint64_t length)
{
    struct cow_inode inode;
    int rc = cow_file_get(tree, ino, &inode);
    if (rc) return rc;
    if (length == 0) return cow_fail(EINVAL, "an empty range");
    uint64_t end = length > inode.size_bytes ? inode.size_bytes : offset + length;
    if (offset >= inode.size_bytes) return 0;
    if (end > inode.size_bytes || end < offset) end = inode.size_bytes;
    rc = cow_quota_punch(tree, &inode, offset, end);
    if (rc) return rc;
    if (inode.flags & COW_INODE_INLINE) return punch_inline(tree, &inode, offset, end);
    uint64_t stop = end == inode.size_bytes ? cow_blocks_of(end) : end >> COW_BLOCK_SHIFT;
    rc = cow_unmap(tree, &inode, cow_blocks_of(offset), stop, UNMAP_STEP);
    if (rc < 0) return rc;
    cow_file_touch(&inode);
    int put_rc = cow_tree_put_inode(tree, &inode);
    if (put_rc || rc == 1) return put_rc ? put_rc : 1;
    cow_tree_settle(tree);
    return punch_edges(tree, &inode, offset, end);
}
