/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pax.h: PAX extended header records, "LENGTH KEY=VALUE\n": taking them apart and writing them.
 */
#ifndef COW_TAR_PAX_H
#define COW_TAR_PAX_H

#include "tar/buffer.h"

struct cow_pax_record {
    const char *key, *value; /* into the records; no terminators */
    size_t key_bytes, value_bytes;
};

/* Iterates with the offset in *at, which starts at 0: 1 = a record, 0 = end, -EBADMSG (no detail) = not PAX records. */
int cow_pax_next(const void *records, size_t records_bytes, size_t *at, struct cow_pax_record *record_out);
bool cow_pax_key_is(const struct cow_pax_record *record, const char *key);

/* Values. -EBADMSG without detail when they are malformed or (numbers) greater than maximum. */
int cow_pax_number(const char *text, size_t text_bytes, uint64_t maximum, uint64_t *value_out);
int cow_pax_time(const char *text, size_t text_bytes, int64_t *time_ns_out);

/* The name of an extended attribute in a record's key ("SCHILY.xattr.NAME", where GNU tar writes '=' as %3D and '%' as
 * %25). Returns its length, 0 when the record is something else; name holds COW_NAME_BYTES_MAX + 1 bytes, and a longer
 * name is -EBADMSG. */
int64_t cow_pax_xattr_name(const struct cow_pax_record *record, char *name);

int cow_pax_append(struct cow_tar_buffer *records, const char *key, size_t key_bytes, const void *value,
                   size_t value_bytes);
int cow_pax_append_number(struct cow_tar_buffer *records, const char *key, uint64_t value);
int cow_pax_append_time(struct cow_tar_buffer *records, const char *key, int64_t time_ns);
int cow_pax_append_xattr(struct cow_tar_buffer *records, const char *name, size_t name_bytes, const void *value,
                         size_t value_bytes);

#endif
