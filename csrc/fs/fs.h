/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs.h: the file system inside a tree: names (dir.c, rename.c, path.c, orphan.c), attributes (attr.c), xattrs
 * (xattr.c), file content (write.c, read.c, size.c, clone.c). Functions run inside a bracket of tree.h, which api_fs.c opens; they
 * check everything that can be wrong with a request before they change anything. Semantics are POSIX; errors are
 * negative errno values.
 */
#ifndef COW_FS_H
#define COW_FS_H

#include "fs/lookup.h"
#include "tree/tree.h"

/* Upper bound of puts and dels of one call, for cow_tree_write_begin. */
#define COW_FS_PUTS 32u

/* dir.c */
int cow_fs_lookup(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, uint64_t *ino_out);
int cow_fs_make(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, const cow_attr *attr,
                const char *target, size_t target_bytes, uint64_t *ino_out);
int cow_fs_link(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, uint64_t ino);
/* Removes one name. An inode that has none left and is not pinned is freed; a large file may need several steps: the
 * inode is then an orphan, and *orphan_out names it for cow_fs_reclaim (0 otherwise). COW_REMOVE_TREE takes out a
 * directory with all below it at once; it is an orphan then, and so will be, one by one, the directories below it:
 * cow_fs_reclaim_next until that returns 0. */
int cow_fs_remove(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, uint32_t how,
                  uint64_t *orphan_out);
int cow_fs_rename(struct cow_tree *tree, uint64_t old_dir, const char *old_name, size_t old_name_bytes,
                  uint64_t new_dir, const char *new_name, size_t new_name_bytes, uint32_t flags,
                  uint64_t *orphan_out);
int64_t cow_fs_read_dir(struct cow_tree *tree, uint64_t dir, uint64_t cookie, uint32_t flags, void *buffer,
                        size_t capacity);
int cow_fs_walk(struct cow_tree *tree, uint64_t start, const char *path, size_t path_bytes, uint32_t flags,
                uint64_t *ino_out);
int cow_fs_parent(struct cow_tree *tree, uint64_t start, const char *path, size_t path_bytes, uint64_t *dir_out,
                  size_t *name_offset_out, size_t *name_bytes_out);
int cow_fs_path_of(struct cow_tree *tree, uint64_t ino, char *buffer, size_t capacity, size_t *path_bytes_out);
/* Frees at most a bounded part of an orphan's content (and in the last step the inode): 1 = more to do, 0 = gone or
 * pinned. */
int cow_fs_reclaim(struct cow_tree *tree, uint64_t ino);
/* After an open: reclaims the first orphan left by a crash: 1 = call again, 0 = none left. */
int cow_fs_reclaim_next(struct cow_tree *tree);
int cow_fs_make_root(struct cow_tree *tree); /* inode COW_ROOT_INO of a new, empty tree */

/* attr.c. Access times are only what set says: reading does not change them. */
int cow_fs_stat(struct cow_tree *tree, uint64_t ino, cow_attr *attr_out);
/* 1 = call again: a truncation has more to free and the rest of mask has not been set yet. */
int cow_fs_set(struct cow_tree *tree, uint64_t ino, const cow_attr *attr, uint32_t mask);
int64_t cow_fs_read_link(struct cow_tree *tree, uint64_t ino, char *buffer, size_t capacity);

/* xattr.c: as the public functions */
int64_t cow_fs_xattr_get(struct cow_tree *tree, uint64_t ino, const char *name, size_t name_bytes, void *value,
                         size_t capacity);
int cow_fs_xattr_set(struct cow_tree *tree, uint64_t ino, const char *name, size_t name_bytes, const void *value,
                     size_t value_bytes, uint32_t flags);
int64_t cow_fs_xattr_list(struct cow_tree *tree, uint64_t ino, char *names, size_t capacity);
int cow_fs_xattr_remove(struct cow_tree *tree, uint64_t ino, const char *name, size_t name_bytes);

/* write.c, read.c, size.c, clone.c. One call of write, punch or clone does a bounded part; api_fs.c loops, each time
 * in a bracket of its own. write and clone return the bytes done, which may be 0: the file was only prepared, call again. */
#define COW_FS_IO_BYTES (1u << 20)
int64_t cow_fs_read(struct cow_tree *tree, uint64_t ino, uint64_t offset, void *buffer, size_t length);
int64_t cow_fs_write(struct cow_tree *tree, uint64_t ino, uint64_t offset, const void *buffer, size_t length);
/* Frees at most a bounded number of extents beyond size; 1 = call again (the size is already set), 0 = done. */
int cow_fs_truncate(struct cow_tree *tree, uint64_t ino, uint64_t size);
int cow_fs_punch(struct cow_tree *tree, uint64_t ino, uint64_t offset, uint64_t length); /* 1 = call again */
int64_t cow_fs_seek(struct cow_tree *tree, uint64_t ino, uint64_t offset, int whence);
/* Clones at most a bounded number of extents: returns the bytes done. *limit is 0 at first: what the tree may weigh in the
 * end. */
int64_t cow_fs_clone(struct cow_tree *source, uint64_t source_ino, uint64_t source_offset, struct cow_tree *tree,
                     uint64_t ino, uint64_t offset, uint64_t length, uint64_t *limit);
int64_t cow_fs_extents(struct cow_tree *tree, uint64_t ino, uint64_t first_block, cow_extent *extents, size_t capacity);
int cow_fs_read_blocks(struct cow_tree *tree, uint64_t ino, const uint64_t *blocks, size_t count, void *buffer);
/* Returns how many of the blocks were written, the first ones; 0 = call again. */
int cow_fs_write_blocks(struct cow_tree *tree, uint64_t ino, const uint64_t *blocks, size_t count, const void *buffer);
/* For the import of a large file whose size is known: lays its (empty, unnamed elsewhere) content out in a whole-file
 * segment; blocks are then written by cow_fs_write in order. */
int cow_fs_place_whole(struct cow_tree *tree, uint64_t ino, uint64_t size);

#endif
