/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.h: the open store: generations and their commit, transactions, the table of trees, what is still to be released.
 * Private to tree/ and the api_*.c files.
 *
 * A generation is all that happens between two commits. Closing it is short and exclusive (writers lock); writing it out
 * goes on beside the next generation's work:
 *
 *   close (exclusive)      tree records, list of subtrees to release -> trees tree; nodes hashed and frozen;
 *                          changed record pages copied; the superblock's content fixed
 *   write, sync, super, sync     no lock; store->committing keeps other commits away
 *   done                   released blocks become reusable
 *
 * After an error from there on the store is failed: every call but close answers -EIO, and opening it again shows the last
 * durable commit.
 */
#ifndef COW_STORE_H
#define COW_STORE_H

#include <stdatomic.h>

#include "tree/tree.h"
#include "tree/watch.h"

/* Early commit: more than this much of the open generation is in memory. */
#define COW_DIRTY_NODES_MAX 16384u
#define COW_DIRTY_PAGES_MAX 4096u

#define COW_OPEN_SALVAGE 0x10000u /* in options->flags, only for repair: opens what is damaged */

#define COW_RELEASE_AT_ONCE 4096u /* nodes released by the call that deletes */

struct cow_lockfile;

/* A tree as it was when a transaction first touched it. */
struct cow_saved {
    struct cow_tree *tree;
    struct cow_tree_record record; /* root with a reference of its own */
    bool created, deleted;         /* by the transaction */
};

struct cow_transaction {
    _Atomic(const void *) owner; /* thread token; NULL = no transaction */
    bool undo;                   /* can be taken back: trees are saved before their first change */
    struct cow_saved *saved;
    size_t saved_count, saved_capacity;
};

struct cow_committer { /* the background thread */
    pthread_t thread;
    bool running, stop, kicked;
    uint32_t interval_ms;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

struct cow_store {
    struct cow_dev *dev;
    struct cow_space *space;
    struct cow_nodes *nodes;
    struct cow_lookup *lookup;     /* set by api_store.c */
    struct cow_lockfile *lockfile; /* NULL for test devices */
    struct cow_super super;        /* of the last durable commit; the committing thread's */
    uint8_t hash_key[16];
    bool readonly;
    bool salvage;            /* opened by repair: nothing is released before the records were made anew */
    bool super_damaged;      /* salvage: one superblock is not whole, or leads nowhere */
    unsigned forks_seen; /* compared with the process's fork count: a handle in a child answers -ECHILD */
    atomic_int failed;   /* negative errno of what failed the store, 0 = well */
    char failure[256];

    pthread_rwlock_t writers;
    struct cow_transaction transaction;

    pthread_mutex_t table_lock; /* the table, tree->handles, tree->dirty, the counts below */
    struct cow_tree **buckets;
    size_t bucket_count, tree_objects;
    struct cow_tree *dirty_trees;
    uint64_t next_tree, tree_count;

    pthread_mutex_t trees_lock; /* the trees tree */
    struct cow_root trees_root;

    pthread_mutex_t release_lock;
    struct cow_release release;
    uint32_t release_stored; /* DEAD items in the trees tree */
    uint32_t release_at_once;
    bool release_later;      /* what is left of a deletion waits although no thread works on it */
    bool release_changed;

    pthread_mutex_t commit_lock; /* short: committing; waiting for a commit is waiting for commit_ended */
    pthread_cond_t commit_ended;
    bool committing; /* one at a time; its holder alone uses super */
    _Atomic uint64_t open_generation, durable_generation;
    struct cow_committer committer;
    _Atomic uint32_t epoch; /* source of own_epoch and map_epoch */

    cow_counter commits, forks, deletes;
    struct cow_copy_up_counters copy_up;
    struct cow_watchers watchers;
};

/* api_store.c */
int cow_store_open_dev(struct cow_dev *dev, const cow_options *options, cow_store **store_out); /* owns dev */
void cow_store_abandon(cow_store *store); /* tests: as close, but what is not committed is lost, as when a process dies */
/* Tests: makes rare things frequent. Before the store is used; 0 = leave it. */
struct cow_tuning {
    uint32_t journal_pages;   /* a journal half above it is checkpointed */
    uint32_t release_at_once; /* nodes that a deletion releases itself; the rest waits as DEAD items */
};
void cow_store_tune(cow_store *store, const struct cow_tuning *tuning);

/* repair.c: on a device (owned, also on error); lockfile may be NULL and stays the caller's. */
int cow_store_repair_dev(struct cow_dev *dev, struct cow_lockfile *lockfile, cow_found_fn found, void *context,
                         cow_repair_report *report_out);

/* store.c */
/* Opens or makes the store on dev (owned, also on error). Without catalog and lookup: the layers above add those. */
int cow_store_attach(struct cow_dev *dev, const cow_options *options, struct cow_lockfile *lockfile, bool *made_out,
                     cow_store **store_out);
void cow_store_detach(cow_store *store); /* no commit */
int cow_store_usable(const cow_store *store); /* 0, -ECHILD, or -EIO when failed */
int cow_store_fail(cow_store *store, int code, const char *what); /* returns code */
uint32_t cow_store_next_epoch(cow_store *store);
/* The superblock is durable: what it does not refer to may be reused, but for what readers of other processes still see.
 * Housekeeping: what fails of it is tried again after the next commit. */
void cow_store_reclaim(cow_store *store);
int cow_store_write_super(cow_store *store, const struct cow_super *super); /* into its slot, durably */
void cow_store_put_space_state(struct cow_super *super, const struct cow_space_state *state);

/* transaction.c. enter/leave bracket every change: the writers lock, unless this thread owns the transaction. */
int cow_writers_enter(cow_store *store);
void cow_writers_leave(cow_store *store);
bool cow_transaction_mine(const cow_store *store);
bool cow_transaction_undoes(const cow_store *store); /* mine, and it can be taken back */
void cow_tree_tell(struct cow_tree *tree, const cow_change *change); /* fills in the tree */
int cow_transaction_save(struct cow_tree *tree);           /* before the first change; tree locked */
int cow_transaction_note(struct cow_tree *tree, bool created); /* created or deleted in the transaction */

/* commit.c */
int cow_commit(cow_store *store);
void cow_commits_hold(cow_store *store); /* no commit until let go; waits for the one under way */
void cow_commits_let_go(cow_store *store);
int cow_committer_start(cow_store *store, uint32_t interval_ms);
void cow_committer_stop(cow_store *store);
void cow_committer_kick(cow_store *store);

/* table.c: tree objects. get adds a handle (loads the tree when needed), put drops it. */
int cow_table_open(cow_store *store);
void cow_table_close(cow_store *store);
int cow_table_get(cow_store *store, uint64_t id, struct cow_tree **tree_out);
int cow_table_add(cow_store *store, const struct cow_tree_record *record, struct cow_tree **tree_out); /* a new id, one handle */
void cow_table_put(struct cow_tree *tree);
void cow_table_mark_dirty(struct cow_tree *tree);
int cow_table_flush(cow_store *store); /* generation closing: records of all dirty trees */
int cow_table_forget(struct cow_tree *tree); /* removes the record of a deleted tree */
void cow_tree_to_record(const struct cow_tree *tree, struct cow_tree_record *record_out);
void cow_tree_from_record(struct cow_tree *tree, const struct cow_tree_record *record);
int cow_table_first_temp(cow_store *store, uint64_t *id_out); /* 1 = there is one, as of the last flush */
int cow_table_each(cow_store *store, int (*each)(void *context, uint64_t id, const struct cow_tree_record *record),
                   void *context); /* records as of the last flush */

/* release.c: subtrees that lost their last root. */
int cow_release_push(cow_store *store, struct cow_root root); /* small ones are gone when it returns */
int cow_release_step(cow_store *store, uint32_t budget, bool *more_out); /* inside enter/leave */
int cow_release_load(cow_store *store);
int cow_release_flush(cow_store *store); /* generation closing */
uint64_t cow_release_pending(cow_store *store);

/* lockfile.c: one writer, pinned readers (among processes). */
int cow_lockfile_open(const char *path, bool readonly, struct cow_lockfile **lockfile_out); /* -EAGAIN: another writer */
void cow_lockfile_close(struct cow_lockfile *lockfile);
int cow_lockfile_pin(struct cow_lockfile *lockfile, uint64_t generation); /* 0 first, then what the superblock says */
uint64_t cow_lockfile_oldest(struct cow_lockfile *lockfile);              /* UINT64_MAX = no reader */

/* tree.c */
int cow_tree_new(cow_store *store, uint32_t flags, struct cow_tree **tree_out); /* no root directory yet */
int cow_tree_branch(struct cow_tree *source, uint32_t flags, struct cow_tree **tree_out);
void cow_tree_replaced(struct cow_tree *tree); /* its content is another now: caches go stale */
int cow_tree_drop(struct cow_tree *tree);      /* its record and root go for good; locked and dead */
void cow_tree_set_dead(struct cow_tree *tree, bool dead);

#endif
