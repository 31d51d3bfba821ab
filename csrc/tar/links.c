/* SPDX-License-Identifier: Apache-2.0 */
/* Open addressing with linear probing, at most three quarters full; all paths in one buffer. */
#include "tar/links.h"

#include <stdlib.h>

#define CAPACITY_MIN 64u

void cow_tar_links_deinit(struct cow_tar_links *links)
{
    free(links->slots);
    cow_tar_buffer_deinit(&links->text);
    *links = (struct cow_tar_links){0};
}

static struct cow_tar_link_slot *slot_of(struct cow_tar_link_slot *slots, size_t capacity, uint64_t ino)
{
    size_t at = (size_t)((ino * 0x9e3779b97f4a7c15u) >> 20) & (capacity - 1);
    while (slots[at].ino != 0 && slots[at].ino != ino) at = (at + 1) & (capacity - 1);
    return &slots[at];
}

static int grow(struct cow_tar_links *links)
{
    if (links->used < links->capacity / 4 * 3) return 0;
    size_t capacity = links->capacity > 0 ? links->capacity * 2 : CAPACITY_MIN;
    struct cow_tar_link_slot *slots = calloc(capacity, sizeof *slots);
    if (slots == NULL) return -ENOMEM;
    for (size_t i = 0; i < links->capacity; i++)
        if (links->slots[i].ino != 0) *slot_of(slots, capacity, links->slots[i].ino) = links->slots[i];
    free(links->slots);
    links->slots = slots;
    links->capacity = capacity;
    return 0;
}

int cow_tar_links_find(struct cow_tar_links *links, uint64_t ino, const char *path, size_t path_bytes,
                       struct cow_tar_buffer *path_out)
{
    int rc = grow(links);
    if (rc < 0) return rc;
    struct cow_tar_link_slot *slot = slot_of(links->slots, links->capacity, ino);
    if (slot->ino == ino) {
        rc = cow_tar_buffer_append(path_out, links->text.bytes + slot->at, slot->path_bytes);
        return rc < 0 ? rc : 1;
    }
    size_t at = links->text.used;
    rc = cow_tar_buffer_append(&links->text, path, path_bytes);
    if (rc < 0) return rc;
    *slot = (struct cow_tar_link_slot){ino, at, path_bytes};
    links->used++;
    return 0;
}
