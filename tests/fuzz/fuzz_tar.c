/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cow_untar with whatever bytes. The first byte says how: in which pieces, as a layer or not, and whether the checksums
 * of what looks like headers are made right first. The tree has content that the archive may replace or hide. Whatever
 * comes, the store stays whole; what was accepted can be written as a tar again, and that one applied.
 */
#include "fuzz.h"
#include "store_kit.h"

static cow_store *store;
static cow_tree *base;

static void prepare(void)
{
    if (store) return;
    store = kit_open_memory();
    KIT_MUST(cow_tree_create(store, 0, &base));
    uint64_t etc = kit_make(base, COW_ROOT_INO, "etc", S_IFDIR | 0755, NULL);
    uint64_t file = kit_make(base, etc, "hosts", S_IFREG | 0644, NULL);
    KIT_MUST(cow_file_write(base, file, 0, "localhost", 9));
    KIT_MUST(cow_dir_link(base, COW_ROOT_INO, "link", 4, file));
    (void)kit_make(base, COW_ROOT_INO, "up", S_IFLNK | 0777, "../../etc");
    file = kit_make(base, COW_ROOT_INO, "large", S_IFREG | 0644, NULL);
    static const uint8_t bytes[20000] = {1};
    KIT_MUST(cow_file_write(base, file, 0, bytes, sizeof bytes));
    KIT_MUST(cow_xattr_set(base, file, "user.a", 6, "b", 1, 0));
}

/* Every 512 bytes that call themselves ustar get the sum that a header has. */
static void fix_sums(uint8_t *bytes, size_t length)
{
    for (size_t at = 0; at + 512 <= length; at += 512) {
        uint8_t *block = bytes + at;
        if (memcmp(block + 257, "ustar", 5) != 0) continue;
        unsigned sum = 0;
        memset(block + 148, ' ', 8);
        for (unsigned i = 0; i < 512; i++) sum += block[i];
        char text[8];
        (void)snprintf(text, sizeof text, "%06o", sum & 0777777);
        memcpy(block + 148, text, 7);
    }
}

static int apply(cow_tree *tree, const uint8_t *bytes, size_t length, size_t step, uint32_t flags)
{
    cow_untar *untar;
    cow_untar_result result;
    int rc = cow_untar_open(tree, flags, &untar);
    FUZZ_CHECK(rc == 0);
    for (size_t at = 0; at < length && rc == 0; at += step)
        rc = cow_untar_feed(untar, bytes + at, length - at < step ? length - at : step);
    if (rc == 0) rc = cow_untar_finish(untar, &result);
    cow_untar_close(untar);
    return rc;
}

/* Writes the tree as a tar and applies that to an empty tree. */
static void there_and_back(cow_tree *tree)
{
    static uint8_t buffer[16384];
    cow_tar *tar;
    cow_tree *copy;
    cow_untar *untar;
    uint64_t total = 0;
    KIT_MUST(cow_tree_create(store, COW_FORK_TEMP, &copy));
    KIT_MUST(cow_untar_open(copy, 0, &untar));
    KIT_MUST(cow_tar_open(NULL, tree, &tar));
    int64_t n;
    while ((n = cow_tar_read(tar, buffer, sizeof buffer)) > 0 && total < 4u << 20) {
        KIT_MUST(cow_untar_feed(untar, buffer, (size_t)n));
        total += (uint64_t)n;
    }
    FUZZ_CHECK(n >= 0);
    cow_tar_close(tar);
    cow_untar_result result;
    if (n == 0) KIT_MUST(cow_untar_finish(untar, &result));
    cow_untar_close(untar);
    KIT_MUST(cow_tree_delete(copy));
    cow_tree_close(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t steps[] = {1u << 20, 512, 700, 13};
    static unsigned runs;
    struct fuzz_input input = {data, size};
    prepare();
    unsigned how = fuzz_take8(&input);
    size_t length;
    uint8_t *bytes = fuzz_rest(&input, &length);
    if (how & 4) fix_sums(bytes, length);
    cow_tree *tree;
    KIT_MUST(cow_tree_fork(base, COW_FORK_BASE | COW_FORK_TEMP, &tree));
    int rc = apply(tree, bytes, length, steps[how & 3], how & 8 ? COW_UNTAR_LAYER : 0);
    FUZZ_CHECK(rc == 0 || rc == -EBADMSG || rc == -ENOSPC || rc == -EFBIG);
    if (rc == 0) there_and_back(tree);
    if (rc == 0) kit_check(store);
    KIT_MUST(cow_tree_delete(tree));
    cow_tree_close(tree);
    if (++runs % 64 == 0) kit_check(store);
    if (runs % 256 == 0) KIT_MUST(cow_store_commit(store));
    free(bytes);
    return 0;
}
