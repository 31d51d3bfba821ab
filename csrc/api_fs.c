/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public functions for names, inodes and files: each checks its pointers, opens a bracket of tree.h, calls fs/ and
 * closes the bracket. What may be large is done in bounded steps, each in a bracket of its own, so that readers and
 * commits get in between; a step that returns 0 bytes has only prepared the file and is followed by another.
 */
#include "fs/extents.h"
#include "fs/names.h"
#include "tree/store.h"

#define READ_STEP_BYTES (4u << 20)
#define READ_STEP_BLOCKS 1024u

static int refuse(const char *what)
{
    return cow_fail(EINVAL, "%s needs its pointers", what);
}

static int read_begin(struct cow_tree *tree, bool pointers, const char *what)
{
    cow_error_clear();
    if (!tree || !pointers) return refuse(what);
    return cow_tree_read_begin(tree);
}

static int64_t read_end(struct cow_tree *tree, int64_t result)
{
    cow_tree_read_end(tree);
    return result;
}

static int write_begin(struct cow_tree *tree, bool pointers, const char *what)
{
    cow_error_clear();
    if (!tree || !pointers) return refuse(what);
    return cow_tree_write_begin(tree, COW_FS_PUTS);
}

/* For what adds to the store. */
static int grow_begin(struct cow_tree *tree, bool pointers, const char *what)
{
    cow_error_clear();
    if (!tree || !pointers) return refuse(what);
    return cow_tree_write_begin(tree, COW_FS_PUTS | COW_RESERVE_GROWS);
}

static int write_end(struct cow_tree *tree, int result)
{
    return (int)cow_tree_write_end(tree, result);
}

/* ---- Watchers ---- */

static void tell(struct cow_tree *tree, uint64_t ino, uint32_t what)
{
    cow_tree_tell(tree, &(cow_change){.what = what, .ino = ino});
}

static void tell_name(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, uint64_t ino)
{
    cow_tree_tell(tree, &(cow_change){.what = COW_CHANGE_NAME | (ino ? COW_CHANGE_INODE : 0),
                                      .ino = ino,
                                      .dir = dir,
                                      .name = name,
                                      .name_bytes = (uint32_t)name_bytes});
}

/* What a name leads to before it goes, for the watchers; inside of a bracket. */
static uint64_t peek(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes)
{
    uint64_t ino;
    if (!cow_watched(&tree->store->watchers) || cow_fs_lookup(tree, dir, name, name_bytes, &ino)) return 0;
    return ino;
}

/* ---- Paths ---- */

int cow_path_walk(cow_tree *tree, uint64_t start, const char *path, size_t path_bytes, uint32_t flags,
                  uint64_t *ino_out, cow_attr *attr_out)
{
    int rc = read_begin(tree, path && ino_out, "a walk");
    if (rc) return rc;
    uint64_t ino = 0;
    cow_attr attr;
    rc = cow_fs_walk(tree, start, path, path_bytes, flags, &ino);
    if (!rc && attr_out) rc = cow_fs_stat(tree, ino, &attr);
    cow_tree_read_end(tree);
    if (rc) return rc;
    *ino_out = ino;
    if (attr_out) *attr_out = attr;
    return 0;
}

int cow_path_parent(cow_tree *tree, uint64_t start, const char *path, size_t path_bytes, uint64_t *dir_out,
                    size_t *name_offset_out, size_t *name_bytes_out)
{
    int rc = read_begin(tree, path && dir_out && name_offset_out && name_bytes_out, "a walk");
    if (rc) return rc;
    return (int)read_end(tree, cow_fs_parent(tree, start, path, path_bytes, dir_out, name_offset_out, name_bytes_out));
}

int cow_path_of(cow_tree *tree, uint64_t ino, char *buffer, size_t capacity_bytes, size_t *path_bytes_out)
{
    int rc = read_begin(tree, buffer && path_bytes_out, "a path");
    return rc ? rc : (int)read_end(tree, cow_fs_path_of(tree, ino, buffer, capacity_bytes, path_bytes_out));
}

/* ---- Inodes ---- */

int cow_inode_stat(cow_tree *tree, uint64_t ino, cow_attr *attr_out)
{
    int rc = read_begin(tree, attr_out, "a stat");
    return rc ? rc : (int)read_end(tree, cow_fs_stat(tree, ino, attr_out));
}

int cow_inode_set(cow_tree *tree, uint64_t ino, const cow_attr *attr, uint32_t mask)
{
    int rc;
    do {
        rc = write_begin(tree, attr, "setting attributes");
        if (rc) return rc;
        rc = write_end(tree, cow_fs_set(tree, ino, attr, mask));
    } while (rc == 1);
    if (!rc) tell(tree, ino, mask & COW_SET_SIZE ? COW_CHANGE_INODE | COW_CHANGE_CONTENT : COW_CHANGE_INODE);
    return rc;
}

/* An orphan that nobody has open is on its way out. */
static int pin(struct cow_tree *tree, uint64_t ino)
{
    struct cow_inode inode;
    int rc = cow_tree_get_inode(tree, ino, &inode);
    if (rc) return rc;
    if ((inode.flags & COW_INODE_ORPHAN) && !cow_tree_pinned(tree, ino)) return -ENOENT;
    return cow_tree_pin(tree, ino);
}

int cow_inode_get(cow_tree *tree, uint64_t ino)
{
    int rc = read_begin(tree, true, "a pin");
    return rc ? rc : (int)read_end(tree, pin(tree, ino));
}

/* Frees an orphan, or (ino 0) every orphan that nobody has open. */
static int reclaim(struct cow_tree *tree, uint64_t ino)
{
    for (;;) {
        int rc = cow_tree_write_begin(tree, COW_FS_PUTS);
        if (rc) return rc;
        rc = write_end(tree, ino ? cow_fs_reclaim(tree, ino) : cow_fs_reclaim_next(tree));
        if (rc != 1) return rc;
    }
}

int cow_inode_put(cow_tree *tree, uint64_t ino)
{
    cow_error_clear();
    if (!tree) return refuse("an unpin");
    if (!cow_tree_unpin(tree, ino)) return 0;
    int rc = cow_tree_read_begin(tree);
    if (rc) return rc == -ESTALE ? 0 : rc;
    struct cow_inode inode;
    rc = cow_tree_get_inode(tree, ino, &inode);
    bool orphan = !rc && (inode.flags & COW_INODE_ORPHAN);
    cow_tree_read_end(tree);
    if (rc) return rc == -ENOENT ? 0 : rc;
    rc = orphan ? reclaim(tree, ino) : 0;
    return rc == -EROFS || rc == -ESTALE ? 0 : rc; /* sealed or deleted meanwhile: not this tree's business any more */
}

/* ---- Names ---- */

int cow_dir_lookup(cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, uint64_t *ino_out,
                   cow_attr *attr_out)
{
    int rc = read_begin(tree, name && ino_out, "a lookup");
    if (rc) return rc;
    uint64_t ino = 0;
    cow_attr attr;
    rc = cow_fs_lookup(tree, dir, name, name_bytes, &ino);
    if (!rc && attr_out) rc = cow_fs_stat(tree, ino, &attr);
    cow_tree_read_end(tree);
    if (rc) return rc;
    *ino_out = ino;
    if (attr_out) *attr_out = attr;
    return 0;
}

int cow_dir_make(cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, const cow_attr *attr,
                 const char *target, size_t target_bytes, uint64_t *ino_out)
{
    int rc = grow_begin(tree, name && attr && ino_out, "making a name");
    if (rc) return rc;
    rc = write_end(tree, cow_fs_make(tree, dir, name, name_bytes, attr, target, target_bytes, ino_out));
    if (!rc) tell_name(tree, dir, name, name_bytes, 0);
    return rc;
}

int cow_dir_link(cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, uint64_t ino)
{
    int rc = grow_begin(tree, name, "a link");
    if (!rc) rc = write_end(tree, cow_fs_link(tree, dir, name, name_bytes, ino));
    if (!rc) tell_name(tree, dir, name, name_bytes, ino);
    return rc;
}

int cow_dir_remove(cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, uint32_t how)
{
    int rc = write_begin(tree, name, "a removal");
    if (rc) return rc;
    uint64_t orphan, lost = peek(tree, dir, name, name_bytes);
    rc = write_end(tree, cow_fs_remove(tree, dir, name, name_bytes, how, &orphan));
    if (!rc) tell_name(tree, dir, name, name_bytes, lost);
    if (rc || orphan == 0) return rc;
    return reclaim(tree, how == COW_REMOVE_TREE ? 0 : orphan);
}

int cow_dir_rename(cow_tree *tree, uint64_t old_dir, const char *old_name, size_t old_name_bytes, uint64_t new_dir,
                   const char *new_name, size_t new_name_bytes, uint32_t flags)
{
    int rc = write_begin(tree, old_name && new_name, "a rename");
    if (rc) return rc;
    uint64_t orphan, moved = peek(tree, old_dir, old_name, old_name_bytes);
    uint64_t replaced = peek(tree, new_dir, new_name, new_name_bytes);
    rc = write_end(tree, cow_fs_rename(tree, old_dir, old_name, old_name_bytes, new_dir, new_name, new_name_bytes,
                                       flags, &orphan));
    if (!rc) {
        tell_name(tree, old_dir, old_name, old_name_bytes, moved);
        tell_name(tree, new_dir, new_name, new_name_bytes, replaced);
    }
    return rc || orphan == 0 ? rc : reclaim(tree, orphan);
}

int64_t cow_dir_read(cow_tree *tree, uint64_t dir, uint64_t cookie, uint32_t flags, void *buffer, size_t capacity_bytes)
{
    int rc = read_begin(tree, buffer, "a listing");
    return rc ? rc : read_end(tree, cow_fs_read_dir(tree, dir, cookie, flags, buffer, capacity_bytes));
}

int64_t cow_symlink_read(cow_tree *tree, uint64_t ino, char *buffer, size_t capacity_bytes)
{
    int rc = read_begin(tree, buffer || capacity_bytes == 0, "a symlink");
    return rc ? rc : read_end(tree, cow_fs_read_link(tree, ino, buffer, capacity_bytes));
}

/* ---- Extended attributes ---- */

int64_t cow_xattr_get(cow_tree *tree, uint64_t ino, const char *name, size_t name_bytes, void *value,
                      size_t capacity_bytes)
{
    int rc = read_begin(tree, name && (value || capacity_bytes == 0), "an attribute");
    return rc ? rc : read_end(tree, cow_fs_xattr_get(tree, ino, name, name_bytes, value, capacity_bytes));
}

int cow_xattr_set(cow_tree *tree, uint64_t ino, const char *name, size_t name_bytes, const void *value,
                  size_t value_bytes, uint32_t flags)
{
    int rc = grow_begin(tree, name && (value || value_bytes == 0), "an attribute");
    if (!rc) rc = write_end(tree, cow_fs_xattr_set(tree, ino, name, name_bytes, value, value_bytes, flags));
    if (!rc) tell(tree, ino, COW_CHANGE_INODE);
    return rc;
}

int64_t cow_xattr_list(cow_tree *tree, uint64_t ino, char *names, size_t capacity_bytes)
{
    int rc = read_begin(tree, names || capacity_bytes == 0, "a list of attributes");
    return rc ? rc : read_end(tree, cow_fs_xattr_list(tree, ino, names, capacity_bytes));
}

int cow_xattr_remove(cow_tree *tree, uint64_t ino, const char *name, size_t name_bytes)
{
    int rc = write_begin(tree, name, "an attribute");
    if (!rc) rc = write_end(tree, cow_fs_xattr_remove(tree, ino, name, name_bytes));
    if (!rc) tell(tree, ino, COW_CHANGE_INODE);
    return rc;
}

/* ---- Files ---- */

int64_t cow_file_read(cow_tree *tree, uint64_t ino, uint64_t offset, void *buffer, size_t length_bytes)
{
    size_t done = 0;
    do {
        int rc = read_begin(tree, buffer || length_bytes == 0, "a read");
        if (rc) return rc;
        size_t step = length_bytes - done < READ_STEP_BYTES ? length_bytes - done : READ_STEP_BYTES;
        int64_t n = read_end(tree, cow_fs_read(tree, ino, offset + done, (uint8_t *)buffer + done, step));
        if (n < 0) return n;
        done += (size_t)n;
        if ((size_t)n < step) break;
    } while (done < length_bytes);
    return (int64_t)done;
}

/* The end of the file is looked up once, so that one append stays in one piece. */
static int64_t write_once(struct cow_tree *tree, uint64_t ino, uint64_t *offset, const uint8_t *bytes, size_t length,
                          bool first)
{
    if (*offset == COW_APPEND) {
        struct cow_inode inode;
        int rc = cow_file_get(tree, ino, &inode);
        if (rc) return rc;
        *offset = inode.size_bytes;
    }
    /* All of it at first, so that a write that does not fit writes nothing; then what others may have left room for. */
    int rc = cow_quota_write(tree, ino, *offset, first || length < COW_FS_IO_BYTES ? length : COW_FS_IO_BYTES);
    if (rc) return rc;
    return cow_fs_write(tree, ino, *offset, bytes, length);
}

static int64_t write_all(cow_tree *tree, uint64_t ino, uint64_t offset, const uint8_t *bytes, size_t length_bytes)
{
    size_t done = 0;
    bool tried_again = false;
    if (length_bytes > INT64_MAX) return cow_fail(EINVAL, "a write of %zu bytes", length_bytes);
    if (offset != COW_APPEND && (offset > COW_FILE_BYTES_MAX || length_bytes > COW_FILE_BYTES_MAX - offset))
        return cow_fail(EFBIG, "a file of that size");
    do {
        int rc = grow_begin(tree, bytes || length_bytes == 0, "a write");
        if (rc) return rc;
        int64_t n = cow_tree_write_end(tree, write_once(tree, ino, &offset, bytes + done, length_bytes - done, done == 0));
        if (cow_tree_try_again(tree, n) && !tried_again) {
            tried_again = true;
            continue;
        }
        if (n < 0) return n;
        done += (size_t)n;
        offset += (uint64_t)n;
    } while (done < length_bytes);
    return (int64_t)done;
}

/* A failure may have written a part: the watchers are told all the same. */
int64_t cow_file_write(cow_tree *tree, uint64_t ino, uint64_t offset, const void *buffer, size_t length_bytes)
{
    int64_t n = write_all(tree, ino, offset, buffer, length_bytes);
    if (tree) tell(tree, ino, COW_CHANGE_CONTENT);
    return n;
}

int cow_file_truncate(cow_tree *tree, uint64_t ino, uint64_t size_bytes)
{
    int rc;
    do {
        rc = write_begin(tree, true, "a truncation");
        if (rc) return rc;
        rc = write_end(tree, cow_fs_truncate(tree, ino, size_bytes));
    } while (rc == 1);
    tell(tree, ino, COW_CHANGE_CONTENT);
    return rc;
}

int cow_file_punch(cow_tree *tree, uint64_t ino, uint64_t offset, uint64_t length_bytes)
{
    int rc;
    do {
        rc = write_begin(tree, true, "a hole");
        if (rc) return rc;
        rc = write_end(tree, cow_fs_punch(tree, ino, offset, length_bytes));
    } while (rc == 1);
    tell(tree, ino, COW_CHANGE_CONTENT);
    return rc;
}

int64_t cow_file_seek(cow_tree *tree, uint64_t ino, uint64_t offset, int whence)
{
    int rc = read_begin(tree, true, "a seek");
    return rc ? rc : read_end(tree, cow_fs_seek(tree, ino, offset, whence));
}

int cow_file_clone(cow_tree *source, uint64_t source_ino, uint64_t source_offset, cow_tree *tree, uint64_t ino,
                   uint64_t offset, uint64_t length_bytes)
{
    cow_error_clear();
    if (!source || !tree) return refuse("a clone");
    uint64_t done = 0, limit = 0;
    do {
        int rc = cow_tree_clone_begin(source, tree, COW_FS_PUTS | COW_RESERVE_GROWS);
        if (rc) return rc;
        int64_t n =
            cow_fs_clone(source, source_ino, source_offset + done, tree, ino, offset + done, length_bytes - done,
                         &limit);
        n = cow_tree_clone_end(source, tree, n);
        if (n < 0) return (int)n;
        done += (uint64_t)n;
        tell(tree, ino, COW_CHANGE_CONTENT);
    } while (done < length_bytes);
    return 0;
}

int64_t cow_file_extents(cow_tree *tree, uint64_t ino, uint64_t first_block, cow_extent *extents, size_t capacity)
{
    int rc = read_begin(tree, extents || capacity == 0, "a list of extents");
    return rc ? rc : read_end(tree, cow_fs_extents(tree, ino, first_block, extents, capacity));
}

static int check_blocks(const uint64_t *blocks, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (blocks[i] >= COW_BLOCKS_END) return cow_fail(EFBIG, "block %llu of a file", (unsigned long long)blocks[i]);
    return 0;
}

int cow_file_read_blocks(cow_tree *tree, uint64_t ino, const uint64_t *blocks, size_t count, void *buffer)
{
    size_t done = 0;
    do {
        int rc = read_begin(tree, count == 0 || (blocks && buffer), "a read of blocks");
        if (rc) return rc;
        size_t step = count - done < READ_STEP_BLOCKS ? count - done : READ_STEP_BLOCKS;
        struct cow_inode inode;
        rc = cow_file_get(tree, ino, &inode);
        if (!rc) rc = check_blocks(blocks + done, step);
        if (!rc) rc = cow_fs_read_blocks(tree, ino, blocks + done, step, (uint8_t *)buffer + done * COW_BLOCK_BYTES);
        cow_tree_read_end(tree);
        if (rc) return rc;
        done += step;
    } while (done < count);
    return 0;
}

int cow_file_write_blocks(cow_tree *tree, uint64_t ino, const uint64_t *blocks, size_t count, const void *buffer)
{
    size_t done = 0;
    if (count && (!blocks || !buffer)) return refuse("a write of blocks");
    int rc = check_blocks(blocks, count);
    while (!rc && done < count) {
        rc = grow_begin(tree, true, "a write of blocks");
        if (rc) return rc;
        size_t step = count - done < READ_STEP_BLOCKS ? count - done : READ_STEP_BLOCKS;
        int n = cow_quota_write_blocks(tree, ino, blocks + done, done == 0 ? count : step);
        if (n == 0)
            n = cow_fs_write_blocks(tree, ino, blocks + done, step, (const uint8_t *)buffer + done * COW_BLOCK_BYTES);
        n = write_end(tree, n);
        if (n < 0) return n;
        done += (size_t)n;
        tell(tree, ino, COW_CHANGE_CONTENT);
    }
    return rc;
}

int cow_file_sync(cow_tree *tree, uint64_t ino)
{
    cow_attr attr;
    int rc = cow_inode_stat(tree, ino, &attr);
    if (rc) return rc;
    rc = cow_store_commit(tree->store);
    return rc == -EROFS ? 0 : rc; /* a read-only store is as durable as it gets */
}
