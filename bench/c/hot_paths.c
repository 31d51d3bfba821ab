/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hot_paths.c: the paths that must stay short, each alone, through the public C API.
 *
 *     hot_paths FOLDER             times: one line "name nanoseconds" for each path, the best of several rounds
 *     hot_paths FOLDER NAME COUNT  runs one path COUNT times, for callgrind (check.py), which counts only what happens
 *                                  inside of hot_run
 *
 * FOLDER must not exist or be empty; the store is made there. Nothing is committed while a path runs: the figures are
 * those of the work itself. The base is one sealed tree with a file of BIG_BLOCKS blocks and a path of four names.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cow.h"

#define BLOCK 4096u
#define BIG_BLOCKS 4096u /* 16 MiB */
#define PIECE_BLOCKS 64u
#define ROUNDS 7u
#define COUNT_MAX 4000u
#define PATH_TEXT "/usr/share/doc/copyright"

typedef struct {
    cow_store *store;
    cow_tree *base;
    cow_tree *box;                 /* a container of base that owns the first PIECE_BLOCKS blocks of big */
    uint64_t big, doc;             /* inodes */
    uint32_t count;
    cow_tree *boxes[COUNT_MAX];    /* fresh containers, for paths that need one each */
    uint8_t data[PIECE_BLOCKS * BLOCK];
} bed_t;

typedef struct {
    const char *name;
    void (*before)(bed_t *bed);
    void (*once)(bed_t *bed, uint32_t i);
    void (*after)(bed_t *bed);
} path_t;

static void must(int64_t rc, const char *what)
{
    if (rc >= 0) return;
    fprintf(stderr, "hot_paths: %s: %lld (%s)\n", what, (long long)rc, cow_error_detail());
    exit(1);
}

/* ---- The paths ------------------------------------------------------------------------------------ */

static void rewrite(bed_t *bed, uint32_t i)
{
    must(cow_file_write(bed->box, bed->big, (uint64_t)(i * 7 % PIECE_BLOCKS) * BLOCK, bed->data, BLOCK), "rewrite");
}

static void read_block(bed_t *bed, uint32_t i)
{
    must(cow_file_read(bed->box, bed->big, (uint64_t)(i * 7 % PIECE_BLOCKS) * BLOCK, bed->data, BLOCK), "read");
}

static void read_shared(bed_t *bed, uint32_t i)
{
    uint64_t block = PIECE_BLOCKS + (uint64_t)i * 1031 % (BIG_BLOCKS - PIECE_BLOCKS);
    must(cow_file_read(bed->box, bed->big, block * BLOCK, bed->data, BLOCK), "read");
}

static void lookup(bed_t *bed, uint32_t i)
{
    uint64_t ino;
    (void)i;
    must(cow_dir_lookup(bed->box, bed->doc, "copyright", 9, &ino, NULL), "lookup");
}

static void walk(bed_t *bed, uint32_t i)
{
    uint64_t ino;
    (void)i;
    must(cow_path_walk(bed->box, COW_ROOT_INO, PATH_TEXT, strlen(PATH_TEXT), 0, &ino, NULL), "walk");
}

static void make_boxes(bed_t *bed)
{
    for (uint32_t i = 0; i < bed->count; i++) must(cow_tree_fork(bed->base, COW_FORK_BASE, &bed->boxes[i]), "fork");
}

static void delete_boxes(bed_t *bed)
{
    for (uint32_t i = 0; i < bed->count; i++) {
        must(cow_tree_delete(bed->boxes[i]), "delete");
        cow_tree_close(bed->boxes[i]);
    }
    must(cow_store_commit(bed->store), "commit");
}

static void fork_base(bed_t *bed, uint32_t i)
{
    must(cow_tree_fork(bed->base, COW_FORK_BASE, &bed->boxes[i]), "fork");
}

static void first_write(bed_t *bed, uint32_t i)
{
    must(cow_file_write(bed->boxes[i], bed->big, 1024 * BLOCK, bed->data, BLOCK), "first write");
}

static void chmod_untouched(bed_t *bed, uint32_t i)
{
    cow_attr attr = {.mode = 0600};
    must(cow_inode_set(bed->boxes[i], bed->big, &attr, COW_SET_MODE), "chmod");
}

/* Each block of the large file once: a copy_up in a tree that has its own path of nodes already. */
static void next_write(bed_t *bed, uint32_t i)
{
    uint64_t block = (uint64_t)i * 1031 % BIG_BLOCKS;
    must(cow_file_write(bed->boxes[0], bed->big, block * BLOCK, bed->data, BLOCK), "write");
}

static void create_file(bed_t *bed, uint32_t i)
{
    char name[32];
    uint64_t ino;
    cow_attr attr = {.mode = S_IFREG | 0644};
    int bytes = snprintf(name, sizeof name, "file-%u", i);

    must(cow_dir_make(bed->boxes[0], COW_ROOT_INO, name, (size_t)bytes, &attr, NULL, 0, &ino), "make");
    must(cow_file_write(bed->boxes[0], ino, 0, bed->data, 1000), "write");
}

static void rollback(bed_t *bed, uint32_t i)
{
    must(cow_tree_reset(bed->boxes[i], bed->base), "rollback");
}

static void dirty_boxes(bed_t *bed)
{
    make_boxes(bed);
    for (uint32_t i = 0; i < bed->count; i++) first_write(bed, i);
}

static void delete_box(bed_t *bed, uint32_t i)
{
    must(cow_tree_delete(bed->boxes[i]), "delete");
}

static void close_boxes(bed_t *bed)
{
    for (uint32_t i = 0; i < bed->count; i++) cow_tree_close(bed->boxes[i]);
    must(cow_store_commit(bed->store), "commit");
}

static const path_t paths[] = {
    {"rewrite", NULL, rewrite, NULL},
    {"read", NULL, read_block, NULL},
    {"read_shared", NULL, read_shared, NULL},
    {"lookup", NULL, lookup, NULL},
    {"walk", NULL, walk, NULL},
    {"fork", NULL, fork_base, delete_boxes},
    {"rollback", dirty_boxes, rollback, delete_boxes},
    {"first_write", make_boxes, first_write, delete_boxes},
    {"chmod", make_boxes, chmod_untouched, delete_boxes},
    {"next_write", make_boxes, next_write, delete_boxes},
    {"create_file", make_boxes, create_file, delete_boxes},
    {"delete", dirty_boxes, delete_box, close_boxes},
};
#define PATHS (sizeof paths / sizeof paths[0])

/* ---- The bed ---------------------------------------------------------------------------------------- */

static uint64_t make(bed_t *bed, uint64_t dir, const char *name, uint32_t mode)
{
    uint64_t ino;
    cow_attr attr = {.mode = mode};
    must(cow_dir_make(bed->base, dir, name, strlen(name), &attr, NULL, 0, &ino), name);
    return ino;
}

static void fill(bed_t *bed)
{
    uint64_t dir = make(bed, COW_ROOT_INO, "usr", S_IFDIR | 0755);

    dir = make(bed, dir, "share", S_IFDIR | 0755);
    bed->doc = make(bed, dir, "doc", S_IFDIR | 0755);
    (void)make(bed, bed->doc, "copyright", S_IFREG | 0644);
    bed->big = make(bed, COW_ROOT_INO, "big", S_IFREG | 0644);
    for (size_t i = 0; i < sizeof bed->data; i++) bed->data[i] = (uint8_t)(i * 31 >> 3);
    for (uint64_t at = 0; at < BIG_BLOCKS; at += PIECE_BLOCKS) {
        must(cow_file_write(bed->base, bed->big, at * BLOCK, bed->data, sizeof bed->data), "write");
    }
    must(cow_tree_seal(bed->base), "seal");
    must(cow_store_commit(bed->store), "commit");
}

static bed_t *open_bed(const char *folder)
{
    cow_options options = {.flags = COW_OPEN_CREATE};
    bed_t *bed = calloc(1, sizeof *bed);

    if (!bed) must(-12, "memory");
    must(cow_store_open(folder, &options, &bed->store), folder);
    must(cow_tree_create(bed->store, 0, &bed->base), "create");
    fill(bed);
    must(cow_tree_fork(bed->base, COW_FORK_BASE, &bed->box), "fork");
    must(cow_file_write(bed->box, bed->big, 0, bed->data, sizeof bed->data), "write");
    bed->count = 1;
    walk(bed, 0); /* warm */
    return bed;
}

static void close_bed(bed_t *bed)
{
    cow_tree_close(bed->box);
    cow_tree_close(bed->base);
    must(cow_store_close(bed->store), "close");
    free(bed);
}

/* What is measured; callgrind collects inside of this function only. */
__attribute__((noinline)) static void hot_run(bed_t *bed, const path_t *path)
{
    for (uint32_t i = 0; i < bed->count; i++) path->once(bed, i);
}

static double now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static double run(bed_t *bed, const path_t *path, uint32_t count)
{
    bed->count = count;
    if (path->before) path->before(bed);
    double started = now_ns();
    hot_run(bed, path);
    double took = now_ns() - started;
    if (path->after) path->after(bed);
    return took / count;
}

int main(int argc, char **argv)
{
    if (argc != 2 && argc != 4) {
        fprintf(stderr, "usage: hot_paths FOLDER [NAME COUNT]\n");
        return 2;
    }
    bed_t *bed = open_bed(argv[1]);
    uint32_t count = argc == 4 ? (uint32_t)strtoul(argv[3], NULL, 10) : 2000;
    int found = 0;

    if (count == 0 || count > COUNT_MAX) must(-22, "COUNT");
    for (size_t i = 0; i < PATHS; i++) {
        if (argc == 4 && strcmp(argv[2], paths[i].name) != 0) continue;
        found = 1;
        double best = run(bed, &paths[i], count);
        for (uint32_t round = 1; argc == 2 && round < ROUNDS; round++) {
            double took = run(bed, &paths[i], count);
            if (took < best) best = took;
        }
        printf("%s %.1f\n", paths[i].name, best);
        (void)fflush(stdout);
    }
    close_bed(bed);
    if (!found) fprintf(stderr, "hot_paths: no path %s\n", argv[2]);
    return found ? 0 : 2;
}
