/* SPDX-License-Identifier: Apache-2.0 */
/*
 * apply_private.h: what the parts of apply share: apply.c (making members), apply_walk.c (finding directories),
 * apply_hide.c (whiteouts), apply_write.c (content).
 */
#ifndef COW_TAR_APPLY_PRIVATE_H
#define COW_TAR_APPLY_PRIVATE_H

#include "tar/apply.h"
#include "tar/dirs.h"

#define COW_APPLY_DEPTH_MAX (COW_PATH_BYTES_MAX / 2u + 2u)
#define COW_APPLY_BUFFER_BYTES (256u * 1024u)

struct cow_apply_level {
    uint64_t ino;
    size_t path_bytes; /* of walked, up to and with this directory */
    bool holds;        /* it and all above it are marked COW_DIR_HOLDS */
    bool set_gid;      /* what is made in it gets its group, which no archive wants */
};

struct cow_apply {
    cow_tree *tree;
    uint32_t flags;
    uint64_t first_ino; /* of the archive's own inodes; UINT64_MAX before the first */
    struct cow_dirs dirs;
    struct cow_link_names links;

    /* The directories on the way to the last member: levels[0] is the root. Only children of the last level are ever
     * removed, so the way stays true. */
    size_t depth;
    struct cow_apply_level levels[COW_APPLY_DEPTH_MAX];
    char walked[COW_TAR_PATH_BYTES_MAX + 1];

    /* The file whose content is being written. */
    uint64_t ino;
    uint64_t at, end;   /* where the next byte goes (behind the buffer's start); highest byte written */
    uint64_t part_left;
    bool wrote;
    uint8_t *buffer;
    size_t fill;

    cow_attr made_attr;        /* of ino */
    struct cow_tar_buffer dir_buffer, hide_stack, xattr_names;
};

static inline uint64_t cow_apply_dir(const struct cow_apply *apply) { return apply->levels[apply->depth].ino; }
/* Makes a name in the walked directory with exactly these attributes (times of 0 excepted). -EEXIST */
int cow_apply_make(struct cow_apply *apply, const char *name, size_t name_bytes, const cow_attr *attr,
                   const char *target, size_t target_bytes, uint64_t *ino_out);
/* Attributes of a member or, with NULL and a time, of a directory that the archive does not list. */
cow_attr cow_apply_attr(const struct cow_tar_member *member, int64_t mtime_ns);
int cow_apply_remove(struct cow_apply *apply, uint64_t dir, const char *name, size_t name_bytes);
int cow_apply_clear_xattrs(struct cow_apply *apply, uint64_t ino);

/* apply_walk.c. Goes to the directory at path: 1 = there (cow_apply_dir), 0 = a part is missing and make is false.
 * make: missing directories are made, and those on the way are marked as holding something of the archive. */
int cow_apply_walk(struct cow_apply *apply, const struct cow_tar_member *member, const char *path, size_t path_bytes,
                   bool make);
/* Goes one further down, to a directory that was just made or listed. */
void cow_apply_descend(struct cow_apply *apply, const char *name, size_t name_bytes, uint64_t ino, uint32_t mode);
int cow_apply_mark_holds(struct cow_apply *apply);

/* apply_hide.c. name: the name to hide, or NULL for all of the directory that was walked to. */
int cow_apply_hide(struct cow_apply *apply, const struct cow_tar_member *member, const char *name, size_t name_bytes);

#endif
