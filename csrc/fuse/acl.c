/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POSIX ACLs. The kernel enforces them (it reads the extended attributes), but leaves to the file system what keeps mode and
 * ACL in agreement: setting an ACL changes the mode, chmod changes the ACL, and what is made in a directory with a default
 * ACL gets that instead of the umask. The value is a version and entries of (tag, permissions, id), little-endian, in the
 * order owner, users, group, groups, mask, others.
 */
#include "fuse/mount.h"

#define ACL_VERSION 2u
#define HEADER_BYTES 4u
#define ENTRY_BYTES 8u
#define PERM_AT 2u
#define TAG_USER_OBJ 0x01u
#define TAG_USER 0x02u
#define TAG_GROUP_OBJ 0x04u
#define TAG_GROUP 0x08u
#define TAG_MASK 0x10u
#define TAG_OTHER 0x20u

struct acl {
    size_t bytes;
    uint8_t value[COW_XATTR_VALUE_BYTES_MAX];
};

static size_t entry_count(const struct acl *acl)
{
    if (acl->bytes < HEADER_BYTES || cow_load32(acl->value) != ACL_VERSION) return 0;
    return (acl->bytes - HEADER_BYTES) / ENTRY_BYTES;
}

static uint8_t *entry_at(struct acl *acl, size_t i) { return acl->value + HEADER_BYTES + i * ENTRY_BYTES; }

/* The entry with this tag (one that is there once at most), or NULL. */
static uint8_t *entry_of(struct acl *acl, unsigned tag)
{
    for (size_t i = 0; i < entry_count(acl); i++)
        if (cow_load16(entry_at(acl, i)) == tag) return entry_at(acl, i);
    return NULL;
}

static mode_t permissions(const uint8_t *entry) { return cow_load16(entry + PERM_AT) & 7u; }

static int load(struct cow_seat *seat, uint64_t ino, const char *name, struct acl *acl_out)
{
    int64_t n = cow_xattr_get(seat->tree, ino, name, strlen(name), acl_out->value, sizeof acl_out->value);
    if (n < 0) return (int)n;
    acl_out->bytes = (size_t)n;
    return entry_count(acl_out) ? 0 : -ENODATA;
}

static int save(struct cow_seat *seat, uint64_t ino, const char *name, const struct acl *acl)
{
    return cow_xattr_set(seat->tree, ino, name, strlen(name), acl->value, acl->bytes, 0);
}

int cow_acl_to_mode(const void *value, size_t bytes, mode_t *mode_io, bool *minimal_out)
{
    struct acl acl = {.bytes = bytes};
    if (bytes > sizeof acl.value) return -ENOSPC;
    memcpy(acl.value, value, bytes);
    const uint8_t *owner = entry_of(&acl, TAG_USER_OBJ), *group = entry_of(&acl, TAG_GROUP_OBJ);
    const uint8_t *mask = entry_of(&acl, TAG_MASK), *other = entry_of(&acl, TAG_OTHER);
    if (!owner || !group || !other) return -EINVAL;
    mode_t mode = (mode_t)(permissions(owner) << 6 | permissions(mask ? mask : group) << 3 | permissions(other));
    mode |= *mode_io & ~(mode_t)0777;
    *minimal_out = entry_count(&acl) == 3;
    bool changed = mode != *mode_io;
    *mode_io = mode;
    return changed;
}

static void set_permissions(uint8_t *entry, mode_t bits) { cow_store16(entry + PERM_AT, (uint16_t)(bits & 7u)); }

int cow_acl_chmod(struct cow_seat *seat, uint64_t ino, mode_t mode)
{
    struct acl acl;
    int rc = load(seat, ino, COW_ACL_ACCESS, &acl);
    if (rc) return rc == -ENODATA ? 0 : rc;
    uint8_t *owner = entry_of(&acl, TAG_USER_OBJ), *other = entry_of(&acl, TAG_OTHER);
    uint8_t *group = entry_of(&acl, TAG_MASK) ? entry_of(&acl, TAG_MASK) : entry_of(&acl, TAG_GROUP_OBJ);
    if (!owner || !other || !group) return 0;
    set_permissions(owner, mode >> 6);
    set_permissions(group, mode >> 3);
    set_permissions(other, mode);
    return save(seat, ino, COW_ACL_ACCESS, &acl);
}

bool cow_acl_has_default(struct cow_seat *seat, uint64_t dir)
{
    return cow_xattr_get(seat->tree, dir, COW_ACL_DEFAULT, sizeof COW_ACL_DEFAULT - 1, NULL, 0) > 0;
}

/* Narrows the entries to what the creator asked for; returns the mode that results. */
static mode_t narrow(struct acl *acl, mode_t wanted)
{
    uint8_t *owner = entry_of(acl, TAG_USER_OBJ), *other = entry_of(acl, TAG_OTHER);
    uint8_t *group = entry_of(acl, TAG_MASK) ? entry_of(acl, TAG_MASK) : entry_of(acl, TAG_GROUP_OBJ);
    if (!owner || !other || !group) return wanted;
    set_permissions(owner, permissions(owner) & (wanted >> 6));
    set_permissions(group, permissions(group) & (wanted >> 3));
    set_permissions(other, permissions(other) & wanted);
    return (wanted & ~(mode_t)0777) | (mode_t)(permissions(owner) << 6 | permissions(group) << 3 | permissions(other));
}

int cow_acl_inherit(struct cow_seat *seat, uint64_t dir, uint64_t ino, mode_t wanted)
{
    struct acl acl;
    int rc = load(seat, dir, COW_ACL_DEFAULT, &acl);
    if (rc || S_ISLNK(wanted)) return rc == -ENODATA ? 0 : rc;
    if (S_ISDIR(wanted)) rc = save(seat, ino, COW_ACL_DEFAULT, &acl);
    if (rc) return rc;
    bool minimal = entry_count(&acl) == 3;
    cow_attr attr = {.mode = narrow(&acl, wanted)};
    if (!minimal) rc = save(seat, ino, COW_ACL_ACCESS, &acl);
    if (!rc && (attr.mode & 0777u) != (wanted & 0777u)) rc = cow_inode_set(seat->tree, ino, &attr, COW_SET_MODE);
    return rc;
}
