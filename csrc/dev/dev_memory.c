/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dev_memory.c: a device in memory. A mutex guards the names (a small hash table); a reader/writer lock per
 * file guards its content. There is one object per file however often it is open; it lives as long as it has a name or
 * is open, so a removed file can be used until it is closed, as on a host.
 */
#include "dev/dev.h"
#include "dev/dev_impl.h"

#include <pthread.h>
#include <stdlib.h>

#define BUCKETS 256u
#define FOLDERS_MAX 16u

struct memory_file {
    struct cow_dev_file base; /* base.name points to name */
    pthread_rwlock_t lock;    /* guards content */
    struct cow_bytes content;
    struct memory_file *next; /* in its bucket; this and the following under the device's lock */
    uint32_t handles;
    bool named;
    char name[];
};

struct memory_dev {
    struct cow_dev base;
    pthread_mutex_t lock;
    struct memory_file *buckets[BUCKETS];
    char *folders[FOLDERS_MAX];
    unsigned folder_count;
};

static struct memory_dev *memory_of(struct cow_dev *dev)
{
    return (struct memory_dev *)dev;
}

static struct memory_file *file_of(struct cow_dev_file *file)
{
    return (struct memory_file *)file;
}

static int refuse_readonly(const struct cow_dev *dev, const char *name)
{
    return dev->readonly ? cow_fail(EROFS, "%s: the device is read-only", name) : 0;
}

/* ---- Names (under the device's lock) ----------------------------------------------------------- */

static struct memory_file **find(struct memory_dev *memory, const char *name)
{
    struct memory_file **link = &memory->buckets[cow_dev_name_hash(name) % BUCKETS];

    while (*link && strcmp((*link)->name, name) != 0)
        link = &(*link)->next;
    return link;
}

static bool has_folder(const struct memory_dev *memory, const char *folder, size_t length)
{
    if (length == 0) return true;
    for (unsigned i = 0; i < memory->folder_count; i++)
        if (strlen(memory->folders[i]) == length && memcmp(memory->folders[i], folder, length) == 0) return true;
    return false;
}

static size_t folder_length(const char *name)
{
    const char *slash = strchr(name, '/');

    return slash ? (size_t)(slash - name) : 0;
}

static int make_file(struct memory_dev *memory, struct memory_file **link, const char *name)
{
    size_t name_bytes = strlen(name) + 1;

    if (!has_folder(memory, name, folder_length(name))) return cow_fail(ENOENT, "%s: no such folder", name);
    if (has_folder(memory, name, strlen(name))) return cow_fail(EISDIR, "%s: is a folder", name);
    struct memory_file *file = malloc(sizeof *file + name_bytes);
    if (!file) return cow_fail(ENOMEM, "%s: file object", name);
    int error = pthread_rwlock_init(&file->lock, NULL);
    if (error) {
        free(file);
        return cow_fail(error, "%s: lock of the file", name);
    }
    memcpy(file->name, name, name_bytes);
    file->base = (struct cow_dev_file){.dev = &memory->base, .name = file->name};
    cow_bytes_init(&file->content);
    file->next = NULL;
    file->handles = 0;
    file->named = true;
    *link = file; /* find left the link at the end of the bucket */
    return 0;
}

static void free_file(struct memory_file *file)
{
    cow_bytes_deinit(&file->content);
    pthread_rwlock_destroy(&file->lock);
    free(file);
}

/* ---- Files ------------------------------------------------------------------------------------- */

static int memory_open(struct cow_dev *dev, const char *name, unsigned flags, struct cow_dev_file **file_out)
{
    struct memory_dev *memory = memory_of(dev);
    int rc = cow_dev_check_name(name);

    if (!rc && (flags & COW_DEV_TRUNCATE)) rc = refuse_readonly(dev, name);
    if (rc) return rc;
    pthread_mutex_lock(&memory->lock);
    struct memory_file **link = find(memory, name);
    if (!*link) {
        if ((flags & COW_DEV_CREATE) && !dev->readonly)
            rc = make_file(memory, link, name);
        else
            rc = cow_fail(ENOENT, "%s: no such file", name);
    }
    struct memory_file *file = *link;
    if (!rc && (flags & COW_DEV_TRUNCATE)) {
        pthread_rwlock_wrlock(&file->lock);
        rc = cow_bytes_shrink(&file->content, 0);
        pthread_rwlock_unlock(&file->lock);
    }
    if (!rc) {
        file->handles++;
        *file_out = &file->base;
    }
    pthread_mutex_unlock(&memory->lock);
    return rc;
}

static void memory_close(struct cow_dev_file *base)
{
    struct memory_dev *memory = memory_of(base->dev);
    struct memory_file *file = file_of(base);

    pthread_mutex_lock(&memory->lock);
    COW_ASSERT(file->handles > 0);
    bool last = --file->handles == 0 && !file->named;
    pthread_mutex_unlock(&memory->lock);
    if (last) free_file(file);
}

static int64_t memory_read(struct cow_dev_file *base, uint64_t offset, void *buffer, size_t length)
{
    struct memory_file *file = file_of(base);

    pthread_rwlock_rdlock(&file->lock);
    size_t got = cow_bytes_read(&file->content, offset, buffer, length);
    pthread_rwlock_unlock(&file->lock);
    cow_count(&base->dev->bytes_read, got);
    return (int64_t)got;
}

static int memory_write(struct cow_dev_file *base, uint64_t offset, const void *buffer, size_t length)
{
    struct memory_file *file = file_of(base);
    int rc = refuse_readonly(base->dev, file->name);

    if (!rc) rc = cow_dev_check_range(file->name, offset, length, COW_BYTES_LIMIT);
    if (rc) return rc;
    pthread_rwlock_wrlock(&file->lock);
    rc = cow_bytes_write(&file->content, offset, buffer, length);
    pthread_rwlock_unlock(&file->lock);
    if (rc) return cow_fail(-rc, "%s: write of %zu bytes at %llu", file->name, length, (unsigned long long)offset);
    cow_count(&base->dev->bytes_written, length);
    return 0;
}

static int memory_sync(struct cow_dev_file *base)
{
    cow_count(&base->dev->syncs, 1);
    return 0;
}

static int memory_size(struct cow_dev_file *base, uint64_t *bytes_out)
{
    struct memory_file *file = file_of(base);

    pthread_rwlock_rdlock(&file->lock);
    *bytes_out = file->content.size;
    pthread_rwlock_unlock(&file->lock);
    return 0;
}

static int memory_reserve(struct cow_dev_file *base, uint64_t offset, uint64_t length)
{
    struct memory_file *file = file_of(base);
    int rc = refuse_readonly(base->dev, file->name);

    if (!rc) rc = cow_dev_check_range(file->name, offset, length, COW_BYTES_LIMIT);
    if (rc || length == 0) return rc;
    pthread_rwlock_wrlock(&file->lock);
    cow_bytes_grow(&file->content, offset + length);
    pthread_rwlock_unlock(&file->lock);
    return 0;
}

static int memory_punch(struct cow_dev_file *base, uint64_t offset, uint64_t length)
{
    struct memory_file *file = file_of(base);
    int rc = refuse_readonly(base->dev, file->name);

    if (!rc) rc = cow_dev_check_range(file->name, offset, length, COW_BYTES_LIMIT);
    if (rc) return rc;
    pthread_rwlock_wrlock(&file->lock);
    rc = cow_bytes_zero(&file->content, offset, length);
    pthread_rwlock_unlock(&file->lock);
    return rc;
}

/* ---- The name space ---------------------------------------------------------------------------- */

static int memory_remove(struct cow_dev *dev, const char *name)
{
    struct memory_dev *memory = memory_of(dev);
    int rc = cow_dev_check_name(name);

    if (!rc) rc = refuse_readonly(dev, name);
    if (rc) return rc;
    pthread_mutex_lock(&memory->lock);
    struct memory_file **link = find(memory, name);
    struct memory_file *file = *link;
    bool last = false;
    if (file) {
        *link = file->next;
        file->next = NULL;
        file->named = false;
        last = file->handles == 0;
    }
    pthread_mutex_unlock(&memory->lock);
    if (!file) return cow_fail(ENOENT, "%s: no such file", name);
    if (last) free_file(file);
    return 0;
}

static int add_folder(struct memory_dev *memory, const char *name)
{
    if (has_folder(memory, name, strlen(name))) return 0;
    if (*find(memory, name)) return cow_fail(ENOTDIR, "%s: is a file", name);
    if (memory->folder_count == FOLDERS_MAX) return cow_fail(ENOSPC, "%s: too many folders", name);
    char *copy = strdup(name);
    if (!copy) return cow_fail(ENOMEM, "%s: name of the folder", name);
    memory->folders[memory->folder_count++] = copy;
    return 0;
}

static int memory_make_dir(struct cow_dev *dev, const char *name)
{
    struct memory_dev *memory = memory_of(dev);
    int rc = cow_dev_check_folder(name);

    if (!rc) rc = refuse_readonly(dev, name);
    if (rc) return rc;
    pthread_mutex_lock(&memory->lock);
    rc = add_folder(memory, name);
    pthread_mutex_unlock(&memory->lock);
    return rc;
}

static int memory_sync_dir(struct cow_dev *dev, const char *name)
{
    struct memory_dev *memory = memory_of(dev);
    int rc = cow_dev_check_folder(name);

    if (rc) return rc;
    pthread_mutex_lock(&memory->lock);
    bool there = has_folder(memory, name, strlen(name));
    pthread_mutex_unlock(&memory->lock);
    if (!there) return cow_fail(ENOENT, "%s: no such folder", name);
    cow_count(&dev->syncs, 1);
    return 0;
}

static int collect(struct memory_dev *memory, const char *folder, struct cow_dev_names *names)
{
    size_t length = strlen(folder);
    int rc = has_folder(memory, folder, length) ? 0 : cow_fail(ENOENT, "%s: no such folder", folder);

    for (unsigned b = 0; b < BUCKETS; b++) {
        for (const struct memory_file *file = memory->buckets[b]; file && !rc; file = file->next) {
            if (folder_length(file->name) != length || memcmp(file->name, folder, length) != 0) continue;
            rc = cow_dev_names_add(names, cow_dev_base_name(file->name));
        }
    }
    return rc;
}

static int memory_list(struct cow_dev *dev, const char *folder, void (*each)(void *context, const char *name),
                       void *context)
{
    struct memory_dev *memory = memory_of(dev);
    struct cow_dev_names names = {0};
    int rc = cow_dev_check_folder(folder);

    if (rc) return rc;
    pthread_mutex_lock(&memory->lock);
    rc = collect(memory, folder, &names);
    pthread_mutex_unlock(&memory->lock);
    if (!rc) cow_dev_names_each(&names, each, context);
    cow_dev_names_deinit(&names);
    return rc;
}

static int memory_usage(struct cow_dev *dev, uint64_t *bytes_out)
{
    struct memory_dev *memory = memory_of(dev);
    uint64_t total = 0;

    pthread_mutex_lock(&memory->lock);
    for (unsigned b = 0; b < BUCKETS; b++) {
        for (struct memory_file *file = memory->buckets[b]; file; file = file->next) {
            pthread_rwlock_rdlock(&file->lock);
            total += cow_bytes_charged(&file->content);
            pthread_rwlock_unlock(&file->lock);
        }
    }
    pthread_mutex_unlock(&memory->lock);
    *bytes_out = total;
    return 0;
}

static void memory_destroy(struct cow_dev *dev)
{
    struct memory_dev *memory = memory_of(dev);

    for (unsigned b = 0; b < BUCKETS; b++) {
        while (memory->buckets[b]) {
            struct memory_file *file = memory->buckets[b];
            COW_ASSERT(file->handles == 0);
            memory->buckets[b] = file->next;
            free_file(file);
        }
    }
    for (unsigned i = 0; i < memory->folder_count; i++)
        free(memory->folders[i]);
    pthread_mutex_destroy(&memory->lock);
    free(memory);
}

static const struct cow_dev_ops memory_ops = {
    .open = memory_open,
    .close = memory_close,
    .read = memory_read,
    .write = memory_write,
    .sync = memory_sync,
    .size = memory_size,
    .reserve = memory_reserve,
    .punch = memory_punch,
    .remove = memory_remove,
    .make_dir = memory_make_dir,
    .sync_dir = memory_sync_dir,
    .list = memory_list,
    .usage = memory_usage,
    .destroy = memory_destroy,
};

int cow_dev_memory_open(struct cow_dev **dev_out)
{
    struct memory_dev *memory = calloc(1, sizeof *memory);

    if (!memory) return cow_fail(ENOMEM, "memory device");
    int error = pthread_mutex_init(&memory->lock, NULL);
    if (error) {
        free(memory);
        return cow_fail(error, "lock of the memory device");
    }
    memory->base.ops = &memory_ops;
    *dev_out = &memory->base;
    return 0;
}

int cow_dev_memory_add(struct cow_dev *dev, const char *name, struct cow_bytes *bytes)
{
    struct memory_dev *memory = memory_of(dev);

    COW_ASSERT(dev->ops == &memory_ops);
    pthread_mutex_lock(&memory->lock);
    struct memory_file **link = find(memory, name);
    COW_ASSERT(!*link);
    int rc = make_file(memory, link, name);
    if (!rc) (*link)->content = *bytes;
    pthread_mutex_unlock(&memory->lock);
    if (rc)
        cow_bytes_deinit(bytes);
    else
        cow_bytes_init(bytes);
    return rc;
}
