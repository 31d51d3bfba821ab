/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one atomic step, and the thread that takes it now and then. Data blocks were written by the operations themselves;
 * a commit writes nodes and records, syncs all of it, writes the superblock of the new generation over that of the last
 * but one, and syncs that. docs/CRASH.md has the proof.
 */
#include <stdlib.h>
#include <time.h>

#include "tree/store.h"

/* Is there anything that the last commit does not have? */
static bool anything_new(cow_store *store)
{
    pthread_mutex_lock(&store->table_lock);
    bool trees = store->dirty_trees != NULL;
    pthread_mutex_unlock(&store->table_lock);
    return trees || cow_nodes_dirty(store->nodes) > 0 || cow_space_dirty_pages(store->space) > 0;
}

/* Under the writers lock, exclusive. */
static int close_generation(cow_store *store, struct cow_super *super_out)
{
    int rc = cow_table_flush(store);
    if (!rc) rc = cow_release_flush(store);
    if (!rc) rc = cow_space_lost(store->space);
    if (!rc) rc = cow_nodes_commit_close(store->nodes);
    struct cow_space_state state;
    if (!rc) rc = cow_space_commit_close(store->space, &state);
    if (rc) return rc;
    struct cow_super super = store->super;
    super.generation = atomic_load(&store->open_generation);
    super.trees_addr = store->trees_root.addr;
    super.trees_generation = store->trees_root.generation;
    super.next_tree = store->next_tree;
    super.tree_count = store->tree_count;
    super.next_dead = store->release_stored;
    cow_store_put_space_state(&super, &state);
    atomic_store(&store->open_generation, super.generation + 1);
    *super_out = super;
    return 0;
}

static int write_generation(cow_store *store, const struct cow_super *super)
{
    int rc = cow_nodes_commit_write(store->nodes);
    if (!rc) rc = cow_space_commit_write(store->space);
    if (!rc) rc = cow_space_commit_sync(store->space);
    if (!rc) rc = cow_store_write_super(store, super);
    if (rc) return rc;
    store->super = *super;
    cow_nodes_commit_done(store->nodes);
    pthread_mutex_lock(&store->commit_lock);
    atomic_store(&store->durable_generation, super->generation);
    pthread_cond_broadcast(&store->commit_ended); /* whom it serves need not wait for the housekeeping */
    pthread_mutex_unlock(&store->commit_lock);
    cow_store_reclaim(store);
    return 0;
}

/* True when the wanted generation became durable while this thread waited; otherwise committing is this thread's. */
static bool wait_for_commit(cow_store *store, uint64_t wanted)
{
    pthread_mutex_lock(&store->commit_lock);
    bool durable = atomic_load(&store->durable_generation) >= wanted;
    while (!durable && store->committing) {
        pthread_cond_wait(&store->commit_ended, &store->commit_lock);
        durable = atomic_load(&store->durable_generation) >= wanted;
    }
    if (!durable) store->committing = true;
    pthread_mutex_unlock(&store->commit_lock);
    return durable;
}

void cow_commits_hold(cow_store *store) { (void)wait_for_commit(store, UINT64_MAX); /* a generation that never is */ }

void cow_commits_let_go(cow_store *store)
{
    pthread_mutex_lock(&store->commit_lock);
    store->committing = false;
    pthread_cond_broadcast(&store->commit_ended);
    pthread_mutex_unlock(&store->commit_lock);
}

/* By the thread that set committing. */
static int commit_once(cow_store *store)
{
    pthread_rwlock_wrlock(&store->writers);
    if (!anything_new(store)) {
        pthread_rwlock_unlock(&store->writers);
        if (cow_space_wants_commit(store->space)) cow_store_reclaim(store);
        return 0;
    }
    struct cow_super super;
    int rc = close_generation(store, &super);
    if (rc) rc = cow_store_fail(store, rc, "closing a generation");
    pthread_rwlock_unlock(&store->writers);
    if (rc) return rc;
    rc = write_generation(store, &super);
    if (rc) return cow_store_fail(store, rc, "writing a commit");
    cow_count(&store->commits, 1);
    return 0;
}

/* Waiters share commits: all who came while one was under way are served by the next one, whoever of them takes it. */
int cow_commit(cow_store *store)
{
    int rc = cow_store_usable(store);
    if (rc) return rc;
    if (store->readonly) return cow_fail(EROFS, "the store is open for reading only");
    if (cow_transaction_mine(store)) return cow_fail(EBUSY, "a commit inside of a transaction");
    if (wait_for_commit(store, atomic_load(&store->open_generation))) return 0;
    rc = cow_store_usable(store);
    if (!rc) rc = commit_once(store);
    cow_commits_let_go(store);
    return rc;
}

int cow_store_commit(cow_store *store) { return cow_commit(store); }

/* ---- The background thread: releases what was deleted, and commits every interval ---- */

static struct timespec after_ms(uint32_t ms)
{
    struct timespec when;
    clock_gettime(CLOCK_MONOTONIC, &when);
    when.tv_sec += ms / 1000;
    when.tv_nsec += (long)(ms % 1000) * 1000000L;
    if (when.tv_nsec >= 1000000000L) {
        when.tv_sec++;
        when.tv_nsec -= 1000000000L;
    }
    return when;
}

/* True when it is to stop. */
static bool wait_for_work(struct cow_committer *committer, bool more, bool *due_out)
{
    struct timespec until = after_ms(committer->interval_ms);
    int rc = 0;
    pthread_mutex_lock(&committer->lock);
    while (!committer->stop && !committer->kicked && !more && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&committer->wake, &committer->lock, &until);
    committer->kicked = false;
    bool stop = committer->stop;
    pthread_mutex_unlock(&committer->lock);
    *due_out = rc == ETIMEDOUT;
    return stop;
}

static void *committer_main(void *argument)
{
    cow_store *store = argument;
    bool more = false, due = false;
    int64_t last = cow_now_ns();
    while (!wait_for_work(&store->committer, more, &due)) {
        more = false;
        if (cow_release_pending(store) > 0 && cow_writers_enter(store) == 0) {
            int rc = cow_release_step(store, 512, &more);
            if (rc) (void)cow_store_fail(store, rc, "releasing a deleted tree");
            cow_writers_leave(store);
        }
        int64_t now = cow_now_ns();
        if (due || now - last >= (int64_t)store->committer.interval_ms * 1000000) {
            (void)cow_commit(store); /* a failure stays with the store and is told to the next caller */
            last = now;
        }
    }
    return NULL;
}

int cow_committer_start(cow_store *store, uint32_t interval_ms)
{
    struct cow_committer *committer = &store->committer;
    committer->interval_ms = interval_ms;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&committer->lock, NULL);
    pthread_cond_init(&committer->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    int rc = pthread_create(&committer->thread, NULL, committer_main, store);
    if (rc) return cow_fail(rc, "starting the commit thread");
    committer->running = true;
    return 0;
}

void cow_committer_kick(cow_store *store)
{
    struct cow_committer *committer = &store->committer;
    if (!committer->running) return;
    pthread_mutex_lock(&committer->lock);
    committer->kicked = true;
    pthread_cond_signal(&committer->wake);
    pthread_mutex_unlock(&committer->lock);
}

void cow_committer_stop(cow_store *store)
{
    struct cow_committer *committer = &store->committer;
    if (!committer->running) return;
    pthread_mutex_lock(&committer->lock);
    committer->stop = true;
    pthread_cond_signal(&committer->wake);
    pthread_mutex_unlock(&committer->lock);
    pthread_join(committer->thread, NULL);
    committer->running = false;
    pthread_mutex_destroy(&committer->lock);
    pthread_cond_destroy(&committer->wake);
}
