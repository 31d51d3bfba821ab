/* SPDX-License-Identifier: Apache-2.0 */
/*
 * format.h: the bytes on disk, and nothing else. No other module knows an offset. docs/FORMAT.md describes the same
 * bytes for readers; format version 1. All integers are little-endian. Every decode validates: -EUCLEAN with a
 * detail when the bytes cannot be what the store wrote.
 *
 * super.c  superblocks            pages.c  record, chunk and segment-table pages, journal batches
 * node.c   B+tree nodes           items.c  the values inside leaves
 */
#ifndef COW_FORMAT_H
#define COW_FORMAT_H

#include "base/common.h"

#define COW_FORMAT_VERSION 1u

/* ---- Keys: (inode, item type, 56-bit offset or name hash), ordered as two integers -------------- */

struct cow_key {
    uint64_t ino;
    uint64_t low; /* type << 56 | offset */
};

enum cow_item_type {
    /* in the trees tree (ino = tree id, or 0 for the lists) */
    COW_ITEM_TREE = 1, /* (tree id, TREE, 0) -> struct cow_tree_record */
    COW_ITEM_TEMP = 2, /* (0, TEMP, tree id) -> empty: drop it at the next open */
    COW_ITEM_DEAD = 3, /* (0, DEAD, n) -> node pointer: a subtree still to be released */
    /* in a file tree */
    COW_ITEM_ORPHAN = 9,   /* (0, ORPHAN, ino) -> empty: an inode without a name that was open */
    COW_ITEM_INODE = 10,   /* (ino, INODE, 0) -> struct cow_inode */
    COW_ITEM_DIRENT = 11,  /* (directory, DIRENT, name hash) -> one or more entries (a bucket) */
    COW_ITEM_LINK = 12,    /* (ino, LINK, slot) -> parent and name hash of a further hard link; slot is derived from both */
    COW_ITEM_XATTR = 13,   /* (ino, XATTR, name hash) -> one or more names with values (a bucket) */
    COW_ITEM_SYMLINK = 14, /* (ino, SYMLINK, n) -> n-th part of the target, COW_SYMLINK_PART_BYTES each */
    COW_ITEM_INLINE = 15,  /* (ino, INLINE, 0) -> birth, then the whole content of a small file */
    COW_ITEM_EXTENT = 16,  /* (ino, EXTENT, first block) -> struct cow_run */
};

#define COW_OFFSET_MASK ((((uint64_t)1) << 56) - 1)
static inline struct cow_key cow_key_make(uint64_t ino, enum cow_item_type type, uint64_t offset)
{
    return (struct cow_key){ino, ((uint64_t)type << 56) | (offset & COW_OFFSET_MASK)};
}
static inline enum cow_item_type cow_key_type(struct cow_key key) { return (enum cow_item_type)(key.low >> 56); }
static inline uint64_t cow_key_offset(struct cow_key key) { return key.low & COW_OFFSET_MASK; }
static inline int cow_key_compare(struct cow_key a, struct cow_key b)
{
    if (a.ino != b.ino) return a.ino < b.ino ? -1 : 1;
    return a.low < b.low ? -1 : a.low > b.low;
}

/* ---- Nodes (node.c) ------------------------------------------------------------------------------
 * Leaf: header, sorted slots (key, offset, length) growing up, values growing down.
 * Internal: header, sorted entries (key, child address, child generation); entry 0's key counts as minus infinity. */

#define COW_NODE_HEADER_BYTES 64u
#define COW_SLOT_BYTES 20u
#define COW_ENTRY_BYTES 32u
#define COW_NODE_ENTRIES_MAX ((COW_BLOCK_BYTES - COW_NODE_HEADER_BYTES) / COW_ENTRY_BYTES)
#define COW_VALUE_BYTES_MAX 1984u /* with its slot at most half a leaf, so that one split always makes room */

/* Accessors of node bytes live in node.c's own part of this header: */
#include "format/node.h"

/* ---- Values (items.c) ---------------------------------------------------------------------------- */

/* A run of data blocks: the value of an EXTENT item. */
struct cow_run {
    cow_addr addr;
    uint32_t count;
    uint64_t birth; /* id of the tree that wrote it: a tree owns what was born at or after its base */
};
#define COW_RUN_BYTES 20u
void cow_run_encode(const struct cow_run *run, uint8_t *bytes);
int cow_run_decode(const uint8_t *bytes, size_t length, struct cow_run *run_out);
/* The data blocks that an item refers to: true and the run for EXTENT items, false for all others. */
bool cow_item_run(struct cow_key key, const uint8_t *value, size_t value_bytes, cow_addr *addr_out, uint32_t *count_out);

struct cow_inode {
    uint64_t ino;
    uint32_t mode, uid, gid, nlink;
    uint64_t rdev, size_bytes;
    uint64_t mapped_blocks;       /* data blocks; an inline file has 0 */
    int64_t atime_ns, mtime_ns, ctime_ns, btime_ns;
    uint64_t parent, name_hash;   /* where its first name stands: (parent, DIRENT, name_hash) */
    uint64_t entries;             /* of a directory */
    uint32_t flags;               /* COW_INODE_* */
    uint32_t links_seq;           /* number of LINK items */
};
#define COW_INODE_INLINE 1u /* content is in an INLINE item */
#define COW_INODE_XATTRS 2u /* has XATTR items */
#define COW_INODE_ORPHAN 4u /* has no name; reclaimed when its last pin goes or when the tree is next opened */
#define COW_INODE_BYTES 136u
void cow_inode_encode(const struct cow_inode *inode, uint8_t *bytes);
int cow_inode_decode(uint64_t ino, const uint8_t *bytes, size_t length, struct cow_inode *inode_out);

/* DIRENT bucket: entries {u64 ino, u8 type (mode >> 12), u8 name length, name}. Iterate with the offset in *at,
 * which starts at 0: 1 = an entry, 0 = end, -EUCLEAN. */
struct cow_dirent {
    uint64_t ino;
    uint8_t type;
    uint8_t name_bytes;
    const uint8_t *name; /* into the value */
};
int cow_dirent_next(const uint8_t *value, size_t value_bytes, size_t *at, struct cow_dirent *dirent_out);
size_t cow_dirent_encode(const struct cow_dirent *dirent, uint8_t *bytes); /* returns its length */

/* LINK: parent and name hash, 16 bytes. */
#define COW_LINK_BYTES 16u
void cow_link_encode(uint64_t parent, uint64_t name_hash, uint8_t *bytes);
int cow_link_decode(const uint8_t *bytes, size_t length, uint64_t *parent_out, uint64_t *name_hash_out);

/* XATTR bucket: entries {u8 name length, u16 value length, name, value}. */
struct cow_xattr {
    uint8_t name_bytes;
    uint16_t value_bytes;
    const uint8_t *name, *value; /* into the item */
};
int cow_xattr_next(const uint8_t *item, size_t item_bytes, size_t *at, struct cow_xattr *xattr_out);
size_t cow_xattr_encode(const struct cow_xattr *xattr, uint8_t *bytes);

#define COW_SYMLINK_PART_BYTES 1900u
#define COW_INLINE_HEADER_BYTES 8u   /* birth */
#define COW_INLINE_BYTES_MAX 1900u

struct cow_tree_record {
    cow_addr root_addr;
    uint64_t root_generation;
    uint64_t parent, base;       /* tree ids; base: blocks born in trees >= base are the tree's own */
    uint64_t next_ino;
    uint64_t inodes, apparent_bytes, size_bytes;
    int64_t created_ns;
    uint32_t flags;              /* COW_TREE_* */
    uint64_t quota_bytes;        /* bound of size_bytes; 0 = none */
};
#define COW_TREE_SEALED 1u
#define COW_TREE_TEMP 2u
#define COW_TREE_ORPHANS 4u /* has ORPHAN items */
#define COW_TREE_RECORD_BYTES 88u
void cow_tree_record_encode(const struct cow_tree_record *record, uint8_t *bytes);
int cow_tree_record_decode(const uint8_t *bytes, size_t length, struct cow_tree_record *record_out);

#define COW_DEAD_BYTES 16u /* DEAD: node address and generation */
void cow_dead_encode(cow_addr addr, uint64_t generation, uint8_t *bytes);
int cow_dead_decode(const uint8_t *bytes, size_t length, cow_addr *addr_out, uint64_t *generation_out);

/* ---- Superblock (super.c): slots 0 and 1 = blocks 0 and 1 of "meta"; generation g goes to slot g % 2 ------ */

struct cow_super {
    uint64_t generation;
    uint8_t uuid[16];      /* of the store */
    uint8_t hash_key[16];  /* for cow_hash_name */
    int64_t created_ns;
    cow_addr trees_addr;   /* root of the trees tree */
    uint64_t trees_generation;
    uint64_t next_tree;    /* next tree id */
    uint64_t tree_count;
    uint64_t next_dead;    /* next offset of a DEAD item */
    /* struct cow_space_state, field by field */
    uint32_t next_segment, journal_half, packed_segment;
    uint64_t journal_bytes, dead_segments, data_blocks, node_blocks, meta_blocks;
};
void cow_super_encode(const struct cow_super *super, uint8_t *block);
/* -EUCLEAN: not a whole superblock. -EPROTONOSUPPORT: one of another format version. */
int cow_super_decode(const uint8_t *block, struct cow_super *super_out);

/* ---- Pages of records (pages.c) ------------------------------------------------------------------- */

#include "format/pages.h"

#endif
