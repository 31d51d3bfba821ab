/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diff.h: from differing items of two trees to differing paths. Private to fs/.
 *
 * collect (diff_items.c)  walks both B+trees side by side, skipping what they share, and keeps: the inodes whose items
 *                         differ and what of them, the names that differ, by directory; and, for each inode that
 *                         changed and each directory in which a name changed, how the new tree leads there
 *                         ("children", by parent), so that the second part finds them without listing directories.
 * compare (diff_paths.c)  goes down from the root with pairs of directories that stand at the same path. A pair of one
 *                         inode looks only at changed names and children; a pair of two inodes lists both.
 * diff.c                  the public functions: everything is worked out in open, under both trees' locks; what is
 *                         kept is proportional to the changes (and to what is below new directories).
 */
#ifndef COW_DIFF_H
#define COW_DIFF_H

#include "fs/extents.h"
#include "fs/names.h"

#define COW_DIFF_METADATA 1u
#define COW_DIFF_DATA 2u
#define COW_DIFF_XATTRS 4u

/* A growing array. */
struct cow_list {
    void *items;
    size_t count, capacity;
};
void *cow_list_add(struct cow_list *list, size_t count, size_t item_bytes); /* NULL: no memory */

struct cow_diff_range {
    uint64_t block, count;
};

struct cow_diff_inode { /* exists in both trees and differs */
    uint64_t ino;
    uint32_t what; /* COW_DIFF_METADATA etc.; 0 after all: only what nobody compares, such as ctime */
    uint32_t range_count;
    size_t range_at;
};

struct cow_diff_name {
    uint64_t dir;
    size_t text_at;
    uint32_t name_bytes;
    struct cow_entry old_entry, new_entry; /* ino 0: missing on that side */
};

struct cow_diff_result {
    size_t path_at;
    uint32_t path_bytes, mode;
    uint8_t kind, what;
    uint32_t range_count;
    size_t range_at;
    uint64_t ino;
};

struct cow_diff {
    struct cow_tree *old_tree, *new_tree; /* only while open runs */
    struct cow_list inodes;               /* struct cow_diff_inode, by ino */
    struct cow_list names;                /* struct cow_diff_name, by dir and name */
    struct cow_list children;             /* struct cow_diff_name of names that are the same, by dir and name */
    struct cow_list ranges;               /* struct cow_diff_range */
    struct cow_list text;                 /* char: names and paths */
    struct cow_list results;              /* struct cow_diff_result, by path at the end */
    size_t next;                          /* result to be read */
};

static inline const char *cow_diff_text(const struct cow_diff *diff, size_t at)
{
    return (const char *)diff->text.items + at;
}
/* Keeps bytes (which must not lie in the list itself). */
int cow_diff_keep_text(struct cow_diff *diff, const void *bytes, size_t count, size_t *at_out);
void cow_diff_sort_names(struct cow_diff *diff, struct cow_list *names); /* by dir, then name */
int cow_diff_compare_text(const struct cow_diff *diff, size_t a, size_t a_bytes, size_t b, size_t b_bytes);

int cow_diff_collect(struct cow_diff *diff);
int cow_diff_compare(struct cow_diff *diff);

#endif
