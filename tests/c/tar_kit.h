/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tar_kit.h: what the tests of the tar layer need: trees and how they look, archives made byte by byte. Whatever fails
 * here ends the test program.
 */
#ifndef TAR_KIT_H
#define TAR_KIT_H

#include <stdio.h>
#include <stdlib.h>

#include "tree/store.h"

extern unsigned failures; /* of CHECK */
extern cow_store *store;

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, cow_error_detail()); \
            failures++; \
        } \
    } while (0)
#define MUST(expression) \
    do { \
        int64_t must_rc = (int64_t)(expression); \
        if (must_rc < 0) { \
            fprintf(stderr, "%s:%d: %s: %s %s\n", __FILE__, __LINE__, #expression, strerror((int)-must_rc), \
                    cow_error_detail()); \
            exit(1); \
        } \
    } while (0)

struct text {
    char *bytes;
    size_t used, capacity;
};

void add(struct text *text, const void *bytes, size_t count);
void addf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void drop_text(struct text *text);

/* ---- Trees ---- */

cow_tree *new_tree(void);
cow_tree *fork_of(cow_tree *source);
void drop(cow_tree *tree);
uint64_t find(cow_tree *tree, const char *path);
uint64_t make(cow_tree *tree, const char *path, uint32_t mode, const char *target);
uint64_t make_file(cow_tree *tree, const char *path, const char *content, size_t bytes);
void make_link(cow_tree *tree, const char *path, uint64_t ino);
void remove_path(cow_tree *tree, const char *path);
/* All that can be seen of a tree: one line a name, in order of names. */
struct text dump(cow_tree *tree, bool times);
void check_same(const char *what, cow_tree *a, cow_tree *b);

/* ---- Archives ---- */

struct text write_tar(cow_tree *old_tree, cow_tree *tree, size_t step);
/* Feeds the archive in pieces of step bytes; result may be NULL. */
int read_tar(cow_tree *tree, const struct text *archive, size_t step, uint32_t flags, cow_untar_result *result);
void seal(char *block); /* the checksum of a header block */
/* A ustar header; returns the block, for changes before seal. */
char *header(struct text *out, const char *name, char type, unsigned long long size, const char *link);
void content(struct text *out, const void *bytes, size_t count);
void file(struct text *out, const char *name, const char *text);
/* PAX records, "KEY=VALUE;KEY=VALUE", in a header of their own. */
void pax(struct text *out, char type, const char *records);
void end_archive(struct text *out); /* the end marker */

#endif
