/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended attributes: buckets by name hash, as with directory entries. A change copies the bucket to the stack without
 * the attribute, appends the new value when there is one, and puts the result back. COW_INODE_XATTRS lets the many
 * inodes without any answer at once.
 */
#include "fs/names.h"

#define LINUX_VALUE_MAX 65536u
#define FREE_STEP 16u

struct bucket {
    struct cow_key key;
    uint8_t bytes[COW_VALUE_BYTES_MAX];
    size_t length;
    bool found;
    struct cow_xattr xattr; /* into bytes */
    size_t at, end;         /* where it stands */
};

static int check_name(const char *name, size_t name_bytes)
{
    if (name_bytes == 0 || name_bytes > COW_NAME_BYTES_MAX)
        return cow_fail(ERANGE, "an attribute name of %zu bytes", name_bytes);
    return memchr(name, 0, name_bytes) ? cow_fail(EINVAL, "an attribute name may not hold NUL") : 0;
}

static int read_bucket(struct cow_tree *tree, const struct cow_inode *inode, const char *name, size_t name_bytes,
                       struct bucket *bucket)
{
    bucket->key = cow_key_make(inode->ino, COW_ITEM_XATTR, cow_name_hash(tree, name, name_bytes));
    bucket->length = 0;
    bucket->found = false;
    if (!(inode->flags & COW_INODE_XATTRS)) return 0;
    int64_t length = cow_tree_get(tree, bucket->key, bucket->bytes, sizeof bucket->bytes);
    if (length < 0) return length == -ENOENT ? 0 : (int)length;
    bucket->length = (size_t)length;
    struct cow_xattr xattr;
    size_t at = 0, before = 0;
    int rc;
    while ((rc = cow_xattr_next(bucket->bytes, bucket->length, &at, &xattr)) == 1) {
        if (xattr.name_bytes == name_bytes && memcmp(xattr.name, name, name_bytes) == 0) {
            bucket->found = true;
            bucket->xattr = xattr;
            bucket->at = before;
            bucket->end = at;
        }
        before = at;
    }
    return rc;
}

/* Closes the gap that the attribute leaves; the others stay. */
static void take_out(struct bucket *bucket)
{
    if (!bucket->found) return;
    memmove(bucket->bytes + bucket->at, bucket->bytes + bucket->end, bucket->length - bucket->end);
    bucket->length -= bucket->end - bucket->at;
}

int64_t cow_fs_xattr_get(struct cow_tree *tree, uint64_t ino, const char *name, size_t name_bytes, void *value,
                         size_t capacity)
{
    struct cow_inode inode;
    struct bucket bucket;
    int rc = check_name(name, name_bytes);
    if (!rc) rc = cow_tree_get_inode(tree, ino, &inode);
    if (!rc) rc = read_bucket(tree, &inode, name, name_bytes, &bucket);
    if (rc) return rc;
    if (!bucket.found) return -ENODATA;
    if (capacity && capacity < bucket.xattr.value_bytes) return -ERANGE;
    if (capacity) memcpy(value, bucket.xattr.value, bucket.xattr.value_bytes);
    return bucket.xattr.value_bytes;
}

int cow_fs_xattr_set(struct cow_tree *tree, uint64_t ino, const char *name, size_t name_bytes, const void *value,
                     size_t value_bytes, uint32_t flags)
{
    struct cow_inode inode;
    struct bucket bucket;
    int rc = check_name(name, name_bytes);
    if (rc) return rc;
    if (flags & ~(uint32_t)(COW_XATTR_CREATE | COW_XATTR_REPLACE))
        return cow_fail(EINVAL, "flags of an attribute: %u", flags);
    if (value_bytes > LINUX_VALUE_MAX) return cow_fail(E2BIG, "an attribute of %zu bytes", value_bytes);
    if (value_bytes > COW_XATTR_VALUE_BYTES_MAX) return cow_fail(ENOSPC, "an attribute of %zu bytes", value_bytes);
    rc = cow_tree_get_inode(tree, ino, &inode);
    if (!rc) rc = read_bucket(tree, &inode, name, name_bytes, &bucket);
    if (rc) return rc;
    if (bucket.found && (flags & COW_XATTR_CREATE)) return -EEXIST;
    if (!bucket.found && (flags & COW_XATTR_REPLACE)) return -ENODATA;
    take_out(&bucket);
    struct cow_xattr xattr = {.name_bytes = (uint8_t)name_bytes,
                              .value_bytes = (uint16_t)value_bytes,
                              .name = (const uint8_t *)name,
                              .value = value};
    uint8_t entry[COW_XATTR_VALUE_BYTES_MAX + COW_NAME_BYTES_MAX + 8];
    size_t entry_bytes = cow_xattr_encode(&xattr, entry);
    if (bucket.length + entry_bytes > COW_VALUE_BYTES_MAX)
        return cow_fail(ENOSPC, "too many attributes with the same hash");
    memcpy(bucket.bytes + bucket.length, entry, entry_bytes);
    rc = cow_tree_put(tree, bucket.key, bucket.bytes, bucket.length + entry_bytes);
    if (rc) return rc;
    inode.flags |= COW_INODE_XATTRS;
    inode.ctime_ns = cow_now_ns();
    return cow_tree_put_inode(tree, &inode);
}

static bool is_xattr(const struct cow_cursor *cursor, uint64_t ino)
{
    return cursor->valid && cursor->key.ino == ino && cow_key_type(cursor->key) == COW_ITEM_XATTR;
}

/* Appends the names of a bucket, as far as there is room; counts all. */
static int list_bucket(const struct cow_cursor *cursor, char *names, size_t capacity, size_t *total)
{
    struct cow_xattr xattr;
    size_t at = 0;
    int rc;
    while ((rc = cow_xattr_next(cursor->value, cursor->value_bytes, &at, &xattr)) == 1) {
        size_t end = *total + xattr.name_bytes + 1;
        if (end <= capacity) {
            memcpy(names + *total, xattr.name, xattr.name_bytes);
            names[end - 1] = 0;
        }
        *total = end;
    }
    return rc;
}

int64_t cow_fs_xattr_list(struct cow_tree *tree, uint64_t ino, char *names, size_t capacity)
{
    struct cow_inode inode;
    int rc = cow_tree_get_inode(tree, ino, &inode);
    if (rc || !(inode.flags & COW_INODE_XATTRS)) return rc;
    struct cow_cursor cursor;
    size_t total = 0;
    cow_cursor_init(&cursor, cow_tree_nodes(tree), tree->root);
    rc = cow_cursor_seek(&cursor, cow_key_make(ino, COW_ITEM_XATTR, 0));
    while (!rc && is_xattr(&cursor, ino)) {
        rc = list_bucket(&cursor, names, capacity, &total);
        if (!rc) rc = cow_cursor_next(&cursor);
    }
    cow_cursor_deinit(&cursor);
    if (rc) return rc;
    return capacity && total > capacity ? -ERANGE : (int64_t)total;
}

/* The keys of at most limit buckets; returns how many. */
static int collect(struct cow_tree *tree, uint64_t ino, struct cow_key *keys, unsigned limit)
{
    struct cow_cursor cursor;
    unsigned count = 0;
    cow_cursor_init(&cursor, cow_tree_nodes(tree), tree->root);
    int rc = cow_cursor_seek(&cursor, cow_key_make(ino, COW_ITEM_XATTR, 0));
    while (!rc && count < limit && is_xattr(&cursor, ino)) {
        keys[count++] = cursor.key;
        rc = cow_cursor_next(&cursor);
    }
    cow_cursor_deinit(&cursor);
    return rc ? rc : (int)count;
}

static int put_changed(struct cow_tree *tree, struct cow_inode *inode)
{
    struct cow_key key;
    int left = collect(tree, inode->ino, &key, 1);
    if (left < 0) return left;
    if (left == 0) inode->flags &= ~COW_INODE_XATTRS;
    inode->ctime_ns = cow_now_ns();
    return cow_tree_put_inode(tree, inode);
}

int cow_fs_xattr_remove(struct cow_tree *tree, uint64_t ino, const char *name, size_t name_bytes)
{
    struct cow_inode inode;
    struct bucket bucket;
    int rc = check_name(name, name_bytes);
    if (!rc) rc = cow_tree_get_inode(tree, ino, &inode);
    if (!rc) rc = read_bucket(tree, &inode, name, name_bytes, &bucket);
    if (rc) return rc;
    if (!bucket.found) return -ENODATA;
    take_out(&bucket);
    rc = bucket.length ? cow_tree_put(tree, bucket.key, bucket.bytes, bucket.length) : cow_tree_del(tree, bucket.key);
    return rc ? rc : put_changed(tree, &inode);
}
