/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_space.c: space/ against a plain array of counts. The model holds for each block its count, when it was
 * released, and what was written to it; random operations run on both, with commits (other operations between their
 * steps), crashes (open again with the last durable state on the same device) and, on the simulated device, every kind
 * of crash image. Everything is derived from a seed, which a failure prints.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "dev/dev.h"
#include "format/format.h"
#include "space/space.h"
#include "test.h"

static uint64_t current_seed;

#define NEED(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s (seed %" PRIu64 ", last detail: \"%s\")\n", __FILE__, __LINE__, #condition, \
                    current_seed, cow_error_detail()); \
            abort(); \
        } \
    } while (0)

#define SEGMENTS 4096u

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint32_t below(uint64_t *state, uint32_t bound) { return (uint32_t)(next_random(state) % bound); }

/* ---- The model --------------------------------------------------------------------------------- */

struct block {
    uint32_t refs, tag;      /* tag 0: nothing written since it was allocated */
    uint64_t born, released; /* generations */
};

struct model {
    struct block *segments[SEGMENTS];
    uint32_t block_counts[SEGMENTS]; /* length of the arrays */
};

static void model_free(struct model *model)
{
    for (uint32_t i = 0; i < SEGMENTS; i++) free(model->segments[i]);
    memset(model, 0, sizeof *model);
}

static void model_copy(const struct model *from, struct model *to)
{
    model_free(to);
    for (uint32_t i = 0; i < SEGMENTS; i++) {
        if (from->block_counts[i] == 0) continue;
        size_t bytes = from->block_counts[i] * sizeof(struct block);
        to->segments[i] = malloc(bytes);
        NEED(to->segments[i] != NULL);
        memcpy(to->segments[i], from->segments[i], bytes);
        to->block_counts[i] = from->block_counts[i];
    }
}

static struct block *model_block(struct model *model, uint32_t segment, uint32_t block)
{
    NEED(segment < SEGMENTS);
    if (block >= model->block_counts[segment]) {
        uint32_t count = (block + 1024u) & ~1023u;
        struct block *blocks = realloc(model->segments[segment], count * sizeof *blocks);
        NEED(blocks != NULL);
        memset(blocks + model->block_counts[segment], 0, (count - model->block_counts[segment]) * sizeof *blocks);
        model->segments[segment] = blocks;
        model->block_counts[segment] = count;
    }
    return &model->segments[segment][block];
}

/* ---- A store of nothing but space -------------------------------------------------------------- */

struct env {
    struct cow_dev *dev;
    struct cow_space *space;
    struct cow_space_state durable_state;
    uint64_t durable, open, reusable, pinned;
    struct model now, closed, safe; /* as of now, the generation being committed, the last durable one */
    uint64_t random;
    bool superblocks;
};

static void print_problem(void *context, const char *text)
{
    (void)context;
    fprintf(stderr, "check: %s\n", text);
}

static void check_counts(struct cow_space *space, const struct model *model)
{
    struct cow_space_check *check;
    uint64_t errors = 0;
    NEED(cow_space_check_begin(space, &check) == 0);
    for (uint32_t segment = 0; segment < SEGMENTS; segment++) {
        for (uint32_t at = 0; at < model->block_counts[segment]; at++) {
            for (uint32_t i = 0; i < model->segments[segment][at].refs; i++) {
                NEED(cow_space_check_expect(check, cow_addr_make(segment, at), 1) == 0);
            }
        }
    }
    NEED(cow_space_check_end(check, print_problem, NULL, &errors) == 0);
    NEED(errors == 0);
}

static void fill(uint8_t *bytes, uint32_t tag)
{
    for (size_t i = 0; i < COW_BLOCK_BYTES; i += 4) cow_store32(bytes + i, tag + (uint32_t)i);
}

static void check_data(struct cow_space *space, const struct model *model)
{
    static uint8_t got[COW_BLOCK_BYTES], want[COW_BLOCK_BYTES];
    for (uint32_t segment = 0; segment < SEGMENTS; segment++) {
        for (uint32_t at = 0; at < model->block_counts[segment]; at++) {
            const struct block *block = &model->segments[segment][at];
            cow_addr addr = cow_addr_make(segment, at);
            if (block->refs == 0 || block->tag == 0) continue;
            NEED((segment == 0 ? cow_space_read_node(space, addr, got) : cow_space_read(space, addr, 1, got)) == 0);
            fill(want, block->tag);
            NEED(memcmp(got, want, sizeof got) == 0);
        }
    }
}

static struct cow_space *env_open(struct env *env, uint64_t cache_bytes)
{
    NEED(cow_space_open(env->dev, &env->durable_state, env->durable, cache_bytes, &env->space) == 0);
    env->open = env->durable + 1;
    env->reusable = 0;
    if (below(&env->random, 2) == 0) {
        NEED(cow_space_commit_done(env->space, env->durable, UINT64_MAX) == 0);
        env->reusable = env->durable;
    }
    return env->space;
}

static void env_init(struct env *env, struct cow_dev *dev, uint64_t seed)
{
    *env = (struct env){.dev = dev, .durable_state = COW_SPACE_STATE_INIT, .pinned = UINT64_MAX, .random = seed};
    current_seed = seed;
    env_open(env, 64 << 10);
}

static void env_deinit(struct env *env)
{
    cow_space_close(env->space);
    cow_dev_destroy(env->dev);
    model_free(&env->now);
    model_free(&env->closed);
    model_free(&env->safe);
}

static void put_state(struct cow_super *super, const struct cow_space_state *state)
{
    super->next_segment = state->next_segment;
    super->journal_half = state->journal_half;
    super->packed_segment = state->packed_segment;
    super->journal_bytes = state->journal_bytes;
    super->dead_segments = state->dead_segments;
    super->data_blocks = state->data_blocks;
    super->node_blocks = state->node_blocks;
    super->meta_blocks = state->meta_blocks;
}

static void get_state(const struct cow_super *super, struct cow_space_state *state)
{
    state->next_segment = super->next_segment;
    state->journal_half = super->journal_half;
    state->packed_segment = super->packed_segment;
    state->journal_bytes = super->journal_bytes;
    state->dead_segments = super->dead_segments;
    state->data_blocks = super->data_blocks;
    state->node_blocks = super->node_blocks;
    state->meta_blocks = super->meta_blocks;
}

static void write_super(struct env *env, const struct cow_space_state *state, uint64_t generation)
{
    uint8_t block[COW_BLOCK_BYTES];
    struct cow_super super = {.generation = generation, .trees_addr = 16, .trees_generation = generation};
    struct cow_dev_file *meta = cow_space_meta_file(env->space);
    put_state(&super, state);
    cow_super_encode(&super, block);
    NEED(cow_dev_write(meta, generation % 2 * COW_BLOCK_BYTES, block, sizeof block) == 0);
    NEED(cow_dev_sync(meta) == 0);
}

/* ---- Operations -------------------------------------------------------------------------------- */

static void write_blocks(struct env *env, cow_addr addr, uint32_t count)
{
    uint8_t *bytes = malloc((size_t)count * COW_BLOCK_BYTES);
    NEED(bytes != NULL);
    for (uint32_t i = 0; i < count; i++) {
        struct block *block = model_block(&env->now, cow_addr_segment(addr), cow_addr_block(addr) + i);
        block->tag = (uint32_t)next_random(&env->random) | 1u;
        fill(bytes + (size_t)i * COW_BLOCK_BYTES, block->tag);
    }
    if (cow_addr_segment(addr) != 0) {
        NEED(cow_space_write(env->space, addr, count, bytes) == 0);
    } else {
        NEED(cow_space_write_nodes(env->space, addr, count, bytes) == 0);
        NEED(cow_space_set_sum(env->space, addr, cow_hash_block(bytes)) == 0);
    }
    free(bytes);
}

static void allocated(struct env *env, cow_addr addr, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct block *block = model_block(&env->now, cow_addr_segment(addr), cow_addr_block(addr) + i);
        NEED(block->refs == 0);
        NEED(block->released <= env->reusable);
        *block = (struct block){.refs = 1, .born = env->open};
    }
}

static cow_addr op_alloc(struct env *env, cow_addr goal, uint32_t want)
{
    cow_addr addr;
    uint32_t count;
    NEED(cow_space_alloc_data(env->space, goal, want, &addr, &count) == 0);
    NEED(count >= 1 && count <= want && cow_addr_segment(addr) != 0);
    allocated(env, addr, count);
    if (below(&env->random, 4) != 0) write_blocks(env, addr, count);
    return addr + count;
}

static void op_alloc_whole(struct env *env, uint32_t count)
{
    cow_addr addr;
    NEED(cow_space_alloc_whole(env->space, count, &addr) == 0);
    NEED(cow_addr_block(addr) == 0);
    allocated(env, addr, count);
    write_blocks(env, addr, count < 4 ? count : 4);
}

static void op_alloc_node(struct env *env)
{
    cow_addr addr;
    NEED(cow_space_reserve_nodes(env->space, 4, true) == 0);
    NEED(cow_space_alloc_node(env->space, &addr) == 0);
    NEED(cow_addr_segment(addr) == 0 && cow_addr_block(addr) >= 16);
    allocated(env, addr, 1);
    write_blocks(env, addr, 1);
}

/* A random run of blocks in use: 0 when it hit none. */
static uint32_t random_run(struct env *env, uint32_t longest, cow_addr *addr_out)
{
    struct cow_space_state state;
    cow_space_get_state(env->space, &state);
    for (int tries = 0; tries < 50; tries++) {
        uint32_t segment = below(&env->random, state.next_segment);
        uint32_t limit = env->now.block_counts[segment];
        if (limit == 0) continue;
        uint32_t first = below(&env->random, limit), count = 0, want = 1 + below(&env->random, longest);
        if (below(&env->random, 4) == 0) first = 0;
        while (first + count < limit && count < want && env->now.segments[segment][first + count].refs > 0) count++;
        if (count == 0) continue;
        *addr_out = cow_addr_make(segment, first);
        return count;
    }
    return 0;
}

static void op_ref(struct env *env, uint32_t longest)
{
    cow_addr addr;
    uint32_t count = random_run(env, longest, &addr);
    if (count == 0) return;
    NEED(cow_space_ref(env->space, addr, count) == 0);
    for (uint32_t i = 0; i < count; i++) {
        model_block(&env->now, cow_addr_segment(addr), cow_addr_block(addr) + i)->refs++;
    }
}

static void op_unref(struct env *env, uint32_t longest)
{
    cow_addr addr;
    uint32_t zeroed = 0, expected = 0, count = random_run(env, longest, &addr);
    if (count == 0) return;
    NEED(cow_space_unref(env->space, addr, count, &zeroed) == 0);
    for (uint32_t i = 0; i < count; i++) {
        struct block *block = model_block(&env->now, cow_addr_segment(addr), cow_addr_block(addr) + i);
        if (--block->refs != 0) continue;
        block->released = block->born == env->open ? 0 : env->open;
        block->tag = 0;
        expected++;
    }
    NEED(zeroed == expected);
}

static void op_ask(struct env *env)
{
    cow_addr addr;
    uint32_t count = random_run(env, 600, &addr), owned = 0, exclusive = 0, refs = 0;
    uint32_t expected_owned = 0, expected_exclusive = 0;
    bool is_owned = false, more = true;
    if (count == 0) return;
    NEED(cow_space_owned_run(env->space, addr, count, &owned) == 0);
    NEED(cow_space_exclusive(env->space, addr, count, &exclusive) == 0);
    NEED(cow_space_refs(env->space, addr, &refs) == 0);
    NEED(cow_space_owned(env->space, addr, &is_owned) == 0);
    for (uint32_t i = 0; i < count; i++) {
        struct block *block = model_block(&env->now, cow_addr_segment(addr), cow_addr_block(addr) + i);
        if (i == 0) NEED(refs == block->refs);
        expected_exclusive += block->refs == 1;
        more = more && block->refs == 1 && block->born == env->open;
        expected_owned += more;
    }
    NEED(owned == expected_owned && exclusive == expected_exclusive && is_owned == (owned > 0));
    if (owned > 0 && cow_addr_segment(addr) != 0) write_blocks(env, addr, owned);
}

static void random_op(struct env *env)
{
    static cow_addr goal;
    switch (below(&env->random, 12)) {
    case 0: goal = op_alloc(env, 0, 1 + below(&env->random, 40)); break;
    case 1: goal = op_alloc(env, goal, 1 + below(&env->random, 700)); break;
    case 2: op_alloc(env, goal - below(&env->random, 3), 1 + below(&env->random, 8)); break;
    case 3: op_alloc_node(env); break;
    case 4: if (below(&env->random, 8) == 0) op_alloc_whole(env, 1 + below(&env->random, 1200)); break;
    case 5: case 6: op_ref(env, 1500); break;
    case 7: op_unref(env, 3); break;
    case 8: case 9: case 10: op_unref(env, 3000); break;
    default: op_ask(env); break;
    }
}

static void random_ops(struct env *env, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) random_op(env);
}

/* A commit with up to between operations after each of its steps; stop 1..3 leaves it there. */
static void commit(struct env *env, uint32_t between, unsigned stop)
{
    struct cow_space_state state;
    NEED(cow_space_commit_close(env->space, &state) == 0);
    model_copy(&env->now, &env->closed);
    uint64_t generation = env->open++;
    random_ops(env, between);
    if (stop == 1) return;
    NEED(cow_space_commit_write(env->space) == 0);
    random_ops(env, between);
    if (stop == 2) return;
    NEED(cow_space_commit_sync(env->space) == 0);
    random_ops(env, between);
    if (stop == 3) return;
    if (env->superblocks) write_super(env, &state, generation);
    env->durable_state = state;
    env->durable = generation;
    model_copy(&env->closed, &env->safe);
    random_ops(env, between);
    NEED(cow_space_commit_done(env->space, generation, env->pinned) == 0);
    env->reusable = generation < env->pinned ? generation : env->pinned;
}

static void reopen(struct env *env)
{
    cow_space_close(env->space);
    model_copy(&env->safe, &env->now);
    env_open(env, (uint64_t)16 << (10 + below(&env->random, 8)));
    check_counts(env->space, &env->now);
}

/* ---- Tests ------------------------------------------------------------------------------------- */

static void test_pages(void)
{
    static struct cow_record_page records, records_back;
    static uint8_t page[COW_PAGE_BYTES];
    struct cow_page_id id = {COW_PAGE_RECORDS, 7, 1234}, other = {COW_PAGE_RECORDS, 7, 1235}, found;
    uint64_t generation = 1, random = 3;
    for (unsigned i = 0; i < COW_CHUNK_BLOCKS; i++) {
        records.sum[i] = next_random(&random) & COW_SUM_MASK;
        records.generation[i] = next_random(&random) & COW_GENERATION_MAX;
        records.refs[i] = (int32_t)below(&random, 1000) - 500;
    }
    cow_page_encode(&id, COW_GENERATION_MAX, &records, page);
    NEED(cow_page_decode(page, &id, &records_back, &generation) == 0 && generation == COW_GENERATION_MAX);
    NEED(memcmp(&records, &records_back, sizeof records) == 0);
    NEED(cow_page_identify(page, &found, &generation) == 0 && found.segment == 7 && found.index == 1234);
    NEED(cow_page_decode(page, &other, &records_back, &generation) == -EUCLEAN);
    for (size_t at = 0; at < sizeof page; at += 61) {
        page[at] ^= 4;
        NEED(cow_page_decode(page, &id, &records_back, &generation) == -EUCLEAN);
        page[at] ^= 4;
    }
    memset(page, 0, sizeof page);
    NEED(cow_page_decode(page, &id, &records_back, &generation) == 0 && generation == 0);
    NEED(cow_page_identify(page, &found, &generation) == -EUCLEAN);
    struct cow_batch batch = {.generation = 9, .page_count = 3, .sequence = 2}, batch_back;
    cow_batch_encode(&batch, page);
    NEED(cow_batch_decode(page, &batch_back) == 0 && batch_back.page_count == 3 && batch_back.sequence == 2);
    page[4000] = 1;
    NEED(cow_batch_decode(page, &batch_back) == -EUCLEAN);
}

static void test_super(void)
{
    uint8_t block[COW_BLOCK_BYTES];
    struct cow_super super = {.generation = 5, .created_ns = -7, .trees_addr = 99, .trees_generation = 4,
                              .next_tree = 12, .tree_count = 3, .next_dead = 1, .next_segment = 8, .journal_half = 1,
                              .packed_segment = 2, .journal_bytes = 8192, .dead_segments = 1, .data_blocks = 77,
                              .node_blocks = 33, .meta_blocks = 256}, back;
    memset(super.uuid, 0xab, sizeof super.uuid);
    memset(super.hash_key, 0xcd, sizeof super.hash_key);
    memset(&back, 0, sizeof back);
    cow_super_encode(&super, block);
    NEED(cow_super_decode(block, &back) == 0);
    NEED(back.generation == 5 && back.created_ns == -7 && back.meta_blocks == 256 && back.journal_bytes == 8192);
    NEED(back.packed_segment == 2 && memcmp(back.hash_key, super.hash_key, 16) == 0 && back.next_dead == 1);
    block[3000] = 1;
    NEED(cow_super_decode(block, &back) == -EUCLEAN);
    block[8] = 2;
    NEED(cow_super_decode(block, &back) == -EPROTONOSUPPORT);
    block[0] = 0;
    NEED(cow_super_decode(block, &back) == -EUCLEAN);
}

static struct cow_dev *memory_dev(void)
{
    struct cow_dev *dev;
    NEED(cow_dev_memory_open(&dev) == 0);
    return dev;
}

static void run_random(uint64_t seed, uint32_t rounds)
{
    struct env env;
    env_init(&env, memory_dev(), seed);
    for (uint32_t round = 0; round < rounds; round++) {
        random_ops(&env, below(&env.random, 60));
        uint32_t what = below(&env.random, 10);
        env.pinned = below(&env.random, 3) == 0 && env.durable > 2 ? env.durable - below(&env.random, 2) : UINT64_MAX;
        if (env.pinned < env.reusable) env.pinned = env.reusable; /* a reader cannot pin the past */
        if (what < 8) commit(&env, below(&env.random, 12), 0);
        if (what == 8) commit(&env, below(&env.random, 12), 1 + below(&env.random, 3));
        if (what >= 8) reopen(&env);
        if (round % 16 == 0) {
            check_counts(env.space, &env.now);
            check_data(env.space, &env.now);
        }
    }
    commit(&env, 0, 0);
    reopen(&env);
    check_data(env.space, &env.now);
    NEED(cow_counted(&cow_space_counters(env.space)->checksum_errors) == 0);
    env_deinit(&env);
}

/* One reference to a run of 1 GiB must not cost its length. */
static void test_large_run(void)
{
    struct env env;
    env_init(&env, memory_dev(), 1);
    cow_addr addr;
    uint32_t zeroed = 0, blocks = 0;
    NEED(cow_space_alloc_whole(env.space, COW_SEGMENT_BLOCKS_MAX, &addr) == 0);
    NEED(cow_space_dirty_pages(env.space) == 1024 + 3 + 1);
    commit(&env, 0, 0);
    NEED(env.durable_state.data_blocks == COW_SEGMENT_BLOCKS_MAX);
    NEED(cow_space_ref(env.space, addr, COW_SEGMENT_BLOCKS_MAX) == 0);
    NEED(cow_space_ref(env.space, addr + 100, COW_SEGMENT_BLOCKS_MAX - 200) == 0);
    NEED(cow_space_dirty_pages(env.space) == 3 + 2);
    NEED(cow_space_exclusive(env.space, addr, COW_SEGMENT_BLOCKS_MAX, &blocks) == 0 && blocks == 0);
    NEED(cow_space_unref(env.space, addr, COW_SEGMENT_BLOCKS_MAX, &zeroed) == 0 && zeroed == 0);
    NEED(cow_space_dirty_pages(env.space) == 3 + 2);
    NEED(cow_space_exclusive(env.space, addr, COW_SEGMENT_BLOCKS_MAX, &blocks) == 0 && blocks == 200);
    NEED(cow_space_unref(env.space, addr + 100, COW_SEGMENT_BLOCKS_MAX - 200, &zeroed) == 0 && zeroed == 0);
    NEED(cow_space_unref(env.space, addr, COW_SEGMENT_BLOCKS_MAX, &zeroed) == 0);
    NEED(zeroed == COW_SEGMENT_BLOCKS_MAX);
    struct cow_space_state state;
    cow_space_get_state(env.space, &state);
    NEED(state.data_blocks == 0 && state.dead_segments == 1);
    env_deinit(&env);
}

static bool exists(struct cow_dev *dev, const char *name)
{
    struct cow_dev_file *file;
    int rc = cow_dev_open(dev, name, 0, &file);
    if (rc == 0) cow_dev_close(file);
    NEED(rc == 0 || rc == -ENOENT);
    return rc == 0;
}

static void test_whole_removed(void)
{
    struct env env;
    env_init(&env, memory_dev(), 2);
    cow_addr addr;
    NEED(cow_space_alloc_whole(env.space, 300, &addr) == 0);
    commit(&env, 0, 0);
    NEED(cow_space_unref(env.space, addr, 299, NULL) == 0);
    commit(&env, 0, 0);
    NEED(exists(env.dev, "segments/00000001") && env.durable_state.dead_segments == 0);
    NEED(cow_space_unref(env.space, addr + 299, 1, NULL) == 0);
    NEED(cow_space_ref(env.space, addr + 299, 1) == -EUCLEAN);
    env.pinned = env.durable;
    commit(&env, 0, 0);
    NEED(exists(env.dev, "segments/00000001") && env.durable_state.dead_segments == 1);
    env.pinned = UINT64_MAX;
    cow_space_close(env.space); /* the list of dead segments is found again */
    NEED(cow_space_open(env.dev, &env.durable_state, env.durable, 1 << 20, &env.space) == 0);
    env.open = env.durable + 1;
    NEED(exists(env.dev, "segments/00000001"));
    commit(&env, 0, 0);
    NEED(!exists(env.dev, "segments/00000001") && !exists(env.dev, "space/00000001"));
    commit(&env, 0, 0);
    NEED(env.durable_state.dead_segments == 0 && env.durable_state.next_segment == 2);
    check_counts(env.space, &env.now);
    env_deinit(&env);
}

/* Pages dirtied again while their last commit is put home: home must get the commit's content. */
static void test_checkpoint(void)
{
    struct env env;
    env_init(&env, memory_dev(), 3);
    unsigned flips = 0;
    uint32_t half = 0;
    for (unsigned round = 0; round < 60; round++) {
        if (round % 6 == 0) op_alloc_whole(&env, 20000 + below(&env.random, 20000));
        for (unsigned i = 0; i < 40; i++) {
            op_ref(&env, 30);
            op_unref(&env, 3000);
        }
        commit(&env, 10, 0);
        flips += env.durable_state.journal_half != half;
        half = env.durable_state.journal_half;
        if (round % 7 == 6) reopen(&env);
    }
    NEED(flips >= 2);
    reopen(&env);
    check_data(env.space, &env.now);
    env_deinit(&env);
}

static void test_limits(void)
{
    struct env env;
    static uint8_t pages[2 * COW_PAGE_BYTES];
    static struct cow_chunk_page chunks;
    struct cow_dev_file *journal;
    cow_addr addr;
    env_init(&env, memory_dev(), 4);
    NEED(cow_space_alloc_whole(env.space, 512, &addr) == 0);
    commit(&env, 0, 0);
    cow_space_close(env.space);
    /* As if a chunk had very many references. */
    chunks.add[0] = COW_REFS_MAX - 1;
    chunks.min[0] = 1;
    chunks.min[1] = 1;
    struct cow_batch batch = {.generation = 2, .page_count = 1, .sequence = 1};
    struct cow_page_id id = {COW_PAGE_CHUNKS, 1, 0};
    cow_batch_encode(&batch, pages);
    cow_page_encode(&id, 2, &chunks, pages + COW_PAGE_BYTES);
    NEED(cow_dev_open(env.dev, "journal.0", 0, &journal) == 0);
    NEED(cow_dev_write(journal, env.durable_state.journal_bytes, pages, sizeof pages) == 0);
    env.durable_state.journal_bytes += sizeof pages;
    env.durable = 2;
    env_open(&env, 1 << 20);
    uint32_t refs = 0;
    NEED(cow_space_ref(env.space, addr + 256, 256) == 0);
    NEED(cow_space_ref(env.space, addr, 512) == -EMLINK);
    NEED(cow_space_refs(env.space, addr + 256, &refs) == 0 && refs == 2); /* nothing changed */
    NEED(cow_space_refs(env.space, addr, &refs) == 0 && refs == COW_REFS_MAX);
    NEED(cow_space_unref(env.space, addr, 256, NULL) == 0);
    NEED(cow_space_ref(env.space, addr, 256) == 0);
    NEED(cow_space_unref(env.space, addr + 512, 1, NULL) == -EUCLEAN);
    NEED(cow_space_unref(env.space, cow_addr_make(9, 0), 1, NULL) == -EUCLEAN);
    NEED(cow_space_ref(env.space, cow_addr_make(0, 3), 1) == -EUCLEAN);
    cow_space_close(env.space);
    /* A damaged journal does not open. */
    pages[COW_PAGE_BYTES + 100] ^= 1;
    NEED(cow_dev_write(journal, env.durable_state.journal_bytes - sizeof pages, pages, sizeof pages) == 0);
    NEED(cow_space_open(env.dev, &env.durable_state, 2, 1 << 20, &env.space) == -EUCLEAN);
    cow_dev_close(journal);
    env.space = NULL;
    env_deinit(&env);
}

static void test_damage(void)
{
    struct env env;
    struct cow_dev_file *file;
    uint8_t bytes[3 * COW_BLOCK_BYTES];
    cow_addr addr;
    uint32_t count;
    env_init(&env, memory_dev(), 5);
    NEED(cow_space_alloc_data(env.space, 0, 3, &addr, &count) == 0 && count == 3);
    write_blocks(&env, addr, 3);
    NEED(cow_space_read(env.space, addr, 3, bytes) == 0);
    NEED(cow_dev_open(env.dev, "segments/00000001", 0, &file) == 0);
    NEED(cow_dev_write(file, ((uint64_t)cow_addr_block(addr) + 1) * COW_BLOCK_BYTES, "damage", 6) == 0);
    NEED(cow_space_read(env.space, addr, 3, bytes) == -EUCLEAN);
    NEED(cow_space_read(env.space, addr, 1, bytes) == 0);
    NEED(cow_space_read(env.space, addr + 2, 1, bytes) == 0);
    NEED(cow_counted(&cow_space_counters(env.space)->checksum_errors) == 1);
    cow_dev_close(file);
    env_deinit(&env);
}

static void count_problem(void *context, const char *text)
{
    (void)text;
    ++*(unsigned *)context;
}

static void test_check_finds(void)
{
    struct env env;
    struct cow_space_check *check;
    cow_addr addr;
    uint32_t count;
    uint64_t errors = 0;
    unsigned problems = 0;
    env_init(&env, memory_dev(), 6);
    NEED(cow_space_alloc_data(env.space, 0, 100, &addr, &count) == 0 && count == 100);
    NEED(cow_space_check_begin(env.space, &check) == 0);
    NEED(cow_space_check_expect(check, addr, 40) == 0);       /* right */
    NEED(cow_space_check_expect(check, addr + 50, 50) == 0);  /* 40..49 missing */
    NEED(cow_space_check_expect(check, addr + 60, 5) == 0);   /* twice */
    NEED(cow_space_check_expect(check, addr + 98, 4) == 0);   /* twice, and then free ones */
    NEED(cow_space_check_expect(check, cow_addr_make(77, 5), 9) == 0);
    NEED(cow_space_check_end(check, count_problem, &problems, &errors) == 0);
    NEED(errors == 5 && problems == 5);
    env_deinit(&env);
}

/* Space released in pieces comes back, and the segment does not grow without end. */
static void test_reuse(void)
{
    struct env env;
    env_init(&env, memory_dev(), 7);
    for (unsigned round = 0; round < 50; round++) {
        cow_addr goal = 0;
        struct { cow_addr addr; uint32_t count; } runs[64];
        for (unsigned i = 0; i < 64; i++) {
            NEED(cow_space_alloc_data(env.space, goal, 64, &runs[i].addr, &runs[i].count) == 0);
            goal = runs[i].addr + runs[i].count;
        }
        commit(&env, 0, 0);
        for (unsigned i = 0; i < 64; i++) NEED(cow_space_unref(env.space, runs[i].addr, runs[i].count, NULL) == 0);
        commit(&env, 0, 0);
    }
    NEED(env.durable_state.next_segment == 2 && env.durable_state.data_blocks == 0);
    struct cow_dev_file *file;
    uint64_t bytes = 0;
    NEED(cow_dev_open(env.dev, "segments/00000001", 0, &file) == 0);
    NEED(file->dev->ops->size(file, &bytes) == 0 && bytes <= (uint64_t)16384 * COW_BLOCK_BYTES);
    cow_dev_close(file);
    NEED(cow_counted(&cow_space_counters(env.space)->punched_bytes) > 0);
    env_deinit(&env);
}

/* ---- Crash images ------------------------------------------------------------------------------ */

#define CRASH_GENERATIONS 64u
static struct model crash_models[CRASH_GENERATIONS];

static void open_image(struct cow_dev *image, uint64_t durable_before)
{
    uint8_t block[COW_BLOCK_BYTES];
    struct cow_super best = {0}, super;
    struct cow_dev_file *meta;
    struct cow_space_state state = COW_SPACE_STATE_INIT;
    struct cow_space *space;
    if (cow_dev_open(image, "meta", 0, &meta) == 0) {
        for (uint64_t slot = 0; slot < 2; slot++) {
            if (cow_dev_read_all(meta, slot * COW_BLOCK_BYTES, block, sizeof block) != 0) continue;
            if (cow_super_decode(block, &super) == 0 && super.generation > best.generation) best = super;
        }
        cow_dev_close(meta);
    }
    NEED(best.generation >= durable_before && best.generation < CRASH_GENERATIONS);
    if (best.generation == 0) return;
    get_state(&best, &state);
    NEED(cow_space_open(image, &state, best.generation, 1 << 20, &space) == 0);
    check_counts(space, &crash_models[best.generation]);
    check_data(space, &crash_models[best.generation]);
    /* and it goes on from there */
    struct env env = {.dev = image, .space = space, .durable_state = state, .durable = best.generation,
                      .open = best.generation + 1, .pinned = UINT64_MAX, .random = current_seed};
    model_copy(&crash_models[best.generation], &env.now);
    random_ops(&env, 20);
    commit(&env, 5, 0);
    random_ops(&env, 20);
    commit(&env, 5, 0);
    cow_space_close(env.space);
    model_copy(&env.safe, &env.now);
    env_open(&env, 1 << 20);
    check_counts(env.space, &env.now);
    check_data(env.space, &env.now);
    cow_space_close(env.space);
    model_free(&env.now);
    model_free(&env.closed);
    model_free(&env.safe);
}

#define LARGE_BLOCKS 100000u

/* Changes a record in every chunk of the large segment, so that a few commits fill a journal half. */
static void touch_chunks(struct env *env, cow_addr addr)
{
    for (uint32_t first = 0; first + COW_CHUNK_BLOCKS <= LARGE_BLOCKS; first += COW_CHUNK_BLOCKS) {
        uint32_t block = first + below(&env->random, COW_CHUNK_BLOCKS);
        struct block *model = model_block(&env->now, 1, block);
        if (model->refs == 0) continue;
        NEED(cow_space_ref(env->space, addr + block, 1) == 0);
        model->refs++;
    }
}

static void run_crash(uint64_t seed, uint32_t generations, bool large, uint32_t images)
{
    struct env env;
    struct cow_dev *sim;
    static uint64_t durable_at[CRASH_GENERATIONS]; /* events issued when the generation was durable */
    uint32_t half = 0, flips = 0;
    NEED(cow_dev_sim_open(&sim) == 0);
    env_init(&env, sim, seed);
    env.superblocks = true;
    for (uint64_t generation = 1; generation <= generations; generation++) {
        if (large && generation == 1) op_alloc_whole(&env, LARGE_BLOCKS);
        if (large) touch_chunks(&env, cow_addr_make(1, 0));
        random_ops(&env, 30);
        commit(&env, 4, 0);
        flips += env.durable_state.journal_half != half;
        half = env.durable_state.journal_half;
        model_copy(&env.safe, &crash_models[generation]);
        durable_at[generation] = cow_dev_sim_events(sim);
    }
    NEED(!large || flips >= 2);
    uint64_t events = cow_dev_sim_events(sim), random = seed;
    for (uint32_t i = 0; i < images; i++) {
        uint64_t at = next_random(&random) % (events + 1), image_seed = below(&random, 20), before = 0;
        struct cow_dev *image;
        while (before < generations && durable_at[before + 1] <= at) before++;
        NEED(cow_dev_sim_crash(sim, at, image_seed, &image) == 0);
        current_seed = seed << 32 | i;
        open_image(image, before);
        cow_dev_destroy(image);
    }
    for (uint32_t i = 0; i < CRASH_GENERATIONS; i++) model_free(&crash_models[i]);
    env_deinit(&env);
}

/* ---- Threads ----------------------------------------------------------------------------------- */

#define THREADS 3u
struct shared {
    struct env env;
    pthread_rwlock_t writers; /* shared: an operation; exclusive: a generation closes */
    bool stop;                /* atomic */
};
struct worker {
    pthread_t thread;
    struct shared *shared;
    uint64_t random;
    cow_addr addrs[64];
    uint32_t counts[64], tags[64];
};

static void worker_step(struct worker *worker, uint8_t *bytes, uint8_t *got)
{
    struct cow_space *space = worker->shared->env.space;
    uint32_t at = below(&worker->random, 64), count = worker->counts[at];
    cow_addr addr = worker->addrs[at], goal = worker->addrs[(at + 63) % 64];
    if (count == 0) {
        NEED(cow_space_alloc_data(space, goal, 1 + below(&worker->random, 8), &addr, &count) == 0);
        worker->tags[at] = (uint32_t)next_random(&worker->random);
        for (uint32_t i = 0; i < count; i++) fill(bytes + (size_t)i * COW_BLOCK_BYTES, worker->tags[at] + i);
        NEED(cow_space_write(space, addr, count, bytes) == 0);
        worker->addrs[at] = addr;
        worker->counts[at] = count;
        return;
    }
    NEED(cow_space_read(space, addr, count, got) == 0);
    for (uint32_t i = 0; i < count; i++) fill(bytes + (size_t)i * COW_BLOCK_BYTES, worker->tags[at] + i);
    NEED(memcmp(bytes, got, (size_t)count * COW_BLOCK_BYTES) == 0);
    uint32_t zeroed = 0;
    NEED(cow_space_ref(space, addr, count) == 0);
    NEED(cow_space_unref(space, addr, count, &zeroed) == 0 && zeroed == 0);
    NEED(cow_space_unref(space, addr, count, &zeroed) == 0 && zeroed == count);
    worker->counts[at] = 0;
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    uint8_t *bytes = malloc(16 * COW_BLOCK_BYTES);
    NEED(bytes != NULL);
    while (!__atomic_load_n(&worker->shared->stop, __ATOMIC_RELAXED)) {
        pthread_rwlock_rdlock(&worker->shared->writers);
        worker_step(worker, bytes, bytes + 8 * COW_BLOCK_BYTES);
        pthread_rwlock_unlock(&worker->shared->writers);
    }
    free(bytes);
    return NULL;
}

static void shared_commit(struct shared *shared)
{
    struct env *env = &shared->env;
    struct cow_space_state state;
    pthread_rwlock_wrlock(&shared->writers);
    NEED(cow_space_commit_close(env->space, &state) == 0);
    pthread_rwlock_unlock(&shared->writers);
    NEED(cow_space_commit_write(env->space) == 0);
    NEED(cow_space_commit_sync(env->space) == 0);
    env->durable_state = state;
    env->durable = env->open++;
    NEED(cow_space_commit_done(env->space, env->durable, UINT64_MAX) == 0);
}

static void test_threads(void)
{
    static struct shared shared;
    static struct worker workers[THREADS];
    env_init(&shared.env, memory_dev(), 8);
    pthread_rwlockattr_t attributes; /* readers alone would never let a commit through */
    NEED(pthread_rwlockattr_init(&attributes) == 0);
    NEED(pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP) == 0);
    NEED(pthread_rwlock_init(&shared.writers, &attributes) == 0);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.shared = &shared, .random = i};
        NEED(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    for (unsigned i = 0; i < 300; i++) shared_commit(&shared);
    __atomic_store_n(&shared.stop, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < THREADS; i++) {
        NEED(pthread_join(workers[i].thread, NULL) == 0);
        for (unsigned at = 0; at < 64; at++) {
            for (uint32_t n = 0; n < workers[i].counts[at]; n++) {
                cow_addr addr = workers[i].addrs[at] + n;
                model_block(&shared.env.now, cow_addr_segment(addr), cow_addr_block(addr))->refs = 1;
            }
        }
    }
    check_counts(shared.env.space, &shared.env.now);
    shared_commit(&shared);
    model_copy(&shared.env.now, &shared.env.safe);
    reopen(&shared.env);
    pthread_rwlock_destroy(&shared.writers);
    env_deinit(&shared.env);
}

/* ---- Main -------------------------------------------------------------------------------------- */

static uint64_t first_seed = 100, seed_count = 4;

static void test_random_operations(void)
{
    for (uint64_t seed = first_seed; seed < first_seed + seed_count; seed++) run_random(seed, 150);
}

static void test_crash_small(void)
{
    for (uint64_t seed = first_seed; seed < first_seed + seed_count; seed++) run_crash(seed, 12, false, 60);
}

static void test_crash_checkpoint(void)
{
    run_crash(first_seed, 14, true, 60);
}

/* test_space [first seed [how many]] */
int main(int argc, char **argv)
{
    if (argc > 1) first_seed = strtoull(argv[1], NULL, 0);
    if (argc > 2) seed_count = strtoull(argv[2], NULL, 0);
    RUN(test_pages);
    RUN(test_super);
    RUN(test_large_run);
    RUN(test_whole_removed);
    RUN(test_limits);
    RUN(test_damage);
    RUN(test_check_finds);
    RUN(test_reuse);
    RUN(test_checkpoint);
    RUN(test_threads);
    RUN(test_random_operations);
    RUN(test_crash_small);
    RUN(test_crash_checkpoint);
    return TEST_RESULT();
}
