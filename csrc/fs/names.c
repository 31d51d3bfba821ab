/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directory entries live in buckets by name hash. With 56 bits of a keyed hash a bucket practically always has one
 * entry, but any number that fits the value works: a change reads the bucket to the stack, edits it there, and puts it
 * back, or deletes the item with its last entry. COW_NAME_HASH_MASK exists for the tests, which build the same code
 * with a small one to see collisions.
 */
#include "fs/names.h"

#include <sys/stat.h>

#include "base/hash.h"

#ifndef COW_NAME_HASH_MASK
#define COW_NAME_HASH_MASK COW_OFFSET_MASK
#endif
#define BUCKET_ENTRIES_MAX 126u /* an index of a bucket has to fit the 7 low bits of a cookie */
#define LINK_PROBES 64u

uint64_t cow_name_hash(struct cow_tree *tree, const char *name, size_t name_bytes)
{
    uint64_t hash = cow_hash_name(cow_tree_hash_key(tree), name, name_bytes) & COW_NAME_HASH_MASK;
    return hash ? hash : 1;
}

int cow_name_check(const char *name, size_t name_bytes)
{
    if (name_bytes == 0) return cow_fail(ENOENT, "an empty name");
    if (name_bytes > COW_NAME_BYTES_MAX) return cow_fail(ENAMETOOLONG, "a name of %zu bytes", name_bytes);
    if (memchr(name, '/', name_bytes) || memchr(name, 0, name_bytes))
        return cow_fail(EINVAL, "a name may not hold '/' or NUL");
    return 0;
}

int cow_name_check_new(const char *name, size_t name_bytes)
{
    int rc = cow_name_check(name, name_bytes);
    if (rc) return rc;
    if (name[0] == '.' && (name_bytes == 1 || (name_bytes == 2 && name[1] == '.')))
        return cow_fail(EINVAL, "\".\" and \"..\" are not names");
    return 0;
}

/* ---- Buckets ---- */

struct bucket {
    struct cow_key key;
    size_t length;
    unsigned entries;
    uint8_t bytes[COW_VALUE_BYTES_MAX];
    /* where the name stands, if it does */
    bool found;
    size_t at, entry_bytes;
    struct cow_entry entry;
};

static int bucket_read(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, struct bucket *bucket)
{
    bucket->key = cow_key_make(dir, COW_ITEM_DIRENT, cow_name_hash(tree, name, name_bytes));
    bucket->length = bucket->at = 0;
    bucket->entries = 0;
    bucket->found = false;
    int64_t length = cow_tree_get(tree, bucket->key, bucket->bytes, sizeof bucket->bytes);
    if (length == -ENOENT) return 0;
    if (length < 0) return (int)length;
    bucket->length = (size_t)length;
    struct cow_dirent dirent;
    size_t at = 0, before = 0;
    int rc;
    while ((rc = cow_dirent_next(bucket->bytes, bucket->length, &at, &dirent)) == 1) {
        bucket->entries++;
        if (dirent.name_bytes == name_bytes && memcmp(dirent.name, name, name_bytes) == 0) {
            bucket->found = true;
            bucket->at = before;
            bucket->entry_bytes = at - before;
            bucket->entry = (struct cow_entry){dirent.ino, (uint32_t)dirent.type << 12};
        }
        before = at;
    }
    return rc;
}

static int bucket_write(struct cow_tree *tree, const struct bucket *bucket)
{
    if (bucket->length == 0) return cow_tree_del(tree, bucket->key);
    return cow_tree_put(tree, bucket->key, bucket->bytes, bucket->length);
}

static struct cow_dirent make_dirent(const char *name, size_t name_bytes, struct cow_entry entry)
{
    return (struct cow_dirent){.ino = entry.ino,
                               .type = (uint8_t)(entry.type >> 12),
                               .name_bytes = (uint8_t)name_bytes,
                               .name = (const uint8_t *)name};
}

static size_t entry_length(size_t name_bytes)
{
    uint8_t bytes[16 + COW_NAME_BYTES_MAX];
    static const char zeros[COW_NAME_BYTES_MAX];
    struct cow_dirent dirent = make_dirent(zeros, name_bytes, (struct cow_entry){1, S_IFREG});
    return cow_dirent_encode(&dirent, bytes);
}

int cow_name_find(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, struct cow_entry *entry_out)
{
    struct bucket bucket;
    int rc = bucket_read(tree, dir, name, name_bytes, &bucket);
    if (rc) return rc;
    if (!bucket.found) return -ENOENT;
    *entry_out = bucket.entry;
    return 0;
}

int cow_name_room(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes)
{
    struct bucket bucket;
    int rc = bucket_read(tree, dir, name, name_bytes, &bucket);
    if (rc) return rc;
    if (bucket.length + entry_length(name_bytes) > COW_VALUE_BYTES_MAX || bucket.entries >= BUCKET_ENTRIES_MAX)
        return cow_fail(ENOSPC, "too many names with the same hash");
    return 0;
}

int cow_name_add(struct cow_tree *tree, struct cow_inode *dir, const char *name, size_t name_bytes,
                 struct cow_entry entry)
{
    struct bucket bucket;
    int rc = bucket_read(tree, dir->ino, name, name_bytes, &bucket);
    if (rc) return rc;
    COW_ASSERT(!bucket.found && bucket.length + entry_length(name_bytes) <= COW_VALUE_BYTES_MAX);
    struct cow_dirent dirent = make_dirent(name, name_bytes, entry);
    bucket.length += cow_dirent_encode(&dirent, bucket.bytes + bucket.length);
    rc = bucket_write(tree, &bucket);
    if (rc) return rc;
    dir->entries++;
    cow_lookup_name_put(tree, dir->ino, name, name_bytes, entry.ino);
    return 0;
}

int cow_name_replace(struct cow_tree *tree, const struct cow_inode *dir, const char *name, size_t name_bytes,
                     struct cow_entry entry)
{
    struct bucket bucket;
    int rc = bucket_read(tree, dir->ino, name, name_bytes, &bucket);
    if (rc) return rc;
    COW_ASSERT(bucket.found);
    struct cow_dirent dirent = make_dirent(name, name_bytes, entry);
    (void)cow_dirent_encode(&dirent, bucket.bytes + bucket.at);
    rc = bucket_write(tree, &bucket);
    if (rc) return rc;
    cow_lookup_name_put(tree, dir->ino, name, name_bytes, entry.ino);
    return 0;
}

int cow_name_remove(struct cow_tree *tree, struct cow_inode *dir, const char *name, size_t name_bytes)
{
    struct bucket bucket;
    int rc = bucket_read(tree, dir->ino, name, name_bytes, &bucket);
    if (rc) return rc;
    COW_ASSERT(bucket.found && dir->entries > 0);
    size_t end = bucket.at + bucket.entry_bytes;
    memmove(bucket.bytes + bucket.at, bucket.bytes + end, bucket.length - end);
    bucket.length -= bucket.entry_bytes;
    rc = bucket_write(tree, &bucket);
    if (rc) return rc;
    dir->entries--;
    cow_lookup_name_put(tree, dir->ino, name, name_bytes, 0);
    return 0;
}

int cow_name_of(struct cow_tree *tree, uint64_t dir, uint64_t hash, uint64_t ino, unsigned nth, char *name_out)
{
    uint8_t bytes[COW_VALUE_BYTES_MAX];
    int64_t length = cow_tree_get(tree, cow_key_make(dir, COW_ITEM_DIRENT, hash), bytes, sizeof bytes);
    if (length < 0) return (int)length;
    struct cow_dirent dirent;
    size_t at = 0;
    int rc;
    while ((rc = cow_dirent_next(bytes, (size_t)length, &at, &dirent)) == 1) {
        if (dirent.ino != ino || nth-- > 0) continue;
        memcpy(name_out, dirent.name, dirent.name_bytes);
        return dirent.name_bytes;
    }
    return rc ? rc : -ENOENT;
}

/* ---- Links ---- */

static uint64_t link_slot(uint64_t parent, uint64_t hash, unsigned probe)
{
    return ((hash ^ parent * 0x9e3779b97f4a7c15u) & COW_NAME_HASH_MASK) + probe;
}

/* Finds the slot that holds (parent, hash), or with want_free the first free one. */
static int find_link(struct cow_tree *tree, uint64_t ino, uint64_t parent, uint64_t hash, bool want_free,
                     struct cow_key *key_out)
{
    for (unsigned probe = 0; probe < LINK_PROBES; probe++) {
        struct cow_key key = cow_key_make(ino, COW_ITEM_LINK, link_slot(parent, hash, probe));
        uint8_t bytes[COW_LINK_BYTES];
        int64_t length = cow_tree_get(tree, key, bytes, sizeof bytes);
        if (length < 0 && length != -ENOENT) return (int)length;
        bool match = want_free && length == -ENOENT;
        if (!want_free && length >= 0) {
            uint64_t its_parent, its_hash;
            int rc = cow_link_decode(bytes, (size_t)length, &its_parent, &its_hash);
            if (rc) return rc;
            match = its_parent == parent && its_hash == hash;
        }
        if (!match) continue;
        *key_out = key;
        return 0;
    }
    if (want_free) return cow_fail(ENOSPC, "too many hard links with the same hash");
    return cow_fail(COW_EDAMAGE, "a hard link of inode %llu is missing", (unsigned long long)ino);
}

int cow_link_add(struct cow_tree *tree, struct cow_inode *inode, uint64_t parent, uint64_t hash)
{
    if (inode->parent == 0) {
        inode->parent = parent;
        inode->name_hash = hash;
        return 0;
    }
    struct cow_key key;
    int rc = find_link(tree, inode->ino, parent, hash, true, &key);
    if (rc) return rc;
    uint8_t bytes[COW_LINK_BYTES];
    cow_link_encode(parent, hash, bytes);
    inode->links_seq++;
    return cow_tree_put(tree, key, bytes, sizeof bytes);
}

/* Some further link of ino: 1 and where it stands, 0 when there is none. */
static int first_link(struct cow_tree *tree, uint64_t ino, struct cow_key *key_out, uint64_t *parent_out,
                      uint64_t *hash_out)
{
    struct cow_cursor cursor;
    cow_cursor_init(&cursor, cow_tree_nodes(tree), tree->root);
    int rc = cow_cursor_seek(&cursor, cow_key_make(ino, COW_ITEM_LINK, 0));
    if (!rc && cursor.valid && cursor.key.ino == ino && cow_key_type(cursor.key) == COW_ITEM_LINK) {
        rc = cow_link_decode(cursor.value, cursor.value_bytes, parent_out, hash_out);
        *key_out = cursor.key;
        if (!rc) rc = 1;
    }
    cow_cursor_deinit(&cursor);
    return rc;
}

int cow_link_remove(struct cow_tree *tree, struct cow_inode *inode, uint64_t parent, uint64_t hash)
{
    struct cow_key key;
    if (inode->parent != parent || inode->name_hash != hash) {
        int rc = find_link(tree, inode->ino, parent, hash, false, &key);
        if (rc) return rc;
        inode->links_seq--;
        return cow_tree_del(tree, key);
    }
    uint64_t next_parent = 0, next_hash = 0;
    if (inode->links_seq > 0) { /* promote another */
        int rc = first_link(tree, inode->ino, &key, &next_parent, &next_hash);
        if (rc < 0) return rc;
        if (rc == 0)
            return cow_fail(COW_EDAMAGE, "hard links of inode %llu are missing", (unsigned long long)inode->ino);
        rc = cow_tree_del(tree, key);
        if (rc) return rc;
        inode->links_seq--;
    }
    inode->parent = next_parent;
    inode->name_hash = next_hash;
    return 0;
}
