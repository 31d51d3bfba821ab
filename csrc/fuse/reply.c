/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the answers to the kernel have in common: error codes, attributes, entries, and a buffer for each worker.
 */
#include <stdlib.h>

#include "fuse/mount.h"

#define NS_PER_S 1000000000

struct cow_mount *cow_mount_of(fuse_req_t req)
{
    struct cow_mount *mount = fuse_req_userdata(req);
    cow_store_watch_skip(mount); /* what this thread changes, the kernel knows */
    return mount;
}

int cow_reply_code(int64_t rc)
{
    int code = (int)-rc;
    return code == EUCLEAN || code == ECHILD ? EIO : code;
}

void cow_reply_error(fuse_req_t req, int64_t rc) { (void)fuse_reply_err(req, rc < 0 ? cow_reply_code(rc) : 0); }

static struct timespec to_time(int64_t ns)
{
    struct timespec t = {ns / NS_PER_S, ns % NS_PER_S};
    if (t.tv_nsec < 0) {
        t.tv_nsec += NS_PER_S;
        t.tv_sec--;
    }
    return t;
}

void cow_attr_to_stat(const struct cow_mount *mount, uint64_t tree, const cow_attr *attr, struct stat *st_out)
{
    *st_out = (struct stat){.st_ino = cow_shown_ino(mount, tree, attr->ino),
                            .st_mode = attr->mode,
                            .st_nlink = attr->nlink,
                            .st_uid = attr->uid,
                            .st_gid = attr->gid,
                            .st_rdev = attr->rdev,
                            .st_size = (off_t)attr->size_bytes,
                            .st_blocks = (blkcnt_t)attr->blocks_512,
                            .st_blksize = COW_BLOCK_BYTES,
                            .st_atim = to_time(attr->atime_ns),
                            .st_mtim = to_time(attr->mtime_ns),
                            .st_ctim = to_time(attr->ctime_ns)};
}

int cow_entry_of(struct cow_mount *mount, struct cow_seat *seat, const cow_attr *attr, struct fuse_entry_param *entry_out)
{
    struct cow_knode *node;
    int rc = cow_knode_take(mount, seat, attr->ino, attr->mode, &node);
    if (rc) return rc;
    *entry_out = (struct fuse_entry_param){.ino = cow_knode_id(mount, node),
                                           .attr_timeout = mount->timeout_s,
                                           .entry_timeout = mount->timeout_s};
    cow_attr_to_stat(mount, seat->id, attr, &entry_out->attr);
    return 0;
}

void cow_entry_of_shelf(struct cow_mount *mount, struct cow_shelf *shelf, struct fuse_entry_param *entry_out)
{
    *entry_out = (struct fuse_entry_param){.ino = cow_knode_id(mount, &shelf->node),
                                           .attr_timeout = mount->timeout_s,
                                           .entry_timeout = mount->timeout_s};
    cow_shelf_stat(mount, shelf, &entry_out->attr);
}

/* ---- Buffers ---- */

struct buffer {
    size_t bytes;
    uint8_t data[];
};

static pthread_key_t buffer_key;
static pthread_once_t buffer_once = PTHREAD_ONCE_INIT;

static void make_key(void) { (void)pthread_key_create(&buffer_key, free); }

uint8_t *cow_worker_buffer(size_t bytes)
{
    (void)pthread_once(&buffer_once, make_key);
    struct buffer *buffer = pthread_getspecific(buffer_key);
    if (buffer && buffer->bytes >= bytes) return buffer->data;
    struct buffer *bigger = realloc(buffer, sizeof *buffer + bytes);
    if (!bigger) return NULL;
    bigger->bytes = bytes;
    (void)pthread_setspecific(buffer_key, bigger);
    return bigger->data;
}
