/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Later sources win: header, GNU long name, global records, own records. Then the path is brought into one form.
 * Global records may set owner and times; a path or a size for all members at once would be an attack or nonsense, and
 * is refused.
 */
#include "tar/member.h"

static int refuse(const struct cow_tar_member *member, const char *why)
{
    return cow_tar_refuse(member->path, member->path_bytes, "%s", why);
}

/* Copies a path or link text that is not terminated; text with a NUL or too long is refused. */
static int set_text(char *to, size_t capacity, size_t *bytes_out, const void *text, size_t text_bytes, const char *what)
{
    if (text_bytes > capacity) return cow_tar_refuse(text, text_bytes, "%s is too long", what);
    if (memchr(text, '\0', text_bytes) != NULL) return cow_tar_refuse(text, text_bytes, "%s holds a NUL byte", what);
    memcpy(to, text, text_bytes);
    *bytes_out = text_bytes;
    return 0;
}

static int set_path(struct cow_tar_member *member, const void *text, size_t text_bytes)
{
    return set_text(member->path, sizeof member->path, &member->path_bytes, text, text_bytes, "its name");
}

static int set_link(struct cow_tar_member *member, const void *text, size_t text_bytes)
{
    return set_text(member->link, COW_SYMLINK_BYTES_MAX, &member->link_bytes, text, text_bytes, "its link target");
}

/* GNU long names end with a NUL. */
static int take_long_names(struct cow_tar_member *member, const struct cow_tar_extras *extras)
{
    const struct cow_tar_buffer *name = &extras->long_name, *link = &extras->long_link;
    int rc = 0;
    if (name->used > 0) rc = set_path(member, name->bytes, strnlen((const char *)name->bytes, name->used));
    if (rc == 0 && link->used > 0) rc = set_link(member, link->bytes, strnlen((const char *)link->bytes, link->used));
    return rc;
}

/* Owner, times and device numbers: 1 = taken, 0 = another key. */
static int take_attribute(struct cow_tar_member *member, const struct cow_pax_record *record)
{
    const char *value = record->value;
    size_t bytes = record->value_bytes;
    static const char *const keys[] = {"uid", "gid", "SCHILY.devmajor", "SCHILY.devminor"};
    uint32_t *const fields[] = {&member->uid, &member->gid, &member->major, &member->minor};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!cow_pax_key_is(record, keys[i])) continue;
        uint64_t number;
        if (bytes == 0) return 1;
        if (cow_pax_number(value, bytes, UINT32_MAX, &number) < 0) return -EBADMSG;
        *fields[i] = (uint32_t)number;
        return 1;
    }
    int64_t *time = cow_pax_key_is(record, "mtime") ? &member->mtime_ns : NULL;
    if (cow_pax_key_is(record, "atime")) time = &member->atime_ns;
    if (time == NULL) return 0;
    if (bytes > 0 && cow_pax_time(value, bytes, time) < 0) return -EBADMSG;
    return 1;
}

static int take_global(struct cow_tar_member *member, const struct cow_tar_buffer *records)
{
    struct cow_pax_record record;
    size_t at = 0;
    for (;;) {
        int rc = cow_pax_next(records->bytes, records->used, &at, &record);
        if (rc <= 0) return rc < 0 ? cow_fail(EBADMSG, "a global PAX header is malformed") : 0;
        if (cow_pax_key_is(&record, "path") || cow_pax_key_is(&record, "linkpath") || cow_pax_key_is(&record, "size") ||
            (record.key_bytes > 11 && memcmp(record.key, "GNU.sparse.", 11) == 0))
            return cow_fail(EBADMSG, "a global PAX header sets a path or a size for all members");
        if (take_attribute(member, &record) < 0)
            return cow_fail(EBADMSG, "a global PAX header holds a bad number");
    }
}

/* One of the member's own records. Keys that mean nothing here are passed over, as POSIX says. */
static int take_record(struct cow_tar_member *member, struct cow_sparse *sparse, const struct cow_pax_record *record,
                       struct cow_pax_record *sparse_name)
{
    const char *value = record->value;
    size_t bytes = record->value_bytes;
    if (cow_pax_key_is(record, "path")) return bytes > 0 ? set_path(member, value, bytes) : 0;
    if (cow_pax_key_is(record, "linkpath")) return bytes > 0 ? set_link(member, value, bytes) : 0;
    if (cow_pax_key_is(record, "GNU.sparse.name")) {
        *sparse_name = *record;
        return 0;
    }
    int rc = 0;
    if (cow_pax_key_is(record, "size"))
        rc = bytes > 0 ? cow_pax_number(value, bytes, COW_FILE_BYTES_MAX, &member->stored_bytes) : 0;
    else
        rc = take_attribute(member, record);
    if (rc == 0 && member->type == COW_TAR_FILE) rc = cow_sparse_take_record(sparse, record);
    if (rc == -EBADMSG)
        return cow_tar_refuse(member->path, member->path_bytes, "bad number in its PAX record %.*s",
                              record->key_bytes < 40 ? (int)record->key_bytes : 40, record->key);
    return rc < 0 ? rc : 0;
}

static int take_records(struct cow_tar_member *member, struct cow_sparse *sparse, const struct cow_tar_buffer *records)
{
    struct cow_pax_record record, sparse_name = {0};
    size_t at = 0;
    for (;;) {
        int rc = cow_pax_next(records->bytes, records->used, &at, &record);
        if (rc == 0) break;
        if (rc < 0) return refuse(member, "its PAX header is malformed");
        rc = take_record(member, sparse, &record, &sparse_name);
        if (rc < 0) return rc;
    }
    if (sparse_name.value_bytes > 0) {
        int rc = set_path(member, sparse_name.value, sparse_name.value_bytes);
        if (rc < 0) return rc;
    }
    if (cow_sparse_settle(sparse) < 0) return refuse(member, "its sparse records contradict each other");
    return 0;
}

static bool only_slashes(const char *path, size_t path_bytes)
{
    while (path_bytes > 0 && path[path_bytes - 1] == '/') path_bytes--;
    return path_bytes == 0;
}

/* Brings a path into the form "a/b" in place. name_max and path_max bound the result. */
static int normalise(const struct cow_tar_member *member, char *path, size_t *path_bytes, size_t name_max,
                     size_t path_max, const char *what)
{
    size_t bytes = *path_bytes, used = 0;
    if (bytes == 0) return cow_tar_refuse(member->path, member->path_bytes, "%s is empty", what);
    if (path[0] == '/' && !only_slashes(path, bytes)) /* "/" alone is the tree's root, as umoci writes it */
        return cow_tar_refuse(member->path, member->path_bytes, "%s is absolute", what);
    for (size_t at = 0; at < bytes;) {
        const char *slash = memchr(path + at, '/', bytes - at);
        size_t length = slash != NULL ? (size_t)(slash - path) - at : bytes - at;
        bool skip = length == 0 || (length == 1 && path[at] == '.');
        if (length == 2 && path[at] == '.' && path[at + 1] == '.')
            return cow_tar_refuse(member->path, member->path_bytes, "%s leads upwards (\"..\")", what);
        if (length > (slash != NULL ? COW_NAME_BYTES_MAX : name_max))
            return cow_tar_refuse(member->path, member->path_bytes, "%s has a part that is too long", what);
        if (!skip) {
            if (used > 0) path[used++] = '/';
            memmove(path + used, path + at, length);
            used += length;
        }
        at += length + 1;
    }
    if (used > path_max) return cow_tar_refuse(member->path, member->path_bytes, "%s is too long", what);
    *path_bytes = used;
    return 0;
}

static int check_links(struct cow_tar_member *member)
{
    if (member->type == COW_TAR_SYMLINK && member->link_bytes == 0) return refuse(member, "a symlink without a target");
    if (member->type != COW_TAR_LINK) return 0;
    int rc = normalise(member, member->link, &member->link_bytes, COW_NAME_BYTES_MAX, COW_PATH_BYTES_MAX,
                       "its hard link target");
    if (rc == 0 && member->link_bytes == 0) return refuse(member, "a hard link to the root directory");
    return rc;
}

int cow_tar_member_make(const struct cow_tar_header *header, const struct cow_tar_extras *extras,
                        struct cow_sparse *sparse, struct cow_tar_member *member_out)
{
    struct cow_tar_member *member = member_out;
    member->type = header->type == COW_TAR_FILE_V7 || header->type == COW_TAR_CONTIGUOUS ||
                           header->type == COW_TAR_GNU_SPARSE
                       ? COW_TAR_FILE
                       : header->type;
    member->mode = header->mode;
    member->uid = header->uid;
    member->gid = header->gid;
    member->major = header->major;
    member->minor = header->minor;
    member->mtime_ns = header->mtime_ns;
    member->atime_ns = INT64_MIN; /* not given */
    member->stored_bytes = header->size_bytes;
    member->pax = &extras->pax;
    int rc = set_path(member, header->name, header->name_bytes);
    if (rc == 0) rc = set_link(member, header->link, header->link_bytes);
    if (rc == 0) rc = take_long_names(member, extras);
    if (rc == 0) rc = take_global(member, &extras->global);
    if (rc == 0) rc = take_records(member, sparse, &extras->pax);
    if (rc < 0) return rc;
    if (member->atime_ns == INT64_MIN) member->atime_ns = member->mtime_ns;
    if (member->path_bytes > 0 && member->path[member->path_bytes - 1] == '/' && header->type == COW_TAR_FILE_V7)
        member->type = COW_TAR_DIR;
    if (member->type != COW_TAR_FILE) member->stored_bytes = 0; /* a size there says nothing about what follows */
    member->size_bytes = sparse->is_sparse ? sparse->size_bytes : member->stored_bytes;
    rc = normalise(member, member->path, &member->path_bytes, COW_TAR_NAME_BYTES_MAX, COW_TAR_PATH_BYTES_MAX,
                   "its name");
    if (rc == 0 && member->path_bytes == 0 && member->type != COW_TAR_DIR)
        return refuse(member, "the root can only be a directory");
    return rc < 0 ? rc : check_links(member);
}
