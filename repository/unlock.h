/*
 * From a descriptor that says "encrypted" to a keyring: pin, slot, proof of the descriptor, epoch,
 * recipients.
 *
 * Errors: DENIED "wrong key"; MISMATCH for another repository than this host knows; CORRUPT for a
 * descriptor or list that was changed.
 */
#ifndef PGCAIRN_REPOSITORY_UNLOCK_H
#define PGCAIRN_REPOSITORY_UNLOCK_H

#include "repository/descriptor.h"
#include "repository/key_slot.h"

/* Returned owned. opened_out: the slot's name. */
Keyring *repository_unlock(Repository *repository, const Descriptor *descriptor,
                           char opened_out[KEY_SLOT_NAME_LIMIT + 1], CairnError *err) MUST_CHECK;

/* What the configuration says against what the repository says: USAGE or MISMATCH, in words. */
bool unlock_check_stated(const RepositoryConfig *config, Encryption found,
                         CairnError *err) MUST_CHECK;
/* The same of a repository that was opened without its keys, and that it is the one which this host
   knows. */
bool unlock_check_locked(const Repository *repository, CairnError *err) MUST_CHECK;

#endif
