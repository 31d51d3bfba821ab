/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_dir.h: what dev_file.c asks of the host's directories. `top` is the descriptor of the device's directory,
 * folder one of its folders or "" for itself. Symbolic links are not followed. No state, no locks.
 */
#ifndef COW_HOST_DIR_H
#define COW_HOST_DIR_H

#include "dev/dev_impl.h"

int cow_host_make_dir(int top, const char *folder); /* 0 also when it is there */
int cow_host_sync_dir(int top, const char *folder);
int cow_host_list(int top, const char *folder, struct cow_dev_names *names); /* regular files only */
/* Bytes that the host charges for the regular files of the top and of its folders. */
int cow_host_usage(int top, uint64_t *bytes_out);

#endif
