/*
 * Percent encoding as S3 signs it (RFC 3986: everything but A-Z a-z 0-9 - . _ ~ becomes %XX, upper
 * case hex; a space is %20, never +). Encoded once, never twice.
 *
 * Ownership: results go to the caller's ByteWriter, without a final NUL. Threads: any.
 */
#ifndef PGCAIRN_STORAGE_S3_URI_H
#define PGCAIRN_STORAGE_S3_URI_H

#include "common/bytes.h"

#include <stdbool.h>
#include <stddef.h>

/* A key as the path of a URL: slashes stay. "//" stays too, it is part of the key. */
void uri_encode_path(ByteWriter *writer, const char *text);
/* A name or value of a query: slashes are encoded as well. */
void uri_encode_value(ByteWriter *writer, const char *text);

/* Undoes it in place (also '+' to a space when plus_is_space, as answers with encoding-type=url
   have it); false for a lone % and for %00: the text is
   of no use then. */
bool uri_decode(char *text, bool plus_is_space) MUST_CHECK;

#endif
