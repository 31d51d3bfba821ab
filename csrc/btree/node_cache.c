/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node_cache.c: a hash table in shards, each with a mutex held for a probe and a pin. Clean nodes are in their shard's
 * CLOCK list (a new one goes to the tail unreferenced, so that one pass over a large tree does not push out what is
 * used often); the hand is the head of the list. Pins are taken under the shard's mutex and dropped without it:
 * eviction, which holds the mutex, sees pins 0 only when nobody can take one. Memory is freed outside of the locks.
 */
#include "btree/node_cache.h"

#include <stdlib.h>

_Static_assert(COW_NODE_LEVELS_MAX == COW_BTREE_LEVELS_MAX, "one bound of levels");
_Static_assert(offsetof(struct cow_node, bytes) == COW_CACHE_LINE, "what a probe touches is one cache line");

#define CLOCK_STEPS_MAX 64u   /* nodes that the hand looks at in one call */
#define CLOCK_SECOND_MAX 16u  /* second chances in one call */
#define SPARES_MAX 4096u

/* ---- Memory -------------------------------------------------------------------------------------- */

/* Memory of nodes that went, for those that come: it is mapped already, which is worth more than what malloc costs. One
 * small pool for all stores of the process. */
#define RECYCLED_MAX 256u
static pthread_mutex_t recycled_lock = PTHREAD_MUTEX_INITIALIZER;
static struct cow_node *recycled;
static uint32_t recycled_count;

static void free_node(struct cow_node *node)
{
    pthread_mutex_lock(&recycled_lock);
    bool keep = recycled_count < RECYCLED_MAX;
    if (keep) {
        node->next = recycled;
        recycled = node;
        recycled_count++;
    }
    pthread_mutex_unlock(&recycled_lock);
    if (!keep) free(node);
}

static struct cow_node *node_memory(void)
{
    pthread_mutex_lock(&recycled_lock);
    struct cow_node *node = recycled;
    if (node != NULL) {
        recycled = node->next;
        recycled_count--;
    }
    pthread_mutex_unlock(&recycled_lock);
    return node != NULL ? node : aligned_alloc(COW_CACHE_LINE, sizeof *node);
}

static struct cow_node *take_spare(struct cow_nodes *nodes)
{
    pthread_mutex_lock(&nodes->pool_lock);
    struct cow_node *node = nodes->spares;
    if (node != NULL) {
        nodes->spares = node->next;
        nodes->spare_count--;
    }
    pthread_mutex_unlock(&nodes->pool_lock);
    return node;
}

static struct cow_node *allocate_node(struct cow_nodes *nodes, cow_addr addr, uint64_t generation)
{
    struct cow_node *node = node_memory();
    if (node == NULL) node = take_spare(nodes);
    if (node == NULL) return NULL;
    memset(node, 0, offsetof(struct cow_node, bytes));
    node->addr = addr;
    node->generation = generation;
    atomic_init(&node->pins, 1);
    atomic_init(&node->shared, false);
    return node;
}

static int list_grow(struct cow_node_list *list, uint32_t more)
{
    if (list->capacity - list->count >= more) return 0;
    uint32_t capacity = (list->count + more) * 2;
    struct cow_node **grown = realloc(list->nodes, capacity * sizeof *grown);
    if (grown == NULL) return cow_fail(ENOMEM, "no memory for the list of changed nodes");
    list->nodes = grown;
    list->capacity = capacity;
    return 0;
}

int cow_nodes_reserve_memory(struct cow_nodes *nodes, uint32_t node_count)
{
    if (node_count > SPARES_MAX) node_count = SPARES_MAX;
    pthread_mutex_lock(&nodes->pool_lock);
    int rc = list_grow(&nodes->dirty, node_count);
    while (rc == 0 && nodes->spare_count < node_count) {
        struct cow_node *node = aligned_alloc(COW_CACHE_LINE, sizeof *node);
        if (node == NULL) {
            rc = cow_fail(ENOMEM, "no memory for %u nodes", node_count);
            break;
        }
        node->next = nodes->spares;
        nodes->spares = node;
        nodes->spare_count++;
    }
    pthread_mutex_unlock(&nodes->pool_lock);
    return rc;
}

static void free_chain(struct cow_node *chain)
{
    while (chain != NULL) {
        struct cow_node *next = chain->next;
        free_node(chain);
        chain = next;
    }
}

void cow_node_unpin(struct cow_node *node)
{
    uint32_t before = atomic_fetch_sub_explicit(&node->pins, 1, memory_order_acq_rel);
    COW_ASSERT((before & ~COW_NODE_DROPPED) > 0);
    if (before == (COW_NODE_DROPPED | 1)) free_node(node);
}

/* ---- A shard: all under its mutex ---------------------------------------------------------------- */

static inline uint64_t hash_of(cow_addr addr) { return (addr * 0x9e3779b97f4a7c15u) >> 32; }
static inline struct cow_node_shard *shard_of(struct cow_nodes *nodes, uint64_t hash)
{
    return &nodes->shards[hash % COW_NODE_SHARDS];
}
static inline struct cow_node **bucket_of(struct cow_node_shard *shard, uint64_t hash)
{
    return &shard->buckets[(hash / COW_NODE_SHARDS) & shard->mask];
}

static inline struct cow_node *shard_find(struct cow_node_shard *shard, uint64_t hash, cow_addr addr)
{
    struct cow_node *node = *bucket_of(shard, hash);
    if (node != NULL) __builtin_prefetch(node->bytes); /* fetched together with what is compared */
    while (node != NULL && node->addr != addr) node = node->next_hash;
    return node;
}

static void clock_add(struct cow_node_shard *shard, struct cow_node *node)
{
    node->next = &shard->clock;
    node->previous = shard->clock.previous;
    node->previous->next = node;
    shard->clock.previous = node;
    node->listed = true;
    shard->clean++;
}

static void clock_remove(struct cow_node_shard *shard, struct cow_node *node)
{
    node->previous->next = node->next;
    node->next->previous = node->previous;
    node->listed = false;
    shard->clean--;
}

static void shard_insert(struct cow_node_shard *shard, uint64_t hash, struct cow_node *node)
{
    struct cow_node **bucket = bucket_of(shard, hash);
    node->next_hash = *bucket;
    *bucket = node;
    shard->total++;
}

/* Takes a node out of table and list. */
static void shard_remove(struct cow_node_shard *shard, struct cow_node *node)
{
    struct cow_node **at = bucket_of(shard, hash_of(node->addr));
    while (*at != node) at = &(*at)->next_hash;
    *at = node->next_hash;
    shard->total--;
    if (node->listed) clock_remove(shard, node);
}

/* Takes it out for good, while it may be pinned: the last pin frees it. Without pins it is added to the chain. */
static void shard_detach(struct cow_node_shard *shard, struct cow_node *node, struct cow_node **chain)
{
    shard_remove(shard, node);
    uint32_t pins = atomic_fetch_or_explicit(&node->pins, COW_NODE_DROPPED, memory_order_acq_rel);
    if (pins != 0) return;
    node->next = *chain;
    *chain = node;
}

/* Evicts until the clean nodes are within the limit, or the hand has done enough for one call. Returns what to free. */
static struct cow_node *shard_trim(struct cow_node_shard *shard, uint64_t limit)
{
    struct cow_node *chain = NULL;
    unsigned second = 0;
    for (unsigned step = 0; step < CLOCK_STEPS_MAX && shard->clean > limit; step++) {
        struct cow_node *node = shard->clock.next;
        bool pinned = atomic_load_explicit(&node->pins, memory_order_acquire) != 0;
        bool spared = node->referenced && second < CLOCK_SECOND_MAX;
        if (!pinned && !spared) {
            shard_remove(shard, node);
            node->next = chain;
            chain = node;
            shard->evictions++;
            continue;
        }
        if (spared) second++;
        node->referenced = false;
        clock_remove(shard, node);
        clock_add(shard, node);
    }
    return chain;
}

/* ---- Getting nodes ------------------------------------------------------------------------------- */

static int read_node(struct cow_nodes *nodes, cow_addr addr, uint64_t generation, struct cow_node **node_out)
{
    if (addr == 0 || cow_addr_segment(addr) != 0)
        return cow_fail(COW_EDAMAGE, "node pointer %llx leads out of the node segment", (unsigned long long)addr);
    if (generation >= cow_nodes_generation(nodes)) /* such nodes are in memory */
        return cow_fail(COW_EDAMAGE, "pointer to node %u: of a generation that was not committed",
                        cow_addr_block(addr));
    struct cow_node *node = allocate_node(nodes, addr, generation);
    if (node == NULL) return cow_fail(ENOMEM, "no memory for node %u", cow_addr_block(addr));
    int rc = cow_space_read_node(nodes->space, addr, node->bytes);
    if (rc == 0) rc = cow_node_validate(node->bytes, addr, generation);
    if (rc != 0) {
        free(node);
        return rc;
    }
    cow_count(&nodes->counters.nodes_read, 1);
    *node_out = node;
    return 0;
}

static inline void pin(struct cow_node *node)
{
    atomic_fetch_add_explicit(&node->pins, 1, memory_order_relaxed);
    node->referenced = true;
}

/* A miss: reads without the lock; another thread may have been faster. */
static int get_missed(struct cow_nodes *nodes, cow_addr addr, uint64_t generation, struct cow_node **node_out)
{
    struct cow_node *fresh = NULL;
    int rc = read_node(nodes, addr, generation, &fresh);
    if (rc != 0) return rc;
    uint64_t hash = hash_of(addr);
    struct cow_node_shard *shard = shard_of(nodes, hash);
    struct cow_node *stale = NULL;
    pthread_mutex_lock(&shard->lock);
    struct cow_node *node = shard_find(shard, hash, addr);
    if (node != NULL && node->generation != generation) {
        shard_detach(shard, node, &stale); /* of a block that was released: it has been reused since */
        node = NULL;
    }
    bool raced = node != NULL;
    if (raced) {
        pin(node);
    } else {
        node = fresh;
        shard_insert(shard, hash, node);
        clock_add(shard, node);
    }
    struct cow_node *evicted = shard_trim(shard, nodes->shard_limit);
    pthread_mutex_unlock(&shard->lock);
    if (raced) free_node(fresh);
    free_chain(stale);
    free_chain(evicted);
    *node_out = node;
    return 0;
}

int cow_nodes_get(struct cow_nodes *nodes, cow_addr addr, uint64_t generation, struct cow_node **node_out)
{
    uint64_t hash = hash_of(addr);
    struct cow_node_shard *shard = shard_of(nodes, hash);
    pthread_mutex_lock(&shard->lock);
    struct cow_node *node = shard_find(shard, hash, addr);
    bool hit = node != NULL && node->generation == generation;
    if (hit) {
        pin(node);
        shard->hits++;
    } else {
        shard->misses++;
    }
    pthread_mutex_unlock(&shard->lock);
    if (!hit) return get_missed(nodes, addr, generation, node_out);
    *node_out = node;
    return 0;
}

int cow_nodes_get_child(struct cow_nodes *nodes, const struct cow_node *parent, unsigned index,
                        struct cow_node **node_out)
{
    struct cow_node *node = NULL;
    int rc =
        cow_nodes_get(nodes, cow_entry_child(parent->bytes, index), cow_entry_generation(parent->bytes, index), &node);
    if (rc != 0) return rc;
    if (cow_node_level(node->bytes) + 1 != cow_node_level(parent->bytes)) {
        unsigned block = cow_addr_block(node->addr);
        cow_node_unpin(node);
        return cow_fail(COW_EDAMAGE, "node %u: level does not fit below node %u", block, cow_addr_block(parent->addr));
    }
    *node_out = node;
    return 0;
}

/* ---- New and dropped nodes ----------------------------------------------------------------------- */

static int dirty_add(struct cow_nodes *nodes, struct cow_node *node)
{
    pthread_mutex_lock(&nodes->pool_lock);
    int rc = list_grow(&nodes->dirty, 1);
    if (rc == 0) {
        node->dirty_index = nodes->dirty.count;
        nodes->dirty.nodes[nodes->dirty.count++] = node;
    }
    pthread_mutex_unlock(&nodes->pool_lock);
    if (rc == 0) atomic_fetch_add_explicit(&node->pins, 1, memory_order_relaxed);
    return rc;
}

static void dirty_remove(struct cow_nodes *nodes, struct cow_node *node)
{
    pthread_mutex_lock(&nodes->pool_lock);
    struct cow_node_list *dirty = &nodes->dirty;
    COW_ASSERT(node->dirty_index < dirty->count && dirty->nodes[node->dirty_index] == node);
    struct cow_node *last = dirty->nodes[--dirty->count];
    last->dirty_index = node->dirty_index;
    dirty->nodes[node->dirty_index] = last;
    pthread_mutex_unlock(&nodes->pool_lock);
    cow_node_unpin(node);
}

int cow_nodes_new(struct cow_nodes *nodes, unsigned level, struct cow_node **node_out)
{
    uint64_t generation = cow_nodes_generation(nodes);
    struct cow_node *node = allocate_node(nodes, 0, generation);
    if (node == NULL) return cow_fail(ENOMEM, "no memory for a new node");
    int rc = dirty_add(nodes, node);
    if (rc != 0) {
        free(node);
        return rc;
    }
    rc = cow_space_alloc_node(nodes->space, &node->addr);
    if (rc != 0) {
        dirty_remove(nodes, node);
        free(node);
        return rc;
    }
    cow_node_init(node->bytes, level, node->addr, generation);
    uint64_t hash = hash_of(node->addr);
    struct cow_node_shard *shard = shard_of(nodes, hash);
    struct cow_node *chain = NULL;
    pthread_mutex_lock(&shard->lock);
    struct cow_node *stale = shard_find(shard, hash, node->addr);
    if (stale != NULL) shard_detach(shard, stale, &chain);
    shard_insert(shard, hash, node);
    pthread_mutex_unlock(&shard->lock);
    free_chain(chain);
    *node_out = node;
    return 0;
}

void cow_nodes_drop(struct cow_nodes *nodes, struct cow_node *node)
{
    struct cow_node_shard *shard = shard_of(nodes, hash_of(node->addr));
    struct cow_node *chain = NULL;
    pthread_mutex_lock(&shard->lock);
    if ((atomic_load_explicit(&node->pins, memory_order_relaxed) & COW_NODE_DROPPED) == 0)
        shard_detach(shard, node, &chain);
    pthread_mutex_unlock(&shard->lock);
    COW_ASSERT(chain == NULL); /* the caller has a pin */
    if (node->generation == cow_nodes_generation(nodes)) dirty_remove(nodes, node);
}

void cow_nodes_mark_shared(struct cow_nodes *nodes, cow_addr addr)
{
    uint64_t hash = hash_of(addr);
    struct cow_node_shard *shard = shard_of(nodes, hash);
    pthread_mutex_lock(&shard->lock);
    struct cow_node *node = shard_find(shard, hash, addr);
    /* It is dirty, so it is there, unless the medium lied about its generation: then reading it fails. */
    if (node != NULL) atomic_store_explicit(&node->shared, true, memory_order_release);
    pthread_mutex_unlock(&shard->lock);
}

void cow_nodes_settle(struct cow_nodes *nodes, struct cow_node *node)
{
    struct cow_node_shard *shard = shard_of(nodes, hash_of(node->addr));
    struct cow_node *evicted = NULL;
    pthread_mutex_lock(&shard->lock);
    bool dropped = (atomic_load_explicit(&node->pins, memory_order_relaxed) & COW_NODE_DROPPED) != 0;
    if (!dropped) {
        clock_add(shard, node);
        atomic_fetch_sub_explicit(&node->pins, 1, memory_order_acq_rel);
        evicted = shard_trim(shard, nodes->shard_limit);
    }
    pthread_mutex_unlock(&shard->lock);
    if (dropped) cow_node_unpin(node);
    free_chain(evicted);
}

/* ---- Opening, closing, counting ------------------------------------------------------------------ */

static int open_shard(struct cow_node_shard *shard, uint64_t bucket_count)
{
    shard->buckets = calloc(bucket_count, sizeof *shard->buckets);
    if (shard->buckets == NULL) return cow_fail(ENOMEM, "no memory for the node cache");
    shard->mask = bucket_count - 1;
    shard->clock.next = shard->clock.previous = &shard->clock;
    return 0;
}

int cow_nodes_open(struct cow_space *space, uint64_t cache_bytes, uint64_t open_generation,
                   struct cow_nodes **nodes_out)
{
    COW_ASSERT(open_generation > 0);
    struct cow_nodes *nodes = aligned_alloc(COW_CACHE_LINE, sizeof *nodes);
    if (nodes == NULL) return cow_fail(ENOMEM, "no memory for the node cache");
    memset(nodes, 0, sizeof *nodes);
    nodes->space = space;
    atomic_init(&nodes->open_generation, open_generation);
    nodes->shard_limit = cache_bytes / sizeof(struct cow_node) / COW_NODE_SHARDS;
    if (nodes->shard_limit < 8) nodes->shard_limit = 8;
    uint64_t bucket_count = 256;
    while (bucket_count < nodes->shard_limit) bucket_count *= 2;
    pthread_mutex_init(&nodes->pool_lock, NULL);
    pthread_mutex_init(&nodes->share_lock, NULL);
    for (unsigned i = 0; i < COW_NODE_SHARDS; i++) pthread_mutex_init(&nodes->shards[i].lock, NULL);
    for (unsigned i = 0; i < COW_NODE_SHARDS; i++) {
        int rc = open_shard(&nodes->shards[i], bucket_count);
        if (rc != 0) {
            cow_nodes_close(nodes);
            return rc;
        }
    }
    *nodes_out = nodes;
    return 0;
}

static void close_shard(struct cow_node_shard *shard)
{
    for (uint64_t i = 0; shard->buckets != NULL && i <= shard->mask; i++) {
        struct cow_node *node = shard->buckets[i];
        while (node != NULL) {
            struct cow_node *next = node->next_hash;
            free(node);
            node = next;
        }
    }
    free(shard->buckets);
    pthread_mutex_destroy(&shard->lock);
}

void cow_nodes_close(struct cow_nodes *nodes)
{
    if (nodes == NULL) return;
    for (uint32_t i = 0; i < nodes->frozen.count; i++) { /* those out of the table go with the list's pin */
        struct cow_node *node = nodes->frozen.nodes[i];
        if ((atomic_load(&node->pins) & COW_NODE_DROPPED) != 0) cow_node_unpin(node);
    }
    for (unsigned i = 0; i < COW_NODE_SHARDS; i++) close_shard(&nodes->shards[i]);
    free(nodes->frozen.nodes);
    free(nodes->dirty.nodes);
    free_chain(nodes->spares);
    pthread_mutex_destroy(&nodes->pool_lock);
    pthread_mutex_destroy(&nodes->share_lock);
    free(nodes);
}

const struct cow_nodes_counters *cow_nodes_counters(struct cow_nodes *nodes)
{
    uint64_t hits = 0, misses = 0, evictions = 0;
    for (unsigned i = 0; i < COW_NODE_SHARDS; i++) {
        struct cow_node_shard *shard = &nodes->shards[i];
        pthread_mutex_lock(&shard->lock);
        hits += shard->hits;
        misses += shard->misses;
        evictions += shard->evictions;
        pthread_mutex_unlock(&shard->lock);
    }
    __atomic_store_n(&nodes->counters.hits, hits, __ATOMIC_RELAXED);
    __atomic_store_n(&nodes->counters.misses, misses, __ATOMIC_RELAXED);
    __atomic_store_n(&nodes->counters.evictions, evictions, __ATOMIC_RELAXED);
    __atomic_store_n(&nodes->counters.nodes_visited, hits + misses, __ATOMIC_RELAXED);
    return &nodes->counters;
}

uint64_t cow_nodes_cached_bytes(struct cow_nodes *nodes)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < COW_NODE_SHARDS; i++) {
        pthread_mutex_lock(&nodes->shards[i].lock);
        total += nodes->shards[i].total;
        pthread_mutex_unlock(&nodes->shards[i].lock);
    }
    return total * sizeof(struct cow_node);
}

uint64_t cow_nodes_dirty(struct cow_nodes *nodes)
{
    pthread_mutex_lock(&nodes->pool_lock);
    uint64_t count = nodes->dirty.count;
    pthread_mutex_unlock(&nodes->pool_lock);
    return count;
}
