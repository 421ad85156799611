#include "common/log.h"

#include "common/plain_text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_SIZE = 1024 };

static const char *const LEVEL_NAMES[] = {"error", "warn", "info", "debug"};
static const char *const LEVEL_LABELS[] = {"ERROR", "WARNING", "INFO", "DEBUG"};

static _Atomic LogLevel current_level = LOG_LEVEL_INFO;

void
log_set_level(LogLevel level)
{
    atomic_store_explicit(&current_level, level, memory_order_relaxed);
}

LogLevel
log_level(void)
{
    return atomic_load_explicit(&current_level, memory_order_relaxed);
}

bool
log_level_parse(const char *name, LogLevel *level_out)
{
    for (size_t i = 0; i < sizeof LEVEL_NAMES / sizeof LEVEL_NAMES[0]; i++) {
        if (strcmp(name, LEVEL_NAMES[i]) == 0) {
            *level_out = (LogLevel)i;
            return true;
        }
    }
    return false;
}

/* Names that a server or a disk chose stand in messages: no terminal shall obey them, and none
   shall begin a line that looks like ours. */
static void
put_plain(const char *text, const char *kept)
{
    plain_print(stderr, text, strlen(text), kept);
}

void
log_message(LogLevel level, const char *format, ...)
{
    if (level > log_level())
        return;

    const int saved_errno = errno;
    char short_line[LINE_SIZE];
    char *line = NULL;
    va_list args;
    va_start(args, format);
    /* Without memory for it a line is cut, not lost. */
    if (vasprintf(&line, format, args) < 0)
        line = NULL;
    va_end(args);
    if (line == NULL) {
        va_start(args, format);
        vsnprintf(short_line, sizeof short_line, format, args);
        va_end(args);
    }

    /* Locked as a whole, so that lines of several threads do not mix. */
    flockfile(stderr);
    fprintf(stderr, "%s: ", LEVEL_LABELS[level]);
    put_plain(line != NULL ? line : short_line, "");
    putc_unlocked('\n', stderr);
    funlockfile(stderr);
    free(line);
    errno = saved_errno;
}

/* For what any system call may answer, far below whoever could give a better one. NULL: none. */
static const char *
default_hint(const CairnError *err)
{
    if (err->kind == CAIRN_NO_SPACE)
        return "make room, or choose another file system; then run it again, nothing needs repair";
    if (err->kind == CAIRN_DENIED && err->system_errno != 0)
        return "look at owner and permissions, and at the user that this runs as; then run it "
               "again";
    return NULL;
}

const char *
log_hint(const CairnError *err)
{
    return err->hint[0] != '\0' ? err->hint : default_hint(err);
}

void
log_error(const CairnError *err)
{
    const char *hint = log_hint(err);

    flockfile(stderr);
    fputs("ERROR: ", stderr);
    put_plain(err->message, "");
    if (hint != NULL) {
        fputs("\nHINT: ", stderr);
        put_plain(hint, "\n");
    }
    putc_unlocked('\n', stderr);
    if (log_level() >= LOG_LEVEL_DEBUG && err->file != NULL) {
        fprintf(stderr, "DEBUG: %s at %s:%d, errno %d, sqlstate %s\n",
                cairn_error_kind_name(err->kind), err->file, err->line, err->system_errno,
                err->sqlstate[0] != '\0' ? err->sqlstate : "-");
    }
    funlockfile(stderr);
}
