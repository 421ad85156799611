/*
 * Keys as files that people keep, copy and print (docs/format.md, "Key files").
 *
 *     # comment
 *     pgcairn-key-1                   or pgcairn-private-key-1
 *     <64 hex digits, or 44 characters of base64>
 *     check <8 hex digits>            optional; CRC-32C of the 32 bytes: finds typing errors
 *
 * Public keys stand one a line, several to a file: pgcairn-public-key-1 <64 hex> <8 hex>.
 *
 * Errors: USAGE for what is no such file (its content is never quoted), DENIED for permissions
 * (secret.h). Ownership: secrets are returned owned. Threads: any.
 */
#ifndef PGCAIRN_REPOSITORY_KEY_FILE_H
#define PGCAIRN_REPOSITORY_KEY_FILE_H

#include "common/secret.h"
#include "repository/keyring.h"

typedef enum { KEY_FILE_SYMMETRIC, KEY_FILE_PRIVATE } KeyFileType;

enum { KEY_FILE_TEXT_SIZE = 1024, PUBLIC_KEY_TEXT_SIZE = 128 };

/* KEY_SIZE bytes. */
Secret *key_file_read(const World *world, const char *path, KeyFileType *type_out,
                      CairnError *err) MUST_CHECK;
/* The same of text in memory, for tests and fuzzers: `from` is for messages. */
bool key_file_parse(const char *text, size_t size, const char *from, KeyFileType *type_out,
                    uint8_t key_out[KEY_SIZE], CairnError *err) MUST_CHECK;

/* A new key in a new file of mode 0600, durable; CONFLICT when the name is taken. For a private key
   its public one too, in "<path>.pub" (mode 0644). */
bool key_file_generate(const World *world, const char *path, KeyFileType type,
                       uint8_t public_out[KEY_SIZE], CairnError *err) MUST_CHECK;

/* One line without newline. */
void public_key_format(char text[PUBLIC_KEY_TEXT_SIZE], const uint8_t key[KEY_SIZE]);
/* At most KEYRING_RECIPIENT_LIMIT, at least one, none twice. */
bool public_keys_parse(const char *text, const char *from, uint8_t (*keys_out)[KEY_SIZE],
                       size_t *count_out, CairnError *err) MUST_CHECK;
bool public_keys_read(const World *world, const char *path, uint8_t (*keys_out)[KEY_SIZE],
                      size_t *count_out, CairnError *err) MUST_CHECK;

#endif
