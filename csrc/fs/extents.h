/* SPDX-License-Identifier: Apache-2.0 */
/*
 * extents.h: the mapping of a file's blocks to runs of the store, and the byte counts that hang on it. Private to fs/.
 *
 * Invariants
 *   - EXTENT items of a file do not overlap; each holds one reference to every block of its run.
 *   - tree->apparent_bytes is the sum, over all mapped blocks, of their bytes below the file's size, plus the length
 *     of each INLINE item; tree->size_bytes the same over those born at or after tree->base ("own").
 *   - The block that holds the end of the file is zero behind it. Blocks wholly behind the end may be mapped (a
 *     truncation under way, a file laid out ahead of its content): what they hold means nothing, and whoever moves the
 *     end over them unmaps or overwrites them first.
 *   - inode.mapped_blocks is the number of blocks in the file's EXTENT items. An inode with COW_INODE_INLINE has an
 *     INLINE item and no EXTENT items; its bytes behind the item are zeros.
 */
#ifndef COW_EXTENTS_H
#define COW_EXTENTS_H

#include "fs/fs.h"

#define COW_BLOCKS_END ((uint64_t)COW_FILE_BYTES_MAX >> COW_BLOCK_SHIFT)

static inline uint64_t cow_blocks_of(uint64_t size)
{
    return (size + COW_BLOCK_BYTES - 1) >> COW_BLOCK_SHIFT;
}
/* How many bytes of blocks [block, block + count) lie below size. */
static inline uint64_t cow_bytes_within(uint64_t block, uint64_t count, uint64_t size)
{
    uint64_t start = block << COW_BLOCK_SHIFT, bytes = count << COW_BLOCK_SHIFT;
    if (size <= start) return 0;
    return size - start < bytes ? size - start : bytes;
}

void cow_charge(struct cow_tree *tree, uint64_t birth, uint64_t bytes);
void cow_discharge(struct cow_tree *tree, uint64_t birth, uint64_t bytes);
static inline bool cow_own(const struct cow_tree *tree, uint64_t birth)
{
    return birth >= tree->base;
}

/* A stretch of blocks that is a hole (addr 0) or lies in one run. */
struct cow_piece {
    uint64_t block, count;
    cow_addr addr; /* of the first block */
    uint64_t birth;
    bool in_place;       /* for writers: may be overwritten */
    bool reached_twice;  /* with map.want_reached: the item belongs to another tree as well */
    uint64_t item_block; /* the EXTENT item that it is a part of */
    struct cow_run item;
};

/* Walks the mapping. The tree must not change while it is open. */
struct cow_map {
    struct cow_cursor cursor;
    uint64_t ino, at;
    cow_addr before; /* where the block just before the start would be continued; 0 = it is a hole */
    uint64_t before_birth;
    bool want_reached; /* set after open */
};
int cow_map_open(struct cow_map *map, struct cow_tree *tree, uint64_t ino, uint64_t first_block);
/* The next piece, cut off at block end; 1, or 0 when end is reached. */
int cow_map_next(struct cow_map *map, uint64_t end, struct cow_piece *piece_out);
/* The same, but holes are skipped. */
int cow_map_next_data(struct cow_map *map, uint64_t end, struct cow_piece *piece_out);
void cow_map_close(struct cow_map *map);

/* Takes at most limit (<= COW_UNMAP_MAX) runs out of blocks [first, end): limit + 2 puts and dels. Discharges by
 * inode->size_bytes. Returns 1 when there may be more, 0 when the range is a hole now. */
#define COW_UNMAP_MAX 16u
int cow_unmap(struct cow_tree *tree, struct cow_inode *inode, uint64_t first, uint64_t end, unsigned limit);
/* Maps a hole to a run whose references become the item's; merges with its neighbours; at most 2 puts and dels.
 * Charges by inode->size_bytes. */
int cow_map_run(struct cow_tree *tree, struct cow_inode *inode, uint64_t block, const struct cow_run *run);
/* Moves the end of the file, for the counts only: blocks between the old and the new end change what they weigh. */
int cow_resize(struct cow_tree *tree, struct cow_inode *inode, uint64_t size);

/* The content of a small file. */
struct cow_inline {
    uint64_t birth;
    size_t length;
    uint8_t bytes[COW_INLINE_BYTES_MAX];
};
int cow_inline_get(struct cow_tree *tree, const struct cow_inode *inode, struct cow_inline *content_out);
/* Replaces the INLINE item (length 0 removes it) and the counts; was: what is there now (length 0 = nothing). */
int cow_inline_put(struct cow_tree *tree, struct cow_inode *inode, const struct cow_inline *was,
                   const struct cow_inline *content);

/* ---- write.c: one bounded step of a change to content. inode is changed and put. bytes NULL = zeros (then within
 * one block). Returns the bytes done; 0 = the file was only prepared, call again in a new bracket. */
int64_t cow_write_step(struct cow_tree *tree, struct cow_inode *inode, uint64_t offset, const uint8_t *bytes,
                       uint64_t length);
/* Brings the content of an inline file to a block. */
int cow_inline_to_block(struct cow_tree *tree, struct cow_inode *inode);
/* Before the end moves from inside to block first or further: what is mapped between goes. 1 = call again. */
int cow_trim_gap(struct cow_tree *tree, struct cow_inode *inode, uint64_t first);
/* Zeros [offset, end), which lies in one block, if that block is mapped. Size and times stay. */
int cow_zero_part(struct cow_tree *tree, struct cow_inode *inode, uint64_t offset, uint64_t end);

/* ---- quota.c: -EDQUOT when a request would make the tree larger than its quota; asked before it changes anything. The
 * range is what is still to be done of the request. */
int cow_quota_write(struct cow_tree *tree, uint64_t ino, uint64_t offset, uint64_t length);
int cow_quota_write_blocks(struct cow_tree *tree, uint64_t ino, const uint64_t *blocks, size_t count);
int cow_quota_extend(struct cow_tree *tree, const struct cow_inode *inode, uint64_t size);
int cow_quota_punch(struct cow_tree *tree, const struct cow_inode *inode, uint64_t offset, uint64_t end);
struct cow_quota_clone {
    struct cow_tree *source, *tree;
    const struct cow_inode *from, *to;
    uint64_t source_offset, offset, length;
    uint64_t limit; /* as judged when the request began: its first steps may free what the later ones need */
};
int cow_quota_clone(const struct cow_quota_clone *clone);

int cow_file_get(struct cow_tree *tree, uint64_t ino, struct cow_inode *inode_out); /* -EISDIR, -EINVAL */
void cow_file_touch(struct cow_inode *inode);                                       /* content changed now */

#endif
