/*
 * `pgcairn.repo`: which repository this is, and whether it is encrypted (docs/format.md,
 * "Repository (1)").
 *
 * In an encrypted one no key stands here. What it says is authenticated by a MAC under the metadata
 * root, so that whoever owns the storage can't turn it into another's, or into a plain one, for
 * those who hold a key. Without a key nothing here is more than a claim.
 *
 * Errors: CORRUPT, UNSUPPORTED (newer format); storage errors pass through.
 */
#ifndef PGCAIRN_REPOSITORY_DESCRIPTOR_H
#define PGCAIRN_REPOSITORY_DESCRIPTOR_H

#include "common/timestamp.h"
#include "repository/repository.h"

typedef struct {
    uint8_t id[REPOSITORY_ID_SIZE];
    char created[TIMESTAMP_TEXT_SIZE];
    Encryption encryption;
    uint8_t root_key[KEY_SIZE]; /* of ENCRYPTION_NONE; zeros else */
    uint8_t mac[SHA256_SIZE];   /* of the others; zeros else */
} Descriptor;

/* Sets mac. */
bool descriptor_sign(Descriptor *descriptor, const uint8_t meta_root[KEY_SIZE],
                     CairnError *err) MUST_CHECK;
/* CORRUPT when it was changed. */
bool descriptor_verify(const Descriptor *descriptor, const uint8_t meta_root[KEY_SIZE],
                       CairnError *err) MUST_CHECK;

/* CONFLICT when there is one. */
bool descriptor_write(Repository *repository, const Descriptor *descriptor,
                      CairnError *err) MUST_CHECK;
bool descriptor_read(Repository *repository, Descriptor *descriptor_out,
                     CairnError *err) MUST_CHECK;

#endif
