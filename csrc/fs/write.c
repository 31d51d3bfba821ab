/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing. A step covers a range that has at most STEP_PIECES pieces in the mapping, so all it has to remember fits on
 * the stack and its changes to the tree are bounded. It goes: look the range up; find out what the tree owns (that is
 * overwritten in place); allocate runs for the rest; move the data; and only then change the tree. Whatever fails
 * before the last part leaves the file's mapping as it was and gives the new blocks back. A rewrite of owned blocks
 * never gets to the B+tree: for one or two blocks lookup alone knows where they are.
 *
 * What is owned: a block with one reference that was born in the open generation may be overwritten, but a count is
 * only true when no node above it is shared. Putting an extent's item again, unchanged, makes its path exclusive (and
 * hands references down where a node was shared), so the count is asked for after that.
 */
#include "fs/extents.h"

#define STEP_PIECES 6u
#define LOOKUP_BLOCKS 2u      /* up to here a range is tried with lookup alone */
#define LOOKUP_FILL_BLOCKS 4u /* up to here what was written is put there */

struct fresh {
    uint64_t block;
    uint32_t count;
    cow_addr addr;
};

struct step {
    struct cow_tree *tree;
    struct cow_inode *inode;
    uint64_t offset, end;             /* bytes */
    uint64_t first, stop;             /* blocks [first, stop) */
    const uint8_t *bytes;             /* what goes to offset; NULL = zeros */
    const struct cow_inline *content; /* block 0 was inline until now */
    struct cow_piece piece[STEP_PIECES];
    unsigned piece_count;
    struct fresh fresh[STEP_PIECES];
    unsigned fresh_count;
    cow_addr before; /* a good place for the first new block */
    uint64_t copied_bytes;
};

static uint64_t piece_end(const struct cow_piece *piece)
{
    return piece->block + piece->count;
}

static void shorten(struct step *step, uint64_t stop)
{
    step->stop = stop;
    if (step->end > stop << COW_BLOCK_SHIFT) step->end = stop << COW_BLOCK_SHIFT;
}

/* ---- 1. Where everything is ---- */

/* All blocks of a short range known and owned: one piece each. */
static bool plan_by_lookup(struct step *step)
{
    if (step->stop - step->first > LOOKUP_BLOCKS || step->content || step->inode->mapped_blocks == 0) return false;
    for (uint64_t block = step->first; block < step->stop; block++) {
        cow_addr addr = 0;
        bool owned = false;
        if (cow_lookup_block_get(step->tree, step->inode->ino, block, &addr, &owned) != 1) break;
        if (addr == 0 || !owned) break;
        step->piece[step->piece_count++] =
            (struct cow_piece){.block = block, .count = 1, .addr = addr, .birth = step->tree->id, .in_place = true};
    }
    if (step->piece_count == step->stop - step->first) return true;
    step->piece_count = 0;
    return false;
}

static int plan_by_map(struct step *step)
{
    if (step->inode->mapped_blocks == 0) { /* one hole */
        step->piece[step->piece_count++] = (struct cow_piece){.block = step->first, .count = step->stop - step->first};
        return 0;
    }
    struct cow_map map;
    int rc = cow_map_open(&map, step->tree, step->inode->ino, step->first);
    if (rc) return rc;
    if (map.before && cow_own(step->tree, map.before_birth)) step->before = map.before;
    while (step->piece_count < STEP_PIECES &&
           (rc = cow_map_next(&map, step->stop, &step->piece[step->piece_count])) == 1)
        step->piece_count++;
    cow_map_close(&map);
    if (rc < 0) return rc;
    shorten(step, piece_end(&step->piece[step->piece_count - 1]));
    return 0;
}

/* ---- 2. What is owned ---- */

/* How many first blocks of the piece may be overwritten. */
static int owned_blocks(struct step *step, const struct cow_piece *piece, uint32_t *owned_out)
{
    struct cow_space *space = cow_tree_space(step->tree);
    *owned_out = 0;
    if (piece->addr == 0 || !cow_own(step->tree, piece->birth)) return 0;
    int rc = cow_space_owned_run(space, piece->addr, (uint32_t)piece->count, owned_out);
    if (rc || *owned_out == 0) return rc;
    uint8_t bytes[COW_RUN_BYTES];
    cow_run_encode(&piece->item, bytes);
    struct cow_key key = cow_key_make(step->inode->ino, COW_ITEM_EXTENT, piece->item_block);
    rc = cow_tree_put(step->tree, key, bytes, sizeof bytes);
    if (rc) return rc;
    cow_tree_settle(step->tree);
    return cow_space_owned_run(space, piece->addr, (uint32_t)piece->count, owned_out);
}

/* Splits each piece into what is overwritten and what is replaced. */
static int plan_ownership(struct step *step)
{
    struct cow_piece out[STEP_PIECES];
    unsigned count = 0;
    for (unsigned i = 0; i < step->piece_count && count < STEP_PIECES; i++) {
        struct cow_piece piece = step->piece[i], rest = piece;
        uint32_t owned;
        int rc = owned_blocks(step, &piece, &owned);
        if (rc) return rc;
        if (owned == 0 || owned == piece.count) {
            piece.in_place = owned != 0;
            out[count++] = piece;
            continue;
        }
        piece.count = owned;
        piece.in_place = true;
        out[count++] = piece;
        if (count == STEP_PIECES) break;
        rest.block += owned;
        rest.addr += owned;
        rest.count -= owned;
        out[count++] = rest;
    }
    memcpy(step->piece, out, count * sizeof out[0]);
    step->piece_count = count;
    shorten(step, piece_end(&out[count - 1]));
    return 0;
}

/* ---- 3. New blocks ---- */

static void give_back(struct step *step)
{
    for (unsigned i = 0; i < step->fresh_count; i++)
        cow_space_drop(cow_tree_space(step->tree), step->fresh[i].addr, step->fresh[i].count);
    step->fresh_count = 0;
}

/* Runs for [block, end); fewer when they come in too many parts. */
static int allocate_range(struct step *step, uint64_t block, uint64_t end, cow_addr *goal)
{
    while (block < end) {
        if (step->fresh_count == STEP_PIECES) {
            shorten(step, block);
            return 0;
        }
        struct fresh fresh = {.block = block};
        int rc =
            cow_space_alloc_data(cow_tree_space(step->tree), *goal, (uint32_t)(end - block), &fresh.addr, &fresh.count);
        if (rc) return rc;
        COW_ASSERT(fresh.count > 0 && fresh.count <= end - block);
        step->fresh[step->fresh_count++] = fresh;
        block += fresh.count;
        *goal = fresh.addr + fresh.count;
    }
    return 0;
}

static int plan_allocation(struct step *step)
{
    cow_addr goal = step->before ? step->before : step->tree->append_goal;
    for (unsigned i = 0; i < step->piece_count && step->piece[i].block < step->stop; i++) {
        const struct cow_piece *piece = &step->piece[i];
        if (piece->in_place) {
            goal = piece->addr + piece->count;
            continue;
        }
        uint64_t block = piece->block;
        while (i + 1 < step->piece_count && !step->piece[i + 1].in_place)
            i++;
        int rc = allocate_range(step, block, piece_end(&step->piece[i]), &goal);
        if (rc) return rc;
    }
    while (step->piece_count && step->piece[step->piece_count - 1].block >= step->stop)
        step->piece_count--;
    struct cow_piece *last = &step->piece[step->piece_count - 1];
    if (piece_end(last) > step->stop) last->count = step->stop - last->block;
    return 0;
}

/* ---- 4. Data ---- */

static const struct cow_piece *piece_at(const struct step *step, uint64_t block)
{
    for (unsigned i = 0; i < step->piece_count; i++)
        if (block >= step->piece[i].block && block < piece_end(&step->piece[i])) return &step->piece[i];
    return NULL;
}

/* The content that a partly written block had; only what of it lies in the file and outside [from, to) matters. */
static int load_old(struct step *step, uint64_t block, uint64_t from, uint64_t to, uint8_t *buffer)
{
    uint64_t start = block << COW_BLOCK_SHIFT, size = step->inode->size_bytes;
    memset(buffer, 0, COW_BLOCK_BYTES);
    if (start >= size || (from == start && to >= size)) return 0;
    if (step->content) {
        if (block == 0) memcpy(buffer, step->content->bytes, step->content->length);
        return 0;
    }
    const struct cow_piece *piece = piece_at(step, block);
    if (!piece || piece->addr == 0) return 0;
    int rc = cow_space_read(cow_tree_space(step->tree), piece->addr + (block - piece->block), 1, buffer);
    if (!rc && !piece->in_place) step->copied_bytes += COW_BLOCK_BYTES - (to - from);
    return rc;
}

static int write_part(struct step *step, uint64_t block, cow_addr addr)
{
    uint8_t buffer[COW_BLOCK_BYTES];
    uint64_t start = block << COW_BLOCK_SHIFT;
    uint64_t from = step->offset > start ? step->offset : start;
    uint64_t to = step->end < start + COW_BLOCK_BYTES ? step->end : start + COW_BLOCK_BYTES;
    int rc = load_old(step, block, from, to, buffer);
    if (rc) return rc;
    if (step->bytes)
        memcpy(buffer + (from - start), step->bytes + (from - step->offset), to - from);
    else
        memset(buffer + (from - start), 0, to - from);
    return cow_space_write(cow_tree_space(step->tree), addr, 1, buffer);
}

/* Whole blocks go from the caller's buffer in one write; a partial first and last one pass through the stack. */
static int write_run(struct step *step, uint64_t block, uint64_t count, cow_addr addr)
{
    if (step->offset > block << COW_BLOCK_SHIFT || (!step->bytes && count)) {
        int rc = write_part(step, block, addr);
        if (rc) return rc;
        block++;
        addr++;
        count--;
    }
    bool part_at_end = count && step->end < (block + count) << COW_BLOCK_SHIFT;
    uint64_t whole = part_at_end ? count - 1 : count;
    if (whole) {
        COW_ASSERT(step->bytes != NULL);
        const uint8_t *bytes = step->bytes + ((block << COW_BLOCK_SHIFT) - step->offset);
        int rc = cow_space_write(cow_tree_space(step->tree), addr, (uint32_t)whole, bytes);
        if (rc) return rc;
    }
    return part_at_end ? write_part(step, block + whole, addr + whole) : 0;
}

static int move_data(struct step *step)
{
    for (unsigned i = 0; i < step->fresh_count; i++) {
        int rc = write_run(step, step->fresh[i].block, step->fresh[i].count, step->fresh[i].addr);
        if (rc) return rc;
    }
    for (unsigned i = 0; i < step->piece_count; i++) {
        if (!step->piece[i].in_place) continue;
        int rc = write_run(step, step->piece[i].block, step->piece[i].count, step->piece[i].addr);
        if (rc) return rc;
    }
    return 0;
}

/* ---- 5. The tree ---- */

static int unmap_replaced(struct step *step)
{
    uint64_t copied_up = 0;
    for (unsigned i = 0; i < step->piece_count; i++) {
        const struct cow_piece *piece = &step->piece[i];
        if (piece->in_place || piece->addr == 0) continue;
        int rc = cow_unmap(step->tree, step->inode, piece->block, piece_end(piece), 1);
        if (rc < 0) return rc;
        copied_up += piece->count;
    }
    if (copied_up) {
        cow_count(&cow_tree_copy_ups(step->tree)->copy_ups, copied_up);
        cow_count(&cow_tree_copy_ups(step->tree)->bytes, step->copied_bytes);
    }
    return 0;
}

/* The counts for a new end of the file: of owned pieces here, of the former last block when it lies outside. */
static int grow(struct step *step)
{
    uint64_t was = step->inode->size_bytes;
    if (step->end <= was) return 0;
    for (unsigned i = 0; i < step->piece_count; i++) {
        const struct cow_piece *piece = &step->piece[i];
        if (piece->in_place)
            cow_charge(step->tree, piece->birth,
                       cow_bytes_within(piece->block, piece->count, step->end) -
                           cow_bytes_within(piece->block, piece->count, was));
    }
    uint64_t size = step->end;
    if ((was & (COW_BLOCK_BYTES - 1)) && was >> COW_BLOCK_SHIFT < step->first) {
        struct cow_inode tail = *step->inode;
        uint64_t tail_end = ((was >> COW_BLOCK_SHIFT) + 1) << COW_BLOCK_SHIFT;
        int rc = cow_resize(step->tree, &tail, tail_end);
        if (rc) return rc;
    }
    step->inode->size_bytes = size;
    return 0;
}

static void fill_lookup(struct step *step)
{
    if (step->stop - step->first > LOOKUP_FILL_BLOCKS) {
        for (unsigned i = 0; i < step->fresh_count; i++)
            cow_lookup_block_drop(step->tree, step->inode->ino, step->fresh[i].block, step->fresh[i].count);
        return;
    }
    for (unsigned i = 0; i < step->fresh_count; i++)
        for (uint32_t n = 0; n < step->fresh[i].count; n++)
            cow_lookup_block_put(step->tree, step->inode->ino, step->fresh[i].block + n, step->fresh[i].addr + n, true);
    for (unsigned i = 0; i < step->piece_count; i++)
        for (uint64_t n = 0; step->piece[i].in_place && n < step->piece[i].count; n++)
            cow_lookup_block_put(step->tree, step->inode->ino, step->piece[i].block + n, step->piece[i].addr + n, true);
}

static int apply(struct step *step)
{
    int rc = unmap_replaced(step);
    if (!rc && step->content) {
        const struct cow_inline nothing = {.length = 0};
        rc = cow_inline_put(step->tree, step->inode, step->content, &nothing);
    }
    if (!rc) rc = grow(step);
    for (unsigned i = 0; !rc && i < step->fresh_count; i++) {
        struct cow_run run = {step->fresh[i].addr, step->fresh[i].count, step->tree->id};
        rc = cow_map_run(step->tree, step->inode, step->fresh[i].block, &run);
        step->tree->append_goal = run.addr + run.count;
    }
    return rc ? rc : cow_tree_put_inode(step->tree, step->inode);
}

/* A failure before the first change to the tree leaves all as it was. */
static int apply_or_undo(struct step *step)
{
    struct cow_tree *tree = step->tree;
    uint64_t apparent = tree->apparent_bytes, size = tree->size_bytes;
    int rc = apply(step);
    if (rc && tree->mutations == 0) {
        tree->apparent_bytes = apparent;
        tree->size_bytes = size;
        give_back(step);
    }
    return rc;
}

/* ---- The step ---- */

static int64_t run_step(struct step *step)
{
    bool known = plan_by_lookup(step);
    int rc = known ? 0 : plan_by_map(step);
    if (!rc && !known) rc = plan_ownership(step);
    if (!rc && !known) rc = plan_allocation(step);
    if (!rc) rc = move_data(step);
    if (rc) {
        give_back(step);
        return rc;
    }
    rc = apply_or_undo(step);
    if (rc) return rc;
    if (!known) fill_lookup(step);
    return (int64_t)(step->end - step->offset);
}

static struct step make_step(struct cow_tree *tree, struct cow_inode *inode, uint64_t offset, uint64_t length,
                             const uint8_t *bytes, const struct cow_inline *content)
{
    return (struct step){.tree = tree,
                         .inode = inode,
                         .offset = offset,
                         .end = offset + length,
                         .first = offset >> COW_BLOCK_SHIFT,
                         .stop = cow_blocks_of(offset + length),
                         .bytes = bytes,
                         .content = content};
}

static int64_t write_inline(struct cow_tree *tree, struct cow_inode *inode, const struct cow_inline *was,
                            uint64_t offset, const uint8_t *bytes, uint64_t length)
{
    struct cow_inline content = *was;
    uint64_t end = offset + length;
    if (end > content.length) {
        memset(content.bytes + content.length, 0, end - content.length);
        content.length = end;
    }
    memcpy(content.bytes + offset, bytes, length);
    content.birth = tree->id;
    int rc = cow_inline_put(tree, inode, was, &content);
    if (rc) return rc;
    if (inode->size_bytes < end) inode->size_bytes = end;
    rc = cow_tree_put_inode(tree, inode);
    return rc ? rc : (int64_t)length;
}

int cow_inline_to_block(struct cow_tree *tree, struct cow_inode *inode)
{
    struct cow_inline content;
    int rc = cow_inline_get(tree, inode, &content);
    if (rc) return rc;
    struct step step = make_step(tree, inode, 0, content.length, content.bytes, &content);
    int64_t done = run_step(&step);
    if (done < 0) return (int)done;
    COW_ASSERT(done == (int64_t)content.length);
    cow_tree_settle(tree);
    return 0;
}

int cow_trim_gap(struct cow_tree *tree, struct cow_inode *inode, uint64_t first)
{
    uint64_t mapped = inode->mapped_blocks;
    int rc = cow_unmap(tree, inode, cow_blocks_of(inode->size_bytes), first, 12);
    if (rc < 0 || inode->mapped_blocks == mapped) return rc;
    int put_rc = cow_tree_put_inode(tree, inode);
    if (put_rc) return put_rc;
    cow_tree_settle(tree);
    return 1;
}

int64_t cow_write_step(struct cow_tree *tree, struct cow_inode *inode, uint64_t offset, const uint8_t *bytes,
                       uint64_t length)
{
    COW_ASSERT(bytes != NULL && length > 0);
    struct cow_inline content;
    content.length = 0;
    content.birth = 0;
    bool is_inline = (inode->flags & COW_INODE_INLINE) != 0;
    if (is_inline) {
        int rc = cow_inline_get(tree, inode, &content);
        if (rc) return rc;
    }
    if (inode->mapped_blocks == 0 && offset + length <= COW_INLINE_BYTES_MAX)
        return write_inline(tree, inode, &content, offset, bytes, length);
    if (is_inline && offset >= COW_BLOCK_BYTES) {
        int rc = cow_inline_to_block(tree, inode);
        return rc;
    }
    int rc = is_inline ? 0 : cow_trim_gap(tree, inode, offset >> COW_BLOCK_SHIFT);
    if (rc) return rc < 0 ? rc : 0;
    struct step step = make_step(tree, inode, offset, length, bytes, is_inline ? &content : NULL);
    return run_step(&step);
}

int cow_zero_part(struct cow_tree *tree, struct cow_inode *inode, uint64_t offset, uint64_t end)
{
    if (offset >= end || inode->mapped_blocks == 0) return 0;
    COW_ASSERT(offset >> COW_BLOCK_SHIFT == (end - 1) >> COW_BLOCK_SHIFT && end <= inode->size_bytes);
    struct cow_map map;
    uint64_t block = offset >> COW_BLOCK_SHIFT;
    int rc = cow_map_open(&map, tree, inode->ino, block);
    if (rc) return rc;
    struct cow_piece piece;
    rc = cow_map_next_data(&map, block + 1, &piece);
    cow_map_close(&map);
    if (rc != 1) return rc;
    struct step step = make_step(tree, inode, offset, end - offset, NULL, NULL);
    int64_t done = run_step(&step);
    return done < 0 ? (int)done : 0;
}

int64_t cow_fs_write(struct cow_tree *tree, uint64_t ino, uint64_t offset, const void *buffer, size_t length)
{
    struct cow_inode inode;
    int rc = cow_file_get(tree, ino, &inode);
    if (rc) return rc;
    if (length == 0) return 0;
    if (offset == COW_APPEND) offset = inode.size_bytes;
    if (offset > COW_FILE_BYTES_MAX || length > COW_FILE_BYTES_MAX - offset)
        return cow_fail(EFBIG, "a file of that size");
    uint64_t room = COW_FS_IO_BYTES - (offset & (COW_BLOCK_BYTES - 1));
    cow_file_touch(&inode);
    return cow_write_step(tree, &inode, offset, buffer, length < room ? length : room);
}

/* How many of the first blocks have consecutive numbers. */
static size_t run_of(const uint64_t *blocks, size_t count)
{
    size_t run = 1;
    while (run < count && run < COW_FS_IO_BYTES / COW_BLOCK_BYTES && blocks[run] == blocks[0] + run)
        run++;
    return run;
}

/* Single blocks that lookup knows to be owned are overwritten one after another; else one run is written. */
int cow_fs_write_blocks(struct cow_tree *tree, uint64_t ino, const uint64_t *blocks, size_t count, const void *buffer)
{
    struct cow_inode inode;
    int rc = cow_file_get(tree, ino, &inode);
    if (rc || count == 0) return rc;
    cow_file_touch(&inode);
    const uint8_t *bytes = buffer;
    size_t done = 0;
    for (; done < count && (blocks[done] + 1) << COW_BLOCK_SHIFT <= inode.size_bytes; done++) {
        cow_addr addr;
        bool owned;
        if (run_of(blocks + done, count - done) > LOOKUP_BLOCKS) break;
        if (cow_lookup_block_get(tree, ino, blocks[done], &addr, &owned) != 1 || addr == 0 || !owned) break;
        rc = cow_space_write(cow_tree_space(tree), addr, 1, bytes + done * COW_BLOCK_BYTES);
        if (rc) return rc;
    }
    if (done) {
        rc = cow_tree_put_inode(tree, &inode);
        return rc ? rc : (int)done;
    }
    size_t run = run_of(blocks, count);
    int64_t written = cow_write_step(tree, &inode, blocks[0] << COW_BLOCK_SHIFT, bytes, run * COW_BLOCK_BYTES);
    return written < 0 ? (int)written : (int)(written >> COW_BLOCK_SHIFT);
}

int cow_fs_place_whole(struct cow_tree *tree, uint64_t ino, uint64_t size)
{
    struct cow_inode inode;
    int rc = cow_file_get(tree, ino, &inode);
    if (rc) return rc;
    uint64_t count = cow_blocks_of(size);
    if (count == 0 || count > COW_SEGMENT_BLOCKS_MAX || inode.size_bytes || inode.mapped_blocks) return -EINVAL;
    struct cow_run run = {.count = (uint32_t)count, .birth = tree->id};
    rc = cow_space_alloc_whole(cow_tree_space(tree), run.count, &run.addr);
    if (rc) return rc;
    rc = cow_map_run(tree, &inode, 0, &run);
    return rc ? rc : cow_tree_put_inode(tree, &inode);
}
