/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names.h: the directory and link items under the operations of dir.c, rename.c and orphan.c. Private to fs/.
 *
 * Invariants
 *   - (dir, DIRENT, hash) holds every entry of dir whose name hashes so; a directory's inode.entries is their number.
 *   - Every name of an inode is known from the inode: the first as inode.parent and name_hash, further ones as LINK
 *     items. nlink of a file is their number; of a directory 2 + its subdirectories; 0 of either: an orphan.
 *   - A LINK item's offset is derived from what it holds (link_slot in names.c), so that it is found without a scan.
 * Functions that take a struct cow_inode change it in memory; their caller puts it.
 */
#ifndef COW_NAMES_H
#define COW_NAMES_H

#include "fs/fs.h"

struct cow_entry {
    uint64_t ino;
    uint32_t type; /* type bits of the mode */
};

uint64_t cow_name_hash(struct cow_tree *tree, const char *name, size_t name_bytes);
/* A name that may be looked up (cow_name_check) or made: -ENAMETOOLONG, -ENOENT ("" only), -EINVAL. */
int cow_name_check(const char *name, size_t name_bytes);
int cow_name_check_new(const char *name, size_t name_bytes); /* nor "." or ".." */

int cow_name_find(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes,
                  struct cow_entry *entry_out);
int cow_name_room(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes); /* 0, -ENOSPC */
/* One put or del each; lookup is kept true. */
int cow_name_add(struct cow_tree *tree, struct cow_inode *dir, const char *name, size_t name_bytes,
                 struct cow_entry entry);
int cow_name_replace(struct cow_tree *tree, const struct cow_inode *dir, const char *name, size_t name_bytes,
                     struct cow_entry entry);
int cow_name_remove(struct cow_tree *tree, struct cow_inode *dir, const char *name, size_t name_bytes);
/* The name of ino in bucket (dir, hash): its length, copied to name (COW_NAME_BYTES_MAX); -ENOENT. With several, nth.
 */
int cow_name_of(struct cow_tree *tree, uint64_t dir, uint64_t hash, uint64_t ino, unsigned nth, char *name_out);

/* nlink stays the caller's. At most 2 puts and dels each. */
int cow_link_add(struct cow_tree *tree, struct cow_inode *inode, uint64_t parent, uint64_t hash);
int cow_link_remove(struct cow_tree *tree, struct cow_inode *inode, uint64_t parent, uint64_t hash);

/* dir.c: a directory that may get or lose names. */
int cow_dir_get(struct cow_tree *tree, uint64_t dir, struct cow_inode *inode_out);
void cow_dir_touch(struct cow_inode *dir);

/* orphan.c: inode has lost its last name and is not put yet. Frees it, or makes it an orphan: *orphan_out then says
 * whom to reclaim (0 = gone or pinned). At most COW_FS_PURGE_ITEMS + 2 puts and dels. */
#define COW_FS_PURGE_ITEMS 10u
int cow_inode_release(struct cow_tree *tree, struct cow_inode *inode, uint64_t *orphan_out);

#endif
