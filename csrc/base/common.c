/* SPDX-License-Identifier: Apache-2.0 */
/*
 * common.c: the error detail is a small buffer per thread, so that setting and reading it needs no lock and no
 * memory. A message is built beside the buffer first, because its arguments may quote the former one.
 */
#include "base/common.h"

#include "cow.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define DETAIL_BYTES 256

static _Thread_local char error_detail[DETAIL_BYTES];

_Noreturn void cow_assert_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "pycow: %s:%d: broken invariant: %s\n", file, line, condition);
    fflush(stderr);
    abort();
}

int cow_fail(int code, const char *format, ...)
{
    char text[DETAIL_BYTES];
    va_list arguments;

    COW_ASSERT(code > 0);
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0) text[0] = 0;
    memcpy(error_detail, text, strlen(text) + 1);
    return -code;
}

void cow_error_clear(void)
{
    error_detail[0] = 0;
}

const char *cow_error_detail(void)
{
    return error_detail;
}

const char *cow_version(void)
{
    return "0.1.0";
}

int64_t cow_now_ns(void)
{
    struct timespec now;

    COW_ASSERT(clock_gettime(CLOCK_REALTIME, &now) == 0);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
