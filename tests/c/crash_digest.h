/* SPDX-License-Identifier: Apache-2.0 */
/* A digest of everything that can be read from a store: names, attributes, xattrs, link structure, file content, per tree
 * id; and the counters of each tree. Two stores with the same digest are the same to any user. */
#ifndef CRASH_DIGEST_H
#define CRASH_DIGEST_H

#include "tree/store.h"

/* Returns 0 and the digest, or a negative errno value when anything could not be read. */
int digest_store(cow_store *store, uint64_t *digest_out);

#endif
