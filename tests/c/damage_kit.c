/* SPDX-License-Identifier: Apache-2.0 */
#include "damage_kit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* Not test.h: its counters are each file's own. What must work ends the test. */
static void must(const char *what, bool works)
{
    if (works) return;
    fprintf(stderr, "damage_kit: %s: %s\n", what, cow_error_detail());
    exit(1);
}
#define MUST(call) must(#call, (call) >= 0)

/* ---- Images ---- */

static void *need(void *memory)
{
    if (memory) return memory;
    perror("damage_kit");
    exit(1);
}

struct taking {
    struct image *image;
    struct cow_dev *dev;
    const char *folder;
};

static void take_file(void *context, const char *name)
{
    struct taking *taking = context;
    struct image *image = taking->image;
    struct cow_dev_file *file;
    uint64_t bytes = 0;
    if (image->count == sizeof image->files / sizeof *image->files) exit(1);
    struct image_file *to = &image->files[image->count];
    (void)snprintf(to->name, sizeof to->name, "%s%s%s", taking->folder, *taking->folder ? "/" : "", name);
    if (cow_dev_open(taking->dev, to->name, 0, &file)) return; /* a folder */
    if (file->dev->ops->size(file, &bytes)) exit(1);
    to->length = (size_t)bytes;
    to->bytes = need(malloc(to->length + 1));
    if (cow_dev_read(file, 0, to->bytes, to->length) != (int64_t)bytes) exit(1);
    cow_dev_close(file);
    image->count++;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct image_file *)a)->name, ((const struct image_file *)b)->name);
}

void image_take(struct image *image, struct cow_dev *dev)
{
    static const char *const folders[] = {"", "segments", "space"};
    image->count = 0;
    for (size_t i = 0; i < 3; i++) {
        struct taking taking = {image, dev, folders[i]};
        MUST(dev->ops->list(dev, folders[i], take_file, &taking));
    }
    qsort(image->files, image->count, sizeof *image->files, by_name);
}

void image_free(struct image *image)
{
    for (unsigned i = 0; i < image->count; i++) free(image->files[i].bytes);
    image->count = 0;
}

const struct image_file *image_find(const struct image *image, const char *name)
{
    for (unsigned i = 0; i < image->count; i++)
        if (strcmp(image->files[i].name, name) == 0) return &image->files[i];
    return NULL;
}

void image_put(const struct image *image, const struct image_file *altered, const char *removed, struct cow_dev *dev)
{
    MUST(dev->ops->make_dir(dev, "segments"));
    MUST(dev->ops->make_dir(dev, "space"));
    for (unsigned i = 0; i < image->count; i++) {
        const struct image_file *from = &image->files[i];
        struct cow_dev_file *file;
        if (removed && strcmp(removed, from->name) == 0) continue;
        if (altered && strcmp(altered->name, from->name) == 0) from = altered;
        MUST(cow_dev_open(dev, from->name, COW_DEV_CREATE, &file));
        if (from->length) MUST(cow_dev_write(file, 0, from->bytes, from->length));
        MUST(cow_dev_sync(file));
        cow_dev_close(file);
    }
    MUST(dev->ops->sync_dir(dev, "segments"));
    MUST(dev->ops->sync_dir(dev, "space"));
    MUST(dev->ops->sync_dir(dev, ""));
}

/* ---- What is known ---- */

static void know(struct knowledge *knowledge, cow_tree *tree, uint64_t id, const char *path, uint64_t ino);

static void know_directory(struct knowledge *knowledge, cow_tree *tree, uint64_t id, const char *path, uint64_t ino)
{
    uint64_t buffer[65536 / 8], cookie = 0;
    int64_t n;
    while ((n = cow_dir_read(tree, ino, cookie, 0, buffer, sizeof buffer)) > 0) {
        for (int64_t at = 0; at < n;) {
            const cow_dir_entry *entry = (const cow_dir_entry *)((const char *)buffer + at);
            char below[96];
            int length = snprintf(below, sizeof below, "%s/%.*s", path, (int)entry->name_bytes, (const char *)(entry + 1));
            if (length >= (int)sizeof below) exit(1);
            know(knowledge, tree, id, below, entry->ino);
            cookie = entry->cookie;
            at += entry->record_bytes;
        }
    }
    must(path, n == 0);
}

static void know(struct knowledge *knowledge, cow_tree *tree, uint64_t id, const char *path, uint64_t ino)
{
    cow_attr attr;
    if (knowledge->count == sizeof knowledge->entries / sizeof *knowledge->entries) exit(1);
    struct known *known = &knowledge->entries[knowledge->count++];
    MUST(cow_inode_stat(tree, ino, &attr));
    *known = (struct known){.tree = id, .mode = attr.mode, .size = attr.size_bytes};
    (void)snprintf(known->path, sizeof known->path, "%s", *path ? path : "/");
    if (S_ISDIR(attr.mode)) {
        known->size = 0;
        know_directory(knowledge, tree, id, path, ino);
        return;
    }
    known->content = need(calloc(1, known->size + 1));
    int64_t size = (int64_t)known->size;
    if (S_ISREG(attr.mode)) must(path, cow_file_read(tree, ino, 0, known->content, known->size) == size);
    else if (S_ISLNK(attr.mode)) must(path, cow_symlink_read(tree, ino, (char *)known->content, known->size) == size);
}

void knowledge_take(struct knowledge *knowledge, cow_store *store)
{
    knowledge->count = 0;
    for (uint64_t id = 1; id < store->next_tree; id++) {
        cow_tree *tree;
        int rc = cow_tree_open(store, id, &tree);
        if (rc == -ENOENT) continue;
        MUST(rc);
        know(knowledge, tree, id, "", COW_ROOT_INO);
        cow_tree_close(tree);
    }
}

void knowledge_free(struct knowledge *knowledge)
{
    for (unsigned i = 0; i < knowledge->count; i++) free(knowledge->entries[i].content);
    knowledge->count = 0;
}

/* ---- Comparing ---- */

enum outcome { OUTCOME_WHOLE, OUTCOME_DAMAGED, OUTCOME_MISSING, OUTCOME_WRONG };

static enum outcome of_error(int64_t rc, struct verdict *verdict)
{
    if (rc == -EUCLEAN) return OUTCOME_DAMAGED;
    if (rc == -ENOENT) return OUTCOME_MISSING;
    verdict->other_error++;
    verdict->code = (int)rc;
    return OUTCOME_WRONG;
}

static enum outcome compare_content(const struct known *known, cow_tree *tree, uint64_t ino, struct verdict *verdict)
{
    enum outcome outcome = OUTCOME_WHOLE;
    for (uint64_t at = 0; at < known->size; at += COW_BLOCK_BYTES) {
        uint8_t block[COW_BLOCK_BYTES];
        size_t want = known->size - at < sizeof block ? (size_t)(known->size - at) : sizeof block;
        int64_t n = cow_file_read(tree, ino, at, block, want);
        if (n == (int64_t)want && memcmp(block, known->content + at, want) == 0) continue;
        enum outcome here = n < 0 ? of_error(n, verdict) : OUTCOME_WRONG;
        verdict->bad_blocks += here == OUTCOME_DAMAGED;
        if (here > outcome) outcome = here;
    }
    return outcome;
}

static enum outcome compare_known(const struct known *known, cow_tree *tree, struct verdict *verdict)
{
    uint64_t ino;
    cow_attr attr;
    int rc = cow_path_walk(tree, COW_ROOT_INO, known->path, strlen(known->path), COW_WALK_NOFOLLOW, &ino, &attr);
    if (rc) return of_error(rc, verdict);
    if (attr.mode != known->mode) return OUTCOME_WRONG;
    if (S_ISDIR(known->mode)) {
        uint64_t buffer[65536 / 8];
        int64_t n = cow_dir_read(tree, ino, 0, COW_READ_ATTR, buffer, sizeof buffer);
        return n < 0 ? of_error(n, verdict) : OUTCOME_WHOLE;
    }
    char names[256];
    int64_t n = cow_xattr_list(tree, ino, names, sizeof names);
    if (n < 0) return of_error(n, verdict);
    if (attr.size_bytes != known->size) return OUTCOME_WRONG;
    if (S_ISREG(known->mode)) return compare_content(known, tree, ino, verdict);
    if (!S_ISLNK(known->mode)) return OUTCOME_WHOLE;
    char target[256];
    n = cow_symlink_read(tree, ino, target, sizeof target);
    if (n < 0) return of_error(n, verdict);
    return (uint64_t)n == known->size && memcmp(target, known->content, known->size) == 0 ? OUTCOME_WHOLE : OUTCOME_WRONG;
}

void knowledge_compare(const struct knowledge *knowledge, cow_store *store, struct verdict *verdict)
{
    cow_tree *tree = NULL;
    uint64_t open = 0;
    int rc = 0;
    memset(verdict, 0, sizeof *verdict);
    for (unsigned i = 0; i < knowledge->count; i++) {
        const struct known *known = &knowledge->entries[i];
        if (known->tree != open) {
            cow_tree_close(tree);
            tree = NULL;
            rc = cow_tree_open(store, known->tree, &tree);
            open = known->tree;
        }
        enum outcome outcome = rc ? of_error(rc, verdict) : compare_known(known, tree, verdict);
        if (outcome == OUTCOME_WHOLE) verdict->whole++;
        else if (outcome == OUTCOME_DAMAGED) verdict->damaged++;
        else if (outcome == OUTCOME_MISSING) verdict->missing++;
        else verdict->wrong++;
        if (outcome >= OUTCOME_MISSING && !verdict->first[0])
            (void)snprintf(verdict->first, sizeof verdict->first, "tree %" PRIu64 " %s: %s (%d %s)", known->tree,
                           known->path, outcome == OUTCOME_MISSING ? "missing" : "wrong", verdict->code, cow_error_detail());
    }
    cow_tree_close(tree);
}
