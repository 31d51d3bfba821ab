/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.h: what the files of check/ share. check.c walks all nodes and counts references, names.c compares names,
 * inodes and counters tree by tree, report.c makes findings; repair.c and salvage.c set right what can be; scrub.c reads
 * blocks in steps. All but scrub run alone: they hold the writers lock exclusively, or nobody else knows the store.
 */
#ifndef COW_CHECK_H
#define COW_CHECK_H

#include "cow.h"
#include "tree/store.h"

/* ---- report.c: where findings go ---- */

struct cow_reporter {
    cow_store *store;
    cow_found_fn found; /* may be NULL */
    void *context;
    uint64_t count;
};
/* Fills in text, and path from tree and ino (0 = none) when the tree's root is given. */
void cow_report(struct cow_reporter *reporter, const cow_finding *finding, const struct cow_root *root,
                const char *format, ...) __attribute__((format(printf, 4, 5)));
/* One path of an inode, from the tree alone, whatever state it is in: "" when there is none. */
#define COW_REPORT_PATH_BYTES 4200u
void cow_report_path(cow_store *store, struct cow_root root, uint64_t ino, char path[COW_REPORT_PATH_BYTES]);

/* ---- names.c: one tree ---- */

/* What is added up over the inodes of a tree; all modulo 2^64. */
struct cow_tally {
    uint64_t inodes, apparent_bytes, own_bytes, orphans;
    uint64_t names[2], backs[2];     /* sums of hashes: of all directory entries, of what the inodes say about theirs */
    uint64_t orphan_items, orphan_flags;
};
/* A tree that was gone through; forks of it are compared with it. */
struct cow_checked {
    uint64_t id, base, newest_birth;
    struct cow_root root;
    bool whole; /* nothing of it was damaged, and its names were right */
    struct cow_tally tally;
};
struct cow_names {
    struct cow_reporter *reporter;
    bool whole_trees; /* do not take forks by their difference */
    bool fix;         /* set inodes and records right */
    struct cow_checked *checked; /* ascending ids */
    size_t count, capacity;
    uint64_t orphans;
};
#define COW_CHECKED_MAX ((size_t)1 << 20)
void cow_names_deinit(struct cow_names *names);
/* Reports what is wrong; with fix also sets *record right (its root changes when inodes do) and *changed_out. */
int cow_names_check(struct cow_names *names, uint64_t id, struct cow_tree_record *record, bool *changed_out);

/* ---- check.c: the walk ---- */

struct cow_walk {
    struct cow_reporter *reporter;
    struct cow_space_check *space;
    bool verify_data;
    uint8_t *visited; /* a bit per block of segment 0 */
    uint64_t visited_blocks;
    uint8_t *buffer; /* for reading data */
    uint64_t tree;   /* being walked */
    struct cow_root root;
    uint64_t damaged_nodes; /* found so far */
    uint64_t damaged_data;
    cow_check_report report;
};
/* Visits everything that the roots reach, and tells space what it finds. */
/* Every tree whose record can be read, also behind damaged nodes of the list. */
int cow_each_tree(cow_store *store, int (*each)(void *context, uint64_t id, const struct cow_tree_record *record),
                  void *context);
int cow_walk_init(struct cow_walk *walk, struct cow_reporter *reporter, bool verify_data);
int cow_walk_all(struct cow_walk *walk);
void cow_walk_deinit(struct cow_walk *walk);

/* Which other trees reach the same item (forks keep inode numbers): reports each, up to a bound. */
void cow_report_sharers(struct cow_reporter *reporter, uint64_t tree, struct cow_key key, cow_addr addr,
                        const cow_finding *finding);

/* ---- owners.c ---- */

struct cow_addr_run {
    cow_addr addr;
    uint64_t count;
};
#define COW_RUNS_MAX 65536u
struct cow_runs { /* ascending addresses, at most COW_RUNS_MAX */
    struct cow_addr_run *run;
    size_t count, capacity;
    uint64_t more; /* blocks that had no room */
};
int cow_runs_add(struct cow_runs *runs, cow_addr addr, uint32_t count);
void cow_runs_deinit(struct cow_runs *runs);
/* Reports the files that the runs belong to, as findings of that kind; writers are locked out. */
int cow_report_owners(struct cow_reporter *reporter, const struct cow_runs *runs, uint32_t kind);

/* ---- salvage.c ---- */

/* Where a damaged node stood: the last inode before it, and what blocks of that file it may have mapped. */
struct cow_gap {
    uint64_t ino, first_block, end_block;
};
struct cow_gaps {
    struct cow_gap *gap;
    size_t count, capacity;
};
/* A new tree of all that can still be read of root; its names are not set right yet. gaps NULL: it is the trees tree, of
 * which only TREE and TEMP items are wanted. */
int cow_salvage(cow_store *store, struct cow_root root, struct cow_gaps *gaps, struct cow_root *root_out);
/* Makes names and inodes fit each other: entries without inode go, inodes without entry come to /lost+found. What the
 * gaps took from a file's content reads as damage, not as a hole: it is mapped to *spoiled, a block that never verifies
 * (made when it is 0). tree is held and nobody else has it. */
int cow_salvage_names(struct cow_reporter *reporter, struct cow_tree *tree, const struct cow_gaps *gaps,
                      cow_addr *spoiled);

#endif
