/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both tables probe linearly from a multiplicative hash. Nothing is ever removed: an inode number is not used twice in
 * a tree, so an entry of a directory that is gone does no harm. Names are kept as a keyed hash of 64 bits under a key
 * of this process and moment, so nobody can craft two that meet.
 */
#include "tar/dirs.h"

#include <stdlib.h>

#include "base/hash.h"

#define CAPACITY_MIN 64u

static size_t spread(uint64_t value, size_t capacity)
{
    value *= 0x9e3779b97f4a7c15u;
    return (size_t)(value >> 20) & (capacity - 1);
}

void cow_dirs_deinit(struct cow_dirs *dirs)
{
    free(dirs->slots);
    *dirs = (struct cow_dirs){0};
}

/* The slot of ino, or the empty one where it belongs. */
static struct cow_dir_slot *dir_slot(const struct cow_dirs *dirs, uint64_t ino)
{
    size_t at = spread(ino, dirs->capacity);
    while (dirs->slots[at].key != 0 && dirs->slots[at].key >> 8 != ino) at = (at + 1) & (dirs->capacity - 1);
    return &dirs->slots[at];
}

static int dirs_grow(struct cow_dirs *dirs)
{
    if (dirs->used < dirs->capacity / 4 * 3) return 0;
    struct cow_dirs grown = {.used = dirs->used, .capacity = dirs->capacity > 0 ? dirs->capacity * 2 : CAPACITY_MIN};
    grown.slots = calloc(grown.capacity, sizeof *grown.slots);
    if (grown.slots == NULL) return -ENOMEM;
    for (size_t i = 0; i < dirs->capacity; i++)
        if (dirs->slots[i].key != 0) *dir_slot(&grown, dirs->slots[i].key >> 8) = dirs->slots[i];
    free(dirs->slots);
    *dirs = grown;
    return 0;
}

static int dirs_put(struct cow_dirs *dirs, uint64_t ino, int64_t mtime_ns, uint32_t flags, bool overwrite)
{
    COW_ASSERT(ino != 0 && ino >> 56 == 0);
    int rc = dirs_grow(dirs);
    if (rc < 0) return rc;
    struct cow_dir_slot *slot = dir_slot(dirs, ino);
    if (slot->key == 0) {
        *slot = (struct cow_dir_slot){ino << 8, mtime_ns};
        dirs->used++;
    }
    slot->key |= flags;
    if (overwrite) slot->mtime_ns = mtime_ns;
    return 0;
}

int cow_dirs_add(struct cow_dirs *dirs, uint64_t ino, int64_t mtime_ns, uint32_t flags)
{
    return dirs_put(dirs, ino, mtime_ns, flags, false);
}

int cow_dirs_set(struct cow_dirs *dirs, uint64_t ino, int64_t mtime_ns, uint32_t flags)
{
    return dirs_put(dirs, ino, mtime_ns, flags, true);
}

uint32_t cow_dirs_flags(const struct cow_dirs *dirs, uint64_t ino)
{
    return dirs->capacity > 0 ? (uint32_t)(dir_slot(dirs, ino)->key & 0xff) : 0;
}

bool cow_dirs_next(const struct cow_dirs *dirs, size_t *at, uint64_t *ino_out, int64_t *mtime_ns_out,
                   uint32_t *flags_out)
{
    while (*at < dirs->capacity) {
        const struct cow_dir_slot *slot = &dirs->slots[(*at)++];
        if (slot->key == 0) continue;
        *ino_out = slot->key >> 8;
        *mtime_ns_out = slot->mtime_ns;
        *flags_out = (uint32_t)(slot->key & 0xff);
        return true;
    }
    return false;
}

/* ---- Names ---- */

void cow_link_names_deinit(struct cow_link_names *names)
{
    free(names->slots);
    *names = (struct cow_link_names){0};
}

static struct cow_link_slot *link_slot(const struct cow_link_names *names, uint64_t dir, uint64_t hash)
{
    size_t at = spread(hash ^ dir, names->capacity);
    while (names->slots[at].dir != 0 && (names->slots[at].dir != dir || names->slots[at].name_hash != hash))
        at = (at + 1) & (names->capacity - 1);
    return &names->slots[at];
}

static int link_names_grow(struct cow_link_names *names)
{
    if (names->used < names->capacity / 4 * 3) return 0;
    struct cow_link_names grown = *names;
    grown.capacity = names->capacity > 0 ? names->capacity * 2 : CAPACITY_MIN;
    grown.slots = calloc(grown.capacity, sizeof *grown.slots);
    if (grown.slots == NULL) return -ENOMEM;
    if (names->capacity == 0) {
        cow_store64(grown.hash_key, (uint64_t)cow_now_ns());
        cow_store64(grown.hash_key + 8, (uint64_t)(uintptr_t)grown.slots);
    }
    for (size_t i = 0; i < names->capacity; i++)
        if (names->slots[i].dir != 0)
            *link_slot(&grown, names->slots[i].dir, names->slots[i].name_hash) = names->slots[i];
    free(names->slots);
    *names = grown;
    return 0;
}

int cow_link_names_add(struct cow_link_names *names, uint64_t dir, const char *name, size_t name_bytes)
{
    int rc = link_names_grow(names);
    if (rc < 0) return rc;
    uint64_t hash = cow_hash_name(names->hash_key, name, name_bytes);
    struct cow_link_slot *slot = link_slot(names, dir, hash);
    if (slot->dir == 0) names->used++;
    *slot = (struct cow_link_slot){dir, hash};
    return 0;
}

bool cow_link_names_has(const struct cow_link_names *names, uint64_t dir, const char *name, size_t name_bytes)
{
    if (names->capacity == 0) return false;
    return link_slot(names, dir, cow_hash_name(names->hash_key, name, name_bytes))->dir != 0;
}
