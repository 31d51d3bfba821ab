/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work.h: a seeded workload of everything that the core can do, on a simulated device that outlives its stores; and what
 * must be true of a store afterwards. The same seed gives the same operations, events and layout (times differ, but
 * they move nothing). Shared by test_crash and test_faults.
 */
#ifndef PYCOW_WORK_H
#define PYCOW_WORK_H

#include "dev/dev.h"
#include "tree/store.h"

#define WORK_COMMITS_MAX 1024u
#define WORK_TREES_MAX 12u

struct work_commit {
    uint64_t started, ended; /* events issued when the commit began and when it was known to be durable */
    uint64_t digest;
};

struct work {
    cow_store *store;
    struct cow_dev *sim; /* held: lives until work_deinit */
    cow_options options;
    uint64_t random;
    cow_tree *trees[WORK_TREES_MAX];
    bool sealed[WORK_TREES_MAX];
    unsigned tree_count;
    struct work_commit commits[WORK_COMMITS_MAX];
    unsigned commit_count;
    struct work_commit flying; /* ended 0: none. A commit that failed: it may be on the medium all the same */
    int fault;        /* error that is being injected (positive errno), 0 = none: an operation may then answer it */
    unsigned errors;  /* operations that answered with it, or because the store had failed */
    void (*on_pause)(bool paused); /* called when faults are held back and let go again; may be NULL */
};

/* A new store, with limits that make checkpoints and deferred releases frequent. */
void work_init(struct work *work, uint64_t seed);
void work_deinit(struct work *work);
/* steps operations, commits among them. Ends early when the store failed. */
void work_run(struct work *work, unsigned steps);
int work_commit(struct work *work);
/* Closes the handles, and the store: kill loses what is not committed, as a process that dies does. */
int work_close(struct work *work, bool kill);
/* Opens the store again, on the medium as it is in the host's cache. Its content must be that of the last commit or of
 * the one that failed; recorded as a commit. 0 or the error of opening it. */
int work_reopen(struct work *work);
/* Checks everything and says what is wrong on stderr; the number of problems. */
unsigned work_check(cow_store *store);
bool work_promised(const struct work *w, uint64_t event); /* a commit was durable by then */
/* Whether a store with this digest may appear on a medium that lost power after so many events. */
bool work_may_show(const struct work *work, uint64_t event, uint64_t digest);
uint64_t work_random(struct work *work);

#define WORK_MUST(expression) \
    do { \
        int64_t must_rc = (expression); \
        if (must_rc < 0) { \
            fprintf(stderr, "%s:%d: %s: %lld %s\n", __FILE__, __LINE__, #expression, (long long)must_rc, cow_error_detail()); \
            exit(1); \
        } \
    } while (0)

#endif
