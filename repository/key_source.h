/*
 * From a [repository] section to the secrets that it names: files and commands, read when they are
 * wanted.
 *
 * Which encryption a section states: `none`; `passphrase` and `key-file` are one thing to the
 * repository (ENCRYPTION_KEYS) and may be stated together: then the key file is tried first, since
 * a passphrase costs half a second; `sealed`.
 *
 * Errors: USAGE for a section that lacks what its encryption needs; DENIED for files that others
 * can read (secret.h). Ownership: secrets belong to the KeySource. Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_KEY_SOURCE_H
#define PGCAIRN_REPOSITORY_KEY_SOURCE_H

#include "common/config.h"
#include "common/secret.h"
#include "repository/key_file.h"
#include "repository/key_slot.h"

/* USAGE when the section does not say; with the choices. */
bool key_source_encryption(const RepositoryConfig *config, Encryption *encryption_out,
                           CairnError *err) MUST_CHECK;

typedef struct {
    const World *world;
    const KeyConfig *config;
    Secret *key; /* of key_file; NULL: none */
    KeyFileType key_type;
    Secret *passphrase;
} KeySource;

void key_source_free(KeySource *source);
#define SCOPED_KEY_SOURCE __attribute__((cleanup(key_source_free))) KeySource

/* *secret_out is borrowed. False with an empty error: nothing of this kind is configured. */
bool key_source_key(KeySource *source, SlotSecret *secret_out, CairnError *err) MUST_CHECK;
bool key_source_passphrase(KeySource *source, SlotSecret *secret_out, CairnError *err) MUST_CHECK;

/* The secret of a file: SLOT_KEY_FILE or, for a private key, SLOT_RECIPIENT. */
SlotSecret key_source_secret(const Secret *key, KeyFileType type);

#endif
