/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decodes header blocks. The dialect is told by the magic: "ustar\0" is POSIX (its prefix field extends the name; star
 * keeps two times in the end of the prefix and marks that with "tar" at 508), "ustar " is GNU (no prefix), anything
 * else is v7 (no device numbers). Fields that a type does not use are not looked at, because old writers left rubbish
 * in them.
 */
#include "tar/header.h"

#include <stdarg.h>
#include <stdio.h>

enum { /* offsets and lengths in the block */
    AT_NAME = 0, NAME_BYTES = 100,
    AT_MODE = 100, AT_UID = 108, AT_GID = 116, ID_BYTES = 8,
    AT_SIZE = 124, AT_MTIME = 136, LONG_BYTES = 12,
    AT_SUM = 148, SUM_BYTES = 8,
    AT_TYPE = 156,
    AT_LINK = 157,
    AT_MAGIC = 257,
    AT_MAJOR = 329, AT_MINOR = 337,
    AT_PREFIX = 345, PREFIX_BYTES = 155, STAR_PREFIX_BYTES = 131,
    AT_STAR = 508,
};

#define PRINTABLE_BYTES_MAX 120u

void cow_tar_printable(const char *name, size_t name_bytes, char *out, size_t capacity)
{
    COW_ASSERT(capacity >= 8);
    size_t width = 0, first = name_bytes; /* the longest tail that fits */
    while (first > 0) {
        unsigned char c = (unsigned char)name[first - 1];
        size_t more = c < 0x20 || c > 0x7e || c == '\\' || c == '"' ? 4 : 1;
        if (width + more + 4 > capacity) break;
        width += more;
        first--;
    }
    size_t at = 0;
    if (first > 0) {
        memcpy(out, "...", 3);
        at = 3;
    }
    static const char digits[] = "0123456789abcdef";
    for (size_t i = first; i < name_bytes; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c < 0x20 || c > 0x7e || c == '\\' || c == '"') {
            out[at++] = '\\';
            out[at++] = 'x';
            out[at++] = digits[c >> 4];
            out[at++] = digits[c & 15];
        } else {
            out[at++] = (char)c;
        }
    }
    COW_ASSERT(at < capacity);
    out[at] = '\0';
}

int cow_tar_refuse(const char *name, size_t name_bytes, const char *format, ...)
{
    char printable[PRINTABLE_BYTES_MAX + 8], reason[112];
    cow_tar_printable(name, name_bytes, printable, sizeof printable);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    return cow_fail(EBADMSG, "member \"%s\": %s", printable, reason);
}

bool cow_tar_block_is_zero(const uint8_t *block)
{
    return block[0] == 0 && memcmp(block, block + 1, COW_TAR_BLOCK_BYTES - 1) == 0;
}

/* Big-endian two's complement; the first bit only marks the form, the second is the sign. */
static int number_binary(const uint8_t *field, size_t field_bytes, int64_t *value_out)
{
    uint8_t invert = field[0] & 0x40 ? 0xff : 0;
    uint64_t value = 0;
    for (size_t i = 0; i < field_bytes; i++) {
        uint8_t byte = (uint8_t)(field[i] ^ invert);
        if (i == 0) byte &= 0x7f;
        if (value >> 55 != 0) return -EBADMSG;
        value = value << 8 | byte;
    }
    *value_out = invert != 0 ? -(int64_t)value - 1 : (int64_t)value;
    return 0;
}

int cow_tar_number(const uint8_t *field, size_t field_bytes, int64_t *value_out)
{
    if (field[0] & 0x80) return number_binary(field, field_bytes, value_out);
    size_t at = 0;
    while (at < field_bytes && (field[at] == ' ' || field[at] == 0)) at++;
    int64_t value = 0; /* at most 12 digits: 36 bits */
    for (; at < field_bytes && field[at] != ' ' && field[at] != 0; at++) {
        if (field[at] < '0' || field[at] > '7') return -EBADMSG;
        value = value * 8 + (field[at] - '0');
    }
    *value_out = value;
    return 0;
}

int64_t cow_tar_time(int64_t seconds, uint32_t nanoseconds)
{
    int64_t whole, time;
    if (__builtin_mul_overflow(seconds, (int64_t)1000000000, &whole) ||
        __builtin_add_overflow(whole, (int64_t)nanoseconds, &time))
        return seconds < 0 ? INT64_MIN : INT64_MAX;
    return time;
}

/* Sums are of unsigned bytes; some old writers took signed ones. The sum field itself counts as spaces. */
static bool checksum_fits(const uint8_t *block)
{
    int64_t told;
    if (cow_tar_number(block + AT_SUM, SUM_BYTES, &told) < 0) return false;
    int32_t sum = 8 * ' ', signed_sum = 8 * ' ';
    for (size_t i = 0; i < COW_TAR_BLOCK_BYTES; i++) {
        sum += block[i];
        signed_sum += (int8_t)block[i];
    }
    for (size_t i = AT_SUM; i < AT_SUM + SUM_BYTES; i++) {
        sum -= block[i];
        signed_sum -= (int8_t)block[i];
    }
    return told == sum || told == signed_sum;
}

/* Name and, for POSIX, its prefix. */
static void decode_name(const uint8_t *block, struct cow_tar_header *header)
{
    header->name_bytes = 0;
    if (memcmp(block + AT_MAGIC, "ustar", 6) == 0) {
        bool star = memcmp(block + AT_STAR, "tar", 4) == 0;
        size_t prefix = strnlen((const char *)block + AT_PREFIX, star ? STAR_PREFIX_BYTES : PREFIX_BYTES);
        if (prefix > 0) {
            memcpy(header->name, block + AT_PREFIX, prefix);
            header->name[prefix] = '/';
            header->name_bytes = prefix + 1;
        }
    }
    size_t name = strnlen((const char *)block + AT_NAME, NAME_BYTES);
    memcpy(header->name + header->name_bytes, block + AT_NAME, name);
    header->name_bytes += name;
}

static int decode_u32(const uint8_t *block, size_t at, const struct cow_tar_header *header, const char *what,
                      uint32_t *value_out)
{
    int64_t value;
    if (cow_tar_number(block + at, ID_BYTES, &value) < 0 || value < 0 || value > UINT32_MAX)
        return cow_tar_refuse(header->name, header->name_bytes, "its %s is no number or out of range", what);
    *value_out = (uint32_t)value;
    return 0;
}

static int decode_device(const uint8_t *block, struct cow_tar_header *header)
{
    header->major = header->minor = 0;
    if (header->type != COW_TAR_CHAR && header->type != COW_TAR_BLOCK) return 0;
    if (memcmp(block + AT_MAGIC, "ustar", 5) != 0) return 0;
    int rc = decode_u32(block, AT_MAJOR, header, "device major", &header->major);
    return rc < 0 ? rc : decode_u32(block, AT_MINOR, header, "device minor", &header->minor);
}

int cow_tar_header_decode(const uint8_t *block, struct cow_tar_header *header_out)
{
    if (!checksum_fits(block)) return cow_fail(EBADMSG, "not a tar header: its checksum does not fit");
    struct cow_tar_header *header = header_out;
    header->type = block[AT_TYPE];
    decode_name(block, header);
    header->link_bytes = strnlen((const char *)block + AT_LINK, NAME_BYTES);
    memcpy(header->link, block + AT_LINK, header->link_bytes);

    int64_t mode, size, mtime;
    if (cow_tar_number(block + AT_MODE, ID_BYTES, &mode) < 0)
        return cow_tar_refuse(header->name, header->name_bytes, "its mode is no number");
    header->mode = (uint32_t)mode & 07777;
    int rc = decode_u32(block, AT_UID, header, "uid", &header->uid);
    if (rc == 0) rc = decode_u32(block, AT_GID, header, "gid", &header->gid);
    if (rc < 0) return rc;
    if (cow_tar_number(block + AT_SIZE, LONG_BYTES, &size) < 0 || size < 0 || (uint64_t)size > COW_FILE_BYTES_MAX)
        return cow_tar_refuse(header->name, header->name_bytes, "its size is no number or out of range");
    header->size_bytes = (uint64_t)size;
    if (cow_tar_number(block + AT_MTIME, LONG_BYTES, &mtime) < 0)
        return cow_tar_refuse(header->name, header->name_bytes, "its mtime is no number");
    header->mtime_ns = cow_tar_time(mtime, 0);
    return decode_device(block, header);
}
