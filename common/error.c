#include "common/error.h"

#include "common/plain_text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    int exit_code;
} KindFacts;

static const KindFacts KINDS[] = {
    [CAIRN_OK] = {"ok", 0},
    [CAIRN_CANCELLED] = {"cancelled", 130},
    [CAIRN_NOT_FOUND] = {"not found", 3},
    [CAIRN_CONFLICT] = {"conflict", 4},
    [CAIRN_MISMATCH] = {"mismatch", 4},
    [CAIRN_CORRUPT] = {"damaged data", 5},
    [CAIRN_UNAVAILABLE] = {"unavailable", 6},
    [CAIRN_NO_SPACE] = {"no space", 7},
    [CAIRN_IO] = {"input/output error", 1},
    [CAIRN_DENIED] = {"permission denied", 1},
    [CAIRN_SEALED] = {"sealed", 1},
    [CAIRN_REFUSED] = {"refused", 4},
    [CAIRN_USAGE] = {"usage", 2},
    [CAIRN_UNSUPPORTED] = {"unsupported", 4},
    [CAIRN_INTERNAL] = {"internal error", 1},
};

typedef struct {
    int system_errno;
    CairnErrorKind kind;
} ErrnoKind;

/*
 * ENOTDIR is missing on purpose: O_NOFOLLOW gives it for a symbolic link too, so it proves nothing
 * absent. What is not listed is CAIRN_IO: not to be retried.
 */
static const ErrnoKind ERRNO_KINDS[] = {
    {ENOENT, CAIRN_NOT_FOUND},
    {EEXIST, CAIRN_CONFLICT},
    {ENOTEMPTY, CAIRN_CONFLICT},
    {ELOOP, CAIRN_CORRUPT},
    {EACCES, CAIRN_DENIED},
    {EPERM, CAIRN_DENIED},
    {EROFS, CAIRN_DENIED},
    {ENOSPC, CAIRN_NO_SPACE},
    {EDQUOT, CAIRN_NO_SPACE},
    {EFBIG, CAIRN_NO_SPACE},
    {EAGAIN, CAIRN_UNAVAILABLE},
    {EBUSY, CAIRN_UNAVAILABLE},
    {EMFILE, CAIRN_UNAVAILABLE},
    {ENFILE, CAIRN_UNAVAILABLE},
    {ESTALE, CAIRN_UNAVAILABLE},
    {ETIMEDOUT, CAIRN_UNAVAILABLE},
    {ECONNREFUSED, CAIRN_UNAVAILABLE},
    {ECONNRESET, CAIRN_UNAVAILABLE},
    {ECONNABORTED, CAIRN_UNAVAILABLE},
    {ENOTCONN, CAIRN_UNAVAILABLE},
    {EPIPE, CAIRN_UNAVAILABLE},
    {EHOSTDOWN, CAIRN_UNAVAILABLE},
    {EHOSTUNREACH, CAIRN_UNAVAILABLE},
    {ENETDOWN, CAIRN_UNAVAILABLE},
    {ENETUNREACH, CAIRN_UNAVAILABLE},
    {ENAMETOOLONG, CAIRN_USAGE},
    {EOPNOTSUPP, CAIRN_UNSUPPORTED},
    {ENOSYS, CAIRN_UNSUPPORTED},
    {EINTR, CAIRN_CANCELLED},
    {ENOMEM, CAIRN_INTERNAL},
    {EBADF, CAIRN_INTERNAL},
    {EFAULT, CAIRN_INTERNAL},
    {EINVAL, CAIRN_INTERNAL},
};

static void
fill(CairnError *err, CairnErrorKind kind, const char *file, int line, const char *format,
     va_list args)
{
    CAIRN_ASSERT(kind != CAIRN_OK);
    if (err->kind != CAIRN_OK) {
        /* Filling twice would hide the first cause; show it before stopping. */
        fprintf(stderr, "earlier error from %s:%d: %s\n", err->file != NULL ? err->file : "?",
                err->line, err->message);
        cairn_assertion_failed("an error is filled once", file, line);
    }
    err->kind = kind;
    err->system_errno = 0;
    err->sqlstate[0] = '\0';
    err->file = file;
    err->line = line;
    err->hint[0] = '\0';
    /* Here, since everything that an error quotes passes through here, whoever shows it then. */
    char message[CAIRN_ERROR_MESSAGE_SIZE];
    vsnprintf(message, sizeof message, format, args);
    plain_text(err->message, sizeof err->message, message, "");
}

bool
cairn_error_at(CairnError *err, CairnErrorKind kind, const char *file, int line, const char *format,
               ...)
{
    va_list args;
    va_start(args, format);
    fill(err, kind, file, line, format, args);
    va_end(args);
    return false;
}

bool
cairn_error_errno_at(CairnError *err, const char *file, int line, const char *format, ...)
{
    const int system_errno = errno;

    va_list args;
    va_start(args, format);
    fill(err, cairn_error_kind_of_errno(system_errno), file, line, format, args);
    va_end(args);

    err->system_errno = system_errno;
    char buffer[128];
    const char *cause = strerror_r(system_errno, buffer, sizeof buffer);
    const size_t length = strlen(err->message);
    snprintf(err->message + length, sizeof err->message - length, ": %s", cause);
    return false;
}

bool
cairn_error_wrap(CairnError *err, const char *format, ...)
{
    CAIRN_ASSERT(err->kind != CAIRN_OK);

    char context[CAIRN_ERROR_MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(context, sizeof context, format, args);
    va_end(args);

    /* When both do not fit, the tail goes: the front says what was being done. */
    char message[2 * CAIRN_ERROR_MESSAGE_SIZE + 2];
    snprintf(message, sizeof message, "%s: %s", context, err->message);
    plain_text(err->message, sizeof err->message, message, "");
    return false;
}

bool
cairn_error_hint(CairnError *err, const char *format, ...)
{
    CAIRN_ASSERT(err->kind != CAIRN_OK);

    /* Through a copy, so that a caller may build the new hint from the old one. */
    char hint[CAIRN_ERROR_HINT_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(hint, sizeof hint, format, args);
    va_end(args);
    plain_text(err->hint, sizeof err->hint, hint, "\n");
    return false;
}

CairnErrorKind
cairn_error_kind_of_errno(int system_errno)
{
    for (size_t i = 0; i < sizeof ERRNO_KINDS / sizeof ERRNO_KINDS[0]; i++) {
        if (ERRNO_KINDS[i].system_errno == system_errno)
            return ERRNO_KINDS[i].kind;
    }
    return CAIRN_IO;
}

const char *
cairn_error_kind_name(CairnErrorKind kind)
{
    CAIRN_ASSERT((size_t)kind < sizeof KINDS / sizeof KINDS[0]);
    return KINDS[kind].name;
}

int
cairn_error_exit_code(CairnErrorKind kind)
{
    CAIRN_ASSERT((size_t)kind < sizeof KINDS / sizeof KINDS[0]);
    return KINDS[kind].exit_code;
}

void
cairn_error_clear(CairnError *err)
{
    err->kind = CAIRN_OK;
    err->system_errno = 0;
    err->sqlstate[0] = '\0';
    err->file = NULL;
    err->line = 0;
    err->message[0] = '\0';
    err->hint[0] = '\0';
}

_Noreturn void
cairn_assertion_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "PANIC: %s:%d: assertion failed: %s\n", file, line, condition);
    abort();
}
