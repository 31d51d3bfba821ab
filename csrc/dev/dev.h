/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dev.h: the seam between the store and the medium. A device is a small name space of host files
 * ("meta", "segments/00000001"); names may have one folder. Everything that the store writes passes here, so
 * a test device can log it, break it, or cut it off.
 *
 * What the store assumes of a medium (docs/CRASH.md): a write is durable only after a later sync of the
 * same file returned 0; until then any subset of it, torn at 512-byte sectors, in any order, may have reached
 * the medium, and growth of the file may be lost; a file made or removed is durable only after sync_dir of its
 * folder. A sync also makes the file's size durable.
 *
 * All functions are thread-safe, return 0 or a negative errno value, and set the error detail with the
 * file's name. Ownership: open gives a file that close frees; files are closed before the device.
 */
#ifndef COW_DEV_H
#define COW_DEV_H

#include "base/common.h"

struct cow_dev;
struct cow_dev_file; /* concrete devices embed it as their first member */

#define COW_DEV_CREATE 1   /* make the file when missing */
#define COW_DEV_TRUNCATE 2 /* and empty it */

struct cow_dev_ops {
    int (*open)(struct cow_dev *dev, const char *name, unsigned flags, struct cow_dev_file **file_out); /* -ENOENT */
    void (*close)(struct cow_dev_file *file);
    /* Reads what there is: returns the bytes read, short only at the end of the file. */
    int64_t (*read)(struct cow_dev_file *file, uint64_t offset, void *buffer, size_t length);
    int (*write)(struct cow_dev_file *file, uint64_t offset, const void *buffer, size_t length); /* whole or error */
    int (*sync)(struct cow_dev_file *file);
    int (*size)(struct cow_dev_file *file, uint64_t *bytes_out);
    /* Makes the host allocate the range, so that later writes to it cannot fail with ENOSPC. */
    int (*reserve)(struct cow_dev_file *file, uint64_t offset, uint64_t length);
    int (*punch)(struct cow_dev_file *file, uint64_t offset, uint64_t length); /* a hint; reads as zeros or old data */
    int (*remove)(struct cow_dev *dev, const char *name); /* -ENOENT */
    int (*make_dir)(struct cow_dev *dev, const char *name); /* 0 also when it is there */
    int (*sync_dir)(struct cow_dev *dev, const char *name); /* "" = the top */
    int (*list)(struct cow_dev *dev, const char *folder, void (*each)(void *context, const char *name), void *context);
    int (*usage)(struct cow_dev *dev, uint64_t *bytes_out); /* what the host charges for all files */
    void (*destroy)(struct cow_dev *dev);
};

struct cow_dev {
    const struct cow_dev_ops *ops;
    bool readonly;
    uint64_t fixed_seed; /* tests: non-zero makes a new store's uuid and hash key the same in each run */
    cow_counter syncs, bytes_read, bytes_written; /* kept by the devices */
};

struct cow_dev_file {
    struct cow_dev *dev;
    const char *name; /* as it was opened; belongs to the file */
};

/* Thin calls, so that users read `cow_dev_write(file, ...)`. */
int cow_dev_open(struct cow_dev *dev, const char *name, unsigned flags, struct cow_dev_file **file_out);
void cow_dev_close(struct cow_dev_file *file); /* NULL is fine */
int64_t cow_dev_read(struct cow_dev_file *file, uint64_t offset, void *buffer, size_t length);
/* Reads all of length: -EUCLEAN when the file is shorter. */
int cow_dev_read_all(struct cow_dev_file *file, uint64_t offset, void *buffer, size_t length);
int cow_dev_write(struct cow_dev_file *file, uint64_t offset, const void *buffer, size_t length);
int cow_dev_sync(struct cow_dev_file *file);
void cow_dev_destroy(struct cow_dev *dev);

/* Host files below directory path (which exists). At most ~400 descriptors stay open, the least
 * recently used are closed and opened again when needed. fdatasync is the sync. */
int cow_dev_files_open(const char *path, bool readonly, struct cow_dev **dev_out);
/* Memory; nothing survives destroy. */
int cow_dev_memory_open(struct cow_dev **dev_out);

/* ---- The simulated device (dev_sim.c) ---------------------------------------------------------
 * Memory that logs every write, sync, reserve, create, remove and sync_dir as an event. From the log a test
 * builds crash images: cow_dev_sim_crash(sim, event_count, seed) gives a new memory device as the medium may
 * look after the power failed when event_count events had been issued: all that was synced is there; of the
 * rest a subset chosen by seed (seed 0: nothing of it; seed 1: all of it; otherwise pseudo-random: each
 * unsynced write dropped, kept, or torn at a sector; growth kept or lost; unsynced creations and removals
 * kept or not). The same numbers give the same image. */
int cow_dev_sim_open(struct cow_dev **dev_out);
uint64_t cow_dev_sim_events(struct cow_dev *sim);
int cow_dev_sim_crash(struct cow_dev *sim, uint64_t event_count, uint64_t seed, struct cow_dev **dev_out);
/* Faults: the n-th following operation (0 = next; UINT64_MAX = off) of the kinds in mask fails with error. With
 * sticky, all after it fail too. */
#define COW_DEV_SIM_READ 1
#define COW_DEV_SIM_WRITE 2
#define COW_DEV_SIM_SYNC 4
#define COW_DEV_SIM_OTHER 8
void cow_dev_sim_fail(struct cow_dev *sim, unsigned mask, uint64_t nth, int error, bool sticky);
/* While paused no operation fails and none is counted: a test looks at the store in between. */
void cow_dev_sim_pause(struct cow_dev *sim, bool paused);
uint64_t cow_dev_sim_faults(struct cow_dev *sim); /* injected so far */
/* One more destroy is needed: the medium, with what is in its cache but not synced, outlives a store that was closed
 * or abandoned on it, and another can be opened on it. */
void cow_dev_sim_hold(struct cow_dev *sim);
/* Each sync of a file takes so long, while other operations go on. */
void cow_dev_sim_slow(struct cow_dev *sim, uint32_t sync_us);

#endif
