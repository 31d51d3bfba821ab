/* SPDX-License-Identifier: Apache-2.0 */
/* Plain text work on counted strings. Strict when reading: a record that is off by one byte is refused. */
#include "tar/pax.h"

#include <inttypes.h>
#include <stdio.h>

#include "cow.h"
#include "tar/header.h"

#define XATTR_PREFIX "SCHILY.xattr."
#define XATTR_PREFIX_BYTES (sizeof XATTR_PREFIX - 1)

int cow_pax_next(const void *records, size_t records_bytes, size_t *at, struct cow_pax_record *record_out)
{
    if (*at == records_bytes) return 0;
    const char *start = (const char *)records + *at;
    size_t left = records_bytes - *at, length = 0, digits = 0;
    while (digits < left && digits < 8 && start[digits] >= '0' && start[digits] <= '9')
        length = length * 10 + (size_t)(start[digits++] - '0');
    if (digits == 0 || digits == left || start[digits] != ' ' || length > left) return -EBADMSG;
    const char *key = start + digits + 1;
    if (length < digits + 4 || start[length - 1] != '\n') return -EBADMSG; /* " k=\n" at the least */
    size_t text = length - digits - 2;
    const char *equals = memchr(key, '=', text);
    if (equals == NULL || equals == key || memchr(key, '\0', (size_t)(equals - key)) != NULL) return -EBADMSG;
    record_out->key = key;
    record_out->key_bytes = (size_t)(equals - key);
    record_out->value = equals + 1;
    record_out->value_bytes = text - record_out->key_bytes - 1;
    *at += length;
    return 1;
}

bool cow_pax_key_is(const struct cow_pax_record *record, const char *key)
{
    return strlen(key) == record->key_bytes && memcmp(key, record->key, record->key_bytes) == 0;
}

int cow_pax_number(const char *text, size_t text_bytes, uint64_t maximum, uint64_t *value_out)
{
    if (text_bytes == 0) return -EBADMSG;
    uint64_t value = 0;
    for (size_t i = 0; i < text_bytes; i++) {
        if (text[i] < '0' || text[i] > '9') return -EBADMSG;
        if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
            return -EBADMSG;
    }
    if (value > maximum) return -EBADMSG;
    *value_out = value;
    return 0;
}

/* Seconds with an optional fraction; digits beyond nanoseconds are cut off. */
int cow_pax_time(const char *text, size_t text_bytes, int64_t *time_ns_out)
{
    bool negative = text_bytes > 0 && text[0] == '-';
    if (negative) {
        text++;
        text_bytes--;
    }
    const char *point = text_bytes > 0 ? memchr(text, '.', text_bytes) : NULL;
    size_t whole = point != NULL ? (size_t)(point - text) : text_bytes;
    uint64_t seconds;
    if (cow_pax_number(text, whole, INT64_MAX, &seconds) < 0) return -EBADMSG;
    uint32_t nanoseconds = 0, unit = 100000000;
    for (size_t i = whole + 1; i < text_bytes; i++, unit /= 10) {
        if (text[i] < '0' || text[i] > '9') return -EBADMSG;
        nanoseconds += (uint32_t)(text[i] - '0') * unit;
    }
    if (!negative)
        *time_ns_out = cow_tar_time((int64_t)seconds, nanoseconds);
    else if (nanoseconds == 0)
        *time_ns_out = cow_tar_time(-(int64_t)seconds, 0);
    else
        *time_ns_out = cow_tar_time(-(int64_t)seconds - 1, 1000000000 - nanoseconds);
    return 0;
}

int64_t cow_pax_xattr_name(const struct cow_pax_record *record, char *name)
{
    if (record->key_bytes <= XATTR_PREFIX_BYTES || memcmp(record->key, XATTR_PREFIX, XATTR_PREFIX_BYTES) != 0) return 0;
    const char *from = record->key + XATTR_PREFIX_BYTES;
    size_t left = record->key_bytes - XATTR_PREFIX_BYTES, used = 0;
    while (left > 0) {
        if (used == COW_NAME_BYTES_MAX) return -EBADMSG;
        size_t step = 1;
        name[used] = *from;
        if (left >= 3 && (memcmp(from, "%3D", 3) == 0 || memcmp(from, "%25", 3) == 0)) {
            name[used] = from[1] == '3' ? '=' : '%';
            step = 3;
        }
        used++;
        from += step;
        left -= step;
    }
    return (int64_t)used;
}

/* ---- Writing ---- */

static size_t digits_of(size_t value)
{
    size_t digits = 1;
    for (; value >= 10; value /= 10) digits++;
    return digits;
}

int cow_pax_append(struct cow_tar_buffer *records, const char *key, size_t key_bytes, const void *value,
                   size_t value_bytes)
{
    size_t rest = key_bytes + value_bytes + 3; /* ' ', '=', '\n' */
    size_t length = rest + digits_of(rest);
    if (digits_of(length) != digits_of(rest)) length = rest + digits_of(length);
    char head[24];
    int head_bytes = snprintf(head, sizeof head, "%zu ", length);
    int rc = cow_tar_buffer_reserve(records, length);
    if (rc == 0) rc = cow_tar_buffer_append(records, head, (size_t)head_bytes);
    if (rc == 0) rc = cow_tar_buffer_append(records, key, key_bytes);
    if (rc == 0) rc = cow_tar_buffer_append(records, "=", 1);
    if (rc == 0) rc = cow_tar_buffer_append(records, value, value_bytes);
    if (rc == 0) rc = cow_tar_buffer_append(records, "\n", 1);
    return rc;
}

int cow_pax_append_number(struct cow_tar_buffer *records, const char *key, uint64_t value)
{
    char text[24];
    int bytes = snprintf(text, sizeof text, "%" PRIu64, value);
    return cow_pax_append(records, key, strlen(key), text, (size_t)bytes);
}

int cow_pax_append_time(struct cow_tar_buffer *records, const char *key, int64_t time_ns)
{
    uint64_t absolute = time_ns < 0 ? (uint64_t)0 - (uint64_t)time_ns : (uint64_t)time_ns;
    char text[40];
    int bytes = snprintf(text, sizeof text, "%s%" PRIu64 ".%09" PRIu64, time_ns < 0 ? "-" : "",
                         absolute / 1000000000, absolute % 1000000000);
    while (text[bytes - 1] == '0') bytes--;
    if (text[bytes - 1] == '.') bytes--;
    return cow_pax_append(records, key, strlen(key), text, (size_t)bytes);
}

int cow_pax_append_xattr(struct cow_tar_buffer *records, const char *name, size_t name_bytes, const void *value,
                         size_t value_bytes)
{
    char key[XATTR_PREFIX_BYTES + 3 * COW_NAME_BYTES_MAX];
    COW_ASSERT(name_bytes <= COW_NAME_BYTES_MAX);
    memcpy(key, XATTR_PREFIX, XATTR_PREFIX_BYTES);
    size_t used = XATTR_PREFIX_BYTES;
    for (size_t i = 0; i < name_bytes; i++) {
        if (name[i] == '=' || name[i] == '%') {
            memcpy(key + used, name[i] == '=' ? "%3D" : "%25", 3);
            used += 3;
        } else {
            key[used++] = name[i];
        }
    }
    return cow_pax_append(records, key, used, value, value_bytes);
}
