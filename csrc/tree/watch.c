/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watchers of a store. A change is told after it was made, when no lock of its tree is held; then the thread that made it
 * waits until the watchers have settled, so that whoever looks through a mount afterwards sees it. A thread that works for
 * a watcher (cow_store_watch_skip) is not told to that watcher, and never waits: two mounts that waited for each other's
 * kernel caches could wait for ever.
 */
#include "tree/watch.h"

#include "tree/store.h"

static _Thread_local const void *working_for;

void cow_watchers_init(struct cow_watchers *watchers)
{
    (void)pthread_rwlock_init(&watchers->lock, NULL);
    atomic_init(&watchers->count, 0);
}

void cow_watchers_deinit(struct cow_watchers *watchers) { (void)pthread_rwlock_destroy(&watchers->lock); }

int cow_store_watch(cow_store *store, void (*changed)(void *context, const cow_change *change),
                    void (*settle)(void *context), void *context)
{
    if (!store || !changed || !settle || !context) return cow_fail(EINVAL, "a watcher needs its pointers");
    struct cow_watchers *watchers = &store->watchers;
    int rc = 0;
    pthread_rwlock_wrlock(&watchers->lock);
    unsigned count = atomic_load(&watchers->count);
    if (count == COW_WATCHERS_MAX) {
        rc = cow_fail(EMFILE, "a store has at most %u watchers", COW_WATCHERS_MAX);
    } else {
        watchers->list[count] = (struct cow_watcher){changed, settle, context};
        atomic_store(&watchers->count, count + 1);
    }
    pthread_rwlock_unlock(&watchers->lock);
    return rc;
}

void cow_store_unwatch(cow_store *store, void *context)
{
    struct cow_watchers *watchers = &store->watchers;
    pthread_rwlock_wrlock(&watchers->lock);
    unsigned count = atomic_load(&watchers->count);
    for (unsigned i = 0; i < count; i++) {
        if (watchers->list[i].context != context) continue;
        watchers->list[i] = watchers->list[count - 1];
        atomic_store(&watchers->count, count - 1);
        break;
    }
    pthread_rwlock_unlock(&watchers->lock);
}

void cow_store_watch_skip(const void *context) { working_for = context; }

static void each(struct cow_watchers *watchers, const cow_change *change)
{
    pthread_rwlock_rdlock(&watchers->lock);
    unsigned count = atomic_load(&watchers->count);
    for (unsigned i = 0; i < count; i++) {
        const struct cow_watcher *watcher = &watchers->list[i];
        if (!change) watcher->settle(watcher->context);
        else if (watcher->context != working_for) watcher->changed(watcher->context, change);
    }
    pthread_rwlock_unlock(&watchers->lock);
}

void cow_watch_tell(struct cow_watchers *watchers, const cow_change *change, int may_wait)
{
    if (!cow_watched(watchers)) return;
    each(watchers, change);
    if (may_wait) cow_watch_settle(watchers);
}

void cow_watch_settle(struct cow_watchers *watchers)
{
    if (cow_watched(watchers) && !working_for) each(watchers, NULL);
}
