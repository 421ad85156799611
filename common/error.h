/*
 * Errors as values (style: one idiom in the whole house).
 *
 * What: a function that can fail returns bool or a pointer and takes `CairnError *err` last.
 * Whoever detects a failure sets it once, callers add context in front, only main prints it. Units:
 * kinds say what the caller may do, not where it broke. Ownership: a plain struct on the caller's
 * stack; no allocation, so it works when memory is gone and travels between threads inside a job's
 * result. Threads: one error belongs to one thread at a time. Texts: plain (plain_text.h) whatever
 * is put into them, so they may be shown and sent as they are; a message is one line, a hint may be
 * several.
 *
 *     CairnError err = {0};
 *     if (!wal_store_put(store, segment, &err))
 *         return cairn_error_wrap(&err, "WAL segment %s", name);
 */
#ifndef PGCAIRN_COMMON_ERROR_H
#define PGCAIRN_COMMON_ERROR_H

#include <stdbool.h>
#include <stddef.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_index, first_index)                                                     \
    __attribute__((format(printf, format_index, first_index)))

typedef enum {
    CAIRN_OK = 0,
    CAIRN_CANCELLED,   /* a signal, or a sibling failed first */
    CAIRN_NOT_FOUND,   /* proven absent */
    CAIRN_CONFLICT,    /* exists and differs; nothing was overwritten */
    CAIRN_MISMATCH,    /* another cluster, timeline, version or repository */
    CAIRN_CORRUPT,     /* damaged bytes */
    CAIRN_UNAVAILABLE, /* server or storage out of reach: a retry may help */
    CAIRN_NO_SPACE,    /* disk full, quota */
    CAIRN_IO,          /* the storage answered with an error: do not retry */
    CAIRN_DENIED,      /* permission, privilege, password */
    CAIRN_SEALED,      /* read, but encrypted to a private key that is not here */
    CAIRN_REFUSED,     /* we could, but it would be unsafe */
    CAIRN_USAGE,       /* options or configuration */
    CAIRN_UNSUPPORTED, /* format, version or feature we do not know */
    CAIRN_INTERNAL,    /* out of memory, a broken library, our own bug */
} CairnErrorKind;

enum { CAIRN_ERROR_MESSAGE_SIZE = 2048, CAIRN_ERROR_HINT_SIZE = 1024 };

typedef struct {
    CairnErrorKind kind;
    int system_errno; /* 0 when no system call is to blame */
    char sqlstate[6]; /* "" when no server is to blame */
    const char *file; /* origin, for --log-level=debug */
    int line;
    char message[CAIRN_ERROR_MESSAGE_SIZE]; /* lower case, no full stop */
    char hint[CAIRN_ERROR_HINT_SIZE];       /* what to do next; may be empty */
} CairnError;

/* Fill an empty error. Always false, so that a caller can `return cairn_error(...)`. */
#define cairn_error(err, kind, ...) cairn_error_at(err, kind, __FILE__, __LINE__, __VA_ARGS__)

/* The same for a failed system call: the kind follows from errno, ": <strerror>" is appended. */
#define cairn_error_errno(err, ...) cairn_error_errno_at(err, __FILE__, __LINE__, __VA_ARGS__)

bool cairn_error_at(CairnError *err, CairnErrorKind kind, const char *file, int line,
                    const char *format, ...) PRINTF_LIKE(5, 6);
bool cairn_error_errno_at(CairnError *err, const char *file, int line, const char *format, ...)
    PRINTF_LIKE(4, 5);

/* Put "<context>: " before the message of a filled error. Always false. */
bool cairn_error_wrap(CairnError *err, const char *format, ...) PRINTF_LIKE(2, 3);

/* Set the remedy of a filled error, replacing an earlier one. Always false. */
bool cairn_error_hint(CairnError *err, const char *format, ...) PRINTF_LIKE(2, 3);

/* The kind that an errno value stands for: ENOENT NOT_FOUND, EACCES DENIED, ENOSPC NO_SPACE, ... */
CairnErrorKind cairn_error_kind_of_errno(int system_errno);

/* Short name of a kind ("not found"), and pgcairn's exit code for it (design: 1 to 7, 130). */
const char *cairn_error_kind_name(CairnErrorKind kind);
int cairn_error_exit_code(CairnErrorKind kind);

/* For a deliberate second attempt or an ignored failure: makes the error empty again. */
void cairn_error_clear(CairnError *err);

/* Programmer errors: on in release. Prints the condition and aborts. */
#define CAIRN_ASSERT(condition)                                                                    \
    do {                                                                                           \
        if (!(condition))                                                                          \
            cairn_assertion_failed(#condition, __FILE__, __LINE__);                                \
    } while (0)

_Noreturn void cairn_assertion_failed(const char *condition, const char *file, int line);

#endif
