/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/: hashes against values of other implementations, error details per thread, byte order.
 *
 *   test_base         the tests
 *   test_base speed   GB/s of the block hash
 */
#include "test.h"

#include "base/common.h"
#include "base/hash.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* xxh3_64_intdigest of the xxhash package 3.x/4.x. */
static void test_hash_block_golden(void)
{
    static const uint64_t filled[] = {0x2d14521771efe695, 0xc4ba026b3ac3f5ac, 0x903048f97d2a11db};
    uint8_t block[COW_BLOCK_BYTES];

    memset(block, 0, sizeof block);
    CHECK_EQ(cow_hash_block(block), 0x93d76fe148c689ba);
    CHECK_EQ(cow_hash_block_portable(block), 0x93d76fe148c689ba);
    memset(block, 255, sizeof block);
    CHECK_EQ(cow_hash_block(block), 0x074cfac273851dd6);
    for (unsigned i = 0; i < sizeof block; i++)
        block[i] = (uint8_t)(i * 7 + (i >> 8) * 13);
    CHECK_EQ(cow_hash_block(block), 0xd369ccdd2fdab183);
    for (unsigned i = 0; i < 3; i++) {
        test_fill(block, sizeof block, i + 1);
        CHECK_EQ(cow_hash_block(block), filled[i]);
        CHECK_EQ(cow_hash_block_portable(block), filled[i]);
    }
}

static void test_hash_block_paths_agree(void)
{
    static uint8_t room[COW_BLOCK_BYTES + 64];

    for (unsigned i = 0; i < 300; i++) { /* at any alignment */
        uint8_t *block = room + i % 64;
        test_fill(block, COW_BLOCK_BYTES, 1000 + i);
        uint64_t hash = cow_hash_block(block);
        CHECK_EQ(hash, cow_hash_block_portable(block));
        block[(i * 997) % COW_BLOCK_BYTES] ^= (uint8_t)(1u << (i % 8)); /* each bit matters */
        CHECK(cow_hash_block(block) != hash);
    }
}

/* Key 00 01 .. 0f, name 00 01 ..; checked with the bytes hash of CPython 3.11, which is SipHash-1-3 too. */
static void test_hash_name_golden(void)
{
    static const struct {
        size_t length;
        uint64_t hash;
    } cases[] = {
        {0, 0xabac0158050fc4dc}, {1, 0xc9f49bf37d57ca93},  {7, 0xd3927d989bb11140},  {8, 0x369095118d299a8e},
        {9, 0x25a48eb36c063de4}, {15, 0xd320d86d2a519956}, {63, 0x9d199062b7bbb3a8},
    };
    uint8_t key[16], name[64];

    for (uint8_t i = 0; i < 16; i++)
        key[i] = i;
    for (uint8_t i = 0; i < 64; i++)
        name[i] = i;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_EQ(cow_hash_name(key, name, cases[i].length), cases[i].hash);
    key[15] ^= 1;
    CHECK(cow_hash_name(key, name, 8) != 0x369095118d299a8e);
}

static void test_error_detail(void)
{
    char long_text[600];

    cow_error_clear();
    CHECK(strcmp(cow_error_detail(), "") == 0);
    CHECK_EQ(cow_fail(EINVAL, "block %u", 7u), -EINVAL);
    CHECK(strcmp(cow_error_detail(), "block 7") == 0);
    CHECK_EQ(cow_fail(EIO, "commit: %s", cow_error_detail()), -EIO); /* it may quote the former one */
    CHECK(strcmp(cow_error_detail(), "commit: block 7") == 0);
    memset(long_text, 'x', sizeof long_text);
    long_text[sizeof long_text - 1] = 0;
    (void)cow_fail(EIO, "%s", long_text);
    CHECK_EQ(strlen(cow_error_detail()), 255);
    cow_error_clear();
    CHECK(strcmp(cow_error_detail(), "") == 0);
    CHECK(strcmp(cow_version(), "0.1.0") == 0);
}

static void *other_thread(void *context)
{
    (void)context;
    CHECK(strcmp(cow_error_detail(), "") == 0);
    (void)cow_fail(EIO, "of the other thread");
    CHECK(strcmp(cow_error_detail(), "of the other thread") == 0);
    return NULL;
}

static void test_error_detail_is_per_thread(void)
{
    pthread_t thread;

    (void)cow_fail(EIO, "of this thread");
    CHECK_EQ(pthread_create(&thread, NULL, other_thread, NULL), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK(strcmp(cow_error_detail(), "of this thread") == 0);
}

static void test_assert_stops(void)
{
    int status = 0;
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        (void)fclose(stderr);
        signal(SIGABRT, SIG_DFL);
        COW_ASSERT(1 + 1 == 2);
        COW_ASSERT(1 + 1 == 3);
        _exit(0);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void test_bytes_and_addresses(void)
{
    uint8_t bytes[9] = {0};

    cow_store64(bytes + 1, 0x0807060504030201u);
    for (unsigned i = 1; i < 9; i++)
        CHECK_EQ(bytes[i], i);
    CHECK_EQ(cow_load64(bytes + 1), 0x0807060504030201u);
    CHECK_EQ(cow_load32(bytes + 1), 0x04030201u);
    CHECK_EQ(cow_load16(bytes + 3), 0x0403u);
    cow_addr addr = cow_addr_make(0xfffffffeu, 0xfffffffdu);
    CHECK_EQ(cow_addr_segment(addr), 0xfffffffeu);
    CHECK_EQ(cow_addr_block(addr), 0xfffffffdu);
    CHECK(cow_now_ns() > 1700000000LL * 1000000000);
}

static double speed_of(uint64_t (*hash)(const void *block))
{
    static uint8_t blocks[64][COW_BLOCK_BYTES] __attribute__((aligned(64)));
    volatile uint64_t sink = 0;
    double best = 0;

    for (unsigned i = 0; i < 64; i++)
        test_fill(blocks[i], COW_BLOCK_BYTES, i);
    for (unsigned round = 0; round < 5; round++) {
        struct timespec start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        for (unsigned i = 0; i < 64 * 1000; i++)
            sink = sink + hash(blocks[i % 64]);
        clock_gettime(CLOCK_MONOTONIC, &end);
        double ns = (double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec);
        double gigabytes = 64 * 1000.0 * COW_BLOCK_BYTES / ns;
        if (gigabytes > best) best = gigabytes;
    }
    return best;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "speed") == 0) {
        printf("block hash: %.1f GB/s, portable %.1f GB/s\n", speed_of(cow_hash_block),
               speed_of(cow_hash_block_portable));
        return 0;
    }
    RUN(test_hash_block_golden);
    RUN(test_hash_block_paths_agree);
    RUN(test_hash_name_golden);
    RUN(test_error_detail);
    RUN(test_error_detail_is_per_thread);
    RUN(test_assert_stops);
    RUN(test_bytes_and_addresses);
    return TEST_RESULT();
}
