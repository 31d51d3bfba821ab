/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands in for the mount where libfuse3 was not there when this was built.
 */
#include "base/common.h"
#include "cow.h"

static int missing(void)
{
    return cow_fail(ENOSYS, "built without FUSE: install libfuse3-dev and pkg-config (Debian's names), then build pycow again");
}

int cow_mount_available(void) { return missing(); }

int cow_mount_open(cow_store *store, const cow_mount_options *options, cow_mount **mount_out)
{
    (void)store;
    (void)options;
    (void)mount_out;
    return missing();
}

int cow_mount_run(cow_mount *mount)
{
    (void)mount;
    return missing();
}

int cow_mount_set_entry(cow_mount *mount, const char *path, size_t path_bytes, uint64_t tree)
{
    (void)mount;
    (void)path;
    (void)path_bytes;
    (void)tree;
    return missing();
}

int cow_mount_remove_entry(cow_mount *mount, const char *path, size_t path_bytes)
{
    (void)mount;
    (void)path;
    (void)path_bytes;
    return missing();
}

int cow_mount_flush(cow_mount *mount)
{
    (void)mount;
    return missing();
}

int cow_mount_stop(cow_mount *mount)
{
    (void)mount;
    return missing();
}

void cow_mount_close(cow_mount *mount) { (void)mount; }
