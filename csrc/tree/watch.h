/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watch.h: telling others (a mount's cache) what was changed. Costs one load when nobody watches.
 */
#ifndef COW_WATCH_H
#define COW_WATCH_H

#include <pthread.h>
#include <stdatomic.h>

#include "cow.h"

#define COW_WATCHERS_MAX 16u

struct cow_watcher {
    void (*changed)(void *context, const cow_change *change);
    void (*settle)(void *context);
    void *context;
};

struct cow_watchers {
    pthread_rwlock_t lock;
    struct cow_watcher list[COW_WATCHERS_MAX];
    atomic_uint count;
};

void cow_watchers_init(struct cow_watchers *watchers);
void cow_watchers_deinit(struct cow_watchers *watchers);

static inline int cow_watched(const struct cow_watchers *watchers)
{
    return atomic_load_explicit(&watchers->count, memory_order_acquire) != 0;
}

/* Called without any lock of a tree. Inside of a transaction nobody waits (may_wait 0): its end settles. */
void cow_watch_tell(struct cow_watchers *watchers, const cow_change *change, int may_wait);
void cow_watch_settle(struct cow_watchers *watchers);

#endif
