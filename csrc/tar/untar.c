/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The archive as a stream: a state machine that takes bytes in pieces of any size. A header block is collected (or
 * used where it lies), bodies of extension headers are collected up to a limit, content goes on to apply, padding is
 * passed over. Each state consumes at least one byte, or changes the state. The first error stays.
 */
#include <stdlib.h>

#include "tar/apply.h"

#define EXTENSION_BYTES_MAX ((uint64_t)1 << 20)

enum state {
    STATE_HEADER,        /* collects a header block */
    STATE_SPARSE_HEADER, /* collects a block with more parts of an old GNU sparse file */
    STATE_BODY,          /* collects what follows a PAX or long name header */
    STATE_MAP,           /* reads the list of a PAX 1.0 sparse file */
    STATE_CONTENT,
    STATE_TRAILER, /* after the end marker */
};

struct cow_untar {
    cow_tree *tree;
    struct cow_apply *apply;
    enum state state;
    bool finished;
    int error;
    char detail[256];

    uint8_t block[COW_TAR_BLOCK_BYTES];
    size_t block_fill;
    bool zero_seen;     /* the last block was the first of the end marker */
    bool pending;       /* an extension header waits for its member */
    uint64_t skip_left; /* padding and content that nobody wants; comes before anything else */
    uint64_t padding;   /* behind the member's content */
    uint64_t body_left, body_padding;
    struct cow_tar_buffer *body;

    struct cow_tar_extras extras;
    struct cow_tar_header header;
    struct cow_tar_member member;
    struct cow_sparse sparse;
    size_t part;
    uint64_t part_left;
    cow_untar_result result;
};

static uint64_t padding_of(uint64_t bytes)
{
    return (COW_TAR_BLOCK_BYTES - bytes % COW_TAR_BLOCK_BYTES) % COW_TAR_BLOCK_BYTES;
}

int cow_untar_open(cow_tree *tree, uint32_t flags, cow_untar **untar_out)
{
    if (tree == NULL || untar_out == NULL || (flags & ~(uint32_t)COW_UNTAR_LAYER) != 0)
        return cow_fail(EINVAL, "untar: bad arguments");
    cow_tree_info info;
    int rc = cow_tree_get_info(tree, &info);
    if (rc < 0) return rc;
    if (info.sealed) return cow_fail(EROFS, "tree %llu is sealed", (unsigned long long)info.id);
    struct cow_untar *untar = calloc(1, sizeof *untar);
    if (untar == NULL) return -ENOMEM;
    untar->tree = tree;
    rc = cow_apply_open(tree, flags, &untar->apply);
    if (rc < 0) {
        free(untar);
        return rc;
    }
    *untar_out = untar;
    return 0;
}

void cow_untar_close(cow_untar *untar)
{
    if (untar == NULL) return;
    cow_apply_close(untar->apply);
    cow_tar_buffer_deinit(&untar->extras.pax);
    cow_tar_buffer_deinit(&untar->extras.global);
    cow_tar_buffer_deinit(&untar->extras.long_name);
    cow_tar_buffer_deinit(&untar->extras.long_link);
    cow_sparse_deinit(&untar->sparse);
    free(untar);
}

static int refuse(const struct cow_untar *untar, const char *why)
{
    return cow_tar_refuse(untar->member.path, untar->member.path_bytes, "%s", why);
}

/* ---- Members ---- */

static int end_member(struct cow_untar *untar, bool made)
{
    int rc = made ? cow_apply_end(untar->apply, &untar->member) : 0;
    if (rc < 0) return rc;
    if (made && untar->member.type == COW_TAR_FILE) {
        untar->result.files++;
        untar->result.content_bytes += untar->member.size_bytes;
    }
    untar->result.entries++;
    untar->skip_left += untar->padding;
    untar->extras.pax.used = untar->extras.long_name.used = untar->extras.long_link.used = 0;
    untar->pending = false;
    untar->state = STATE_HEADER;
    return 0;
}

/* Goes to the next part that has bytes, or ends the member. */
static int next_part(struct cow_untar *untar)
{
    while (untar->part < untar->sparse.count) {
        const struct cow_sparse_part *part = &untar->sparse.parts[untar->part++];
        if (part->length_bytes == 0) continue;
        untar->part_left = part->length_bytes;
        cow_apply_part(untar->apply, part->offset, part->length_bytes);
        return 0;
    }
    return end_member(untar, true);
}

/* All is known of the member but its content. data_bytes: stored bytes without a list of parts in front. */
static int begin_content(struct cow_untar *untar, uint64_t data_bytes)
{
    struct cow_tar_member *member = &untar->member;
    if (!untar->sparse.is_sparse && member->size_bytes > 0) {
        int rc = cow_sparse_add(&untar->sparse, 0, member->size_bytes);
        if (rc < 0) return rc;
        untar->sparse.size_bytes = member->size_bytes;
    }
    if (cow_sparse_verify(&untar->sparse, data_bytes) < 0)
        return refuse(untar, "its list of parts does not fit its size");
    enum cow_apply_kind kind;
    int rc = cow_apply_begin(untar->apply, member, &kind);
    if (rc < 0) return rc;
    if (kind == COW_APPLY_WHITEOUT) untar->result.whiteouts++;
    untar->padding = padding_of(data_bytes);
    if (kind != COW_APPLY_MADE) {
        untar->skip_left += data_bytes;
        return end_member(untar, false);
    }
    untar->part = 0;
    untar->state = STATE_CONTENT;
    return next_part(untar);
}

static int sparse_lists_done(struct cow_untar *untar)
{
    untar->member.size_bytes = untar->sparse.size_bytes;
    return begin_content(untar, untar->member.stored_bytes);
}

static int begin_member(struct cow_untar *untar, const uint8_t *block)
{
    struct cow_sparse *sparse = &untar->sparse;
    cow_sparse_clear(sparse);
    untar->member.path_bytes = 0;
    int rc = cow_tar_member_make(&untar->header, &untar->extras, sparse, &untar->member);
    if (rc < 0) return rc;
    if (untar->header.type == COW_TAR_GNU_SPARSE) {
        bool more;
        if (sparse->is_sparse) return refuse(untar, "it is sparse in two ways");
        rc = cow_sparse_take_header(sparse, block, &more);
        if (rc == -EBADMSG) return refuse(untar, "its list of parts is malformed");
        if (rc < 0 || !more) return rc < 0 ? rc : sparse_lists_done(untar);
        untar->state = STATE_SPARSE_HEADER;
        return 0;
    }
    if (!sparse->map_in_data) return begin_content(untar, untar->member.stored_bytes);
    untar->state = STATE_MAP;
    return 0;
}

static int begin_body(struct cow_untar *untar, struct cow_tar_buffer *body, bool keep_old)
{
    uint64_t bytes = untar->header.size_bytes;
    if (!keep_old) body->used = 0;
    if (bytes > EXTENSION_BYTES_MAX || body->used + bytes > EXTENSION_BYTES_MAX)
        return cow_tar_refuse(untar->header.name, untar->header.name_bytes,
                              "extension headers of more than 1 MiB");
    untar->body = body;
    untar->body_left = bytes;
    untar->body_padding = padding_of(bytes);
    if (bytes > 0) untar->state = STATE_BODY;
    if (body != &untar->extras.global) untar->pending = true;
    return 0;
}

static int take_header(struct cow_untar *untar, const uint8_t *block)
{
    if (cow_tar_block_is_zero(block)) {
        if (untar->pending) return cow_fail(EBADMSG, "the archive ends between an extension header and its member");
        if (untar->zero_seen) untar->state = STATE_TRAILER;
        untar->zero_seen = true;
        return 0;
    }
    if (untar->zero_seen) return cow_fail(EBADMSG, "the archive goes on after a block of zeros");
    struct cow_tar_header *header = &untar->header;
    int rc = cow_tar_header_decode(block, header);
    if (rc < 0) return rc;
    switch (header->type) {
    case COW_TAR_PAX:
    case COW_TAR_PAX_SOLARIS: return begin_body(untar, &untar->extras.pax, false);
    case COW_TAR_PAX_GLOBAL: return begin_body(untar, &untar->extras.global, true);
    case COW_TAR_GNU_LONG_NAME: return begin_body(untar, &untar->extras.long_name, false);
    case COW_TAR_GNU_LONG_LINK: return begin_body(untar, &untar->extras.long_link, false);
    case COW_TAR_GNU_VOLUME:
        untar->skip_left = header->size_bytes + padding_of(header->size_bytes);
        return 0;
    case COW_TAR_FILE_V7: case COW_TAR_FILE: case COW_TAR_LINK: case COW_TAR_SYMLINK: case COW_TAR_CHAR:
    case COW_TAR_BLOCK: case COW_TAR_DIR: case COW_TAR_FIFO: case COW_TAR_CONTIGUOUS: case COW_TAR_GNU_SPARSE:
        return begin_member(untar, block);
    default:
        return cow_tar_refuse(header->name, header->name_bytes, "a member of unknown type 0x%02x", header->type);
    }
}

/* ---- States ---- */

static int step_block(struct cow_untar *untar, const uint8_t *bytes, size_t count, size_t *used_out)
{
    const uint8_t *block = bytes;
    if (untar->block_fill > 0 || count < COW_TAR_BLOCK_BYTES) {
        size_t room = COW_TAR_BLOCK_BYTES - untar->block_fill;
        *used_out = count < room ? count : room;
        memcpy(untar->block + untar->block_fill, bytes, *used_out);
        untar->block_fill += *used_out;
        if (untar->block_fill < COW_TAR_BLOCK_BYTES) return 0;
        block = untar->block;
    } else {
        *used_out = COW_TAR_BLOCK_BYTES;
    }
    untar->block_fill = 0;
    if (untar->state == STATE_HEADER) return take_header(untar, block);
    bool more;
    int rc = cow_sparse_take_extension(&untar->sparse, block, &more);
    if (rc == -EBADMSG) return refuse(untar, "its list of parts is malformed");
    return rc < 0 || more ? rc : sparse_lists_done(untar);
}

static int step_body(struct cow_untar *untar, const uint8_t *bytes, size_t count, size_t *used_out)
{
    *used_out = count < untar->body_left ? count : (size_t)untar->body_left;
    int rc = cow_tar_buffer_append(untar->body, bytes, *used_out);
    if (rc < 0) return rc;
    untar->body_left -= *used_out;
    if (untar->body_left > 0) return 0;
    untar->skip_left = untar->body_padding;
    untar->state = STATE_HEADER;
    return 0;
}

static int step_map(struct cow_untar *untar, const uint8_t *bytes, size_t count, size_t *used_out)
{
    uint64_t left = untar->member.stored_bytes - untar->sparse.map_bytes;
    bool done = false;
    if (count > left) count = (size_t)left;
    int rc = 0;
    if (count > 0) rc = cow_sparse_take_map(&untar->sparse, bytes, count, used_out, &done);
    if (rc == -EBADMSG || (rc == 0 && !done && *used_out == left))
        return refuse(untar, "its list of parts is malformed");
    if (rc < 0 || !done) return rc;
    uint64_t map_bytes = untar->sparse.map_bytes, padding = padding_of(map_bytes);
    if (map_bytes + padding > untar->member.stored_bytes) return refuse(untar, "its list of parts is cut off");
    untar->skip_left = padding;
    return begin_content(untar, untar->member.stored_bytes - map_bytes - padding);
}

static int step_content(struct cow_untar *untar, const uint8_t *bytes, size_t count, size_t *used_out)
{
    *used_out = count < untar->part_left ? count : (size_t)untar->part_left;
    int rc = cow_apply_write(untar->apply, bytes, *used_out);
    if (rc < 0) return rc;
    untar->part_left -= *used_out;
    return untar->part_left > 0 ? 0 : next_part(untar);
}

static int step(struct cow_untar *untar, const uint8_t *bytes, size_t count, size_t *used_out)
{
    *used_out = 0;
    if (untar->skip_left > 0) {
        *used_out = count < untar->skip_left ? count : (size_t)untar->skip_left;
        untar->skip_left -= *used_out;
        return 0;
    }
    switch (untar->state) {
    case STATE_HEADER:
    case STATE_SPARSE_HEADER: return step_block(untar, bytes, count, used_out);
    case STATE_BODY: return step_body(untar, bytes, count, used_out);
    case STATE_MAP: return step_map(untar, bytes, count, used_out);
    case STATE_CONTENT: return step_content(untar, bytes, count, used_out);
    case STATE_TRAILER: *used_out = count; return 0;
    }
    COW_ASSERT(false);
    return -EINVAL;
}

/* ---- Public ---- */

/* Every failure ends the untar; later calls repeat it. One without words gets the member's name. */
static int fail(struct cow_untar *untar, int rc)
{
    untar->error = rc;
    const char *detail = cow_error_detail();
    if (*detail == '\0' && untar->member.path_bytes > 0) {
        char name[160];
        cow_tar_printable(untar->member.path, untar->member.path_bytes, name, sizeof name);
        (void)cow_fail(-rc, "while unpacking \"%s\"", name);
    }
    size_t bytes = strnlen(detail, sizeof untar->detail - 1);
    memcpy(untar->detail, detail, bytes);
    untar->detail[bytes] = '\0';
    return rc;
}

int cow_untar_feed(cow_untar *untar, const void *bytes, size_t length_bytes)
{
    if (untar == NULL || (bytes == NULL && length_bytes > 0)) return cow_fail(EINVAL, "untar: bad arguments");
    if (untar->error != 0) return cow_fail(-untar->error, "%s", untar->detail);
    if (untar->finished) return cow_fail(EINVAL, "untar: it is finished");
    cow_error_clear();
    const uint8_t *at = bytes;
    size_t left = length_bytes;
    while (left > 0) {
        size_t used;
        int rc = step(untar, at, left, &used);
        if (rc < 0) return fail(untar, rc);
        at += used;
        left -= used;
    }
    untar->result.tar_bytes += length_bytes;
    return 0;
}

int cow_untar_finish(cow_untar *untar, cow_untar_result *result_out)
{
    if (untar == NULL) return cow_fail(EINVAL, "untar: bad arguments");
    if (untar->error != 0) return cow_fail(-untar->error, "%s", untar->detail);
    if (untar->finished) return cow_fail(EINVAL, "untar: it is finished");
    cow_error_clear();
    /* Some writers leave the end marker away, or even the padding of the last member; an end before that is a loss. */
    bool between = untar->state == STATE_HEADER && untar->block_fill == 0 && untar->skip_left <= untar->padding &&
                   !untar->pending;
    if (untar->state != STATE_TRAILER && !between)
        return fail(untar, cow_fail(EBADMSG, "the archive is cut off after %llu bytes",
                                    (unsigned long long)untar->result.tar_bytes));
    int rc = cow_apply_finish(untar->apply);
    if (rc < 0) return fail(untar, rc);
    untar->finished = true;
    if (result_out != NULL) *result_out = untar->result;
    return 0;
}
