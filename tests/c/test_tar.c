/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers as tar streams: what is written can be read back, however it is cut into pieces; whiteouts hide what is below
 * and nothing else; every dialect is understood; every lie is refused, and nothing leads out of the tree.
 */
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "dev/dev.h"
#include "tar_kit.h"

/* ---- Round trips ---- */

static const size_t steps[] = {1, 511, 512, 4097, 1 << 20};

static void fill(cow_tree *tree)
{
    char path[400] = "/deep", *big = malloc(6u << 20);
    if (big == NULL) exit(1);
    for (size_t i = 0; i < 6u << 20; i++) big[i] = (char)(i * 2654435761u >> 13);
    make(tree, "/etc", S_IFDIR | 0755, NULL);
    make(tree, "/empty", S_IFDIR | 01777, NULL);
    make_file(tree, "/etc/hosts", "127.0.0.1 localhost\n", 20);
    make_file(tree, "/etc/none", "", 0);
    make_file(tree, "/etc/block", big, 4096);
    make_file(tree, "/etc/middle", big, 300001);
    make_file(tree, "/large", big, (6u << 20) - 77);
    free(big);
    make(tree, "/etc/link", S_IFLNK | 0777, "/nowhere/at/all");
    make(tree, "/etc/null", S_IFCHR | 0666, NULL);
    make(tree, "/etc/disk", S_IFBLK | 0660, NULL);
    make(tree, "/etc/pipe", S_IFIFO | 0600, NULL);
    uint64_t set = make_file(tree, "/etc/setuid", "#!", 2);
    cow_attr attr = {.mode = 06755, .uid = 3000000000u, .gid = 2097152};
    MUST(cow_inode_set(tree, set, &attr, COW_SET_MODE | COW_SET_UID | COW_SET_GID));
    MUST(cow_xattr_set(tree, set, "user.z", 6, "last\nline", 9, 0));
    MUST(cow_xattr_set(tree, set, "user.a=b%c", 10, "x=y", 3, 0));
    MUST(cow_xattr_set(tree, set, "security.capability", 19, "\1\0\0\2", 4, 0));
    MUST(cow_xattr_set(tree, find(tree, "/etc"), "user.empty", 10, "", 0, 0));
    make_link(tree, "/etc/zlink", find(tree, "/etc/hosts"));
    make_link(tree, "/alink", find(tree, "/etc/hosts"));
    make_file(tree, "/etc/caf\xc3\xa9 \x01", "name", 4);
    make(tree, path, S_IFDIR | 0700, NULL);
    for (unsigned i = 0; i < 3; i++) { /* too long for ustar */
        snprintf(path + strlen(path), 110, "/%0*u", 100, i);
        make(tree, path, S_IFDIR | 0750, NULL);
    }
    memcpy(path + strlen(path), "/x", 3);
    make_file(tree, path, "deep", 4);
    make(tree, "/deep/s", S_IFLNK | 0777, path);
    make_link(tree, "/deep/z", find(tree, path));
    for (unsigned i = 0; i < 500; i++) {
        snprintf(path, sizeof path, "/empty/%u", i * 7919u % 500);
        make_file(tree, path, path, i % 5);
    }
    cow_attr early = {.mtime_ns = -1500000000}, epoch = {.mtime_ns = 0}, late = {.mtime_ns = 9000000000123000000};
    MUST(cow_inode_set(tree, find(tree, "/etc/none"), &early, COW_SET_MTIME));
    MUST(cow_inode_set(tree, find(tree, "/etc/pipe"), &epoch, COW_SET_MTIME));
    MUST(cow_inode_set(tree, find(tree, "/deep"), &epoch, COW_SET_MTIME));
    MUST(cow_inode_set(tree, find(tree, "/etc/block"), &late, COW_SET_MTIME));
    MUST(cow_inode_set(tree, find(tree, "/"), &late, COW_SET_MTIME));
}

static void test_whole(const char *save)
{
    cow_tree *tree = new_tree();
    fill(tree);
    struct text archive = write_tar(NULL, tree, 1 << 20), other = write_tar(NULL, tree, 313);
    CHECK(archive.used == other.used && memcmp(archive.bytes, other.bytes, archive.used) == 0);
    CHECK(archive.used % 512 == 0);
    drop_text(&other);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        cow_tree *copy = new_tree();
        cow_untar_result result;
        MUST(read_tar(copy, &archive, steps[i], 0, &result));
        CHECK(result.tar_bytes == archive.used && result.whiteouts == 0);
        CHECK(result.files == 508 && result.entries == 1 + 6 + 508 + 3 + 2 + 3); /* root, dirs, files, links, ... */
        check_same("whole", tree, copy);
        if (steps[i] == 512) {
            other = write_tar(NULL, copy, 4096);
            CHECK(archive.used == other.used && memcmp(archive.bytes, other.bytes, archive.used) == 0);
            drop_text(&other);
        }
        drop(copy);
    }
    if (save != NULL) {
        FILE *out = fopen(save, "wb");
        if (out == NULL || fwrite(archive.bytes, 1, archive.used, out) != archive.used || fclose(out) != 0) exit(1);
    }
    drop_text(&archive);
    drop(tree);
}

static void change(cow_tree *tree)
{
    MUST(cow_file_write(tree, find(tree, "/etc/middle"), 8192, "changed", 7));
    MUST(cow_file_write(tree, find(tree, "/large"), 5000000, "changed", 7));
    remove_path(tree, "/etc/null");
    remove_path(tree, "/deep");
    make_file(tree, "/deep", "now a file", 10);
    remove_path(tree, "/etc/link");
    make(tree, "/etc/link", S_IFDIR | 0755, NULL);
    make_file(tree, "/etc/link/in", "in", 2);
    remove_path(tree, "/empty");
    make(tree, "/empty", S_IFDIR | 0711, NULL);
    make_file(tree, "/empty/17", "new", 3);
    make(tree, "/new", S_IFDIR | 0755, NULL);
    make_file(tree, "/new/b", "b", 1);
    make_link(tree, "/new/a", find(tree, "/new/b"));
    make(tree, "/new/sock", S_IFSOCK | 0755, NULL);
    remove_path(tree, "/etc/none");
    make(tree, "/etc/none", S_IFSOCK | 0755, NULL);
    MUST(cow_xattr_set(tree, find(tree, "/etc"), "user.more", 9, "more", 4, 0));
    MUST(cow_xattr_remove(tree, find(tree, "/etc"), "user.empty", 10));
    MUST(cow_dir_rename(tree, find(tree, "/etc"), "disk", 4, find(tree, "/etc"), "disc", 4, 0));
    cow_attr attr = {.mtime_ns = 1234567890};
    MUST(cow_inode_set(tree, find(tree, "/"), &attr, COW_SET_MTIME));
}

static void test_layer(const char *save)
{
    cow_tree *base = new_tree();
    fill(base);
    MUST(cow_tree_seal(base));
    cow_tree *tree = fork_of(base);
    change(tree);
    struct text archive = write_tar(base, tree, 1 << 16);
    cow_attr attr = {.mtime_ns = 1700001234000000000};
    remove_path(tree, "/new/sock"); /* sockets are not written */
    remove_path(tree, "/etc/none");
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        cow_tree *copy = fork_of(base);
        cow_untar_result result;
        MUST(read_tar(copy, &archive, steps[i], COW_UNTAR_LAYER, &result));
        CHECK(result.whiteouts == 3 + 499);
        cow_tree *const both[] = {tree, copy};
        for (size_t j = 0; j < 4; j++)
            MUST(cow_inode_set(both[j / 2], find(both[j / 2], j % 2 ? "/new" : "/etc"), &attr, COW_SET_MTIME));
        check_same("layer", tree, copy);
        drop(copy);
    }
    if (save != NULL) {
        FILE *out = fopen(save, "wb");
        if (out == NULL || fwrite(archive.bytes, 1, archive.used, out) != archive.used || fclose(out) != 0) exit(1);
    }
    drop_text(&archive);
    make_file(tree, "/new/.wh.x", "", 0);
    cow_tar *tar;
    char *buffer = malloc(8u << 20);
    if (buffer == NULL) exit(1);
    MUST(cow_tar_open(base, tree, &tar));
    CHECK(cow_tar_read(tar, buffer, 8u << 20) == -EINVAL && strstr(cow_error_detail(), "/new/.wh.x") != NULL);
    CHECK(cow_tar_read(tar, buffer, 8u << 20) == -EINVAL);
    free(buffer);
    cow_tar_close(tar);
    drop(tree);
    drop(base);
}

/* ---- Whiteouts: a program of one-letter steps makes the archive ---- */

struct whiteout_case {
    const char *what;
    const char *archive; /* words: "d:PATH" directory, "f:PATH" file, "w:PATH" empty file, "l:PATH=TARGET" hard link,
                          * "s:PATH=TARGET" symlink */
    const char *expect;  /* all paths then, sorted; NULL = refused */
};

/* Below lies: /d /d/a /d/b /d/e /d/e/f /f /s -> d */
static const struct whiteout_case whiteout_cases[] = {
    {"nothing", "", "/d /d/a /d/b /d/e /d/e/f /f /s"},
    {"a file", "w:.wh.f", "/d /d/a /d/b /d/e /d/e/f /s"},
    {"a symlink", "w:.wh.s", "/d /d/a /d/b /d/e /d/e/f /f"},
    {"a directory", "w:.wh.d", "/f /s"},
    {"in a directory", "w:d/.wh.e w:./d/.wh.a", "/d /d/b /f /s"},
    {"what is not there", "w:.wh.x w:x/.wh.y w:d/x/y/.wh.z w:y/.wh..wh..opq", "/d /d/a /d/b /d/e /d/e/f /f /s"},
    {"own file, before", "w:.wh.f f:f", "/d /d/a /d/b /d/e /d/e/f /f /s"},
    {"own file, after", "f:f w:.wh.f", "/d /d/a /d/b /d/e /d/e/f /f /s"},
    {"own new file", "f:n w:.wh.n", "/d /d/a /d/b /d/e /d/e/f /f /n /s"},
    {"own hard link to a lower file", "l:n=f w:.wh.n", "/d /d/a /d/b /d/e /d/e/f /f /n /s"},
    {"only the name that was linked", "l:n=f w:.wh.f", "/d /d/a /d/b /d/e /d/e/f /n /s"},
    {"linked over a lower name", "l:d/a=f w:d/.wh.a w:.wh.f", "/d /d/a /d/b /d/e /d/e/f /s"},
    {"linked onto itself", "l:f=f w:.wh.f", "/d /d/a /d/b /d/e /d/e/f /f /s"},
    {"listed directory", "d:d w:.wh.d", "/d /f /s"},
    {"listed directory, before", "w:.wh.d d:d f:d/n", "/d /d/n /f /s"},
    {"directory with own child", "f:d/n w:.wh.d", "/d /d/n /f /s"},
    {"directory with own grandchild", "f:d/e/n w:.wh.d", "/d /d/e /d/e/n /f /s"},
    {"whiteouts inside do not keep it", "w:d/.wh.a w:d/e/.wh.f w:.wh.d", "/f /s"},
    {"opaque", "w:d/.wh..wh..opq", "/d /f /s"},
    {"opaque, before", "d:d w:d/.wh..wh..opq f:d/n d:d/e", "/d /d/e /d/n /f /s"},
    {"opaque, after", "d:d f:d/n d:d/e l:d/m=f w:d/.wh..wh..opq", "/d /d/e /d/m /d/n /f /s"},
    {"opaque with own grandchild", "f:d/e/n w:d/.wh..wh..opq", "/d /d/e /d/e/n /f /s"},
    {"opaque root", "f:d/e/n w:.wh..wh..opq f:n", "/d /d/e /d/e/n /n"},
    {"other drivers' files", "w:.wh..wh.aufs d:.wh..wh.plnk f:.wh..wh.plnk/1.2 f:d/.wh..wh.x",
     "/d /d/a /d/b /d/e /d/e/f /f /s"},
    {"replaced by a file", "f:d", "/d /f /s"},
    {"replaced by a directory", "d:f f:f/n", "/d /d/a /d/b /d/e /d/e/f /f /f/n /s"},
    {"replaced symlink", "d:s f:s/n", "/d /d/a /d/b /d/e /d/e/f /f /s /s/n"},
    {"duplicates", "f:n d:n f:n/m f:n f:n", "/d /d/a /d/b /d/e /d/e/f /f /n /s"},
    {"missing parents", "f:x/y/z", "/d /d/a /d/b /d/e /d/e/f /f /s /x /x/y /x/y/z"},
    {"odd spellings", "d:././d//e/ f:.//d///./e/n d:. d:./", "/d /d/a /d/b /d/e /d/e/f /d/e/n /f /s"},
    {"a bare whiteout", "w:d/.wh.", NULL},
    {"a whiteout of .", "w:d/.wh..", NULL},
    {"a whiteout of ..", "w:d/.wh...", NULL},
    {"inside of a whiteout", "f:.wh.d/a", NULL},
    {"through a symlink", "f:s/n", NULL},
    {"a whiteout through a symlink", "w:s/.wh.a", NULL},
    {"an opaque marker through a symlink", "w:s/.wh..wh..opq", NULL},
    {"through an own symlink", "s:t=/d f:t/n", NULL},
    {"through a swapped symlink", "d:t f:t/n s:t=d f:t/m", NULL},
    {"through a file", "f:f/n", NULL},
    {"a link through a symlink", "l:n=s/a", NULL},
    {"a link to a directory", "l:n=d", NULL},
    {"a link to nothing", "l:n=x/y", NULL},
    {"a link upwards", "l:n=../f", NULL},
    {"a link from the root", "l:n=/f", NULL},
    {"a link to the root", "l:n=.", NULL},
    {"a link without a target", "l:n=", NULL},
    {"a link over its target's directory", "f:n/m l:n=n/m", NULL},
    {"a symlink without a target", "s:n=", NULL},
    {"upwards", "f:../n", NULL},
    {"upwards inside", "f:d/../n", NULL},
    {"upwards at the end", "d:d/..", NULL},
    {"absolute", "f:/n", NULL},
    {"absolute directory", "d:/n", NULL},
    {"without a name", "f:", NULL},
    {"the root as a file", "f:.", NULL},
    {"the root as a link", "l:./=f", NULL},
};

static void add_word(struct text *archive, const char *word)
{
    char path[200];
    snprintf(path, sizeof path, "%s", word + 2);
    char *target = strchr(path, '=');
    if (target != NULL) *target++ = '\0';
    if (*word == 'f') file(archive, path, "content");
    else header(archive, path, *word == 'd' ? '5' : *word == 'l' ? '1' : *word == 's' ? '2' : '0', 0, target);
}

static void list_paths(cow_tree *tree, struct text *out)
{
    struct text lines = dump(tree, false);
    for (char *line = strchr(lines.bytes, '\n'); line != NULL && line[1] != '\0'; line = strchr(line + 1, '\n'))
        addf(out, "%s%.*s", out->used > 0 ? " " : "", (int)strcspn(line + 1, " "), line + 1);
    drop_text(&lines);
}

static void test_whiteouts(void)
{
    cow_tree *base = new_tree();
    make(base, "/d", S_IFDIR | 0700, NULL);
    make_file(base, "/d/a", "lower", 5);
    make_file(base, "/d/b", "lower", 5);
    make(base, "/d/e", S_IFDIR | 0700, NULL);
    make_file(base, "/d/e/f", "lower", 5);
    make_file(base, "/f", "lower", 5);
    make(base, "/s", S_IFLNK | 0777, "d");
    MUST(cow_tree_seal(base));
    for (size_t i = 0; i < sizeof whiteout_cases / sizeof *whiteout_cases; i++) {
        const struct whiteout_case *test = &whiteout_cases[i];
        struct text archive = {0}, paths = {0};
        char words[300], *state = NULL;
        snprintf(words, sizeof words, "%s", test->archive);
        for (char *word = strtok_r(words, " ", &state); word != NULL; word = strtok_r(NULL, " ", &state))
            add_word(&archive, word);
        end_archive(&archive);
        cow_tree *tree = fork_of(base);
        int rc = read_tar(tree, &archive, 4096, COW_UNTAR_LAYER, NULL);
        if (rc == 0) list_paths(tree, &paths);
        bool good = test->expect == NULL ? rc == -EBADMSG : rc == 0 && strcmp(paths.bytes, test->expect) == 0;
        if (!good) {
            fprintf(stderr, "%s (%s): %d %s\n  got      %s\n  expected %s\n", test->what, test->archive, rc,
                    cow_error_detail(), paths.bytes, test->expect != NULL ? test->expect : "a refusal");
            failures++;
        }
        drop(tree);
        drop_text(&archive);
        drop_text(&paths);
    }
    drop(base);
}

/* Directories keep or get the right times and attributes. */
static void test_attributes(void)
{
    cow_tree *base = new_tree();
    make(base, "/kept", S_IFDIR | 0700, NULL);
    make_file(base, "/kept/x", "x", 1);
    make(base, "/listed", S_IFDIR | 0700, NULL);
    MUST(cow_xattr_set(base, find(base, "/listed"), "user.old", 8, "old", 3, 0));
    cow_attr before, root, after;
    MUST(cow_inode_stat(base, find(base, "/kept"), &before));
    MUST(cow_inode_stat(base, COW_ROOT_INO, &root));
    struct text archive = {0};
    pax(&archive, 'x', "SCHILY.xattr.user.new=new");
    header(&archive, "listed/", '5', 0, NULL);
    file(&archive, "listed/a", "a");
    file(&archive, "kept/y", "y");
    header(&archive, "kept/.wh.x", '0', 0, NULL);
    file(&archive, "made/y", "y");
    char *block = header(&archive, "group/", '5', 0, NULL);
    memcpy(block + 100, "0002775", 8), memcpy(block + 116, "0000062", 8), seal(block);
    file(&archive, "group/file", "y");
    header(&archive, "group/dir/", '5', 0, NULL);
    file(&archive, "group/made/y", "y");
    end_archive(&archive);
    cow_tree *tree = fork_of(base);
    MUST(read_tar(tree, &archive, 1000, COW_UNTAR_LAYER, NULL));
    const int64_t mtime_ns = (int64_t)012345670123 * 1000000000;
    MUST(cow_inode_stat(tree, find(tree, "/kept"), &after));
    CHECK(after.mtime_ns == before.mtime_ns && after.mode == before.mode && after.ino == before.ino);
    MUST(cow_inode_stat(tree, COW_ROOT_INO, &after));
    CHECK(after.mtime_ns == root.mtime_ns);
    MUST(cow_inode_stat(tree, find(tree, "/listed"), &after));
    CHECK(after.mtime_ns == mtime_ns && after.mode == (S_IFDIR | 0755) && after.uid == 1 && after.gid == 2);
    char names[100];
    CHECK(cow_xattr_list(tree, after.ino, names, sizeof names) == 9 && strcmp(names, "user.new") == 0);
    MUST(cow_inode_stat(tree, find(tree, "/made"), &after));
    CHECK(after.mtime_ns == mtime_ns && after.mode == (S_IFDIR | 0755) && after.uid == 0);
    MUST(cow_inode_stat(tree, find(tree, "/made/y"), &after));
    CHECK(after.mtime_ns == mtime_ns && after.mode == (S_IFREG | 0644) && after.size_bytes == 1);
    MUST(cow_inode_stat(tree, find(tree, "/group"), &after)); /* a set-gid bit changes nothing below */
    CHECK(after.mode == (S_IFDIR | 02775) && after.gid == 062);
    MUST(cow_inode_stat(tree, find(tree, "/group/file"), &after));
    CHECK(after.mode == (S_IFREG | 0644) && after.gid == 2);
    MUST(cow_inode_stat(tree, find(tree, "/group/dir"), &after));
    CHECK(after.mode == (S_IFDIR | 0755) && after.gid == 2);
    MUST(cow_inode_stat(tree, find(tree, "/group/made"), &after));
    CHECK(after.mode == (S_IFDIR | 0755) && after.gid == 0);
    drop(tree);
    tree = new_tree(); /* not a layer: whiteouts are files */
    MUST(read_tar(tree, &archive, 1000, 0, NULL));
    CHECK(find(tree, "/kept/.wh.x") != 0);
    drop(tree);
    drop(base);
    drop_text(&archive);
}

/* ---- Dialects ---- */

static char *gnu(struct text *out, const char *name, char type, unsigned long long size)
{
    char *block = header(out, name, type, size, NULL);
    memcpy(block + 257, "ustar  ", 8);
    seal(block);
    return block;
}

static void long_name(struct text *out, char type, const char *name)
{
    gnu(out, "././@LongLink", type, strlen(name) + 1);
    content(out, name, strlen(name) + 1);
}

static void number(char *field, size_t bytes, long long value) /* base-256 */
{
    for (size_t i = bytes; i-- > 0; value >>= 8) field[i] = (char)value;
    field[0] = (char)(value < 0 ? 0xff : field[0] | 0x80);
}

static void parts(char *at, unsigned count, unsigned long long first)
{
    for (unsigned i = 0; i < count; i++, first += 2048) {
        char text[32];
        snprintf(text, sizeof text, "%011llo", first);
        memcpy(at + 24 * i, text, 12);
        memcpy(at + 24 * i + 12, "00000000003", 12);
    }
}

static void test_old_dialects(cow_tree *tree)
{
    struct text archive = {0};
    char name[301], target[301], *block;
    memset(name, 'n', 200), memset(name + 200, 'm', 100), memset(target, 't', 300);
    name[100] = name[200] = '/', name[300] = target[300] = '\0';
    block = header(&archive, "v7/", '0', 0, NULL);
    block[156] = 0, memset(block + 257, 0, 8), memcpy(block + 345, "rubbish", 7), memset(block + 329, 'x', 16);
    seal(block);
    block = header(&archive, "v7/\xe9\xe9", '0', 0, NULL); /* a sum of signed bytes */
    block[156] = 0, memset(block + 257, 0, 8), seal(block);
    snprintf(block + 148, 8, "%06lo", strtoul(block + 148, NULL, 8) - 2 * 256);
    long_name(&archive, 'K', target);
    long_name(&archive, 'L', name);
    block = gnu(&archive, "short", '2', 0);
    block = gnu(&archive, "binary", '0', 5);
    number(block + 108, 8, 4000000000), number(block + 124, 12, 5), number(block + 136, 12, -7), seal(block);
    content(&archive, "12345", 5);
    block = header(&archive, "name", '7', 0, NULL);
    memcpy(block + 345, "pre/fix", 7), seal(block);
    block = header(&archive, "star", '0', 0, NULL);
    memcpy(block + 345, "pre", 3), memcpy(block + 476, "12345670123", 12), memcpy(block + 508, "tar", 4), seal(block);
    gnu(&archive, "volume", 'V', 0);
    block = header(&archive, "device", '3', 0, NULL);
    memcpy(block + 329, "0000010", 8), memcpy(block + 337, "0000400", 8), seal(block);
    /* no end marker: many writers leave it away */
    MUST(read_tar(tree, &archive, 700, COW_UNTAR_LAYER, NULL));
    cow_attr attr;
    char text[400];
    MUST(cow_inode_stat(tree, find(tree, "/v7"), &attr));
    CHECK(S_ISDIR(attr.mode) && find(tree, "/v7/\xe9\xe9") != 0);
    snprintf(text, sizeof text, "/%s", name);
    CHECK(cow_symlink_read(tree, find(tree, text), text, sizeof text) == 300 && memcmp(text, target, 300) == 0);
    MUST(cow_inode_stat(tree, find(tree, "/binary"), &attr));
    CHECK(attr.uid == 4000000000 && attr.size_bytes == 5 && attr.mtime_ns == -7000000000);
    CHECK(find(tree, "/pre/fix/name") != 0 && find(tree, "/pre/star") != 0 && find(tree, "/volume") == 0);
    MUST(cow_inode_stat(tree, find(tree, "/device"), &attr));
    CHECK(S_ISCHR(attr.mode) && attr.rdev == makedev(8, 256));
    drop_text(&archive);
}

static void test_pax(cow_tree *tree)
{
    struct text archive = {0};
    header(&archive, "empty", 'x', 0, NULL);
    pax(&archive, 'g', "comment=0123456789");
    pax(&archive, 'g', "gid=77");
    pax(&archive, 'x', "path=p/q;mtime=1.5;path=p/r;uid=20000000;size=3");
    header(&archive, "ignored", '0', 0, NULL);
    content(&archive, "abc", 3);
    pax(&archive, 'x', "mtime=-1.25");
    file(&archive, "p/s", "");
    pax(&archive, 'x', "path=");
    file(&archive, "p/t", "");
    pax(&archive, 'x', "linkpath=p/r");
    header(&archive, "p/u", '1', 12345, "nothing");
    pax(&archive, 'x', "mtime=99999999999999.9");
    file(&archive, "p/v", "");
    end_archive(&archive);
    add(&archive, "anything may follow", 19);
    cow_untar_result result;
    MUST(read_tar(tree, &archive, 100, COW_UNTAR_LAYER, &result));
    CHECK(result.entries == 5 && result.files == 4 && result.content_bytes == 3 && result.tar_bytes == archive.used);
    cow_attr attr;
    MUST(cow_inode_stat(tree, find(tree, "/p/r"), &attr));
    CHECK(attr.uid == 20000000 && attr.gid == 77 && attr.mtime_ns == 1500000000);
    CHECK(attr.size_bytes == 3 && attr.nlink == 2);
    MUST(cow_inode_stat(tree, find(tree, "/p/s"), &attr));
    CHECK(attr.uid == 1 && attr.mtime_ns == -1250000000);
    MUST(cow_inode_stat(tree, find(tree, "/p/v"), &attr));
    CHECK(attr.mtime_ns == INT64_MAX);
    CHECK(find(tree, "/p/t") != 0 && find(tree, "/p/u") == find(tree, "/p/r") && find(tree, "/p/q") == 0);
    drop_text(&archive);
}

static void check_sparse(cow_tree *tree, const char *path, uint64_t size, unsigned count, uint64_t first)
{
    cow_attr attr;
    char *bytes = calloc(1, size + 1), *expect = calloc(1, size + 1);
    if (bytes == NULL || expect == NULL) exit(1);
    uint64_t ino = find(tree, path);
    MUST(cow_inode_stat(tree, ino, &attr));
    CHECK(attr.size_bytes == size);
    for (unsigned i = 0; i < count; i++) memcpy(expect + first + 2048 * i, "abc", 3);
    CHECK(cow_file_read(tree, ino, 0, bytes, size + 1) == (int64_t)size && memcmp(bytes, expect, size) == 0);
    free(bytes);
    free(expect);
}

static void test_sparse(cow_tree *tree)
{
    struct text archive = {0}, map = {0}, data = {0};
    for (unsigned i = 0; i < 100; i++) add(&data, "abc", 3);
    char *block = gnu(&archive, "old", 'S', 30 * 3), more[512] = {0};
    parts(block + 386, 4, 1000), block[482] = 1, memcpy(block + 483, "00000200000", 12), seal(block);
    parts(more, 21, 1000 + 4 * 2048), more[504] = 1;
    add(&archive, more, 512);
    memset(more, 0, 512), parts(more, 5, 1000 + 25 * 2048);
    add(&archive, more, 512);
    content(&archive, data.bytes, 90);
    pax(&archive, 'x', "GNU.sparse.size=10000;GNU.sparse.offset=10;GNU.sparse.numbytes=3;"
                       "GNU.sparse.offset=2058;GNU.sparse.numbytes=3");
    file(&archive, "pax00", "abcabc");
    pax(&archive, 'x', "GNU.sparse.size=10000;GNU.sparse.name=s/pax01;GNU.sparse.map=10,3,2058,3,5000,0;"
                       "GNU.sparse.numblocks=3;path=GNUSparseFile.0/pax01");
    file(&archive, "ignored", "abcabc");
    pax(&archive, 'x', "GNU.sparse.size=5000;GNU.sparse.numblocks=0");
    file(&archive, "hole", "");
    pax(&archive, 'x', "GNU.sparse.major=1;GNU.sparse.minor=0;GNU.sparse.realsize=300000;GNU.sparse.name=pax10");
    addf(&map, "101\n");
    for (unsigned i = 0; i < 100; i++) addf(&map, "%u\n3\n", 4097 + 2048 * i);
    addf(&map, "300000\n0\n");
    header(&archive, "GNUSparseFile.0/pax10", '0', (map.used + 511) / 512 * 512 + 300, NULL);
    content(&archive, map.bytes, map.used);
    content(&archive, data.bytes, 300);
    end_archive(&archive);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        MUST(read_tar(tree, &archive, steps[i], COW_UNTAR_LAYER, NULL));
        check_sparse(tree, "/old", 65536, 30, 1000);
        check_sparse(tree, "/pax00", 10000, 2, 10);
        check_sparse(tree, "/s/pax01", 10000, 2, 10);
        check_sparse(tree, "/hole", 5000, 0, 0);
        check_sparse(tree, "/pax10", 300000, 100, 4097);
    }
    drop_text(&archive);
    drop_text(&map);
    drop_text(&data);
}

/* ---- Lies ---- */

struct lie {
    const char *what;
    char type;
    int at; /* field of the header that is overwritten, -1 = none */
    const char *bytes;
    size_t count;
    const char *records; /* PAX records before it, as pax() takes them or, when raw, as they are */
    bool raw;
};

static const struct lie lies[] = {
    {"checksum", '0', 148, "000001", 7, NULL, false},
    {"size without digits", '0', 124, "zz", 3, NULL, false},
    {"digit 8", '0', 124, "00000000008", 12, NULL, false},
    {"negative size", '0', 124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12, NULL, false},
    {"size beyond 64 bits", '0', 124, "\x80\x01\0\0\0\0\0\0\0\0\0\0", 12, NULL, false},
    {"size beyond a file", '0', 124, "\x80\0\0\0\1\0\0\0\0\0\0\0", 12, NULL, false},
    {"negative uid", '0', 108, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, NULL, false},
    {"uid of 33 bits", '0', 108, "\x80\0\0\1\0\0\0\0", 8, NULL, false},
    {"mode", '0', 100, "rwxr-xr", 7, NULL, false},
    {"mtime", '0', 136, "yesterday", 9, NULL, false},
    {"device", '3', 329, "abcdefg", 7, NULL, false},
    {"size that is not there", '0', 124, "00000777777", 12, NULL, false},
    {"huge size that is not there", '0', 124, "77777777777", 12, NULL, false},
    {"large size that is not there", '0', 124, "00100000000", 12, NULL, false},
    {"type of several volumes", 'M', -1, "", 0, NULL, false},
    {"unknown type", 'Q', -1, "", 0, NULL, false},
    {"extension too long", 'x', 124, "00004000001", 12, NULL, false},
    {"long name too long", 'L', 124, "00004000001", 12, NULL, false},
    {"extension without member", 'x', -1, "", 0, NULL, false},
    {"bad size", '0', -1, "", 0, "size=-1", false},
    {"no size", '0', -1, "", 0, "size=1e3", false},
    {"size of 2^64", '0', -1, "", 0, "size=18446744073709551616", false},
    {"size of 2^56", '0', -1, "", 0, "size=72057594037927936", false},
    {"uid of 2^32", '0', -1, "", 0, "uid=4294967296", false},
    {"no time", '0', -1, "", 0, "mtime=now", false},
    {"no fraction", '0', -1, "", 0, "mtime=1.-5", false},
    {"absolute path", '0', -1, "", 0, "path=/etc/passwd", false},
    {"path upwards", '0', -1, "", 0, "path=a/../../b", false},
    {"record without length", '0', -1, "", 0, "path=b\n", true},
    {"record without key", '0', -1, "", 0, "6 =bc\n", true},
    {"record without value", '0', -1, "", 0, "9 path b\n", true},
    {"record without newline", '0', -1, "", 0, "9 path=bb", true},
    {"record longer than the header", '0', -1, "", 0, "99 path=b\n", true},
    {"record of zero bytes", '0', -1, "", 0, "0 path=b\n", true},
    {"record of endless digits", '0', -1, "", 0, "00000000000000000009 path=b\n", true},
    {"sparse without size", '0', -1, "", 0, "GNU.sparse.map=0,1", false},
    {"sparse map with one number", '0', -1, "", 0, "GNU.sparse.map=0", false},
    {"sparse version 2", '0', -1, "", 0, "GNU.sparse.major=2;GNU.sparse.size=100", false},
    {"sparse beyond its size", '0', -1, "", 0, "GNU.sparse.size=100;GNU.sparse.map=98,3", false},
    {"sparse out of order", '0', -1, "", 0, "GNU.sparse.size=100;GNU.sparse.map=50,2,9,1", false},
    {"sparse with overlap", '0', -1, "", 0, "GNU.sparse.size=100;GNU.sparse.map=5,2,6,01", false},
    {"sparse with less than is stored", '0', -1, "", 0, "GNU.sparse.size=100;GNU.sparse.map=5,2", false},
    {"sparse with more than is stored", '0', -1, "", 0, "GNU.sparse.size=100;GNU.sparse.map=5,4", false},
    {"sparse length without offset", '0', -1, "", 0, "GNU.sparse.numbytes=3", false},
    {"sparse offsets in a row", '0', -1, "", 0, "GNU.sparse.offset=3;GNU.sparse.offset=3", false},
    {"sparse list that is no list", '0', -1, "", 0, "GNU.sparse.major=1;GNU.sparse.size=100", false},
    {"path for all", 'g', -1, "", 0, "path=a", false},
};

static void add_lie(struct text *archive, const struct lie *lie)
{
    if (lie->records != NULL && lie->raw) {
        header(archive, "x", 'x', strlen(lie->records), NULL);
        content(archive, lie->records, strlen(lie->records));
    } else if (lie->records != NULL) {
        pax(archive, lie->type == 'g' ? 'g' : 'x', lie->records);
        if (lie->type == 'g') file(archive, "name", "abc");
    }
    if (lie->type == 'g') return;
    char *block = header(archive, "bad\x1b\"name", lie->type, 3, NULL);
    if (lie->at >= 0) memcpy(block + lie->at, lie->bytes, lie->count);
    if (lie->at != 148) seal(block);
    content(archive, "3 c", 3);
}

static void test_lies(void)
{
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct text archive = {0};
        file(&archive, "good", "good");
        add_lie(&archive, &lies[i]);
        end_archive(&archive);
        cow_tree *tree = new_tree();
        int rc = read_tar(tree, &archive, 4096, COW_UNTAR_LAYER, NULL);
        bool printable = true;
        for (const char *c = cow_error_detail(); *c != '\0'; c++) printable = printable && *c >= ' ' && *c <= '~';
        if (rc != -EBADMSG || !printable) {
            fprintf(stderr, "%s: %d %s\n", lies[i].what, rc, cow_error_detail());
            failures++;
        }
        drop(tree);
        drop_text(&archive);
    }
}

/* Parts that are too long, each way that a name can come in. */
static void test_long_names(void)
{
    static const struct {
        size_t part, total;
        bool good;
    } cases[] = {{255, 255, true}, {256, 256, false}, {200, 4095, true}, {200, 4096, false}, {200, 5000, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases * 4; i++) {
        char name[5001], records[5020];
        size_t total = cases[i / 4].total, part = cases[i / 4].part;
        bool good = cases[i / 4].good, symlink = i % 4 >= 2;
        for (size_t at = 0; at < total; at++) name[at] = at % (part + 1) == part && at + 1 < total ? '/' : 'n';
        name[total] = '\0';
        struct text archive = {0};
        if (i % 4 == 0) long_name(&archive, 'L', name);
        if (i % 4 == 1) snprintf(records, sizeof records, "path=%s", name), pax(&archive, 'x', records);
        if (i % 4 == 2) long_name(&archive, 'K', name);
        if (i % 4 == 3) snprintf(records, sizeof records, "linkpath=%s", name), pax(&archive, 'x', records);
        header(&archive, "short", symlink ? '2' : '0', 0, NULL);
        end_archive(&archive);
        cow_tree *tree = new_tree();
        int rc = read_tar(tree, &archive, 4096, COW_UNTAR_LAYER, NULL);
        if (symlink) good = total <= COW_SYMLINK_BYTES_MAX;
        CHECK(rc == (good ? 0 : -EBADMSG));
        drop(tree);
        drop_text(&archive);
    }
}

static void test_cut_off(void)
{
    struct text archive = {0};
    struct {
        size_t from, to;
    } good[8];
    size_t count = 0;
    good[count].from = good[count].to = 0;
    count++;
    file(&archive, "a", "some content");
    good[count].from = archive.used - 512 + strlen("some content"); /* the padding may be left away */
    good[count++].to = archive.used;
    pax(&archive, 'x', "path=b");
    file(&archive, "x", "more");
    good[count].from = archive.used - 512 + strlen("more");
    good[count++].to = archive.used;
    header(&archive, "d", '5', 0, NULL);
    good[count].from = good[count].to = archive.used;
    count++;
    end_archive(&archive);
    for (size_t blocks = 0; blocks < 2; blocks++) {
        good[count].from = good[count].to = archive.used - 512 * blocks;
        count++;
    }
    for (size_t cut = 0; cut <= archive.used; cut += 4) {
        struct text part = {.bytes = archive.bytes, .used = cut};
        bool whole = false;
        for (size_t i = 0; i < count; i++) whole = whole || (good[i].from <= cut && cut <= good[i].to);
        cow_tree *tree = new_tree();
        CHECK(read_tar(tree, &part, 100, COW_UNTAR_LAYER, NULL) == (whole ? 0 : -EBADMSG));
        drop(tree);
    }
    file(&archive, "ignored", "after the end");
    cow_tree *tree = new_tree();
    CHECK(read_tar(tree, &archive, 100, COW_UNTAR_LAYER, NULL) == 0 && find(tree, "/ignored") == 0);
    archive.used = 0;
    end_archive(&archive);
    archive.used -= 512;
    file(&archive, "hidden", "after one block of zeros");
    CHECK(read_tar(tree, &archive, 100, COW_UNTAR_LAYER, NULL) == -EBADMSG);
    drop_text(&archive);
    CHECK(cow_tree_seal(tree) == 0);
    cow_untar *untar;
    CHECK(cow_untar_open(tree, COW_UNTAR_LAYER, &untar) == -EROFS);
    drop(tree);
}

/* Damaged archives: any answer but a crash or an endless loop. */
static void test_noise(unsigned rounds)
{
    cow_tree *source = new_tree();
    make(source, "/d", S_IFDIR | 0755, NULL);
    make_file(source, "/d/f", "content", 7);
    make_link(source, "/d/l", find(source, "/d/f"));
    make(source, "/d/s", S_IFLNK | 0777, "target");
    MUST(cow_xattr_set(source, find(source, "/d/f"), "user.x", 6, "y", 1, 0));
    struct text archive = write_tar(NULL, source, 4096);
    uint64_t random = 1;
    for (unsigned i = 0; i < rounds; i++) {
        struct text noisy = {0};
        add(&noisy, archive.bytes, archive.used);
        for (unsigned n = 0; n < 1 + i % 4; n++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            size_t at = (size_t)(random >> 33) % noisy.used;
            noisy.bytes[at] = (char)(random >> 20);
            if (random >> 63) seal(noisy.bytes + at / 512 * 512);
        }
        cow_tree *tree = fork_of(source);
        (void)read_tar(tree, &noisy, 1 + (size_t)(random >> 40) % 2000, COW_UNTAR_LAYER, NULL);
        drop(tree);
        drop_text(&noisy);
    }
    drop_text(&archive);
    drop(source);
}

/* A medium that is full at any moment: the untar says so, and the store goes on. */
static void test_full_medium(void)
{
    cow_tree *source = new_tree();
    fill(source);
    struct text archive = write_tar(NULL, source, 4096);
    drop(source);
    cow_store *kept = store;
    struct cow_dev *sim;
    cow_options options = {.flags = COW_OPEN_CREATE};
    MUST(cow_dev_sim_open(&sim));
    MUST(cow_store_open_dev(sim, &options, &store));
    unsigned failed = 0;
    for (uint64_t nth = 0; nth < 40; nth += 3) {
        cow_tree *tree = new_tree();
        cow_dev_sim_fail(sim, COW_DEV_SIM_WRITE | COW_DEV_SIM_OTHER, nth, ENOSPC, true);
        int rc = read_tar(tree, &archive, 1 << 16, COW_UNTAR_LAYER, NULL);
        cow_dev_sim_fail(sim, COW_DEV_SIM_WRITE | COW_DEV_SIM_OTHER, UINT64_MAX, ENOSPC, true);
        CHECK(rc == 0 || rc == -ENOSPC);
        failed += rc < 0;
        drop(tree);
    }
    CHECK(failed > 0);
    cow_tree *tree = new_tree();
    MUST(read_tar(tree, &archive, 1 << 16, COW_UNTAR_LAYER, NULL));
    struct text again = write_tar(NULL, tree, 1 << 16);
    CHECK(again.used == archive.used && memcmp(again.bytes, archive.bytes, again.used) == 0);
    drop(tree);
    cow_check_report report;
    MUST(cow_store_check(store, 1, NULL, NULL, &report));
    CHECK(report.errors == 0);
    MUST(cow_store_close(store));
    store = kept;
    drop_text(&archive);
    drop_text(&again);
}

/* test_tar [FILE [FILE]]: saves the two round-trip archives for other readers. */
int main(int argc, char **argv)
{
    struct cow_dev *dev;
    cow_options options = {.flags = COW_OPEN_CREATE};
    MUST(cow_dev_memory_open(&dev));
    MUST(cow_store_open_dev(dev, &options, &store));
    test_whole(argc > 1 ? argv[1] : NULL);
    test_layer(argc > 2 ? argv[2] : NULL);
    test_whiteouts();
    test_attributes();
    static void (*const dialects[])(cow_tree *) = {test_old_dialects, test_pax, test_sparse};
    for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++) {
        cow_tree *tree = new_tree();
        dialects[i](tree);
        drop(tree);
    }
    test_lies();
    test_long_names();
    test_cut_off();
    test_noise(2000);
    test_full_medium();
    cow_check_report report;
    MUST(cow_store_check(store, 1, NULL, NULL, &report));
    CHECK(report.errors == 0);
    MUST(cow_store_close(store));
    if (failures > 0) fprintf(stderr, "%u failures\n", failures);
    return failures > 0;
}
