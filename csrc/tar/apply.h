/* SPDX-License-Identifier: Apache-2.0 */
/*
 * apply.h: puts the members of an archive into a tree, by the rules for layers: paths never lead through a symlink,
 * what stands in the way is replaced (directories are merged), whiteouts hide what came from below and never what the
 * same archive made. The directories' mtimes are right after finish. Errors of the tree come back as they are; refusals
 * are -EBADMSG with a detail. After an error only close is allowed.
 *
 * Inode numbers of a tree only grow: what has a number from the archive's first one on was made by the archive.
 */
#ifndef COW_TAR_APPLY_H
#define COW_TAR_APPLY_H

#include "tar/member.h"

struct cow_apply;

int cow_apply_open(cow_tree *tree, uint32_t flags, struct cow_apply **apply_out); /* flags: COW_UNTAR_* */
void cow_apply_close(struct cow_apply *apply);

enum cow_apply_kind { COW_APPLY_MADE, COW_APPLY_WHITEOUT, COW_APPLY_SKIPPED };
/* Makes the member without its content. MADE and a file: its content follows, as part and write calls, then end.
 * Otherwise its stored bytes are of no use. The member must stay until end. */
int cow_apply_begin(struct cow_apply *apply, const struct cow_tar_member *member, enum cow_apply_kind *kind_out);
void cow_apply_part(struct cow_apply *apply, uint64_t offset, uint64_t length_bytes);
/* At most what the part still lacks. */
int cow_apply_write(struct cow_apply *apply, const uint8_t *bytes, size_t count);
int cow_apply_end(struct cow_apply *apply, const struct cow_tar_member *member);
int cow_apply_finish(struct cow_apply *apply);

#endif
