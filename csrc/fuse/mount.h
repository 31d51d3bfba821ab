/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mount.h: what the files of fuse/ share. They use the store through cow.h only.
 *
 * The kernel knows inodes by node ids. A node id is the address of a struct cow_knode: (tree, inode) with the kernel's count
 * of references to it. It holds a pin on the inode, so a file that lost its last name lives until the kernel forgets it.
 * Directories that are no part of a tree (the root, "containers", ... of a mounted store) are struct cow_shelf.
 */
#ifndef COW_FUSE_MOUNT_H
#define COW_FUSE_MOUNT_H

#define FUSE_USE_VERSION 312

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/common.h"
#include "cow.h"

#define COW_NODE_SHARDS 64u
#define COW_ACL_ACCESS "system.posix_acl_access"
#define COW_ACL_DEFAULT "system.posix_acl_default"

struct cow_shelf;

struct cow_seat { /* an open tree; counted by its nodes */
    uint64_t id;
    cow_tree *tree;
    bool sealed;
    uint32_t uses; /* under seats_lock */
    struct cow_seat *next;
};

struct cow_knode {
    struct cow_seat *seat;   /* NULL: a shelf */
    struct cow_shelf *shelf;
    uint64_t ino;
    uint64_t count;          /* of the kernel's references; under the shard's lock, as are the next two */
    bool retired;            /* the kernel must not meet it by name again (see notify.c) */
    bool regular;
    bool pinned;
    struct cow_knode *next;
};

struct cow_shard {
    pthread_mutex_t lock;
    struct cow_knode **buckets;
    size_t bucket_count, used;
};

/* A directory of the mounted store, or (tree != 0) the name of a tree in it. */
struct cow_shelf {
    struct cow_knode node;
    struct cow_shelf *parent;
    uint64_t tree;
    uint64_t serial; /* its place in a listing */
    int64_t changed_ns;
    struct cow_shelf **by_serial, **by_name;
    size_t count, capacity;
    size_t name_bytes;
    char name[COW_NAME_BYTES_MAX + 1];
};

struct cow_event;

struct cow_mount {
    cow_store *store;
    char *mountpoint, *store_path;
    uint32_t flags, threads;
    uint64_t tree_id; /* 0 = the whole store */
    struct fuse_session *session;
    struct cow_knode *root;
    dev_t host_dev;         /* of the mount point before it was one */
    bool mounted, loop_over; /* loop_over under state_lock */
    atomic_bool write_back, no_open, no_opendir, acl; /* by INIT, which a worker serves */
    pthread_mutex_t state_lock;
    pthread_cond_t state_changed;
    double timeout_s;       /* for names and attributes */
    atomic_bool epochs;     /* the kernel can drop all names at once */
    atomic_int flushing_seeks;

    struct cow_shard shards[COW_NODE_SHARDS];
    pthread_mutex_t seats_lock;
    struct cow_seat *seats;

    pthread_rwlock_t shelves_lock;
    struct cow_shelf *top;
    struct cow_shelf *removed; /* kept for nodes that the kernel may still name */
    uint64_t next_serial;

    pthread_mutex_t queue_lock;
    pthread_cond_t queue_filled, queue_done;
    struct cow_event *first, **last;
    uint64_t queued, done;
    bool notifying, notify_stop;
    pthread_t notifier;
};

/* nodes.c */
int cow_knodes_open(struct cow_mount *mount);
void cow_knodes_close(struct cow_mount *mount);
int cow_seat_take(struct cow_mount *mount, uint64_t id, struct cow_seat **seat_out);
void cow_seat_give(struct cow_mount *mount, struct cow_seat *seat);
/* Counts one more reference of the kernel; -ENOENT when the inode has gone. */
int cow_knode_take(struct cow_mount *mount, struct cow_seat *seat, uint64_t ino, mode_t mode, struct cow_knode **node_out);
void cow_knode_forget(struct cow_mount *mount, struct cow_knode *node, uint64_t count);
/* The node id by which the kernel knows the inode, 0 when it does not. Retires it when asked to, if it is regular. */
fuse_ino_t cow_knode_find(struct cow_mount *mount, uint64_t tree, uint64_t ino, bool retire, bool *retired_out);
/* Calls each for every node of the tree, retiring the regular ones. */
void cow_knodes_of_tree(struct cow_mount *mount, uint64_t tree, void (*each)(struct cow_mount *mount, fuse_ino_t id));
static inline struct cow_knode *cow_knode_of(struct cow_mount *mount, fuse_ino_t id)
{
    return id == FUSE_ROOT_ID ? mount->root : (struct cow_knode *)(uintptr_t)id; /* NOLINT: the kernel hands back our id */
}
static inline fuse_ino_t cow_knode_id(const struct cow_mount *mount, const struct cow_knode *node)
{
    return node == mount->root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)node;
}
/* st_ino: the inode's number; in a mounted store the tree's id is its upper part. */
uint64_t cow_shown_ino(const struct cow_mount *mount, uint64_t tree, uint64_t ino);

/* shelves.c */
int cow_shelves_open(struct cow_mount *mount);
void cow_shelves_close(struct cow_mount *mount);
int cow_shelf_find(struct cow_mount *mount, struct cow_shelf *shelf, const char *name, uint64_t *tree_out,
                   struct cow_shelf **child_out);
void cow_shelf_stat(struct cow_mount *mount, struct cow_shelf *shelf, struct stat *st_out);
/* The first entry behind serial: 1, or 0 at the end. */
int cow_shelf_next(struct cow_mount *mount, struct cow_shelf *shelf, uint64_t serial, struct cow_shelf *copy_out);

/* notify.c */
int cow_notify_start(struct cow_mount *mount);
void cow_notify_stop(struct cow_mount *mount);
void cow_notify_entry(struct cow_mount *mount, fuse_ino_t dir, const char *name, size_t name_bytes);
void cow_notify_inode(struct cow_mount *mount, fuse_ino_t id, struct cow_seat *grown, uint64_t ino);
void cow_notify_settle(struct cow_mount *mount);
bool cow_notify_epoch_now(struct cow_mount *mount); /* false: this kernel cannot */

/* reply.c */
int cow_reply_code(int64_t rc); /* what the kernel is told for an error of the store */
void cow_reply_error(fuse_req_t req, int64_t rc);
struct cow_mount *cow_mount_of(fuse_req_t req);
/* Fills in stat; ino as shown. */
void cow_attr_to_stat(const struct cow_mount *mount, uint64_t tree, const cow_attr *attr, struct stat *st_out);
/* Takes a reference for the kernel and describes it. */
int cow_entry_of(struct cow_mount *mount, struct cow_seat *seat, const cow_attr *attr, struct fuse_entry_param *entry_out);
void cow_entry_of_shelf(struct cow_mount *mount, struct cow_shelf *shelf, struct fuse_entry_param *entry_out);
uint8_t *cow_worker_buffer(size_t bytes); /* the thread's own; NULL without memory */

/* raw.c: what libfuse does not tell of a request */
bool cow_raw_kills_privileges(void);
int cow_raw_install(struct cow_mount *mount);

/* acl.c: POSIX ACLs, where mode and ACL have to agree */
int cow_acl_inherit(struct cow_seat *seat, uint64_t dir, uint64_t ino, mode_t wanted);
bool cow_acl_has_default(struct cow_seat *seat, uint64_t dir);
int cow_acl_chmod(struct cow_seat *seat, uint64_t ino, mode_t mode);
/* The mode that an access ACL implies: 1 = *mode_io changed; *minimal_out: it says no more than a mode does. */
int cow_acl_to_mode(const void *value, size_t bytes, mode_t *mode_io, bool *minimal_out);

/* ops_*.c */
void cow_ops_names(struct fuse_lowlevel_ops *ops);
void cow_ops_attrs(struct fuse_lowlevel_ops *ops);
void cow_ops_files(struct fuse_lowlevel_ops *ops);
void cow_ops_dirs(struct fuse_lowlevel_ops *ops);
int cow_drop_privileges(struct cow_knode *node, bool always);

#endif
