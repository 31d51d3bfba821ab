/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeping the kernel's cache true. The kernel keeps names and attributes for a day; what changes them behind its back (the
 * library in this process, or another mount of the store) is told to it by a thread of its own from a queue: telling may
 * have to wait for the kernel to write pages back through this very mount, so it must not be done by whoever holds locks,
 * and not by those who serve requests. Whoever made the change waits for the queue (settle), without any lock.
 *
 * With the write-back cache the kernel trusts its own size and times of a regular file for as long as it knows the inode.
 * Such an inode is therefore retired: its name is dropped, and the next lookup gives the file a new node id. Files that are
 * open keep the old one; it is at least told of growth, by storing the last byte in its cache.
 *
 * A rollback changes all names of a tree. Kernels from 6.16 on can drop all names at once (an "epoch"); with older ones the
 * timeouts are short from the start, because the names that the kernel has are not known.
 */
#include <stdlib.h>
#include <unistd.h>

#include "fuse/mount.h"

#define NOTIFY_INC_EPOCH 8 /* FUSE_NOTIFY_INC_EPOCH of linux/fuse.h */

enum event_kind { EVENT_ENTRY, EVENT_INODE, EVENT_EPOCH };

struct cow_event {
    struct cow_event *next;
    enum event_kind kind;
    fuse_ino_t id; /* of the inode, or of the directory */
    struct cow_seat *grown;
    uint64_t ino;
    size_t name_bytes;
    char name[];
};

struct raw_header { /* struct fuse_out_header */
    uint32_t length;
    int32_t error;
    uint64_t unique;
};

bool cow_notify_epoch_now(struct cow_mount *mount)
{
    struct raw_header header = {.length = sizeof header, .error = NOTIFY_INC_EPOCH};
    return write(fuse_session_fd(mount->session), &header, sizeof header) == (ssize_t)sizeof header;
}

/* ---- The queue ---- */

static void push(struct cow_mount *mount, const struct cow_event *event, const char *name)
{
    struct cow_event *copy = malloc(sizeof *copy + event->name_bytes + 1);
    if (!copy) { /* a truth less in the cache; the timeouts bound it where they are short */
        if (event->grown) cow_seat_give(mount, event->grown);
        return;
    }
    *copy = *event;
    copy->next = NULL;
    if (event->name_bytes) memcpy(copy->name, name, event->name_bytes);
    copy->name[event->name_bytes] = 0;
    pthread_mutex_lock(&mount->queue_lock);
    *mount->last = copy;
    mount->last = &copy->next;
    mount->queued++;
    pthread_cond_signal(&mount->queue_filled);
    pthread_mutex_unlock(&mount->queue_lock);
}

void cow_notify_entry(struct cow_mount *mount, fuse_ino_t dir, const char *name, size_t name_bytes)
{
    if (mount->notifying) push(mount, &(struct cow_event){.kind = EVENT_ENTRY, .id = dir, .name_bytes = name_bytes}, name);
}

/* grown is given away with the event. */
void cow_notify_inode(struct cow_mount *mount, fuse_ino_t id, struct cow_seat *grown, uint64_t ino)
{
    if (mount->notifying)
        push(mount, &(struct cow_event){.kind = EVENT_INODE, .id = id, .grown = grown, .ino = ino}, NULL);
    else if (grown) cow_seat_give(mount, grown);
}

void cow_notify_settle(struct cow_mount *mount)
{
    pthread_mutex_lock(&mount->queue_lock);
    uint64_t wanted = mount->queued;
    while (mount->notifying && !mount->notify_stop && mount->done < wanted)
        pthread_cond_wait(&mount->queue_done, &mount->queue_lock);
    pthread_mutex_unlock(&mount->queue_lock);
}

/* ---- The thread that tells ---- */

static void store_last_byte(struct cow_mount *mount, const struct cow_event *event)
{
    cow_attr attr;
    uint8_t byte;
    if (cow_inode_stat(event->grown->tree, event->ino, &attr) || attr.size_bytes == 0) return;
    if (cow_file_read(event->grown->tree, event->ino, attr.size_bytes - 1, &byte, 1) != 1) return;
    struct fuse_bufvec bytes = FUSE_BUFVEC_INIT(1);
    bytes.buf[0].mem = &byte;
    (void)fuse_lowlevel_notify_store(mount->session, event->id, (off_t)(attr.size_bytes - 1), &bytes, 0);
}

static void tell(struct cow_mount *mount, const struct cow_event *event)
{
    switch (event->kind) {
    case EVENT_ENTRY:
        (void)fuse_lowlevel_notify_inval_entry(mount->session, event->id, event->name, event->name_bytes);
        break;
    case EVENT_INODE:
        (void)fuse_lowlevel_notify_inval_inode(mount->session, event->id, 0, 0);
        if (event->grown) store_last_byte(mount, event);
        break;
    case EVENT_EPOCH: (void)cow_notify_epoch_now(mount); break;
    }
}

static void *notifier(void *context)
{
    struct cow_mount *mount = context;
    cow_store_watch_skip(mount);
    pthread_mutex_lock(&mount->queue_lock);
    for (;;) {
        while (!mount->first && !mount->notify_stop) pthread_cond_wait(&mount->queue_filled, &mount->queue_lock);
        struct cow_event *event = mount->first;
        if (!event) break;
        mount->first = event->next;
        if (!mount->first) mount->last = &mount->first;
        bool idle = mount->notify_stop; /* nobody is there to be told any more */
        pthread_mutex_unlock(&mount->queue_lock);
        if (!idle) tell(mount, event);
        if (event->grown) cow_seat_give(mount, event->grown);
        free(event);
        pthread_mutex_lock(&mount->queue_lock);
        mount->done++;
        pthread_cond_broadcast(&mount->queue_done);
    }
    pthread_mutex_unlock(&mount->queue_lock);
    return NULL;
}

/* ---- What the store tells us ---- */

static void tell_epoch(struct cow_mount *mount)
{
    if (mount->epochs) push(mount, &(struct cow_event){.kind = EVENT_EPOCH}, NULL);
}

static void tell_one(struct cow_mount *mount, fuse_ino_t id) { cow_notify_inode(mount, id, NULL, 0); }

/* Drops the names of an inode that was retired. */
static void drop_names(struct cow_mount *mount, struct cow_seat *seat, uint64_t ino)
{
    char path[COW_PATH_BYTES_MAX + 1];
    size_t path_bytes = 0, name_at = 0, name_bytes = 0;
    uint64_t dir = 0;
    cow_attr attr;
    int rc = cow_inode_stat(seat->tree, ino, &attr);
    if (rc || attr.nlink == 0) return; /* it has none */
    if (attr.nlink == 1) rc = cow_path_of(seat->tree, ino, path, sizeof path, &path_bytes);
    if (!rc && attr.nlink == 1)
        rc = cow_path_parent(seat->tree, COW_ROOT_INO, path, path_bytes, &dir, &name_at, &name_bytes);
    if (rc || attr.nlink > 1) {
        tell_epoch(mount);
        return;
    }
    fuse_ino_t id = cow_knode_find(mount, seat->id, dir, false, NULL);
    if (id) cow_notify_entry(mount, id, path + name_at, name_bytes);
}

static void inode_changed(struct cow_mount *mount, const cow_change *change)
{
    bool own_view = mount->write_back && (change->what & COW_CHANGE_NAME) == 0, retired = false;
    fuse_ino_t id = cow_knode_find(mount, change->tree, change->ino, own_view, &retired);
    if (!id) return;
    struct cow_seat *seat = NULL;
    if (!retired || cow_seat_take(mount, change->tree, &seat)) {
        cow_notify_inode(mount, id, NULL, 0);
        return;
    }
    drop_names(mount, seat, change->ino);
    if (change->what & COW_CHANGE_CONTENT) {
        cow_notify_inode(mount, id, seat, change->ino);
        return;
    }
    cow_notify_inode(mount, id, NULL, 0);
    cow_seat_give(mount, seat);
}

static void changed(void *context, const cow_change *change)
{
    struct cow_mount *mount = context;
    if (mount->tree_id && mount->tree_id != change->tree) return;
    if (change->what & COW_CHANGE_TREE) {
        cow_knodes_of_tree(mount, change->tree, tell_one);
        tell_epoch(mount);
        return;
    }
    if (change->what & COW_CHANGE_NAME) {
        fuse_ino_t dir = cow_knode_find(mount, change->tree, change->dir, false, NULL);
        if (dir) {
            cow_notify_entry(mount, dir, change->name, change->name_bytes);
            cow_notify_inode(mount, dir, NULL, 0);
        }
    }
    if (change->ino) inode_changed(mount, change);
}

static void settle(void *context) { cow_notify_settle(context); }

int cow_notify_start(struct cow_mount *mount)
{
    pthread_mutex_init(&mount->queue_lock, NULL);
    pthread_cond_init(&mount->queue_filled, NULL);
    pthread_cond_init(&mount->queue_done, NULL);
    mount->last = &mount->first;
    int rc = -pthread_create(&mount->notifier, NULL, notifier, mount);
    if (rc) return cow_fail(-rc, "starting a thread");
    mount->notifying = true;
    return cow_store_watch(mount->store, changed, settle, mount);
}

/* First those who wait are let go, for the store's watchers cannot be changed while one of them waits. */
void cow_notify_stop(struct cow_mount *mount)
{
    if (!mount->notifying) return;
    pthread_mutex_lock(&mount->queue_lock);
    mount->notify_stop = true;
    pthread_cond_broadcast(&mount->queue_filled);
    pthread_cond_broadcast(&mount->queue_done);
    pthread_mutex_unlock(&mount->queue_lock);
    cow_store_unwatch(mount->store, mount);
    pthread_join(mount->notifier, NULL);
    for (struct cow_event *event = mount->first; event;) { /* pushed after the thread had ended */
        struct cow_event *next = event->next;
        if (event->grown) cow_seat_give(mount, event->grown);
        free(event);
        event = next;
    }
    mount->notifying = false;
    pthread_cond_destroy(&mount->queue_filled);
    pthread_cond_destroy(&mount->queue_done);
    pthread_mutex_destroy(&mount->queue_lock);
}
