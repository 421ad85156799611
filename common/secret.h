/*
 * Passphrases and keys while they are in memory, and where they come from.
 *
 * A Secret lies in pages of its own that no core dump holds (MADV_DONTDUMP) and, where the limit
 * allows, no swap (mlock); it is wiped when freed. secret_protect_process makes the whole process
 * undumpable, since keys derived from a secret live in other places too: ciphers, stacks.
 *
 * Files: regular, at most `limit` bytes, owned by the effective user or root, and readable to
 * nobody else: mode 0600, or 0640 where root owns it and a group is let in. Anything looser is
 * DENIED with the command that mends it. A symbolic link is followed when the effective user or
 * root owns it; the rules are then those of the file at its end. Commands: run by sh -c in a
 * process group of their own, standard input empty, standard error ours; what they print is the
 * secret, without its last newline.
 *
 * Errors never hold a byte of a secret. Threads: one Secret, one thread at a time; any may run a
 * command. Ownership: returned owned.
 */
#ifndef PGCAIRN_COMMON_SECRET_H
#define PGCAIRN_COMMON_SECRET_H

#include "common/error.h"
#include "common/scoped.h"
#include "common/world.h"

#include <stddef.h>
#include <stdint.h>

enum { SECRET_FILE_LIMIT = 64 << 10, SECRET_TEXT_LIMIT = 4096, SECRET_COMMAND_TIMEOUT_S = 30 };

typedef struct {
    uint8_t *data; /* data[size] is a NUL, for secrets that are text */
    size_t size;
    size_t mapped_bytes;
} Secret;

/* Of `size` zero bytes, to be filled; size may be made smaller. */
Secret *secret_new(size_t size, CairnError *err) MUST_CHECK;
void secret_free(Secret *secret);
SCOPED_TYPE(Secret, secret_free);

/* No core dump, no debugger of the same user: PR_SET_DUMPABLE off and RLIMIT_CORE 0. Cannot fail in
   a way that anybody could mend; may be repeated. */
void secret_protect_process(void);

/* Is this file as closed as a secret's must be? DENIED, with the remedy, when it is not. */
bool secret_file_check(const World *world, const char *path, CairnError *err) MUST_CHECK;
/* The whole file. USAGE when it is empty. */
Secret *secret_read_file(const World *world, const char *path, size_t limit,
                         CairnError *err) MUST_CHECK;
/* The first line of a file, which must be its only one. */
Secret *secret_read_line(const World *world, const char *path, CairnError *err) MUST_CHECK;
/* Standard output of a command, one line. UNAVAILABLE when it fails, says nothing or takes longer
   than timeout_s. */
Secret *secret_run_command(const World *world, const char *command, int timeout_s,
                           CairnError *err) MUST_CHECK;

#endif
