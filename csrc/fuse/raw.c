/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two things which older libfuse does not pass on, taken from the raw messages:
 *
 * FUSE_HANDLE_KILLPRIV_V2. Without it the kernel asks for the attribute security.capability before each write(2), a request
 * that costs more than the write. With it the kernel remembers that there is none, and tells with each request that may
 * change content whether set-user-ID bits and capabilities must go. The flag is put into our answer to INIT, if the
 * kernel offered it; the bits of the requests are kept for the thread that serves them.
 *
 * All of it is fixed by the kernel's ABI (linux/fuse.h). Where an answer does not look as expected it is left alone.
 */
#include <sys/uio.h>
#include <unistd.h>

#include "fuse/mount.h"

#define OP_SETATTR 4u
#define OP_OPEN 14u
#define OP_WRITE 16u
#define OP_INIT 26u
#define OP_CREATE 35u
#define INIT_HANDLE_KILLPRIV_V2 (1u << 28)
#define SETATTR_KILL_SUIDGID (1u << 11)
#define WRITE_KILL_SUIDGID (1u << 2)
#define OPEN_KILL_SUIDGID (1u << 0)
#define IN_HEADER_BYTES 40u
#define OUT_HEADER_BYTES 16u
#define OPCODE_AT 4u
#define UNIQUE_AT 8u
#define INIT_FLAGS_AT 12u      /* in both struct fuse_init_in and fuse_init_out */
#define WRITE_FLAGS_AT 20u     /* struct fuse_write_in */
#define SETATTR_VALID_AT 0u    /* struct fuse_setattr_in */
#define OPEN_FLAGS_AT 4u       /* struct fuse_open_in */
#define CREATE_FLAGS_AT 12u    /* struct fuse_create_in */

static _Thread_local bool kills;
static _Thread_local uint64_t init_unique;
static _Thread_local bool init_offers;

bool cow_raw_kills_privileges(void) { return kills; }

static uint32_t field(const uint8_t *message, size_t length, size_t at)
{
    uint32_t value = 0;
    if (IN_HEADER_BYTES + at + sizeof value <= length) memcpy(&value, message + IN_HEADER_BYTES + at, sizeof value);
    return value;
}

static void look_at(const uint8_t *message, size_t length)
{
    uint32_t opcode;
    kills = false;
    if (length < IN_HEADER_BYTES) return;
    memcpy(&opcode, message + OPCODE_AT, sizeof opcode);
    switch (opcode) {
    case OP_WRITE: kills = (field(message, length, WRITE_FLAGS_AT) & WRITE_KILL_SUIDGID) != 0; break;
    case OP_SETATTR: kills = (field(message, length, SETATTR_VALID_AT) & SETATTR_KILL_SUIDGID) != 0; break;
    case OP_OPEN: kills = (field(message, length, OPEN_FLAGS_AT) & OPEN_KILL_SUIDGID) != 0; break;
    case OP_CREATE: kills = (field(message, length, CREATE_FLAGS_AT) & OPEN_KILL_SUIDGID) != 0; break;
    case OP_INIT:
        memcpy(&init_unique, message + UNIQUE_AT, sizeof init_unique);
        init_offers = (field(message, length, INIT_FLAGS_AT) & INIT_HANDLE_KILLPRIV_V2) != 0;
        break;
    default: break;
    }
}

static ssize_t read_message(int fd, void *buffer, size_t bytes, void *context)
{
    (void)context;
    ssize_t n = read(fd, buffer, bytes);
    if (n > 0) look_at(buffer, (size_t)n);
    return n;
}

/* The answer to INIT: its header and its body are two pieces. */
static void patch_init(const struct iovec *pieces, int count)
{
    uint64_t unique;
    uint32_t flags;
    if (count != 2 || pieces[0].iov_len != OUT_HEADER_BYTES || pieces[1].iov_len < INIT_FLAGS_AT + sizeof flags) return;
    memcpy(&unique, (const uint8_t *)pieces[0].iov_base + UNIQUE_AT, sizeof unique);
    if (unique != init_unique) return;
    uint8_t *at = (uint8_t *)pieces[1].iov_base + INIT_FLAGS_AT;
    memcpy(&flags, at, sizeof flags);
    flags |= INIT_HANDLE_KILLPRIV_V2;
    memcpy(at, &flags, sizeof flags);
}

static ssize_t write_message(int fd, struct iovec *pieces, int count, void *context)
{
    (void)context;
    if (init_offers) {
        init_offers = false;
        patch_init(pieces, count);
    }
    return writev(fd, pieces, count);
}

int cow_raw_install(struct cow_mount *mount)
{
    static const struct fuse_custom_io io = {.writev = write_message, .read = read_message};
    return fuse_session_custom_io(mount->session, &io, fuse_session_fd(mount->session));
}
