/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dev_sim.c: the simulated device. What the store sees is an ordinary memory device (`live`). Each operation that
 * changes something runs on it under the one lock and adds an event to the log, so that the log's order is the
 * order in which things happened. Room for the event is made before the operation, so that both happen or none.
 *
 * An injected fault has no effect but the error, save for a write: there the first half (in whole sectors) arrives,
 * as when a host disk fills up in the middle.
 */
#include "dev/dev.h"
#include "dev/dev_impl.h"
#include "dev/sim.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define SECTOR_BYTES 512u

struct sim_dev {
    struct cow_dev base;
    struct cow_dev *live;
    pthread_mutex_t lock; /* guards all below, and the order of changes of live */
    struct sim_log log;
    unsigned fault_mask;
    uint64_t fault_in; /* UINT64_MAX = off */
    int fault_error;
    bool fault_sticky, fault_paused;
    uint64_t faults;
    _Atomic uint32_t sync_us;
    unsigned holders; /* destroys to come before the last one */
};

struct sim_file {
    struct cow_dev_file base;
    struct cow_dev_file *live;
    uint32_t inode;
};

static struct sim_dev *sim_of(struct cow_dev *dev)
{
    return (struct sim_dev *)dev;
}

static struct sim_file *file_of(struct cow_dev_file *file)
{
    return (struct sim_file *)file;
}

/* ---- Faults and the log (under the lock) ------------------------------------------------------- */

static int fault(struct sim_dev *sim, unsigned kind, const char *name)
{
    if (sim->fault_paused || !(sim->fault_mask & kind) || sim->fault_in == UINT64_MAX) return 0;
    if (sim->fault_in > 0) {
        sim->fault_in--;
        return 0;
    }
    if (!sim->fault_sticky) sim->fault_in = UINT64_MAX;
    sim->faults++;
    return cow_fail(sim->fault_error, "%s: injected fault", name);
}

/* A fault, or a change of a device that is read-only. */
static int refuse(struct sim_dev *sim, unsigned kind, const char *name)
{
    if (sim->base.readonly) return cow_fail(EROFS, "%s: the device is read-only", name);
    return fault(sim, kind, name);
}

/* Makes room for one more element. */
static int grow(void **array, uint64_t count, uint64_t *capacity, size_t element_bytes)
{
    if (count < *capacity) return 0;
    uint64_t more = *capacity ? 2 * *capacity : 64;
    void *larger = realloc(*array, (size_t)more * element_bytes);
    if (!larger) return cow_fail(ENOMEM, "log of the simulated device");
    *array = larger;
    *capacity = more;
    return 0;
}

static int log_reserve(struct sim_log *log)
{
    void *events = log->events;
    int rc = grow(&events, log->event_count, &log->event_capacity, sizeof *log->events);

    log->events = events;
    return rc;
}

static void log_add(struct sim_log *log, struct sim_event event)
{
    COW_ASSERT(log->event_count < log->event_capacity);
    event.next = SIM_NO_EVENT;
    log->events[log->event_count++] = event;
}

static uint32_t name_find(const struct sim_log *log, const char *text, size_t length)
{
    for (uint32_t i = 0; i < log->name_count; i++)
        if (strncmp(log->names[i].text, text, length) == 0 && log->names[i].text[length] == 0) return i;
    return SIM_NONE;
}

static int name_intern(struct sim_log *log, const char *text, uint32_t *index_out)
{
    const char *slash = strchr(text, '/');
    uint32_t index = name_find(log, text, strlen(text));
    uint64_t capacity = log->name_capacity;
    void *names = log->names;

    *index_out = index;
    if (index != SIM_NONE) return 0;
    int rc = grow(&names, log->name_count, &capacity, sizeof *log->names);
    log->names = names;
    log->name_capacity = (uint32_t)capacity;
    if (rc) return rc;
    char *copy = strdup(text);
    if (!copy) return cow_fail(ENOMEM, "log of the simulated device");
    index = log->name_count++;
    log->names[index] = (struct sim_name){
        .text = copy,
        .folder = slash ? name_find(log, text, (size_t)(slash - text)) : SIM_NONE,
        .live = SIM_NONE,
        .durable = SIM_NONE,
        .pending = {SIM_NO_EVENT, SIM_NO_EVENT},
    };
    COW_ASSERT(!slash || log->names[index].folder != SIM_NONE);
    *index_out = index;
    return 0;
}

static int inode_reserve(struct sim_log *log)
{
    uint64_t capacity = log->inode_capacity;
    void *inodes = log->inodes;
    int rc = grow(&inodes, log->inode_count, &capacity, sizeof *log->inodes);

    log->inodes = inodes;
    log->inode_capacity = (uint32_t)capacity;
    return rc;
}

static uint32_t inode_add(struct sim_log *log)
{
    struct sim_inode *inode = &log->inodes[log->inode_count];

    COW_ASSERT(log->inode_count < log->inode_capacity);
    cow_bytes_init(&inode->durable);
    inode->pending = (struct sim_pending){SIM_NO_EVENT, SIM_NO_EVENT};
    return log->inode_count++;
}

static void set_name(struct sim_log *log, uint32_t name, uint32_t value)
{
    log->names[name].live = value;
    log_add(log, (struct sim_event){.kind = SIM_NAME, .name = name, .inode = value});
}

/* ---- Files ------------------------------------------------------------------------------------- */

/* Opens on live, and logs what came of it: a creation, or a truncation that took something away. */
static int open_logged(struct sim_dev *sim, const char *name, unsigned flags, struct sim_file *file)
{
    struct sim_log *log = &sim->log;
    uint32_t index;
    uint64_t bytes = 0;
    int rc = log_reserve(log);

    if (!rc) rc = inode_reserve(log);
    if (!rc) rc = cow_dev_open(sim->live, name, flags & ~(unsigned)COW_DEV_TRUNCATE, &file->live);
    if (rc) return rc;
    rc = name_intern(log, name, &index); /* after it is known to be good */
    if (rc) {
        /* A file that was made just now stays on live, empty; it is logged when it is opened next. */
        cow_dev_close(file->live);
        return rc;
    }
    if (log->names[index].live == SIM_NONE) set_name(log, index, inode_add(log));
    file->inode = log->names[index].live;
    file->base = (struct cow_dev_file){.dev = &sim->base, .name = file->live->name};
    if (!(flags & COW_DEV_TRUNCATE)) return 0;

    struct cow_dev_file *again = NULL;
    rc = sim->live->ops->size(file->live, &bytes);
    if (!rc && bytes == 0) return 0;
    if (!rc) rc = cow_dev_open(sim->live, name, COW_DEV_TRUNCATE, &again);
    if (rc) {
        cow_dev_close(file->live);
        return rc;
    }
    cow_dev_close(again);
    log_add(log, (struct sim_event){.kind = SIM_TRUNCATE, .inode = file->inode});
    return 0;
}

static int sim_open(struct cow_dev *dev, const char *name, unsigned flags, struct cow_dev_file **file_out)
{
    struct sim_dev *sim = sim_of(dev);
    struct sim_file *file = malloc(sizeof *file);
    int rc;

    if (!file) return cow_fail(ENOMEM, "%s: file object", name);
    if (dev->readonly) flags &= ~(unsigned)COW_DEV_CREATE;
    pthread_mutex_lock(&sim->lock);
    rc = (flags & COW_DEV_TRUNCATE) ? refuse(sim, COW_DEV_SIM_OTHER, name) : fault(sim, COW_DEV_SIM_OTHER, name);
    if (!rc) rc = open_logged(sim, name, flags, file);
    pthread_mutex_unlock(&sim->lock);
    if (rc) {
        free(file);
        return rc;
    }
    *file_out = &file->base;
    return 0;
}

static void sim_close(struct cow_dev_file *base)
{
    cow_dev_close(file_of(base)->live);
    free(base);
}

static int64_t sim_read(struct cow_dev_file *base, uint64_t offset, void *buffer, size_t length)
{
    struct sim_dev *sim = sim_of(base->dev);

    pthread_mutex_lock(&sim->lock);
    int rc = fault(sim, COW_DEV_SIM_READ, base->name);
    pthread_mutex_unlock(&sim->lock);
    if (rc) return rc;
    int64_t got = cow_dev_read(file_of(base)->live, offset, buffer, length);
    if (got > 0) cow_count(&base->dev->bytes_read, (uint64_t)got);
    return got;
}

/* Under the lock. */
static int write_logged(struct sim_dev *sim, struct sim_file *file, uint64_t offset, const void *buffer, size_t length)
{
    if (length == 0) return 0;
    int rc = log_reserve(&sim->log);
    if (rc) return rc;
    uint8_t *data = malloc(length);
    if (!data) return cow_fail(ENOMEM, "log of the simulated device");
    memcpy(data, buffer, length);
    rc = cow_dev_write(file->live, offset, buffer, length);
    if (rc) {
        free(data);
        return rc;
    }
    log_add(&sim->log, (struct sim_event){
                           .kind = SIM_WRITE, .inode = file->inode, .offset = offset, .length = length, .data = data});
    cow_count(&sim->base.bytes_written, length);
    return 0;
}

static int sim_write(struct cow_dev_file *base, uint64_t offset, const void *buffer, size_t length)
{
    struct sim_dev *sim = sim_of(base->dev);

    pthread_mutex_lock(&sim->lock);
    int rc = refuse(sim, COW_DEV_SIM_WRITE, base->name);
    if (!rc) {
        rc = write_logged(sim, file_of(base), offset, buffer, length);
    } else if (!base->dev->readonly) {
        (void)write_logged(sim, file_of(base), offset, buffer, length / 2 / SECTOR_BYTES * SECTOR_BYTES);
        rc = cow_fail(-rc, "%s: injected fault in a write of %zu bytes at %llu", base->name, length,
                      (unsigned long long)offset);
    }
    pthread_mutex_unlock(&sim->lock);
    return rc;
}

static int sim_sync(struct cow_dev_file *base)
{
    struct sim_dev *sim = sim_of(base->dev);

    if (base->dev->readonly) return 0;
    uint32_t sync_us = atomic_load(&sim->sync_us);
    if (sync_us > 0) (void)usleep(sync_us);
    pthread_mutex_lock(&sim->lock);
    int rc = fault(sim, COW_DEV_SIM_SYNC, base->name);
    if (!rc) rc = log_reserve(&sim->log);
    if (!rc) {
        log_add(&sim->log, (struct sim_event){.kind = SIM_SYNC, .inode = file_of(base)->inode});
        cow_count(&base->dev->syncs, 1);
    }
    pthread_mutex_unlock(&sim->lock);
    return rc;
}

static int sim_size(struct cow_dev_file *base, uint64_t *bytes_out)
{
    struct sim_dev *sim = sim_of(base->dev);

    pthread_mutex_lock(&sim->lock);
    int rc = fault(sim, COW_DEV_SIM_OTHER, base->name);
    pthread_mutex_unlock(&sim->lock);
    return rc ? rc : sim->live->ops->size(file_of(base)->live, bytes_out);
}

static int allocate(struct cow_dev_file *base, enum sim_kind kind, uint64_t offset, uint64_t length)
{
    struct sim_dev *sim = sim_of(base->dev);
    struct sim_file *file = file_of(base);

    pthread_mutex_lock(&sim->lock);
    int rc = refuse(sim, COW_DEV_SIM_OTHER, base->name);
    if (!rc) rc = log_reserve(&sim->log);
    if (!rc && kind == SIM_RESERVE) rc = sim->live->ops->reserve(file->live, offset, length);
    if (!rc && kind == SIM_PUNCH) rc = sim->live->ops->punch(file->live, offset, length);
    if (!rc && length > 0)
        log_add(&sim->log, (struct sim_event){.kind = kind, .inode = file->inode, .offset = offset, .length = length});
    pthread_mutex_unlock(&sim->lock);
    return rc;
}

static int sim_reserve(struct cow_dev_file *file, uint64_t offset, uint64_t length)
{
    return allocate(file, SIM_RESERVE, offset, length);
}

static int sim_punch(struct cow_dev_file *file, uint64_t offset, uint64_t length)
{
    return allocate(file, SIM_PUNCH, offset, length);
}

/* ---- The name space ---------------------------------------------------------------------------- */

static int sim_remove(struct cow_dev *dev, const char *name)
{
    struct sim_dev *sim = sim_of(dev);

    pthread_mutex_lock(&sim->lock);
    int rc = refuse(sim, COW_DEV_SIM_OTHER, name);
    if (!rc) rc = log_reserve(&sim->log);
    if (!rc) rc = sim->live->ops->remove(sim->live, name);
    if (!rc) {
        uint32_t index = name_find(&sim->log, name, strlen(name));
        if (index != SIM_NONE && sim->log.names[index].live != SIM_NONE) set_name(&sim->log, index, SIM_NONE);
    }
    pthread_mutex_unlock(&sim->lock);
    return rc;
}

static int sim_make_dir(struct cow_dev *dev, const char *name)
{
    struct sim_dev *sim = sim_of(dev);
    uint32_t index = SIM_NONE;

    pthread_mutex_lock(&sim->lock);
    int rc = refuse(sim, COW_DEV_SIM_OTHER, name);
    if (!rc) rc = log_reserve(&sim->log);
    if (!rc) rc = cow_dev_check_folder(name);
    if (!rc && name[0]) rc = name_intern(&sim->log, name, &index);
    if (!rc) rc = sim->live->ops->make_dir(sim->live, name);
    if (!rc && name[0] && sim->log.names[index].live == SIM_NONE) set_name(&sim->log, index, SIM_FOLDER);
    pthread_mutex_unlock(&sim->lock);
    return rc;
}

static int sim_sync_dir(struct cow_dev *dev, const char *name)
{
    struct sim_dev *sim = sim_of(dev);

    if (dev->readonly) return 0;
    pthread_mutex_lock(&sim->lock);
    int rc = fault(sim, COW_DEV_SIM_SYNC, name);
    if (!rc) rc = log_reserve(&sim->log);
    if (!rc) rc = sim->live->ops->sync_dir(sim->live, name);
    if (!rc) {
        uint32_t folder = name[0] ? name_find(&sim->log, name, strlen(name)) : SIM_NONE;
        log_add(&sim->log, (struct sim_event){.kind = SIM_SYNC_DIR, .name = folder});
        cow_count(&dev->syncs, 1);
    }
    pthread_mutex_unlock(&sim->lock);
    return rc;
}

static int other_fault(struct sim_dev *sim, const char *name)
{
    pthread_mutex_lock(&sim->lock);
    int rc = fault(sim, COW_DEV_SIM_OTHER, name);
    pthread_mutex_unlock(&sim->lock);
    return rc;
}

static int sim_list(struct cow_dev *dev, const char *folder, void (*each)(void *context, const char *name),
                    void *context)
{
    struct sim_dev *sim = sim_of(dev);
    int rc = other_fault(sim, folder);

    return rc ? rc : sim->live->ops->list(sim->live, folder, each, context);
}

static int sim_usage(struct cow_dev *dev, uint64_t *bytes_out)
{
    struct sim_dev *sim = sim_of(dev);
    int rc = other_fault(sim, "usage");

    return rc ? rc : sim->live->ops->usage(sim->live, bytes_out);
}

static void sim_destroy(struct cow_dev *dev)
{
    struct sim_dev *sim = sim_of(dev);
    struct sim_log *log = &sim->log;

    pthread_mutex_lock(&sim->lock);
    bool held = sim->holders > 0;
    if (held) sim->holders--;
    pthread_mutex_unlock(&sim->lock);
    if (held) return;
    cow_dev_destroy(sim->live);
    for (uint32_t i = 0; i < log->inode_count; i++)
        cow_bytes_deinit(&log->inodes[i].durable);
    for (uint32_t i = 0; i < log->name_count; i++)
        free(log->names[i].text);
    for (uint64_t i = 0; i < log->event_count; i++)
        free(log->events[i].data);
    free(log->inodes);
    free(log->names);
    free(log->events);
    pthread_mutex_destroy(&sim->lock);
    free(sim);
}

static const struct cow_dev_ops sim_ops = {
    .open = sim_open,
    .close = sim_close,
    .read = sim_read,
    .write = sim_write,
    .sync = sim_sync,
    .size = sim_size,
    .reserve = sim_reserve,
    .punch = sim_punch,
    .remove = sim_remove,
    .make_dir = sim_make_dir,
    .sync_dir = sim_sync_dir,
    .list = sim_list,
    .usage = sim_usage,
    .destroy = sim_destroy,
};

int cow_dev_sim_open(struct cow_dev **dev_out)
{
    struct sim_dev *sim = calloc(1, sizeof *sim);

    if (!sim) return cow_fail(ENOMEM, "simulated device");
    int error = pthread_mutex_init(&sim->lock, NULL);
    if (error) {
        free(sim);
        return cow_fail(error, "lock of the simulated device");
    }
    int rc = cow_dev_memory_open(&sim->live);
    if (rc) {
        pthread_mutex_destroy(&sim->lock);
        free(sim);
        return rc;
    }
    sim->base.ops = &sim_ops;
    sim->fault_in = UINT64_MAX;
    *dev_out = &sim->base;
    return 0;
}

/* ---- What tests ask for ------------------------------------------------------------------------ */

uint64_t cow_dev_sim_events(struct cow_dev *dev)
{
    struct sim_dev *sim = sim_of(dev);

    COW_ASSERT(dev->ops == &sim_ops);
    pthread_mutex_lock(&sim->lock);
    uint64_t count = sim->log.event_count;
    pthread_mutex_unlock(&sim->lock);
    return count;
}

int cow_dev_sim_crash(struct cow_dev *dev, uint64_t event_count, uint64_t seed, struct cow_dev **dev_out)
{
    struct sim_dev *sim = sim_of(dev);
    struct cow_dev *image;

    COW_ASSERT(dev->ops == &sim_ops);
    int rc = cow_dev_memory_open(&image);
    if (rc) return rc;
    image->fixed_seed = dev->fixed_seed;
    pthread_mutex_lock(&sim->lock);
    if (event_count > sim->log.event_count)
        rc = cow_fail(EINVAL, "there are %llu events, not %llu", (unsigned long long)sim->log.event_count,
                      (unsigned long long)event_count);
    else
        rc = cow_sim_crash_image(&sim->log, event_count, seed, image);
    pthread_mutex_unlock(&sim->lock);
    if (rc) {
        cow_dev_destroy(image);
        return rc;
    }
    *dev_out = image;
    return 0;
}

void cow_dev_sim_fail(struct cow_dev *dev, unsigned mask, uint64_t nth, int error, bool sticky)
{
    struct sim_dev *sim = sim_of(dev);

    COW_ASSERT(dev->ops == &sim_ops);
    pthread_mutex_lock(&sim->lock);
    sim->fault_mask = mask;
    sim->fault_in = nth;
    sim->fault_error = error < 0 ? -error : error; /* either sign is understood */
    sim->fault_sticky = sticky;
    pthread_mutex_unlock(&sim->lock);
    COW_ASSERT(nth == UINT64_MAX || error != 0);
}

void cow_dev_sim_pause(struct cow_dev *dev, bool paused)
{
    struct sim_dev *sim = sim_of(dev);

    COW_ASSERT(dev->ops == &sim_ops);
    pthread_mutex_lock(&sim->lock);
    sim->fault_paused = paused;
    pthread_mutex_unlock(&sim->lock);
}

uint64_t cow_dev_sim_faults(struct cow_dev *dev)
{
    struct sim_dev *sim = sim_of(dev);

    COW_ASSERT(dev->ops == &sim_ops);
    pthread_mutex_lock(&sim->lock);
    uint64_t faults = sim->faults;
    pthread_mutex_unlock(&sim->lock);
    return faults;
}

void cow_dev_sim_slow(struct cow_dev *dev, uint32_t sync_us)
{
    COW_ASSERT(dev->ops == &sim_ops);
    atomic_store(&sim_of(dev)->sync_us, sync_us);
}

void cow_dev_sim_hold(struct cow_dev *dev)
{
    struct sim_dev *sim = sim_of(dev);

    COW_ASSERT(dev->ops == &sim_ops);
    pthread_mutex_lock(&sim->lock);
    sim->holders++;
    pthread_mutex_unlock(&sim->lock);
}
