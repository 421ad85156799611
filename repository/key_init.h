/*
 * The first keys of a new repository: roots out of the system's randomness, and a slot for
 * everything that the configuration names.
 *
 * They are made before the descriptor, which alone makes a repository: after a crash in between
 * nothing is locked, and what was left lies below `keys/` under another repository's id.
 */
#ifndef PGCAIRN_REPOSITORY_KEY_INIT_H
#define PGCAIRN_REPOSITORY_KEY_INIT_H

#include "repository/descriptor.h"
#include "repository/key_store.h"

enum { KEY_INIT_NAMES = KEYRING_RECIPIENT_LIMIT + 4 };

/* What was made, by object name: so that who comes too late can take it away again. */
typedef struct {
    char names[KEY_INIT_NAMES][STORAGE_NAME_LIMIT];
    size_t count;
} KeyInit;

/* The repository has its id already. USAGE for a configuration from which no whole set of slots can
   be made. Signs the descriptor. */
bool key_init(Repository *repository, Descriptor *descriptor, KeyInit *made,
              CairnError *err) MUST_CHECK;
/* Best effort. */
void key_init_undo(Repository *repository, const KeyInit *made);

#endif
