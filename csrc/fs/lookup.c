/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of sets of four entries. An answer's key is hashed to a set; the set's stripe mutex is held for the few
 * comparisons. Within a set a second-chance bit per entry picks the victim. Nothing is ever searched to be
 * invalidated: entries of a tree whose content was replaced carry an older map_epoch, entries of an inode whose
 * mapping was replaced carry an older value of a counter that its number is hashed to, and ownership carries the
 * own_epoch (which changes with fork, clone and commit). Such an entry is a miss, and the next victim.
 */
#include "fs/lookup.h"

#include <stdlib.h>

#define WAYS 4u
#define STRIPES 128u
#define INODE_EPOCHS 4096u
#define DEFAULT_ENTRIES 65536u
#define MAX_ENTRIES ((uint64_t)1 << 28)
#define DROP_ONE_BY_ONE 1024u

enum kind { KIND_EMPTY = 0, KIND_NAME = 1, KIND_BLOCK = 2 };

struct entry {
    uint64_t tree, ino; /* ino: of the directory, or of the file */
    uint64_t answer;    /* inode, or address */
    uint32_t map_epoch;
    uint8_t kind;
    uint8_t length; /* of a name; 1 for an owned block */
    union {
        char name[COW_LOOKUP_NAME_BYTES];
        struct {
            uint32_t own_epoch, inode_epoch;
            uint64_t block;
        } at;
    } u;
};

struct set {
    struct entry entry[WAYS];
    uint8_t recent; /* second-chance bits */
    uint8_t hand;
};

struct cow_lookup {
    struct cow_lookup_counters counters;
    size_t mask;
    struct set *sets;
    uint32_t *inode_epochs; /* relaxed atomics; changed only while the inode's tree is locked exclusively */
    pthread_mutex_t stripes[STRIPES];
};

int cow_lookup_open(uint64_t entries, struct cow_lookup **lookup_out)
{
    if (entries == 0) entries = DEFAULT_ENTRIES;
    if (entries > MAX_ENTRIES) entries = MAX_ENTRIES;
    size_t sets = 1;
    while (sets * WAYS < entries)
        sets *= 2;
    struct cow_lookup *lookup = calloc(1, sizeof *lookup);
    if (!lookup) return -ENOMEM;
    lookup->mask = sets - 1;
    lookup->sets = calloc(sets, sizeof *lookup->sets);
    lookup->inode_epochs = calloc(INODE_EPOCHS, sizeof *lookup->inode_epochs);
    for (unsigned i = 0; i < STRIPES; i++)
        pthread_mutex_init(&lookup->stripes[i], NULL);
    if (!lookup->sets || !lookup->inode_epochs) {
        cow_lookup_close(lookup);
        return -ENOMEM;
    }
    *lookup_out = lookup;
    return 0;
}

void cow_lookup_close(struct cow_lookup *lookup)
{
    if (!lookup) return;
    for (unsigned i = 0; i < STRIPES; i++)
        pthread_mutex_destroy(&lookup->stripes[i]);
    free(lookup->sets);
    free(lookup->inode_epochs);
    free(lookup);
}

const struct cow_lookup_counters *cow_lookup_counters(struct cow_lookup *lookup)
{
    return &lookup->counters;
}

static uint64_t mix(uint64_t h)
{
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return h ^ (h >> 32);
}

static uint64_t mix_ino(const struct cow_tree *tree, uint64_t ino)
{
    return mix(tree->id * 0x9e3779b97f4a7c15u + ino);
}

static uint32_t *inode_epoch(struct cow_lookup *lookup, const struct cow_tree *tree, uint64_t ino)
{
    return &lookup->inode_epochs[mix_ino(tree, ino) & (INODE_EPOCHS - 1)];
}

/* A cheap hash of a name for the choice of a set only; the whole name is compared. */
static size_t name_set(const struct cow_lookup *lookup, const struct cow_tree *tree, uint64_t dir, const char *name,
                       size_t name_bytes)
{
    uint64_t h = mix_ino(tree, dir) ^ name_bytes;
    for (size_t at = 0; at < name_bytes; at += 8) {
        uint64_t word = 0;
        memcpy(&word, name + at, name_bytes - at < 8 ? name_bytes - at : 8);
        h = mix(h ^ word);
    }
    return (size_t)h & lookup->mask;
}

static size_t block_set(const struct cow_lookup *lookup, const struct cow_tree *tree, uint64_t ino, uint64_t block)
{
    return (size_t)mix(mix_ino(tree, ino) + block * 0xc2b2ae3d27d4eb4fu) & lookup->mask;
}

static void lock_set(struct cow_lookup *lookup, size_t index)
{
    pthread_mutex_lock(&lookup->stripes[index % STRIPES]);
}
static void unlock_set(struct cow_lookup *lookup, size_t index)
{
    pthread_mutex_unlock(&lookup->stripes[index % STRIPES]);
}

static bool same_key(const struct entry *a, const struct entry *b)
{
    if (a->kind != b->kind || a->tree != b->tree || a->ino != b->ino) return false;
    if (a->kind == KIND_BLOCK) return a->u.at.block == b->u.at.block;
    return a->length == b->length && memcmp(a->u.name, b->u.name, a->length) == 0;
}

static struct entry *find(struct set *set, const struct entry *key)
{
    for (unsigned i = 0; i < WAYS; i++) {
        if (!same_key(&set->entry[i], key)) continue;
        set->recent |= (uint8_t)(1u << i);
        return &set->entry[i];
    }
    return NULL;
}

static struct entry *victim(struct cow_lookup *lookup, struct set *set)
{
    for (unsigned i = 0; i < WAYS; i++)
        if (set->entry[i].kind == KIND_EMPTY) return &set->entry[i];
    for (unsigned turns = 0; turns < WAYS && (set->recent & (1u << set->hand)); turns++) {
        set->recent &= (uint8_t) ~(1u << set->hand);
        set->hand = (uint8_t)((set->hand + 1) % WAYS);
    }
    struct entry *entry = &set->entry[set->hand];
    set->hand = (uint8_t)((set->hand + 1) % WAYS);
    cow_count(&lookup->counters.evictions, 1);
    return entry;
}

static void put(struct cow_lookup *lookup, size_t index, const struct entry *entry)
{
    struct set *set = &lookup->sets[index];
    lock_set(lookup, index);
    struct entry *slot = find(set, entry);
    if (!slot) slot = victim(lookup, set);
    *slot = *entry;
    unlock_set(lookup, index);
}

static void drop(struct cow_lookup *lookup, size_t index, const struct entry *key)
{
    lock_set(lookup, index);
    struct entry *slot = find(&lookup->sets[index], key);
    if (slot) *slot = (struct entry){0};
    unlock_set(lookup, index);
}

static bool get(struct cow_lookup *lookup, size_t index, const struct entry *key, struct entry *entry_out)
{
    lock_set(lookup, index);
    const struct entry *slot = find(&lookup->sets[index], key);
    if (slot) *entry_out = *slot;
    unlock_set(lookup, index);
    return slot != NULL;
}

static int counted(struct cow_lookup *lookup, bool hit)
{
    cow_count(hit ? &lookup->counters.hits : &lookup->counters.misses, 1);
    return hit;
}

/* ---- Names ---- */

static struct entry name_entry(const struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes)
{
    struct entry entry = {
        .tree = tree->id, .ino = dir, .map_epoch = tree->map_epoch, .kind = KIND_NAME, .length = (uint8_t)name_bytes};
    memcpy(entry.u.name, name, name_bytes);
    return entry;
}

int cow_lookup_name_get(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, uint64_t *ino_out)
{
    struct cow_lookup *lookup = cow_tree_lookup(tree);
    if (!lookup || name_bytes > COW_LOOKUP_NAME_BYTES) return 0;
    struct entry key = name_entry(tree, dir, name, name_bytes), found;
    bool hit =
        get(lookup, name_set(lookup, tree, dir, name, name_bytes), &key, &found) && found.map_epoch == tree->map_epoch;
    if (hit) *ino_out = found.answer;
    return counted(lookup, hit);
}

void cow_lookup_name_put(struct cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, uint64_t ino)
{
    struct cow_lookup *lookup = cow_tree_lookup(tree);
    if (!lookup || name_bytes > COW_LOOKUP_NAME_BYTES) return;
    struct entry entry = name_entry(tree, dir, name, name_bytes);
    entry.answer = ino;
    put(lookup, name_set(lookup, tree, dir, name, name_bytes), &entry);
}

/* ---- Blocks ---- */

static struct entry block_entry(struct cow_lookup *lookup, const struct cow_tree *tree, uint64_t ino, uint64_t block)
{
    struct entry entry = {.tree = tree->id, .ino = ino, .map_epoch = tree->map_epoch, .kind = KIND_BLOCK};
    entry.u.at.own_epoch = tree->own_epoch;
    entry.u.at.inode_epoch = __atomic_load_n(inode_epoch(lookup, tree, ino), __ATOMIC_RELAXED);
    entry.u.at.block = block;
    return entry;
}

int cow_lookup_block_get(struct cow_tree *tree, uint64_t ino, uint64_t block, cow_addr *addr_out, bool *owned_out)
{
    struct cow_lookup *lookup = cow_tree_lookup(tree);
    if (!lookup) return 0;
    struct entry key = block_entry(lookup, tree, ino, block), found;
    bool hit = get(lookup, block_set(lookup, tree, ino, block), &key, &found) && found.map_epoch == key.map_epoch &&
               found.u.at.inode_epoch == key.u.at.inode_epoch;
    if (hit) {
        *addr_out = found.answer;
        *owned_out = found.length != 0 && found.u.at.own_epoch == tree->own_epoch;
    }
    return counted(lookup, hit);
}

void cow_lookup_block_put(struct cow_tree *tree, uint64_t ino, uint64_t block, cow_addr addr, bool owned)
{
    struct cow_lookup *lookup = cow_tree_lookup(tree);
    if (!lookup) return;
    struct entry entry = block_entry(lookup, tree, ino, block);
    entry.answer = addr;
    entry.length = owned;
    put(lookup, block_set(lookup, tree, ino, block), &entry);
}

void cow_lookup_block_drop(struct cow_tree *tree, uint64_t ino, uint64_t block, uint64_t count)
{
    struct cow_lookup *lookup = cow_tree_lookup(tree);
    if (!lookup) return;
    if (count > DROP_ONE_BY_ONE) {
        cow_lookup_inode_drop(tree, ino);
        return;
    }
    for (uint64_t i = 0; i < count; i++) {
        struct entry key = block_entry(lookup, tree, ino, block + i);
        drop(lookup, block_set(lookup, tree, ino, block + i), &key);
    }
}

void cow_lookup_inode_drop(struct cow_tree *tree, uint64_t ino)
{
    struct cow_lookup *lookup = cow_tree_lookup(tree);
    if (lookup) (void)__atomic_fetch_add(inode_epoch(lookup, tree, ino), 1, __ATOMIC_RELAXED);
}
