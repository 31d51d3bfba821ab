/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names, inodes and counters of one tree, in one pass over its items in key order and memory that does not grow with it.
 * All items of an inode lie together, so what an inode says about itself (entries, links, mapped blocks, flags) is
 * compared on the spot. What ties different inodes together is compared by sums: each directory entry adds a hash of
 * (directory, name hash, inode, is a directory) to one sum, and each inode adds the same hash to another for every name
 * that it says it has. The sums are equal exactly when entries and inodes fit each other (but for one chance in 2^128); when
 * they are not, a second pass asks the B+tree about each entry and each name.
 *
 * Sums can be taken apart. A fork is therefore not gone through again: cow_btree_diff gives the inodes in which it differs
 * from its parent, and their share of the parent's sums is replaced by what they are now. So thousands of forks
 * cost what they changed.
 */
#include "check/check.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "base/hash.h"

struct group { /* an inode and what was seen of its items */
    struct cow_inode inode;
    bool have, inline_item, xattr_item;
    uint64_t entries, subdirs, links, mapped, next_block, inline_bytes, symlink_bytes;
};

struct pass {
    struct cow_names *names;
    cow_store *store;
    uint64_t id, base, next_ino;
    struct cow_root root;
    bool report;
    bool *changed; /* where repairs of inodes are noted, NULL = none are made */
    struct cow_root *fixed_root;
    uint64_t newest_birth, problems;
    struct cow_tally tally;
};

static void found(struct pass *pass, uint32_t kind, uint64_t ino, bool repaired, const char *text, uint64_t is,
                  uint64_t should)
{
    pass->problems++;
    if (!pass->report) return;
    cow_finding finding = {.kind = kind, .tree = pass->id, .ino = ino, .repaired = repaired};
    cow_report(pass->names->reporter, &finding, &pass->root, "tree %llu inode %llu: %s (%llu, should be %llu)",
               (unsigned long long)pass->id, (unsigned long long)ino, text, (unsigned long long)is,
               (unsigned long long)should);
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static void add_name(uint64_t sums[2], uint64_t dir, uint64_t hash, uint64_t ino, bool is_dir)
{
    for (unsigned i = 0; i < 2; i++) {
        uint64_t h = mix(dir + 0x9E3779B97F4A7C15u * (i + 1));
        h = mix(h ^ hash);
        sums[i] += mix((h ^ (ino << 1 | is_dir)) + i);
    }
}

/* ---- One item ---- */

static void take_entries(struct pass *pass, struct group *group, struct cow_key key, const uint8_t *value, size_t bytes)
{
    struct cow_dirent dirent;
    size_t at = 0;
    int rc;
    while ((rc = cow_dirent_next(value, bytes, &at, &dirent)) == 1) {
        uint64_t hash = cow_hash_name(pass->store->hash_key, dirent.name, dirent.name_bytes) & COW_OFFSET_MASK;
        bool is_dir = S_ISDIR((uint32_t)dirent.type << 12);
        group->entries++;
        group->subdirs += is_dir;
        if ((hash ? hash : 1) != cow_key_offset(key))
            found(pass, COW_FOUND_NAME, dirent.ino, false, "its name is in the wrong bucket", cow_key_offset(key), hash);
        add_name(pass->tally.names, key.ino, cow_key_offset(key), dirent.ino, is_dir);
    }
    if (rc < 0) found(pass, COW_FOUND_NAME, key.ino, false, "directory entries are damaged", at, bytes);
}

static void take_run(struct pass *pass, struct group *group, struct cow_key key, const uint8_t *value, size_t bytes)
{
    struct cow_run run;
    uint64_t block = cow_key_offset(key);
    if (cow_run_decode(value, bytes, &run)) {
        found(pass, COW_FOUND_INODE, key.ino, false, "an extent is damaged", bytes, COW_RUN_BYTES);
        return;
    }
    if (block < group->next_block) found(pass, COW_FOUND_INODE, key.ino, false, "extents overlap", block, group->next_block);
    if (block + run.count > COW_FILE_BYTES_MAX >> COW_BLOCK_SHIFT)
        found(pass, COW_FOUND_INODE, key.ino, false, "an extent is beyond all files", block, 0);
    group->next_block = block + run.count;
    group->mapped += run.count;
    uint64_t start = block << COW_BLOCK_SHIFT, length = (uint64_t)run.count << COW_BLOCK_SHIFT;
    uint64_t size = group->inode.size_bytes, within = size <= start ? 0 : size - start < length ? size - start : length;
    pass->tally.apparent_bytes += within;
    if (run.birth >= pass->base) pass->tally.own_bytes += within;
    if (run.birth > pass->newest_birth) pass->newest_birth = run.birth;
}

static void take_inline(struct pass *pass, struct group *group, const uint8_t *value, size_t bytes)
{
    group->inline_item = true;
    if (bytes < COW_INLINE_HEADER_BYTES) {
        found(pass, COW_FOUND_INODE, group->inode.ino, false, "its content is damaged", bytes, COW_INLINE_HEADER_BYTES);
        return;
    }
    uint64_t birth = cow_load64(value);
    group->inline_bytes = bytes - COW_INLINE_HEADER_BYTES;
    pass->tally.apparent_bytes += group->inline_bytes;
    if (birth >= pass->base) pass->tally.own_bytes += group->inline_bytes;
    if (birth > pass->newest_birth) pass->newest_birth = birth;
}

static void take_link(struct pass *pass, struct group *group, const uint8_t *value, size_t bytes)
{
    uint64_t parent, hash;
    group->links++;
    if (cow_link_decode(value, bytes, &parent, &hash)) {
        found(pass, COW_FOUND_NAME, group->inode.ino, false, "a link item is damaged", bytes, COW_LINK_BYTES);
        return;
    }
    add_name(pass->tally.backs, parent, hash, group->inode.ino, false);
}

static void take(struct pass *pass, struct group *group, struct cow_key key, const uint8_t *value, size_t bytes)
{
    switch (cow_key_type(key)) {
    case COW_ITEM_DIRENT: take_entries(pass, group, key, value, bytes); return;
    case COW_ITEM_LINK: take_link(pass, group, value, bytes); return;
    case COW_ITEM_XATTR: group->xattr_item = true; return;
    case COW_ITEM_SYMLINK: group->symlink_bytes += bytes; return;
    case COW_ITEM_INLINE: take_inline(pass, group, value, bytes); return;
    case COW_ITEM_EXTENT: take_run(pass, group, key, value, bytes); return;
    default: found(pass, COW_FOUND_INODE, key.ino, false, "an item of unknown type", cow_key_type(key), 0);
    }
}

/* ---- One inode ---- */

static void compare(struct pass *pass, struct group *group, const char *what, uint64_t is, uint64_t should, bool *fix)
{
    if (is == should) return;
    bool repair = pass->changed != NULL && fix != NULL;
    if (repair) *fix = true;
    found(pass, COW_FOUND_INODE, group->inode.ino, repair, what, is, should);
}

static int put_fixed(struct pass *pass, const struct cow_inode *inode)
{
    uint8_t bytes[COW_INODE_BYTES];
    cow_inode_encode(inode, bytes);
    int rc = cow_btree_reserve(pass->store->nodes, 2);
    struct cow_key key = cow_key_make(inode->ino, COW_ITEM_INODE, 0);
    if (!rc) rc = cow_btree_put(pass->store->nodes, pass->fixed_root, key, bytes, sizeof bytes);
    if (!rc) *pass->changed = true;
    return rc;
}

static int finish_group(struct pass *pass, struct group *group)
{
    struct cow_inode *inode = &group->inode, fixed = *inode;
    bool is_dir = S_ISDIR(inode->mode), orphan = (inode->flags & COW_INODE_ORPHAN) != 0, fix = false;
    if (!group->have) return 0;
    pass->tally.inodes++;
    compare(pass, group, "number of entries", inode->entries, is_dir ? group->entries : 0, &fix);
    fixed.entries = is_dir ? group->entries : 0;
    compare(pass, group, "number of further links", inode->links_seq, group->links, &fix);
    fixed.links_seq = (uint32_t)group->links;
    compare(pass, group, "mapped blocks", inode->mapped_blocks, group->mapped, &fix);
    fixed.mapped_blocks = group->mapped;
    uint64_t names = is_dir ? 2 + group->subdirs : (inode->parent != 0) + group->links;
    if (orphan) names = 0;
    compare(pass, group, "number of links", inode->nlink, names, &fix);
    fixed.nlink = (uint32_t)names;
    if (group->inline_item != ((inode->flags & COW_INODE_INLINE) != 0))
        compare(pass, group, "inline content and flag", group->inline_item, !group->inline_item, &fix);
    fixed.flags = group->inline_item ? fixed.flags | COW_INODE_INLINE : fixed.flags & ~COW_INODE_INLINE;
    if (group->xattr_item && !(inode->flags & COW_INODE_XATTRS)) compare(pass, group, "attributes without flag", 0, 1, &fix);
    if (group->xattr_item) fixed.flags |= COW_INODE_XATTRS;
    if (group->inline_bytes > inode->size_bytes) compare(pass, group, "size", inode->size_bytes, group->inline_bytes, NULL);
    if (group->inline_item && group->mapped) compare(pass, group, "inline and mapped", group->mapped, 0, NULL);
    if (S_ISLNK(inode->mode) && !orphan) compare(pass, group, "length of the target", group->symlink_bytes, inode->size_bytes, NULL);
    if (inode->ino >= pass->next_ino) compare(pass, group, "number of the inode", inode->ino, pass->next_ino - 1, NULL);
    if (orphan) {
        pass->tally.orphans++;
        pass->tally.orphan_flags += mix(inode->ino);
    } else if (inode->ino != COW_ROOT_INO && inode->parent) {
        add_name(pass->tally.backs, inode->parent, inode->name_hash, inode->ino, is_dir);
    }
    return fix ? put_fixed(pass, &fixed) : 0;
}

/* Takes all items of the inode under the cursor. */
static int pass_group(struct pass *pass, struct cow_cursor *cursor)
{
    struct group group = {.inode = {.ino = cursor->key.ino}};
    uint64_t ino = cursor->key.ino;
    int rc = 0;
    while (!rc && cursor->valid && cursor->key.ino == ino) {
        enum cow_item_type type = cow_key_type(cursor->key);
        if (ino == 0 && type == COW_ITEM_ORPHAN) {
            pass->tally.orphan_items += mix(cow_key_offset(cursor->key));
        } else if (type == COW_ITEM_INODE) {
            rc = cow_inode_decode(ino, cursor->value, cursor->value_bytes, &group.inode);
            group.have = rc == 0;
            if (rc) found(pass, COW_FOUND_INODE, ino, false, "it is damaged", cursor->value_bytes, COW_INODE_BYTES);
            rc = 0;
        } else {
            if (!group.have && group.next_block == 0 && group.entries == 0)
                found(pass, COW_FOUND_INODE, ino, false, "items without an inode", type, COW_ITEM_INODE);
            take(pass, &group, cursor->key, cursor->value, cursor->value_bytes);
        }
        rc = cow_cursor_next(cursor);
    }
    return rc ? rc : finish_group(pass, &group);
}

static int pass_from(struct pass *pass, uint64_t ino, bool only)
{
    struct cow_cursor cursor;
    cow_cursor_init(&cursor, pass->store->nodes, pass->root);
    int rc = cow_cursor_seek(&cursor, (struct cow_key){ino, 0});
    while (!rc && cursor.valid && (!only || cursor.key.ino == ino)) rc = pass_group(pass, &cursor);
    cow_cursor_deinit(&cursor);
    return rc;
}

/* ---- A fork by its difference ---- */

struct difference {
    struct pass *old_pass, *new_pass;
    uint64_t last;
    bool any;
};

static int changed_item(void *context, struct cow_key key, const uint8_t *old_value, size_t old_bytes,
                        const uint8_t *new_value, size_t new_bytes)
{
    struct difference *difference = context;
    (void)old_value, (void)old_bytes, (void)new_value, (void)new_bytes;
    if (difference->any && difference->last == key.ino) return 0;
    difference->any = true;
    difference->last = key.ino;
    int rc = pass_from(difference->old_pass, key.ino, true);
    return rc ? rc : pass_from(difference->new_pass, key.ino, true);
}

static void tally_add(struct cow_tally *to, const struct cow_tally *plus, const struct cow_tally *minus)
{
    to->inodes += plus->inodes - minus->inodes;
    to->apparent_bytes += plus->apparent_bytes - minus->apparent_bytes;
    to->own_bytes += plus->own_bytes - minus->own_bytes;
    to->orphans += plus->orphans - minus->orphans;
    to->orphan_items += plus->orphan_items - minus->orphan_items;
    to->orphan_flags += plus->orphan_flags - minus->orphan_flags;
    for (unsigned i = 0; i < 2; i++) {
        to->names[i] += plus->names[i] - minus->names[i];
        to->backs[i] += plus->backs[i] - minus->backs[i];
    }
}

static int pass_fork(struct pass *pass, const struct cow_checked *parent)
{
    struct pass old_pass = *pass;
    old_pass.root = parent->root;
    old_pass.report = false;
    old_pass.changed = NULL;
    old_pass.next_ino = UINT64_MAX;
    struct difference difference = {.old_pass = &old_pass, .new_pass = pass};
    const struct cow_key least = {0, 0}, most = {UINT64_MAX, UINT64_MAX};
    int rc = cow_btree_diff(pass->store->nodes, parent->root, pass->root, least, most, changed_item, &difference);
    if (rc) return rc;
    struct cow_tally was = parent->tally;
    if (pass->base != parent->base) was.own_bytes = 0; /* all of it is older than the base, see may_compare */
    tally_add(&pass->tally, &was, &old_pass.tally);
    if (parent->newest_birth > pass->newest_birth) pass->newest_birth = parent->newest_birth;
    return 0;
}

static const struct cow_checked *find_parent(const struct cow_names *names, uint64_t id, uint64_t base)
{
    size_t low = 0, high = names->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (names->checked[middle].id < id) low = middle + 1;
        else high = middle;
    }
    if (low == names->count || names->checked[low].id != id || !names->checked[low].whole) return NULL;
    const struct cow_checked *parent = &names->checked[low];
    return base == parent->base || base > parent->newest_birth ? parent : NULL;
}

/* ---- Where entries and inodes do not fit ---- */

static bool has_name(struct pass *pass, uint64_t dir, uint64_t hash, uint64_t ino, bool is_dir)
{
    uint8_t bucket[COW_VALUE_BYTES_MAX];
    int64_t n = cow_btree_get(pass->store->nodes, pass->root, cow_key_make(dir, COW_ITEM_DIRENT, hash), bucket, sizeof bucket);
    struct cow_dirent dirent;
    size_t at = 0;
    while (n > 0 && cow_dirent_next(bucket, (size_t)n, &at, &dirent) == 1)
        if (dirent.ino == ino && S_ISDIR((uint32_t)dirent.type << 12) == is_dir) return true;
    return false;
}

static void locate_entries(struct pass *pass, const struct cow_cursor *cursor)
{
    struct cow_dirent dirent;
    size_t at = 0;
    while (cow_dirent_next(cursor->value, cursor->value_bytes, &at, &dirent) == 1) {
        uint8_t bytes[COW_INODE_BYTES];
        struct cow_key key = cow_key_make(dirent.ino, COW_ITEM_INODE, 0);
        int64_t n = cow_btree_get(pass->store->nodes, pass->root, key, bytes, sizeof bytes);
        if (n >= 0) continue;
        found(pass, COW_FOUND_NAME, cursor->key.ino, false, "an entry leads to an inode that is not there", dirent.ino, 0);
    }
}

static void locate_inode(struct pass *pass, const struct cow_cursor *cursor)
{
    struct cow_inode inode;
    if (cow_inode_decode(cursor->key.ino, cursor->value, cursor->value_bytes, &inode)) return;
    if (inode.ino == COW_ROOT_INO || (inode.flags & COW_INODE_ORPHAN)) return;
    if (inode.parent == 0 || !has_name(pass, inode.parent, inode.name_hash, inode.ino, S_ISDIR(inode.mode)))
        found(pass, COW_FOUND_NAME, inode.ino, false, "it has no entry where it says", 0, inode.parent);
}

static int locate(struct pass *pass)
{
    struct cow_cursor cursor;
    uint64_t before = pass->problems;
    cow_cursor_init(&cursor, pass->store->nodes, pass->root);
    int rc = cow_cursor_seek(&cursor, (struct cow_key){1, 0});
    while (!rc && cursor.valid) {
        uint64_t parent, hash;
        enum cow_item_type type = cow_key_type(cursor.key);
        if (type == COW_ITEM_INODE) locate_inode(pass, &cursor);
        if (type == COW_ITEM_DIRENT) locate_entries(pass, &cursor);
        if (type == COW_ITEM_LINK && !cow_link_decode(cursor.value, cursor.value_bytes, &parent, &hash) &&
            !has_name(pass, parent, hash, cursor.key.ino, false))
            found(pass, COW_FOUND_NAME, cursor.key.ino, false, "it has no entry where a link says", 0, parent);
        rc = cow_cursor_next(&cursor);
    }
    cow_cursor_deinit(&cursor);
    if (!rc && pass->problems == before) found(pass, COW_FOUND_NAME, 0, false, "names and inodes do not fit", 0, 0);
    return rc;
}

/* ---- A tree ---- */

static int remember(struct cow_names *names, const struct pass *pass, bool whole)
{
    if (names->count == COW_CHECKED_MAX) return 0;
    if (names->count == names->capacity) {
        size_t capacity = names->capacity ? 2 * names->capacity : 64;
        struct cow_checked *checked = realloc(names->checked, capacity * sizeof *checked);
        if (!checked) return cow_fail(ENOMEM, "check");
        names->checked = checked;
        names->capacity = capacity;
    }
    names->checked[names->count++] = (struct cow_checked){.id = pass->id, .base = pass->base, .root = pass->root,
                                                          .newest_birth = pass->newest_birth, .whole = whole,
                                                          .tally = pass->tally};
    return 0;
}

void cow_names_deinit(struct cow_names *names)
{
    free(names->checked);
    names->checked = NULL;
}

static void compare_record(struct pass *pass, const char *what, uint64_t *is, uint64_t should, bool *changed)
{
    if (*is == should) return;
    bool fix = pass->names->fix;
    cow_finding finding = {.kind = COW_FOUND_TREE, .tree = pass->id, .repaired = fix};
    pass->problems++;
    cow_report(pass->names->reporter, &finding, NULL, "tree %llu: %s: %llu by its record, %llu counted",
               (unsigned long long)pass->id, what, (unsigned long long)*is, (unsigned long long)should);
    if (!fix) return;
    *is = should;
    *changed = true;
}

static int broken_tree(struct pass *pass)
{
    cow_finding finding = {.kind = COW_FOUND_NODE, .tree = pass->id};
    cow_report(pass->names->reporter, &finding, NULL, "tree %llu has damaged nodes: %s", (unsigned long long)pass->id,
               cow_error_detail());
    return remember(pass->names, pass, false);
}

int cow_names_check(struct cow_names *names, uint64_t id, struct cow_tree_record *record, bool *changed_out)
{
    struct cow_root root = {record->root_addr, record->root_generation}, fixed_root = root;
    struct pass pass = {.names = names, .store = names->reporter->store, .id = id, .base = record->base, .root = root,
                        .next_ino = record->next_ino, .report = true, .fixed_root = &fixed_root};
    if (names->fix) pass.changed = changed_out;
    const struct cow_checked *parent = names->whole_trees ? NULL : find_parent(names, record->parent, record->base);
    int rc = root.addr == 0 ? 0 : parent ? pass_fork(&pass, parent) : pass_from(&pass, 0, false);
    if (rc == -COW_EDAMAGE) return broken_tree(&pass);
    const struct cow_tally *tally = &pass.tally;
    if (!rc && (tally->names[0] != tally->backs[0] || tally->names[1] != tally->backs[1])) rc = locate(&pass);
    if (rc) return rc == -COW_EDAMAGE ? broken_tree(&pass) : rc;
    if (tally->orphan_items != tally->orphan_flags)
        found(&pass, COW_FOUND_NAME, 0, false, "the list of nameless inodes does not fit", tally->orphan_items, tally->orphan_flags);
    compare_record(&pass, "inodes", &record->inodes, tally->inodes, changed_out);
    compare_record(&pass, "apparent bytes", &record->apparent_bytes, tally->apparent_bytes, changed_out);
    compare_record(&pass, "size", &record->size_bytes, tally->own_bytes, changed_out);
    names->orphans += tally->orphans;
    record->root_addr = fixed_root.addr;
    record->root_generation = fixed_root.generation;
    return remember(names, &pass, pass.problems == 0);
}
