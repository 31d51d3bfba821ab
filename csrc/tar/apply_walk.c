/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members of one directory mostly follow each other, so the way to the last one is kept and only what differs is
 * looked up. Every step is one name in one directory: a symlink, or anything that is not a directory, is refused.
 */
#include <sys/stat.h>

#include "tar/apply_private.h"

/* Drops the levels that are not on the way to path. */
static void keep_common(struct cow_apply *apply, const char *path, size_t path_bytes)
{
    size_t limit = apply->levels[apply->depth].path_bytes, same = 0;
    if (limit > path_bytes) limit = path_bytes;
    while (same < limit && apply->walked[same] == path[same]) same++;
    while (apply->depth > 0) {
        size_t end = apply->levels[apply->depth].path_bytes;
        if (end <= same && (end == path_bytes || path[end] == '/')) return;
        apply->depth--;
    }
}

void cow_apply_descend(struct cow_apply *apply, const char *name, size_t name_bytes, uint64_t ino, uint32_t mode)
{
    size_t used = apply->levels[apply->depth].path_bytes;
    COW_ASSERT(apply->depth + 1 < COW_APPLY_DEPTH_MAX);
    COW_ASSERT(used + 1 + name_bytes <= sizeof apply->walked);
    if (used > 0) apply->walked[used++] = '/';
    memcpy(apply->walked + used, name, name_bytes);
    apply->levels[++apply->depth] =
        (struct cow_apply_level){.ino = ino, .path_bytes = used + name_bytes, .set_gid = (mode & S_ISGID) != 0};
}

static int make_missing(struct cow_apply *apply, const struct cow_tar_member *member, const char *name,
                        size_t name_bytes, uint64_t *ino_out)
{
    cow_attr attr = cow_apply_attr(NULL, member->mtime_ns);
    int rc = cow_apply_make(apply, name, name_bytes, &attr, NULL, 0, ino_out);
    /* CHANGED at once: a time of 0 cannot be given to make. */
    return rc < 0 ? rc : cow_dirs_add(&apply->dirs, *ino_out, member->mtime_ns, COW_DIR_LISTED | COW_DIR_CHANGED);
}

int cow_apply_walk(struct cow_apply *apply, const struct cow_tar_member *member, const char *path, size_t path_bytes,
                   bool make)
{
    keep_common(apply, path, path_bytes);
    while (apply->levels[apply->depth].path_bytes < path_bytes) {
        size_t used = apply->levels[apply->depth].path_bytes;
        const char *name = path + used + (used > 0 ? 1 : 0);
        const char *slash = memchr(name, '/', (size_t)(path + path_bytes - name));
        size_t name_bytes = (size_t)((slash != NULL ? slash : path + path_bytes) - name);
        if (name_bytes > COW_NAME_BYTES_MAX)
            return cow_tar_refuse(member->path, member->path_bytes, "its name has a part that is too long");
        uint64_t ino;
        cow_attr attr = {0};
        int rc = cow_dir_lookup(apply->tree, cow_apply_dir(apply), name, name_bytes, &ino, &attr);
        if (rc == -ENOENT) {
            if (!make) return 0;
            rc = make_missing(apply, member, name, name_bytes, &ino);
            if (rc < 0) return rc;
        } else if (rc < 0) {
            return rc;
        } else if (!S_ISDIR(attr.mode)) {
            /* What the archive put in place of a directory hides all that was in it; umoci adds whiteouts for that. */
            if (!make && ino >= apply->first_ino) return 0;
            return cow_tar_refuse(member->path, member->path_bytes, "its path leads through a %s",
                                  S_ISLNK(attr.mode) ? "symlink" : "file that is not a directory");
        } else {
            rc = cow_dirs_add(&apply->dirs, ino, attr.mtime_ns, 0);
            if (rc < 0) return rc;
        }
        cow_apply_descend(apply, name, name_bytes, ino, attr.mode);
    }
    int rc = make ? cow_apply_mark_holds(apply) : 0;
    return rc < 0 ? rc : 1;
}

int cow_apply_mark_holds(struct cow_apply *apply)
{
    for (size_t i = apply->depth + 1; i-- > 0 && !apply->levels[i].holds;) {
        int rc = cow_dirs_add(&apply->dirs, apply->levels[i].ino, 0, COW_DIR_HOLDS);
        if (rc < 0) return rc;
        apply->levels[i].holds = true;
    }
    return 0;
}
