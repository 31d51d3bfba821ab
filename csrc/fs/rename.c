/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Renaming, all cases. What is asked for is looked up and judged first (struct rename holds it); the changes that
 * follow cannot be refused any more. Both directories may be the same one: then there is one struct for it, reached by
 * two pointers. The directories that change are never the inodes that move, because a directory cannot get into itself.
 */
#include <sys/stat.h>

#include "fs/names.h"

#define ANCESTORS_MAX 4096u

struct end { /* one of the two names */
    struct cow_inode *dir;
    const char *name;
    size_t name_bytes;
    uint64_t hash;
    bool exists;
    struct cow_entry entry;
    struct cow_inode inode; /* what the name leads to */
};

struct rename {
    struct cow_tree *tree;
    struct cow_inode dirs[2];
    struct end from, to;
};

/* Is above an ancestor of dir, or dir itself? Walks up the parents. */
static int is_above(struct cow_tree *tree, uint64_t above, uint64_t dir)
{
    for (unsigned level = 0; level < ANCESTORS_MAX; level++) {
        if (dir == above) return 1;
        if (dir == COW_ROOT_INO) return 0;
        struct cow_inode inode;
        int rc = cow_tree_get_inode(tree, dir, &inode);
        if (rc == -ENOENT || (!rc && inode.nlink == 0)) return 0; /* inside a removed subtree */
        if (rc) return rc;
        dir = inode.parent;
    }
    return cow_fail(ELOOP, "a directory is more than %u levels deep", ANCESTORS_MAX);
}

static int refuse_inside(struct cow_tree *tree, const struct end *moved, const struct end *goal)
{
    if (!S_ISDIR(moved->inode.mode)) return 0;
    int rc = is_above(tree, moved->inode.ino, goal->dir->ino);
    if (rc == 1) return cow_fail(EINVAL, "a directory cannot be moved into itself");
    return rc;
}

static int find_end(struct cow_tree *tree, struct end *end)
{
    end->hash = cow_name_hash(tree, end->name, end->name_bytes);
    int rc = cow_name_find(tree, end->dir->ino, end->name, end->name_bytes, &end->entry);
    end->exists = rc == 0;
    if (rc) return rc == -ENOENT ? 0 : rc;
    return cow_tree_get_inode(tree, end->entry.ino, &end->inode);
}

static int look_up(struct rename *rename, uint64_t old_dir, uint64_t new_dir)
{
    struct cow_tree *tree = rename->tree;
    int rc = cow_name_check_new(rename->from.name, rename->from.name_bytes);
    if (!rc) rc = cow_name_check_new(rename->to.name, rename->to.name_bytes);
    if (!rc) rc = cow_dir_get(tree, old_dir, &rename->dirs[0]);
    if (!rc && new_dir != old_dir) rc = cow_dir_get(tree, new_dir, &rename->dirs[1]);
    if (rc) return rc;
    rename->from.dir = &rename->dirs[0];
    rename->to.dir = &rename->dirs[new_dir == old_dir ? 0 : 1];
    rc = find_end(tree, &rename->from);
    if (!rc) rc = find_end(tree, &rename->to);
    if (rc) return rc;
    return rename->from.exists ? 0 : -ENOENT;
}

static int check_replace(struct rename *rename)
{
    const struct cow_inode *moved = &rename->from.inode, *victim = &rename->to.inode;
    int rc = refuse_inside(rename->tree, &rename->from, &rename->to);
    if (rc) return rc;
    if (!rename->to.exists)
        return cow_name_room(rename->tree, rename->to.dir->ino, rename->to.name, rename->to.name_bytes);
    if (S_ISDIR(moved->mode) && !S_ISDIR(victim->mode)) return -ENOTDIR;
    if (!S_ISDIR(moved->mode) && S_ISDIR(victim->mode)) return -EISDIR;
    return S_ISDIR(victim->mode) && victim->entries ? -ENOTEMPTY : 0;
}

static int put_dirs(struct rename *rename)
{
    cow_dir_touch(rename->from.dir);
    int rc = cow_tree_put_inode(rename->tree, rename->from.dir);
    if (rc || rename->from.dir == rename->to.dir) return rc;
    cow_dir_touch(rename->to.dir);
    return cow_tree_put_inode(rename->tree, rename->to.dir);
}

/* The inode that had the name `from` has the name `to` instead. */
static int move_link(struct cow_tree *tree, struct cow_inode *inode, const struct end *from, const struct end *to)
{
    inode->ctime_ns = cow_now_ns();
    if (inode->parent == from->dir->ino && inode->name_hash == from->hash) {
        inode->parent = to->dir->ino;
        inode->name_hash = to->hash;
    } else {
        int rc = cow_link_remove(tree, inode, from->dir->ino, from->hash);
        if (!rc) rc = cow_link_add(tree, inode, to->dir->ino, to->hash);
        if (rc) return rc;
    }
    return cow_tree_put_inode(tree, inode);
}

static int lose_name(struct rename *rename, uint64_t *orphan_out)
{
    struct cow_inode *victim = &rename->to.inode;
    victim->ctime_ns = cow_now_ns();
    victim->nlink = S_ISDIR(victim->mode) ? 0 : victim->nlink - 1;
    if (victim->nlink == 0) return cow_inode_release(rename->tree, victim, orphan_out);
    int rc = cow_link_remove(rename->tree, victim, rename->to.dir->ino, rename->to.hash);
    return rc ? rc : cow_tree_put_inode(rename->tree, victim);
}

static int move(struct rename *rename, uint64_t *orphan_out)
{
    struct cow_tree *tree = rename->tree;
    struct end *from = &rename->from, *to = &rename->to;
    int rc = to->exists ? cow_name_replace(tree, to->dir, to->name, to->name_bytes, from->entry)
                        : cow_name_add(tree, to->dir, to->name, to->name_bytes, from->entry);
    if (!rc) rc = cow_name_remove(tree, from->dir, from->name, from->name_bytes);
    if (rc) return rc;
    if (S_ISDIR(from->inode.mode)) {
        from->dir->nlink--;
        to->dir->nlink++;
        if (to->exists) to->dir->nlink--;
    }
    rc = put_dirs(rename);
    if (!rc) rc = move_link(tree, &from->inode, from, to);
    return rc || !to->exists ? rc : lose_name(rename, orphan_out);
}

static int exchange(struct rename *rename)
{
    struct cow_tree *tree = rename->tree;
    struct end *from = &rename->from, *to = &rename->to;
    if (!to->exists) return -ENOENT;
    if (from->entry.ino == to->entry.ino) return 0;
    int rc = refuse_inside(tree, from, to);
    if (!rc) rc = refuse_inside(tree, to, from);
    if (!rc) rc = cow_name_replace(tree, to->dir, to->name, to->name_bytes, from->entry);
    if (!rc) rc = cow_name_replace(tree, from->dir, from->name, from->name_bytes, to->entry);
    if (rc) return rc;
    uint32_t from_dirs = S_ISDIR(from->inode.mode), to_dirs = S_ISDIR(to->inode.mode);
    from->dir->nlink += to_dirs - from_dirs;
    to->dir->nlink += from_dirs - to_dirs;
    rc = put_dirs(rename);
    if (!rc) rc = move_link(tree, &from->inode, from, to);
    return rc ? rc : move_link(tree, &to->inode, to, from);
}

int cow_fs_rename(struct cow_tree *tree, uint64_t old_dir, const char *old_name, size_t old_name_bytes,
                  uint64_t new_dir, const char *new_name, size_t new_name_bytes, uint32_t flags, uint64_t *orphan_out)
{
    *orphan_out = 0;
    if ((flags & ~(uint32_t)(COW_RENAME_NOREPLACE | COW_RENAME_EXCHANGE)) ||
        flags == (COW_RENAME_NOREPLACE | COW_RENAME_EXCHANGE))
        return cow_fail(EINVAL, "flags of a rename: %u", flags);
    struct rename rename = {.tree = tree,
                            .from = {.name = old_name, .name_bytes = old_name_bytes},
                            .to = {.name = new_name, .name_bytes = new_name_bytes}};
    int rc = look_up(&rename, old_dir, new_dir);
    if (rc) return rc;
    if (flags & COW_RENAME_EXCHANGE) return exchange(&rename);
    if (rename.to.exists && (flags & COW_RENAME_NOREPLACE)) return -EEXIST;
    if (rename.to.exists && rename.to.entry.ino == rename.from.entry.ino) return 0; /* two names of one file, or one */
    rc = check_replace(&rename);
    return rc ? rc : move(&rename, orphan_out);
}
