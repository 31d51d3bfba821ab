/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_model.h: a file tree in plain memory, to compare a real one with. Files are byte arrays, names a flat list; a fork
 * is a copy. Real inode numbers are kept, because forks keep them. Functions are static, as the checks' counters are.
 */
#ifndef PYCOW_FS_MODEL_H
#define PYCOW_FS_MODEL_H

#include <inttypes.h>
#include <sys/stat.h>

#include "cow.h"
#include "fs/extents.h"
#include "fs/names.h"
#include "test.h"
#include "tree/store.h"

#define MODEL_NODES 96
#define MODEL_ENTRIES 256
#define MODEL_FILE_BYTES (320u * 1024u)

struct model_node {
    bool used, is_dir;
    uint64_t ino, size;
    uint32_t nlink, pins;
    int parent;    /* of a directory */
    uint8_t *data; /* MODEL_FILE_BYTES of a file; zeros behind size */
};

struct model_entry {
    bool used;
    int dir, node;
    char name[12];
};

struct model {
    struct model_node node[MODEL_NODES]; /* 0 = root */
    struct model_entry entry[MODEL_ENTRIES];
};

static inline void model_init(struct model *model)
{
    memset(model, 0, sizeof *model);
    model->node[0] = (struct model_node){.used = true, .is_dir = true, .ino = COW_ROOT_INO};
}

static inline void model_deinit(struct model *model)
{
    for (int i = 0; i < MODEL_NODES; i++)
        free(model->node[i].data);
    memset(model, 0, sizeof *model);
}

/* Frees a node that has neither name nor pin. */
static inline void model_lose(struct model *model, int node)
{
    struct model_node *n = &model->node[node];
    if (n->nlink || n->pins) return;
    free(n->data);
    *n = (struct model_node){0};
}

static inline void model_copy(struct model *to, const struct model *from)
{
    model_deinit(to);
    *to = *from;
    for (int i = 0; i < MODEL_NODES; i++) {
        to->node[i].pins = 0;
        if (!from->node[i].data) continue;
        to->node[i].data = malloc(MODEL_FILE_BYTES);
        memcpy(to->node[i].data, from->node[i].data, MODEL_FILE_BYTES);
    }
    for (int i = 0; i < MODEL_NODES; i++) /* nobody has a fork's nameless inodes open */
        if (to->node[i].used && !to->node[i].is_dir) model_lose(to, i);
}

static inline int model_find(const struct model *model, int dir, const char *name)
{
    for (int i = 0; i < MODEL_ENTRIES; i++)
        if (model->entry[i].used && model->entry[i].dir == dir && strcmp(model->entry[i].name, name) == 0) return i;
    return -1;
}

static inline int model_add_node(struct model *model, bool is_dir, uint64_t ino)
{
    for (int i = 1; i < MODEL_NODES; i++) {
        if (model->node[i].used) continue;
        model->node[i] = (struct model_node){.used = true, .is_dir = is_dir, .ino = ino};
        if (!is_dir) model->node[i].data = calloc(1, MODEL_FILE_BYTES);
        return i;
    }
    return -1;
}

static inline int model_add_entry(struct model *model, int dir, const char *name, int node)
{
    for (int i = 0; i < MODEL_ENTRIES; i++) {
        if (model->entry[i].used) continue;
        model->entry[i] = (struct model_entry){.used = true, .dir = dir, .node = node};
        (void)snprintf(model->entry[i].name, sizeof model->entry[i].name, "%s", name);
        model->node[node].nlink++;
        if (model->node[node].is_dir) model->node[node].parent = dir;
        return i;
    }
    return -1;
}

static inline void model_drop_entry(struct model *model, int entry)
{
    int node = model->entry[entry].node;
    model->entry[entry].used = false;
    model->node[node].nlink--;
    model_lose(model, node);
}

static inline bool model_is_empty(const struct model *model, int dir)
{
    for (int i = 0; i < MODEL_ENTRIES; i++)
        if (model->entry[i].used && model->entry[i].dir == dir) return false;
    return true;
}

static inline bool model_is_above(const struct model *model, int above, int dir)
{
    for (; dir != above; dir = model->node[dir].parent)
        if (dir == 0) return false;
    return true;
}

static inline size_t model_path(const struct model *model, int entry, char *path, size_t capacity)
{
    char tail[1024] = "", next[1024];
    for (;;) {
        (void)snprintf(next, sizeof next, "/%s%.1000s", model->entry[entry].name, tail);
        memcpy(tail, next, sizeof tail);
        int dir = model->entry[entry].dir;
        if (dir == 0) break;
        for (entry = 0; !model->entry[entry].used || model->entry[entry].node != dir; entry++)
            continue;
    }
    return (size_t)snprintf(path, capacity, "%s", tail);
}

/* ---- The whole tree ---- */

static inline void verify_file(const struct model_node *node, cow_tree *tree)
{
    cow_attr attr;
    MUST(cow_inode_stat(tree, node->ino, &attr));
    CHECK_EQ(attr.size_bytes, node->size);
    CHECK_EQ(attr.nlink, node->nlink);
    uint8_t *data = malloc(MODEL_FILE_BYTES);
    memset(data, 0xee, MODEL_FILE_BYTES);
    CHECK_EQ(cow_file_read(tree, node->ino, 0, data, MODEL_FILE_BYTES), node->size);
    CHECK(memcmp(data, node->data, node->size) == 0);
    free(data);
}

static inline void verify_dir(const struct model *model, int dir, cow_tree *tree)
{
    uint8_t buffer[1000];
    uint64_t cookie = 0, count = 0, wanted = 0, subdirs = 0;
    for (;;) {
        int64_t bytes = cow_dir_read(tree, model->node[dir].ino, cookie, COW_READ_ATTR, buffer, sizeof buffer);
        MUST(bytes);
        if (bytes == 0) break;
        for (size_t at = 0; at < (size_t)bytes;) {
            cow_dir_entry entry;
            char name[256] = "";
            memcpy(&entry, buffer + at, sizeof entry);
            memcpy(name, buffer + at + sizeof entry, entry.name_bytes);
            cookie = entry.cookie;
            at += entry.record_bytes;
            count++;
            int found = model_find(model, dir, name);
            CHECK(found >= 0);
            if (found < 0) continue;
            const struct model_node *node = &model->node[model->entry[found].node];
            CHECK_EQ(entry.ino, node->ino);
            CHECK_EQ(S_ISDIR(entry.mode), node->is_dir);
        }
    }
    for (int i = 0; i < MODEL_ENTRIES; i++) {
        if (!model->entry[i].used || model->entry[i].dir != dir) continue;
        wanted++;
        subdirs += model->node[model->entry[i].node].is_dir;
        uint64_t ino = 0;
        CHECK_EQ(
            cow_dir_lookup(tree, model->node[dir].ino, model->entry[i].name, strlen(model->entry[i].name), &ino, NULL),
            0);
        CHECK_EQ(ino, model->node[model->entry[i].node].ino);
    }
    cow_attr attr;
    MUST(cow_inode_stat(tree, model->node[dir].ino, &attr));
    CHECK_EQ(count, wanted);
    CHECK_EQ(attr.nlink, 2 + subdirs);
}

/* One name of each inode leads back to it. */
static inline void verify_path(const struct model_node *node, cow_tree *tree)
{
    char path[4096];
    size_t bytes;
    uint64_t ino = 0;
    if (node->nlink == 0 && node->ino != COW_ROOT_INO) {
        CHECK_EQ(cow_path_of(tree, node->ino, path, sizeof path, &bytes), -ENOENT);
        return;
    }
    CHECK_EQ(cow_path_of(tree, node->ino, path, sizeof path, &bytes), 0);
    CHECK_EQ(cow_path_walk(tree, COW_ROOT_INO, path, bytes, 0, &ino, NULL), 0);
    CHECK_EQ(ino, node->ino);
}

/* The tree's counters against a walk over its items. */
static inline void model_verify_counts(cow_tree *tree)
{
    uint64_t apparent = 0, size = 0, mapped = 0, ino = 0, inodes = 0;
    struct cow_cursor cursor;
    MUST(cow_tree_write_begin(tree, COW_FS_PUTS));
    MUST(cow_tree_flush_inodes(tree));
    cow_cursor_init(&cursor, cow_tree_nodes(tree), tree->root);
    struct cow_inode inode = {0};
    uint64_t end = 0;
    int rc = cow_cursor_seek(&cursor, (struct cow_key){0, 0});
    for (; !rc && cursor.valid; rc = cow_cursor_next(&cursor)) {
        if (cursor.key.ino != ino) {
            if (ino) CHECK_EQ(inode.mapped_blocks, mapped);
            ino = cursor.key.ino;
            mapped = end = 0;
            if (ino) CHECK_EQ(cow_tree_get_inode(tree, ino, &inode), 0);
            inodes += ino != 0;
        }
        uint64_t bytes = 0, birth = 0, block = cow_key_offset(cursor.key);
        if (cow_key_type(cursor.key) == COW_ITEM_EXTENT) {
            struct cow_run run;
            MUST(cow_run_decode(cursor.value, cursor.value_bytes, &run));
            CHECK(block >= end);
            end = block + run.count;
            for (uint64_t i = 0; i < run.count; i++) {
                uint64_t start = (block + i) * 4096;
                bytes += start >= inode.size_bytes         ? 0
                         : inode.size_bytes - start < 4096 ? inode.size_bytes - start
                                                           : 4096;
            }
            birth = run.birth;
            mapped += run.count;
        } else if (cow_key_type(cursor.key) == COW_ITEM_INLINE) {
            CHECK(inode.flags & COW_INODE_INLINE);
            bytes = cursor.value_bytes - COW_INLINE_HEADER_BYTES;
            birth = cow_load64(cursor.value);
        }
        apparent += bytes;
        if (birth >= tree->base) size += bytes;
    }
    if (ino) CHECK_EQ(inode.mapped_blocks, mapped);
    cow_cursor_deinit(&cursor);
    CHECK_EQ(rc, 0);
    CHECK_EQ(tree->apparent_bytes, apparent);
    CHECK_EQ(tree->size_bytes, size);
    CHECK_EQ(tree->inodes, inodes);
    cow_tree_write_end(tree, 0);
}

/* Compares the whole tree. */
static inline void model_verify(const struct model *model, cow_tree *tree)
{
    uint64_t nodes = 0;
    for (int i = 0; i < MODEL_NODES; i++) {
        const struct model_node *node = &model->node[i];
        if (!node->used) continue;
        nodes++;
        if (node->is_dir)
            verify_dir(model, i, tree);
        else
            verify_file(node, tree);
        verify_path(node, tree);
    }
    cow_tree_info info;
    MUST(cow_tree_get_info(tree, &info));
    CHECK_EQ(info.inodes, nodes);
    model_verify_counts(tree);
}

/* ---- Differences ---- */

static inline int entry_at(const struct model *model, const char *path, size_t bytes)
{
    char other[1024];
    for (int i = 0; i < MODEL_ENTRIES; i++)
        if (model->entry[i].used && model_path(model, i, other, sizeof other) == bytes &&
            memcmp(other, path, bytes) == 0)
            return i;
    return -1;
}

/* What cow_diff should say of a path: 'A', 'D', 'C' (must), 'c' (may), 0 (must not). */
static inline char judge(const struct model *old_model, int old_entry, const struct model *new_model, int new_entry,
                         const char *path)
{
    if (old_entry < 0) return new_entry < 0 ? 0 : 'A';
    if (new_entry < 0) { /* only the topmost */
        size_t up = (size_t)(strrchr(path, '/') - path);
        int parent = up ? entry_at(new_model, path, up) : 0;
        return up == 0 || (parent >= 0 && new_model->node[new_model->entry[parent].node].is_dir) ? 'D' : 0;
    }
    const struct model_node *a = &old_model->node[old_model->entry[old_entry].node];
    const struct model_node *b = &new_model->node[new_model->entry[new_entry].node];
    if (a->is_dir != b->is_dir || a->ino != b->ino) return 'C';
    if (!a->is_dir && (a->size != b->size || memcmp(a->data, b->data, a->size) != 0)) return 'C';
    return 'c';
}

struct found {
    char path[256];
    char kind;
    bool used;
};

static inline size_t read_diff(cow_tree *old_tree, cow_tree *new_tree, struct found *found, size_t capacity)
{
    static uint8_t buffer[65536];
    cow_diff *diff;
    size_t count = 0;
    MUST(cow_diff_open(old_tree, new_tree, &diff));
    for (int64_t bytes; (bytes = cow_diff_read(diff, buffer, sizeof buffer)) != 0;) {
        MUST(bytes);
        for (size_t at = 0; at < (size_t)bytes;) {
            cow_diff_entry entry;
            memcpy(&entry, buffer + at, sizeof entry);
            CHECK(count < capacity && entry.path_bytes < sizeof found->path);
            memcpy(found[count].path, buffer + at + sizeof entry, entry.path_bytes);
            found[count].path[entry.path_bytes] = 0;
            found[count].kind = (char)entry.kind;
            found[count].used = false;
            if (count) CHECK(strcmp(found[count - 1].path, found[count].path) < 0);
            count++;
            at += entry.record_bytes;
        }
    }
    cow_diff_close(diff);
    return count;
}

static inline void check_path(struct found *found, size_t count, const char *path, char wanted)
{
    char got = 0;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(found[i].path, path) != 0) continue;
        got = found[i].kind;
        found[i].used = true;
    }
    bool fine = wanted == 'c' ? got == 0 || got == 'C' : got == wanted;
    if (!fine) fprintf(stderr, "diff of %s: got '%c', wanted '%c'\n", path, got ? got : '-', wanted ? wanted : '-');
    CHECK(fine);
}

/* Compares cow_diff of two trees with what the models say. */
static inline void model_verify_diff(const struct model *old_model, cow_tree *old_tree, const struct model *new_model,
                                     cow_tree *new_tree)
{
    static struct found found[2 * MODEL_ENTRIES];
    size_t count = read_diff(old_tree, new_tree, found, sizeof found / sizeof *found);
    char path[1024];
    for (int i = 0; i < MODEL_ENTRIES; i++) {
        if (!new_model->entry[i].used) continue;
        size_t bytes = model_path(new_model, i, path, sizeof path);
        check_path(found, count, path, judge(old_model, entry_at(old_model, path, bytes), new_model, i, path));
    }
    for (int i = 0; i < MODEL_ENTRIES; i++) {
        if (!old_model->entry[i].used) continue;
        size_t bytes = model_path(old_model, i, path, sizeof path);
        if (entry_at(new_model, path, bytes) < 0)
            check_path(found, count, path, judge(old_model, i, new_model, -1, path));
    }
    for (size_t i = 0; i < count; i++)
        CHECK(found[i].used);
}

#endif
