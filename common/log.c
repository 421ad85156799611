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

/*
 * A message in the making. It goes out in one write: others write to the same log, the server and
 * processes beside us, and their lines would stand in the middle of ours.
 */
typedef struct {
    FILE *out; /* standard error itself where memory is short */
    char *text;
    size_t size;
} Message;

static void
message_begin(Message *message)
{
    *message = (Message){0};
    message->out = open_memstream(&message->text, &message->size);
    if (message->out == NULL)
        message->out = stderr;
}

static void
message_end(Message *message)
{
    if (message->out != stderr) {
        if (fclose(message->out) == 0)
            fwrite(message->text, 1, message->size, stderr);
        else /* memory ran out on the way */
            fputs("ERROR: out of memory: a message is lost here\n", stderr);
    }
    free(message->text);
}

/* Names that a server or a disk chose stand in messages: no terminal shall obey them, and none
   shall begin a line that looks like ours. */
static void
put_plain(const Message *message, const char *text, const char *kept)
{
    plain_print(message->out, text, strlen(text), kept);
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

    Message message;
    message_begin(&message);
    fprintf(message.out, "%s: ", LEVEL_LABELS[level]);
    put_plain(&message, line != NULL ? line : short_line, "");
    putc('\n', message.out);
    message_end(&message);
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
    Message message;

    message_begin(&message);
    fputs("ERROR: ", message.out);
    put_plain(&message, err->message, "");
    if (hint != NULL) {
        fputs("\nHINT: ", message.out);
        put_plain(&message, hint, "\n");
    }
    putc('\n', message.out);
    if (log_level() >= LOG_LEVEL_DEBUG && err->file != NULL) {
        fprintf(message.out, "DEBUG: %s at %s:%d, errno %d, sqlstate %s\n",
                cairn_error_kind_name(err->kind), err->file, err->line, err->system_errno,
                err->sqlstate[0] != '\0' ? err->sqlstate : "-");
    }
    message_end(&message);
}
