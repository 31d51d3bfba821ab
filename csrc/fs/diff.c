/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public side of differences. Both trees are locked to read, in the order of their ids, while diff_items.c and
 * diff_paths.c work; reading then needs neither lock nor tree. A record has to fit into 64 KiB: a file with more than
 * RANGES_MAX changed ranges gets the rest covered by its last one.
 */
#include "fs/diff.h"

#include <stdlib.h>

#define RANGES_MAX 1024u
#define CAPACITY_MIN 65536u

void *cow_list_add(struct cow_list *list, size_t count, size_t item_bytes)
{
    if (list->capacity - list->count < count) {
        size_t capacity = list->capacity ? list->capacity * 2 : 16;
        while (capacity - list->count < count)
            capacity *= 2;
        void *items = realloc(list->items, capacity * item_bytes);
        if (!items) return NULL;
        list->items = items;
        list->capacity = capacity;
    }
    void *slot = (uint8_t *)list->items + list->count * item_bytes;
    list->count += count;
    return slot;
}

int cow_diff_keep_text(struct cow_diff *diff, const void *bytes, size_t count, size_t *at_out)
{
    size_t at = diff->text.count;
    char *text = cow_list_add(&diff->text, count, 1);
    if (!text) return -ENOMEM;
    memcpy(text, bytes, count);
    *at_out = at;
    return 0;
}

int cow_diff_compare_text(const struct cow_diff *diff, size_t a, size_t a_bytes, size_t b, size_t b_bytes)
{
    size_t bytes = a_bytes < b_bytes ? a_bytes : b_bytes;
    int order = bytes ? memcmp(cow_diff_text(diff, a), cow_diff_text(diff, b), bytes) : 0;
    if (order) return order;
    return a_bytes < b_bytes ? -1 : a_bytes > b_bytes;
}

static int compare_names(const void *a, const void *b, void *context)
{
    const struct cow_diff_name *x = a, *y = b;
    if (x->dir != y->dir) return x->dir < y->dir ? -1 : 1;
    return cow_diff_compare_text(context, x->text_at, x->name_bytes, y->text_at, y->name_bytes);
}

void cow_diff_sort_names(struct cow_diff *diff, struct cow_list *names)
{
    if (names->count < 2) return;
    struct cow_diff_name *items = names->items;
    qsort_r(items, names->count, sizeof *items, compare_names, diff);
}

static int compare_results(const void *a, const void *b, void *context)
{
    const struct cow_diff_result *x = a, *y = b;
    return cow_diff_compare_text(context, x->path_at, x->path_bytes, y->path_at, y->path_bytes);
}

static int lock(struct cow_tree *old_tree, struct cow_tree *new_tree)
{
    bool old_first = old_tree->id < new_tree->id;
    int rc = cow_tree_read_begin(old_first ? old_tree : new_tree);
    if (rc) return rc;
    rc = cow_tree_read_begin(old_first ? new_tree : old_tree);
    if (rc) cow_tree_read_end(old_first ? old_tree : new_tree);
    return rc;
}

static int work_out(struct cow_diff *diff, struct cow_tree *old_tree, struct cow_tree *new_tree)
{
    if (old_tree == new_tree) {
        int rc = cow_tree_read_begin(new_tree);
        if (!rc) cow_tree_read_end(new_tree);
        return rc;
    }
    int rc = lock(old_tree, new_tree);
    if (rc) return rc;
    diff->old_tree = old_tree;
    diff->new_tree = new_tree;
    rc = cow_diff_collect(diff);
    if (!rc) rc = cow_diff_compare(diff);
    cow_tree_read_end(old_tree);
    cow_tree_read_end(new_tree);
    diff->old_tree = diff->new_tree = NULL;
    if (!rc && diff->results.count > 1)
        qsort_r(diff->results.items, diff->results.count, sizeof(struct cow_diff_result), compare_results, diff);
    return rc;
}

int cow_diff_open(cow_tree *old_tree, cow_tree *new_tree, cow_diff **diff_out)
{
    cow_error_clear();
    if (!old_tree || !new_tree || !diff_out) return cow_fail(EINVAL, "a difference needs two trees");
    if (old_tree->store != new_tree->store) return cow_fail(EXDEV, "trees of two stores have nothing in common");
    struct cow_diff *diff = calloc(1, sizeof *diff);
    if (!diff) return -ENOMEM;
    int rc = work_out(diff, old_tree, new_tree);
    if (rc) {
        cow_diff_close(diff);
        return rc;
    }
    *diff_out = diff;
    return 0;
}

void cow_diff_close(cow_diff *diff)
{
    if (!diff) return;
    free(diff->inodes.items);
    free(diff->names.items);
    free(diff->children.items);
    free(diff->ranges.items);
    free(diff->text.items);
    free(diff->results.items);
    free(diff);
}

/* ---- Reading ---- */

static void put_record(const struct cow_diff *diff, const struct cow_diff_result *result, size_t record_bytes,
                       uint32_t range_count, uint8_t *record)
{
    cow_diff_entry entry = {.record_bytes = (uint32_t)record_bytes,
                            .kind = result->kind,
                            .what = result->what,
                            .path_bytes = (uint16_t)result->path_bytes,
                            .mode = result->mode,
                            .range_count = range_count,
                            .ino = result->ino};
    memset(record, 0, record_bytes);
    memcpy(record, &entry, sizeof entry);
    memcpy(record + sizeof entry, cow_diff_text(diff, result->path_at), result->path_bytes);
    uint8_t *at = record + sizeof entry + result->path_bytes;
    const struct cow_diff_range *ranges = (const struct cow_diff_range *)diff->ranges.items;
    for (uint32_t i = 0; i < range_count; i++) {
        struct cow_diff_range range = ranges[result->range_at + i];
        const struct cow_diff_range *last = &ranges[result->range_at + result->range_count - 1];
        if (i + 1 == range_count) range.count = last->block + last->count - range.block;
        memcpy(at, &range.block, sizeof range.block);
        memcpy(at + sizeof range.block, &range.count, sizeof range.count);
        at += 2 * sizeof(uint64_t);
    }
}

int64_t cow_diff_read(cow_diff *diff, void *buffer, size_t capacity_bytes)
{
    if (!diff || !buffer) return cow_fail(EINVAL, "reading a difference needs a buffer");
    if (capacity_bytes < CAPACITY_MIN) return cow_fail(ERANGE, "a buffer of %zu bytes", capacity_bytes);
    size_t used = 0;
    const struct cow_diff_result *results = diff->results.items;
    for (; diff->next < diff->results.count; diff->next++) {
        const struct cow_diff_result *result = &results[diff->next];
        uint32_t range_count = result->range_count < RANGES_MAX ? result->range_count : RANGES_MAX;
        size_t bytes = sizeof(cow_diff_entry) + result->path_bytes + range_count * 2 * sizeof(uint64_t);
        bytes = (bytes + 7) & ~(size_t)7;
        if (bytes > capacity_bytes - used) break;
        put_record(diff, result, bytes, range_count, (uint8_t *)buffer + used);
        used += bytes;
    }
    return (int64_t)used;
}
