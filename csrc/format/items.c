/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values inside leaves. Every value is written field by field through a small position, so that the layout in
 * docs/FORMAT.md is the order of the lines here; reserved bytes are zero. Decoding checks the length first and then
 * each field that has a range: a value that fails was not written by the store (-EUCLEAN).
 */
#include <sys/stat.h>

#include "format/format.h"

static inline uint8_t *put16(uint8_t *at, uint16_t v)
{
    cow_store16(at, v);
    return at + 2;
}
static inline uint8_t *put32(uint8_t *at, uint32_t v)
{
    cow_store32(at, v);
    return at + 4;
}
static inline uint8_t *put64(uint8_t *at, uint64_t v)
{
    cow_store64(at, v);
    return at + 8;
}
static inline uint32_t take32(const uint8_t **at)
{
    uint32_t v = cow_load32(*at);
    *at += 4;
    return v;
}
static inline uint64_t take64(const uint8_t **at)
{
    uint64_t v = cow_load64(*at);
    *at += 8;
    return v;
}

static bool zeros(const uint8_t *bytes, size_t count)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0;
}

/* ---- EXTENT: {u64 address, u32 count, u64 birth} ---- */

void cow_run_encode(const struct cow_run *run, uint8_t *bytes)
{
    COW_ASSERT(run->addr != 0 && run->count > 0 && run->count <= COW_SEGMENT_BLOCKS_MAX);
    uint8_t *at = put64(bytes, run->addr);
    at = put32(at, run->count);
    at = put64(at, run->birth);
    COW_ASSERT(at == bytes + COW_RUN_BYTES);
}

int cow_run_decode(const uint8_t *bytes, size_t length, struct cow_run *run_out)
{
    if (length != COW_RUN_BYTES) return cow_fail(COW_EDAMAGE, "an extent of %zu bytes", length);
    struct cow_run run;
    run.addr = take64(&bytes);
    run.count = take32(&bytes);
    run.birth = take64(&bytes);
    bool fits = run.count > 0 && run.count <= COW_SEGMENT_BLOCKS_MAX && cow_addr_segment(run.addr) != 0 &&
                cow_addr_block(run.addr) <= COW_SEGMENT_BLOCKS_MAX - run.count;
    if (!fits) return cow_fail(COW_EDAMAGE, "an extent of %u blocks at %llx", run.count, (unsigned long long)run.addr);
    *run_out = run;
    return 0;
}

bool cow_item_run(struct cow_key key, const uint8_t *value, size_t value_bytes, cow_addr *addr_out, uint32_t *count_out)
{
    if (cow_key_type(key) != COW_ITEM_EXTENT) return false;
    struct cow_run run;
    if (cow_run_decode(value, value_bytes, &run)) return false;
    *addr_out = run.addr;
    *count_out = run.count;
    return true;
}

/* ---- INODE ---- */

void cow_inode_encode(const struct cow_inode *inode, uint8_t *bytes)
{
    uint8_t *at = put32(bytes, inode->mode);
    at = put32(at, inode->uid);
    at = put32(at, inode->gid);
    at = put32(at, inode->nlink);
    at = put64(at, inode->rdev);
    at = put64(at, inode->size_bytes);
    at = put64(at, inode->mapped_blocks);
    at = put64(at, (uint64_t)inode->atime_ns);
    at = put64(at, (uint64_t)inode->mtime_ns);
    at = put64(at, (uint64_t)inode->ctime_ns);
    at = put64(at, (uint64_t)inode->btime_ns);
    at = put64(at, inode->parent);
    at = put64(at, inode->name_hash);
    at = put64(at, inode->entries);
    at = put32(at, inode->flags);
    at = put32(at, inode->links_seq);
    COW_ASSERT(at <= bytes + COW_INODE_BYTES);
    memset(at, 0, (size_t)(bytes + COW_INODE_BYTES - at));
}

static bool known_type(uint32_t mode)
{
    return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISCHR(mode) || S_ISBLK(mode) || S_ISFIFO(mode) ||
           S_ISSOCK(mode);
}

int cow_inode_decode(uint64_t ino, const uint8_t *bytes, size_t length, struct cow_inode *inode_out)
{
    if (length != COW_INODE_BYTES)
        return cow_fail(COW_EDAMAGE, "inode %llu has %zu bytes", (unsigned long long)ino, length);
    struct cow_inode inode = {.ino = ino};
    inode.mode = take32(&bytes);
    inode.uid = take32(&bytes);
    inode.gid = take32(&bytes);
    inode.nlink = take32(&bytes);
    inode.rdev = take64(&bytes);
    inode.size_bytes = take64(&bytes);
    inode.mapped_blocks = take64(&bytes);
    inode.atime_ns = (int64_t)take64(&bytes);
    inode.mtime_ns = (int64_t)take64(&bytes);
    inode.ctime_ns = (int64_t)take64(&bytes);
    inode.btime_ns = (int64_t)take64(&bytes);
    inode.parent = take64(&bytes);
    inode.name_hash = take64(&bytes);
    inode.entries = take64(&bytes);
    inode.flags = take32(&bytes);
    inode.links_seq = take32(&bytes);
    const uint32_t flags = COW_INODE_INLINE | COW_INODE_XATTRS | COW_INODE_ORPHAN;
    if (!known_type(inode.mode) || (inode.flags & ~flags) || inode.size_bytes > COW_FILE_BYTES_MAX ||
        inode.name_hash > COW_OFFSET_MASK || !zeros(bytes, 32))
        return cow_fail(COW_EDAMAGE, "inode %llu cannot be what was written", (unsigned long long)ino);
    *inode_out = inode;
    return 0;
}

/* ---- DIRENT bucket: entries {u64 ino, u8 type, u8 name length, name} ---- */

#define DIRENT_HEADER_BYTES 10u

int cow_dirent_next(const uint8_t *value, size_t value_bytes, size_t *at, struct cow_dirent *dirent_out)
{
    if (*at == value_bytes) return 0;
    const uint8_t *entry = value + *at;
    size_t left = value_bytes - *at;
    if (*at > value_bytes || left < DIRENT_HEADER_BYTES || entry[9] == 0 || left < DIRENT_HEADER_BYTES + entry[9])
        return cow_fail(COW_EDAMAGE, "a directory entry is cut off");
    struct cow_dirent dirent = {
        .ino = cow_load64(entry), .type = entry[8], .name_bytes = entry[9], .name = entry + DIRENT_HEADER_BYTES};
    if (dirent.ino == 0 || !known_type((uint32_t)dirent.type << 12))
        return cow_fail(COW_EDAMAGE, "a directory entry leads nowhere");
    *at += DIRENT_HEADER_BYTES + dirent.name_bytes;
    *dirent_out = dirent;
    return 1;
}

size_t cow_dirent_encode(const struct cow_dirent *dirent, uint8_t *bytes)
{
    COW_ASSERT(dirent->ino != 0 && dirent->name_bytes > 0);
    uint8_t *at = put64(bytes, dirent->ino);
    *at++ = dirent->type;
    *at++ = dirent->name_bytes;
    memcpy(at, dirent->name, dirent->name_bytes);
    return DIRENT_HEADER_BYTES + (size_t)dirent->name_bytes;
}

/* ---- LINK: {u64 parent, u64 name hash} ---- */

void cow_link_encode(uint64_t parent, uint64_t name_hash, uint8_t *bytes)
{
    (void)put64(put64(bytes, parent), name_hash);
}

int cow_link_decode(const uint8_t *bytes, size_t length, uint64_t *parent_out, uint64_t *name_hash_out)
{
    if (length != COW_LINK_BYTES) return cow_fail(COW_EDAMAGE, "a link of %zu bytes", length);
    uint64_t parent = take64(&bytes), name_hash = take64(&bytes);
    if (parent == 0 || name_hash > COW_OFFSET_MASK) return cow_fail(COW_EDAMAGE, "a link leads nowhere");
    *parent_out = parent;
    *name_hash_out = name_hash;
    return 0;
}

/* ---- XATTR bucket: entries {u8 name length, u16 value length, name, value} ---- */

#define XATTR_HEADER_BYTES 3u

int cow_xattr_next(const uint8_t *item, size_t item_bytes, size_t *at, struct cow_xattr *xattr_out)
{
    if (*at == item_bytes) return 0;
    const uint8_t *entry = item + *at;
    size_t left = item_bytes - *at;
    if (*at > item_bytes || left < XATTR_HEADER_BYTES) return cow_fail(COW_EDAMAGE, "an extended attribute is cut off");
    struct cow_xattr xattr = {.name_bytes = entry[0], .value_bytes = cow_load16(entry + 1)};
    size_t length = XATTR_HEADER_BYTES + (size_t)xattr.name_bytes + xattr.value_bytes;
    if (xattr.name_bytes == 0 || left < length) return cow_fail(COW_EDAMAGE, "an extended attribute is cut off");
    xattr.name = entry + XATTR_HEADER_BYTES;
    xattr.value = xattr.name + xattr.name_bytes;
    *at += length;
    *xattr_out = xattr;
    return 1;
}

size_t cow_xattr_encode(const struct cow_xattr *xattr, uint8_t *bytes)
{
    COW_ASSERT(xattr->name_bytes > 0);
    uint8_t *at = bytes;
    *at++ = xattr->name_bytes;
    at = put16(at, xattr->value_bytes);
    memcpy(at, xattr->name, xattr->name_bytes);
    at += xattr->name_bytes;
    if (xattr->value_bytes) memcpy(at, xattr->value, xattr->value_bytes);
    return XATTR_HEADER_BYTES + (size_t)xattr->name_bytes + xattr->value_bytes;
}

/* ---- TREE and DEAD, in the trees tree ---- */

void cow_tree_record_encode(const struct cow_tree_record *record, uint8_t *bytes)
{
    uint8_t *at = put64(bytes, record->root_addr);
    at = put64(at, record->root_generation);
    at = put64(at, record->parent);
    at = put64(at, record->base);
    at = put64(at, record->next_ino);
    at = put64(at, record->inodes);
    at = put64(at, record->apparent_bytes);
    at = put64(at, record->size_bytes);
    at = put64(at, (uint64_t)record->created_ns);
    at = put32(at, record->flags);
    at = put32(at, 0);
    at = put64(at, record->quota_bytes);
    COW_ASSERT(at == bytes + COW_TREE_RECORD_BYTES);
}

int cow_tree_record_decode(const uint8_t *bytes, size_t length, struct cow_tree_record *record_out)
{
    if (length != COW_TREE_RECORD_BYTES) return cow_fail(COW_EDAMAGE, "a tree record of %zu bytes", length);
    struct cow_tree_record record;
    record.root_addr = take64(&bytes);
    record.root_generation = take64(&bytes);
    record.parent = take64(&bytes);
    record.base = take64(&bytes);
    record.next_ino = take64(&bytes);
    record.inodes = take64(&bytes);
    record.apparent_bytes = take64(&bytes);
    record.size_bytes = take64(&bytes);
    record.created_ns = (int64_t)take64(&bytes);
    record.flags = take32(&bytes);
    uint32_t reserved = take32(&bytes);
    record.quota_bytes = take64(&bytes);
    const uint32_t flags = COW_TREE_SEALED | COW_TREE_TEMP | COW_TREE_ORPHANS;
    if ((record.flags & ~flags) || reserved || record.next_ino == 0 || record.size_bytes > record.apparent_bytes)
        return cow_fail(COW_EDAMAGE, "a tree record cannot be what was written");
    *record_out = record;
    return 0;
}

void cow_dead_encode(cow_addr addr, uint64_t generation, uint8_t *bytes)
{
    (void)put64(put64(bytes, addr), generation);
}

int cow_dead_decode(const uint8_t *bytes, size_t length, cow_addr *addr_out, uint64_t *generation_out)
{
    if (length != COW_DEAD_BYTES) return cow_fail(COW_EDAMAGE, "a dead subtree of %zu bytes", length);
    cow_addr addr = take64(&bytes);
    if (addr == 0 || cow_addr_segment(addr) != 0) return cow_fail(COW_EDAMAGE, "a dead subtree leads nowhere");
    *addr_out = addr;
    *generation_out = take64(&bytes);
    return 0;
}
