/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dirs.h: what an untar remembers: of each directory that it walked through, the mtime that it shall have in the end
 * and what the archive did to it (16 bytes each); and the names that it made as hard links to inodes of lower layers
 * (16 bytes each). Hash tables with open addressing, at most three quarters full.
 */
#ifndef COW_TAR_DIRS_H
#define COW_TAR_DIRS_H

#include "base/common.h"

#define COW_DIR_LISTED 1u  /* the archive has an entry for it, or it was made as a missing parent */
#define COW_DIR_HOLDS 2u   /* something that the archive made stands in it or below it */
#define COW_DIR_CHANGED 4u /* names were added or removed: its mtime must be set again */

struct cow_dir_slot {
    uint64_t key; /* inode << 8 | flags; 0 = empty */
    int64_t mtime_ns;
};

struct cow_dirs {
    struct cow_dir_slot *slots;
    size_t used, capacity;
};

void cow_dirs_deinit(struct cow_dirs *dirs);
/* Adds the directory with this mtime unless it is known; flags are added in any case. -ENOMEM */
int cow_dirs_add(struct cow_dirs *dirs, uint64_t ino, int64_t mtime_ns, uint32_t flags);
/* As add, and its mtime becomes this one. */
int cow_dirs_set(struct cow_dirs *dirs, uint64_t ino, int64_t mtime_ns, uint32_t flags);
uint32_t cow_dirs_flags(const struct cow_dirs *dirs, uint64_t ino); /* 0 when unknown */
/* Iterates with *at, which starts at 0: false at the end. */
bool cow_dirs_next(const struct cow_dirs *dirs, size_t *at, uint64_t *ino_out, int64_t *mtime_ns_out,
                   uint32_t *flags_out);

struct cow_link_slot {
    uint64_t dir; /* 0 = empty */
    uint64_t name_hash;
};

struct cow_link_names {
    struct cow_link_slot *slots;
    size_t used, capacity;
    uint8_t hash_key[16];
};

void cow_link_names_deinit(struct cow_link_names *names);
int cow_link_names_add(struct cow_link_names *names, uint64_t dir, const char *name, size_t name_bytes);
bool cow_link_names_has(const struct cow_link_names *names, uint64_t dir, const char *name, size_t name_bytes);

#endif
