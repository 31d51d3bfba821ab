/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading, and asking where data is. Runs go straight from the medium to the caller's buffer, in reads of at most
 * 1 MiB; only a partly wanted first or last block passes through the stack. One or two blocks are first looked for in
 * lookup, and put there when the map had to be asked. Reading does not change access times.
 */
#include "fs/extents.h"

#define READ_BLOCKS_MAX 256u
#define LOOKUP_BLOCKS 2u

struct reader {
    struct cow_tree *tree;
    uint64_t offset, end; /* bytes wanted */
    uint8_t *buffer;      /* for offset */
};

static int read_part(const struct reader *reader, uint64_t block, cow_addr addr)
{
    uint8_t bytes[COW_BLOCK_BYTES];
    uint64_t start = block << COW_BLOCK_SHIFT;
    uint64_t from = reader->offset > start ? reader->offset : start;
    uint64_t to = reader->end < start + COW_BLOCK_BYTES ? reader->end : start + COW_BLOCK_BYTES;
    int rc = cow_space_read(cow_tree_space(reader->tree), addr, 1, bytes);
    if (!rc) memcpy(reader->buffer + (from - reader->offset), bytes + (from - start), to - from);
    return rc;
}

static void read_hole(const struct reader *reader, uint64_t block, uint64_t count)
{
    uint64_t from = block << COW_BLOCK_SHIFT, to = (block + count) << COW_BLOCK_SHIFT;
    if (from < reader->offset) from = reader->offset;
    if (to > reader->end) to = reader->end;
    memset(reader->buffer + (from - reader->offset), 0, to - from);
}

static int read_run(const struct reader *reader, uint64_t block, uint64_t count, cow_addr addr)
{
    if (addr == 0) {
        read_hole(reader, block, count);
        return 0;
    }
    while (count) {
        uint64_t start = block << COW_BLOCK_SHIFT;
        uint32_t n = count < READ_BLOCKS_MAX ? (uint32_t)count : READ_BLOCKS_MAX;
        while (n > 1 && start + ((uint64_t)n << COW_BLOCK_SHIFT) > reader->end)
            n--;
        int rc;
        if (start < reader->offset || start + COW_BLOCK_BYTES > reader->end) {
            n = 1;
            rc = read_part(reader, block, addr);
        } else {
            rc = cow_space_read(cow_tree_space(reader->tree), addr, n, reader->buffer + (start - reader->offset));
        }
        if (rc) return rc;
        block += n;
        addr += n;
        count -= n;
    }
    return 0;
}

static int read_by_map(const struct reader *reader, uint64_t ino, uint64_t first, uint64_t stop)
{
    struct cow_map map;
    int rc = cow_map_open(&map, reader->tree, ino, first);
    if (rc) return rc;
    struct cow_piece piece;
    while ((rc = cow_map_next(&map, stop, &piece)) == 1) {
        rc = read_run(reader, piece.block, piece.count, piece.addr);
        if (rc) break;
        for (uint64_t i = 0; stop - first <= LOOKUP_BLOCKS && i < piece.count; i++)
            cow_lookup_block_put(reader->tree, ino, piece.block + i, piece.addr ? piece.addr + i : 0, false);
    }
    cow_map_close(&map);
    return rc;
}

static int read_range(const struct reader *reader, uint64_t ino)
{
    uint64_t first = reader->offset >> COW_BLOCK_SHIFT, stop = cow_blocks_of(reader->end);
    for (; first < stop && stop - first <= LOOKUP_BLOCKS; first++) {
        cow_addr addr;
        bool owned;
        if (cow_lookup_block_get(reader->tree, ino, first, &addr, &owned) != 1) break;
        int rc = read_run(reader, first, 1, addr);
        if (rc) return rc;
    }
    return first < stop ? read_by_map(reader, ino, first, stop) : 0;
}

static int read_inline(struct cow_tree *tree, const struct cow_inode *inode, uint64_t offset, uint8_t *buffer,
                       uint64_t length)
{
    struct cow_inline content;
    int rc = cow_inline_get(tree, inode, &content);
    if (rc) return rc;
    uint64_t have = offset < content.length ? content.length - offset : 0;
    if (have > length) have = length;
    if (have) memcpy(buffer, content.bytes + offset, have);
    memset(buffer + have, 0, length - have);
    return 0;
}

int64_t cow_fs_read(struct cow_tree *tree, uint64_t ino, uint64_t offset, void *buffer, size_t length)
{
    struct cow_inode inode;
    int rc = cow_file_get(tree, ino, &inode);
    if (rc) return rc;
    if (offset >= inode.size_bytes || length == 0) return 0;
    if (length > inode.size_bytes - offset) length = (size_t)(inode.size_bytes - offset);
    if (inode.flags & COW_INODE_INLINE) {
        rc = read_inline(tree, &inode, offset, buffer, length);
    } else if (inode.mapped_blocks == 0) {
        memset(buffer, 0, length);
    } else {
        struct reader reader = {tree, offset, offset + length, buffer};
        rc = read_range(&reader, ino);
    }
    return rc ? rc : (int64_t)length;
}

/* One batch entry after another; consecutive block numbers are read together. */
int cow_fs_read_blocks(struct cow_tree *tree, uint64_t ino, const uint64_t *blocks, size_t count, void *buffer)
{
    uint8_t *bytes = buffer;
    for (size_t done = 0; done < count;) {
        size_t run = 1;
        while (done + run < count && run < READ_BLOCKS_MAX && blocks[done + run] == blocks[done] + run)
            run++;
        size_t length = run * COW_BLOCK_BYTES;
        int64_t n = cow_fs_read(tree, ino, blocks[done] << COW_BLOCK_SHIFT, bytes + done * COW_BLOCK_BYTES, length);
        if (n < 0) return (int)n;
        memset(bytes + done * COW_BLOCK_BYTES + n, 0, length - (size_t)n);
        done += run;
    }
    return 0;
}

/* ---- Where data is ---- */

static int64_t seek_inline(struct cow_tree *tree, const struct cow_inode *inode, uint64_t offset, int whence)
{
    struct cow_inline content;
    int rc = cow_inline_get(tree, inode, &content);
    if (rc) return rc;
    bool in_data = offset < content.length;
    if (whence == COW_SEEK_DATA) return in_data ? (int64_t)offset : -ENXIO;
    return (int64_t)(in_data ? content.length : offset);
}

int64_t cow_fs_seek(struct cow_tree *tree, uint64_t ino, uint64_t offset, int whence)
{
    struct cow_inode inode;
    int rc = cow_file_get(tree, ino, &inode);
    if (rc) return rc;
    if (whence != COW_SEEK_DATA && whence != COW_SEEK_HOLE) return cow_fail(EINVAL, "whence %d", whence);
    if (offset >= inode.size_bytes) return -ENXIO;
    if (inode.flags & COW_INODE_INLINE) return seek_inline(tree, &inode, offset, whence);
    struct cow_map map;
    struct cow_piece piece;
    rc = cow_map_open(&map, tree, ino, offset >> COW_BLOCK_SHIFT);
    if (rc) return rc;
    bool want_data = whence == COW_SEEK_DATA;
    while ((rc = cow_map_next(&map, cow_blocks_of(inode.size_bytes), &piece)) == 1)
        if ((piece.addr != 0) == want_data) break;
    cow_map_close(&map);
    if (rc < 0) return rc;
    if (rc == 0) return want_data ? -ENXIO : (int64_t)inode.size_bytes; /* the end counts as a hole */
    uint64_t found = piece.block << COW_BLOCK_SHIFT;
    return (int64_t)(found > offset ? found : offset);
}

static int describe(struct cow_tree *tree, const struct cow_piece *piece, cow_extent *extent_out)
{
    uint32_t exclusive;
    int rc = cow_space_exclusive(cow_tree_space(tree), piece->addr, (uint32_t)piece->count, &exclusive);
    if (rc) return rc;
    *extent_out = (cow_extent){.block = piece->block,
                               .block_count = piece->count,
                               .address = piece->addr,
                               .shared = piece->reached_twice || exclusive < piece->count,
                               .own = cow_own(tree, piece->birth)};
    return 0;
}

int64_t cow_fs_extents(struct cow_tree *tree, uint64_t ino, uint64_t first_block, cow_extent *extents, size_t capacity)
{
    struct cow_inode inode;
    int rc = cow_file_get(tree, ino, &inode);
    if (rc || capacity == 0) return rc;
    uint64_t stop = cow_blocks_of(inode.size_bytes);
    if (inode.flags & COW_INODE_INLINE) {
        struct cow_inline content;
        if (first_block > 0) return 0;
        rc = cow_inline_get(tree, &inode, &content);
        if (rc) return rc;
        extents[0] = (cow_extent){.block = 0, .block_count = 1, .own = cow_own(tree, content.birth)};
        return 1;
    }
    struct cow_map map;
    rc = cow_map_open(&map, tree, ino, first_block);
    if (rc) return rc;
    map.want_reached = true;
    struct cow_piece piece;
    size_t count = 0;
    while (count < capacity && (rc = cow_map_next_data(&map, stop, &piece)) == 1) {
        rc = describe(tree, &piece, &extents[count]);
        if (rc) break;
        count++;
    }
    cow_map_close(&map);
    return rc < 0 ? rc : (int64_t)count;
}
