/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listing directories. Offset 1 stands behind ".", 2 behind ".."; what the store gives as a cookie, or a shelf as a serial,
 * follows from there.
 */
#include "fuse/mount.h"

#define DOTS 2u
#define ATTR_BYTES sizeof(cow_attr)

struct listing {
    fuse_req_t req;
    struct cow_mount *mount;
    struct cow_knode *dir;
    uint8_t *out;
    size_t used, capacity;
    bool plus;
};

/* 1 = added, 0 = no room. */
static int add(struct listing *listing, const char *name, const struct fuse_entry_param *entry, uint64_t offset)
{
    char *at = (char *)listing->out + listing->used;
    size_t room = listing->capacity - listing->used;
    size_t bytes = listing->plus ? fuse_add_direntry_plus(listing->req, at, room, name, entry, (off_t)offset)
                                 : fuse_add_direntry(listing->req, at, room, name, &entry->attr, (off_t)offset);
    if (bytes > room) return 0;
    listing->used += bytes;
    return 1;
}

/* The kernel takes no reference for the dots: their node id is 0. */
static int add_dot(struct listing *listing, const char *name, uint64_t offset)
{
    struct fuse_entry_param entry = {.attr = {.st_mode = S_IFDIR, .st_ino = listing->dir->ino}};
    if (listing->dir->seat) entry.attr.st_ino = cow_shown_ino(listing->mount, listing->dir->seat->id, listing->dir->ino);
    return add(listing, name, &entry, offset);
}

static int list_shelf(struct listing *listing, uint64_t serial)
{
    struct cow_shelf child;
    while (cow_shelf_next(listing->mount, listing->dir->shelf, serial, &child)) {
        /* Without a node id: the kernel looks the name up when it needs it. */
        uint64_t ino = child.tree ? cow_shown_ino(listing->mount, child.tree, COW_ROOT_INO) : child.node.ino;
        struct fuse_entry_param entry = {.attr = {.st_mode = S_IFDIR, .st_ino = ino}};
        serial = child.serial;
        if (!add(listing, child.name, &entry, serial + DOTS)) break;
    }
    return 0;
}

/* 1 = added, 0 = no room; an inode that has gone meanwhile is passed over. */
static int add_entry(struct listing *listing, const cow_dir_entry *found)
{
    char name[COW_NAME_BYTES_MAX + 1];
    memcpy(name, found + 1, found->name_bytes);
    name[found->name_bytes] = 0;
    struct cow_seat *seat = listing->dir->seat;
    struct fuse_entry_param entry = {.attr = {.st_mode = found->mode}};
    entry.attr.st_ino = cow_shown_ino(listing->mount, seat->id, found->ino);
    if (!listing->plus) return add(listing, name, &entry, found->cookie + DOTS);
    cow_attr attr;
    memcpy(&attr, (const uint8_t *)found + found->record_bytes - ATTR_BYTES, ATTR_BYTES);
    if (cow_entry_of(listing->mount, seat, &attr, &entry)) return 1;
    if (add(listing, name, &entry, found->cookie + DOTS)) return 1;
    cow_knode_forget(listing->mount, cow_knode_of(listing->mount, entry.ino), 1);
    return 0;
}

/* Asks the store for no more than will fit, for taking references and giving them back costs. */
static int list_tree(struct listing *listing, uint64_t cookie, uint8_t *scratch, size_t scratch_bytes)
{
    for (;;) {
        int64_t n = cow_dir_read(listing->dir->seat->tree, listing->dir->ino, cookie, listing->plus ? COW_READ_ATTR : 0,
                                 scratch, scratch_bytes);
        if (n <= 0) return (int)n;
        for (int64_t at = 0; at < n;) {
            const cow_dir_entry *found = (const cow_dir_entry *)(const void *)(scratch + at);
            if (!add_entry(listing, found)) return 0;
            cookie = found->cookie;
            at += found->record_bytes;
        }
    }
}

static void list(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, bool plus)
{
    struct cow_mount *mount = cow_mount_of(req);
    struct listing listing = {.req = req, .mount = mount, .dir = cow_knode_of(mount, id), .capacity = size, .plus = plus};
    uint64_t from = (uint64_t)offset;
    uint8_t *buffer = cow_worker_buffer(size * 2 + 1024);
    if (!buffer) {
        cow_reply_error(req, -ENOMEM);
        return;
    }
    listing.out = buffer;
    if (from == 0 && add_dot(&listing, ".", 1)) from = 1;
    if (from == 1 && add_dot(&listing, "..", DOTS)) from = DOTS;
    size_t scratch_at = (size + 7u) & ~(size_t)7;
    int rc = listing.dir->seat ? list_tree(&listing, from - DOTS, buffer + scratch_at, size * 2 + 1024 - scratch_at)
                               : list_shelf(&listing, from - DOTS);
    if (rc && listing.used == 0) cow_reply_error(req, rc);
    else (void)fuse_reply_buf(req, (const char *)listing.out, listing.used);
}

static void op_readdir(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *file)
{
    (void)file;
    list(req, id, size, offset, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *file)
{
    (void)file;
    list(req, id, size, offset, true);
}

/* Not opening at all (where the kernel can do without) lets it keep listings in its cache as well. */
static void op_opendir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *file)
{
    (void)id;
    struct cow_mount *mount = cow_mount_of(req);
    file->keep_cache = 1;
    file->cache_readdir = 1;
    if (mount->no_opendir) cow_reply_error(req, -ENOSYS);
    else (void)fuse_reply_open(req, file);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t id, int only_data, struct fuse_file_info *file)
{
    (void)id;
    (void)only_data;
    (void)file;
    struct cow_mount *mount = cow_mount_of(req);
    int rc = cow_store_commit(mount->store);
    cow_reply_error(req, rc == -EROFS ? 0 : rc);
}

void cow_ops_dirs(struct fuse_lowlevel_ops *ops)
{
    ops->readdir = op_readdir;
    ops->readdirplus = op_readdirplus;
    ops->opendir = op_opendir;
    ops->fsyncdir = op_fsyncdir;
}
