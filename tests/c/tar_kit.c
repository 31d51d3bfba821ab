/* SPDX-License-Identifier: Apache-2.0 */
/* Plain helpers; trees are read through the public interface alone. */
#include "tar_kit.h"

#include <stdarg.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

cow_store *store;
unsigned failures;

cow_tree *new_tree(void)
{
    cow_tree *tree;
    MUST(cow_tree_create(store, COW_FORK_TEMP, &tree));
    return tree;
}

cow_tree *fork_of(cow_tree *source)
{
    cow_tree *tree;
    MUST(cow_tree_fork(source, COW_FORK_BASE | COW_FORK_TEMP, &tree));
    return tree;
}

void drop(cow_tree *tree)
{
    MUST(cow_tree_delete(tree));
    cow_tree_close(tree);
}

/* ---- Text that grows ---- */

void add(struct text *text, const void *bytes, size_t count)
{
    if (text->used + count + 1 > text->capacity) {
        text->capacity = (text->used + count + 1) * 2;
        text->bytes = realloc(text->bytes, text->capacity);
        if (text->bytes == NULL) exit(1);
    }
    if (count > 0) memcpy(text->bytes + text->used, bytes, count);
    text->used += count;
    text->bytes[text->used] = '\0';
}

void addf(struct text *text, const char *format, ...)
{
    char line[9000];
    va_list arguments;
    va_start(arguments, format);
    int bytes = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    add(text, line, (size_t)bytes);
}

void drop_text(struct text *text)
{
    free(text->bytes);
    *text = (struct text){0};
}

/* ---- Trees ---- */

uint64_t find(cow_tree *tree, const char *path)
{
    uint64_t ino;
    return cow_path_walk(tree, COW_ROOT_INO, path, strlen(path), COW_WALK_NOFOLLOW, &ino, NULL) == 0 ? ino : 0;
}

uint64_t make(cow_tree *tree, const char *path, uint32_t mode, const char *target)
{
    uint64_t dir, ino;
    size_t at, bytes;
    static int64_t clock = 1700000000123456789;
    cow_attr attr = {.mode = mode, .uid = 10, .gid = 20, .mtime_ns = clock += 1000000007, .rdev = makedev(5, 1)};
    attr.atime_ns = attr.mtime_ns;
    if (!S_ISCHR(mode) && !S_ISBLK(mode)) attr.rdev = 0;
    MUST(cow_path_parent(tree, COW_ROOT_INO, path, strlen(path), &dir, &at, &bytes));
    MUST(cow_dir_make(tree, dir, path + at, bytes, &attr, target, target != NULL ? strlen(target) : 0, &ino));
    return ino;
}

uint64_t make_file(cow_tree *tree, const char *path, const char *content, size_t bytes)
{
    uint64_t ino = make(tree, path, S_IFREG | 0644, NULL);
    if (bytes > 0) MUST(cow_file_write(tree, ino, 0, content, bytes));
    cow_attr attr = {.mtime_ns = 1500000000000000000 + (int64_t)bytes};
    MUST(cow_inode_set(tree, ino, &attr, COW_SET_MTIME));
    return ino;
}

void make_link(cow_tree *tree, const char *path, uint64_t ino)
{
    uint64_t dir;
    size_t at, bytes;
    MUST(cow_path_parent(tree, COW_ROOT_INO, path, strlen(path), &dir, &at, &bytes));
    MUST(cow_dir_link(tree, dir, path + at, bytes, ino));
}

void remove_path(cow_tree *tree, const char *path)
{
    uint64_t dir;
    size_t at, bytes;
    MUST(cow_path_parent(tree, COW_ROOT_INO, path, strlen(path), &dir, &at, &bytes));
    MUST(cow_dir_remove(tree, dir, path + at, bytes, COW_REMOVE_TREE));
}

static uint64_t digest_file(cow_tree *tree, uint64_t ino, uint64_t size)
{
    static uint8_t block[1 << 16];
    uint64_t sum = 14695981039346656037u;
    for (uint64_t at = 0; at < size;) {
        int64_t bytes = cow_file_read(tree, ino, at, block, sizeof block);
        MUST(bytes);
        if (bytes == 0) break;
        for (int64_t i = 0; i < bytes; i++) sum = (sum ^ block[i]) * 1099511628211u;
        at += (uint64_t)bytes;
    }
    return sum;
}

static int compare_lines(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void describe(cow_tree *tree, uint64_t ino, const char *path, bool times, struct text *out)
{
    cow_attr attr;
    MUST(cow_inode_stat(tree, ino, &attr));
    addf(out, "%s %o %u:%u", path, attr.mode, attr.uid, attr.gid);
    if (times) addf(out, " %lld", (long long)attr.mtime_ns);
    if (S_ISREG(attr.mode)) addf(out, " %llu %016llx", (unsigned long long)attr.size_bytes,
                                 (unsigned long long)digest_file(tree, ino, attr.size_bytes));
    if (!S_ISDIR(attr.mode)) addf(out, " links %u", attr.nlink);
    if (attr.rdev != 0) addf(out, " device %llx", (unsigned long long)attr.rdev);
    char value[8192], names[8192];
    if (S_ISLNK(attr.mode)) {
        int64_t bytes = cow_symlink_read(tree, ino, value, sizeof value);
        MUST(bytes);
        addf(out, " -> %.*s", (int)bytes, value);
    }
    int64_t listed = cow_xattr_list(tree, ino, names, sizeof names);
    MUST(listed);
    const char *sorted[64];
    size_t count = 0;
    for (int64_t at = 0; at < listed; at += (int64_t)strlen(names + at) + 1) sorted[count++] = names + at;
    qsort(sorted, count, sizeof *sorted, compare_lines);
    for (size_t i = 0; i < count; i++) {
        int64_t bytes = cow_xattr_get(tree, ino, sorted[i], strlen(sorted[i]), value, sizeof value);
        MUST(bytes);
        addf(out, " %s=%.*s", sorted[i], (int)bytes, value);
    }
    add(out, "\n", 1);
}

static void dump_dir(cow_tree *tree, uint64_t dir, const char *path, bool times, struct text *out, unsigned depth)
{
    if (depth > 64) return;
    describe(tree, dir, *path != '\0' ? path : "/", times, out);
    char *names[600];
    uint64_t inos[600];
    size_t count = 0;
    static _Thread_local uint64_t records[8192];
    uint64_t cookie = 0;
    int64_t bytes;
    while ((bytes = cow_dir_read(tree, dir, cookie, 0, records, sizeof records)) > 0) {
        for (int64_t at = 0; at < bytes;) {
            cow_dir_entry *entry = (cow_dir_entry *)((char *)records + at);
            char line[600];
            snprintf(line, sizeof line, "%.*s", (int)entry->name_bytes, (char *)(entry + 1));
            if (count == 600 || (names[count] = strdup(line)) == NULL) exit(1);
            inos[count++] = entry->ino;
            cookie = entry->cookie;
            at += entry->record_bytes;
        }
    }
    MUST(bytes);
    for (size_t i = 0; i < count; i++) /* small directories */
        for (size_t j = i; j > 0 && strcmp(names[j - 1], names[j]) > 0; j--) {
            char *name = names[j];
            uint64_t ino = inos[j];
            names[j] = names[j - 1], inos[j] = inos[j - 1];
            names[j - 1] = name, inos[j - 1] = ino;
        }
    for (size_t i = 0; i < count; i++) {
        char below[5000];
        snprintf(below, sizeof below, "%s/%s", path, names[i]);
        cow_attr attr;
        MUST(cow_inode_stat(tree, inos[i], &attr));
        if (S_ISDIR(attr.mode)) dump_dir(tree, inos[i], below, times, out, depth + 1);
        else describe(tree, inos[i], below, times, out);
        free(names[i]);
    }
}

struct text dump(cow_tree *tree, bool times)
{
    struct text out = {0};
    dump_dir(tree, COW_ROOT_INO, "", times, &out, 0);
    return out;
}

void check_same(const char *what, cow_tree *a, cow_tree *b)
{
    struct text x = dump(a, true), y = dump(b, true);
    if (strcmp(x.bytes, y.bytes) != 0) {
        fprintf(stderr, "%s: trees differ\n---- expected\n%s---- got\n%s", what, x.bytes, y.bytes);
        failures++;
    }
    drop_text(&x);
    drop_text(&y);
}

/* ---- Archives ---- */

struct text write_tar(cow_tree *old_tree, cow_tree *tree, size_t step)
{
    struct text out = {0};
    cow_tar *tar;
    MUST(cow_tar_open(old_tree, tree, &tar));
    char *buffer = malloc(step);
    if (buffer == NULL) exit(1);
    int64_t bytes;
    while ((bytes = cow_tar_read(tar, buffer, step)) > 0) add(&out, buffer, (size_t)bytes);
    MUST(bytes);
    free(buffer);
    cow_tar_close(tar);
    return out;
}

int read_tar(cow_tree *tree, const struct text *archive, size_t step, uint32_t flags, cow_untar_result *result)
{
    cow_untar *untar;
    MUST(cow_untar_open(tree, flags, &untar));
    int rc = 0;
    for (size_t at = 0; at < archive->used && rc == 0; at += step) {
        size_t count = archive->used - at < step ? archive->used - at : step;
        /* a copy of exactly these bytes, so that reading past them is seen */
        char *piece = malloc(count);
        if (piece == NULL) exit(1);
        memcpy(piece, archive->bytes + at, count);
        rc = cow_untar_feed(untar, piece, count);
        free(piece);
    }
    if (rc == 0) rc = cow_untar_finish(untar, result);
    if (rc < 0) { /* the first error stays */
        char detail[300];
        snprintf(detail, sizeof detail, "%s", cow_error_detail());
        CHECK(detail[0] != '\0');
        CHECK(cow_untar_feed(untar, "x", 1) == rc);
        CHECK(strcmp(detail, cow_error_detail()) == 0);
        CHECK(cow_untar_finish(untar, NULL) == rc);
        CHECK(strcmp(detail, cow_error_detail()) == 0);
    }
    cow_untar_close(untar);
    return rc;
}

void seal(char *block)
{
    memset(block + 148, ' ', 8);
    unsigned sum = 0;
    for (int i = 0; i < 512; i++) sum += (unsigned char)block[i];
    snprintf(block + 148, 8, "%06o", sum);
}

char *header(struct text *out, const char *name, char type, unsigned long long size, const char *link)
{
    char block[512] = {0};
    memcpy(block, name, strlen(name) < 100 ? strlen(name) : 100);
    if (link != NULL) memcpy(block + 157, link, strlen(link) < 100 ? strlen(link) : 100);
    memcpy(block + 100, type == '5' ? "0000755" : "0000644", 8);
    memcpy(block + 108, "0000001", 8);
    memcpy(block + 116, "0000002", 8);
    char number[32];
    snprintf(number, sizeof number, "%011llo", size);
    memcpy(block + 124, number, 12);
    memcpy(block + 136, "12345670123", 12);
    block[156] = type;
    memcpy(block + 257, "ustar\0" "00", 8);
    seal(block);
    add(out, block, 512);
    return out->bytes + out->used - 512;
}

void content(struct text *out, const void *bytes, size_t count)
{
    static const char zeros[512];
    add(out, bytes, count);
    add(out, zeros, (512 - count % 512) % 512);
}

void file(struct text *out, const char *name, const char *text)
{
    header(out, name, '0', strlen(text), NULL);
    content(out, text, strlen(text));
}

void pax(struct text *out, char type, const char *records)
{
    struct text body = {0};
    for (const char *at = records; *at != '\0';) {
        size_t bytes = strcspn(at, ";"), length = bytes + 3;
        char digits[24];
        while (snprintf(digits, sizeof digits, "%zu", length), strlen(digits) + bytes + 2 != length) length++;
        addf(&body, "%s ", digits);
        add(&body, at, bytes);
        add(&body, "\n", 1);
        at += bytes + (at[bytes] == ';');
    }
    header(out, "pax", type, body.used, NULL);
    content(out, body.bytes, body.used);
    drop_text(&body);
}

void end_archive(struct text *out)
{
    static const char zeros[1024];
    add(out, zeros, sizeof zeros);
}
