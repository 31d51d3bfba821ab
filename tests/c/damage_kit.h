/* SPDX-License-Identifier: Apache-2.0 */
/*
 * damage_kit.h: a store as bytes. An image is every file of a store's medium; damage is done to the bytes, and a device is
 * made of them again. What the store should say is kept beside it: every path of every tree with its content.
 */
#ifndef PYCOW_DAMAGE_KIT_H
#define PYCOW_DAMAGE_KIT_H

#include "dev/dev.h"
#include "tree/store.h"

struct image_file {
    char name[32];
    uint8_t *bytes;
    size_t length;
};
struct image {
    struct image_file files[64];
    unsigned count;
};
void image_take(struct image *image, struct cow_dev *dev);
void image_free(struct image *image);
/* Writes the image to an empty device; altered (may be NULL) stands for the file of its name, removed is left out. */
void image_put(const struct image *image, const struct image_file *altered, const char *removed, struct cow_dev *dev);
const struct image_file *image_find(const struct image *image, const char *name);

struct known { /* one path of one tree */
    uint64_t tree;
    char path[96];
    uint32_t mode;
    uint64_t size;
    uint8_t *content; /* or the symlink's target */
};
struct knowledge {
    struct known entries[1024];
    unsigned count;
};
void knowledge_take(struct knowledge *knowledge, cow_store *store);
void knowledge_free(struct knowledge *knowledge);

struct verdict {
    unsigned whole, damaged, missing, wrong; /* paths: all right; -EUCLEAN somewhere; not there; anything else */
    unsigned bad_blocks;                     /* blocks of files that answer -EUCLEAN */
    unsigned other_error;                    /* an error that is none of those; -errno of the last one is in code */
    int code;
    char first[200];                         /* what was wrong first */
};
/* Reads all that is known, block by block. */
void knowledge_compare(const struct knowledge *knowledge, cow_store *store, struct verdict *verdict);

#endif
