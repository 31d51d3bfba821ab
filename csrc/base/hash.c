/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash.c: XXH3-64 written out for the one length that the store hashes, 4096 bytes. In the words of the XXH3
 * specification (long inputs, 192-byte secret): a stripe is 64 bytes and moves 8 bytes on in the secret; 16
 * stripes make a block of 1024 bytes, after which the 8 accumulators are scrambled; the fourth block lacks the
 * scramble, and its last stripe meets another place of the secret. All of that is constant here, so there is no
 * branch on length or alignment. With AVX2 (asked at run time) two registers hold the accumulators; elsewhere plain
 * C does the same sums.
 */
#include "base/hash.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define HASH_AVX2 1
#include <immintrin.h>
#endif

#define STRIPE_BYTES 64u
#define LANES 8u
#define BLOCK_STRIPES 16u
#define BLOCKS (COW_BLOCK_BYTES / (STRIPE_BYTES * BLOCK_STRIPES))
#define SECRET_BYTES 192u
#define SECRET_STEP 8u
#define SECRET_SCRAMBLE (SECRET_BYTES - STRIPE_BYTES)
#define SECRET_LAST_STRIPE (SECRET_BYTES - STRIPE_BYTES - 7u)
#define SECRET_MERGE 11u

#define PRIME32_1 0x9E3779B1u
#define PRIME32_2 0x85EBCA77u
#define PRIME32_3 0xC2B2AE3Du
#define PRIME64_1 0x9E3779B185EBCA87u
#define PRIME64_2 0xC2B2AE3D27D4EB4Fu
#define PRIME64_3 0x165667B19E3779F9u
#define PRIME64_4 0x85EBCA77C2B2AE63u
#define PRIME64_5 0x27D4EB2F165667C5u
#define PRIME_AVALANCHE 0x165667919E3779F9u

_Static_assert(BLOCKS == 4, "the secret's schedule below is that of four blocks");

/* The specification's default secret. */
static const uint8_t secret[SECRET_BYTES] __attribute__((aligned(64))) = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c, 0xde, 0xd4,
    0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79, 0xe6, 0x4e,
    0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43,
    0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb,
    0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19,
    0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8, 0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7,
    0xc7, 0x0b, 0x4f, 0x1d, 0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78,
    0x73, 0x64, 0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e, 0x2b, 0x16,
    0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce, 0x45, 0xcb, 0x3a, 0x8f,
    0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

static const uint64_t lanes_start[LANES] __attribute__((aligned(64))) = {
    PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1,
};

static uint64_t multiply_fold(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t merge(const uint64_t lanes[LANES])
{
    uint64_t hash = COW_BLOCK_BYTES * PRIME64_1;

    for (unsigned i = 0; i < LANES; i += 2)
        hash += multiply_fold(lanes[i] ^ cow_load64(secret + SECRET_MERGE + 8 * i),
                              lanes[i + 1] ^ cow_load64(secret + SECRET_MERGE + 8 * i + 8));
    hash ^= hash >> 37;
    hash *= PRIME_AVALANCHE;
    return hash ^ (hash >> 32);
}

static inline void accumulate(uint64_t lanes[LANES], const uint8_t *stripe, const uint8_t *key)
{
    for (unsigned i = 0; i < LANES; i++) {
        uint64_t value = cow_load64(stripe + 8 * i);
        uint64_t keyed = value ^ cow_load64(key + 8 * i);
        lanes[i ^ 1u] += value;
        lanes[i] += (keyed & 0xffffffffu) * (keyed >> 32);
    }
}

static inline void scramble(uint64_t lanes[LANES])
{
    for (unsigned i = 0; i < LANES; i++) {
        lanes[i] ^= lanes[i] >> 47;
        lanes[i] ^= cow_load64(secret + SECRET_SCRAMBLE + 8 * i);
        lanes[i] *= PRIME32_1;
    }
}

uint64_t cow_hash_block_portable(const void *block)
{
    const uint8_t *stripe = block;
    uint64_t lanes[LANES];

    memcpy(lanes, lanes_start, sizeof lanes);
    for (unsigned b = 0; b < BLOCKS; b++) {
        unsigned stripes = b + 1 < BLOCKS ? BLOCK_STRIPES : BLOCK_STRIPES - 1;
        for (unsigned s = 0; s < stripes; s++, stripe += STRIPE_BYTES)
            accumulate(lanes, stripe, secret + SECRET_STEP * s);
        if (b + 1 < BLOCKS) scramble(lanes);
    }
    accumulate(lanes, stripe, secret + SECRET_LAST_STRIPE);
    return merge(lanes);
}

#ifdef HASH_AVX2

#define AVX2 __attribute__((target("avx2")))

static inline AVX2 __m256i load256(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

static inline AVX2 __m256i accumulate256(__m256i lanes, const uint8_t *stripe, const uint8_t *key)
{
    __m256i value = load256(stripe);
    __m256i keyed = _mm256_xor_si256(value, load256(key));
    __m256i product = _mm256_mul_epu32(keyed, _mm256_srli_epi64(keyed, 32));
    __m256i swapped = _mm256_shuffle_epi32(value, _MM_SHUFFLE(1, 0, 3, 2));
    return _mm256_add_epi64(product, _mm256_add_epi64(lanes, swapped));
}

/* There is no 64 x 32 bit multiplication, so the halves are multiplied one by one. */
static inline AVX2 __m256i scramble256(__m256i lanes, const uint8_t *key)
{
    const __m256i prime = _mm256_set1_epi32((int)PRIME32_1);
    __m256i mixed = _mm256_xor_si256(lanes, _mm256_srli_epi64(lanes, 47));
    __m256i keyed = _mm256_xor_si256(mixed, load256(key));
    __m256i low = _mm256_mul_epu32(keyed, prime);
    __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(keyed, 32), prime);
    return _mm256_add_epi64(low, _mm256_slli_epi64(high, 32));
}

static AVX2 uint64_t hash_block_avx2(const uint8_t *stripe)
{
    __m256i low = load256(lanes_start), high = load256(lanes_start + 4);
    uint64_t lanes[LANES] __attribute__((aligned(32)));

    for (unsigned b = 0; b < BLOCKS; b++) {
        unsigned stripes = b + 1 < BLOCKS ? BLOCK_STRIPES : BLOCK_STRIPES - 1;
        for (unsigned s = 0; s < stripes; s++, stripe += STRIPE_BYTES) {
            low = accumulate256(low, stripe, secret + SECRET_STEP * s);
            high = accumulate256(high, stripe + 32, secret + SECRET_STEP * s + 32);
        }
        if (b + 1 < BLOCKS) {
            low = scramble256(low, secret + SECRET_SCRAMBLE);
            high = scramble256(high, secret + SECRET_SCRAMBLE + 32);
        }
    }
    low = accumulate256(low, stripe, secret + SECRET_LAST_STRIPE);
    high = accumulate256(high, stripe + 32, secret + SECRET_LAST_STRIPE + 32);
    _mm256_store_si256((__m256i *)lanes, low);
    _mm256_store_si256((__m256i *)(lanes + 4), high);
    return merge(lanes);
}

#endif

uint64_t cow_hash_block(const void *block)
{
#ifdef HASH_AVX2
    if (__builtin_cpu_supports("avx2")) return hash_block_avx2(block);
#endif
    return cow_hash_block_portable(block);
}

/* ---- SipHash-1-3 ------------------------------------------------------------------------------- */

static inline uint64_t rotate(uint64_t value, unsigned bits)
{
    return (value << bits) | (value >> (64 - bits));
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

static inline void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
}

uint64_t cow_hash_name(const uint8_t key[16], const void *name, size_t name_bytes)
{
    const uint8_t *bytes = name;
    uint64_t k0 = cow_load64(key), k1 = cow_load64(key + 8);
    uint64_t v[4] = {k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du, k0 ^ 0x6c7967656e657261u,
                     k1 ^ 0x7465646279746573u};
    uint64_t last = (uint64_t)name_bytes << 56;
    size_t whole = name_bytes & ~(size_t)7;

    for (size_t i = 0; i < whole; i += 8)
        sip_word(v, cow_load64(bytes + i));
    for (size_t i = whole; i < name_bytes; i++)
        last |= (uint64_t)bytes[i] << (8 * (i - whole));
    sip_word(v, last);
    v[2] ^= 0xff;
    for (unsigned i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
