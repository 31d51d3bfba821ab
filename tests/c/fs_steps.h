/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_steps.h: operations on several forked trees and their models (fs_model.h), each chosen by a sequence of small
 * numbers: pseudo-random ones, or the input of a fuzzer. Functions are static, as the checks' counters are.
 */
#ifndef PYCOW_FS_STEPS_H
#define PYCOW_FS_STEPS_H

#include "fs_kit.h"
#include "fs_model.h"

#define TREES 4

struct run {
    cow_store *store;
    cow_tree *tree[TREES];
    struct model model[TREES];
    uint64_t random, seed, steps;
    const uint8_t *choices; /* when given: what is chosen, instead of random */
    size_t choice_count;
    void (*commit)(void); /* instead of cow_store_commit */
};

static inline unsigned below(struct run *run, unsigned n)
{
    if (!run->choices) return (unsigned)(test_random(&run->random) % n);
    unsigned value = 0;
    for (unsigned range = 1; range < n && run->choice_count; range <<= 8, run->choice_count--)
        value = value << 8 | *run->choices++;
    return value % n;
}

static inline int any_node(struct run *run, const struct model *model, bool is_dir)
{
    for (unsigned tries = 0; tries < 400; tries++) {
        int i = (int)below(run, MODEL_NODES);
        if (model->node[i].used && model->node[i].is_dir == is_dir) return i;
    }
    return is_dir ? 0 : -1;
}

static inline int any_entry(struct run *run, const struct model *model)
{
    for (unsigned tries = 0; tries < 1000; tries++) {
        int i = (int)below(run, MODEL_ENTRIES);
        if (model->entry[i].used) return i;
    }
    return -1;
}

static inline void any_name(struct run *run, char *name)
{
    (void)snprintf(name, 12, "n%c%u", "a.-z"[below(run, 4)], below(run, 6));
}

static inline uint64_t any_offset(struct run *run)
{
    uint64_t offset = below(run, MODEL_FILE_BYTES - 70000);
    switch (below(run, 4)) {
    case 0: return offset & ~(uint64_t)4095;
    case 1: return below(run, 3000);
    case 2: return below(run, 20) * 4096 + below(run, 3);
    default: return offset;
    }
}

static inline size_t any_length(struct run *run)
{
    switch (below(run, 4)) {
    case 0: return 1 + below(run, 200);
    case 1: return 4096 * (1 + below(run, 4));
    case 2: return 1 + below(run, 10000);
    default: return 1 + below(run, 65536);
    }
}

static inline void step_make(struct run *run, cow_tree *tree, struct model *model)
{
    char name[12];
    any_name(run, name);
    int dir = any_node(run, model, true);
    bool is_dir = below(run, 4) == 0;
    uint64_t ino = 0;
    int found = model_find(model, dir, name), node = found < 0 ? model_add_node(model, is_dir, 0) : -1;
    if (found < 0 && node < 0) return;
    int rc = make(tree, model->node[dir].ino, name, is_dir ? S_IFDIR | 0755 : S_IFREG | 0644, &ino);
    CHECK_EQ(rc, found >= 0 ? -EEXIST : 0);
    if (rc == 0 && node >= 0) {
        model->node[node].ino = ino;
        (void)model_add_entry(model, dir, name, node);
    }
}

static inline void step_link(struct run *run, cow_tree *tree, struct model *model)
{
    char name[12];
    any_name(run, name);
    int dir = any_node(run, model, true), node = any_node(run, model, false);
    if (node < 0) return;
    int rc = cow_dir_link(tree, model->node[dir].ino, name, strlen(name), model->node[node].ino);
    bool exists = model_find(model, dir, name) >= 0;
    CHECK_EQ(rc, model->node[node].nlink == 0 ? -ENOENT : exists ? -EEXIST : 0);
    if (rc == 0) (void)model_add_entry(model, dir, name, node);
}

static inline void drop_tree(struct model *model, int entry)
{
    int node = model->entry[entry].node;
    for (int i = 0; model->node[node].is_dir && i < MODEL_ENTRIES; i++)
        if (model->entry[i].used && model->entry[i].dir == node) drop_tree(model, i);
    model_drop_entry(model, entry);
}

static inline void step_remove(struct run *run, cow_tree *tree, struct model *model)
{
    int entry = any_entry(run, model);
    if (entry < 0) return;
    const struct model_entry *e = &model->entry[entry];
    int node = e->node;
    uint32_t how = 1u << below(run, below(run, 6) == 0 ? 3 : 2);
    bool is_dir = model->node[node].is_dir;
    int wanted = how == COW_REMOVE_FILE  ? (is_dir ? -EISDIR : 0)
                 : how == COW_REMOVE_DIR ? (!is_dir                       ? -ENOTDIR
                                            : model_is_empty(model, node) ? 0
                                                                          : -ENOTEMPTY)
                                         : 0;
    int rc = cow_dir_remove(tree, model->node[e->dir].ino, e->name, strlen(e->name), how);
    CHECK_EQ(rc, wanted);
    if (rc == 0) drop_tree(model, entry);
}

static inline int judge_rename(const struct model *model, int from, int dir, int to, uint32_t flags)
{
    int moved = model->entry[from].node;
    bool moved_dir = model->node[moved].is_dir;
    if (flags == COW_RENAME_EXCHANGE) {
        if (to < 0) return -ENOENT;
        int other = model->entry[to].node;
        if (other == moved) return 0;
        if (moved_dir && model_is_above(model, moved, dir)) return -EINVAL;
        if (model->node[other].is_dir && model_is_above(model, other, model->entry[from].dir)) return -EINVAL;
        return 0;
    }
    if (to >= 0 && (flags & COW_RENAME_NOREPLACE)) return -EEXIST;
    if (to >= 0 && model->entry[to].node == moved) return 0;
    if (moved_dir && model_is_above(model, moved, dir)) return -EINVAL;
    if (to < 0) return 0;
    const struct model_node *victim = &model->node[model->entry[to].node];
    if (moved_dir && !victim->is_dir) return -ENOTDIR;
    if (!moved_dir && victim->is_dir) return -EISDIR;
    return victim->is_dir && !model_is_empty(model, model->entry[to].node) ? -ENOTEMPTY : 0;
}

static inline void step_rename(struct run *run, cow_tree *tree, struct model *model)
{
    char name[12];
    any_name(run, name);
    int from = any_entry(run, model), dir = any_node(run, model, true);
    if (from < 0) return;
    int to = model_find(model, dir, name);
    uint32_t flags = below(run, 3);
    struct model_entry *e = &model->entry[from];
    int wanted = judge_rename(model, from, dir, to, flags), moved = e->node;
    int rc = cow_dir_rename(tree, model->node[e->dir].ino, e->name, strlen(e->name), model->node[dir].ino, name,
                            strlen(name), flags);
    CHECK_EQ(rc, wanted);
    if (rc || (to >= 0 && model->entry[to].node == moved)) return;
    if (flags == COW_RENAME_EXCHANGE) {
        int other = model->entry[to].node;
        e->node = other;
        model->entry[to].node = moved;
        if (model->node[other].is_dir) model->node[other].parent = e->dir;
        if (model->node[moved].is_dir) model->node[moved].parent = dir;
        return;
    }
    if (to >= 0) model_drop_entry(model, to);
    e->dir = dir;
    memcpy(e->name, name, sizeof name);
    if (model->node[moved].is_dir) model->node[moved].parent = dir;
}

static inline void model_write(struct model_node *node, uint64_t offset, const uint8_t *bytes, size_t length)
{
    memcpy(node->data + offset, bytes, length);
    if (node->size < offset + length) node->size = offset + length;
}

static inline void step_write(struct run *run, cow_tree *tree, struct model *model)
{
    static uint8_t bytes[65536];
    int i = any_node(run, model, false);
    if (i < 0) return;
    struct model_node *node = &model->node[i];
    uint64_t offset = any_offset(run);
    size_t length = any_length(run);
    test_fill(bytes, length, test_random(&run->random));
    bool append = below(run, 4) == 0 && node->size + length <= MODEL_FILE_BYTES;
    if (append) offset = node->size;
    if (below(run, 5) == 0) { /* a batch of blocks */
        uint64_t blocks[16];
        for (unsigned n = 0; n < 16; n++)
            blocks[n] = below(run, 3) && n ? blocks[n - 1] + 1 : below(run, 40);
        CHECK_EQ(cow_file_write_blocks(tree, node->ino, blocks, 16, bytes), 0);
        for (unsigned n = 0; n < 16; n++)
            model_write(node, blocks[n] * 4096, bytes + (size_t)n * 4096, 4096);
        return;
    }
    CHECK_EQ(cow_file_write(tree, node->ino, append ? COW_APPEND : offset, bytes, length), length);
    model_write(node, offset, bytes, length);
}

static inline void step_shape(struct run *run, cow_tree *tree, struct model *model)
{
    int i = any_node(run, model, false);
    if (i < 0) return;
    struct model_node *node = &model->node[i];
    uint64_t offset = any_offset(run);
    size_t length = any_length(run);
    if (below(run, 2)) {
        CHECK_EQ(cow_file_truncate(tree, node->ino, offset), 0);
        if (offset < node->size) memset(node->data + offset, 0, node->size - offset);
        node->size = offset;
        return;
    }
    CHECK_EQ(cow_file_punch(tree, node->ino, offset, length), 0);
    if (offset < node->size)
        memset(node->data + offset, 0, length < node->size - offset ? length : node->size - offset);
}

static inline void step_read(struct run *run, cow_tree *tree, struct model *model)
{
    static uint8_t got[65536];
    int i = any_node(run, model, false);
    if (i < 0) return;
    const struct model_node *node = &model->node[i];
    uint64_t offset = any_offset(run);
    size_t length = any_length(run);
    uint64_t wanted = offset >= node->size ? 0 : node->size - offset < length ? node->size - offset : length;
    CHECK_EQ(cow_file_read(tree, node->ino, offset, got, length), wanted);
    CHECK(memcmp(got, node->data + offset, wanted) == 0);
}

static inline void step_clone(struct run *run, cow_tree *tree, struct model *model)
{
    unsigned s = below(run, TREES);
    if (!run->tree[s]) return;
    int i = any_node(run, model, false), j = any_node(run, &run->model[s], false);
    if (i < 0 || j < 0 || (tree == run->tree[s] && i == j)) return;
    struct model_node *to = &model->node[i];
    const struct model_node *from = &run->model[s].node[j];
    uint64_t from_offset = (uint64_t)below(run, 40) * 4096, offset = (uint64_t)below(run, 40) * 4096;
    if (from_offset >= from->size) return;
    uint64_t length = (uint64_t)below(run, 30) * 4096, left = from->size - from_offset;
    if (length >= left) length = offset + left >= to->size ? left : left & ~(uint64_t)4095;
    CHECK_EQ(cow_file_clone(run->tree[s], from->ino, from_offset, tree, to->ino, offset, length), 0);
    if (length) model_write(to, offset, from->data + from_offset, length);
}

static inline void step_pin(struct run *run, cow_tree *tree, struct model *model)
{
    int i = any_node(run, model, false);
    if (i < 0) return;
    struct model_node *node = &model->node[i];
    if (node->pins) {
        CHECK_EQ(cow_inode_put(tree, node->ino), 0);
        node->pins--;
        model_lose(model, i);
    } else {
        CHECK_EQ(cow_inode_get(tree, node->ino), 0);
        node->pins++;
    }
}

static inline void unpin_all(struct run *run, unsigned t)
{
    for (int i = 0; i < MODEL_NODES; i++) {
        struct model_node *node = &run->model[t].node[i];
        for (; node->used && node->pins; node->pins--)
            CHECK_EQ(cow_inode_put(run->tree[t], node->ino), 0);
        if (node->used && !node->is_dir) model_lose(&run->model[t], i);
    }
}

static inline void step_trees(struct run *run, unsigned t)
{
    unsigned other = below(run, TREES);
    if (other == t) return;
    if (run->tree[other]) {
        model_verify_diff(&run->model[other], run->tree[other], &run->model[t], run->tree[t]);
        if (below(run, 3)) return;
        unpin_all(run, other);
        MUST(cow_tree_delete(run->tree[other]));
        cow_tree_close(run->tree[other]);
        run->tree[other] = NULL;
        return;
    }
    MUST(cow_tree_fork(run->tree[t], below(run, 2) ? COW_FORK_BASE : 0, &run->tree[other]));
    model_copy(&run->model[other], &run->model[t]);
}

static inline void one_step(struct run *run)
{
    unsigned t = below(run, TREES);
    while (!run->tree[t])
        t = (t + 1) % TREES;
    cow_tree *tree = run->tree[t];
    struct model *model = &run->model[t];
    switch (below(run, 32)) {
    case 0:
    case 1:
    case 2:
    case 3: step_make(run, tree, model); break;
    case 4:
    case 5: step_link(run, tree, model); break;
    case 6:
    case 7: step_remove(run, tree, model); break;
    case 8:
    case 9:
    case 10: step_rename(run, tree, model); break;
    case 11:
    case 12:
    case 13: step_shape(run, tree, model); break;
    case 14:
    case 15:
    case 16: step_clone(run, tree, model); break;
    case 17: step_pin(run, tree, model); break;
    case 18: step_trees(run, t); break;
    case 19:
        if (below(run, 3)) break;
        if (run->commit) run->commit();
        else MUST(cow_store_commit(run->store));
        break;
    case 20:
    case 21:
    case 22:
    case 23: step_read(run, tree, model); break;
    default: step_write(run, tree, model); break;
    }
}

#endif
