/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that look up, make, move and remove names.
 */
#include <fcntl.h>

#include "fuse/mount.h"

/* The directory of a request that changes names: -EROFS for a shelf, whose names the library gives. */
static int writable_dir(struct cow_mount *mount, fuse_ino_t id, struct cow_knode **dir_out)
{
    *dir_out = cow_knode_of(mount, id);
    return (*dir_out)->seat ? 0 : -EROFS;
}

static void reply_entry(fuse_req_t req, struct cow_mount *mount, const struct fuse_entry_param *entry)
{
    /* The request was interrupted: the kernel has not taken the reference. */
    if (fuse_reply_entry(req, entry) == -ENOENT && entry->ino)
        cow_knode_forget(mount, cow_knode_of(mount, entry->ino), 1);
}

static int look_up_on_shelf(struct cow_mount *mount, struct cow_shelf *shelf, const char *name,
                            struct fuse_entry_param *entry_out)
{
    uint64_t tree = 0;
    struct cow_shelf *child = NULL;
    int rc = cow_shelf_find(mount, shelf, name, &tree, &child);
    if (rc) return rc;
    if (child) {
        cow_entry_of_shelf(mount, child, entry_out);
        return 0;
    }
    struct cow_seat *seat;
    cow_attr attr;
    rc = cow_seat_take(mount, tree, &seat);
    if (rc) return rc;
    rc = cow_inode_stat(seat->tree, COW_ROOT_INO, &attr);
    if (!rc) rc = cow_entry_of(mount, seat, &attr, entry_out);
    cow_seat_give(mount, seat);
    return rc == -ESTALE ? -ENOENT : rc;
}

static int look_up(struct cow_mount *mount, struct cow_knode *dir, const char *name, struct fuse_entry_param *entry_out)
{
    if (!dir->seat) return look_up_on_shelf(mount, dir->shelf, name, entry_out);
    uint64_t ino;
    cow_attr attr;
    int rc = cow_dir_lookup(dir->seat->tree, dir->ino, name, strlen(name), &ino, &attr);
    return rc ? rc : cow_entry_of(mount, dir->seat, &attr, entry_out);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct cow_mount *mount = cow_mount_of(req);
    struct fuse_entry_param entry;
    int rc = look_up(mount, cow_knode_of(mount, parent), name, &entry);
    if (rc == -ENOENT) { /* that there is none may be remembered, too */
        entry = (struct fuse_entry_param){.entry_timeout = mount->timeout_s};
        rc = 0;
    }
    if (rc) cow_reply_error(req, rc);
    else reply_entry(req, mount, &entry);
}

static void op_forget(fuse_req_t req, fuse_ino_t id, uint64_t count)
{
    struct cow_mount *mount = cow_mount_of(req);
    cow_knode_forget(mount, cow_knode_of(mount, id), count);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    struct cow_mount *mount = cow_mount_of(req);
    for (size_t i = 0; i < count; i++)
        cow_knode_forget(mount, cow_knode_of(mount, forgets[i].ino), forgets[i].nlookup);
    fuse_reply_none(req);
}

/* ---- Making ---- */

struct making {
    fuse_ino_t parent;
    const char *name;
    mode_t mode;
    dev_t rdev;
    const char *target;
};

static int make(fuse_req_t req, struct cow_mount *mount, const struct making *making, struct fuse_entry_param *entry_out)
{
    struct cow_knode *dir;
    int rc = writable_dir(mount, making->parent, &dir);
    if (rc) return rc;
    struct cow_seat *seat = dir->seat;
    const struct fuse_ctx *caller = fuse_req_ctx(req);
    bool inherits = mount->acl && !S_ISLNK(making->mode) && cow_acl_has_default(seat, dir->ino);
    cow_attr attr = {.mode = making->mode, .uid = caller->uid, .gid = caller->gid, .rdev = making->rdev};
    if (mount->acl && !inherits && !S_ISLNK(making->mode)) attr.mode &= ~caller->umask;
    uint64_t ino;
    size_t name_bytes = strlen(making->name), target_bytes = making->target ? strlen(making->target) : 0;
    rc = cow_dir_make(seat->tree, dir->ino, making->name, name_bytes, &attr, making->target, target_bytes, &ino);
    if (rc) return rc;
    if (inherits) rc = cow_acl_inherit(seat, dir->ino, ino, attr.mode);
    if (rc) {
        (void)cow_dir_remove(seat->tree, dir->ino, making->name, name_bytes, COW_REMOVE_TREE);
        return rc;
    }
    rc = cow_inode_stat(seat->tree, ino, &attr);
    return rc ? rc : cow_entry_of(mount, seat, &attr, entry_out);
}

static void make_and_reply(fuse_req_t req, const struct making *making)
{
    struct cow_mount *mount = cow_mount_of(req);
    struct fuse_entry_param entry;
    int rc = make(req, mount, making, &entry);
    if (rc) cow_reply_error(req, rc);
    else reply_entry(req, mount, &entry);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    if (!(mode & S_IFMT)) mode |= S_IFREG;
    make_and_reply(req, &(struct making){.parent = parent, .name = name, .mode = mode, .rdev = rdev});
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    make_and_reply(req, &(struct making){.parent = parent, .name = name, .mode = S_IFDIR | (mode & 07777u)});
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    make_and_reply(req, &(struct making){.parent = parent, .name = name, .mode = S_IFLNK | 0777, .target = target});
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *file)
{
    struct cow_mount *mount = cow_mount_of(req);
    struct making making = {.parent = parent, .name = name, .mode = S_IFREG | (mode & 07777u)};
    struct fuse_entry_param entry;
    int rc = make(req, mount, &making, &entry);
    if (rc == -EEXIST && !(file->flags & O_EXCL)) /* made by the library since the kernel looked */
        rc = look_up(mount, cow_knode_of(mount, parent), name, &entry);
    if (rc) {
        cow_reply_error(req, rc);
        return;
    }
    file->keep_cache = 1;
    if (fuse_reply_create(req, &entry, file) == -ENOENT) cow_knode_forget(mount, cow_knode_of(mount, entry.ino), 1);
}

static int make_link(struct cow_mount *mount, fuse_ino_t id, fuse_ino_t new_parent, const char *name,
                     struct fuse_entry_param *entry_out)
{
    struct cow_knode *node = cow_knode_of(mount, id), *dir;
    int rc = writable_dir(mount, new_parent, &dir);
    if (rc) return rc;
    if (node->seat != dir->seat) return -EXDEV;
    cow_attr attr;
    rc = cow_dir_link(dir->seat->tree, dir->ino, name, strlen(name), node->ino);
    if (!rc) rc = cow_inode_stat(dir->seat->tree, node->ino, &attr);
    return rc ? rc : cow_entry_of(mount, dir->seat, &attr, entry_out);
}

static void op_link(fuse_req_t req, fuse_ino_t id, fuse_ino_t new_parent, const char *new_name)
{
    struct cow_mount *mount = cow_mount_of(req);
    struct fuse_entry_param entry;
    int rc = make_link(mount, id, new_parent, new_name, &entry);
    if (rc) cow_reply_error(req, rc);
    else reply_entry(req, mount, &entry);
}

/* ---- Removing and moving ---- */

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name, uint32_t how)
{
    struct cow_mount *mount = cow_mount_of(req);
    struct cow_knode *dir;
    int rc = writable_dir(mount, parent, &dir);
    if (!rc) rc = cow_dir_remove(dir->seat->tree, dir->ino, name, strlen(name), how);
    cow_reply_error(req, rc);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, parent, name, COW_REMOVE_FILE);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name) { remove_name(req, parent, name, COW_REMOVE_DIR); }

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
                      unsigned flags)
{
    struct cow_mount *mount = cow_mount_of(req);
    struct cow_knode *from, *to;
    int rc = writable_dir(mount, parent, &from);
    if (!rc) rc = writable_dir(mount, new_parent, &to);
    if (!rc && from->seat != to->seat) rc = -EXDEV;
    if (!rc)
        rc = cow_dir_rename(from->seat->tree, from->ino, name, strlen(name), to->ino, new_name, strlen(new_name), flags);
    cow_reply_error(req, rc);
}

void cow_ops_names(struct fuse_lowlevel_ops *ops)
{
    ops->lookup = op_lookup;
    ops->forget = op_forget;
    ops->forget_multi = op_forget_multi;
    ops->mknod = op_mknod;
    ops->mkdir = op_mkdir;
    ops->symlink = op_symlink;
    ops->create = op_create;
    ops->link = op_link;
    ops->unlink = op_unlink;
    ops->rmdir = op_rmdir;
    ops->rename = op_rename;
}
