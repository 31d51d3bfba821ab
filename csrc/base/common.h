/* SPDX-License-Identifier: Apache-2.0 */
/*
 * common.h: what every module may use: limits, assertions, error details, byte order, addresses.
 */
#ifndef COW_COMMON_H
#define COW_COMMON_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define COW_BLOCK_BYTES 4096u
#define COW_BLOCK_SHIFT 12u
#define COW_SEGMENT_BLOCKS_MAX (1u << 18) /* a data segment is at most 1 GiB; segment 0 (nodes) is not bounded so */
#define COW_FILE_BYTES_MAX ((uint64_t)1 << 55)
#define COW_EDAMAGE EUCLEAN

/* Always on, also in release builds: a broken invariant must stop before it is written. */
#define COW_ASSERT(condition) \
    ((condition) ? (void)0 : cow_assert_failed(#condition, __FILE__, __LINE__))
_Noreturn void cow_assert_failed(const char *condition, const char *file, int line);

/* Sets the calling thread's error detail and returns -code, so that `return cow_fail(EINVAL, "...")` works.
 * printf format; truncated to 255 bytes. cow_error_clear() empties it. */
int cow_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cow_error_clear(void);

/* A block's address: segment << 32 | block. Block 0 of segment 0 holds a superblock, so 0 means none. */
typedef uint64_t cow_addr;
static inline cow_addr cow_addr_make(uint32_t segment, uint32_t block) { return ((uint64_t)segment << 32) | block; }
static inline uint32_t cow_addr_segment(cow_addr addr) { return (uint32_t)(addr >> 32); }
static inline uint32_t cow_addr_block(cow_addr addr) { return (uint32_t)addr; }

/* Little-endian loads and stores at any alignment. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define COW_LE16(x) (x)
#define COW_LE32(x) (x)
#define COW_LE64(x) (x)
#else
#define COW_LE16(x) __builtin_bswap16(x)
#define COW_LE32(x) __builtin_bswap32(x)
#define COW_LE64(x) __builtin_bswap64(x)
#endif
static inline uint16_t cow_load16(const void *p) { uint16_t v; memcpy(&v, p, 2); return COW_LE16(v); }
static inline uint32_t cow_load32(const void *p) { uint32_t v; memcpy(&v, p, 4); return COW_LE32(v); }
static inline uint64_t cow_load64(const void *p) { uint64_t v; memcpy(&v, p, 8); return COW_LE64(v); }
static inline void cow_store16(void *p, uint16_t v) { v = COW_LE16(v); memcpy(p, &v, 2); }
static inline void cow_store32(void *p, uint32_t v) { v = COW_LE32(v); memcpy(p, &v, 4); }
static inline void cow_store64(void *p, uint64_t v) { v = COW_LE64(v); memcpy(p, &v, 8); }

/* Counters: relaxed atomics, read by stats. */
typedef uint64_t cow_counter;
static inline void cow_count(cow_counter *c, uint64_t n) { __atomic_fetch_add(c, n, __ATOMIC_RELAXED); }
static inline uint64_t cow_counted(const cow_counter *c) { return __atomic_load_n(c, __ATOMIC_RELAXED); }

int64_t cow_now_ns(void);

#endif
