/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_crash.c: what the medium may look like after a power failure.
 *
 * Replay brings each inode and each name to the state "durable content, and the list of changes since". It only goes
 * forward, so images taken at rising event counts cost what lies between them; going back starts anew. An image then
 * copies the durable contents (sharing their chunks) and applies the pending changes, each according to its fate:
 * kept, lost or torn. The fates are drawn by hashing (seed, event count, event), so an image depends on nothing else.
 *
 * Single bits of luck would rarely give the interesting cases when many changes are pending. So each seed from 2 on
 * first draws a plan: scattered losses of some density; all before a cut and nothing after it; all but one;
 * nothing but one. The growth of a file is a matter apart from its data, as in a file system: a lost write may
 * leave zeros and the longer size, and a kept one may lie beyond the end that survived.
 */
#include "dev/sim.h"

#include <stdlib.h>

#define SECTOR_BYTES 512u

enum fate {
    LOST,
    KEPT,
    TORN,
};

enum plan_kind {
    PLAN_NOTHING,
    PLAN_ALL,
    PLAN_SCATTER,
    PLAN_CUT,
    PLAN_ALL_BUT_ONE,
    PLAN_ONE,
};

struct plan {
    enum plan_kind kind;
    uint64_t random;   /* what all draws start from */
    uint64_t chosen;   /* the event of CUT, ALL_BUT_ONE and ONE */
    unsigned kept_256; /* SCATTER: so many of 256 changes are kept */
};

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t z = a + 0x9E3779B97F4A7C15u * (b + 1);

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* ---- Replay ------------------------------------------------------------------------------------ */

void cow_sim_replay_reset(struct sim_log *log)
{
    for (uint32_t i = 0; i < log->inode_count; i++) {
        cow_bytes_deinit(&log->inodes[i].durable);
        log->inodes[i].pending = (struct sim_pending){SIM_NO_EVENT, SIM_NO_EVENT};
    }
    for (uint32_t i = 0; i < log->name_count; i++) {
        log->names[i].durable = SIM_NONE;
        log->names[i].pending = (struct sim_pending){SIM_NO_EVENT, SIM_NO_EVENT};
    }
    log->replayed = 0;
}

static void pending_add(struct sim_log *log, struct sim_pending *pending, uint64_t event)
{
    log->events[event].next = SIM_NO_EVENT;
    if (pending->first == SIM_NO_EVENT)
        pending->first = event;
    else
        log->events[pending->last].next = event;
    pending->last = event;
}

static int apply_whole(struct cow_bytes *bytes, const struct sim_event *event)
{
    switch (event->kind) {
    case SIM_WRITE: return cow_bytes_write(bytes, event->offset, event->data, (size_t)event->length);
    case SIM_RESERVE: cow_bytes_grow(bytes, event->offset + event->length); return 0;
    case SIM_PUNCH: return cow_bytes_zero(bytes, event->offset, event->length);
    case SIM_TRUNCATE: return cow_bytes_shrink(bytes, 0);
    case SIM_SYNC:
    case SIM_NAME:
    case SIM_SYNC_DIR: break;
    }
    COW_ASSERT(event->kind <= SIM_TRUNCATE); /* the others are no changes of content */
    return 0;
}

static int replay_sync(struct sim_log *log, struct sim_inode *inode)
{
    int rc = 0;

    for (uint64_t e = inode->pending.first; e != SIM_NO_EVENT && !rc; e = log->events[e].next)
        rc = apply_whole(&inode->durable, &log->events[e]);
    inode->pending = (struct sim_pending){SIM_NO_EVENT, SIM_NO_EVENT};
    return rc;
}

static void replay_sync_dir(struct sim_log *log, uint32_t folder)
{
    for (uint32_t i = 0; i < log->name_count; i++) {
        struct sim_name *name = &log->names[i];
        if (name->folder != folder || name->pending.last == SIM_NO_EVENT) continue;
        name->durable = log->events[name->pending.last].inode;
        name->pending = (struct sim_pending){SIM_NO_EVENT, SIM_NO_EVENT};
    }
}

static int replay(struct sim_log *log, uint64_t event_count)
{
    int rc = 0;

    if (event_count < log->replayed) cow_sim_replay_reset(log);
    for (; log->replayed < event_count && !rc; log->replayed++) {
        const struct sim_event *event = &log->events[log->replayed];
        switch (event->kind) {
        case SIM_SYNC: rc = replay_sync(log, &log->inodes[event->inode]); break;
        case SIM_SYNC_DIR: replay_sync_dir(log, event->name); break;
        case SIM_NAME: pending_add(log, &log->names[event->name].pending, log->replayed); break;
        case SIM_WRITE:
        case SIM_RESERVE:
        case SIM_PUNCH:
        case SIM_TRUNCATE: pending_add(log, &log->inodes[event->inode].pending, log->replayed); break;
        }
    }
    if (rc) cow_sim_replay_reset(log);
    return rc;
}

/* ---- The plan ---------------------------------------------------------------------------------- */

/* The pending event that stands at place `wanted` when they are counted inode by inode, name by name; counts them
 * all when wanted is past the end. */
static uint64_t pending_at(const struct sim_log *log, uint64_t wanted, uint64_t *count_out)
{
    uint64_t count = 0, found = SIM_NO_EVENT;

    for (uint64_t i = 0; i < (uint64_t)log->inode_count + log->name_count; i++) {
        const struct sim_pending *pending =
            i < log->inode_count ? &log->inodes[i].pending : &log->names[i - log->inode_count].pending;
        for (uint64_t e = pending->first; e != SIM_NO_EVENT; e = log->events[e].next, count++)
            if (count == wanted) found = e;
    }
    *count_out = count;
    return found;
}

static struct plan make_plan(const struct sim_log *log, uint64_t event_count, uint64_t seed)
{
    static const unsigned densities[] = {16, 64, 128, 192, 240};
    struct plan plan = {.kind = seed == 0 ? PLAN_NOTHING : PLAN_ALL, .chosen = SIM_NO_EVENT};
    uint64_t count;

    if (seed < 2) return plan;
    plan.random = mix(mix(0, seed), event_count);
    plan.kept_256 = densities[mix(plan.random, 1) % (sizeof densities / sizeof *densities)];
    plan.kind = (enum plan_kind)(PLAN_SCATTER + mix(plan.random, 2) % 4);
    (void)pending_at(log, UINT64_MAX, &count);
    if (count > 0) plan.chosen = pending_at(log, mix(plan.random, 3) % count, &count);
    return plan;
}

static uint64_t draw(const struct plan *plan, uint64_t event, uint64_t what)
{
    return mix(mix(plan->random, event + 16), what);
}

static enum fate fate_of(const struct plan *plan, uint64_t event)
{
    uint64_t luck = draw(plan, event, 0);
    bool chosen = event == plan->chosen;

    switch (plan->kind) {
    case PLAN_NOTHING: return LOST;
    case PLAN_ALL: return KEPT;
    case PLAN_CUT: return chosen ? TORN : event < plan->chosen ? KEPT : LOST;
    case PLAN_ALL_BUT_ONE: return !chosen ? KEPT : (luck & 1) ? TORN : LOST;
    case PLAN_ONE: return !chosen ? LOST : (luck & 1) ? TORN : KEPT;
    case PLAN_SCATTER: break;
    }
    if ((luck & 255) < plan->kept_256) return KEPT;
    return ((luck >> 8) & 3) == 0 ? TORN : LOST;
}

/* Whether all growth of an inode is lost: its size is that of its last sync, whatever was written beyond. */
static bool growth_is_lost(const struct plan *plan, uint32_t inode)
{
    if (plan->kind == PLAN_NOTHING || plan->kind == PLAN_ALL) return plan->kind == PLAN_NOTHING;
    return mix(mix(plan->random, 4), inode) % 4 == 0;
}

/* ---- Contents ---------------------------------------------------------------------------------- */

static int apply_part(struct cow_bytes *bytes, const struct sim_event *event, uint64_t offset, uint64_t length)
{
    if (event->kind == SIM_PUNCH) return cow_bytes_zero(bytes, offset, length);
    return cow_bytes_write(bytes, offset, event->data + (offset - event->offset), (size_t)length);
}

/* A random half of the sectors, within the size. */
static int apply_torn(struct cow_bytes *bytes, const struct sim_event *event, const struct plan *plan, uint64_t number)
{
    uint64_t end = event->offset + event->length;
    int rc = 0;

    if (event->kind != SIM_WRITE && event->kind != SIM_PUNCH) return 0;
    if (end > bytes->size) end = bytes->size;
    for (uint64_t at = event->offset; at < end && !rc;) {
        uint64_t next = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
        if (next > end) next = end;
        if (draw(plan, number, 16 + at / SECTOR_BYTES) & 1) rc = apply_part(bytes, event, at, next - at);
        at = next;
    }
    return rc;
}

static int apply_kept(struct cow_bytes *bytes, const struct sim_event *event)
{
    uint64_t length = event->length;

    if (event->kind != SIM_WRITE) return event->kind == SIM_RESERVE ? 0 : apply_whole(bytes, event);
    if (event->offset >= bytes->size) return 0;
    if (length > bytes->size - event->offset) length = bytes->size - event->offset;
    return apply_part(bytes, event, event->offset, length);
}

static int apply_change(struct cow_bytes *bytes, const struct sim_event *event, const struct plan *plan,
                        uint64_t number, bool growth_lost)
{
    enum fate fate = fate_of(plan, number);
    bool grows = !growth_lost && (fate == KEPT || (draw(plan, number, 1) & 1));

    if (grows && (event->kind == SIM_WRITE || event->kind == SIM_RESERVE))
        cow_bytes_grow(bytes, event->offset + event->length);
    if (fate == KEPT) return apply_kept(bytes, event);
    return fate == TORN ? apply_torn(bytes, event, plan, number) : 0;
}

static int make_content(const struct sim_log *log, uint32_t index, const struct plan *plan, struct cow_bytes *bytes_out)
{
    const struct sim_inode *inode = &log->inodes[index];
    struct cow_bytes bytes;
    int rc = cow_bytes_copy(&inode->durable, &bytes);

    if (rc) return rc;
    for (uint64_t e = inode->pending.first; e != SIM_NO_EVENT && !rc; e = log->events[e].next)
        rc = apply_change(&bytes, &log->events[e], plan, e, growth_is_lost(plan, index));
    if (rc) {
        cow_bytes_deinit(&bytes);
        return rc;
    }
    *bytes_out = bytes;
    return 0;
}

/* ---- Names ------------------------------------------------------------------------------------- */

static uint32_t value_of(const struct sim_log *log, uint32_t index, const struct plan *plan)
{
    const struct sim_name *name = &log->names[index];
    uint32_t value = name->durable;

    for (uint64_t e = name->pending.first; e != SIM_NO_EVENT; e = log->events[e].next)
        if (fate_of(plan, e) == KEPT) value = log->events[e].inode;
    return value;
}

static int add_file(const struct sim_log *log, uint32_t index, const struct plan *plan, struct cow_dev *dev)
{
    const struct sim_name *name = &log->names[index];
    uint32_t value = value_of(log, index, plan);
    struct cow_bytes bytes;

    if (value == SIM_NONE || value == SIM_FOLDER) return 0;
    /* Without its folder it is gone, synced or not. */
    if (name->folder != SIM_NONE && value_of(log, name->folder, plan) != SIM_FOLDER) return 0;
    int rc = make_content(log, value, plan, &bytes);
    return rc ? rc : cow_dev_memory_add(dev, name->text, &bytes);
}

int cow_sim_crash_image(struct sim_log *log, uint64_t event_count, uint64_t seed, struct cow_dev *dev)
{
    int rc = replay(log, event_count);

    if (rc) return rc;
    struct plan plan = make_plan(log, event_count, seed);
    for (uint32_t i = 0; i < log->name_count && !rc; i++)
        if (value_of(log, i, &plan) == SIM_FOLDER) rc = dev->ops->make_dir(dev, log->names[i].text);
    for (uint32_t i = 0; i < log->name_count && !rc; i++)
        rc = add_file(log, i, &plan, dev);
    return rc;
}
