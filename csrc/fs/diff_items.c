/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Differing items, and what they mean for an inode. Keys come in order, so all items of one inode come together: runs
 * of its extents are gathered and turned into changed block ranges when the next inode begins. A range differs where
 * the two mappings give different addresses, because a block that two trees share is never overwritten; so an extent
 * that was only split or merged differs nowhere. Cached inodes that are not in the B+tree yet are candidates as well:
 * whether an inode differs is decided by comparing what both trees say, not by its item.
 */
#include <stdlib.h>
#include <sys/stat.h>

#include "fs/diff.h"

struct mapped {
    uint64_t block;
    struct cow_run run;
};

struct collect {
    struct cow_diff *diff;
    uint64_t ino; /* whose items are being gathered; 0 = none */
    uint32_t what;
    bool first_block;                   /* its inline content differs */
    struct cow_list old_runs, new_runs; /* struct mapped */
};

struct seen { /* a set of inode numbers */
    uint64_t *slots;
    size_t mask, used;
};

/* ---- Ranges ---- */

struct side {
    const struct mapped *at, *end;
};

static cow_addr address_at(struct side *side, uint64_t block)
{
    while (side->at < side->end && side->at->block + side->at->run.count <= block)
        side->at++;
    if (side->at == side->end || side->at->block > block) return 0;
    return side->at->run.addr + (block - side->at->block);
}

/* Up to where the answer of address_at goes on in the same way. */
static uint64_t border_behind(const struct side *side, uint64_t block)
{
    if (side->at == side->end) return UINT64_MAX;
    return side->at->block > block ? side->at->block : side->at->block + side->at->run.count;
}

static struct side side_of(const struct cow_list *runs)
{
    const struct mapped *items = runs->items;
    return (struct side){items, items ? items + runs->count : NULL};
}

/* Ranges of one inode (from range_at on) come in order; what touches the last one makes it longer. */
static int add_range(struct cow_diff *diff, size_t range_at, uint64_t block, uint64_t count)
{
    if (diff->ranges.count > range_at) {
        struct cow_diff_range *last = (struct cow_diff_range *)diff->ranges.items + diff->ranges.count - 1;
        if (block <= last->block + last->count) {
            if (block + count > last->block + last->count) last->count = block + count - last->block;
            return 0;
        }
    }
    struct cow_diff_range *range = cow_list_add(&diff->ranges, 1, sizeof *range);
    if (!range) return -ENOMEM;
    *range = (struct cow_diff_range){block, count};
    return 0;
}

static int find_ranges(struct collect *collect)
{
    struct side a = side_of(&collect->old_runs), b = side_of(&collect->new_runs);
    size_t range_at = collect->diff->ranges.count;
    int rc = collect->first_block ? add_range(collect->diff, range_at, 0, 1) : 0;
    for (uint64_t block = 0; !rc && block != UINT64_MAX;) {
        cow_addr x = address_at(&a, block), y = address_at(&b, block);
        uint64_t p = border_behind(&a, block), q = border_behind(&b, block), next = p < q ? p : q;
        if (x != y && next != UINT64_MAX) rc = add_range(collect->diff, range_at, block, next - block);
        block = next;
    }
    return rc;
}

/* ---- Inodes ---- */

/* A further hard link changes its inode as far as a layer is concerned: the layer must hold the old name too, or it could
 * not say that both are one file (overlayfs copies the inode up for the same reason). */
static bool attributes_differ(const struct cow_inode *a, const struct cow_inode *b)
{
    return a->mode != b->mode || a->uid != b->uid || a->gid != b->gid || a->rdev != b->rdev ||
           (!S_ISDIR(a->mode) && b->nlink > a->nlink) || a->mtime_ns != b->mtime_ns || (!S_ISDIR(a->mode) && a->size_bytes != b->size_bytes);
}

static void clip_ranges(struct cow_diff *diff, struct cow_diff_inode *entry, uint64_t stop)
{
    struct cow_diff_range *range = diff->ranges.items;
    while (diff->ranges.count > entry->range_at && range[diff->ranges.count - 1].block >= stop)
        diff->ranges.count--;
    if (diff->ranges.count > entry->range_at) {
        struct cow_diff_range *last = &range[diff->ranges.count - 1];
        if (last->count > stop - last->block) last->count = stop - last->block;
    }
    entry->range_count = (uint32_t)(diff->ranges.count - entry->range_at);
}

static int add_inode(struct collect *collect, uint64_t ino, size_t range_at)
{
    struct cow_diff *diff = collect->diff;
    struct cow_inode a, b;
    int rc = cow_tree_get_inode(diff->old_tree, ino, &a);
    if (!rc) rc = cow_tree_get_inode(diff->new_tree, ino, &b);
    if (rc) return rc == -ENOENT ? 0 : rc; /* it came or went: its name tells */
    struct cow_diff_inode entry = {.ino = ino, .what = collect->what, .range_at = range_at};
    clip_ranges(diff, &entry, cow_blocks_of(a.size_bytes > b.size_bytes ? a.size_bytes : b.size_bytes));
    if (attributes_differ(&a, &b)) entry.what |= COW_DIFF_METADATA;
    if (entry.range_count || (S_ISREG(a.mode) && a.size_bytes != b.size_bytes)) entry.what |= COW_DIFF_DATA;
    if (entry.what == 0) return 0;
    struct cow_diff_inode *slot = cow_list_add(&diff->inodes, 1, sizeof *slot);
    if (!slot) return -ENOMEM;
    *slot = entry;
    return 0;
}

/* The items of one inode are complete. */
static int finish_inode(struct collect *collect)
{
    if (collect->ino == 0) return 0;
    size_t range_at = collect->diff->ranges.count;
    int rc = find_ranges(collect);
    if (!rc) rc = add_inode(collect, collect->ino, range_at);
    collect->ino = 0;
    collect->what = 0;
    collect->first_block = false;
    collect->old_runs.count = collect->new_runs.count = 0;
    return rc;
}

static int gather_run(struct cow_list *runs, struct cow_key key, const uint8_t *value, size_t bytes)
{
    if (!value) return 0;
    struct mapped mapped = {.block = cow_key_offset(key)};
    int rc = cow_run_decode(value, bytes, &mapped.run);
    if (rc) return rc;
    struct mapped *slot = cow_list_add(runs, 1, sizeof *slot);
    if (!slot) return -ENOMEM;
    *slot = mapped;
    return 0;
}

/* Whether contents differ; who wrote them does not matter. */
static bool inline_differs(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes)
{
    if (!a || !b || a_bytes != b_bytes || a_bytes < COW_INLINE_HEADER_BYTES) return true;
    return memcmp(a + COW_INLINE_HEADER_BYTES, b + COW_INLINE_HEADER_BYTES, a_bytes - COW_INLINE_HEADER_BYTES) != 0;
}

/* ---- Names ---- */

static int add_name(struct cow_diff *diff, uint64_t dir, const struct cow_dirent *old_dirent,
                    const struct cow_dirent *new_dirent)
{
    const struct cow_dirent *any = old_dirent ? old_dirent : new_dirent;
    struct cow_diff_name name = {.dir = dir, .name_bytes = any->name_bytes};
    if (old_dirent) name.old_entry = (struct cow_entry){old_dirent->ino, (uint32_t)old_dirent->type << 12};
    if (new_dirent) name.new_entry = (struct cow_entry){new_dirent->ino, (uint32_t)new_dirent->type << 12};
    int rc = cow_diff_keep_text(diff, any->name, any->name_bytes, &name.text_at);
    if (rc) return rc;
    struct cow_diff_name *slot = cow_list_add(&diff->names, 1, sizeof *slot);
    if (!slot) return -ENOMEM;
    *slot = name;
    return 0;
}

struct bucket {
    const uint8_t *value; /* NULL: there is none */
    size_t bytes;
};

/* Finds the name in a bucket: 1 and the entry, 0, or an error. */
static int find_in(const struct bucket *bucket, const struct cow_dirent *wanted, struct cow_dirent *found_out)
{
    size_t at = 0;
    int rc = 0;
    while (bucket->value && (rc = cow_dirent_next(bucket->value, bucket->bytes, &at, found_out)) == 1)
        if (found_out->name_bytes == wanted->name_bytes &&
            memcmp(found_out->name, wanted->name, wanted->name_bytes) == 0)
            return 1;
    return rc;
}

static int add_names(struct cow_diff *diff, uint64_t dir, const struct bucket *old_bucket,
                     const struct bucket *new_bucket)
{
    struct cow_dirent dirent, other;
    size_t at = 0;
    int rc = 0;
    while (old_bucket->value && (rc = cow_dirent_next(old_bucket->value, old_bucket->bytes, &at, &dirent)) == 1) {
        rc = find_in(new_bucket, &dirent, &other);
        if (rc < 0) return rc;
        bool same = rc == 1 && other.ino == dirent.ino && other.type == dirent.type;
        rc = same ? 0 : add_name(diff, dir, &dirent, rc == 1 ? &other : NULL);
        if (rc) return rc;
    }
    at = 0;
    while (!rc && new_bucket->value &&
           (rc = cow_dirent_next(new_bucket->value, new_bucket->bytes, &at, &dirent)) == 1) {
        rc = find_in(old_bucket, &dirent, &other);
        if (rc < 0) return rc;
        rc = rc == 1 ? 0 : add_name(diff, dir, NULL, &dirent);
    }
    return rc;
}

static int each_item(void *context, struct cow_key key, const uint8_t *old_value, size_t old_bytes,
                     const uint8_t *new_value, size_t new_bytes)
{
    struct collect *collect = context;
    if (key.ino == 0) return 0; /* orphans */
    int rc = key.ino == collect->ino ? 0 : finish_inode(collect);
    if (rc) return rc;
    collect->ino = key.ino;
    const struct bucket old_bucket = {old_value, old_bytes}, new_bucket = {new_value, new_bytes};
    switch (cow_key_type(key)) {
    case COW_ITEM_DIRENT: return add_names(collect->diff, key.ino, &old_bucket, &new_bucket);
    case COW_ITEM_XATTR: collect->what |= COW_DIFF_XATTRS; return 0;
    case COW_ITEM_SYMLINK: collect->what |= COW_DIFF_DATA; return 0;
    case COW_ITEM_INLINE: collect->first_block |= inline_differs(old_value, old_bytes, new_value, new_bytes); return 0;
    case COW_ITEM_EXTENT:
        rc = gather_run(&collect->old_runs, key, old_value, old_bytes);
        return rc ? rc : gather_run(&collect->new_runs, key, new_value, new_bytes);
    default: return 0; /* INODE: compared as a whole; LINK: names tell */
    }
}

/* ---- Inodes that are only cached ---- */

static int compare_inodes(const void *a, const void *b)
{
    const struct cow_diff_inode *x = a, *y = b;
    return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static int add_cached(struct collect *collect, const struct cow_tree *tree)
{
    struct cow_diff *diff = collect->diff;
    for (unsigned i = 0; tree->hot && i < COW_HOT_INODES; i++) {
        uint64_t ino = tree->hot[i].inode.ino;
        if (!tree->hot[i].dirty || ino == 0) continue;
        struct cow_diff_inode key = {.ino = ino};
        if (diff->inodes.count && bsearch(&key, diff->inodes.items, diff->inodes.count, sizeof key, compare_inodes))
            continue;
        int rc = add_inode(collect, ino, diff->ranges.count);
        if (rc) return rc;
        if (diff->inodes.count > 1) qsort(diff->inodes.items, diff->inodes.count, sizeof key, compare_inodes);
    }
    return 0;
}

/* ---- How the new tree leads to what changed ---- */

static int seen_grow(struct seen *seen)
{
    size_t capacity = seen->slots ? (seen->mask + 1) * 2 : 64;
    uint64_t *slots = calloc(capacity, sizeof *slots);
    if (!slots) return -ENOMEM;
    for (size_t i = 0; seen->slots && i <= seen->mask; i++) {
        if (seen->slots[i] == 0) continue;
        size_t at = (size_t)((seen->slots[i] * 0x9e3779b97f4a7c15u) >> 20) & (capacity - 1);
        while (slots[at])
            at = (at + 1) & (capacity - 1);
        slots[at] = seen->slots[i];
    }
    free(seen->slots);
    seen->slots = slots;
    seen->mask = capacity - 1;
    return 0;
}

/* 1 = added, 0 = was there. */
static int seen_add(struct seen *seen, uint64_t ino)
{
    if (!seen->slots || seen->used * 2 > seen->mask) {
        int rc = seen_grow(seen);
        if (rc) return rc;
    }
    size_t at = (size_t)((ino * 0x9e3779b97f4a7c15u) >> 20) & seen->mask;
    while (seen->slots[at] && seen->slots[at] != ino)
        at = (at + 1) & seen->mask;
    if (seen->slots[at] == ino) return 0;
    seen->slots[at] = ino;
    seen->used++;
    return 1;
}

static int push(struct cow_list *pending, uint64_t ino)
{
    uint64_t *slot = cow_list_add(pending, 1, sizeof *slot);
    if (!slot) return -ENOMEM;
    *slot = ino;
    return 0;
}

/* How many names of the inode in one bucket have been added: its names come one right after another. */
static unsigned earlier_links(const struct cow_diff *diff, const struct cow_inode *inode, uint64_t parent,
                              uint64_t hash)
{
    const struct cow_diff_name *children = diff->children.items;
    unsigned count = 0;
    for (size_t i = diff->children.count; i-- > 0 && children[i].new_entry.ino == inode->ino;)
        count += children[i].dir == parent && cow_name_hash(diff->new_tree, cow_diff_text(diff, children[i].text_at),
                                                            children[i].name_bytes) == hash;
    return count;
}

static int add_child(struct cow_diff *diff, struct cow_list *pending, const struct cow_inode *inode, uint64_t parent,
                     uint64_t hash)
{
    char name[COW_NAME_BYTES_MAX];
    unsigned nth = 0;
    if (cow_name_of(diff->new_tree, parent, hash, inode->ino, 1, name) >= 0)
        nth = earlier_links(diff, inode, parent, hash);
    int bytes = cow_name_of(diff->new_tree, parent, hash, inode->ino, nth, name);
    if (bytes == -ENOENT)
        return cow_fail(COW_EDAMAGE, "a name of inode %llu is missing", (unsigned long long)inode->ino);
    if (bytes < 0) return bytes;
    struct cow_diff_name child = {.dir = parent, .name_bytes = (uint32_t)bytes};
    child.old_entry = child.new_entry = (struct cow_entry){inode->ino, inode->mode & S_IFMT};
    int rc = cow_diff_keep_text(diff, name, (size_t)bytes, &child.text_at);
    if (rc) return rc;
    struct cow_diff_name *slot = cow_list_add(&diff->children, 1, sizeof *slot);
    if (!slot) return -ENOMEM;
    *slot = child;
    return push(pending, parent);
}

static int add_links(struct cow_diff *diff, struct cow_list *pending, const struct cow_inode *inode)
{
    int rc = add_child(diff, pending, inode, inode->parent, inode->name_hash);
    if (rc || inode->links_seq == 0) return rc;
    struct cow_cursor cursor;
    cow_cursor_init(&cursor, cow_tree_nodes(diff->new_tree), diff->new_tree->root);
    rc = cow_cursor_seek(&cursor, cow_key_make(inode->ino, COW_ITEM_LINK, 0));
    while (!rc && cursor.valid && cursor.key.ino == inode->ino && cow_key_type(cursor.key) == COW_ITEM_LINK) {
        uint64_t parent, hash;
        rc = cow_link_decode(cursor.value, cursor.value_bytes, &parent, &hash);
        if (!rc) rc = add_child(diff, pending, inode, parent, hash);
        if (!rc) rc = cow_cursor_next(&cursor);
    }
    cow_cursor_deinit(&cursor);
    return rc;
}

static int lead_to(struct cow_diff *diff, struct cow_list *pending, struct seen *seen)
{
    while (pending->count) {
        uint64_t ino = ((const uint64_t *)pending->items)[--pending->count];
        int rc = ino == COW_ROOT_INO ? 0 : seen_add(seen, ino);
        if (rc < 0) return rc;
        if (rc == 0) continue;
        struct cow_inode inode;
        rc = cow_tree_get_inode(diff->new_tree, ino, &inode);
        if (rc == -ENOENT || (!rc && inode.nlink == 0)) continue;
        if (!rc) rc = add_links(diff, pending, &inode);
        if (rc) return rc;
    }
    return 0;
}

static int find_children(struct cow_diff *diff)
{
    struct cow_list pending = {0};
    struct seen seen = {0};
    const struct cow_diff_inode *inodes = diff->inodes.items;
    const struct cow_diff_name *names = diff->names.items;
    int rc = 0;
    for (size_t i = 0; !rc && i < diff->inodes.count; i++) {
        rc = push(&pending, inodes[i].ino);
        if (!rc) rc = lead_to(diff, &pending, &seen);
    }
    for (size_t i = 0; !rc && i < diff->names.count; i++) {
        if (i && names[i].dir == names[i - 1].dir) continue;
        rc = push(&pending, names[i].dir);
        if (!rc) rc = lead_to(diff, &pending, &seen);
    }
    free(pending.items);
    free(seen.slots);
    if (!rc) cow_diff_sort_names(diff, &diff->children);
    return rc;
}

int cow_diff_collect(struct cow_diff *diff)
{
    struct collect collect = {.diff = diff};
    const struct cow_key first = {0, 0}, last = {UINT64_MAX, UINT64_MAX};
    int rc = cow_btree_diff(cow_tree_nodes(diff->new_tree), diff->old_tree->root, diff->new_tree->root, first, last,
                            each_item, &collect);
    if (!rc) rc = finish_inode(&collect);
    free(collect.old_runs.items);
    free(collect.new_runs.items);
    if (!rc) rc = add_cached(&collect, diff->old_tree);
    if (!rc) rc = add_cached(&collect, diff->new_tree);
    if (rc) return rc;
    cow_diff_sort_names(diff, &diff->names);
    return find_children(diff);
}
