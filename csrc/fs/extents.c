/* SPDX-License-Identifier: Apache-2.0 */
/*
 * EXTENT items as a map from blocks to runs. Changing it is always: look with a cursor, remember a bounded number of
 * items on the stack, close the cursor, then put and delete. References follow one rule: an item is changed in the
 * tree first and its blocks are released afterwards, because changing a shared leaf copies it, and the copy takes its
 * references from the items that the leaf has at that moment. Keeping a part of an item needs no change of references.
 */
#include "fs/extents.h"

#include <sys/stat.h>

void cow_charge(struct cow_tree *tree, uint64_t birth, uint64_t bytes)
{
    tree->apparent_bytes += bytes;
    if (cow_own(tree, birth)) tree->size_bytes += bytes;
}

void cow_discharge(struct cow_tree *tree, uint64_t birth, uint64_t bytes)
{
    COW_ASSERT(tree->apparent_bytes >= bytes);
    tree->apparent_bytes -= bytes;
    if (!cow_own(tree, birth)) return;
    COW_ASSERT(tree->size_bytes >= bytes);
    tree->size_bytes -= bytes;
}

int cow_file_get(struct cow_tree *tree, uint64_t ino, struct cow_inode *inode_out)
{
    int rc = cow_tree_get_inode(tree, ino, inode_out);
    if (rc) return rc;
    if (S_ISREG(inode_out->mode)) return 0;
    return S_ISDIR(inode_out->mode) ? -EISDIR : -EINVAL;
}

void cow_file_touch(struct cow_inode *inode)
{
    inode->mtime_ns = inode->ctime_ns = cow_now_ns();
}

/* ---- Looking ---- */

static bool is_extent(const struct cow_map *map)
{
    return map->cursor.valid && map->cursor.key.ino == map->ino && cow_key_type(map->cursor.key) == COW_ITEM_EXTENT;
}

static int decode(const struct cow_map *map, uint64_t *block_out, struct cow_run *run_out)
{
    *block_out = cow_key_offset(map->cursor.key);
    return cow_run_decode(map->cursor.value, map->cursor.value_bytes, run_out);
}

static int position(struct cow_map *map, uint64_t first_block)
{
    struct cow_key key = cow_key_make(map->ino, COW_ITEM_EXTENT, first_block);
    int rc = cow_cursor_seek_last(&map->cursor, key);
    if (rc) return rc;
    if (!map->cursor.valid) return cow_cursor_seek(&map->cursor, key);
    if (!is_extent(map)) return cow_cursor_next(&map->cursor);
    struct cow_run run;
    uint64_t block;
    rc = decode(map, &block, &run);
    if (rc || block + run.count > first_block) return rc;
    if (block + run.count == first_block) {
        map->before = run.addr + run.count;
        map->before_birth = run.birth;
    }
    return cow_cursor_next(&map->cursor);
}

int cow_map_open(struct cow_map *map, struct cow_tree *tree, uint64_t ino, uint64_t first_block)
{
    map->ino = ino;
    map->at = first_block;
    map->before = 0;
    map->before_birth = 0;
    map->want_reached = false;
    cow_cursor_init(&map->cursor, cow_tree_nodes(tree), tree->root);
    int rc = position(map, first_block);
    if (rc) cow_map_close(map);
    return rc;
}

void cow_map_close(struct cow_map *map)
{
    cow_cursor_deinit(&map->cursor);
}

int cow_map_next(struct cow_map *map, uint64_t end, struct cow_piece *piece_out)
{
    if (map->at >= end) return 0;
    struct cow_piece piece = {.block = map->at, .count = end - map->at};
    if (is_extent(map)) {
        int rc = decode(map, &piece.item_block, &piece.item);
        if (rc) return rc;
        uint64_t item_end = piece.item_block + piece.item.count;
        if (item_end <= map->at)
            return cow_fail(COW_EDAMAGE, "extents of inode %llu overlap", (unsigned long long)map->ino);
        if (piece.item_block > map->at) {
            if (piece.item_block < end) piece.count = piece.item_block - map->at;
        } else {
            piece.addr = piece.item.addr + (map->at - piece.item_block);
            piece.birth = piece.item.birth;
            if (item_end < end) piece.count = item_end - map->at;
            if (map->want_reached) rc = cow_cursor_shared(&map->cursor, &piece.reached_twice);
            if (rc) return rc;
            rc = item_end <= end ? cow_cursor_next(&map->cursor) : 0;
            if (rc) return rc;
        }
    }
    map->at += piece.count;
    *piece_out = piece;
    return 1;
}

int cow_map_next_data(struct cow_map *map, uint64_t end, struct cow_piece *piece_out)
{
    int rc = cow_map_next(map, end, piece_out);
    if (rc == 1 && piece_out->addr == 0) rc = cow_map_next(map, end, piece_out); /* no two holes in a row */
    return rc == 1 && piece_out->addr == 0 ? 0 : rc;
}

/* ---- Changing ---- */

static int put_run(struct cow_tree *tree, uint64_t ino, uint64_t block, const struct cow_run *run)
{
    uint8_t bytes[COW_RUN_BYTES];
    cow_run_encode(run, bytes);
    return cow_tree_put(tree, cow_key_make(ino, COW_ITEM_EXTENT, block), bytes, sizeof bytes);
}

/* Takes the piece out of its item: what is left of it on either side stays. */
static int cut(struct cow_tree *tree, struct cow_inode *inode, const struct cow_piece *piece)
{
    uint64_t end = piece->block + piece->count, item_end = piece->item_block + piece->item.count;
    struct cow_run left = piece->item, right = piece->item;
    left.count = (uint32_t)(piece->block - piece->item_block);
    right.count = (uint32_t)(item_end - end);
    right.addr += end - piece->item_block;
    int rc = left.count ? put_run(tree, inode->ino, piece->item_block, &left)
                        : cow_tree_del(tree, cow_key_make(inode->ino, COW_ITEM_EXTENT, piece->item_block));
    if (!rc && right.count) rc = put_run(tree, inode->ino, end, &right);
    if (!rc) rc = cow_space_unref(cow_tree_space(tree), piece->addr, (uint32_t)piece->count, NULL);
    if (rc) return rc;
    COW_ASSERT(inode->mapped_blocks >= piece->count);
    inode->mapped_blocks -= piece->count;
    cow_discharge(tree, piece->birth, cow_bytes_within(piece->block, piece->count, inode->size_bytes));
    cow_lookup_block_drop(tree, inode->ino, piece->block, piece->count);
    return 0;
}

int cow_unmap(struct cow_tree *tree, struct cow_inode *inode, uint64_t first, uint64_t end, unsigned limit)
{
    COW_ASSERT(limit > 0 && limit <= COW_UNMAP_MAX);
    if (first >= end || inode->mapped_blocks == 0) return 0;
    struct cow_piece pieces[COW_UNMAP_MAX];
    unsigned count = 0;
    struct cow_map map;
    int rc = cow_map_open(&map, tree, inode->ino, first);
    if (rc) return rc;
    while (count < limit && (rc = cow_map_next_data(&map, end, &pieces[count])) == 1)
        count++;
    cow_map_close(&map);
    if (rc < 0) return rc;
    for (unsigned i = 0; i < count; i++) {
        int cut_rc = cut(tree, inode, &pieces[i]);
        if (cut_rc) return cut_rc;
    }
    return rc;
}

/* The extents that touch block from before and block + count from behind, if they continue the run on the medium. */
static int neighbours(struct cow_tree *tree, uint64_t ino, uint64_t block, const struct cow_run *run,
                      struct cow_piece *left_out, struct cow_piece *right_out)
{
    struct cow_map map;
    uint64_t end = block + run->count;
    left_out->addr = right_out->addr = 0;
    int rc = cow_map_open(&map, tree, ino, block ? block - 1 : 0);
    if (rc) return rc;
    struct cow_piece piece;
    while ((rc = cow_map_next(&map, end + 1, &piece)) == 1) {
        if (piece.addr == 0 || piece.birth != run->birth) continue;
        if (piece.block < block && piece.addr + piece.count == run->addr) *left_out = piece;
        if (piece.block == end && run->addr + run->count == piece.addr) *right_out = piece;
    }
    cow_map_close(&map);
    return rc;
}

int cow_map_run(struct cow_tree *tree, struct cow_inode *inode, uint64_t block, const struct cow_run *run)
{
    struct cow_piece left, right;
    int rc = neighbours(tree, inode->ino, block, run, &left, &right);
    if (rc) return rc;
    struct cow_run merged = *run;
    uint64_t start = block;
    if (left.addr && left.item.count <= COW_SEGMENT_BLOCKS_MAX - merged.count) {
        start = left.item_block;
        merged.addr = left.item.addr;
        merged.count += left.item.count;
    }
    if (right.addr && right.item.count <= COW_SEGMENT_BLOCKS_MAX - merged.count) {
        rc = cow_tree_del(tree, cow_key_make(inode->ino, COW_ITEM_EXTENT, right.item_block));
        if (rc) return rc;
        merged.count += right.item.count;
    }
    rc = put_run(tree, inode->ino, start, &merged);
    if (rc) return rc;
    inode->mapped_blocks += run->count;
    cow_charge(tree, run->birth, cow_bytes_within(block, run->count, inode->size_bytes));
    return 0;
}

int cow_resize(struct cow_tree *tree, struct cow_inode *inode, uint64_t size)
{
    uint64_t was = inode->size_bytes;
    uint64_t low = was < size ? was : size, high = was < size ? size : was;
    inode->size_bytes = size;
    if (low == high || inode->mapped_blocks == 0) return 0;
    struct cow_map map;
    int rc = cow_map_open(&map, tree, inode->ino, low >> COW_BLOCK_SHIFT);
    if (rc) return rc;
    struct cow_piece piece;
    while ((rc = cow_map_next_data(&map, cow_blocks_of(high), &piece)) == 1) {
        uint64_t before = cow_bytes_within(piece.block, piece.count, was);
        uint64_t after = cow_bytes_within(piece.block, piece.count, size);
        if (after > before)
            cow_charge(tree, piece.birth, after - before);
        else
            cow_discharge(tree, piece.birth, before - after);
    }
    cow_map_close(&map);
    return rc;
}

/* ---- Inline content ---- */

int cow_inline_get(struct cow_tree *tree, const struct cow_inode *inode, struct cow_inline *content_out)
{
    uint8_t item[COW_INLINE_HEADER_BYTES + COW_INLINE_BYTES_MAX];
    int64_t length = cow_tree_get(tree, cow_key_make(inode->ino, COW_ITEM_INLINE, 0), item, sizeof item);
    if (length < 0 && length != -ENOENT) return (int)length;
    if (length < (int64_t)COW_INLINE_HEADER_BYTES || length > (int64_t)sizeof item)
        return cow_fail(COW_EDAMAGE, "the content of inode %llu is missing", (unsigned long long)inode->ino);
    content_out->birth = cow_load64(item);
    content_out->length = (size_t)length - COW_INLINE_HEADER_BYTES;
    memcpy(content_out->bytes, item + COW_INLINE_HEADER_BYTES, content_out->length);
    return 0;
}

int cow_inline_put(struct cow_tree *tree, struct cow_inode *inode, const struct cow_inline *was,
                   const struct cow_inline *content)
{
    struct cow_key key = cow_key_make(inode->ino, COW_ITEM_INLINE, 0);
    uint8_t item[COW_INLINE_HEADER_BYTES + COW_INLINE_BYTES_MAX];
    int rc = 0;
    if (content->length) {
        cow_store64(item, content->birth);
        memcpy(item + COW_INLINE_HEADER_BYTES, content->bytes, content->length);
        rc = cow_tree_put(tree, key, item, COW_INLINE_HEADER_BYTES + content->length);
    } else if (was->length) {
        rc = cow_tree_del(tree, key);
    }
    if (rc) return rc;
    if (was->length) cow_discharge(tree, was->birth, was->length);
    if (content->length) cow_charge(tree, content->birth, content->length);
    inode->flags = content->length ? inode->flags | COW_INODE_INLINE : inode->flags & ~COW_INODE_INLINE;
    return 0;
}
