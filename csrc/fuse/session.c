/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mount from opening to closing. Unmounting is done while requests are still served: the kernel then writes back what it
 * holds, and the loop ends when the connection does. Only files that somebody has open keep it alive after that; the loop
 * is then ended from our side.
 */
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuse/mount.h"

#define DEFAULT_THREADS 64u
#define THREADS_MAX 1024u
#define IDLE_THREADS 8u
#define REQUEST_BYTES (1u << 20)
#define READAHEAD_BYTES (1u << 20)
#define READAHEAD_KB "1024"
#define DIRTY_PERCENT "40"
#define BACKGROUND_REQUESTS 128u
#define LONG_TIMEOUT_S 86400.0
#define SHORT_TIMEOUT_S 1.0
#define STOP_POLL_MS 20
#define STOP_TRIES 250 /* 5 seconds for the connection to end by itself */

extern char **environ;

/* ---- What libfuse says when it fails ---- */

static _Thread_local char last_message[200];

static void log_message(enum fuse_log_level level, const char *format, va_list arguments)
{
    if (level <= FUSE_LOG_ERR) (void)vsnprintf(last_message, sizeof last_message, format, arguments);
    last_message[strcspn(last_message, "\n")] = 0;
}

static int fail_with_message(int code, const char *what)
{
    return cow_fail(code, "%s%s%s", what, *last_message ? ": " : "", last_message);
}

/* ---- INIT ---- */

static void want(struct fuse_conn_info *conn, unsigned capability) { conn->want |= conn->capable & capability; }

static void op_init(void *context, struct fuse_conn_info *conn)
{
    struct cow_mount *mount = context;
    want(conn, FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS |
                   FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_IOCTL_DIR);
    conn->want &= ~(unsigned)(FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_ATOMIC_O_TRUNC |
                              FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_SPLICE_READ);
    if (!(mount->flags & (COW_MOUNT_WRITE_THROUGH | COW_MOUNT_READONLY))) want(conn, FUSE_CAP_WRITEBACK_CACHE);
    if ((conn->capable & FUSE_CAP_POSIX_ACL) && (conn->capable & FUSE_CAP_DONT_MASK))
        want(conn, FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK);
    mount->write_back = (conn->want & FUSE_CAP_WRITEBACK_CACHE) != 0;
    mount->acl = (conn->want & FUSE_CAP_POSIX_ACL) != 0;
    mount->no_open = (conn->capable & FUSE_CAP_NO_OPEN_SUPPORT) && mount->tree_id;
    mount->no_opendir = (conn->capable & FUSE_CAP_NO_OPENDIR_SUPPORT) != 0;
    conn->max_write = REQUEST_BYTES;
    conn->max_readahead = READAHEAD_BYTES;
    conn->max_background = BACKGROUND_REQUESTS;
    conn->congestion_threshold = BACKGROUND_REQUESTS * 3 / 4;
    conn->time_gran = 1;
}

/* ---- Opening ---- */

static int mount_points_device(const char *path, dev_t *dev_out)
{
    struct stat st;
    if (stat(path, &st)) return cow_fail(errno, "%s", path);
    if (!S_ISDIR(st.st_mode)) return cow_fail(ENOTDIR, "%s", path);
    *dev_out = st.st_dev;
    return 0;
}

static int run_fusermount(const char *flags, const char *mountpoint)
{
    char *arguments[] = {"fusermount3", (char *)(uintptr_t)flags, "--", (char *)(uintptr_t)mountpoint, NULL};
    posix_spawn_file_actions_t actions;
    pid_t child;
    int status = 0;
    if (posix_spawn_file_actions_init(&actions)) return -ENOMEM;
    (void)posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int rc = posix_spawnp(&child, "fusermount3", &actions, NULL, arguments, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    if (rc) return cow_fail(rc, "fusermount3");
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

static int unmount(const char *mountpoint, bool lazily)
{
    if (umount2(mountpoint, lazily ? MNT_DETACH : 0) == 0) return 0;
    if (errno != EPERM) return -errno;
    return run_fusermount(lazily ? "-uz" : "-u", mountpoint);
}

/* A mount whose server was killed answers ENOTCONN. */
static int clear_stale(const char *mountpoint)
{
    struct stat st;
    if (stat(mountpoint, &st) == 0 || errno != ENOTCONN) return 0;
    int rc = unmount(mountpoint, true);
    return rc ? cow_fail(-rc, "%s: the mount there lost its server and cannot be cleared", mountpoint) : 0;
}

static int open_root(struct cow_mount *mount)
{
    if (mount->tree_id == 0) {
        mount->root = &mount->top->node;
        return 0;
    }
    struct cow_seat *seat;
    int rc = cow_seat_take(mount, mount->tree_id, &seat);
    if (rc) return rc;
    if (seat->sealed) mount->flags |= COW_MOUNT_READONLY;
    rc = cow_knode_take(mount, seat, COW_ROOT_INO, S_IFDIR, &mount->root);
    cow_seat_give(mount, seat);
    return rc;
}

static int make_session(struct cow_mount *mount)
{
    struct fuse_lowlevel_ops ops = {.init = op_init};
    cow_ops_names(&ops);
    cow_ops_attrs(&ops);
    cow_ops_files(&ops);
    cow_ops_dirs(&ops);
    struct fuse_args arguments = FUSE_ARGS_INIT(0, NULL);
    char options[256];
    (void)snprintf(options, sizeof options, "-ofsname=pycow,subtype=pycow,default_permissions%s%s%s%s",
                   mount->flags & COW_MOUNT_READONLY ? ",ro" : "", mount->flags & COW_MOUNT_ALLOW_OTHER ? ",allow_other" : "",
                   mount->flags & COW_MOUNT_DEV ? ",dev" : "", mount->flags & COW_MOUNT_SUID ? ",suid" : "");
    int rc = fuse_opt_add_arg(&arguments, "pycow") || fuse_opt_add_arg(&arguments, options) ? -ENOMEM : 0;
    *last_message = 0;
    fuse_set_log_func(log_message);
    if (!rc) mount->session = fuse_session_new(&arguments, &ops, sizeof ops, mount);
    fuse_opt_free_args(&arguments);
    if (!rc && !mount->session) rc = fail_with_message(EINVAL, "FUSE");
    return rc;
}

/* What FUSE gets by default is meant for servers that nobody trusts: 1 % of the memory that may be dirty, and 128 KiB of
 * reading ahead. Whoever may write to sysfs (root) can have more; the others keep that. */
static void set_cache_limit(unsigned minor_number, const char *name, const char *value)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/sys/class/bdi/0:%u/%s", minor_number, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    ssize_t n = write(fd, value, strlen(value));
    (void)n;
    (void)close(fd);
}

static void raise_cache_limits(const struct cow_mount *mount)
{
    struct statx st;
    if (statx(AT_FDCWD, mount->mountpoint, AT_STATX_DONT_SYNC, STATX_TYPE, &st) || st.stx_dev_major != 0) return;
    set_cache_limit(st.stx_dev_minor, "max_ratio", DIRTY_PERCENT);
    set_cache_limit(st.stx_dev_minor, "read_ahead_kb", READAHEAD_KB);
}

static int attach(struct cow_mount *mount)
{
    if (access("/dev/fuse", F_OK)) return cow_fail(ENODEV, "/dev/fuse is missing: the kernel has no FUSE, or this container no access");
    if (fuse_session_mount(mount->session, mount->mountpoint))
        return fail_with_message(errno ? errno : EIO, mount->mountpoint);
    mount->mounted = true;
    raise_cache_limits(mount);
    int rc = cow_raw_install(mount);
    return rc ? cow_fail(-rc, "setting up the connection to the kernel") : 0;
}

static int set_up(struct cow_mount *mount, const cow_mount_options *options)
{
    mount->flags = options->flags;
    mount->tree_id = options->tree;
    mount->threads = options->threads ? options->threads : DEFAULT_THREADS;
    if (mount->threads < 4) mount->threads = 4; /* some wait for the kernel while others serve it */
    if (mount->threads > THREADS_MAX) mount->threads = THREADS_MAX;
    mount->timeout_s = SHORT_TIMEOUT_S;
    mount->mountpoint = realpath(options->mountpoint, NULL);
    mount->store_path = strdup(options->store_path);
    if (!mount->mountpoint) return cow_fail(errno, "%s", options->mountpoint);
    if (!mount->store_path) return -ENOMEM;
    int rc = mount_points_device(mount->mountpoint, &mount->host_dev);
    if (!rc) rc = open_root(mount);
    if (!rc) rc = make_session(mount);
    if (!rc) rc = attach(mount);
    return rc;
}

int cow_mount_open(cow_store *store, const cow_mount_options *options, cow_mount **mount_out)
{
    if (!store || !options || !mount_out || !options->mountpoint || !options->store_path)
        return cow_fail(EINVAL, "a mount needs its pointers");
    cow_error_clear();
    int rc = clear_stale(options->mountpoint);
    struct cow_mount *mount = rc ? NULL : calloc(1, sizeof *mount);
    if (!mount) return rc ? rc : -ENOMEM;
    mount->store = store;
    pthread_mutex_init(&mount->state_lock, NULL);
    pthread_cond_init(&mount->state_changed, NULL);
    rc = cow_shelves_open(mount);
    if (!rc) rc = cow_knodes_open(mount);
    if (!rc) rc = cow_notify_start(mount);
    if (!rc) rc = set_up(mount, options);
    if (rc) {
        cow_mount_close(mount);
        return rc;
    }
    *mount_out = mount;
    return 0;
}

int cow_mount_available(void) { return 0; }

/* ---- Serving ---- */

/* The kernel has not sent INIT before it is mounted, and knows nothing yet: now is the time to see what it can do. */
static void probe(struct cow_mount *mount)
{
    mount->epochs = cow_notify_epoch_now(mount);
    mount->timeout_s = mount->epochs ? LONG_TIMEOUT_S : SHORT_TIMEOUT_S;
}

int cow_mount_run(cow_mount *mount)
{
    if (!mount || !mount->session) return cow_fail(EINVAL, "a mount that was not opened");
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    if (!config) return -ENOMEM;
    fuse_loop_cfg_set_clone_fd(config, 0);
    fuse_loop_cfg_set_max_threads(config, mount->threads);
    fuse_loop_cfg_set_idle_threads(config, IDLE_THREADS);
    probe(mount);
    *last_message = 0;
    int rc = fuse_session_loop_mt(mount->session, config);
    fuse_loop_cfg_destroy(config);
    pthread_mutex_lock(&mount->state_lock);
    mount->loop_over = true;
    pthread_cond_broadcast(&mount->state_changed);
    pthread_mutex_unlock(&mount->state_lock);
    return rc < 0 ? fail_with_message(-rc, "serving the mount") : 0;
}

/* ---- Flushing and stopping ---- */

/* The root of the mount, or -1 when another file system is there by now. */
static int open_mounted(struct cow_mount *mount)
{
    struct stat st;
    int fd = open(mount->mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    if (fstat(fd, &st) == 0 && st.st_dev != mount->host_dev) return fd;
    (void)close(fd);
    return -ENOENT;
}

static bool is_over(struct cow_mount *mount)
{
    pthread_mutex_lock(&mount->state_lock);
    bool over = mount->loop_over;
    pthread_mutex_unlock(&mount->state_lock);
    return over;
}

int cow_mount_flush(cow_mount *mount)
{
    if (!mount) return cow_fail(EINVAL, "a mount that was not opened");
    if (!mount->write_back || is_over(mount)) return 0;
    int fd = open_mounted(mount);
    if (fd < 0) return fd == -ENOENT || fd == -ENOTCONN ? 0 : cow_fail(-fd, "%s", mount->mountpoint);
    int rc = syncfs(fd) ? -errno : 0;
    (void)close(fd);
    return rc ? cow_fail(-rc, "writing back what %s holds", mount->mountpoint) : 0;
}

static bool wait_until_over(struct cow_mount *mount)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STOP_TRIES * STOP_POLL_MS / 1000;
    pthread_mutex_lock(&mount->state_lock);
    int rc = 0;
    while (!mount->loop_over && rc == 0) rc = pthread_cond_timedwait(&mount->state_changed, &mount->state_lock, &until);
    bool over = mount->loop_over;
    pthread_mutex_unlock(&mount->state_lock);
    return over;
}

/* A worker sees only at its next request that the loop is to end, so one is sent. It may be left without an answer, until
 * the connection is closed: a thread of its own waits for that. */
static void *poke(void *context)
{
    int fd = (int)(intptr_t)context;
    struct statfs ignored;
    (void)fstatfs(fd, &ignored);
    (void)close(fd);
    return NULL;
}

/* Somebody has files open there. What was written is flushed, the mount disappears from the tree of directories, and the
 * loop is ended from our side. */
static int stop_busy(struct cow_mount *mount)
{
    pthread_t thread;
    int fd = open_mounted(mount);
    if (fd >= 0) (void)syncfs(fd);
    int rc = unmount(mount->mountpoint, true);
    fuse_session_exit(mount->session);
    if (fd < 0) return rc;
    if (pthread_create(&thread, NULL, poke, (void *)(intptr_t)fd)) (void)close(fd);
    else (void)pthread_detach(thread);
    return rc;
}

int cow_mount_stop(cow_mount *mount)
{
    if (!mount) return cow_fail(EINVAL, "a mount that was not opened");
    if (!mount->mounted || is_over(mount)) return 0;
    int rc = unmount(mount->mountpoint, false);
    if (rc == -EBUSY) rc = stop_busy(mount);
    if (rc == -EINVAL || rc == -ENOENT) rc = 0; /* it was unmounted from outside */
    if (rc) return cow_fail(-rc, "unmounting %s", mount->mountpoint);
    if (!wait_until_over(mount)) return cow_fail(EBUSY, "%s: requests are still being served", mount->mountpoint);
    return 0;
}

/* If it is not, another file system may be mounted at the place by now: it is not touched. */
static bool connection_is_dead(const struct cow_mount *mount)
{
    struct pollfd fd = {.fd = fuse_session_fd(mount->session)};
    return poll(&fd, 1, 0) == 1 && (fd.revents & POLLERR);
}

void cow_mount_close(cow_mount *mount)
{
    if (!mount) return;
    if (mount->mounted && !is_over(mount)) (void)unmount(mount->mountpoint, true); /* run was never called, or failed */
    cow_notify_stop(mount);
    if (mount->mounted && connection_is_dead(mount)) fuse_session_unmount(mount->session); /* only frees what it has */
    if (mount->session) fuse_session_destroy(mount->session);
    cow_knodes_close(mount);
    cow_shelves_close(mount);
    pthread_mutex_destroy(&mount->state_lock);
    pthread_cond_destroy(&mount->state_changed);
    free(mount->mountpoint);
    free(mount->store_path);
    free(mount);
}
