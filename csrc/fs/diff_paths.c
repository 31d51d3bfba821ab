/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Differing paths. The work is a stack of pairs of directories at the same path (one of them may be missing: everything
 * below is new then). Each pair gives names with an entry on either side; what becomes of a name:
 *
 *   only new          added; a directory's content follows
 *   only old          deleted; what was below is not told
 *   file and file     changed when the inodes differ or the inode changed
 *   dir and dir       changed likewise, and the next pair
 *   dir and file      changed; a new directory's content follows as added
 */
#include <stdlib.h>
#include <sys/stat.h>

#include "fs/diff.h"

#define PATH_BYTES_MAX 32767u

struct pair {
    uint64_t old_dir, new_dir; /* 0 = none */
    size_t path_at;
    uint32_t path_bytes; /* 0 for the root */
};

struct compare {
    struct cow_diff *diff;
    struct cow_list pending; /* struct pair */
    struct cow_list listing; /* struct cow_diff_name: of a pair of two inodes */
};

static int make_path(struct compare *compare, const struct pair *pair, const struct cow_diff_name *name, size_t *at_out,
                     uint32_t *bytes_out)
{
    struct cow_diff *diff = compare->diff;
    size_t bytes = (size_t)pair->path_bytes + 1 + name->name_bytes, at = diff->text.count;
    if (bytes > PATH_BYTES_MAX) return cow_fail(ENAMETOOLONG, "a path of %zu bytes", bytes);
    char *text = cow_list_add(&diff->text, bytes, 1);
    if (!text) return -ENOMEM;
    memcpy(text, cow_diff_text(diff, pair->path_at), pair->path_bytes); /* asked for again: the list may have moved */
    text[pair->path_bytes] = '/';
    memcpy(text + pair->path_bytes + 1, cow_diff_text(diff, name->text_at), name->name_bytes);
    *at_out = at;
    *bytes_out = (uint32_t)bytes;
    return 0;
}

static int push(struct compare *compare, const struct pair *pair)
{
    struct pair *slot = cow_list_add(&compare->pending, 1, sizeof *slot);
    if (!slot) return -ENOMEM;
    *slot = *pair;
    return 0;
}

static const struct cow_diff_inode *find_inode(const struct cow_diff *diff, uint64_t ino)
{
    const struct cow_diff_inode *inodes = diff->inodes.items;
    size_t low = 0, high = diff->inodes.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (inodes[middle].ino < ino)
            low = middle + 1;
        else
            high = middle;
    }
    return low < diff->inodes.count && inodes[low].ino == ino ? &inodes[low] : NULL;
}

static int add_result(struct compare *compare, struct cow_diff_result result, struct cow_tree *tree)
{
    struct cow_inode inode;
    int rc = cow_tree_get_inode(tree, result.ino, &inode);
    if (rc) return rc;
    result.mode = inode.mode;
    struct cow_diff_result *slot = cow_list_add(&compare->diff->results, 1, sizeof *slot);
    if (!slot) return -ENOMEM;
    *slot = result;
    return 0;
}

/* A result for a path whose inode is another than before, or new: all of it is told. */
static int add_whole(struct compare *compare, struct cow_diff_result result, uint64_t old_ino)
{
    struct cow_diff *diff = compare->diff;
    struct cow_inode now, before = {0};
    int rc = cow_tree_get_inode(diff->new_tree, result.ino, &now);
    if (!rc && old_ino) rc = cow_tree_get_inode(diff->old_tree, old_ino, &before);
    if (rc) return rc;
    result.what = COW_DIFF_METADATA;
    if (S_ISREG(now.mode) || S_ISLNK(now.mode)) result.what |= COW_DIFF_DATA;
    if ((now.flags | before.flags) & COW_INODE_XATTRS) result.what |= COW_DIFF_XATTRS;
    uint64_t size = S_ISREG(now.mode) ? now.size_bytes : 0;
    if (S_ISREG(now.mode) && S_ISREG(before.mode) && before.size_bytes > size) size = before.size_bytes;
    if (size) {
        struct cow_diff_range *range = cow_list_add(&diff->ranges, 1, sizeof *range); /* never merged with others */
        if (!range) return -ENOMEM;
        *range = (struct cow_diff_range){0, cow_blocks_of(size)};
        result.range_at = diff->ranges.count - 1;
        result.range_count = 1;
    }
    return add_result(compare, result, diff->new_tree);
}

static int add_changed(struct compare *compare, struct cow_diff_result result, uint64_t old_ino)
{
    if (old_ino != result.ino) return add_whole(compare, result, old_ino);
    const struct cow_diff_inode *changed = find_inode(compare->diff, result.ino);
    if (!changed) return 0;
    result.what = (uint8_t)changed->what;
    result.range_at = changed->range_at;
    result.range_count = changed->range_count;
    return add_result(compare, result, compare->diff->new_tree);
}

static int compare_name(struct compare *compare, const struct pair *pair, const struct cow_diff_name *name)
{
    struct cow_entry a = name->old_entry, b = name->new_entry;
    struct cow_diff_result result = {.ino = b.ino ? b.ino : a.ino};
    int rc = make_path(compare, pair, name, &result.path_at, &result.path_bytes);
    if (rc) return rc;
    struct pair below = {0, b.ino, result.path_at, result.path_bytes};
    bool a_dir = a.ino && S_ISDIR(a.type), b_dir = b.ino && S_ISDIR(b.type);
    if (b.ino == 0) {
        result.kind = COW_DIFF_DELETED;
        return add_result(compare, result, compare->diff->old_tree);
    }
    result.kind = a.ino ? COW_DIFF_CHANGED : COW_DIFF_ADDED;
    if (a.ino == 0 || a_dir != b_dir || a.type != b.type)
        rc = add_whole(compare, result, a.ino);
    else
        rc = add_changed(compare, result, a.ino);
    if (rc || !b_dir) return rc;
    if (a_dir) below.old_dir = a.ino;
    return push(compare, &below);
}

/* ---- One inode on both sides ---- */

static size_t lower_bound(const struct cow_list *names, uint64_t dir)
{
    const struct cow_diff_name *items = names->items;
    size_t low = 0, high = names->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (items[middle].dir < dir)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int compare_same(struct compare *compare, const struct pair *pair)
{
    struct cow_diff *diff = compare->diff;
    size_t n = lower_bound(&diff->names, pair->new_dir), c = lower_bound(&diff->children, pair->new_dir);
    for (;;) {
        const struct cow_diff_name *names = diff->names.items, *children = diff->children.items;
        bool more_names = n < diff->names.count && names[n].dir == pair->new_dir;
        bool more_children = c < diff->children.count && children[c].dir == pair->new_dir;
        if (!more_names && !more_children) return 0;
        int order = !more_names      ? 1
                    : !more_children ? -1
                                     : cow_diff_compare_text(diff, names[n].text_at, names[n].name_bytes,
                                                             children[c].text_at, children[c].name_bytes);
        struct cow_diff_name name = order <= 0 ? names[n] : children[c];
        if (order <= 0) n++;
        if (order >= 0) c++; /* a changed name says more than a child */
        int rc = compare_name(compare, pair, &name);
        if (rc) return rc;
    }
}

/* ---- Two inodes, or one side only ---- */

static int list_entries(struct compare *compare, const struct cow_cursor *cursor, bool in_new)
{
    struct cow_dirent dirent;
    size_t at = 0;
    int rc;
    while ((rc = cow_dirent_next(cursor->value, cursor->value_bytes, &at, &dirent)) == 1) {
        struct cow_diff_name name = {.name_bytes = dirent.name_bytes};
        *(in_new ? &name.new_entry : &name.old_entry) = (struct cow_entry){dirent.ino, (uint32_t)dirent.type << 12};
        rc = cow_diff_keep_text(compare->diff, dirent.name, dirent.name_bytes, &name.text_at);
        if (rc) return rc;
        struct cow_diff_name *slot = cow_list_add(&compare->listing, 1, sizeof *slot);
        if (!slot) return -ENOMEM;
        *slot = name;
    }
    return rc;
}

static int list_side(struct compare *compare, struct cow_tree *tree, uint64_t dir, bool in_new)
{
    if (dir == 0) return 0;
    struct cow_cursor cursor;
    cow_cursor_init(&cursor, cow_tree_nodes(tree), tree->root);
    int rc = cow_cursor_seek(&cursor, cow_key_make(dir, COW_ITEM_DIRENT, 0));
    while (!rc && cursor.valid && cursor.key.ino == dir && cow_key_type(cursor.key) == COW_ITEM_DIRENT) {
        rc = list_entries(compare, &cursor, in_new);
        if (!rc) rc = cow_cursor_next(&cursor);
    }
    cow_cursor_deinit(&cursor);
    return rc;
}

static int compare_two(struct compare *compare, const struct pair *pair)
{
    struct cow_diff *diff = compare->diff;
    compare->listing.count = 0;
    int rc = list_side(compare, diff->old_tree, pair->old_dir, false);
    if (!rc) rc = list_side(compare, diff->new_tree, pair->new_dir, true);
    if (rc) return rc;
    cow_diff_sort_names(diff, &compare->listing);
    const struct cow_diff_name *names = compare->listing.items;
    for (size_t i = 0; i < compare->listing.count; i++) {
        struct cow_diff_name name = names[i];
        if (i + 1 < compare->listing.count &&
            cow_diff_compare_text(diff, names[i].text_at, names[i].name_bytes, names[i + 1].text_at,
                                  names[i + 1].name_bytes) == 0) {
            const struct cow_diff_name *other = &names[++i];
            if (other->old_entry.ino) name.old_entry = other->old_entry;
            if (other->new_entry.ino) name.new_entry = other->new_entry;
        }
        rc = compare_name(compare, pair, &name);
        if (rc) return rc;
    }
    return 0;
}

int cow_diff_compare(struct cow_diff *diff)
{
    struct compare compare = {.diff = diff};
    struct pair pair = {COW_ROOT_INO, COW_ROOT_INO, 0, 0};
    int rc = push(&compare, &pair);
    while (!rc && compare.pending.count) {
        pair = ((const struct pair *)compare.pending.items)[--compare.pending.count];
        rc = pair.old_dir == pair.new_dir ? compare_same(&compare, &pair) : compare_two(&compare, &pair);
    }
    free(compare.pending.items);
    free(compare.listing.items);
    return rc;
}
