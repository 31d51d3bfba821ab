/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quotas. A tree with a quota answers -EDQUOT to what would make its size_bytes larger than that, before anything of it is
 * done. How much a request adds is found by looking at the mapping of its range: what is own already weighs already. That
 * costs a walk of the range, so it is only done when the request's worst case does not fit. What adds nothing always
 * works, also in a tree that is above its quota (because that was lowered); so do shrinking and removing. (Shrinking
 * may copy the block that is cut: the one way to get above a quota, by less than a block.)
 */
#include <stdlib.h>

#include "fs/extents.h"

/* What a range weighs now: own bytes of blocks [first, stop) below size. */
static int own_bytes(struct cow_tree *tree, const struct cow_inode *inode, uint64_t first, uint64_t stop, uint64_t size,
                     uint64_t *bytes_out)
{
    *bytes_out = 0;
    if (first >= stop || inode->mapped_blocks == 0) return 0;
    struct cow_map map;
    int rc = cow_map_open(&map, tree, inode->ino, first);
    if (rc) return rc;
    struct cow_piece piece;
    while ((rc = cow_map_next_data(&map, stop, &piece)) == 1)
        if (cow_own(tree, piece.birth)) *bytes_out += cow_bytes_within(piece.block, piece.count, size);
    cow_map_close(&map);
    return rc;
}

/* The block with the end of the file, when the end moves beyond it. */
static int tail_growth(struct cow_tree *tree, const struct cow_inode *inode, uint64_t now, uint64_t *bytes_out)
{
    uint64_t was = inode->size_bytes, block = was >> COW_BLOCK_SHIFT;
    *bytes_out = 0;
    if (now <= was || (was & (COW_BLOCK_BYTES - 1)) == 0) return 0;
    uint64_t weighs;
    int rc = own_bytes(tree, inode, block, block + 1, was, &weighs);
    if (!rc && weighs) *bytes_out = cow_bytes_within(block, 1, now) - weighs;
    return rc;
}

static int inline_own(struct cow_tree *tree, const struct cow_inode *inode, uint64_t *length_out, uint64_t *own_out)
{
    *length_out = *own_out = 0;
    if (!(inode->flags & COW_INODE_INLINE)) return 0;
    struct cow_inline content;
    int rc = cow_inline_get(tree, inode, &content);
    if (rc) return rc;
    *length_out = content.length;
    *own_out = cow_own(tree, content.birth) ? content.length : 0;
    return 0;
}

/* before and after: of all that the request changes. */
static int judge_by(const struct cow_tree *tree, uint64_t limit, uint64_t before, uint64_t after)
{
    if (after <= before) return 0;
    uint64_t more = after - before;
    if (tree->size_bytes <= limit && more <= limit - tree->size_bytes) return 0;
    return cow_fail(EDQUOT, "the quota of %llu bytes does not allow %llu more (%llu are in use)",
                    (unsigned long long)tree->quota_bytes, (unsigned long long)more,
                    (unsigned long long)tree->size_bytes);
}

static int judge(const struct cow_tree *tree, uint64_t before, uint64_t after)
{
    return judge_by(tree, tree->quota_bytes, before, after);
}

/* No quota, or room for so many blocks and a last block that gets longer. */
static bool fits(const struct cow_tree *tree, uint64_t blocks)
{
    if (tree->quota_bytes == 0) return true;
    if (tree->size_bytes > tree->quota_bytes || blocks >= COW_BLOCKS_END) return false;
    return tree->quota_bytes - tree->size_bytes >= (blocks + 2) << COW_BLOCK_SHIFT;
}

/* Bytes [offset, end) of the file become own, and more bytes elsewhere. */
static int check_range(struct cow_tree *tree, const struct cow_inode *inode, uint64_t offset, uint64_t end,
                       uint64_t more)
{
    uint64_t first = offset >> COW_BLOCK_SHIFT, stop = cow_blocks_of(end);
    uint64_t was = inode->size_bytes, now = was < end ? end : was;
    uint64_t length, inline_before, before, tail = 0;
    int rc = inline_own(tree, inode, &length, &inline_before);
    if (!rc && inode->mapped_blocks == 0 && end <= COW_INLINE_BYTES_MAX)
        return judge(tree, inline_before, (length < end ? end : length) + more);
    if (!rc) rc = own_bytes(tree, inode, first, stop, was, &before);
    if (!rc && was >> COW_BLOCK_SHIFT < first) rc = tail_growth(tree, inode, now, &tail);
    if (rc) return rc;
    uint64_t after = cow_bytes_within(first, stop - first, now) + tail + more;
    if (length && first > 0) after += cow_bytes_within(0, 1, now); /* inline content moves to a block */
    return judge(tree, before + inline_before, after);
}

int cow_quota_write(struct cow_tree *tree, uint64_t ino, uint64_t offset, uint64_t length)
{
    if (length == 0 || fits(tree, (length >> COW_BLOCK_SHIFT) + 2)) return 0;
    struct cow_inode inode;
    int rc = cow_file_get(tree, ino, &inode);
    if (rc) return rc;
    if (offset > COW_FILE_BYTES_MAX || length > COW_FILE_BYTES_MAX - offset) return 0; /* -EFBIG comes */
    return check_range(tree, &inode, offset, offset + length, 0);
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* blocks is sorted; numbers may be there more than once. */
static int check_blocks(struct cow_tree *tree, const struct cow_inode *inode, const uint64_t *blocks, size_t count)
{
    uint64_t was = inode->size_bytes, end = (blocks[count - 1] + 1) << COW_BLOCK_SHIFT, now = was < end ? end : was;
    uint64_t length, before, after = 0, tail = 0, bytes;
    bool has_tail = false;
    int rc = inline_own(tree, inode, &length, &before);
    for (size_t i = 0, run; !rc && i < count; i += run) {
        uint64_t stop = blocks[i] + 1;
        for (run = 1; i + run < count && blocks[i + run] <= stop; run++) stop = blocks[i + run] + 1;
        rc = own_bytes(tree, inode, blocks[i], stop, was, &bytes);
        before += bytes;
        after += cow_bytes_within(blocks[i], stop - blocks[i], now);
        if (was >> COW_BLOCK_SHIFT >= blocks[i] && was >> COW_BLOCK_SHIFT < stop) has_tail = true;
    }
    if (!rc && !has_tail) rc = tail_growth(tree, inode, now, &tail);
    if (rc) return rc;
    if (length && blocks[0] > 0) after += cow_bytes_within(0, 1, now);
    return judge(tree, before, after + tail);
}

int cow_quota_write_blocks(struct cow_tree *tree, uint64_t ino, const uint64_t *blocks, size_t count)
{
    if (count == 0 || fits(tree, count)) return 0;
    struct cow_inode inode;
    int rc = cow_file_get(tree, ino, &inode);
    if (rc) return rc;
    uint64_t *sorted = malloc(count * sizeof *sorted);
    if (!sorted) return -ENOMEM;
    memcpy(sorted, blocks, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare_numbers);
    rc = check_blocks(tree, &inode, sorted, count);
    free(sorted);
    return rc;
}

int cow_quota_extend(struct cow_tree *tree, const struct cow_inode *inode, uint64_t size)
{
    if (fits(tree, 0)) return 0;
    uint64_t tail;
    int rc = tail_growth(tree, inode, size, &tail);
    return rc ? rc : judge(tree, 0, tail);
}

/* A part of a block becomes zeros: the block becomes own when it is not and has content. */
static int edge_growth(struct cow_tree *tree, const struct cow_inode *inode, uint64_t offset, uint64_t end,
                       uint64_t *bytes_out)
{
    *bytes_out = 0;
    if (offset >= end || inode->mapped_blocks == 0) return 0;
    struct cow_map map;
    struct cow_piece piece;
    uint64_t block = offset >> COW_BLOCK_SHIFT;
    int rc = cow_map_open(&map, tree, inode->ino, block);
    if (rc) return rc;
    rc = cow_map_next_data(&map, block + 1, &piece);
    cow_map_close(&map);
    if (rc == 1 && !cow_own(tree, piece.birth)) *bytes_out = cow_bytes_within(block, 1, inode->size_bytes);
    return rc < 0 ? rc : 0;
}

int cow_quota_punch(struct cow_tree *tree, const struct cow_inode *inode, uint64_t offset, uint64_t end)
{
    if (fits(tree, 2)) return 0;
    uint64_t length, before, head, tail = 0;
    int rc = inline_own(tree, inode, &length, &before);
    if (rc) return rc;
    if (length) return offset >= length ? 0 : judge(tree, before, end >= length ? offset : length);
    uint64_t head_end = cow_blocks_of(offset) << COW_BLOCK_SHIFT, tail_start = end & ~(uint64_t)(COW_BLOCK_BYTES - 1);
    if (head_end > end) head_end = end;
    uint64_t stop = end == inode->size_bytes ? cow_blocks_of(end) : end >> COW_BLOCK_SHIFT;
    rc = own_bytes(tree, inode, cow_blocks_of(offset), stop, inode->size_bytes, &before);
    if (!rc) rc = edge_growth(tree, inode, offset, head_end, &head);
    if (!rc && end != inode->size_bytes && tail_start >= head_end)
        rc = edge_growth(tree, inode, tail_start, end, &tail);
    return rc ? rc : judge(tree, before, head + tail);
}

/* Within one file the last part of a block is copied, so it becomes own. */
static uint64_t copied_bytes(const struct cow_quota_clone *clone, uint64_t end, uint64_t now)
{
    bool within_one = clone->source == clone->tree && clone->from->ino == clone->to->ino;
    if (!within_one || (end & (COW_BLOCK_BYTES - 1)) == 0) return 0;
    return cow_bytes_within(end >> COW_BLOCK_SHIFT, 1, now);
}

/* What blocks of the source would weigh where they are to be mapped. */
static int cloned_bytes(const struct cow_quota_clone *clone, uint64_t now, uint64_t *bytes_out)
{
    struct cow_map map;
    struct cow_piece piece;
    uint64_t first = clone->source_offset >> COW_BLOCK_SHIFT, to = clone->offset >> COW_BLOCK_SHIFT;
    int rc = cow_map_open(&map, clone->source, clone->from->ino, first);
    if (rc) return rc;
    uint64_t part = copied_bytes(clone, clone->offset + clone->length, now);
    uint64_t count = part ? clone->length >> COW_BLOCK_SHIFT : cow_blocks_of(clone->length);
    *bytes_out = part;
    while ((rc = cow_map_next_data(&map, first + count, &piece)) == 1)
        if (cow_own(clone->tree, piece.birth))
            *bytes_out += cow_bytes_within(to + (piece.block - first), piece.count, now);
    cow_map_close(&map);
    return rc;
}

int cow_quota_clone(const struct cow_quota_clone *clone)
{
    struct cow_tree *tree = clone->tree;
    const struct cow_inode *inode = clone->to;
    if (fits(tree, cow_blocks_of(clone->length))) return 0;
    uint64_t end = clone->offset + clone->length, was = inode->size_bytes, now = was < end ? end : was;
    uint64_t first = clone->offset >> COW_BLOCK_SHIFT, length, inline_before, before, after, tail = 0;
    if ((clone->from->flags & COW_INODE_INLINE) && clone->source_offset == 0) { /* a copy of the first block */
        uint64_t copied = clone->length < COW_BLOCK_BYTES ? clone->length : COW_BLOCK_BYTES;
        uint64_t part = clone->length > COW_BLOCK_BYTES ? copied_bytes(clone, end, now) : 0;
        return check_range(tree, inode, clone->offset, clone->offset + copied, part);
    }
    int rc = inline_own(tree, inode, &length, &inline_before);
    if (!rc) rc = own_bytes(tree, inode, first, cow_blocks_of(end), was, &before);
    if (!rc) rc = cloned_bytes(clone, now, &after);
    if (!rc && was >> COW_BLOCK_SHIFT < first) rc = tail_growth(tree, inode, now, &tail);
    if (rc) return rc;
    if (length && first > 0) after += cow_bytes_within(0, 1, now);
    return judge_by(tree, clone->limit, before + inline_before, after + tail);
}
