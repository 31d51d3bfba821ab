/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reflink. A step maps one stretch of the source, a run or a hole, into the destination: first a reference to the
 * source's blocks is taken, then what the destination had there goes, then the run is mapped with the birth that it has
 * in the source, so that it counts as own only where it would have counted. Both inodes' entries in lookup go, because
 * neither owns these blocks any more. An inline source is copied; an inline destination is brought to a block first.
 */
#include "fs/extents.h"

#define UNMAP_STEP 10u

struct clone {
    struct cow_tree *source, *tree;
    struct cow_inode from, to;
    uint64_t from_offset, offset, length;
};

static bool within_one(const struct clone *clone)
{
    return clone->source == clone->tree && clone->from.ino == clone->to.ino;
}

static int check(const struct clone *clone)
{
    const uint64_t mask = COW_BLOCK_BYTES - 1;
    if (((clone->from_offset | clone->offset) & mask) || clone->length > COW_FILE_BYTES_MAX ||
        clone->from_offset > COW_FILE_BYTES_MAX || clone->offset > COW_FILE_BYTES_MAX - clone->length)
        return cow_fail(EINVAL, "a clone has to start at multiples of %u", COW_BLOCK_BYTES);
    uint64_t from_end = clone->from_offset + clone->length, end = clone->offset + clone->length;
    if (from_end > clone->from.size_bytes) return cow_fail(EINVAL, "the range ends behind the source's end");
    /* A source's last block is zero behind its end, so it must be the destination's last one, too. (Within one file the
     * end moves meanwhile: there the part of a block is copied.) */
    if ((clone->length & mask) && !within_one(clone) && (from_end != clone->from.size_bytes || end < clone->to.size_bytes))
        return cow_fail(EINVAL, "a clone has to end at a multiple of %u, or both files' end", COW_BLOCK_BYTES);
    if (within_one(clone) && clone->from_offset < end && clone->offset < from_end)
        return cow_fail(EINVAL, "the ranges overlap");
    return 0;
}

static int64_t copy_inline(struct clone *clone)
{
    struct cow_inline content;
    int rc = cow_inline_get(clone->source, &clone->from, &content);
    if (rc) return rc;
    uint8_t block[COW_BLOCK_BYTES] = {0};
    memcpy(block, content.bytes, content.length);
    uint64_t length = clone->length < sizeof block ? clone->length : sizeof block;
    cow_file_touch(&clone->to);
    return cow_write_step(clone->tree, &clone->to, clone->offset, block, length);
}

/* The last part of a block, within one file. */
static int64_t copy_part(struct clone *clone)
{
    uint8_t block[COW_BLOCK_BYTES];
    int64_t n = cow_fs_read(clone->source, clone->from.ino, clone->from_offset, block, (size_t)clone->length);
    if (n < 0) return n;
    COW_ASSERT((uint64_t)n == clone->length);
    cow_file_touch(&clone->to);
    return cow_write_step(clone->tree, &clone->to, clone->offset, block, clone->length);
}

/* The first stretch of the source: a run, or a hole (addr 0). */
static int next_piece(struct clone *clone, struct cow_piece *piece_out)
{
    uint64_t first = clone->from_offset >> COW_BLOCK_SHIFT, end = cow_blocks_of(clone->from_offset + clone->length);
    struct cow_map map;
    int rc = cow_map_open(&map, clone->source, clone->from.ino, first);
    if (rc) return rc;
    rc = cow_map_next(&map, end, piece_out);
    cow_map_close(&map);
    COW_ASSERT(rc != 0);
    return rc < 0 ? rc : 0;
}

/* Makes the destination a hole there; 1 = not done yet. */
static int clear(struct clone *clone, uint64_t first, uint64_t count)
{
    int rc = cow_unmap(clone->tree, &clone->to, first, first + count, UNMAP_STEP);
    if (rc != 1) return rc;
    rc = cow_tree_put_inode(clone->tree, &clone->to);
    if (rc) return rc;
    cow_tree_settle(clone->tree);
    return 1;
}

static int64_t clone_piece(struct clone *clone, const struct cow_piece *piece)
{
    struct cow_space *space = cow_tree_space(clone->tree);
    uint64_t first = clone->offset >> COW_BLOCK_SHIFT;
    uint64_t bytes = piece->count << COW_BLOCK_SHIFT;
    if (bytes > clone->length) bytes = clone->length;
    int rc = piece->addr ? cow_space_ref(space, piece->addr, (uint32_t)piece->count) : 0;
    if (rc) return rc;
    rc = clear(clone, first, piece->count);
    if (rc && piece->addr) {
        int unref_rc = cow_space_unref(space, piece->addr, (uint32_t)piece->count, NULL);
        if (rc == 1 && unref_rc) return unref_rc;
    }
    if (rc) return rc < 0 ? rc : 0;
    if (clone->offset + bytes > clone->to.size_bytes) rc = cow_resize(clone->tree, &clone->to, clone->offset + bytes);
    if (!rc && piece->addr) {
        struct cow_run run = {piece->addr, (uint32_t)piece->count, piece->birth};
        rc = cow_map_run(clone->tree, &clone->to, first, &run);
    }
    cow_lookup_inode_drop(clone->source, clone->from.ino);
    cow_lookup_inode_drop(clone->tree, clone->to.ino);
    cow_file_touch(&clone->to);
    if (!rc) rc = cow_tree_put_inode(clone->tree, &clone->to);
    return rc ? rc : (int64_t)bytes;
}

int64_t cow_fs_clone(struct cow_tree *source, uint64_t source_ino, uint64_t source_offset, struct cow_tree *tree,
                     uint64_t ino, uint64_t offset, uint64_t length, uint64_t *limit)
{
    struct clone clone = {
        .source = source, .tree = tree, .from_offset = source_offset, .offset = offset, .length = length};
    int rc = cow_file_get(source, source_ino, &clone.from);
    if (!rc) rc = cow_file_get(tree, ino, &clone.to);
    if (!rc) rc = check(&clone);
    if (rc || length == 0) return rc;
    if (*limit == 0) *limit = tree->size_bytes > tree->quota_bytes ? tree->size_bytes : tree->quota_bytes;
    rc = cow_quota_clone(
        &(struct cow_quota_clone){source, tree, &clone.from, &clone.to, source_offset, offset, length, *limit});
    if (rc) return rc;
    if ((clone.from.flags & COW_INODE_INLINE) && source_offset == 0) return copy_inline(&clone);
    if (clone.to.flags & COW_INODE_INLINE) {
        rc = cow_inline_to_block(tree, &clone.to);
        if (rc) return rc;
    }
    if (within_one(&clone) && length < COW_BLOCK_BYTES) return copy_part(&clone);
    if (within_one(&clone)) clone.length &= ~(uint64_t)(COW_BLOCK_BYTES - 1);
    rc = cow_trim_gap(tree, &clone.to, offset >> COW_BLOCK_SHIFT);
    if (rc) return rc < 0 ? rc : 0;
    struct cow_piece piece;
    rc = next_piece(&clone, &piece);
    return rc ? rc : clone_piece(&clone, &piece);
}
