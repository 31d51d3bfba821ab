/* SPDX-License-Identifier: Apache-2.0 */
#include "crash_digest.h"

#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define DEPTH_MAX 64u
#define DIRS_MAX 4096u

struct digest {
    uint64_t hash;
};

static void add(struct digest *digest, const void *bytes, size_t length)
{
    const uint8_t *p = bytes;
    size_t at = 0;
    for (; length - at >= COW_BLOCK_BYTES; at += COW_BLOCK_BYTES)
        digest->hash = (digest->hash ^ cow_hash_block(p + at)) * 0x100000001B3ull;
    for (size_t i = at; i < length; i++) digest->hash = (digest->hash ^ p[i]) * 0x100000001B3ull;
    digest->hash ^= digest->hash >> 29;
}

static void add_number(struct digest *digest, uint64_t number) { add(digest, &number, sizeof number); }

static int add_content(struct digest *digest, cow_tree *tree, const cow_attr *attr)
{
    uint8_t buffer[16384];
    for (uint64_t at = 0; at < attr->size_bytes;) {
        int64_t n = cow_file_read(tree, attr->ino, at, buffer, sizeof buffer);
        if (n <= 0) return n ? (int)n : -EIO;
        add(digest, buffer, (size_t)n);
        at += (uint64_t)n;
    }
    return 0;
}

static int add_xattrs(struct digest *digest, cow_tree *tree, uint64_t ino)
{
    char names[4096], value[COW_XATTR_VALUE_BYTES_MAX];
    int64_t length = cow_xattr_list(tree, ino, names, sizeof names);
    if (length < 0) return (int)length;
    for (int64_t at = 0; at < length;) {
        size_t name_bytes = strlen(names + at);
        int64_t n = cow_xattr_get(tree, ino, names + at, name_bytes, value, sizeof value);
        if (n < 0) return (int)n;
        add(digest, names + at, name_bytes);
        add(digest, value, (size_t)n);
        at += (int64_t)name_bytes + 1;
    }
    return 0;
}

static int add_inode(struct digest *digest, cow_tree *tree, const cow_attr *attr)
{
    add_number(digest, attr->ino);
    add_number(digest, attr->mode);
    add_number(digest, attr->uid);
    add_number(digest, attr->gid);
    add_number(digest, attr->nlink);
    add_number(digest, attr->rdev);
    add_number(digest, attr->size_bytes);
    add_number(digest, attr->blocks_512);
    add_number(digest, (uint64_t)attr->mtime_ns);
    add_number(digest, (uint64_t)attr->ctime_ns);
    int rc = add_xattrs(digest, tree, attr->ino);
    if (rc) return rc;
    if (S_ISREG(attr->mode)) return add_content(digest, tree, attr);
    if (!S_ISLNK(attr->mode)) return 0;
    char target[4096];
    int64_t n = cow_symlink_read(tree, attr->ino, target, sizeof target);
    if (n < 0) return (int)n;
    add(digest, target, (size_t)n);
    return 0;
}

static int add_directory(struct digest *digest, cow_tree *tree, uint64_t dir, uint64_t *dirs, size_t *dir_count)
{
    static _Thread_local uint64_t buffer[65536 / 8];
    uint64_t cookie = 0;
    for (;;) {
        int64_t n = cow_dir_read(tree, dir, cookie, 0, buffer, sizeof buffer);
        if (n <= 0) return (int)n;
        for (int64_t at = 0; at < n;) {
            const cow_dir_entry *entry = (const cow_dir_entry *)((const char *)buffer + at);
            const char *name = (const char *)(entry + 1);
            cow_attr attr;
            int rc = cow_inode_stat(tree, entry->ino, &attr);
            if (rc) return rc;
            add(digest, name, entry->name_bytes);
            rc = add_inode(digest, tree, &attr);
            if (rc) return rc;
            if (S_ISDIR(attr.mode)) {
                if (*dir_count == DIRS_MAX) return -E2BIG;
                dirs[(*dir_count)++] = entry->ino;
            }
            cookie = entry->cookie;
            at += entry->record_bytes;
        }
    }
}

static int add_tree(struct digest *digest, cow_tree *tree)
{
    cow_tree_info info;
    cow_attr root;
    int rc = cow_tree_get_info(tree, &info);
    if (!rc) rc = cow_inode_stat(tree, COW_ROOT_INO, &root);
    if (rc || info.temp) return rc; /* temporary trees are gone when the store is opened again */
    add_number(digest, info.id);
    add_number(digest, info.sealed);
    add_number(digest, info.inodes);
    add_number(digest, info.apparent_bytes);
    add_number(digest, info.size_bytes);
    rc = add_inode(digest, tree, &root);
    uint64_t *dirs = malloc(DIRS_MAX * sizeof *dirs);
    if (!dirs) return -ENOMEM;
    size_t dir_count = 1;
    dirs[0] = COW_ROOT_INO;
    for (size_t i = 0; i < dir_count && !rc; i++) rc = add_directory(digest, tree, dirs[i], dirs, &dir_count);
    free(dirs);
    return rc;
}

int digest_store(cow_store *store, uint64_t *digest_out)
{
    struct digest digest = {.hash = 0xCBF29CE484222325ull};
    for (uint64_t id = 1; id < store->next_tree; id++) {
        cow_tree *tree;
        int rc = cow_tree_open(store, id, &tree);
        if (rc == -ENOENT) continue;
        if (rc) return rc;
        rc = add_tree(&digest, tree);
        cow_tree_close(tree);
        if (rc) {
            fprintf(stderr, "digest: tree %llu: %d %s\n", (unsigned long long)id, rc, cow_error_detail());
            return rc;
        }
    }
    *digest_out = digest.hash;
    return 0;
}
