/*
 * The storage driver for a repository on another host, reached through ssh: it starts the system's
 * ssh, which starts `pgcairn serve --stdio` over there (ssh_protocol.h).
 *
 * The place is the other side's to know: its configuration, or the command that authorized_keys
 * forces.
 *
 * A broken connection is made again, and what may be asked twice is: reading, listing, removing.
 * Objects up to SSH_KEEP_SIZE are kept until they are committed and are sent again; a larger one
 * fails with UNAVAILABLE. A commit whose answer was lost is settled by looking: what lies there is
 * compared with what was written; it is never taken for done, nor for somebody else's, without
 * that.
 *
 * Memory, as storage_memory tells it: SSH_FIXED_MEMORY for the connection and what is on its way
 * (small objects being written, of SSH_KEEP_SIZE each; the first SSH_HEAD_SIZE bytes of an object
 * until somebody reads on behind them), and SSH_AHEAD_LIMIT for reading ahead in all. At a time
 * SSH_WRITER_LIMIT writers and SSH_READER_LIMIT readers; one more is UNAVAILABLE.
 */
#ifndef PGCAIRN_STORAGE_SSH_H
#define PGCAIRN_STORAGE_SSH_H

#include "common/config.h"
#include "storage/ssh_child.h"
#include "storage/storage.h"

enum { SSH_KEEP_SIZE = 256 << 10, SSH_AHEAD_LIMIT = 8 << 20, SSH_FIXED_MEMORY = 2 << 20 };

#define SSH_DEFAULT_COMMAND                                                                        \
    "ssh -T -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o "                   \
    "ServerAliveCountMax=3"
#define SSH_DEFAULT_PROGRAM "pgcairn"

/* Has the section all it needs, and nothing that ssh or the shell over there could take for
 * something else? */
bool ssh_config_check(const RepositoryConfig *config, CairnError *err) MUST_CHECK;

/*
 * Connects. create: the place is made where it is missing and the other side allows it.
 * Errors of connecting: DENIED (keys), USAGE (no ssh here, no pgcairn there), NOT_FOUND (no such
 * place there), UNSUPPORTED (version), UNAVAILABLE.
 */
Storage *ssh_storage_open(const World *world, const RepositoryConfig *config, bool create,
                          CairnError *err) MUST_CHECK;

/* The same over whatever start connects; for tests. host and context are borrowed. */
typedef struct {
    const char *host;
    bool (*start)(void *context, SshChild *child_out, CairnError *err);
    void *context;
    bool create;
    int64_t connect_ms, stall_ms, reconnect_ms;
} SshStorageOptions;
Storage *ssh_storage_over(const World *world, const SshStorageOptions *options,
                          CairnError *err) MUST_CHECK;

#endif
