/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whiteouts. A name is the archive's own when its inode is, or when the archive made it as a hard link to a lower
 * inode. A lower directory in which the archive has nothing is removed with all below; one that the archive lists, or
 * has something in, stays as a directory and loses its lower children, and so on down. The directories still to be
 * looked through stand on a stack in memory, no more than the archive has named.
 */
#include <sys/stat.h>

#include "tar/apply_private.h"

#define DIR_BUFFER_BYTES (64u * 1024u)

static bool is_own(const struct cow_apply *apply, uint64_t dir, const char *name, size_t name_bytes, uint64_t ino)
{
    return ino >= apply->first_ino || cow_link_names_has(&apply->links, dir, name, name_bytes);
}

/* A lower directory that stays only because the archive put something below it becomes one that the archive made. */
static int adopt(struct cow_apply *apply, const struct cow_tar_member *member, uint64_t ino)
{
    cow_attr attr = cow_apply_attr(NULL, member->mtime_ns);
    int rc = cow_inode_set(apply->tree, ino, &attr, COW_SET_MODE | COW_SET_UID | COW_SET_GID);
    if (rc == 0) rc = cow_apply_clear_xattrs(apply, ino);
    if (rc < 0) return rc;
    return cow_dirs_set(&apply->dirs, ino, member->mtime_ns, COW_DIR_LISTED | COW_DIR_CHANGED);
}

static int hide_entry(struct cow_apply *apply, const struct cow_tar_member *member, uint64_t dir, const char *name,
                      size_t name_bytes, uint64_t ino, uint32_t mode)
{
    if (is_own(apply, dir, name, name_bytes, ino)) return 0;
    uint32_t flags = S_ISDIR(mode) ? cow_dirs_flags(&apply->dirs, ino) : 0;
    if ((flags & (COW_DIR_LISTED | COW_DIR_HOLDS)) == 0) return cow_apply_remove(apply, dir, name, name_bytes);
    if ((flags & COW_DIR_LISTED) == 0) {
        int rc = adopt(apply, member, ino);
        if (rc < 0) return rc;
    }
    return cow_tar_buffer_append(&apply->hide_stack, &ino, sizeof ino);
}

static int hide_children(struct cow_apply *apply, const struct cow_tar_member *member, uint64_t dir)
{
    uint64_t cookie = 0;
    for (;;) {
        uint8_t *records = apply->dir_buffer.bytes;
        int64_t bytes = cow_dir_read(apply->tree, dir, cookie, 0, records, DIR_BUFFER_BYTES);
        if (bytes <= 0) return (int)bytes;
        for (size_t at = 0; at < (size_t)bytes;) {
            cow_dir_entry entry;
            memcpy(&entry, records + at, sizeof entry);
            int rc = hide_entry(apply, member, dir, (const char *)records + at + sizeof entry, entry.name_bytes,
                                entry.ino, entry.mode);
            if (rc < 0) return rc;
            cookie = entry.cookie;
            at += entry.record_bytes;
        }
    }
}

int cow_apply_hide(struct cow_apply *apply, const struct cow_tar_member *member, const char *name, size_t name_bytes)
{
    uint64_t dir = cow_apply_dir(apply);
    int rc = cow_tar_buffer_reserve(&apply->dir_buffer, DIR_BUFFER_BYTES);
    if (rc < 0) return rc;
    apply->hide_stack.used = 0;
    if (name != NULL) {
        uint64_t ino;
        cow_attr attr;
        rc = cow_dir_lookup(apply->tree, dir, name, name_bytes, &ino, &attr);
        if (rc == -ENOENT) return 0;
        if (rc == 0) rc = hide_entry(apply, member, dir, name, name_bytes, ino, attr.mode);
    } else {
        rc = hide_children(apply, member, dir);
    }
    while (rc == 0 && apply->hide_stack.used > 0) {
        apply->hide_stack.used -= sizeof dir;
        memcpy(&dir, apply->hide_stack.bytes + apply->hide_stack.used, sizeof dir);
        rc = hide_children(apply, member, dir);
    }
    return rc;
}
