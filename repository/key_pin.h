/*
 * What this host remembers of an encrypted repository: its id, how it was encrypted, and its
 * descriptor's mac, which only these roots give. So whoever owns the storage cannot put another
 * one, or a plain one, in its place unnoticed. The id alone would not do where the key is a private
 * one: whoever knows the public key can make a repository of any id that it opens.
 *
 * A small text file "pin-<24 hex>" of mode 0600 in the spool directory (`spool-path`, else
 * /var/spool/pgcairn where that exists), one for each user and place, made at the first use. Best
 * effort: where it cannot be kept there is none; one that is not ours alone is not believed. It
 * also holds the name of the slot that opened last, which saves a search.
 */
#ifndef PGCAIRN_REPOSITORY_KEY_PIN_H
#define PGCAIRN_REPOSITORY_KEY_PIN_H

#include "repository/key_slot.h"

typedef struct {
    bool found;
    uint8_t id[REPOSITORY_ID_SIZE];
    Encryption encryption;
    bool has_mac; /* not where an earlier version kept it */
    uint8_t mac[SHA256_SIZE];
    char slot[KEY_SLOT_NAME_LIMIT + 1]; /* "" when none is known */
} KeyPin;

void key_pin_read(const World *world, const RepositoryConfig *config, KeyPin *pin_out);
/* MISMATCH, with the way out, when the pin says another repository or another encryption. */
bool key_pin_check(const RepositoryConfig *config, const KeyPin *pin,
                   const uint8_t id[REPOSITORY_ID_SIZE], Encryption encryption,
                   CairnError *err) MUST_CHECK;
/* The same for the mac of a descriptor that was verified. */
bool key_pin_check_mac(const RepositoryConfig *config, const KeyPin *pin,
                       const uint8_t mac[SHA256_SIZE], CairnError *err) MUST_CHECK;
void key_pin_keep(const World *world, const RepositoryConfig *config, const KeyPin *pin);
/* A new repository was made in this place on purpose. */
void key_pin_forget(const World *world, const RepositoryConfig *config);

#endif
