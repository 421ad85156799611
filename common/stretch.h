/*
 * scrypt (RFC 7914): a key out of a passphrase, at a price that whoever guesses pays too.
 *
 * Units: memory is 128 * n * r bytes. Parameters that were read are hostile until stretch_check: a
 * key slot may not be a memory bomb. Errors: UNSUPPORTED for parameters beyond the limits, before
 * any memory is taken; OpenSSL's failures (out of memory) are INTERNAL. Threads: any.
 */
#ifndef PGCAIRN_COMMON_STRETCH_H
#define PGCAIRN_COMMON_STRETCH_H

#include "common/digest.h"
#include "common/error.h"

#include <stddef.h>
#include <stdint.h>

enum { STRETCH_R_LIMIT = 64, STRETCH_P_LIMIT = 16 };
#define STRETCH_MEMORY_LIMIT (UINT64_C(1) << 30)

typedef struct {
    uint64_t n; /* a power of two */
    uint32_t r;
    uint32_t p;
} StretchCost;

/* What we write: 128 MiB, under half a second of one core. */
#define STRETCH_COST                                                                               \
    (StretchCost)                                                                                  \
    {                                                                                              \
        .n = UINT64_C(1) << 17, .r = 8, .p = 1                                                     \
    }

bool stretch_check(const StretchCost *cost, CairnError *err) MUST_CHECK;
bool stretch_passphrase(const void *passphrase, size_t passphrase_size, const void *salt,
                        size_t salt_size, const StretchCost *cost, uint8_t key_out[KEY_SIZE],
                        CairnError *err) MUST_CHECK;

#endif
