/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim.h: the log of the simulated device, between dev_sim.c, which writes it, and sim_crash.c, which makes crash images
 * of it. All of it is guarded by the simulated device's lock.
 *
 * An inode is one creation of a file: a name that is removed and made again gets another inode. Folders are names
 * whose value is SIM_FOLDER. A name's value changes by an event (create, remove, make_dir), durably with a sync of the
 * folder it is in; an inode's content changes by an event (write, reserve, punch, truncate), durably with its sync.
 */
#ifndef COW_SIM_H
#define COW_SIM_H

#include "dev/dev_impl.h"

#define SIM_NONE UINT32_MAX         /* a name that is not there; also the folder "" */
#define SIM_FOLDER (UINT32_MAX - 1) /* a name that is a folder */
#define SIM_NO_EVENT UINT64_MAX

enum sim_kind {
    SIM_WRITE,
    SIM_RESERVE,
    SIM_PUNCH,
    SIM_TRUNCATE, /* to nothing */
    SIM_SYNC,
    SIM_NAME, /* name gets value inode */
    SIM_SYNC_DIR,
};

struct sim_event {
    enum sim_kind kind;
    uint32_t inode; /* or SIM_NONE, SIM_FOLDER as the value of a name */
    uint32_t name;  /* SIM_NAME: which; SIM_SYNC_DIR: the folder, SIM_NONE = the top */
    uint64_t offset, length;
    uint8_t *data; /* SIM_WRITE: length bytes */
    uint64_t next; /* replay: the next pending event of the same inode or name */
};

/* Changes that are not durable, in order; linked through sim_event.next. */
struct sim_pending {
    uint64_t first, last; /* SIM_NO_EVENT = empty */
};

struct sim_name {
    char *text;
    uint32_t folder;  /* index of the folder's name, SIM_NONE = the top */
    uint32_t live;    /* value now */
    uint32_t durable; /* replay: value as of the last sync of the folder */
    struct sim_pending pending;
};

struct sim_inode {
    struct cow_bytes durable; /* replay: content as of the last sync */
    struct sim_pending pending;
};

struct sim_log {
    struct sim_event *events;
    uint64_t event_count, event_capacity;
    struct sim_name *names;
    uint32_t name_count, name_capacity;
    struct sim_inode *inodes;
    uint32_t inode_count, inode_capacity;
    uint64_t replayed; /* durable and pending above are as of this event */
};

/* Builds the image into dev, an empty memory device. */
int cow_sim_crash_image(struct sim_log *log, uint64_t event_count, uint64_t seed, struct cow_dev *dev);
/* Forgets the replay: everything undurable, nothing replayed. */
void cow_sim_replay_reset(struct sim_log *log);

#endif
