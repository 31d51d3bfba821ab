/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store whose medium returns something else than what was written. A small store with trees of every kind is made
 * once; each run damages a copy of it as the input says, opens it and uses everything. Any error is fine; a crash,
 * a failed assertion or a hang is not, and what is read without an error must be what was written.
 *
 * The first byte is the mode: bit 0, checksums are made right after the damage, as somebody who makes a store by hand
 * would (then only for reading, and any content is fine); bit 1, opened for writing and written to; bit 2, the
 * journal has been written home before. Then, 8 bytes each: file, operation, block, offset, value.
 */
#include "base/hash.h"
#include "dev/dev.h"
#include "store_kit.h"

#define TREES_MAX 16u
#define INOS_MAX 64u
#define DIRS_MAX 128u
#define READ_MAX (128u << 10)
#define WALK_BUDGET 4096u

struct image {
    struct cow_dev *sim;
    uint64_t events, generation;
    uint64_t hash[TREES_MAX][INOS_MAX]; /* of the content of each file; 0 = no file */
};
static struct image images[2];

static const char *const files[] = {"meta",           "journal.0",         "journal.1",         "space/table",
                                    "space/00000000", "space/00000001", "segments/00000001", "segments/00000002"};
#define FILE_COUNT (sizeof files / sizeof *files)

/* ---- The store as it was made ---- */

/* bytes: memory for a multiple of 4096, of which length count. */
static uint64_t hash_bytes(uint64_t hash, uint8_t *bytes, size_t length)
{
    memset(bytes + length, 0, -length % COW_BLOCK_BYTES);
    for (size_t at = 0; at < length; at += COW_BLOCK_BYTES) hash = hash * 0x100000001B3u + cow_hash_block(bytes + at);
    return hash + length;
}

static void fill_tree(cow_tree *tree)
{
    static uint8_t bytes[90000];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i / 4096 + i * 7);
    uint64_t dir = kit_make(tree, COW_ROOT_INO, "dir", S_IFDIR | 0755, NULL);
    uint64_t small = kit_make(tree, dir, "small", S_IFREG | 0644, NULL);
    KIT_MUST(cow_file_write(tree, small, 0, "content", 7));
    uint64_t large = kit_make(tree, dir, "large", S_IFREG | 0644, NULL);
    KIT_MUST(cow_file_write(tree, large, 0, bytes, sizeof bytes));
    KIT_MUST(cow_file_punch(tree, large, 8192, 4096));
    uint64_t far = kit_make(tree, COW_ROOT_INO, "far", S_IFREG | 0600, NULL);
    KIT_MUST(cow_file_write(tree, far, (uint64_t)1 << 40, bytes, 5000));
    KIT_MUST(cow_dir_link(tree, COW_ROOT_INO, "other", 5, large));
    (void)kit_make(tree, dir, "link", S_IFLNK | 0777, "../far");
    KIT_MUST(cow_xattr_set(tree, small, "user.name", 9, bytes, 300, 0));
    for (unsigned i = 0; i < 24; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "entry-number-%u-of-a-directory-that-has-many", i);
        (void)kit_make(tree, dir, name, S_IFREG | 0644, NULL);
    }
}

static uint64_t content_hash(cow_tree *tree, const cow_attr *attr, bool *whole_out)
{
    static uint8_t buffer[65536];
    uint64_t hash = 0xCBF29CE484222325u, end = attr->size_bytes < READ_MAX ? attr->size_bytes : READ_MAX;
    *whole_out = true;
    for (uint64_t at = 0; at < end;) {
        int64_t n = cow_file_read(tree, attr->ino, at, buffer, sizeof buffer);
        if (n <= 0) {
            *whole_out = false;
            break;
        }
        hash = hash_bytes(hash, buffer, (size_t)n);
        at += (uint64_t)n;
    }
    if (attr->size_bytes > READ_MAX) {
        int64_t n = cow_file_read(tree, attr->ino, attr->size_bytes - 5000, buffer, 5000);
        if (n < 0) *whole_out = false;
        else hash = hash_bytes(hash, buffer, (size_t)n);
    }
    return hash;
}

static void make_image(struct image *image, bool checkpointed)
{
    cow_store *store;
    cow_tree *tree, *fork, *snapshot, *gone;
    uint64_t ino;
    KIT_MUST(cow_dev_sim_open(&image->sim));
    image->sim->fixed_seed = 1;
    cow_dev_sim_hold(image->sim);
    KIT_MUST(cow_store_open_dev(image->sim, &kit_options, &store));
    struct cow_tuning tuning = {.journal_pages = checkpointed ? 1 : 0};
    cow_store_tune(store, &tuning);
    KIT_MUST(cow_tree_create(store, 0, &tree));
    fill_tree(tree);
    KIT_MUST(cow_store_commit(store));
    KIT_MUST(cow_tree_fork(tree, COW_FORK_BASE, &fork));
    KIT_MUST(cow_path_walk(fork, COW_ROOT_INO, "/dir/large", 10, 0, &ino, NULL));
    KIT_MUST(cow_file_write(fork, ino, 20000, "changed", 7));
    KIT_MUST(cow_tree_fork(fork, COW_FORK_SEALED, &snapshot));
    KIT_MUST(cow_dir_remove(fork, COW_ROOT_INO, "far", 3, COW_REMOVE_FILE));
    KIT_MUST(cow_tree_fork(tree, COW_FORK_TEMP, &gone));
    KIT_MUST(cow_store_commit(store));
    KIT_MUST(cow_store_commit(store));
    image->generation = store->super.generation;
    cow_tree *all[] = {tree, fork, snapshot, gone};
    for (unsigned i = 0; i < 4; i++) {
        for (uint64_t n = 1; n < INOS_MAX; n++) {
            cow_attr attr;
            bool whole;
            if (cow_inode_stat(all[i], n, &attr) || !S_ISREG(attr.mode)) continue;
            image->hash[all[i]->id][n] = content_hash(all[i], &attr, &whole);
            FUZZ_CHECK(whole);
        }
        cow_tree_close(all[i]);
    }
    image->events = cow_dev_sim_events(image->sim);
    cow_store_abandon(store);
}

/* ---- Damage ---- */

static uint64_t size_of(struct cow_dev_file *file)
{
    uint64_t bytes = 0;
    KIT_MUST(file->dev->ops->size(file, &bytes));
    return bytes;
}

static void read_block(struct cow_dev_file *file, uint64_t block, uint8_t *buffer)
{
    memset(buffer, 0, COW_BLOCK_BYTES);
    KIT_MUST(cow_dev_read(file, block * COW_BLOCK_BYTES, buffer, COW_BLOCK_BYTES));
}

static void seal_page(uint8_t *page)
{
    if (memcmp(page, "PYCOW\0PG", 8) != 0 && memcmp(page, "PYCOW\0JB", 8) != 0) return;
    cow_store64(page + 32, 0);
    cow_store64(page + 32, cow_hash_block(page));
}

/* Every record of a block, wherever one is kept, gets the sum of what the block holds now. */
static void seal_records(struct cow_dev *dev, uint32_t segment, uint64_t block, uint64_t sum)
{
    uint8_t page[COW_BLOCK_BYTES];
    for (unsigned i = 1; i <= 5; i++) {
        struct cow_dev_file *file;
        if (i == 3 || cow_dev_open(dev, files[i], 0, &file)) continue;
        uint64_t count = size_of(file) / COW_BLOCK_BYTES;
        for (uint64_t n = 0; n < count; n++) {
            read_block(file, n, page);
            if (memcmp(page, "PYCOW\0PG", 8) != 0 || cow_load16(page + 10) != COW_PAGE_RECORDS ||
                cow_load32(page + 12) != segment || cow_load32(page + 16) != block >> COW_CHUNK_SHIFT)
                continue;
            uint8_t *record = page + COW_PAGE_HEADER_BYTES + (block % COW_CHUNK_BLOCKS) * 15;
            for (unsigned b = 0; b < 6; b++) record[b] = (uint8_t)(sum >> (8 * b));
            seal_page(page);
            KIT_MUST(cow_dev_write(file, n * COW_BLOCK_BYTES, page, sizeof page));
        }
        cow_dev_close(file);
    }
}

static void reseal(struct cow_dev *dev, unsigned which, uint64_t block, uint8_t *bytes)
{
    if (which == 0 && block < 2) {
        /* Counts of segments and blocks that a superblock made by hand gives, up to 2^32, only cost time in check. */
        if (cow_load32(bytes + 112) > 4096) cow_store32(bytes + 112, cow_load32(bytes + 112) % 4096);
        if (cow_load64(bytes + 160) > 65536) cow_store64(bytes + 160, cow_load64(bytes + 160) % 65536);
        cow_store64(bytes + 16, 0);
        cow_store64(bytes + 16, cow_hash_block(bytes));
    } else if (which == 0) {
        seal_records(dev, 0, block, cow_hash_block(bytes));
    } else if (which >= 6) {
        seal_records(dev, which - 5, block, cow_hash_block(bytes));
    } else {
        seal_page(bytes);
    }
}

static void cut_file(struct cow_dev *dev, unsigned which, struct cow_dev_file **file, uint64_t blocks)
{
    uint8_t *kept = malloc((size_t)blocks * COW_BLOCK_BYTES + 1);
    FUZZ_CHECK(kept != NULL);
    KIT_MUST(cow_dev_read(*file, 0, kept, (size_t)blocks * COW_BLOCK_BYTES));
    cow_dev_close(*file);
    KIT_MUST(cow_dev_open(dev, files[which], COW_DEV_TRUNCATE, file));
    if (blocks) KIT_MUST(cow_dev_write(*file, 0, kept, (size_t)blocks * COW_BLOCK_BYTES));
    free(kept);
}

/* What is in use of a node is a small part of it: a byte, or eight, of an item's value, or of its key. */
static void change_item(uint8_t *node, unsigned operation, unsigned index, unsigned value)
{
    unsigned count = cow_node_count(node);
    if (cow_load32(node) != COW_NODE_MAGIC || count == 0) return;
    bool leaf = cow_node_level(node) == 0;
    uint8_t *at = node + COW_NODE_HEADER_BYTES + (size_t)(index % count) * (leaf ? COW_SLOT_BYTES : COW_ENTRY_BYTES);
    unsigned length = 16;
    if (!leaf && operation != 8) {
        at += 16;
    } else if (operation != 8) {
        length = cow_load16(at + 18);
        at = node + cow_load16(at + 16);
    }
    if (length == 0) return;
    unsigned place = (value >> 8) % length;
    if (operation == 11) memset(at + place, value & 1 ? 0xff : 0, length - place < 8 ? length - place : 8);
    else at[place] = (uint8_t)value;
}

static void damage(struct cow_dev *dev, struct fuzz_input *input, bool sealed)
{
    unsigned which = fuzz_take8(input) % FILE_COUNT, operation = fuzz_take8(input) % 12;
    uint64_t block = fuzz_take16(input);
    unsigned offset = fuzz_take16(input) % COW_BLOCK_BYTES, value = fuzz_take16(input);
    struct cow_dev_file *file;
    if (cow_dev_open(dev, files[which], 0, &file)) return;
    uint64_t count = size_of(file) / COW_BLOCK_BYTES;
    if (count == 0) {
        cow_dev_close(file);
        return;
    }
    block %= count;
    uint8_t bytes[COW_BLOCK_BYTES];
    read_block(file, block, bytes);
    unsigned width = COW_BLOCK_BYTES - offset < 8 ? COW_BLOCK_BYTES - offset : 8;
    switch (operation) {
    case 0:
    case 1: bytes[offset] = (uint8_t)value; break;
    case 2: bytes[offset] ^= (uint8_t)(1u << (value % 8)); break;
    case 3: memset(bytes + offset, value & 1 ? 0xff : 0, width); break;
    case 4: memset(bytes, value & 1 ? 0xff : 0, sizeof bytes); break;
    case 5: read_block(file, value % count, bytes); break;
    case 6: memset(bytes + offset / 512 * 512, (int)value & 0xff, 512); break;
    case 7: break;
    default: change_item(bytes, operation, offset, value);
    }
    if (operation == 7) {
        cut_file(dev, which, &file, block);
    } else {
        if (sealed) reseal(dev, which, block, bytes);
        KIT_MUST(cow_dev_write(file, block * COW_BLOCK_BYTES, bytes, sizeof bytes));
    }
    cow_dev_close(file);
}

/* ---- Using everything ---- */

struct use {
    cow_store *store;
    const struct image *image; /* NULL = any content is fine */
    uint64_t dirs[DIRS_MAX];
    unsigned dir_count, budget;
};

static void use_inode(struct use *use, cow_tree *tree, uint64_t ino)
{
    static char text[65536];
    cow_attr attr;
    cow_extent extents[16];
    size_t bytes;
    if (cow_inode_stat(tree, ino, &attr)) return;
    (void)cow_path_of(tree, ino, text, sizeof text, &bytes);
    int64_t n = cow_xattr_list(tree, ino, text, sizeof text);
    char value[COW_XATTR_VALUE_BYTES_MAX];
    for (int64_t at = 0; at < n; at += (int64_t)strlen(text + at) + 1)
        (void)cow_xattr_get(tree, ino, text + at, strlen(text + at), value, sizeof value);
    (void)cow_symlink_read(tree, ino, text, sizeof text);
    if (!S_ISREG(attr.mode)) return;
    (void)cow_file_extents(tree, ino, 0, extents, 16);
    (void)cow_file_seek(tree, ino, 0, COW_SEEK_HOLE);
    (void)cow_file_seek(tree, ino, 4096, COW_SEEK_DATA);
    bool whole;
    uint64_t hash = content_hash(tree, &attr, &whole);
    if (use->image && whole && tree->id < TREES_MAX && ino < INOS_MAX && use->store->super.generation == use->image->generation)
        FUZZ_CHECK(hash == use->image->hash[tree->id][ino]);
}

static void use_dir(struct use *use, cow_tree *tree, uint64_t dir)
{
    static uint64_t buffer[1024];
    uint64_t cookie = 0;
    int64_t n;
    while (use->budget && (n = cow_dir_read(tree, dir, cookie, COW_READ_ATTR, buffer, sizeof buffer)) > 0) {
        for (int64_t at = 0; at < n && use->budget; use->budget--) {
            const cow_dir_entry *entry = (const cow_dir_entry *)((const char *)buffer + at);
            uint64_t ino;
            FUZZ_CHECK(entry->record_bytes >= sizeof *entry && at + entry->record_bytes <= n);
            (void)cow_dir_lookup(tree, dir, (const char *)(entry + 1), entry->name_bytes, &ino, NULL);
            use_inode(use, tree, entry->ino);
            if (S_ISDIR(entry->mode) && use->dir_count < DIRS_MAX) use->dirs[use->dir_count++] = entry->ino;
            cookie = entry->cookie;
            at += entry->record_bytes;
        }
    }
}

static void use_streams(cow_tree *old_tree, cow_tree *tree)
{
    static uint8_t buffer[65536];
    cow_diff *diff;
    cow_tar *tar;
    if (cow_diff_open(old_tree, tree, &diff) == 0) {
        for (unsigned i = 0; i < 64 && cow_diff_read(diff, buffer, sizeof buffer) > 0; i++) continue;
        cow_diff_close(diff);
    }
    if (cow_tar_open(old_tree, tree, &tar) == 0) {
        for (unsigned i = 0; i < 64 && cow_tar_read(tar, buffer, sizeof buffer) > 0; i++) continue;
        cow_tar_close(tar);
    }
}

static void use_tree(struct use *use, cow_tree *tree)
{
    cow_tree_info info;
    cow_tree_usage usage;
    uint64_t ino;
    (void)cow_tree_get_info(tree, &info);
    (void)cow_tree_get_usage(tree, &usage);
    (void)cow_path_walk(tree, COW_ROOT_INO, "/dir/link", 9, 0, &ino, NULL);
    use->dir_count = 1;
    use->dirs[0] = COW_ROOT_INO;
    for (unsigned i = 0; i < use->dir_count; i++) use_dir(use, tree, use->dirs[i]);
}

static void write_tree(cow_tree *tree)
{
    static const uint8_t bytes[9000] = {7};
    cow_attr attr = {.mode = S_IFREG | 0600};
    uint64_t ino;
    cow_tree *fork;
    if (cow_dir_make(tree, COW_ROOT_INO, "new", 3, &attr, NULL, 0, &ino) == 0)
        (void)cow_file_write(tree, ino, 100, bytes, sizeof bytes);
    if (cow_path_walk(tree, COW_ROOT_INO, "/dir/large", 10, 0, &ino, NULL) == 0) {
        (void)cow_file_write(tree, ino, 3000, bytes, sizeof bytes);
        (void)cow_file_truncate(tree, ino, 30001);
        (void)cow_xattr_set(tree, ino, "user.x", 6, "y", 1, 0);
    }
    (void)cow_dir_rename(tree, COW_ROOT_INO, "other", 5, COW_ROOT_INO, "moved", 5, 0);
    if (cow_tree_fork(tree, COW_FORK_BASE, &fork) == 0) cow_tree_close(fork);
    (void)cow_dir_remove(tree, COW_ROOT_INO, "dir", 3, COW_REMOVE_TREE);
}

static void use_store(struct use *use, bool writing)
{
    cow_tree *before = NULL, *tree;
    for (uint64_t id = 1; id < TREES_MAX; id++) {
        if (cow_tree_open(use->store, id, &tree)) continue;
        use_tree(use, tree);
        use_streams(before, tree);
        if (before) cow_tree_close(before);
        before = tree;
    }
    if (before) cow_tree_close(before);
    cow_check_report report;
    if (!writing) (void)cow_store_check(use->store, 1, NULL, NULL, &report);
    for (uint64_t id = 1; writing && id < 8; id++) {
        if (cow_tree_open(use->store, id, &tree)) continue;
        write_tree(tree);
        if (id == 3) (void)cow_tree_delete(tree);
        cow_tree_close(tree);
    }
    cow_stats stats;
    (void)cow_store_stats(use->store, &stats);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!images[0].sim) {
        make_image(&images[0], false);
        make_image(&images[1], true);
    }
    struct fuzz_input input = {data, size};
    unsigned mode = fuzz_take8(&input);
    bool sealed = mode & 1, writing = (mode & 2) && !sealed;
    const struct image *image = &images[mode >> 2 & 1];
    struct cow_dev *dev;
    KIT_MUST(cow_dev_sim_crash(image->sim, image->events, 1, &dev));
    for (unsigned i = 0; i < 16 && input.left; i++) damage(dev, &input, sealed);
    cow_options options = kit_options;
    options.flags = writing ? 0 : COW_OPEN_READONLY;
    struct use use = {.image = sealed ? NULL : image, .budget = WALK_BUDGET};
    if (cow_store_open_dev(dev, &options, &use.store)) return 0;
    use_store(&use, writing);
    (void)cow_store_close(use.store);
    return 0;
}
