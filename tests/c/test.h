/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test.h: a very small harness. A test is a function without arguments; main RUNs each and ends with
 * `return TEST_RESULT();`. CHECK and CHECK_EQ report and go on, MUST ends the test program, because nothing after it
 * would make sense. They may be used from many threads. One line is printed per test.
 */
#ifndef PYCOW_TEST_H
#define PYCOW_TEST_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "cow.h"

static unsigned test_failed_checks; /* atomic */
static unsigned test_failed_tests __attribute__((unused)); /* with RUN */

static inline void test_report(const char *file, int line, const char *what)
{
    __atomic_fetch_add(&test_failed_checks, 1, __ATOMIC_RELAXED);
    fprintf(stderr, "%s:%d: %s (last detail: \"%s\")\n", file, line, what, cow_error_detail());
}

static inline void test_check_eq(const char *file, int line, const char *what, long long got, long long wanted)
{
    char text[512];

    if (got == wanted) return;
    (void)snprintf(text, sizeof text, "%s: got %lld (0x%llx), wanted %lld", what, got, (unsigned long long)got, wanted);
    test_report(file, line, text);
}

#define CHECK(condition) ((condition) ? (void)0 : test_report(__FILE__, __LINE__, #condition))
/* Integers up to 64 bits. */
#define CHECK_EQ(got, wanted)                                                                                          \
    test_check_eq(__FILE__, __LINE__, #got " == " #wanted, (long long)(got), (long long)(wanted))
/* A call that returns a negative errno value on failure and is known to work. */
#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        long long must_rc = (long long)(call);                                                                         \
        if (must_rc < 0) {                                                                                             \
            test_check_eq(__FILE__, __LINE__, #call, must_rc, 0);                                                      \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define RUN(test)                                                                                                      \
    do {                                                                                                               \
        unsigned run_before = test_failed_checks;                                                                      \
        test();                                                                                                        \
        test_failed_tests += test_failed_checks != run_before;                                                         \
        printf("%s %s\n", test_failed_checks != run_before ? "FAIL" : "ok  ", #test);                                  \
        (void)fflush(stdout);                                                                                          \
    } while (0)

#define TEST_RESULT() (test_failed_tests != 0)

/* A cheap pseudo-random sequence; *state is any seed. */
static inline uint64_t test_random(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static inline void test_fill(void *buffer, size_t bytes, uint64_t seed)
{
    uint8_t *to = buffer;
    for (size_t i = 0; i < bytes; i++) {
        if (i % 8 == 0) (void)test_random(&seed);
        to[i] = (uint8_t)((seed * 0xBF58476D1CE4E5B9u) >> (8 * (i % 8)));
    }
}

#endif
