/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every decoder of csrc/format. The first byte says which; the rest is what it gets, with checksums made right, so that
 * the input gets past them. What a decoder accepts must encode to the same bytes: then nothing was overlooked.
 */
#include "base/hash.h"
#include "format/format.h"
#include "fuzz.h"

static uint8_t *block_of(struct fuzz_input *input)
{
    uint8_t *block = malloc(COW_BLOCK_BYTES);
    FUZZ_CHECK(block != NULL);
    fuzz_take(input, block, COW_BLOCK_BYTES);
    return block;
}

static void reseal(uint8_t *block, size_t at)
{
    cow_store64(block + at, 0);
    cow_store64(block + at, cow_hash_block(block));
}

static void try_super(struct fuzz_input *input)
{
    uint8_t *block = block_of(input), again[COW_BLOCK_BYTES];
    memcpy(block, "PYCOW\0SB", 8);
    reseal(block, 16);
    struct cow_super super;
    if (cow_super_decode(block, &super) == 0) {
        cow_super_encode(&super, again);
        FUZZ_CHECK(memcmp(block, again, sizeof again) == 0);
    }
    free(block);
}

/* ---- Nodes: whatever is valid must stay so while items come and go. ---- */

static void change_leaf(struct fuzz_input *input, uint8_t *node)
{
    static const uint8_t value[COW_VALUE_BYTES_MAX];
    for (unsigned steps = 0; input->left && steps < 64; steps++) {
        unsigned what = fuzz_take8(input) % 3, bytes = fuzz_take16(input) % (COW_VALUE_BYTES_MAX + 1);
        struct cow_key key = {fuzz_take8(input) + 1u, fuzz_take64(input)};
        unsigned count = cow_node_count(node), index = cow_entry_find(node, key);
        bool found;
        index = cow_leaf_find(node, key, &found);
        if (what == 0 && !found && cow_leaf_room(node) >= bytes + COW_SLOT_BYTES)
            cow_leaf_insert(node, index, key, value, bytes);
        else if (what == 1 && index < count && cow_leaf_room(node) + cow_leaf_length(node, index) >= bytes)
            cow_leaf_replace(node, index, value, bytes);
        else if (what == 2 && index < count)
            cow_leaf_remove(node, index);
        FUZZ_CHECK(cow_node_validate(node, cow_node_addr(node), cow_node_generation(node)) == 0);
    }
}

static void look_at_node(const uint8_t *node)
{
    unsigned count = cow_node_count(node), sum = 0;
    for (unsigned i = 0; i < count; i++) {
        bool found = true;
        if (cow_node_level(node) == 0) {
            FUZZ_CHECK(cow_leaf_find(node, cow_leaf_key(node, i), &found) == i);
            const uint8_t *value = cow_leaf_value(node, i);
            for (unsigned n = 0; n < cow_leaf_length(node, i); n++) sum += value[n];
        } else {
            FUZZ_CHECK(cow_entry_find(node, cow_entry_key(node, i)) == i);
        }
        FUZZ_CHECK(found);
    }
    FUZZ_CHECK(sum != 1 || count > 0);
    FUZZ_CHECK(cow_node_used(node) <= COW_NODE_CAPACITY);
}

static void try_node(struct fuzz_input *input)
{
    bool proper = fuzz_take8(input) & 1;
    size_t header = fuzz_take16(input) % 1024;
    uint8_t *node = malloc(COW_BLOCK_BYTES);
    FUZZ_CHECK(node != NULL);
    memset(node, 0, COW_BLOCK_BYTES);
    fuzz_take(input, node, header);
    if (proper) {
        cow_store32(node, COW_NODE_MAGIC);
        cow_store16(node + 4, COW_FORMAT_VERSION);
        node[6] = (uint8_t)(node[6] % 3);
        cow_store64(node + 16, 16 + node[16]);
        cow_store64(node + 24, 1 + node[24]);
        memset(node + 32, 0, 32);
    }
    if (cow_node_validate(node, cow_node_addr(node), cow_node_generation(node)) == 0) {
        look_at_node(node);
        if (cow_node_level(node) == 0) change_leaf(input, node);
        look_at_node(node);
    }
    free(node);
}

/* ---- Pages and batches ---- */

static void try_page(struct fuzz_input *input)
{
    uint8_t *page = block_of(input);
    memcpy(page, "PYCOW\0PG", 8);
    cow_store16(page + 8, 1);
    cow_store16(page + 10, (uint16_t)(1 + page[10] % 3));
    reseal(page, 32);
    struct cow_page_id id;
    uint64_t generation, again;
    if (cow_page_identify(page, &id, &generation) == 0) {
        uint8_t copy[COW_PAGE_BYTES];
        void *body = malloc(cow_page_body_bytes(id.kind));
        FUZZ_CHECK(body != NULL);
        if (cow_page_decode(page, &id, body, &again) == 0) {
            FUZZ_CHECK(again == generation);
            cow_page_encode(&id, generation, body, copy);
            FUZZ_CHECK(memcmp(page, copy, sizeof copy) == 0);
        }
        free(body);
    }
    free(page);
}

static void try_batch(struct fuzz_input *input)
{
    uint8_t *page = block_of(input), again[COW_PAGE_BYTES];
    memcpy(page, "PYCOW\0JB", 8);
    reseal(page, 32);
    struct cow_batch batch;
    if (cow_batch_decode(page, &batch) == 0) {
        cow_batch_encode(&batch, again);
        FUZZ_CHECK(memcmp(page, again, sizeof again) == 0);
    }
    free(page);
}

/* ---- Values ---- */

static void try_fixed(unsigned which, const uint8_t *bytes, size_t length)
{
    uint8_t again[256];
    size_t wanted = 0;
    struct cow_run run;
    struct cow_inode inode;
    struct cow_tree_record record;
    uint64_t a, b;
    cow_addr addr;
    if (which == 0 && cow_run_decode(bytes, length, &run) == 0) {
        cow_run_encode(&run, again);
        wanted = COW_RUN_BYTES;
    } else if (which == 1 && cow_inode_decode(7, bytes, length, &inode) == 0) {
        cow_inode_encode(&inode, again);
        wanted = COW_INODE_BYTES;
    } else if (which == 2 && cow_link_decode(bytes, length, &a, &b) == 0) {
        cow_link_encode(a, b, again);
        wanted = COW_LINK_BYTES;
    } else if (which == 3 && cow_tree_record_decode(bytes, length, &record) == 0) {
        cow_tree_record_encode(&record, again);
        wanted = COW_TREE_RECORD_BYTES;
    } else if (which == 4 && cow_dead_decode(bytes, length, &addr, &b) == 0) {
        cow_dead_encode(addr, b, again);
        wanted = COW_DEAD_BYTES;
    }
    FUZZ_CHECK(wanted == 0 || (length == wanted && memcmp(bytes, again, wanted) == 0));
}

static void try_buckets(const uint8_t *bytes, size_t length)
{
    uint8_t again[3 + 255 + 65535];
    struct cow_dirent dirent;
    struct cow_xattr xattr;
    size_t at = 0, before = 0;
    for (; cow_dirent_next(bytes, length, &at, &dirent) == 1; before = at) {
        FUZZ_CHECK(at > before && at <= length);
        FUZZ_CHECK(cow_dirent_encode(&dirent, again) == at - before && memcmp(again, bytes + before, at - before) == 0);
    }
    for (at = before = 0; cow_xattr_next(bytes, length, &at, &xattr) == 1; before = at) {
        FUZZ_CHECK(at > before && at <= length);
        FUZZ_CHECK(cow_xattr_encode(&xattr, again) == at - before && memcmp(again, bytes + before, at - before) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    unsigned which = fuzz_take8(&input) % 10;
    if (which == 0) {
        try_super(&input);
    } else if (which == 1) {
        try_node(&input);
    } else if (which == 2) {
        try_page(&input);
    } else if (which == 3) {
        try_batch(&input);
    } else {
        size_t length;
        uint8_t *bytes = fuzz_rest(&input, &length);
        cow_addr addr;
        uint32_t count;
        if (which < 9) try_fixed(which - 4, bytes, length);
        if (which == 9) try_buckets(bytes, length);
        (void)cow_item_run(cow_key_make(5, COW_ITEM_EXTENT, 0), bytes, length, &addr, &count);
        free(bytes);
    }
    return 0;
}
