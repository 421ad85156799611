/*
 * What OpenSSL says when it fails, as an error value. For the few files that call it.
 */
#ifndef PGCAIRN_COMMON_OPENSSL_H
#define PGCAIRN_COMMON_OPENSSL_H

#include "common/error.h"

/* "unable to <what>: <reason>", INTERNAL; empties the calling thread's error queue. Always false.
 */
bool openssl_error(CairnError *err, const char *what);

#endif
