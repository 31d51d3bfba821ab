/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be saved of a tree with damaged nodes. First every item that can still be read is put into a new tree, which
 * shares the data. Then, inode by inode: items without their inode go; entries that lead to no inode go; an inode that
 * no entry leads to gets one in /lost+found. What went is reported. Counters are left to names.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "check/check.h"
#include "fs/extents.h"
#include "fs/names.h"

/* ---- The items ---- */

struct copy {
    cow_store *store;
    struct cow_root root;
    struct cow_gaps *gaps; /* NULL: the trees tree */
    bool in_gap;
    struct cow_gap gap;    /* what is known of it; otherwise: of the last item that was copied */
};

static int end_gap(struct copy *copy, uint64_t end_block)
{
    struct cow_gaps *gaps = copy->gaps;
    if (!copy->in_gap) return 0;
    copy->in_gap = false;
    if (gaps->count == gaps->capacity) {
        size_t capacity = gaps->capacity ? 2 * gaps->capacity : 16;
        struct cow_gap *gap = realloc(gaps->gap, capacity * sizeof *gap);
        if (!gap) return cow_fail(ENOMEM, "repair");
        gaps->gap = gap;
        gaps->capacity = capacity;
    }
    gaps->gap[gaps->count] = copy->gap;
    gaps->gap[gaps->count++].end_block = end_block;
    return 0;
}

/* What comes before the next gap, if there is one. */
static int note_item(struct copy *copy, struct cow_key key, uint32_t count)
{
    bool is_run = cow_key_type(key) == COW_ITEM_EXTENT;
    uint64_t block = is_run ? cow_key_offset(key) : 0;
    int rc = end_gap(copy, is_run && key.ino == copy->gap.ino ? block : UINT64_MAX);
    copy->gap = (struct cow_gap){.ino = key.ino, .first_block = is_run ? block + count : 0};
    return rc;
}

static int enter(void *context, cow_addr addr, unsigned level)
{
    (void)context, (void)addr, (void)level;
    return 1;
}

static int pass_over(void *context, struct cow_root at, struct cow_key first, struct cow_key end)
{
    struct copy *copy = context;
    (void)at, (void)first, (void)end;
    copy->in_gap = copy->gaps != NULL;
    return 0;
}

static int copy_item(void *context, struct cow_key key, const uint8_t *value, size_t value_bytes)
{
    struct copy *copy = context;
    cow_store *store = copy->store;
    cow_addr addr;
    uint32_t count = 0;
    if (!copy->gaps && cow_key_type(key) != COW_ITEM_TREE && cow_key_type(key) != COW_ITEM_TEMP) return 0;
    bool is_run = cow_item_run(key, value, value_bytes, &addr, &count);
    int rc = is_run ? cow_space_ref(store->space, addr, count) : 0;
    if (rc == -COW_EDAMAGE || (cow_key_type(key) == COW_ITEM_EXTENT && !is_run)) { /* it leads nowhere */
        copy->in_gap = copy->gaps != NULL;
        return 0;
    }
    if (!rc && copy->gaps) rc = note_item(copy, key, count);
    if (!rc) rc = cow_btree_reserve(store->nodes, 1);
    return rc ? rc : cow_btree_put(store->nodes, &copy->root, key, value, value_bytes);
}

int cow_salvage(cow_store *store, struct cow_root root, struct cow_gaps *gaps, struct cow_root *root_out)
{
    struct copy copy = {.store = store, .gaps = gaps};
    struct cow_btree_visitor visitor = {.node = enter, .item = copy_item, .damaged = pass_over, .context = &copy};
    int rc = cow_btree_reserve(store->nodes, 1);
    if (!rc) rc = cow_btree_create(store->nodes, &copy.root);
    if (!rc) rc = cow_btree_visit(store->nodes, root, &visitor);
    if (!rc) rc = end_gap(&copy, UINT64_MAX);
    if (!rc) *root_out = copy.root;
    return rc;
}

/* ---- The names ---- */

struct mend {
    struct cow_reporter *reporter;
    struct cow_tree *tree;
    uint64_t lost_found; /* the directory, 0 = not made yet */
    uint64_t dropped;    /* the last inode whose items were dropped */
};

static void lost(struct mend *mend, uint64_t ino, const char *format, const char *name)
{
    cow_finding finding = {.kind = COW_FOUND_LOST, .tree = mend->tree->id, .ino = ino};
    char text[330];
    (void)snprintf(text, sizeof text, "%s%s", format, name);
    cow_report(mend->reporter, &finding, &mend->tree->root, "tree %llu inode %llu: %s",
               (unsigned long long)mend->tree->id, (unsigned long long)ino, text);
}

static bool is_there(struct mend *mend, uint64_t ino, struct cow_inode *inode_out)
{
    return cow_tree_get_inode(mend->tree, ino, inode_out) == 0;
}

static int reserve(struct mend *mend) { return cow_btree_reserve(mend->reporter->store->nodes, COW_FS_PUTS); }

/* Takes out an item whose inode is lost. */
static int drop_item(struct mend *mend, struct cow_key key, const uint8_t *value, size_t bytes)
{
    cow_addr addr;
    uint32_t count;
    bool is_run = cow_item_run(key, value, bytes, &addr, &count);
    int rc = reserve(mend);
    if (!rc) rc = cow_tree_del(mend->tree, key);
    return rc || !is_run ? rc : cow_space_unref(cow_tree_space(mend->tree), addr, count, NULL);
}

/* The bucket without the entries that lead nowhere. */
static int mend_bucket(struct mend *mend, struct cow_key key, const uint8_t *value, size_t bytes)
{
    uint8_t kept[COW_VALUE_BYTES_MAX];
    size_t at = 0, kept_bytes = 0;
    struct cow_dirent dirent;
    while (cow_dirent_next(value, bytes, &at, &dirent) == 1) {
        struct cow_inode inode;
        if (is_there(mend, dirent.ino, &inode)) {
            kept_bytes += cow_dirent_encode(&dirent, kept + kept_bytes);
            continue;
        }
        char name[COW_NAME_BYTES_MAX + 1] = {0};
        memcpy(name, dirent.name, dirent.name_bytes);
        lost(mend, key.ino, "an entry of this directory lost its inode: ", name);
    }
    if (kept_bytes == bytes) return 0;
    int rc = reserve(mend);
    if (rc) return rc;
    return kept_bytes ? cow_tree_put(mend->tree, key, kept, kept_bytes) : cow_tree_del(mend->tree, key);
}

static bool has_entry(struct mend *mend, uint64_t dir, uint64_t hash, uint64_t ino)
{
    char name[COW_NAME_BYTES_MAX];
    struct cow_inode inode;
    return dir != 0 && is_there(mend, dir, &inode) && cow_name_of(mend->tree, dir, hash, ino, 0, name) > 0;
}

static int mend_link(struct mend *mend, struct cow_key key, const uint8_t *value, size_t bytes)
{
    uint64_t parent, hash;
    if (!cow_link_decode(value, bytes, &parent, &hash) && has_entry(mend, parent, hash, key.ino)) return 0;
    int rc = reserve(mend);
    return rc ? rc : cow_tree_del(mend->tree, key);
}

static int make_lost_found(struct mend *mend)
{
    static const char name[] = "lost+found";
    if (mend->lost_found) return 0;
    int rc = cow_fs_lookup(mend->tree, COW_ROOT_INO, name, sizeof name - 1, &mend->lost_found);
    if (rc != -ENOENT) return rc;
    cow_attr attr = {.mode = S_IFDIR | 0700};
    rc = reserve(mend);
    return rc ? rc : cow_fs_make(mend->tree, COW_ROOT_INO, name, sizeof name - 1, &attr, NULL, 0, &mend->lost_found);
}

static int adopt(struct mend *mend, struct cow_inode *inode)
{
    struct cow_inode dir;
    struct cow_entry entry;
    char name[32];
    int length = snprintf(name, sizeof name, "#%llu", (unsigned long long)inode->ino);
    int rc = make_lost_found(mend);
    if (!rc) rc = reserve(mend);
    if (!rc) rc = cow_tree_get_inode(mend->tree, mend->lost_found, &dir);
    if (!rc) rc = cow_name_find(mend->tree, dir.ino, name, (size_t)length, &entry);
    if (rc != -ENOENT) return rc;
    inode->parent = dir.ino;
    inode->name_hash = cow_name_hash(mend->tree, name, (size_t)length);
    inode->nlink = S_ISDIR(inode->mode) ? 2 : 1;
    rc = cow_name_add(mend->tree, &dir, name, (size_t)length, (struct cow_entry){inode->ino, inode->mode & S_IFMT});
    if (!rc) rc = cow_tree_put_inode(mend->tree, &dir);
    if (!rc) rc = cow_tree_put_inode(mend->tree, inode);
    if (!rc) lost(mend, inode->ino, "its name was lost; it is in /lost+found as ", name);
    return rc;
}

/* The links that are left are right; an inode whose first name is lost takes one of them, or comes to lost+found. */
static int mend_inode(struct mend *mend, uint64_t ino)
{
    struct cow_inode inode;
    int rc = cow_tree_get_inode(mend->tree, ino, &inode);
    if (rc || ino == COW_ROOT_INO || (inode.flags & COW_INODE_ORPHAN)) return rc;
    if (has_entry(mend, inode.parent, inode.name_hash, ino)) return 0;
    struct cow_cursor cursor;
    uint64_t parent = 0, hash = 0;
    struct cow_key key = {0, 0};
    cow_cursor_init(&cursor, cow_tree_nodes(mend->tree), mend->tree->root);
    rc = cow_cursor_seek(&cursor, cow_key_make(ino, COW_ITEM_LINK, 0));
    if (!rc && cursor.valid && cursor.key.ino == ino && cow_key_type(cursor.key) == COW_ITEM_LINK) {
        key = cursor.key;
        rc = cow_link_decode(cursor.value, cursor.value_bytes, &parent, &hash);
    }
    cow_cursor_deinit(&cursor);
    if (!rc) rc = reserve(mend);
    if (rc || key.ino == 0) return rc ? rc : adopt(mend, &inode);
    inode.parent = parent;
    inode.name_hash = hash;
    rc = cow_tree_del(mend->tree, key);
    return rc ? rc : cow_tree_put_inode(mend->tree, &inode);
}

enum step { STEP_ITEMS, STEP_INODES };

/* One item, copied so that the tree may change. */
static int mend_item(struct mend *mend, enum step step, struct cow_key key, const uint8_t *value, size_t bytes)
{
    struct cow_inode inode;
    if (step == STEP_INODES) return cow_key_type(key) == COW_ITEM_INODE ? mend_inode(mend, key.ino) : 0;
    if (cow_key_type(key) == COW_ITEM_INODE) return 0;
    if (key.ino == 0) {
        if (is_there(mend, cow_key_offset(key), &inode)) return 0;
        int rc = reserve(mend);
        return rc ? rc : cow_tree_del(mend->tree, key);
    }
    if (!is_there(mend, key.ino, &inode)) {
        if (mend->dropped != key.ino) lost(mend, key.ino, "its inode was lost, what was left of it is dropped", "");
        mend->dropped = key.ino;
        return drop_item(mend, key, value, bytes);
    }
    if (cow_key_type(key) == COW_ITEM_DIRENT) return mend_bucket(mend, key, value, bytes);
    return cow_key_type(key) == COW_ITEM_LINK ? mend_link(mend, key, value, bytes) : 0;
}

static int mend_all(struct mend *mend, enum step step)
{
    struct cow_key next = {0, 0};
    for (;;) {
        uint8_t value[COW_VALUE_BYTES_MAX];
        struct cow_cursor cursor;
        cow_cursor_init(&cursor, cow_tree_nodes(mend->tree), mend->tree->root);
        int rc = cow_cursor_seek(&cursor, next);
        bool valid = !rc && cursor.valid;
        struct cow_key key = cursor.key;
        size_t bytes = cursor.value_bytes;
        if (valid) memcpy(value, cursor.value, bytes);
        cow_cursor_deinit(&cursor);
        if (rc || !valid) return rc;
        rc = mend_item(mend, step, key, value, bytes);
        if (!rc) rc = cow_tree_flush_inodes(mend->tree); /* the cursor must see them */
        if (rc) return rc;
        next = (struct cow_key){key.ino + (key.low == UINT64_MAX), key.low + 1};
    }
}

/* An orphan that lost its place on the list is put on it; the root directory is made when it is gone. */
static int mend_root(struct mend *mend)
{
    struct cow_inode root;
    if (is_there(mend, COW_ROOT_INO, &root)) return 0;
    lost(mend, COW_ROOT_INO, "the root directory was lost: an empty one was made", "");
    uint64_t next_ino = mend->tree->next_ino;
    mend->tree->next_ino = COW_ROOT_INO;
    int rc = reserve(mend);
    if (!rc) rc = cow_fs_make_root(mend->tree);
    mend->tree->next_ino = next_ino > COW_ROOT_INO ? next_ino : COW_ROOT_INO + 1;
    return rc ? rc : cow_tree_flush_inodes(mend->tree);
}

/* ---- Content ---- */

/* How many blocks are mapped, and whether there is inline content. */
static int content_left(struct mend *mend, uint64_t ino, uint64_t *mapped_out, bool *inline_out)
{
    struct cow_cursor cursor;
    *mapped_out = 0;
    *inline_out = false;
    cow_cursor_init(&cursor, cow_tree_nodes(mend->tree), mend->tree->root);
    int rc = cow_cursor_seek(&cursor, cow_key_make(ino, COW_ITEM_INLINE, 0));
    while (!rc && cursor.valid && cursor.key.ino == ino) {
        struct cow_run run;
        if (cow_key_type(cursor.key) == COW_ITEM_INLINE) *inline_out = true;
        else if (!cow_run_decode(cursor.value, cursor.value_bytes, &run)) *mapped_out += run.count;
        rc = cow_cursor_next(&cursor);
    }
    cow_cursor_deinit(&cursor);
    return rc;
}

static int make_spoiled(struct mend *mend, cow_addr *spoiled)
{
    uint32_t count;
    if (*spoiled) return 0;
    int rc = cow_space_alloc_data(cow_tree_space(mend->tree), 0, 1, spoiled, &count);
    return rc ? rc : cow_space_spoil(cow_tree_space(mend->tree), *spoiled);
}

/* Blocks of a gap that no extent maps are mapped to the spoiled block, one by one. */
static int spoil_blocks(struct mend *mend, uint64_t ino, uint64_t first, uint64_t end, cow_addr *spoiled)
{
    int rc = first < end ? make_spoiled(mend, spoiled) : 0;
    for (uint64_t block = first; block < end && !rc; block++) {
        uint8_t bytes[COW_RUN_BYTES];
        struct cow_run run = {.addr = *spoiled, .count = 1};
        cow_run_encode(&run, bytes);
        rc = reserve(mend);
        if (!rc) rc = cow_space_ref(cow_tree_space(mend->tree), *spoiled, 1);
        if (!rc) rc = cow_tree_put(mend->tree, cow_key_make(ino, COW_ITEM_EXTENT, block), bytes, sizeof bytes);
    }
    return rc;
}

static int mend_gap(struct mend *mend, const struct cow_gap *gap, cow_addr *spoiled)
{
    struct cow_inode inode;
    uint64_t mapped;
    bool has_inline;
    if (!is_there(mend, gap->ino, &inode) || !S_ISREG(inode.mode)) return 0;
    int rc = content_left(mend, gap->ino, &mapped, &has_inline);
    if (rc) return rc;
    bool was_inline = (inode.flags & COW_INODE_INLINE) && !has_inline;
    if (!was_inline && mapped >= inode.mapped_blocks) return 0;
    uint64_t stop = cow_blocks_of(inode.size_bytes), end = gap->end_block < stop ? gap->end_block : stop;
    lost(mend, gap->ino, "a part of its content was lost and reads as damaged", "");
    if (was_inline) {
        inode.flags &= ~COW_INODE_INLINE;
        rc = cow_tree_put_inode(mend->tree, &inode);
        end = stop;
    }
    return rc ? rc : spoil_blocks(mend, gap->ino, gap->first_block, end, spoiled);
}

int cow_salvage_names(struct cow_reporter *reporter, struct cow_tree *tree, const struct cow_gaps *gaps,
                      cow_addr *spoiled)
{
    struct mend mend = {.reporter = reporter, .tree = tree};
    int rc = mend_root(&mend);
    for (size_t i = 0; i < gaps->count && !rc; i++) rc = mend_gap(&mend, &gaps->gap[i], spoiled);
    if (!rc) rc = cow_tree_flush_inodes(tree);
    if (!rc) rc = mend_all(&mend, STEP_ITEMS);
    if (!rc) rc = mend_all(&mend, STEP_INODES);
    return rc;
}
