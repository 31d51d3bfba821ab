/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One member at a time: find its directory, make room, make it with its attributes, and set last what writing content
 * would change. Making comes first and looking up only when a name is taken, because in most layers none is. A large
 * file whose size is known gets a segment of its own before its first byte.
 */
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "fs/fs.h"
#include "tar/apply_private.h"

#define WHOLE_FILE_BYTES_MIN ((uint64_t)4 << 20)
#define WHOLE_FILE_BYTES_MAX ((uint64_t)COW_SEGMENT_BLOCKS_MAX << COW_BLOCK_SHIFT)

#define WHITEOUT ".wh."
#define WHITEOUT_META ".wh..wh."
#define OPAQUE ".wh..wh..opq"

int cow_apply_open(cow_tree *tree, uint32_t flags, struct cow_apply **apply_out)
{
    cow_attr root;
    int rc = cow_inode_stat(tree, COW_ROOT_INO, &root);
    if (rc < 0) return rc;
    struct cow_apply *apply = calloc(1, sizeof *apply);
    if (apply == NULL) return -ENOMEM;
    apply->tree = tree;
    apply->flags = flags;
    apply->first_ino = UINT64_MAX;
    apply->levels[0] = (struct cow_apply_level){.ino = COW_ROOT_INO, .set_gid = (root.mode & S_ISGID) != 0};
    rc = cow_dirs_add(&apply->dirs, COW_ROOT_INO, root.mtime_ns, 0);
    if (rc < 0) {
        cow_apply_close(apply);
        return rc;
    }
    *apply_out = apply;
    return 0;
}

void cow_apply_close(struct cow_apply *apply)
{
    if (apply == NULL) return;
    cow_dirs_deinit(&apply->dirs);
    cow_link_names_deinit(&apply->links);
    cow_tar_buffer_deinit(&apply->dir_buffer);
    cow_tar_buffer_deinit(&apply->hide_stack);
    cow_tar_buffer_deinit(&apply->xattr_names);
    free(apply->buffer);
    free(apply);
}

int cow_apply_make(struct cow_apply *apply, const char *name, size_t name_bytes, const cow_attr *attr,
                   const char *target, size_t target_bytes, uint64_t *ino_out)
{
    const struct cow_apply_level *level = &apply->levels[apply->depth];
    int rc = cow_dir_make(apply->tree, level->ino, name, name_bytes, attr, target, target_bytes, ino_out);
    if (rc < 0) return rc;
    if (*ino_out < apply->first_ino) apply->first_ino = *ino_out;
    rc = cow_dirs_add(&apply->dirs, level->ino, 0, COW_DIR_CHANGED);
    if (rc < 0 || !level->set_gid) return rc;
    return cow_inode_set(apply->tree, *ino_out, attr, COW_SET_GID | COW_SET_MODE);
}

cow_attr cow_apply_attr(const struct cow_tar_member *member, int64_t mtime_ns)
{
    cow_attr attr = {.mode = S_IFDIR | 0755, .mtime_ns = mtime_ns, .atime_ns = mtime_ns};
    if (member == NULL) return attr;
    static const struct {
        uint8_t type;
        uint32_t mode;
    } types[] = {{COW_TAR_FILE, S_IFREG}, {COW_TAR_DIR, S_IFDIR}, {COW_TAR_SYMLINK, S_IFLNK},
                 {COW_TAR_CHAR, S_IFCHR}, {COW_TAR_BLOCK, S_IFBLK}, {COW_TAR_FIFO, S_IFIFO}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].type == member->type) attr.mode = types[i].mode | member->mode;
    attr.uid = member->uid;
    attr.gid = member->gid;
    attr.mtime_ns = member->mtime_ns;
    attr.atime_ns = member->atime_ns;
    if (member->type == COW_TAR_CHAR || member->type == COW_TAR_BLOCK)
        attr.rdev = makedev(member->major, member->minor);
    return attr;
}

int cow_apply_remove(struct cow_apply *apply, uint64_t dir, const char *name, size_t name_bytes)
{
    int rc = cow_dirs_add(&apply->dirs, dir, 0, COW_DIR_CHANGED);
    return rc < 0 ? rc : cow_dir_remove(apply->tree, dir, name, name_bytes, COW_REMOVE_TREE);
}

int cow_apply_clear_xattrs(struct cow_apply *apply, uint64_t ino)
{
    int64_t bytes = cow_xattr_list(apply->tree, ino, NULL, 0);
    if (bytes <= 0) return (int)bytes;
    struct cow_tar_buffer *names = &apply->xattr_names;
    names->used = 0;
    int rc = cow_tar_buffer_reserve(names, (size_t)bytes);
    if (rc < 0) return rc;
    bytes = cow_xattr_list(apply->tree, ino, (char *)names->bytes, (size_t)bytes);
    if (bytes < 0) return (int)bytes;
    for (size_t at = 0; at < (size_t)bytes;) {
        const char *name = (const char *)names->bytes + at;
        size_t name_bytes = strnlen(name, (size_t)bytes - at);
        rc = cow_xattr_remove(apply->tree, ino, name, name_bytes);
        if (rc < 0) return rc;
        at += name_bytes + 1;
    }
    return 0;
}

static int set_xattrs(struct cow_apply *apply, const struct cow_tar_member *member, uint64_t ino)
{
    struct cow_pax_record record;
    char name[COW_NAME_BYTES_MAX + 1];
    size_t at = 0;
    while (cow_pax_next(member->pax->bytes, member->pax->used, &at, &record) == 1) {
        int64_t name_bytes = cow_pax_xattr_name(&record, name);
        if (name_bytes < 0)
            return cow_tar_refuse(member->path, member->path_bytes, "the name of an extended attribute is too long");
        if (name_bytes == 0) continue;
        int rc = cow_xattr_set(apply->tree, ino, name, (size_t)name_bytes, record.value, record.value_bytes, 0);
        if (rc < 0) return rc;
    }
    return 0;
}

/* ---- Directories ---- */

/* An entry for a directory that is there: its attributes are replaced, its children stay. */
static int merge_dir(struct cow_apply *apply, const struct cow_tar_member *member, uint64_t ino)
{
    cow_attr attr = cow_apply_attr(member, 0);
    int rc = cow_inode_set(apply->tree, ino, &attr,
                           COW_SET_MODE | COW_SET_UID | COW_SET_GID | COW_SET_ATIME | COW_SET_MTIME);
    return rc < 0 ? rc : cow_apply_clear_xattrs(apply, ino);
}

/* Finds or makes the member's directory below the walked one. */
static int make_dir(struct cow_apply *apply, const struct cow_tar_member *member, const char *name, size_t name_bytes,
                    uint64_t *ino_out)
{
    uint64_t dir = cow_apply_dir(apply);
    cow_attr attr = cow_apply_attr(member, 0), there;
    int rc = cow_apply_make(apply, name, name_bytes, &attr, NULL, 0, ino_out);
    if (rc == -EEXIST) {
        rc = cow_dir_lookup(apply->tree, dir, name, name_bytes, ino_out, &there);
        if (rc < 0) return rc;
        if (S_ISDIR(there.mode)) return merge_dir(apply, member, *ino_out);
        rc = cow_apply_remove(apply, dir, name, name_bytes);
        if (rc == 0) rc = cow_apply_make(apply, name, name_bytes, &attr, NULL, 0, ino_out);
    }
    if (rc < 0 || (member->mtime_ns != 0 && member->atime_ns != 0)) return rc;
    return cow_inode_set(apply->tree, *ino_out, &attr, COW_SET_ATIME | COW_SET_MTIME);
}

static int begin_dir(struct cow_apply *apply, const struct cow_tar_member *member, const char *name, size_t name_bytes)
{
    uint64_t ino = COW_ROOT_INO;
    int rc = name_bytes > 0 ? make_dir(apply, member, name, name_bytes, &ino) : merge_dir(apply, member, ino);
    if (rc == 0) rc = cow_dirs_set(&apply->dirs, ino, member->mtime_ns, COW_DIR_LISTED);
    if (rc == 0) rc = set_xattrs(apply, member, ino);
    if (rc < 0) return rc;
    if (name_bytes > 0) cow_apply_descend(apply, name, name_bytes, ino, member->mode);
    else apply->levels[0].set_gid = (member->mode & S_ISGID) != 0;
    return cow_apply_mark_holds(apply);
}

/* ---- Hard links ---- */

static int find_target(struct cow_apply *apply, const struct cow_tar_member *member, uint64_t *ino_out)
{
    const char *slash = memrchr(member->link, '/', member->link_bytes);
    size_t parent_bytes = slash != NULL ? (size_t)(slash - member->link) : 0;
    size_t name_at = slash != NULL ? parent_bytes + 1 : 0;
    cow_attr attr;
    int rc = cow_apply_walk(apply, member, member->link, parent_bytes, false);
    if (rc < 0) return rc;
    if (rc == 1)
        rc = cow_dir_lookup(apply->tree, cow_apply_dir(apply), member->link + name_at, member->link_bytes - name_at,
                            ino_out, &attr);
    else
        rc = -ENOENT;
    if (rc == -ENOENT) return cow_tar_refuse(member->path, member->path_bytes, "its hard link target does not exist");
    if (rc < 0) return rc;
    if (S_ISDIR(attr.mode)) return cow_tar_refuse(member->path, member->path_bytes, "a hard link to a directory");
    return 0;
}

static int begin_link(struct cow_apply *apply, const struct cow_tar_member *member, const char *name,
                      size_t name_bytes, size_t parent_bytes)
{
    uint64_t ino, there;
    int rc = find_target(apply, member, &ino);
    if (rc == 0) rc = cow_apply_walk(apply, member, member->path, parent_bytes, true);
    if (rc < 0) return rc;
    uint64_t dir = cow_apply_dir(apply);
    rc = cow_dir_link(apply->tree, dir, name, name_bytes, ino);
    if (rc == -EEXIST) {
        rc = cow_dir_lookup(apply->tree, dir, name, name_bytes, &there, NULL);
        if (rc == 0 && there != ino) {
            rc = cow_apply_remove(apply, dir, name, name_bytes);
            /* Removing a directory may have removed the target: -ENOENT then. */
            if (rc == 0) rc = cow_dir_link(apply->tree, dir, name, name_bytes, ino);
            if (rc == -ENOENT)
                return cow_tar_refuse(member->path, member->path_bytes, "it replaces its own link target");
        }
    }
    if (rc == 0) rc = cow_dirs_add(&apply->dirs, dir, 0, COW_DIR_CHANGED);
    if (rc == 0 && ino < apply->first_ino) rc = cow_link_names_add(&apply->links, dir, name, name_bytes);
    return rc;
}

/* ---- Files, symlinks, devices, fifos ---- */

static int place_whole(struct cow_apply *apply, uint64_t size_bytes)
{
    int rc = cow_tree_write_begin(apply->tree, COW_FS_PUTS);
    if (rc < 0) return rc;
    rc = cow_fs_place_whole(apply->tree, apply->ino, size_bytes);
    return (int)cow_tree_write_end(apply->tree, rc);
}

static int begin_other(struct cow_apply *apply, const struct cow_tar_member *member, const char *name,
                       size_t name_bytes)
{
    uint64_t ino;
    cow_attr attr = cow_apply_attr(member, 0);
    const char *target = member->type == COW_TAR_SYMLINK ? member->link : NULL;
    size_t target_bytes = target != NULL ? member->link_bytes : 0;
    int rc = cow_apply_make(apply, name, name_bytes, &attr, target, target_bytes, &ino);
    if (rc == -EEXIST) {
        rc = cow_apply_remove(apply, cow_apply_dir(apply), name, name_bytes);
        if (rc == 0) rc = cow_apply_make(apply, name, name_bytes, &attr, target, target_bytes, &ino);
    }
    if (rc < 0) return rc;
    apply->ino = ino;
    apply->made_attr = attr;
    apply->end = 0;
    apply->wrote = false;
    if (member->type == COW_TAR_FILE && member->size_bytes == member->stored_bytes &&
        member->size_bytes >= WHOLE_FILE_BYTES_MIN && member->size_bytes <= WHOLE_FILE_BYTES_MAX) {
        apply->wrote = true;
        rc = place_whole(apply, member->size_bytes);
    }
    return rc;
}

int cow_apply_end(struct cow_apply *apply, const struct cow_tar_member *member)
{
    if (member->type == COW_TAR_LINK || member->type == COW_TAR_DIR) return 0;
    COW_ASSERT(apply->fill == 0 && apply->part_left == 0);
    int rc = 0;
    if (member->type == COW_TAR_FILE && apply->end < member->size_bytes) { /* a sparse file that ends with a hole */
        rc = cow_file_truncate(apply->tree, apply->ino, member->size_bytes);
        apply->wrote = true;
    }
    if (rc == 0) rc = set_xattrs(apply, member, apply->ino);
    uint32_t mask = 0;
    if (apply->wrote || member->mtime_ns == 0) mask |= COW_SET_MTIME;
    if (member->atime_ns == 0) mask |= COW_SET_ATIME;
    if (apply->wrote && (member->mode & (S_ISUID | S_ISGID)) != 0) mask |= COW_SET_MODE;
    if (rc == 0 && mask != 0) rc = cow_inode_set(apply->tree, apply->ino, &apply->made_attr, mask);
    return rc;
}

/* ---- Members ---- */

static bool has_prefix(const char *name, size_t name_bytes, const char *prefix)
{
    size_t bytes = strlen(prefix);
    return name_bytes >= bytes && memcmp(name, prefix, bytes) == 0;
}

/* A directory with a whiteout's name on the way: what other storage drivers keep there is passed over, the rest is
 * refused. */
static int check_parents(const struct cow_tar_member *member, size_t parent_bytes, enum cow_apply_kind *kind_out)
{
    for (size_t at = 0; at < parent_bytes;) {
        const char *part = member->path + at;
        const char *slash = memchr(part, '/', parent_bytes - at);
        size_t bytes = slash != NULL ? (size_t)(slash - part) : parent_bytes - at;
        if (has_prefix(part, bytes, WHITEOUT_META)) {
            *kind_out = COW_APPLY_SKIPPED;
            return 0;
        }
        if (has_prefix(part, bytes, WHITEOUT))
            return cow_tar_refuse(member->path, member->path_bytes, "it stands inside of a whiteout");
        at += bytes + 1;
    }
    return 0;
}

/* Decides by name what the member is. */
static int classify(const struct cow_tar_member *member, const char *name, size_t name_bytes,
                    enum cow_apply_kind *kind_out)
{
    *kind_out = COW_APPLY_MADE;
    int rc = check_parents(member, (size_t)(name - member->path), kind_out);
    if (rc < 0 || *kind_out == COW_APPLY_SKIPPED || !has_prefix(name, name_bytes, WHITEOUT)) return rc;
    *kind_out = COW_APPLY_WHITEOUT;
    if (has_prefix(name, name_bytes, WHITEOUT_META)) {
        if (name_bytes != strlen(OPAQUE) || memcmp(name, OPAQUE, name_bytes) != 0) *kind_out = COW_APPLY_SKIPPED;
        return 0;
    }
    const char *victim = name + strlen(WHITEOUT);
    size_t victim_bytes = name_bytes - strlen(WHITEOUT);
    if (victim_bytes == 0) return cow_tar_refuse(member->path, member->path_bytes, "a whiteout without a name");
    if (victim[0] == '.' && (victim_bytes == 1 || (victim_bytes == 2 && victim[1] == '.')))
        return cow_tar_refuse(member->path, member->path_bytes, "a whiteout of a directory itself or of its parent");
    return 0;
}

static int begin_whiteout(struct cow_apply *apply, const struct cow_tar_member *member, const char *name,
                          size_t name_bytes, size_t parent_bytes)
{
    int rc = cow_apply_walk(apply, member, member->path, parent_bytes, false);
    if (rc <= 0) return rc; /* nothing there that could be hidden */
    if (has_prefix(name, name_bytes, WHITEOUT_META)) return cow_apply_hide(apply, member, NULL, 0);
    return cow_apply_hide(apply, member, name + strlen(WHITEOUT), name_bytes - strlen(WHITEOUT));
}

int cow_apply_begin(struct cow_apply *apply, const struct cow_tar_member *member, enum cow_apply_kind *kind_out)
{
    const char *slash = memrchr(member->path, '/', member->path_bytes);
    size_t parent_bytes = slash != NULL ? (size_t)(slash - member->path) : 0;
    const char *name = slash != NULL ? slash + 1 : member->path;
    size_t name_bytes = member->path_bytes - (size_t)(name - member->path);
    *kind_out = COW_APPLY_MADE;
    if (apply->flags & COW_UNTAR_LAYER) {
        int rc = classify(member, name, name_bytes, kind_out);
        if (rc < 0 || *kind_out == COW_APPLY_SKIPPED) return rc;
        if (*kind_out == COW_APPLY_WHITEOUT) return begin_whiteout(apply, member, name, name_bytes, parent_bytes);
    }
    if (name_bytes > COW_NAME_BYTES_MAX || member->path_bytes > COW_PATH_BYTES_MAX)
        return cow_tar_refuse(member->path, member->path_bytes, "its name is too long");
    if (member->type == COW_TAR_LINK) return begin_link(apply, member, name, name_bytes, parent_bytes);
    int rc = cow_apply_walk(apply, member, member->path, parent_bytes, true);
    if (rc < 0) return rc;
    if (member->type == COW_TAR_DIR) return begin_dir(apply, member, name, name_bytes);
    return begin_other(apply, member, name, name_bytes);
}

int cow_apply_finish(struct cow_apply *apply)
{
    size_t at = 0;
    uint64_t ino;
    cow_attr attr = {0};
    uint32_t flags;
    while (cow_dirs_next(&apply->dirs, &at, &ino, &attr.mtime_ns, &flags)) {
        if ((flags & COW_DIR_CHANGED) == 0) continue;
        int rc = cow_inode_set(apply->tree, ino, &attr, COW_SET_MTIME);
        if (rc < 0 && rc != -ENOENT) return rc; /* a directory may have been replaced later on */
    }
    return 0;
}
