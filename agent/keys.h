/*
 * The work of `pgcairn key`: slots added and removed, a new epoch begun.
 *
 * Each opens the repository with what the configuration names, so that only a holder of a key can
 * let in another. Errors: DENIED "wrong key"; USAGE for a repository without encryption; REFUSED
 * for what would lock everybody out. Threads: one thread.
 */
#ifndef PGCAIRN_AGENT_KEYS_H
#define PGCAIRN_AGENT_KEYS_H

#include "common/config.h"
#include "repository/key_store.h"

/* What is to open a new slot, or to open the repository in place of the configuration's. At most
   one of them is given. */
typedef struct {
    const char *key_file;
    const char *passphrase_file;
    const char *passphrase_command;
    const char *recipient; /* file with one public key */
} KeyChoice;

bool keys_add(const World *world, const RepositoryConfig *config, const char *name,
              const KeyChoice *choice, CairnError *err) MUST_CHECK;
bool keys_remove(const World *world, const RepositoryConfig *config, const char *name, bool force,
                 CairnError *err) MUST_CHECK;
bool keys_rotate(const World *world, const RepositoryConfig *config, uint16_t *epoch_out,
                 CairnError *err) MUST_CHECK;

/* The section with this choice in place of its own. USAGE unless it is one choice. */
bool keys_override(const RepositoryConfig *config, const KeyChoice *choice,
                   RepositoryConfig *config_out, CairnError *err) MUST_CHECK;

#endif
