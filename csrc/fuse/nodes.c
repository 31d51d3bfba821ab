/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes: which inodes the kernel knows. A hash table in shards; a node is in it from its first lookup to the forget that
 * brings its count to 0. Invalidation only needs the ids as numbers and never follows one without the shard's lock, so a
 * node may go away at any time.
 */
#include <stdlib.h>

#include "fuse/mount.h"

#define FIRST_BUCKETS 64u
#define SHOWN_INO_BITS 40u

uint64_t cow_shown_ino(const struct cow_mount *mount, uint64_t tree, uint64_t ino)
{
    return mount->tree_id ? ino : (tree << SHOWN_INO_BITS) ^ ino;
}

static uint64_t hash_of(uint64_t tree, uint64_t ino)
{
    uint64_t h = (tree * 0x9E3779B97F4A7C15ull) ^ (ino * 0xC2B2AE3D27D4EB4Full);
    return h ^ (h >> 29);
}

static struct cow_shard *shard_of(struct cow_mount *mount, uint64_t hash)
{
    return &mount->shards[hash % COW_NODE_SHARDS];
}

static struct cow_knode **bucket_of(struct cow_shard *shard, uint64_t hash)
{
    return &shard->buckets[(hash / COW_NODE_SHARDS) % shard->bucket_count];
}

int cow_knodes_open(struct cow_mount *mount)
{
    pthread_mutex_init(&mount->seats_lock, NULL);
    int rc = 0;
    for (unsigned i = 0; i < COW_NODE_SHARDS; i++) {
        struct cow_shard *shard = &mount->shards[i];
        pthread_mutex_init(&shard->lock, NULL);
        shard->bucket_count = FIRST_BUCKETS;
        shard->buckets = calloc(FIRST_BUCKETS, sizeof *shard->buckets);
        if (!shard->buckets) rc = -ENOMEM;
    }
    return rc;
}

static void free_node(struct cow_mount *mount, struct cow_knode *node)
{
    if (node->pinned) (void)cow_inode_put(node->seat->tree, node->ino);
    cow_seat_give(mount, node->seat);
    free(node);
}

void cow_knodes_close(struct cow_mount *mount)
{
    for (unsigned i = 0; i < COW_NODE_SHARDS; i++) {
        struct cow_shard *shard = &mount->shards[i];
        for (size_t b = 0; shard->buckets && b < shard->bucket_count; b++) {
            while (shard->buckets[b]) {
                struct cow_knode *node = shard->buckets[b];
                shard->buckets[b] = node->next;
                free_node(mount, node);
            }
        }
        free(shard->buckets);
        pthread_mutex_destroy(&shard->lock);
    }
    pthread_mutex_destroy(&mount->seats_lock);
}

/* ---- Trees that are open ---- */

int cow_seat_take(struct cow_mount *mount, uint64_t id, struct cow_seat **seat_out)
{
    int rc = 0;
    pthread_mutex_lock(&mount->seats_lock);
    struct cow_seat *seat = mount->seats;
    while (seat && seat->id != id) seat = seat->next;
    if (!seat) {
        cow_tree_info info = {0};
        seat = calloc(1, sizeof *seat);
        rc = seat ? cow_tree_open(mount->store, id, &seat->tree) : -ENOMEM;
        if (!rc) {
            rc = cow_tree_get_info(seat->tree, &info);
            if (rc) cow_tree_close(seat->tree);
        }
        if (rc) {
            free(seat);
        } else {
            seat->id = id;
            seat->sealed = info.sealed != 0;
            seat->next = mount->seats;
            mount->seats = seat;
        }
    }
    if (!rc) {
        seat->uses++;
        *seat_out = seat;
    }
    pthread_mutex_unlock(&mount->seats_lock);
    return rc;
}

void cow_seat_give(struct cow_mount *mount, struct cow_seat *seat)
{
    pthread_mutex_lock(&mount->seats_lock);
    bool last = --seat->uses == 0;
    if (last) {
        struct cow_seat **at = &mount->seats;
        while (*at != seat) at = &(*at)->next;
        *at = seat->next;
    }
    pthread_mutex_unlock(&mount->seats_lock);
    if (!last) return;
    cow_tree_close(seat->tree);
    free(seat);
}

/* ---- Nodes ---- */

static struct cow_knode *find(struct cow_shard *shard, uint64_t hash, uint64_t tree, uint64_t ino)
{
    struct cow_knode *node = *bucket_of(shard, hash);
    while (node && (node->ino != ino || node->retired || node->seat->id != tree)) node = node->next;
    return node;
}

static void grow(struct cow_shard *shard)
{
    if (shard->used < shard->bucket_count) return;
    size_t old_count = shard->bucket_count;
    struct cow_knode **old = shard->buckets;
    struct cow_knode **buckets = calloc(old_count * 2, sizeof *buckets);
    if (!buckets) return; /* longer chains will do */
    shard->buckets = buckets;
    shard->bucket_count = old_count * 2;
    for (size_t b = 0; b < old_count; b++) {
        while (old[b]) {
            struct cow_knode *node = old[b];
            old[b] = node->next;
            struct cow_knode **to = bucket_of(shard, hash_of(node->seat->id, node->ino));
            node->next = *to;
            *to = node;
        }
    }
    free(old);
}

static int make_node(struct cow_mount *mount, struct cow_seat *seat, uint64_t ino, mode_t mode, struct cow_knode **node_out)
{
    struct cow_knode *node = malloc(sizeof *node);
    if (!node) return -ENOMEM;
    *node = (struct cow_knode){.seat = seat, .ino = ino, .count = 1, .regular = S_ISREG(mode), .pinned = !seat->sealed};
    int rc = node->pinned ? cow_inode_get(seat->tree, ino) : 0;
    if (rc) {
        free(node);
        return rc;
    }
    pthread_mutex_lock(&mount->seats_lock);
    seat->uses++;
    pthread_mutex_unlock(&mount->seats_lock);
    *node_out = node;
    return 0;
}

static struct cow_knode *known(struct cow_shard *shard, uint64_t hash, uint64_t tree, uint64_t ino)
{
    pthread_mutex_lock(&shard->lock);
    struct cow_knode *node = find(shard, hash, tree, ino);
    if (node) node->count++;
    pthread_mutex_unlock(&shard->lock);
    return node;
}

int cow_knode_take(struct cow_mount *mount, struct cow_seat *seat, uint64_t ino, mode_t mode, struct cow_knode **node_out)
{
    uint64_t hash = hash_of(seat->id, ino);
    struct cow_shard *shard = shard_of(mount, hash);
    struct cow_knode *node = known(shard, hash, seat->id, ino), *spare;
    if (node) {
        *node_out = node;
        return 0;
    }
    int rc = make_node(mount, seat, ino, mode, &spare);
    if (rc) return rc;
    pthread_mutex_lock(&shard->lock);
    node = find(shard, hash, seat->id, ino);
    if (node) {
        node->count++;
    } else {
        grow(shard);
        struct cow_knode **bucket = bucket_of(shard, hash);
        spare->next = *bucket;
        *bucket = node = spare;
        shard->used++;
        spare = NULL;
    }
    pthread_mutex_unlock(&shard->lock);
    if (spare) free_node(mount, spare);
    *node_out = node;
    return 0;
}

void cow_knode_forget(struct cow_mount *mount, struct cow_knode *node, uint64_t count)
{
    if (!node->seat || node == mount->root) return;
    uint64_t hash = hash_of(node->seat->id, node->ino);
    struct cow_shard *shard = shard_of(mount, hash);
    pthread_mutex_lock(&shard->lock);
    COW_ASSERT(node->count >= count);
    node->count -= count;
    bool last = node->count == 0;
    if (last) {
        struct cow_knode **at = bucket_of(shard, hash);
        while (*at != node) at = &(*at)->next;
        *at = node->next;
        shard->used--;
    }
    pthread_mutex_unlock(&shard->lock);
    if (last) free_node(mount, node);
}

fuse_ino_t cow_knode_find(struct cow_mount *mount, uint64_t tree, uint64_t ino, bool retire, bool *retired_out)
{
    uint64_t hash = hash_of(tree, ino);
    struct cow_shard *shard = shard_of(mount, hash);
    pthread_mutex_lock(&shard->lock);
    struct cow_knode *node = find(shard, hash, tree, ino);
    fuse_ino_t id = node ? cow_knode_id(mount, node) : 0;
    bool retired = node && retire && node->regular;
    if (retired) node->retired = true;
    pthread_mutex_unlock(&shard->lock);
    if (retired_out) *retired_out = retired;
    return id;
}

void cow_knodes_of_tree(struct cow_mount *mount, uint64_t tree, void (*each)(struct cow_mount *mount, fuse_ino_t id))
{
    for (unsigned i = 0; i < COW_NODE_SHARDS; i++) {
        struct cow_shard *shard = &mount->shards[i];
        pthread_mutex_lock(&shard->lock);
        for (size_t b = 0; b < shard->bucket_count; b++) {
            for (struct cow_knode *node = shard->buckets[b]; node; node = node->next) {
                if (node->seat->id != tree) continue;
                node->retired = node->retired || (node->regular && mount->write_back);
                each(mount, cow_knode_id(mount, node));
            }
        }
        pthread_mutex_unlock(&shard->lock);
    }
}
