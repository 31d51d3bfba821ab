/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash.h: the two hashes of the store.
 *
 * cow_hash_block: XXH3-64 (Yann Collet's XXH3 specification, default secret, seed 0) of exactly one
 * 4096-byte block; the tests compare it with the xxhash package.
 * cow_hash_name: SipHash-1-3 (Aumasson and Bernstein, 2012) under the store's own key, so that nobody
 * can craft names that collide in a directory.
 */
#ifndef COW_HASH_H
#define COW_HASH_H

#include "base/common.h"

uint64_t cow_hash_block(const void *block);
uint64_t cow_hash_block_portable(const void *block); /* the same without vector code; tests compare the two */
uint64_t cow_hash_name(const uint8_t key[16], const void *name, size_t name_bytes);

#endif
