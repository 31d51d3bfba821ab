/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole tree is walked with a stack of directories, each with its sorted names. Differences are read to their end,
 * then sorted: path order compares name by name, so that a directory is followed by all that is below it. What lies
 * below something that is no directory any more is dropped then, and deletions move to the front of their directory.
 */
#include "tar/source.h"

#include <stdlib.h>
#include <sys/stat.h>

#define READ_BYTES (64u * 1024u)
#define DEPTH_MAX (COW_PATH_BYTES_MAX / 2u + 2u)

struct name { /* of a directory being walked */
    uint64_t ino;
    uint32_t mode;
    uint32_t bytes;
    size_t at; /* in the frame's text */
};

struct frame {
    struct cow_tar_buffer names; /* struct name, sorted */
    struct cow_tar_buffer text;
    size_t count, next;
    size_t path_bytes; /* of the directory, in source->path */
};

struct change {
    uint64_t ino;
    uint32_t mode;
    uint16_t path_bytes;
    bool deleted;
    size_t at; /* in source->text */
};

struct cow_tar_source {
    cow_tree *tree;
    bool whole, started;

    /* all of a tree */
    struct frame *frames;
    size_t depth, capacity;
    uint64_t descend; /* a directory just given out, to be entered next; 0 = none */
    char path[COW_PATH_BYTES_MAX + 1];
    size_t path_bytes;

    /* differences */
    struct cow_tar_buffer text, changes; /* struct change */
    size_t count, next;
    bool deletions_first; /* how changes are compared */
};

/* ---- All of a tree ---- */

static int compare_names(const void *a, const void *b, void *context)
{
    const struct name *x = a, *y = b;
    const uint8_t *text = ((const struct frame *)context)->text.bytes;
    size_t bytes = x->bytes < y->bytes ? x->bytes : y->bytes;
    int order = memcmp(text + x->at, text + y->at, bytes);
    if (order != 0) return order;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int read_names(cow_tree *tree, uint64_t dir, struct frame *frame, uint8_t *records)
{
    uint64_t cookie = 0;
    for (;;) {
        int64_t bytes = cow_dir_read(tree, dir, cookie, 0, records, READ_BYTES);
        if (bytes <= 0) return (int)bytes;
        for (size_t at = 0; at < (size_t)bytes;) {
            cow_dir_entry entry;
            memcpy(&entry, records + at, sizeof entry);
            struct name name = {entry.ino, entry.mode, entry.name_bytes, frame->text.used};
            int rc = cow_tar_buffer_append(&frame->text, records + at + sizeof entry, entry.name_bytes);
            if (rc == 0) rc = cow_tar_buffer_append(&frame->names, &name, sizeof name);
            if (rc < 0) return rc;
            frame->count++;
            cookie = entry.cookie;
            at += entry.record_bytes;
        }
    }
}

static void pop(struct cow_tar_source *source)
{
    struct frame *frame = &source->frames[--source->depth];
    cow_tar_buffer_deinit(&frame->names);
    cow_tar_buffer_deinit(&frame->text);
}

static int push(struct cow_tar_source *source, uint64_t dir)
{
    if (source->depth == source->capacity) {
        COW_ASSERT(source->capacity < DEPTH_MAX);
        size_t capacity = source->capacity > 0 ? source->capacity * 2 : 16;
        if (capacity > DEPTH_MAX) capacity = DEPTH_MAX;
        struct frame *frames = realloc(source->frames, capacity * sizeof *frames);
        if (frames == NULL) return -ENOMEM;
        source->frames = frames;
        source->capacity = capacity;
    }
    uint8_t *records = malloc(READ_BYTES);
    if (records == NULL) return -ENOMEM;
    struct frame *frame = &source->frames[source->depth++];
    *frame = (struct frame){.path_bytes = source->path_bytes};
    int rc = read_names(source->tree, dir, frame, records);
    free(records);
    if (rc < 0) return rc;
    if (frame->count > 1) qsort_r(frame->names.bytes, frame->count, sizeof(struct name), compare_names, frame);
    return 0;
}

static int next_name(struct cow_tar_source *source, struct cow_tar_item *item_out)
{
    if (!source->started) {
        source->started = true;
        source->descend = COW_ROOT_INO;
        *item_out = (struct cow_tar_item){.ino = COW_ROOT_INO, .path = source->path};
        return 1;
    }
    if (source->descend != 0) {
        int rc = push(source, source->descend);
        if (rc < 0) return rc;
        source->descend = 0;
    }
    while (source->depth > 0 && source->frames[source->depth - 1].next == source->frames[source->depth - 1].count)
        pop(source);
    if (source->depth == 0) return 0;
    struct frame *frame = &source->frames[source->depth - 1];
    struct name name;
    memcpy(&name, frame->names.bytes + frame->next++ * sizeof name, sizeof name);
    size_t used = frame->path_bytes;
    if (used + (used > 0 ? 1 : 0) + name.bytes > COW_PATH_BYTES_MAX)
        return cow_fail(ENAMETOOLONG, "a path below \"/%.*s\" is too long for a tar", used < 150 ? (int)used : 150,
                        source->path);
    if (used > 0) source->path[used++] = '/';
    memcpy(source->path + used, frame->text.bytes + name.at, name.bytes);
    source->path_bytes = used + name.bytes;
    if (S_ISDIR(name.mode)) source->descend = name.ino;
    *item_out = (struct cow_tar_item){.ino = name.ino, .path = source->path, .path_bytes = source->path_bytes};
    return 1;
}

/* ---- Differences ---- */

/* Name by name; where two paths part in one directory, a deletion comes before all else if that is wanted. */
static int compare_changes(const void *a, const void *b, void *context)
{
    const struct change *x = a, *y = b;
    const struct cow_tar_source *source = context;
    const uint8_t *text = source->text.bytes;
    const uint8_t *p = text + x->at, *q = text + y->at;
    size_t bytes = x->path_bytes < y->path_bytes ? x->path_bytes : y->path_bytes, at = 0;
    while (at < bytes && p[at] == q[at]) at++;
    bool p_ends = at == x->path_bytes, q_ends = at == y->path_bytes;
    if (p_ends && q_ends) return 0;
    if (p_ends && (q[at] == '/' || at == 0)) return -1; /* x is above y */
    if (q_ends && (p[at] == '/' || at == 0)) return 1;
    bool first = source->deletions_first;
    bool x_first = first && x->deleted && memchr(p + at, '/', x->path_bytes - at) == NULL;
    bool y_first = first && y->deleted && memchr(q + at, '/', y->path_bytes - at) == NULL;
    if (x_first != y_first) return x_first ? -1 : 1;
    uint8_t left = p_ends || p[at] == '/' ? 0 : p[at]; /* the end of a name sorts before every byte */
    uint8_t right = q_ends || q[at] == '/' ? 0 : q[at];
    return left < right ? -1 : 1;
}

static int take_changes(struct cow_tar_source *source, const uint8_t *records, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        cow_diff_entry entry;
        memcpy(&entry, records + at, sizeof entry);
        const char *path = (const char *)records + at + sizeof entry;
        at += entry.record_bytes;
        COW_ASSERT(entry.path_bytes > 1 && path[0] == '/');
        /* A socket cannot be in a tar, but what it took the place of has to go. */
        bool deleted = entry.kind == COW_DIFF_DELETED || (entry.kind == COW_DIFF_CHANGED && S_ISSOCK(entry.mode));
        struct change change = {.ino = entry.ino, .mode = entry.mode, .path_bytes = (uint16_t)(entry.path_bytes - 1),
                                .deleted = deleted, .at = source->text.used};
        int rc = cow_tar_buffer_append(&source->text, path + 1, change.path_bytes);
        if (rc == 0) rc = cow_tar_buffer_append(&source->changes, &change, sizeof change);
        if (rc < 0) return rc;
        source->count++;
    }
    return 0;
}

static void sort_changes(struct cow_tar_source *source, bool deletions_first)
{
    source->deletions_first = deletions_first;
    if (source->count > 1)
        qsort_r(source->changes.bytes, source->count, sizeof(struct change), compare_changes, source);
}

/* The text has no bytes at all when only the root changed. */
static const char *path_of(const struct cow_tar_source *source, const struct change *change)
{
    return change->path_bytes > 0 ? (const char *)source->text.bytes + change->at : "";
}

/* Drops what is below a path that was deleted or became something else than a directory: it went with that path. */
static void drop_covered(struct cow_tar_source *source)
{
    const char *leaf = NULL;
    size_t leaf_bytes = 0, kept = 0;
    for (size_t i = 0; i < source->count; i++) {
        struct change change;
        memcpy(&change, source->changes.bytes + i * sizeof change, sizeof change);
        const char *path = path_of(source, &change);
        if (leaf != NULL && change.path_bytes > leaf_bytes && path[leaf_bytes] == '/' &&
            memcmp(path, leaf, leaf_bytes) == 0)
            continue;
        leaf = NULL;
        if (change.deleted || !S_ISDIR(change.mode)) {
            leaf = path;
            leaf_bytes = change.path_bytes;
        }
        memcpy(source->changes.bytes + kept++ * sizeof change, &change, sizeof change);
    }
    source->count = kept;
}

/* All extended attributes of the root as text that can be compared. */
static int read_root_xattrs(cow_tree *tree, struct cow_tar_buffer *out)
{
    int64_t bytes = cow_xattr_list(tree, COW_ROOT_INO, NULL, 0);
    if (bytes <= 0) return (int)bytes;
    int rc = cow_tar_buffer_reserve(out, (size_t)bytes);
    if (rc < 0) return rc;
    bytes = cow_xattr_list(tree, COW_ROOT_INO, (char *)out->bytes, (size_t)bytes);
    if (bytes < 0) return (int)bytes;
    out->used = (size_t)bytes;
    for (size_t at = 0; at < (size_t)bytes;) {
        rc = cow_tar_buffer_reserve(out, COW_XATTR_VALUE_BYTES_MAX + 8);
        if (rc < 0) return rc;
        const char *name = (const char *)out->bytes + at;
        size_t name_bytes = strnlen(name, (size_t)bytes - at);
        int64_t value_bytes = cow_xattr_get(tree, COW_ROOT_INO, name, name_bytes, out->bytes + out->used + 8,
                                            COW_XATTR_VALUE_BYTES_MAX);
        if (value_bytes < 0) return (int)value_bytes;
        cow_store64(out->bytes + out->used, (uint64_t)value_bytes);
        out->used += 8 + (size_t)value_bytes;
        at += name_bytes + 1;
    }
    return 0;
}

/* 1 = the root directory itself is another than before: cow_diff tells of what is below it only. */
static int root_changed(cow_tree *old_tree, cow_tree *new_tree)
{
    cow_attr before, now;
    int rc = cow_inode_stat(old_tree, COW_ROOT_INO, &before);
    if (rc == 0) rc = cow_inode_stat(new_tree, COW_ROOT_INO, &now);
    if (rc < 0) return rc;
    if (before.mode != now.mode || before.uid != now.uid || before.gid != now.gid || before.mtime_ns != now.mtime_ns)
        return 1;
    struct cow_tar_buffer old_xattrs = {0}, new_xattrs = {0};
    rc = read_root_xattrs(old_tree, &old_xattrs);
    if (rc == 0) rc = read_root_xattrs(new_tree, &new_xattrs);
    if (rc == 0 && old_xattrs.used != new_xattrs.used) rc = 1;
    if (rc == 0 && new_xattrs.used > 0) rc = memcmp(old_xattrs.bytes, new_xattrs.bytes, new_xattrs.used) != 0;
    cow_tar_buffer_deinit(&old_xattrs);
    cow_tar_buffer_deinit(&new_xattrs);
    return rc;
}

static int read_changes(struct cow_tar_source *source, cow_tree *old_tree)
{
    cow_diff *diff;
    struct change root = {.ino = COW_ROOT_INO, .mode = S_IFDIR};
    int rc = root_changed(old_tree, source->tree);
    if (rc == 1) {
        rc = cow_tar_buffer_append(&source->changes, &root, sizeof root);
        source->count = 1;
    }
    if (rc == 0) rc = cow_diff_open(old_tree, source->tree, &diff);
    if (rc < 0) return rc;
    size_t capacity = 4 * READ_BYTES;
    uint8_t *records = malloc(capacity);
    int64_t bytes = records != NULL ? 0 : -ENOMEM;
    while (bytes >= 0) {
        bytes = cow_diff_read(diff, records, capacity);
        if (bytes <= 0) break;
        rc = take_changes(source, records, (size_t)bytes);
        if (rc < 0) bytes = rc;
    }
    free(records);
    cow_diff_close(diff);
    if (bytes < 0) return (int)bytes;
    sort_changes(source, false);
    drop_covered(source);
    sort_changes(source, true);
    return 0;
}

static int next_change(struct cow_tar_source *source, struct cow_tar_item *item_out)
{
    if (source->next == source->count) return 0;
    struct change change;
    memcpy(&change, source->changes.bytes + source->next++ * sizeof change, sizeof change);
    const char *path = path_of(source, &change);
    *item_out = (struct cow_tar_item){change.ino, path, change.path_bytes, change.deleted};
    return 1;
}

/* ---- Both ---- */

int cow_tar_source_open(cow_tree *old_tree, cow_tree *new_tree, struct cow_tar_source **source_out)
{
    struct cow_tar_source *source = calloc(1, sizeof *source);
    if (source == NULL) return -ENOMEM;
    source->tree = new_tree;
    source->whole = old_tree == NULL;
    int rc = source->whole ? 0 : read_changes(source, old_tree);
    if (rc < 0) {
        cow_tar_source_close(source);
        return rc;
    }
    *source_out = source;
    return 0;
}

void cow_tar_source_close(struct cow_tar_source *source)
{
    if (source == NULL) return;
    while (source->depth > 0) pop(source);
    free(source->frames);
    cow_tar_buffer_deinit(&source->text);
    cow_tar_buffer_deinit(&source->changes);
    free(source);
}

int cow_tar_source_next(struct cow_tar_source *source, struct cow_tar_item *item_out)
{
    return source->whole ? next_name(source, item_out) : next_change(source, item_out);
}
