/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source.h: which paths a written tar holds, in order: a directory before what is in it, the names of one directory in
 * byte order, deletions before all other names of their directory. Either all of a tree (memory: the names of the
 * directories on the way to the current one) or the differences of two (memory: all changed paths).
 */
#ifndef COW_TAR_SOURCE_H
#define COW_TAR_SOURCE_H

#include "cow.h"
#include "tar/buffer.h"

struct cow_tar_source;

struct cow_tar_item {
    uint64_t ino;       /* in the new tree; says nothing for a deletion */
    const char *path;   /* without a leading "/"; "" = the root; stays until the next call */
    size_t path_bytes;
    bool deleted;
};

/* old_tree may be NULL: all of new_tree. */
int cow_tar_source_open(cow_tree *old_tree, cow_tree *new_tree, struct cow_tar_source **source_out);
void cow_tar_source_close(struct cow_tar_source *source);
int cow_tar_source_next(struct cow_tar_source *source, struct cow_tar_item *item_out); /* 1, or 0 at the end */

#endif
