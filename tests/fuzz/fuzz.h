/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz.h: what the fuzz targets share: the input as a stream of small numbers, and a check that ends the run. A target is
 * LLVMFuzzerTestOneInput; docs/TESTING.md says how to run and replay one.
 */
#ifndef PYCOW_FUZZ_H
#define PYCOW_FUZZ_H

#include <stdio.h>
#include <stdlib.h>

#include "base/common.h"
#include "cow.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(condition)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s (last detail: \"%s\")\n", __FILE__, __LINE__, #condition, cow_error_detail());  \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* What is left of the input; behind its end come zeros. */
struct fuzz_input {
    const uint8_t *at;
    size_t left;
};

static inline uint8_t fuzz_take8(struct fuzz_input *input)
{
    if (input->left == 0) return 0;
    input->left--;
    return *input->at++;
}
static inline uint16_t fuzz_take16(struct fuzz_input *input)
{
    unsigned low = fuzz_take8(input);
    return (uint16_t)(low | (unsigned)fuzz_take8(input) << 8);
}
static inline uint64_t fuzz_take64(struct fuzz_input *input)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++) value |= (uint64_t)fuzz_take8(input) << (8 * i);
    return value;
}
/* Up to count bytes of input, then zeros. */
static inline void fuzz_take(struct fuzz_input *input, void *buffer, size_t count)
{
    size_t n = count < input->left ? count : input->left;
    memset(buffer, 0, count);
    if (n) memcpy(buffer, input->at, n);
    input->at += n;
    input->left -= n;
}
/* The rest of the input in memory of its own, so that reading past its end is seen. */
static inline uint8_t *fuzz_rest(struct fuzz_input *input, size_t *bytes_out)
{
    uint8_t *rest = malloc(input->left ? input->left : 1);
    FUZZ_CHECK(rest != NULL);
    if (input->left) memcpy(rest, input->at, input->left);
    *bytes_out = input->left;
    input->left = 0;
    return rest;
}

#endif
