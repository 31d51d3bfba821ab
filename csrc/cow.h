/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cow.h: the one public header of the copy-on-write store.
 *
 * Vocabulary
 *   store    a directory on the host that holds everything
 *   tree     a complete file tree whose state hangs on one B+tree root
 *   fork     a new tree that shares every node and block with its source, O(1)
 *   seal     make a tree read-only for good (layers, images, snapshots)
 *   copy_up  the first write to a block that is shared or committed
 *   commit   the one atomic, durable step; a crash opens as exactly the last one
 *
 * Conventions
 *   - Every function that can fail returns 0 (or a count) on success and a negative errno value
 *     otherwise; cow_error_detail() then says what was affected, in words, for the calling thread.
 *   - -EUCLEAN means damage: the medium returned bytes that the store did not write.
 *   - -ESTALE means that the tree behind a handle was deleted; -EROFS a sealed tree or a read-only
 *     store; -ECHILD a handle used in a forked child; -EIO a store that failed and must be reopened.
 *   - Names and paths are bytes with a length; they need no terminator and may not hold NUL.
 *   - Handles may be used from many threads; a handle must not be closed while a call uses it.
 *   - Outputs come last and are named *_out; they are written only on success.
 *   - Times are nanoseconds since the epoch; sizes are bytes unless a name says blocks (4096 bytes).
 *
 * The fenced part is also what the Python extension is built from (tools/cdef.py slices it), so it
 * holds plain declarations only.
 */
#ifndef PYCOW_COW_H
#define PYCOW_COW_H

#include <stddef.h>
#include <stdint.h>

/* cdef: begin */

typedef struct cow_store cow_store;
typedef struct cow_tree cow_tree;
typedef struct cow_diff cow_diff;
typedef struct cow_scan cow_scan;
typedef struct cow_untar cow_untar;
typedef struct cow_tar cow_tar;
typedef struct cow_mount cow_mount;

/* ---- Errors ---------------------------------------------------------------------------------- */

/* What the last failed call of this thread was about; "" when it had nothing to add. */
const char *cow_error_detail(void);
const char *cow_version(void);

/* ---- Store ----------------------------------------------------------------------------------- */

#define COW_OPEN_READONLY 1 /* see the last commit; may be open in many processes beside a writer */
#define COW_OPEN_CREATE 2   /* make the store when the directory is missing or empty */

typedef struct {
    uint32_t flags;              /* COW_OPEN_* */
    uint32_t commit_interval_ms; /* background commit; 0 = only explicit commits */
    uint64_t node_cache_bytes;   /* 0 = default (64 MiB) */
    uint64_t record_cache_bytes; /* 0 = default (32 MiB) */
    uint64_t lookup_entries;     /* 0 = default (65,536) */
} cow_options;

/* -ENOENT no store there; -ENOTDIR/-ENOTEMPTY something that is not a store; -EAGAIN held for
 * writing by another process; -EPROTONOSUPPORT a format that this version does not know. */
int cow_store_open(const char *path, const cow_options *options, cow_store **store_out);
/* Commits what is open, then frees the handle (also on error). Trees must be closed before. */
int cow_store_close(cow_store *store);
/* Makes everything done so far durable. Concurrent callers share one commit. */
int cow_store_commit(cow_store *store);

/* A transaction: no commit happens inside it, and other writers wait. begin and end are called by
 * the same thread. end(keep=1) leaves the changes for the next commit; end(keep=0) takes back every
 * change to every tree, and every tree made or deleted, since begin. -EDEADLK when nested. */
int cow_store_begin(cow_store *store);
int cow_store_end(cow_store *store, int keep);
/* The same without the way back, which makes it cheaper: what is done until end is in one commit, and is kept. */
int cow_store_begin_group(cow_store *store);

typedef struct {
    uint64_t generation;       /* last durable commit */
    uint64_t trees;            /* live trees, the catalog included */
    uint64_t data_bytes;       /* data blocks in use, in bytes */
    uint64_t node_bytes;       /* B+tree nodes in use, in bytes */
    uint64_t host_bytes;       /* what the host file system charges for the directory */
    uint64_t commits, syncs;   /* syncs = device sync calls */
    uint64_t bytes_read, bytes_written;         /* device traffic */
    uint64_t blocks_allocated, blocks_freed;
    uint64_t nodes_read, nodes_written, nodes_copied, nodes_visited;
    uint64_t node_hits, node_misses, node_evictions, node_cached_bytes;
    uint64_t record_hits, record_misses, record_evictions, record_cached_bytes;
    uint64_t lookup_hits, lookup_misses, lookup_evictions;
    uint64_t copy_ups, copy_up_bytes; /* first writes to shared or committed blocks; bytes copied by them */
    uint64_t blocks_verified, checksum_errors;
    uint64_t forks, deletes, punched_bytes, pending_delete_nodes;
} cow_stats;
int cow_store_stats(cow_store *store, cow_stats *stats_out);

/* ---- Finding and repairing damage ---------------------------------------------------------------- */

/* What check, repair and scrub find. */
#define COW_FOUND_SUPER 1      /* one of the two superblocks */
#define COW_FOUND_JOURNAL 2    /* the journal of records */
#define COW_FOUND_RECORDS 3    /* a page of records */
#define COW_FOUND_NODE 4       /* a tree node: what lies below it cannot be read */
#define COW_FOUND_DATA 5       /* file data: the range cannot be read (-EUCLEAN) */
#define COW_FOUND_COUNT 6      /* reference counts or free space are not what a walk counts */
#define COW_FOUND_TREE 7       /* counters of a tree, or the list of trees */
#define COW_FOUND_INODE 8      /* an inode disagrees with its own items */
#define COW_FOUND_NAME 9       /* names and inodes disagree */
#define COW_FOUND_LOST 10      /* repair could not save it */
#define COW_FOUND_UNVERIFIED 11 /* its checksum was lost: repair took the bytes as they are */
typedef struct {
    uint32_t kind;        /* COW_FOUND_* */
    uint32_t repaired;    /* 1 when repair set it right */
    uint64_t tree, ino;   /* 0 = none in particular */
    uint64_t file_block;  /* of a file's data: first block of the file */
    uint64_t address;     /* first block in the store, segment << 32 | block */
    uint64_t block_count; /* 0 = address says nothing */
    const char *path;     /* in the tree; "" when it is not known */
    const char *text;     /* in words */
} cow_finding;
/* Called for each finding, from the calling thread; the strings last until it returns. */
typedef void (*cow_found_fn)(void *context, const cow_finding *finding);

typedef struct {
    uint64_t trees, nodes, inodes, extents, blocks; /* what was walked */
    uint64_t errors;                                /* problems found; details go to the callback */
    uint64_t orphans;                               /* nameless inodes waiting to be reclaimed; no problem */
} cow_check_report;
#define COW_CHECK_DATA 1  /* also read and verify the data of every file */
#define COW_CHECK_WHOLE 2 /* names of each tree in full; otherwise of a fork only what differs from its parent */
/* Walks everything and compares reference counts, free space, counters, names with inodes and checksums with what the
 * store recorded. Commits first; writers wait. Memory: one bit per tree node, about 120 bytes per tree, and 24 per run
 * of blocks whose neighbours have other counts. found may be NULL. */
int cow_store_examine(cow_store *store, uint32_t flags, cow_found_fn found, void *context, cow_check_report *report_out);
/* The same with texts only. */
int cow_store_check(cow_store *store, int verify_data, void (*problem)(void *context, const char *text),
                    void *context, cow_check_report *report_out);

typedef struct {
    uint64_t found;      /* findings in all */
    uint64_t repaired;   /* of them: set right */
    uint64_t lost;       /* could not be saved */
    uint64_t unverified; /* blocks whose checksum was made anew */
    uint64_t damaged;    /* runs of file data that stay unreadable */
} cow_repair_report;
/* Repairs a store that nobody has open. Rebuilt: reference counts, free space, counters of trees and inodes, the
 * journal, superblocks. A tree with damaged nodes keeps what can still be read; files that lost their name are put in
 * its /lost+found. Data that fails its checksum stays where it is and keeps failing. One commit: a crash leaves the
 * store as it was. -EAGAIN: somebody has it open; -EUCLEAN: nothing is left to start from (both superblocks, or the
 * list of trees). */
int cow_store_repair(const char *path, cow_found_fn found, void *context, cow_repair_report *report_out);

/* Reading all blocks in use beside other work, in steps. */
typedef struct cow_scrub cow_scrub;
typedef struct {
    uint64_t blocks_done, blocks_total; /* total: as of the start */
    uint64_t damaged;                   /* blocks found damaged so far */
    uint64_t findings;                  /* given to the callback at the end */
} cow_scrub_progress;
int cow_scrub_open(cow_store *store, cow_scrub **scrub_out);
/* Verifies up to block_count blocks: 1 = more to do; 0 = done, and the last step named the files that the damaged
 * blocks belong to through found. */
int cow_scrub_step(cow_scrub *scrub, uint32_t block_count, cow_found_fn found, void *context,
                   cow_scrub_progress *progress_out);
void cow_scrub_close(cow_scrub *scrub);

/* ---- Trees ----------------------------------------------------------------------------------- */

#define COW_TREE_CATALOG 1 /* id of the tree that holds names and configs; always there */

#define COW_FORK_BASE 1   /* the new tree starts its own size count at 0 (a container or layer over its image) */
#define COW_FORK_SEALED 2 /* the new tree is read-only (a snapshot) */
#define COW_FORK_TEMP 4   /* dropped when the store is next opened, unless cow_tree_keep came first */

typedef struct {
    uint64_t id;        /* never reused */
    uint64_t parent;    /* id of the tree it was forked from, 0 = none; that tree may be gone */
    uint32_t sealed, temp;
    uint64_t inodes;    /* in use, the root directory included */
    uint64_t apparent_bytes; /* mapped file bytes (holes are not counted) */
    uint64_t size_bytes;     /* those of them written since the base of the tree: docker's "size" */
    uint64_t quota_bytes;    /* see cow_tree_set_quota; 0 = none */
    int64_t created_ns;
} cow_tree_info;

typedef struct {
    uint64_t size_bytes;      /* as in cow_tree_info */
    uint64_t apparent_bytes;  /* as in cow_tree_info */
    uint64_t quota_bytes;     /* as in cow_tree_info */
    uint64_t exclusive_bytes; /* data and node blocks that only this tree refers to */
    uint64_t shared_bytes;    /* data blocks of this tree that another tree refers to as well */
} cow_tree_usage;

/* An empty tree: one root directory, mode 0755. flags: COW_FORK_TEMP. */
int cow_tree_create(cow_store *store, uint32_t flags, cow_tree **tree_out);
int cow_tree_open(cow_store *store, uint64_t id, cow_tree **tree_out); /* -ENOENT */
void cow_tree_close(cow_tree *tree);
int cow_tree_fork(cow_tree *source, uint32_t flags, cow_tree **tree_out);
int cow_tree_seal(cow_tree *tree);
int cow_tree_keep(cow_tree *tree); /* no longer temporary */
/* Large trees are freed in the background; handles of a deleted tree answer -ESTALE. */
int cow_tree_delete(cow_tree *tree);
/* Rollback: the content (and size count) of tree becomes that of source, O(1). */
int cow_tree_reset(cow_tree *tree, cow_tree *source);
/* A bound of the tree's size_bytes; 0 = none. What would go above it is -EDQUOT, before anything is changed: writes to
 * holes and to what the tree does not own yet, clones, punching into blocks of the image. What adds nothing (overwriting
 * what is own, names, attributes), shrinking and removing always work, also when the quota was set below the size.
 * Forks inherit the quota, but with COW_FORK_BASE; cow_tree_reset keeps it. -EROFS on a sealed tree. */
int cow_tree_set_quota(cow_tree *tree, uint64_t quota_bytes);
int cow_tree_get_info(cow_tree *tree, cow_tree_info *info_out);
int cow_tree_get_usage(cow_tree *tree, cow_tree_usage *usage_out);

/* The difference of two trees, one of which was forked (directly or not) from the other or from a
 * common source; shared subtrees are skipped. Sorted by path. */
#define COW_DIFF_ADDED 65    /* 'A' */
#define COW_DIFF_CHANGED 67  /* 'C' */
#define COW_DIFF_DELETED 68  /* 'D' */
/* One packed record: this header, path_bytes of path ("/etc/hosts"), then range_count pairs of
 * uint64 (first block, block count) of changed file content; padded to 8 bytes. */
typedef struct {
    uint32_t record_bytes; /* of the whole record with padding */
    uint8_t kind;          /* COW_DIFF_* */
    uint8_t what;          /* bits: 1 metadata, 2 data, 4 xattrs changed */
    uint16_t path_bytes;
    uint32_t mode;         /* of the new inode; of the old one for a deletion */
    uint32_t range_count;
    uint64_t ino;          /* in the new tree (old one for a deletion) */
} cow_diff_entry;
int cow_diff_open(cow_tree *old_tree, cow_tree *new_tree, cow_diff **diff_out);
/* Bytes of whole records put into buffer; 0 at the end; -ERANGE when capacity is below 64 KiB. */
int64_t cow_diff_read(cow_diff *diff, void *buffer, size_t capacity_bytes);
void cow_diff_close(cow_diff *diff);

/* ---- Names and inodes ------------------------------------------------------------------------ */

#define COW_ROOT_INO 1
#define COW_NAME_BYTES_MAX 255
#define COW_PATH_BYTES_MAX 4095
#define COW_XATTR_VALUE_BYTES_MAX 1700
#define COW_SYMLINK_BYTES_MAX 4095

typedef struct {
    uint64_t ino;
    uint32_t mode; /* type and permissions, as st_mode */
    uint32_t uid, gid, nlink;
    uint64_t rdev; /* as makedev(3) */
    uint64_t size_bytes;
    uint64_t blocks_512; /* mapped, in units of 512 bytes, as st_blocks */
    int64_t atime_ns, mtime_ns, ctime_ns, btime_ns;
} cow_attr;

#define COW_SET_MODE 1 /* permission bits only */
#define COW_SET_UID 2
#define COW_SET_GID 4
#define COW_SET_SIZE 8
#define COW_SET_ATIME 16
#define COW_SET_MTIME 32
#define COW_SET_CTIME 64 /* given; otherwise every change sets it to now */

#define COW_WALK_NOFOLLOW 1 /* the last component may be a symlink */

/* Resolves path from directory start. Symlinks are followed inside the tree ("/" is its root, ".."
 * stops there). -ENOENT, -ENOTDIR, -ELOOP (40 links), -ENAMETOOLONG. attr_out may be NULL. */
int cow_path_walk(cow_tree *tree, uint64_t start, const char *path, size_t path_bytes, uint32_t flags,
                  uint64_t *ino_out, cow_attr *attr_out);
/* Resolves all but the last component: its directory, and where in path the last name stands.
 * A path without a last name ("/", "..") is -EINVAL. */
int cow_path_parent(cow_tree *tree, uint64_t start, const char *path, size_t path_bytes, uint64_t *dir_out,
                    size_t *name_offset_out, size_t *name_bytes_out);
/* One path of an inode, "/a/b" without terminator; -ERANGE when capacity is too small. */
int cow_path_of(cow_tree *tree, uint64_t ino, char *buffer, size_t capacity_bytes, size_t *path_bytes_out);

int cow_inode_stat(cow_tree *tree, uint64_t ino, cow_attr *attr_out);
int cow_inode_set(cow_tree *tree, uint64_t ino, const cow_attr *attr, uint32_t mask);
/* Pins: an inode that loses its last name stays readable and writable until its last put. */
int cow_inode_get(cow_tree *tree, uint64_t ino);
int cow_inode_put(cow_tree *tree, uint64_t ino);

int cow_dir_lookup(cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, uint64_t *ino_out,
                   cow_attr *attr_out);
/* Makes a file, directory, symlink (target), device, fifo or socket by attr->mode; uid, gid, rdev and
 * non-zero times are taken from attr. -EEXIST. */
int cow_dir_make(cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, const cow_attr *attr,
                 const char *target, size_t target_bytes, uint64_t *ino_out);
int cow_dir_link(cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, uint64_t ino);
#define COW_REMOVE_FILE 1 /* unlink(2): -EISDIR on a directory */
#define COW_REMOVE_DIR 2  /* rmdir(2): -ENOTDIR, -ENOTEMPTY */
#define COW_REMOVE_TREE 4 /* whatever it is, with all below it */
int cow_dir_remove(cow_tree *tree, uint64_t dir, const char *name, size_t name_bytes, uint32_t how);
#define COW_RENAME_NOREPLACE 1
#define COW_RENAME_EXCHANGE 2
/* rename(2) and renameat2(2), all cases; -EINVAL into its own subtree. */
int cow_dir_rename(cow_tree *tree, uint64_t old_dir, const char *old_name, size_t old_name_bytes,
                   uint64_t new_dir, const char *new_name, size_t new_name_bytes, uint32_t flags);
/* One packed directory entry: this header, name_bytes of name, padded to 8 bytes. "." and ".." are
 * not among them. */
typedef struct {
    uint64_t ino;
    uint64_t cookie; /* continue after this entry */
    uint32_t mode;   /* type bits; the whole mode with COW_READ_ATTR */
    uint16_t name_bytes;
    uint16_t record_bytes; /* of the whole record with padding */
} cow_dir_entry;
#define COW_READ_ATTR 1 /* a cow_attr follows each padded entry, counted in record_bytes */
/* Bytes of whole records put into buffer, starting after cookie (0 = the start); 0 at the end. */
int64_t cow_dir_read(cow_tree *tree, uint64_t dir, uint64_t cookie, uint32_t flags, void *buffer,
                     size_t capacity_bytes);

/* Everything below a directory, in batches: entries in any order, each directory before what is in it. attrs[i] and
 * path_ends[i] (where its path ends in paths; it begins where the last one ended, "/a/b" relative to the start, no
 * terminator) for each entry. Returns how many; 0 at the end. paths needs 64 KiB, -ERANGE otherwise. Changes made
 * meanwhile may or may not show. */
int cow_scan_open(cow_tree *tree, uint64_t dir, cow_scan **scan_out);
int64_t cow_scan_read(cow_scan *scan, cow_attr *attrs, uint32_t *path_ends, size_t capacity, char *paths,
                      size_t path_capacity_bytes);
void cow_scan_close(cow_scan *scan);

/* Returns the target's length; copies at most capacity bytes of it. -EINVAL when not a symlink. */
int64_t cow_symlink_read(cow_tree *tree, uint64_t ino, char *buffer, size_t capacity_bytes);

#define COW_XATTR_CREATE 1
#define COW_XATTR_REPLACE 2
/* As getxattr(2) and friends: -ENODATA, -EEXIST, -ERANGE, -ENOSPC (value too long). Capacity 0 asks
 * for the length. list gives NUL-terminated names one after another. */
int64_t cow_xattr_get(cow_tree *tree, uint64_t ino, const char *name, size_t name_bytes, void *value,
                      size_t capacity_bytes);
int cow_xattr_set(cow_tree *tree, uint64_t ino, const char *name, size_t name_bytes, const void *value,
                  size_t value_bytes, uint32_t flags);
int64_t cow_xattr_list(cow_tree *tree, uint64_t ino, char *names, size_t capacity_bytes);
int cow_xattr_remove(cow_tree *tree, uint64_t ino, const char *name, size_t name_bytes);

/* ---- Files ----------------------------------------------------------------------------------- */

/* Bytes read; short only at the end of the file. Holes read as zeros. */
int64_t cow_file_read(cow_tree *tree, uint64_t ino, uint64_t offset, void *buffer, size_t length_bytes);
#define COW_APPEND 0xffffffffffffffff /* as offset: at the end, whatever it is then */
/* All of length_bytes or an error. */
int64_t cow_file_write(cow_tree *tree, uint64_t ino, uint64_t offset, const void *buffer, size_t length_bytes);
int cow_file_truncate(cow_tree *tree, uint64_t ino, uint64_t size_bytes);
/* Makes a hole: the range reads as zeros, whole blocks in it are given back. Size stays. */
int cow_file_punch(cow_tree *tree, uint64_t ino, uint64_t offset, uint64_t length_bytes);
#define COW_SEEK_DATA 3
#define COW_SEEK_HOLE 4
/* As lseek(2); -ENXIO past the end. */
int64_t cow_file_seek(cow_tree *tree, uint64_t ino, uint64_t offset, int whence);
/* reflink: destination range shares the source's blocks. Offsets and length are multiples of 4096
 * (length may end at the source's end of file); -EINVAL otherwise; -EXDEV across stores. */
int cow_file_clone(cow_tree *source, uint64_t source_ino, uint64_t source_offset, cow_tree *tree, uint64_t ino,
                   uint64_t offset, uint64_t length_bytes);
typedef struct {
    uint64_t block; /* first block of the file */
    uint64_t block_count;
    uint64_t address; /* segment << 32 | block of the segment; 0 = inline data */
    uint32_t shared;  /* 1 when any block of it is referred to from elsewhere too */
    uint32_t own;     /* 1 when written since the base of the tree */
} cow_extent;
/* Extents from first_block on, at most capacity of them. Returns how many. */
int64_t cow_file_extents(cow_tree *tree, uint64_t ino, uint64_t first_block, cow_extent *extents,
                         size_t capacity);
/* Batches of whole 4096-byte blocks: blocks[i] is a block number of the file, buffer holds count
 * blocks. Reading past the end gives zeros; writing past it extends the file. */
int cow_file_read_blocks(cow_tree *tree, uint64_t ino, const uint64_t *blocks, size_t count, void *buffer);
int cow_file_write_blocks(cow_tree *tree, uint64_t ino, const uint64_t *blocks, size_t count, const void *buffer);
/* Durable when it returns: data, metadata and everything before it in the store. */
int cow_file_sync(cow_tree *tree, uint64_t ino);

/* ---- Layers as tar streams (OCI image-spec, layer.md) ------------------------------------------ */

typedef struct {
    uint64_t entries, files, whiteouts;
    uint64_t content_bytes; /* of regular files */
    uint64_t tar_bytes;     /* fed, trailing padding included */
} cow_untar_result;
/* Applies a layer to tree while it is fed: ustar, PAX and GNU formats, hard links, xattrs, devices,
 * sparse files, whiteouts and opaque markers. It refuses (-EBADMSG, detail says why) archives that
 * lead out of the tree, lie about sizes, are cut off, or hold a bare ".wh."; the tree is then of no
 * use and should be deleted. Writes go to a tree that nobody else uses (COW_FORK_TEMP). */
#define COW_UNTAR_LAYER 1 /* ".wh." names are whiteouts, otherwise they are plain files */
int cow_untar_open(cow_tree *tree, uint32_t flags, cow_untar **untar_out);
int cow_untar_feed(cow_untar *untar, const void *bytes, size_t length_bytes);
int cow_untar_finish(cow_untar *untar, cow_untar_result *result_out);
void cow_untar_close(cow_untar *untar);
/* Writes a tar: of the changes from old_tree to new_tree with whiteouts, or of all of new_tree when
 * old_tree is NULL. Deterministic: the same trees give the same bytes. */
int cow_tar_open(cow_tree *old_tree, cow_tree *new_tree, cow_tar **tar_out);
int64_t cow_tar_read(cow_tar *tar, void *buffer, size_t capacity_bytes); /* 0 at the end */
void cow_tar_close(cow_tar *tar);

/* ---- Watching for changes ---------------------------------------------------------------------- */

#define COW_CHANGE_INODE 1   /* attributes or extended attributes of ino */
#define COW_CHANGE_CONTENT 2 /* content or size of ino */
#define COW_CHANGE_NAME 4    /* name in dir leads elsewhere, or nowhere; ino (when not 0) lost or got a name */
#define COW_CHANGE_TREE 8    /* all of it: rollback, a transaction taken back, deletion */
typedef struct {
    uint64_t tree;
    uint32_t what; /* COW_CHANGE_* */
    uint32_t name_bytes;
    uint64_t ino, dir;
    const char *name; /* valid during the call */
} cow_change;
/* Calls changed after each change by this process, with no lock held (inside of a transaction: its lock), then settle,
 * which returns when the change has been dealt with; it is not called inside of a transaction but at its end. Both are
 * called from many threads at once. At most 16 watchers; context tells them apart. */
int cow_store_watch(cow_store *store, void (*changed)(void *context, const cow_change *change),
                    void (*settle)(void *context), void *context);
void cow_store_unwatch(cow_store *store, void *context);
/* The calling thread works for the watcher context from now on: that one is not told what the thread changes, and the
 * thread does not wait for the others. NULL ends it. */
void cow_store_watch_skip(const void *context);

/* ---- Mounts (FUSE) ------------------------------------------------------------------------------- */

#define COW_MOUNT_READONLY 1
#define COW_MOUNT_ALLOW_OTHER 2   /* other users may enter (without root: user_allow_other in /etc/fuse.conf) */
#define COW_MOUNT_DEV 4           /* device nodes work (root only) */
#define COW_MOUNT_SUID 8          /* set-user-ID bits work (root only) */
#define COW_MOUNT_WRITE_THROUGH 16 /* no write-back cache: each write(2) reaches the store before it returns */
typedef struct {
    const char *mountpoint; /* a directory */
    const char *store_path; /* whose file system's free space statfs tells */
    uint64_t tree;          /* the tree to mount; 0 = the whole store, whose names cow_mount_set_entry gives */
    uint32_t flags;         /* COW_MOUNT_* */
    uint32_t threads;       /* at most so many requests are served at a time; 0 = 64 */
} cow_mount_options;
/* 0, or -ENOSYS when this build has no libfuse3. */
int cow_mount_available(void);
/* Mounts; a mount at that place whose server is gone is cleared first. Nothing is served before cow_mount_run.
 * -ENOSYS: built without libfuse3 (cow_error_detail says so). */
int cow_mount_open(cow_store *store, const cow_mount_options *options, cow_mount **mount_out);
/* Serves until the directory is unmounted, here or from outside. */
int cow_mount_run(cow_mount *mount);
/* Whole store: the path ("containers/box") shows the tree. -EEXIST when it or a part of it is a tree already. What was
 * there under this path is replaced. */
int cow_mount_set_entry(cow_mount *mount, const char *path, size_t path_bytes, uint64_t tree);
int cow_mount_remove_entry(cow_mount *mount, const char *path, size_t path_bytes);
/* Has the kernel write back what was written through the mount and is not in the store yet. Not inside of a
 * transaction. */
int cow_mount_flush(cow_mount *mount);
/* Unmounts, from any thread; cow_mount_run returns then. Files still open there become useless (what was written to them
 * before is flushed). */
int cow_mount_stop(cow_mount *mount);
/* After cow_mount_run has returned, or when it was never called. */
void cow_mount_close(cow_mount *mount);

/* cdef: end */

#endif
