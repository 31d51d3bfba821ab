/* SPDX-License-Identifier: Apache-2.0 */
/*
 * links.h: the first path of each inode with several names, while a tar is written. A hash table from inode to path;
 * memory grows with the number of such inodes.
 */
#ifndef COW_TAR_LINKS_H
#define COW_TAR_LINKS_H

#include "tar/buffer.h"

struct cow_tar_link_slot {
    uint64_t ino; /* 0 = empty */
    size_t at, path_bytes;
};

struct cow_tar_links {
    struct cow_tar_link_slot *slots;
    size_t used, capacity;
    struct cow_tar_buffer text;
};

void cow_tar_links_deinit(struct cow_tar_links *links);
/* 1 = the inode is known: its first path is appended to path_out. 0 = it was not, and path is now its first. */
int cow_tar_links_find(struct cow_tar_links *links, uint64_t ino, const char *path, size_t path_bytes,
                       struct cow_tar_buffer *path_out);

#endif
