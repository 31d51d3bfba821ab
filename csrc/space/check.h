/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.h: what check.c (comparing) and rebuild.c (setting right) share: the expected counts of a walk, as sorted spans.
 */
#ifndef COW_SPACE_CHECK_H
#define COW_SPACE_CHECK_H

#include "space/internal.h"

struct span {
    cow_addr addr;
    uint64_t count;
    uint64_t refs;
};

struct cow_space_check {
    struct cow_space *space;
    struct span *spans;
    size_t span_count;
    uint64_t *starts, *ends; /* of runs not yet folded in */
    size_t run_count, run_capacity;

    /* while comparing */
    void (*problem)(void *context, const char *text);
    void *context;
    uint64_t errors;
    bool partial;            /* expectations are incomplete */
    size_t at;               /* first span that ends behind position */
    cow_addr position;       /* all expectations before it were compared */
    struct span difference;  /* a run of blocks that differ in the same way; refs = expected */
    int64_t difference_refs; /* what the records say */
    struct span where;       /* of the problem that is reported; refs = 1: its records are damaged */
};

int space_check_fold(struct cow_space_check *check);
/* Expectations before addr that no segment has: reported. UINT64_MAX: all that are left. */
void space_check_skip_to(struct cow_space_check *check, cow_addr addr);
/* The expected count of the block; called in ascending order. */
uint64_t space_check_expected(struct cow_space_check *check, cow_addr addr);
/* The block behind the last one of the segment that is expected; 0 = none is. After fold. */
uint64_t space_check_end_of(const struct cow_space_check *check, uint32_t segment);
void space_check_report(struct cow_space_check *check, cow_addr addr, uint64_t count, bool records, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

#endif
