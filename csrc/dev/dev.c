/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dev.c: the thin calls, and the few helpers that all devices need. Nothing here knows a concrete device.
 */
#include "dev/dev.h"

#include "dev/dev_impl.h"

#include <stdlib.h>

int cow_dev_open(struct cow_dev *dev, const char *name, unsigned flags, struct cow_dev_file **file_out)
{
    return dev->ops->open(dev, name, flags, file_out);
}

void cow_dev_close(struct cow_dev_file *file)
{
    if (file) file->dev->ops->close(file);
}

int64_t cow_dev_read(struct cow_dev_file *file, uint64_t offset, void *buffer, size_t length)
{
    return file->dev->ops->read(file, offset, buffer, length);
}

int cow_dev_read_all(struct cow_dev_file *file, uint64_t offset, void *buffer, size_t length)
{
    int64_t got = file->dev->ops->read(file, offset, buffer, length);

    if (got < 0) return (int)got;
    if ((uint64_t)got == length) return 0;
    return cow_fail(COW_EDAMAGE, "%s: ends at %llu, but %zu bytes at %llu belong to it", file->name,
                    (unsigned long long)offset + (unsigned long long)got, length, (unsigned long long)offset);
}

int cow_dev_write(struct cow_dev_file *file, uint64_t offset, const void *buffer, size_t length)
{
    return file->dev->ops->write(file, offset, buffer, length);
}

int cow_dev_sync(struct cow_dev_file *file)
{
    return file->dev->ops->sync(file);
}

void cow_dev_destroy(struct cow_dev *dev)
{
    if (dev) dev->ops->destroy(dev);
}

/* ---- Names ------------------------------------------------------------------------------------- */

static bool part_is_good(const char *part, size_t length)
{
    if (length == 0 || length > COW_DEV_NAME_BYTES_MAX) return false;
    if (part[0] == '.' && (length == 1 || (length == 2 && part[1] == '.'))) return false;
    return memchr(part, '/', length) == NULL;
}

int cow_dev_check_name(const char *name)
{
    const char *slash = strchr(name, '/');
    bool good;

    if (slash)
        good = part_is_good(name, (size_t)(slash - name)) && part_is_good(slash + 1, strlen(slash + 1));
    else
        good = part_is_good(name, strlen(name));
    return good ? 0 : cow_fail(EINVAL, "'%s' is not a name of a file on a device", name);
}

int cow_dev_check_folder(const char *folder)
{
    if (folder[0] == 0 || part_is_good(folder, strlen(folder))) return 0;
    return cow_fail(EINVAL, "'%s' is not a name of a folder on a device", folder);
}

uint32_t cow_dev_name_hash(const char *name)
{
    uint32_t hash = 0;

    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * 0x9E3779B1u;
    return hash ^ (hash >> 15);
}

const char *cow_dev_base_name(const char *name)
{
    const char *slash = strchr(name, '/');

    return slash ? slash + 1 : name;
}

int cow_dev_check_range(const char *name, uint64_t offset, uint64_t length, uint64_t limit)
{
    if (offset <= limit && length <= limit - offset) return 0;
    return cow_fail(EFBIG, "%s: %llu bytes at %llu are too far out", name, (unsigned long long)length,
                    (unsigned long long)offset);
}

int cow_dev_names_add(struct cow_dev_names *names, const char *name)
{
    size_t length = strlen(name) + 1;

    if (names->capacity - names->length < length) {
        size_t capacity = 2 * names->capacity + 4096 + length;
        char *text = realloc(names->text, capacity);
        if (!text) return cow_fail(ENOMEM, "list of file names");
        names->text = text;
        names->capacity = capacity;
    }
    memcpy(names->text + names->length, name, length);
    names->length += length;
    return 0;
}

void cow_dev_names_each(const struct cow_dev_names *names, void (*each)(void *context, const char *name), void *context)
{
    for (size_t at = 0; at < names->length; at += strlen(names->text + at) + 1)
        each(context, names->text + at);
}

void cow_dev_names_deinit(struct cow_dev_names *names)
{
    free(names->text);
    *names = (struct cow_dev_names){0};
}
