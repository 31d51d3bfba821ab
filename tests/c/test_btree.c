/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Model tests of the copy-on-write forest. Several trees, forked from each other, live through random puts,
 * replacements, removals, cursor moves, forks, releases, differences and commits; each is compared with a sorted array.
 * EXTENT items refer to real data blocks. Again and again all reference counts are recomputed by a walk over every
 * root. Further tests: cost of differences, fill of nodes, faults of the medium, and writers and readers of shared
 * nodes in threads.
 *
 *   test_btree                      the runs of CI
 *   test_btree random SEED STEPS    one random run; a failure prints this line
 *   test_btree bench [ITEMS]        times, for people
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "btree/btree.h"
#include "dev/dev.h"
#include "test.h"

static uint64_t run_seed, run_steps;
static uint64_t read_failures, full_failures; /* puts that the fault tests made fail */

/* Ends the test at once: after a difference from the model nothing makes sense. Says how to see it again. */
#define ENSURE(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: failed: %s (%s)\n  replay: test_btree random %" PRIu64 " %" PRIu64 "\n", __FILE__, \
                    __LINE__, #condition, cow_error_detail(), run_seed, run_steps); \
            abort(); \
        } \
    } while (0)

/* ---- Surroundings -------------------------------------------------------------------------------- */

struct env {
    struct cow_dev *dev;
    struct cow_space *space;
    struct cow_nodes *nodes;
    uint64_t durable;
    uint64_t random;
};

static unsigned below(uint64_t *state, unsigned n) { return (unsigned)(test_random(state) % n); }

static void env_open(struct env *env, bool faults, uint64_t cache_bytes, uint64_t seed)
{
    memset(env, 0, sizeof *env);
    env->random = seed;
    ENSURE((faults ? cow_dev_sim_open(&env->dev) : cow_dev_memory_open(&env->dev)) == 0);
    struct cow_space_state state = COW_SPACE_STATE_INIT;
    ENSURE(cow_space_open(env->dev, &state, 0, 64 << 20, &env->space) == 0);
    ENSURE(cow_nodes_open(env->space, cache_bytes, 1, &env->nodes) == 0);
}

static void env_close(struct env *env)
{
    cow_nodes_close(env->nodes);
    cow_space_close(env->space);
    cow_dev_destroy(env->dev);
}

static void commit_close(struct env *env)
{
    struct cow_space_state state;
    ENSURE(cow_nodes_commit_close(env->nodes) == 0);
    ENSURE(cow_space_commit_close(env->space, &state) == 0);
}

static void commit_rest(struct env *env)
{
    ENSURE(cow_nodes_commit_write(env->nodes) == 0);
    ENSURE(cow_space_commit_write(env->space) == 0);
    ENSURE(cow_space_commit_sync(env->space) == 0);
    ENSURE(cow_space_commit_done(env->space, ++env->durable, UINT64_MAX) == 0);
    cow_nodes_commit_done(env->nodes);
}

static void commit(struct env *env)
{
    commit_close(env);
    commit_rest(env);
}

static uint64_t visited(struct env *env) { return cow_counted(&cow_nodes_counters(env->nodes)->nodes_visited); }

/* ---- The model ----------------------------------------------------------------------------------- */

struct item {
    struct cow_key key;
    uint32_t length, seed; /* of plain values */
    cow_addr addr;         /* of EXTENT items */
    uint32_t blocks;
};

struct model {
    struct item *items;
    size_t count, capacity;
};

struct tree {
    bool used;
    struct cow_root root;
    struct model model;
};

#define TREES 6u
#define VALUE_MAX COW_VALUE_BYTES_MAX

struct world {
    struct env env;
    struct tree trees[TREES];
    struct cow_release release;
    unsigned inos, offsets; /* size of the key space */
    bool closing;           /* between commit_close and commit_rest */
    bool faults;
    uint64_t read_failures, full_failures;
};

static size_t model_find(const struct model *model, struct cow_key key)
{
    size_t low = 0, high = model->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (cow_key_compare(model->items[middle].key, key) < 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

static struct item *model_at(const struct model *model, struct cow_key key)
{
    size_t i = model_find(model, key);
    return i < model->count && cow_key_compare(model->items[i].key, key) == 0 ? &model->items[i] : NULL;
}

static void model_put(struct model *model, const struct item *item)
{
    struct item *have = model_at(model, item->key);
    if (have != NULL) {
        *have = *item;
        return;
    }
    if (model->count == model->capacity) {
        model->capacity = model->capacity * 2 + 64;
        model->items = realloc(model->items, model->capacity * sizeof *model->items);
        ENSURE(model->items != NULL);
    }
    size_t i = model_find(model, item->key);
    memmove(model->items + i + 1, model->items + i, (model->count - i) * sizeof *item);
    model->items[i] = *item;
    model->count++;
}

static void model_del(struct model *model, struct cow_key key)
{
    size_t i = model_find(model, key);
    memmove(model->items + i, model->items + i + 1, (model->count - i - 1) * sizeof *model->items);
    model->count--;
}

static void model_copy(struct model *model, const struct model *source)
{
    model->count = model->capacity = source->count;
    model->items = malloc((source->count + 1) * sizeof *model->items);
    ENSURE(model->items != NULL);
    if (source->count > 0) memcpy(model->items, source->items, source->count * sizeof *model->items);
}

static size_t item_value(const struct item *item, uint8_t *value)
{
    if (cow_key_type(item->key) == COW_ITEM_EXTENT) {
        struct cow_run run = {item->addr, item->blocks, item->seed};
        cow_run_encode(&run, value);
        return COW_RUN_BYTES;
    }
    for (uint32_t i = 0; i < item->length; i++) value[i] = (uint8_t)((item->seed + i * 37u) ^ (i >> 8));
    return item->length;
}

static bool item_is(const struct item *item, const uint8_t *value, size_t value_bytes)
{
    uint8_t expected[VALUE_MAX];
    size_t length = item_value(item, expected);
    return length == value_bytes && (length == 0 || memcmp(expected, value, length) == 0);
}

static struct cow_key random_key(struct world *w)
{
    static const enum cow_item_type types[] = {COW_ITEM_INODE, COW_ITEM_XATTR, COW_ITEM_INLINE, COW_ITEM_EXTENT,
                                               COW_ITEM_EXTENT};
    uint64_t *random = &w->env.random;
    return cow_key_make(1 + below(random, w->inos), types[below(random, 5)], below(random, w->offsets));
}

/* ---- Counts -------------------------------------------------------------------------------------- */

struct count_walk {
    struct cow_space_check *check;
    uint64_t *seen; /* open-addressed set of node addresses; 0 = empty */
    size_t mask, used;
};

static bool seen_before(struct count_walk *walk, cow_addr addr)
{
    size_t i = (size_t)((addr * 0x9e3779b97f4a7c15u) >> 20) & walk->mask;
    while (walk->seen[i] != 0 && walk->seen[i] != addr) i = (i + 1) & walk->mask;
    if (walk->seen[i] == addr) return true;
    walk->seen[i] = addr;
    ENSURE(++walk->used < walk->mask);
    return false;
}

static int count_node(void *context, cow_addr addr, unsigned level)
{
    struct count_walk *walk = context;
    (void)level;
    ENSURE(cow_space_check_expect(walk->check, addr, 1) == 0);
    return seen_before(walk, addr) ? 0 : 1;
}

static int count_item(void *context, struct cow_key key, const uint8_t *value, size_t value_bytes)
{
    struct count_walk *walk = context;
    cow_addr addr;
    uint32_t blocks;
    if (cow_item_run(key, value, value_bytes, &addr, &blocks))
        ENSURE(cow_space_check_expect(walk->check, addr, blocks) == 0);
    return 0;
}

static void report_problem(void *context, const char *text)
{
    (void)context;
    fprintf(stderr, "count: %s\n", text);
}

/* The counts of all blocks are what the given roots make of them. */
static void check_counts(struct env *env, const struct cow_root *roots, size_t root_count)
{
    struct count_walk walk = {.mask = ((size_t)1 << 20) - 1};
    walk.seen = calloc(walk.mask + 1, sizeof *walk.seen);
    ENSURE(walk.seen != NULL);
    ENSURE(cow_space_check_begin(env->space, &walk.check) == 0);
    struct cow_btree_visitor visitor = {.node = count_node, .item = count_item, .context = &walk};
    for (size_t i = 0; i < root_count; i++) ENSURE(cow_btree_visit(env->nodes, roots[i], &visitor) == 0);
    uint64_t errors = 0;
    ENSURE(cow_space_check_end(walk.check, report_problem, NULL, &errors) == 0);
    ENSURE(errors == 0);
    free(walk.seen);
}

static void check_world_counts(struct world *w)
{
    struct cow_root *roots = malloc((TREES + COW_RELEASE_STACK_MAX) * sizeof *roots);
    ENSURE(roots != NULL);
    size_t count = 0;
    for (unsigned i = 0; i < TREES; i++)
        if (w->trees[i].used) roots[count++] = w->trees[i].root;
    for (uint32_t i = 0; i < w->release.depth; i++) roots[count++] = w->release.stack[i];
    check_counts(&w->env, roots, count);
    free(roots);
}

/* ---- Steps of a random run ----------------------------------------------------------------------- */

static void unref_item(struct world *w, const struct item *item)
{
    if (cow_key_type(item->key) == COW_ITEM_EXTENT)
        ENSURE(cow_space_unref(w->env.space, item->addr, item->blocks, NULL) == 0);
}

static struct tree *random_tree(struct world *w)
{
    for (;;) {
        struct tree *tree = &w->trees[below(&w->env.random, TREES)];
        if (tree->used) return tree;
    }
}

static uint32_t random_length(uint64_t *random)
{
    switch (below(random, 8)) {
    case 0: return below(random, VALUE_MAX + 1);
    case 1: return 0;
    case 2: return VALUE_MAX;
    default: return below(random, 120);
    }
}

static void step_put(struct world *w, struct tree *tree)
{
    uint64_t *random = &w->env.random;
    struct item item = {.key = random_key(w), .seed = (uint32_t)test_random(random)};
    struct item *old = model_at(&tree->model, item.key);
    if (cow_key_type(item.key) == COW_ITEM_EXTENT) {
        int rc = cow_space_alloc_data(w->env.space, 0, 1 + below(random, 6), &item.addr, &item.blocks);
        ENSURE(rc == 0 || w->faults);
        if (rc != 0) return;
    } else {
        item.length = old != NULL && below(random, 2) == 0 ? old->length : random_length(random);
    }
    uint8_t value[VALUE_MAX];
    size_t length = item_value(&item, value);
    int rc = cow_btree_put(w->env.nodes, &tree->root, item.key, value, length);
    if (rc != 0) {
        ENSURE(w->faults && (rc == -EIO || rc == -ENOSPC));
        if (rc == -EIO) w->read_failures++;
        else w->full_failures++;
        unref_item(w, &item);
        return;
    }
    if (old != NULL) unref_item(w, old);
    model_put(&tree->model, &item);
}

static void step_del(struct world *w, struct tree *tree)
{
    struct cow_key key = random_key(w);
    if (tree->model.count > 0 && below(&w->env.random, 4) != 0)
        key = tree->model.items[below(&w->env.random, (unsigned)tree->model.count)].key;
    struct item *old = model_at(&tree->model, key);
    int rc = cow_btree_del(w->env.nodes, &tree->root, key);
    if (rc != 0 && w->faults) return;
    ENSURE(rc == (old != NULL ? 0 : -ENOENT));
    if (old == NULL) return;
    unref_item(w, old);
    model_del(&tree->model, key);
}

static void step_get(struct world *w, const struct tree *tree)
{
    struct cow_key key = random_key(w);
    const struct item *item = model_at(&tree->model, key);
    uint8_t value[VALUE_MAX];
    int64_t length = cow_btree_get(w->env.nodes, tree->root, key, value, sizeof value);
    if (length < 0 && length != -ENOENT && w->faults) return;
    ENSURE((item == NULL) == (length == -ENOENT));
    if (item != NULL) ENSURE(item_is(item, value, (size_t)length));
}

/* Seeks and then moves about, beside the model's index. */
static void step_cursor(struct world *w, const struct tree *tree)
{
    uint64_t *random = &w->env.random;
    const struct model *model = &tree->model;
    struct cow_key key = random_key(w);
    bool last = below(random, 2) == 0;
    size_t at = model_find(model, key); /* model->count = not valid; SIZE_MAX wraps to it below */
    if (last && model_at(model, key) == NULL) at = at == 0 ? model->count : at - 1;
    struct cow_cursor cursor;
    cow_cursor_init(&cursor, w->env.nodes, tree->root);
    int rc = last ? cow_cursor_seek_last(&cursor, key) : cow_cursor_seek(&cursor, key);
    for (unsigned moves = below(random, 60); rc == 0; moves--) {
        ENSURE(cursor.valid == (at < model->count));
        if (!cursor.valid) break;
        ENSURE(cow_key_compare(cursor.key, model->items[at].key) == 0);
        ENSURE(item_is(&model->items[at], cursor.value, cursor.value_bytes));
        if (moves == 0) break;
        bool forward = below(random, 5) == 0 ? last : !last;
        rc = forward ? cow_cursor_next(&cursor) : cow_cursor_previous(&cursor);
        at = forward ? at + 1 : at == 0 ? model->count : at - 1;
    }
    ENSURE(rc == 0 || w->faults);
    cow_cursor_deinit(&cursor);
}

static void release_some(struct world *w, uint32_t budget)
{
    uint32_t done = 0;
    int rc = cow_btree_release(w->env.nodes, &w->release, budget, &done);
    ENSURE(rc == 0 || w->faults);
    ENSURE(done <= budget);
}

static void step_release(struct world *w, struct tree *tree)
{
    w->release.stack[w->release.depth++] = tree->root;
    free(tree->model.items);
    memset(tree, 0, sizeof *tree);
    release_some(w, below(&w->env.random, 4) == 0 ? UINT32_MAX : 1 + below(&w->env.random, 50));
}

static void step_fork(struct world *w, const struct tree *source)
{
    struct tree *target = &w->trees[below(&w->env.random, TREES)];
    if (target == source) return;
    if (target->used) step_release(w, target);
    ENSURE(cow_btree_ref(w->env.nodes, source->root) == 0);
    target->used = true;
    target->root = source->root;
    model_copy(&target->model, &source->model);
}

struct diff_walk {
    const struct model *old_model, *new_model;
    size_t old_at, new_at;
    struct cow_key last;
};

/* Moves the walk to the next key that differs in the models: false at the end. */
static bool model_diff(struct diff_walk *walk, const struct item **old_out, const struct item **new_out)
{
    for (;;) {
        const struct item *a = walk->old_at < walk->old_model->count ? &walk->old_model->items[walk->old_at] : NULL;
        const struct item *b = walk->new_at < walk->new_model->count ? &walk->new_model->items[walk->new_at] : NULL;
        if (a != NULL && cow_key_compare(a->key, walk->last) > 0) a = NULL;
        if (b != NULL && cow_key_compare(b->key, walk->last) > 0) b = NULL;
        if (a == NULL && b == NULL) return false;
        int order = a == NULL ? 1 : b == NULL ? -1 : cow_key_compare(a->key, b->key);
        if (order <= 0) walk->old_at++;
        if (order >= 0) walk->new_at++;
        uint8_t value[VALUE_MAX];
        if (order == 0 && item_is(a, value, item_value(b, value))) continue;
        *old_out = order <= 0 ? a : NULL;
        *new_out = order >= 0 ? b : NULL;
        return true;
    }
}

static int diff_each(void *context, struct cow_key key, const uint8_t *old_value, size_t old_bytes,
                     const uint8_t *new_value, size_t new_bytes)
{
    const struct item *a = NULL, *b = NULL;
    ENSURE(model_diff(context, &a, &b));
    ENSURE(cow_key_compare(key, a != NULL ? a->key : b->key) == 0);
    ENSURE((a != NULL) == (old_value != NULL) && (b != NULL) == (new_value != NULL));
    if (a != NULL) ENSURE(item_is(a, old_value, old_bytes));
    if (b != NULL) ENSURE(item_is(b, new_value, new_bytes));
    return 0;
}

static void step_diff(struct world *w, const struct tree *a, const struct tree *b)
{
    struct cow_key first = {0, 0}, last = {UINT64_MAX, UINT64_MAX};
    if (below(&w->env.random, 3) == 0) {
        first = random_key(w);
        last = random_key(w);
    }
    struct diff_walk walk = {&a->model, &b->model, model_find(&a->model, first), model_find(&b->model, first), last};
    int rc = cow_btree_diff(w->env.nodes, a->root, b->root, first, last, diff_each, &walk);
    if (rc != 0 && w->faults) return;
    ENSURE(rc == 0);
    const struct item *x, *y;
    ENSURE(!model_diff(&walk, &x, &y));
}

struct exclusive_walk {
    struct cow_space *space;
    uint64_t nodes, data;
};

static int exclusive_node(void *context, cow_addr addr, unsigned level)
{
    struct exclusive_walk *walk = context;
    uint32_t refs = 0;
    (void)level;
    ENSURE(cow_space_refs(walk->space, addr, &refs) == 0 && refs > 0);
    if (refs > 1) return 0;
    walk->nodes++;
    return 1;
}

static int exclusive_item(void *context, struct cow_key key, const uint8_t *value, size_t value_bytes)
{
    struct exclusive_walk *walk = context;
    cow_addr addr;
    uint32_t blocks;
    if (!cow_item_run(key, value, value_bytes, &addr, &blocks)) return 0;
    for (uint32_t i = 0; i < blocks; i++) {
        uint32_t refs = 0;
        ENSURE(cow_space_refs(walk->space, addr + i, &refs) == 0 && refs > 0);
        if (refs == 1) walk->data++;
    }
    return 0;
}

static void step_exclusive(struct world *w, const struct tree *tree)
{
    struct exclusive_walk walk = {.space = w->env.space};
    struct cow_btree_visitor visitor = {.node = exclusive_node, .item = exclusive_item, .context = &walk};
    uint64_t nodes = 0, data = 0;
    int rc = cow_btree_visit(w->env.nodes, tree->root, &visitor);
    if (rc == 0) rc = cow_btree_exclusive(w->env.nodes, tree->root, &nodes, &data);
    if (rc != 0 && w->faults) return;
    ENSURE(rc == 0);
    ENSURE(nodes == walk.nodes && data == walk.data);
}

static void step_commit(struct world *w)
{
    if (w->closing) {
        commit_rest(&w->env);
        w->closing = false;
    } else if (below(&w->env.random, 2) == 0) {
        commit(&w->env);
    } else {
        commit_close(&w->env); /* the next generation's steps run beside the frozen nodes */
        w->closing = true;
    }
}

static void check_tree(struct world *w, const struct tree *tree)
{
    struct cow_cursor cursor;
    cow_cursor_init(&cursor, w->env.nodes, tree->root);
    ENSURE(cow_cursor_seek(&cursor, (struct cow_key){0, 0}) == 0);
    for (size_t i = 0; i < tree->model.count; i++) {
        ENSURE(cursor.valid && cow_key_compare(cursor.key, tree->model.items[i].key) == 0);
        ENSURE(item_is(&tree->model.items[i], cursor.value, cursor.value_bytes));
        ENSURE(cow_cursor_next(&cursor) == 0);
    }
    ENSURE(!cursor.valid);
    cow_cursor_deinit(&cursor);
}

static void step(struct world *w)
{
    uint64_t *random = &w->env.random;
    struct tree *tree = random_tree(w);
    unsigned roll = below(random, 1000);
    if (roll < 430) step_put(w, tree);
    else if (roll < 650) step_del(w, tree);
    else if (roll < 800) step_get(w, tree);
    else if (roll < 930) step_cursor(w, tree);
    else if (roll < 945) step_diff(w, tree, random_tree(w));
    else if (roll < 960) release_some(w, 1 + below(random, 30));
    else if (roll < 968) step_fork(w, tree);
    else if (roll < 975) step_exclusive(w, tree);
    else if (roll < 990) ENSURE(cow_btree_reserve(w->env.nodes, 1 + below(random, 8)) == 0 || w->faults);
    else if (roll < 996) step_commit(w);
}

/* All trees go, and with them every block. */
static void world_end(struct world *w)
{
    for (unsigned i = 0; i < TREES; i++)
        if (w->trees[i].used) step_release(w, &w->trees[i]);
    release_some(w, UINT32_MAX);
    ENSURE(w->release.depth == 0);
    check_counts(&w->env, NULL, 0);
    if (w->closing) commit_rest(&w->env);
    commit(&w->env);
    check_counts(&w->env, NULL, 0);
    env_close(&w->env);
}

static void world_begin(struct world *w, uint64_t seed, bool faults)
{
    memset(w, 0, sizeof *w);
    env_open(&w->env, faults, 1 << 20, seed); /* a small cache: evictions happen */
    w->inos = 1 + below(&w->env.random, 40);
    w->offsets = 4 + below(&w->env.random, 200);
    w->trees[0].used = true;
    ENSURE(cow_btree_create(w->env.nodes, &w->trees[0].root) == 0);
}

static void test_random_run(uint64_t seed, uint64_t steps)
{
    run_seed = seed;
    run_steps = steps;
    struct world *w = malloc(sizeof *w);
    ENSURE(w != NULL);
    world_begin(w, seed, false);
    for (uint64_t i = 0; i < steps; i++) {
        step(w);
        if (i % 4000 == 3999) {
            check_world_counts(w);
            for (unsigned t = 0; t < TREES; t++)
                if (w->trees[t].used) check_tree(w, &w->trees[t]);
        }
    }
    world_end(w);
    free(w);
}

/* Reads fail at random, or the host is full: every operation either happens or leaves its tree as it was, and no count
 * is lost. */
static void test_faults(uint64_t seed, uint64_t rounds)
{
    run_seed = seed;
    struct world *w = malloc(sizeof *w);
    ENSURE(w != NULL);
    world_begin(w, seed, true);
    w->inos = 40;
    w->offsets = 200;
    for (unsigned i = 0; i < 3000; i++) step_put(w, &w->trees[0]); /* more nodes than the cache holds */
    commit(&w->env);
    for (uint64_t round = 0; round < rounds; round++) {
        w->faults = true;
        bool full = below(&w->env.random, 3) == 0; /* the host file cannot grow */
        cow_dev_sim_fail(w->env.dev, full ? COW_DEV_SIM_OTHER : COW_DEV_SIM_READ, full ? 0 : below(&w->env.random, 40),
                         full ? ENOSPC : EIO, full || below(&w->env.random, 4) == 0);
        for (unsigned i = 0; i < 120; i++) {
            struct tree *tree = random_tree(w);
            unsigned roll = below(&w->env.random, 10);
            if (roll < 4) step_put(w, tree);
            else if (roll < 6) step_del(w, tree);
            else if (roll < 7) step_cursor(w, tree);
            else if (roll < 8) release_some(w, 5);
            else if (roll < 9) step_get(w, tree);
            else if (below(&w->env.random, 20) == 0) step_fork(w, tree);
            else step_diff(w, tree, random_tree(w));
        }
        cow_dev_sim_fail(w->env.dev, 0, UINT64_MAX, 0, false);
        w->faults = false;
        check_world_counts(w);
        for (unsigned t = 0; t < TREES; t++)
            if (w->trees[t].used) check_tree(w, &w->trees[t]);
        commit(&w->env);
    }
    read_failures += w->read_failures;
    full_failures += w->full_failures;
    world_end(w);
    free(w);
}

/* ---- Form and cost ------------------------------------------------------------------------------- */

static struct cow_key plain_key(uint64_t n) { return cow_key_make(1 + n / 1000, COW_ITEM_XATTR, n % 1000); }

static void fill(struct env *env, struct cow_root *root, uint64_t items)
{
    uint8_t value[20] = {0};
    for (uint64_t i = 0; i < items; i++) {
        cow_store64(value, i);
        ENSURE(cow_btree_put(env->nodes, root, plain_key(i), value, sizeof value) == 0);
        if (cow_nodes_dirty(env->nodes) > 4096) commit(env);
    }
}

static void release_root(struct env *env, struct cow_root root)
{
    struct cow_release *release = calloc(1, sizeof *release);
    ENSURE(release != NULL);
    release->stack[release->depth++] = root;
    uint32_t done = 0;
    ENSURE(cow_btree_release(env->nodes, release, UINT32_MAX, &done) == 0);
    ENSURE(release->depth == 0);
    free(release);
}

/* Items that come in order fill nodes to the brim; removing all in any order leaves one empty leaf. */
static void test_form(void)
{
    struct env env;
    env_open(&env, false, 64 << 20, 7);
    struct cow_root root;
    ENSURE(cow_btree_create(env.nodes, &root) == 0);
    const uint64_t items = 50000;
    fill(&env, &root, items);
    uint64_t nodes = 0, data = 0;
    ENSURE(cow_btree_exclusive(env.nodes, root, &nodes, &data) == 0);
    uint64_t leaves = items / (COW_NODE_CAPACITY / (COW_SLOT_BYTES + 20)) + 1;
    ENSURE(nodes <= leaves + leaves / 100 + 3);
    commit(&env);
    for (uint64_t i = 0; i < items; i++) { /* 7919 is prime to items: each once, scattered */
        ENSURE(cow_btree_del(env.nodes, &root, plain_key(i * 7919 % items)) == 0);
        if (i == items / 4 * 3) {
            ENSURE(cow_btree_exclusive(env.nodes, root, &nodes, &data) == 0);
            ENSURE(nodes <= leaves / 4 * 3);
        }
    }
    ENSURE(cow_btree_exclusive(env.nodes, root, &nodes, &data) == 0);
    ENSURE(nodes == 1);
    release_root(&env, root);
    check_counts(&env, NULL, 0);
    env_close(&env);
}

static int count_each(void *context, struct cow_key key, const uint8_t *old_value, size_t old_bytes,
                      const uint8_t *new_value, size_t new_bytes)
{
    (void)key, (void)old_value, (void)old_bytes, (void)new_value, (void)new_bytes;
    ++*(uint64_t *)context;
    return 0;
}

static int stop_each(void *context, struct cow_key key, const uint8_t *old_value, size_t old_bytes,
                     const uint8_t *new_value, size_t new_bytes)
{
    (void)context, (void)key, (void)old_value, (void)old_bytes, (void)new_value, (void)new_bytes;
    return 77;
}

/* A difference costs the paths to it, also when the trees' shapes differ. */
static void test_diff_cost(void)
{
    const struct cow_key first = {0, 0}, last = {UINT64_MAX, UINT64_MAX};
    struct env env;
    env_open(&env, false, 64 << 20, 11);
    struct cow_root base, fork;
    ENSURE(cow_btree_create(env.nodes, &base) == 0);
    fill(&env, &base, 100000);
    commit(&env);
    ENSURE(cow_btree_ref(env.nodes, base) == 0);
    fork = base;
    uint64_t before = visited(&env), found = 0;
    ENSURE(cow_btree_diff(env.nodes, base, fork, first, last, count_each, &found) == 0);
    ENSURE(found == 0 && visited(&env) == before);
    uint8_t value[1500] = {1};
    for (unsigned i = 0; i < 10; i++) /* splits leaves: later ones stand at other places */
        ENSURE(cow_btree_put(env.nodes, &fork, cow_key_make(3 + 7 * i, COW_ITEM_SYMLINK, i), value, sizeof value) == 0);
    before = visited(&env);
    ENSURE(cow_btree_diff(env.nodes, base, fork, first, last, count_each, &found) == 0);
    ENSURE(found == 10);
    ENSURE(visited(&env) - before <= 10 * 2 * 5);
    ENSURE(cow_btree_diff(env.nodes, base, fork, first, last, stop_each, NULL) == 77);
    struct cow_root grown = fork; /* a taller tree: its old root is far below */
    ENSURE(cow_btree_ref(env.nodes, fork) == 0);
    for (uint64_t i = 0; i < 30000; i++)
        ENSURE(cow_btree_put(env.nodes, &grown, cow_key_make(5000 + i, COW_ITEM_XATTR, 0), value, 300) == 0);
    before = visited(&env);
    found = 0;
    ENSURE(cow_btree_diff(env.nodes, fork, grown, first, last, count_each, &found) == 0);
    ENSURE(found == 30000);
    uint64_t nodes = 0, data = 0;
    ENSURE(cow_btree_exclusive(env.nodes, grown, &nodes, &data) == 0);
    ENSURE(visited(&env) - before <= 2 * nodes + 20);
    struct cow_root roots[3] = {base, fork, grown};
    check_counts(&env, roots, 3);
    for (unsigned i = 0; i < 3; i++) release_root(&env, roots[i]);
    check_counts(&env, NULL, 0);
    env_close(&env);
}

/* ---- Bytes from a bad medium --------------------------------------------------------------------- */

/* Random damage to a valid node is refused, or leaves it such that all accessors stay within the block. */
static void test_validate(void)
{
    uint64_t random = 99;
    uint8_t node[COW_BLOCK_BYTES], bad[COW_BLOCK_BYTES];
    for (unsigned round = 0; round < 20000; round++) {
        unsigned level = below(&random, 3);
        cow_node_init(node, level, 77, 5);
        for (unsigned i = 0; i < 10 + below(&random, 60); i++) {
            struct cow_key key = cow_key_make(i + 1, COW_ITEM_XATTR, below(&random, 100));
            uint8_t value[40] = {0};
            if (level > 0) cow_entry_insert(node, i, key, 100 + i, 3);
            else cow_leaf_insert(node, i, key, value, below(&random, 40));
        }
        ENSURE(cow_node_validate(node, 77, 5) == 0);
        ENSURE(cow_node_validate(node, 78, 5) == -COW_EDAMAGE && cow_node_validate(node, 77, 6) == -COW_EDAMAGE);
        memcpy(bad, node, sizeof bad);
        for (unsigned i = 0; i < 1 + below(&random, 4); i++)
            bad[below(&random, below(&random, 2) ? 64 : 1500)] = (uint8_t)test_random(&random);
        if (cow_node_validate(bad, 77, 5) != 0) continue;
        unsigned sum = 0;
        bool found;
        for (unsigned i = 0; i < cow_node_count(bad); i++) {
            if (cow_node_level(bad) > 0) {
                ENSURE(cow_entry_child(bad, i) != 0 && cow_addr_segment(cow_entry_child(bad, i)) == 0);
                ENSURE(cow_entry_find(bad, cow_entry_key(bad, i)) == i);
                continue;
            }
            ENSURE(cow_leaf_find(bad, cow_leaf_key(bad, i), &found) == i && found);
            for (unsigned b = 0; b < cow_leaf_length(bad, i); b++) sum += cow_leaf_value(bad, i)[b];
        }
        ENSURE(sum < UINT32_MAX);
        while (cow_node_level(bad) == 0 && cow_leaf_room(bad) >= COW_SLOT_BYTES + 900)
            cow_leaf_insert(bad, cow_node_count(bad), (struct cow_key){UINT64_MAX, cow_node_count(bad)}, node, 900);
        for (unsigned at = cow_node_count(bad); at > 0 && cow_node_level(bad) == 0; at--) cow_leaf_remove(bad, at - 1);
    }
}

/* ---- Threads ------------------------------------------------------------------------------------- */

#define WORKERS 4u
#define SHARED_ITEMS 3000u

struct crowd {
    struct env env;
    pthread_rwlock_t writers;
    struct cow_root base, forks[WORKERS];
    pthread_rwlock_t locks[WORKERS];
    unsigned rounds;
    _Atomic unsigned next;
    _Atomic bool stop;
};

/* A writer of one tree; all trees share their nodes at first. Now and then it starts over from the base. */
static void *crowd_writer(void *argument)
{
    struct crowd *crowd = argument;
    unsigned me = crowd->next++;
    uint64_t random = 1000 + me;
    struct cow_root *root = &crowd->forks[me];
    uint8_t value[60];
    memset(value, (int)me + 1, sizeof value);
    for (unsigned i = 0; i < crowd->rounds; i++) {
        pthread_rwlock_rdlock(&crowd->writers);
        pthread_rwlock_wrlock(&crowd->locks[me]);
        struct cow_key key = plain_key(below(&random, SHARED_ITEMS));
        int rc = below(&random, 3) == 0 ? cow_btree_del(crowd->env.nodes, root, key)
                                        : cow_btree_put(crowd->env.nodes, root, key, value, 1 + below(&random, 60));
        ENSURE(rc == 0 || rc == -ENOENT);
        if (i % 300 == 299) {
            struct cow_root old = *root;
            unsigned other =
                below(&random, 3) == 0 && me > 0 ? me - 1 : WORKERS; /* the base, or a tree being written */
            if (other < WORKERS) pthread_rwlock_rdlock(&crowd->locks[other]);
            *root = other < WORKERS ? crowd->forks[other] : crowd->base;
            ENSURE(cow_btree_ref(crowd->env.nodes, *root) == 0);
            if (other < WORKERS) pthread_rwlock_unlock(&crowd->locks[other]);
            release_root(&crowd->env, old);
        }
        pthread_rwlock_unlock(&crowd->locks[me]);
        pthread_rwlock_unlock(&crowd->writers);
    }
    return NULL;
}

/* Reads the base, which never changes, and the forks. */
static void *crowd_reader(void *argument)
{
    struct crowd *crowd = argument;
    uint64_t random = 5;
    while (!crowd->stop) {
        uint64_t n = below(&random, SHARED_ITEMS);
        uint8_t value[64];
        ENSURE(cow_btree_get(crowd->env.nodes, crowd->base, plain_key(n), value, sizeof value) == 20);
        ENSURE(cow_load64(value) == n);
        unsigned fork = below(&random, WORKERS);
        pthread_rwlock_rdlock(&crowd->locks[fork]);
        struct cow_cursor cursor;
        cow_cursor_init(&cursor, crowd->env.nodes, crowd->forks[fork]);
        ENSURE(cow_cursor_seek(&cursor, plain_key(n)) == 0);
        for (unsigned i = 0; i < 50 && cursor.valid; i++) {
            ENSURE(cursor.value_bytes <= 60);
            ENSURE(cow_cursor_next(&cursor) == 0);
        }
        cow_cursor_deinit(&cursor);
        uint64_t found = 0;
        if (n % 16 == 0)
            ENSURE(cow_btree_diff(crowd->env.nodes, crowd->base, crowd->forks[fork], plain_key(0),
                                  plain_key(UINT32_MAX), count_each, &found) == 0);
        pthread_rwlock_unlock(&crowd->locks[fork]);
    }
    return NULL;
}

static void *crowd_committer(void *argument)
{
    struct crowd *crowd = argument;
    while (!crowd->stop) {
        pthread_rwlock_wrlock(&crowd->writers);
        commit_close(&crowd->env);
        pthread_rwlock_unlock(&crowd->writers);
        commit_rest(&crowd->env);
        struct timespec pause = {0, 2000000};
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static void test_threads(unsigned rounds)
{
    static struct crowd crowd;
    memset(&crowd, 0, sizeof crowd);
    env_open(&crowd.env, false, 1 << 20, 3);
    crowd.rounds = rounds;
    pthread_rwlock_init(&crowd.writers, NULL);
    ENSURE(cow_btree_create(crowd.env.nodes, &crowd.base) == 0);
    fill(&crowd.env, &crowd.base, SHARED_ITEMS);
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_rwlock_init(&crowd.locks[i], NULL);
        crowd.forks[i] = crowd.base;
        ENSURE(cow_btree_ref(crowd.env.nodes, crowd.base) == 0);
    }
    pthread_t writers[WORKERS], readers[2], committer;
    for (unsigned i = 0; i < WORKERS; i++) ENSURE(pthread_create(&writers[i], NULL, crowd_writer, &crowd) == 0);
    for (unsigned i = 0; i < 2; i++) ENSURE(pthread_create(&readers[i], NULL, crowd_reader, &crowd) == 0);
    ENSURE(pthread_create(&committer, NULL, crowd_committer, &crowd) == 0);
    for (unsigned i = 0; i < WORKERS; i++) pthread_join(writers[i], NULL);
    crowd.stop = true;
    for (unsigned i = 0; i < 2; i++) pthread_join(readers[i], NULL);
    pthread_join(committer, NULL);
    struct cow_root roots[WORKERS + 1] = {crowd.base};
    memcpy(roots + 1, crowd.forks, sizeof crowd.forks);
    check_counts(&crowd.env, roots, WORKERS + 1);
    for (unsigned i = 0; i <= WORKERS; i++) release_root(&crowd.env, roots[i]);
    check_counts(&crowd.env, NULL, 0);
    for (unsigned i = 0; i < WORKERS; i++) pthread_rwlock_destroy(&crowd.locks[i]);
    pthread_rwlock_destroy(&crowd.writers);
    env_close(&crowd.env);
}

/* ---- Times --------------------------------------------------------------------------------------- */

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void show_time(const char *what, double started, uint64_t count)
{
    printf("%-34s %8.0f ns\n", what, (now_s() - started) * 1e9 / (double)count);
}

static void bench(uint64_t items)
{
    struct env env;
    env_open(&env, false, 512 << 20, 1);
    struct cow_root root, scattered;
    uint64_t random = 42, state = 42;
    uint8_t value[20] = {0};
    ENSURE(cow_btree_create(env.nodes, &root) == 0 && cow_btree_create(env.nodes, &scattered) == 0);
    double started = now_s();
    for (uint64_t i = 0; i < items; i++) ENSURE(cow_btree_put(env.nodes, &root, plain_key(i), value, 20) == 0);
    show_time("insert in order", started, items);
    started = now_s();
    for (uint64_t i = 0; i < items; i++) {
        struct cow_key key = {test_random(&state), 1};
        ENSURE(cow_btree_put(env.nodes, &scattered, key, value, 20) == 0);
    }
    show_time("insert at random", started, items);
    uint64_t nodes = 0, more = 0, data = 0;
    ENSURE(cow_btree_exclusive(env.nodes, root, &nodes, &data) == 0);
    ENSURE(cow_btree_exclusive(env.nodes, scattered, &more, &data) == 0);
    printf("%-34s %8" PRIu64 "\n%-34s %8" PRIu64 "\n", "nodes, in order", nodes, "nodes, at random", more);
    started = now_s();
    for (uint64_t i = 0; i < items; i++)
        ENSURE(cow_btree_put(env.nodes, &root, plain_key(test_random(&random) % items), value, 20) == 0);
    show_time("put in place, random", started, items);
    started = now_s();
    for (uint64_t i = 0; i < items; i++)
        ENSURE(cow_btree_get(env.nodes, root, plain_key(test_random(&random) % items), value, 20) == 20);
    show_time("get, random", started, items);
    started = now_s();
    for (uint64_t i = 0; i < items; i++) ENSURE(cow_btree_get(env.nodes, root, plain_key(i), value, 20) == 20);
    show_time("get, in order", started, items);
    struct cow_cursor cursor;
    cow_cursor_init(&cursor, env.nodes, root);
    started = now_s();
    ENSURE(cow_cursor_seek(&cursor, plain_key(0)) == 0);
    while (cursor.valid) ENSURE(cow_cursor_next(&cursor) == 0);
    show_time("cursor next", started, items);
    cow_cursor_deinit(&cursor);
    started = now_s();
    commit(&env);
    show_time("commit, per node", started, nodes + more);
    started = now_s();
    for (uint64_t i = 0; i < 10000; i++)
        ENSURE(cow_btree_put(env.nodes, &root, plain_key(test_random(&random) % items), value, 20) == 0);
    show_time("put after a commit, random", started, 10000);
    struct cow_root fork = root;
    ENSURE(cow_btree_ref(env.nodes, root) == 0);
    started = now_s();
    ENSURE(cow_btree_put(env.nodes, &fork, plain_key(1), value, 20) == 0);
    show_time("first put after a fork", started, 1);
    started = now_s();
    release_root(&env, fork);
    show_time("release of that fork", started, 1);
    started = now_s();
    release_root(&env, root);
    release_root(&env, scattered);
    show_time("release, per node", started, nodes + more);
    env_close(&env);
}

static void test_model(void)
{
    for (uint64_t seed = 1; seed <= 8; seed++) test_random_run(seed, 20000);
}

static void test_bad_medium(void)
{
    for (uint64_t seed = 1; seed <= 4; seed++) test_faults(seed, 20);
    ENSURE(read_failures > 0 && full_failures > 0);
}

static void test_crowd(void) { test_threads(2000); }

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "random") == 0) {
        test_random_run(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
        return 0;
    }
    if (argc >= 2 && strcmp(argv[1], "bench") == 0) {
        bench(argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000);
        return 0;
    }
    if (argc != 1) {
        fprintf(stderr, "usage: test_btree [random SEED STEPS | bench [ITEMS]]\n");
        return 2;
    }
    RUN(test_validate);
    RUN(test_form);
    RUN(test_diff_cost);
    RUN(test_model);
    RUN(test_bad_medium);
    RUN(test_crowd);
    return TEST_RESULT();
}
