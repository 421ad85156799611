/*
 * Text from outside (servers, object stores, repository hosts, disks), so that showing it does
 * nothing but show it.
 *
 * Plain is valid UTF-8 without control characters: no C0, no DEL, no C1 (U+0080 to U+009F, which
 * many terminals obey like ESC). Anything else becomes \ooo, byte by byte, so that it can still be
 * told what stood there. Plain text stays as it is: making it plain twice changes nothing.
 */
#ifndef PGCAIRN_COMMON_PLAIN_TEXT_H
#define PGCAIRN_COMMON_PLAIN_TEXT_H

#include <stddef.h>
#include <stdio.h>

/* Bytes of the plain character that text[size] begins with; 0 when it begins with none. */
size_t plain_character_size(const char *text, size_t size);

/*
 * Make text plain into out[out_size], cut where the next character would not fit whole.
 *
 * kept     controls that stay, "" for none ("\n" for several lines)
 */
void plain_text(char *out, size_t out_size, const char *text, const char *kept);

/* The same of text[size] into a stream, whose errors are the caller's to ask for. */
void plain_print(FILE *out, const char *text, size_t size, const char *kept);

#endif
