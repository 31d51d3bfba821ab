/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inodes without a name. One with few items is freed on the spot. Any other, and one that is pinned, is put on the
 * tree's list of orphans (an item (0, ORPHAN, ino), so that a crash does not lose it) and is freed in bounded steps. A
 * directory may become an orphan with everything below it: that is how a whole subtree is removed. Its steps take
 * names out one by one; a child that has names of its own becomes the next orphan, so there is no recursion and the
 * list is the work that is left. A pinned orphan keeps its inode and content, but a directory loses its names.
 */
#include <sys/stat.h>

#include "fs/extents.h"
#include "fs/names.h"

#define REACH_STEP 20u /* items of an orphan freed in one step */

struct doomed {
    struct cow_key key;
    struct cow_run run; /* of an EXTENT item */
    uint64_t birth;     /* of an INLINE item */
    size_t inline_bytes;
};

static int describe(const struct cow_cursor *cursor, struct doomed *doomed)
{
    *doomed = (struct doomed){.key = cursor->key};
    if (cow_key_type(cursor->key) == COW_ITEM_EXTENT)
        return cow_run_decode(cursor->value, cursor->value_bytes, &doomed->run);
    if (cow_key_type(cursor->key) != COW_ITEM_INLINE) return 0;
    if (cursor->value_bytes < COW_INLINE_HEADER_BYTES) return cow_fail(COW_EDAMAGE, "an inline content is cut off");
    doomed->birth = cow_load64(cursor->value);
    doomed->inline_bytes = cursor->value_bytes - COW_INLINE_HEADER_BYTES;
    return 0;
}

/* The first items of ino behind its inode, at most limit; returns how many. */
static int collect(struct cow_tree *tree, uint64_t ino, struct doomed *doomed, unsigned limit)
{
    struct cow_cursor cursor;
    cow_cursor_init(&cursor, cow_tree_nodes(tree), tree->root);
    unsigned count = 0;
    int rc = cow_cursor_seek(&cursor, cow_key_make(ino, COW_ITEM_DIRENT, 0));
    while (!rc && count < limit && cursor.valid && cursor.key.ino == ino) {
        rc = describe(&cursor, &doomed[count++]);
        if (!rc) rc = cow_cursor_next(&cursor);
    }
    cow_cursor_deinit(&cursor);
    return rc ? rc : (int)count;
}

static int free_item(struct cow_tree *tree, struct cow_inode *inode, const struct doomed *doomed)
{
    COW_ASSERT(cow_key_type(doomed->key) != COW_ITEM_DIRENT);
    int rc = cow_tree_del(tree, doomed->key);
    if (rc) return rc;
    if (doomed->inline_bytes) {
        cow_discharge(tree, doomed->birth, doomed->inline_bytes);
        inode->flags &= ~COW_INODE_INLINE;
    }
    if (doomed->run.count == 0) return 0;
    uint64_t block = cow_key_offset(doomed->key);
    cow_discharge(tree, doomed->run.birth, cow_bytes_within(block, doomed->run.count, inode->size_bytes));
    COW_ASSERT(inode->mapped_blocks >= doomed->run.count);
    inode->mapped_blocks -= doomed->run.count;
    return cow_space_unref(cow_tree_space(tree), doomed->run.addr, doomed->run.count, NULL);
}

static int free_items(struct cow_tree *tree, struct cow_inode *inode, const struct doomed *doomed, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        int rc = free_item(tree, inode, &doomed[i]);
        if (rc) return rc;
    }
    cow_lookup_inode_drop(tree, inode->ino);
    return 0;
}

int cow_inode_release(struct cow_tree *tree, struct cow_inode *inode, uint64_t *orphan_out)
{
    COW_ASSERT(inode->nlink == 0);
    *orphan_out = 0;
    struct doomed doomed[COW_FS_PURGE_ITEMS + 1];
    bool pinned = cow_tree_pinned(tree, inode->ino);
    bool has_names = S_ISDIR(inode->mode) && inode->entries > 0;
    int count = pinned || has_names ? 0 : collect(tree, inode->ino, doomed, COW_FS_PURGE_ITEMS + 1);
    if (count < 0) return count;
    if (!pinned && !has_names && count <= (int)COW_FS_PURGE_ITEMS) {
        int rc = free_items(tree, inode, doomed, (unsigned)count);
        return rc ? rc : cow_tree_del_inode(tree, inode->ino);
    }
    inode->flags |= COW_INODE_ORPHAN;
    tree->flags |= COW_TREE_ORPHANS;
    if (!pinned || has_names) *orphan_out = inode->ino;
    int rc = cow_tree_put(tree, cow_key_make(0, COW_ITEM_ORPHAN, inode->ino), "", 0);
    return rc ? rc : cow_tree_put_inode(tree, inode);
}

/* ---- Steps ---- */

struct first_name {
    struct cow_entry entry;
    size_t bytes;
    char name[COW_NAME_BYTES_MAX];
};

static int first_name(struct cow_tree *tree, uint64_t dir, struct first_name *first)
{
    struct cow_cursor cursor;
    cow_cursor_init(&cursor, cow_tree_nodes(tree), tree->root);
    int rc = cow_cursor_seek(&cursor, cow_key_make(dir, COW_ITEM_DIRENT, 0));
    if (!rc && (!cursor.valid || cursor.key.ino != dir || cow_key_type(cursor.key) != COW_ITEM_DIRENT))
        rc = cow_fail(COW_EDAMAGE, "names of directory %llu are missing", (unsigned long long)dir);
    struct cow_dirent dirent;
    size_t at = 0;
    if (!rc) rc = cow_dirent_next(cursor.value, cursor.value_bytes, &at, &dirent);
    if (rc == 1) {
        first->entry = (struct cow_entry){dirent.ino, (uint32_t)dirent.type << 12};
        first->bytes = dirent.name_bytes;
        memcpy(first->name, dirent.name, dirent.name_bytes);
        rc = 0;
    }
    cow_cursor_deinit(&cursor);
    return rc;
}

/* Takes one name out of an orphan directory. */
static int drop_first_name(struct cow_tree *tree, struct cow_inode *dir)
{
    struct first_name first;
    struct cow_inode child;
    int rc = first_name(tree, dir->ino, &first);
    if (!rc) rc = cow_tree_get_inode(tree, first.entry.ino, &child);
    if (!rc) rc = cow_name_remove(tree, dir, first.name, first.bytes);
    if (!rc) rc = cow_tree_put_inode(tree, dir);
    if (rc) return rc;
    uint64_t hash = cow_name_hash(tree, first.name, first.bytes), orphan;
    child.ctime_ns = cow_now_ns();
    child.nlink = S_ISDIR(child.mode) ? 0 : child.nlink - 1;
    if (child.nlink == 0) return cow_inode_release(tree, &child, &orphan);
    rc = cow_link_remove(tree, &child, dir->ino, hash);
    return rc ? rc : cow_tree_put_inode(tree, &child);
}

static int finish(struct cow_tree *tree, uint64_t ino)
{
    int rc = cow_tree_del_inode(tree, ino);
    return rc ? rc : cow_tree_del(tree, cow_key_make(0, COW_ITEM_ORPHAN, ino));
}

int cow_fs_reclaim(struct cow_tree *tree, uint64_t ino)
{
    struct cow_inode inode;
    int rc = cow_tree_get_inode(tree, ino, &inode);
    if (rc) return rc == -ENOENT ? 0 : rc;
    if (!(inode.flags & COW_INODE_ORPHAN)) return 0;
    if (S_ISDIR(inode.mode) && inode.entries > 0) {
        rc = drop_first_name(tree, &inode);
        return rc ? rc : 1;
    }
    if (cow_tree_pinned(tree, ino)) return 0;
    struct doomed doomed[REACH_STEP];
    int count = collect(tree, ino, doomed, REACH_STEP);
    if (count < 0) return count;
    rc = free_items(tree, &inode, doomed, (unsigned)count);
    if (rc) return rc;
    if (count < (int)REACH_STEP) return finish(tree, ino);
    rc = cow_tree_put_inode(tree, &inode);
    return rc ? rc : 1;
}

/* The first orphan behind after that a step can do something for: 0 in *ino_out when there is none. */
static int next_orphan(struct cow_tree *tree, uint64_t *ino_out, bool *any_out)
{
    struct cow_cursor cursor;
    cow_cursor_init(&cursor, cow_tree_nodes(tree), tree->root);
    int rc = cow_cursor_seek(&cursor, cow_key_make(0, COW_ITEM_ORPHAN, 0));
    *ino_out = 0;
    *any_out = false;
    while (!rc && *ino_out == 0 && cursor.valid && cursor.key.ino == 0 && cow_key_type(cursor.key) == COW_ITEM_ORPHAN) {
        uint64_t ino = cow_key_offset(cursor.key);
        *any_out = true;
        struct cow_inode inode = {.ino = ino};
        bool pinned = cow_tree_pinned(tree, ino);
        if (pinned) rc = cow_tree_get_inode(tree, ino, &inode);
        if (!pinned || (S_ISDIR(inode.mode) && inode.entries > 0)) *ino_out = ino;
        if (!rc) rc = cow_cursor_next(&cursor);
    }
    cow_cursor_deinit(&cursor);
    return rc;
}

int cow_fs_reclaim_next(struct cow_tree *tree)
{
    uint64_t ino;
    bool any;
    if (!(tree->flags & COW_TREE_ORPHANS)) return 0;
    int rc = next_orphan(tree, &ino, &any);
    if (rc) return rc;
    if (!any) tree->flags &= ~COW_TREE_ORPHANS;
    if (ino == 0) return 0;
    rc = cow_fs_reclaim(tree, ino);
    return rc < 0 ? rc : 1;
}
