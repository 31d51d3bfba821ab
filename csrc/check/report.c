/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Findings, and the way from an inode to a path in a tree that may be damaged: inode, its directory and name hash,
 * the name in that bucket, and so on up; any step that fails makes the path unknown.
 */
#include "check/check.h"

#include <stdarg.h>
#include <stdio.h>

#define LEVELS_MAX 1024u
#define SHARERS_MAX 1000u

/* Puts the name of ino in front of what is at path + at: its new start, 0 when it is not to be had. */
static size_t prepend(cow_store *store, struct cow_root root, const struct cow_inode *inode, char *path, size_t at)
{
    uint8_t bucket[COW_VALUE_BYTES_MAX];
    struct cow_key key = cow_key_make(inode->parent, COW_ITEM_DIRENT, inode->name_hash);
    int64_t length = cow_btree_get(store->nodes, root, key, bucket, sizeof bucket);
    if (length <= 0) return 0;
    struct cow_dirent dirent;
    size_t next = 0;
    while (cow_dirent_next(bucket, (size_t)length, &next, &dirent) == 1) {
        if (dirent.ino != inode->ino) continue;
        if (at < (size_t)dirent.name_bytes + 2) return 0;
        at -= dirent.name_bytes;
        memcpy(path + at, dirent.name, dirent.name_bytes);
        path[--at] = '/';
        return at;
    }
    return 0;
}

void cow_report_path(cow_store *store, struct cow_root root, uint64_t ino, char path[COW_REPORT_PATH_BYTES])
{
    size_t at = COW_REPORT_PATH_BYTES - 1;
    path[0] = path[at] = 0;
    for (unsigned level = 0; ino != COW_ROOT_INO; level++) {
        struct cow_inode inode;
        uint8_t bytes[COW_INODE_BYTES];
        int64_t n = cow_btree_get(store->nodes, root, cow_key_make(ino, COW_ITEM_INODE, 0), bytes, sizeof bytes);
        if (n < 0 || cow_inode_decode(ino, bytes, (size_t)n, &inode) || level == LEVELS_MAX || inode.nlink == 0) return;
        at = prepend(store, root, &inode, path, at);
        if (at == 0) return;
        ino = inode.parent;
    }
    if (at == COW_REPORT_PATH_BYTES - 1) path[--at] = '/';
    memmove(path, path + at, COW_REPORT_PATH_BYTES - at);
}

void cow_report(struct cow_reporter *reporter, const cow_finding *finding, const struct cow_root *root,
                const char *format, ...)
{
    char text[400], path[COW_REPORT_PATH_BYTES] = "";
    va_list arguments;
    va_start(arguments, format); /* may quote the error detail, which looking for the path would change */
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    reporter->count++;
    if (!reporter->found) return;
    if (root && root->addr && finding->ino) cow_report_path(reporter->store, *root, finding->ino, path);
    cow_finding full = *finding;
    full.path = path;
    full.text = text;
    reporter->found(reporter->context, &full);
}

/* ---- Who else ---- */

struct sharers {
    struct cow_reporter *reporter;
    uint64_t tree;
    struct cow_key key;
    cow_addr addr;
    const cow_finding *finding;
    unsigned count;
};

static int look_at_tree(void *context, uint64_t id, const struct cow_tree_record *record)
{
    struct sharers *sharers = context;
    cow_store *store = sharers->reporter->store;
    if (id == sharers->tree || sharers->count == SHARERS_MAX) return 0;
    uint8_t bytes[COW_RUN_BYTES];
    struct cow_run run;
    struct cow_root root = {record->root_addr, record->root_generation};
    int64_t n = cow_btree_get(store->nodes, root, sharers->key, bytes, sizeof bytes);
    if (n < 0 || cow_run_decode(bytes, (size_t)n, &run)) return 0;
    if (sharers->addr < run.addr || sharers->addr >= run.addr + run.count) return 0;
    sharers->count++;
    cow_finding finding = *sharers->finding;
    finding.tree = id;
    cow_report(sharers->reporter, &finding, &root, "tree %llu shares this damaged data", (unsigned long long)id);
    return 0;
}

void cow_report_sharers(struct cow_reporter *reporter, uint64_t tree, struct cow_key key, cow_addr addr,
                        const cow_finding *finding)
{
    struct sharers sharers = {reporter, tree, key, addr, finding, 0};
    (void)cow_each_tree(reporter->store, look_at_tree, &sharers); /* what cannot be read here is reported elsewhere */
}
