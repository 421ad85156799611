/*
 * What the readers of answers share: documents, and the texts and numbers in them. answers.c and
 * version_answers.c include this, nobody else.
 */
#ifndef PGCAIRN_STORAGE_S3_ANSWERS_INTERN_H
#define PGCAIRN_STORAGE_S3_ANSWERS_INTERN_H

#include "common/error.h"

#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* An element ended. name: below the root, "Contents/Key". */
typedef bool S3DocumentElement(void *context, const char *name, char *text, CairnError *err);

/* Walks a document of this root. CORRUPT for another one; what an <Error> says where it is one. */
bool s3_document_read(const void *data, size_t size, const char *root, S3DocumentElement *element,
                      void *context, CairnError *err) MUST_CHECK;

/* A text for a fixed field: false when it does not fit whole (a cut key or id would be another). */
static inline bool
take_text(char *field, size_t field_size, const char *text)
{
    const size_t length = strlen(text);
    if (length >= field_size)
        return false;
    memcpy(field, text, length + 1);
    return true;
}

static inline bool
take_number(const char *text, uint64_t *number_out)
{
    if (!isdigit((unsigned char)text[0]))
        return false;
    uint64_t number = 0;
    for (; isdigit((unsigned char)*text); text++)
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*text - '0'), &number))
            return false;
    *number_out = number;
    return *text == '\0';
}

#endif
