#include "agent/archive_command.h"

#include <stddef.h>
#include <string.h>

enum { WORD_LIMIT = 1024 };

typedef struct {
    char text[WORD_LIMIT]; /* cut when longer: such a word is none of ours */
    bool is_operator;      /* `&&`, `||`, `;`, `|`, `&`, a newline: ends a simple command */
} Word;

static void
word_add(Word *word, size_t *size, char c)
{
    if (*size + 1 < WORD_LIMIT)
        word->text[(*size)++] = c;
}

/* The next word and where the text goes on; NULL at the end. */
static const char *
next_word(const char *text, Word *word)
{
    static const char OPERATORS[] = "|&;\n";
    while (*text == ' ' || *text == '\t')
        text++;
    if (*text == '\0')
        return NULL;

    size_t size = 0;
    word->is_operator = strchr(OPERATORS, *text) != NULL;
    if (word->is_operator) {
        for (; *text != '\0' && strchr(OPERATORS, *text) != NULL; text++)
            word_add(word, &size, *text);
        word->text[size] = '\0';
        return text;
    }
    char quote = '\0';
    for (; *text != '\0'; text++) {
        if (quote == '\0' && (*text == ' ' || *text == '\t' || strchr(OPERATORS, *text) != NULL))
            break;
        if (quote == '\0' && (*text == '\'' || *text == '"')) {
            quote = *text;
        } else if (*text == quote) {
            quote = '\0';
        } else {
            if (*text == '\\' && quote != '\'' && text[1] != '\0')
                text++;
            word_add(word, &size, *text);
        }
    }
    word->text[size] = '\0';
    return text;
}

static bool
program_is(const char *word, const char *name)
{
    const char *slash = strrchr(word, '/');
    return strcmp(slash != NULL ? slash + 1 : word, name) == 0;
}

static bool
is_push(const char *word)
{
    return strcmp(word, "push") == 0 || strcmp(word, "archive-push") == 0;
}

/* What has been read of the simple command at hand. */
typedef struct {
    bool is_program_wal; /* pgcairn-wal, or pgcairn with `wal` */
    bool is_program;     /* pgcairn */
    bool is_absolute;
    bool pushes;
    bool has_path;
} Reading;

static void
read_word(Reading *reading, const char *word)
{
    if (program_is(word, "pgcairn-wal") || program_is(word, "pgcairn")) {
        reading->is_program = true;
        reading->is_program_wal = program_is(word, "pgcairn-wal");
        reading->is_absolute = word[0] == '/';
    } else if (reading->is_program && strcmp(word, "wal") == 0) {
        reading->is_program_wal = true;
    } else if ((reading->is_program_wal && is_push(word)) ||
               (reading->is_program && strcmp(word, "archive-push") == 0)) {
        reading->pushes = true;
    } else if (reading->pushes && strstr(word, "%p") != NULL) {
        reading->has_path = true;
    }
}

ArchiveCommandKind
archive_command_recognise(const char *command)
{
    if (command[strspn(command, " \t\n")] == '\0')
        return ARCHIVE_COMMAND_NONE;

    Reading reading = {0};
    bool masked = false;
    Word word;
    for (const char *text = next_word(command, &word); text != NULL;
         text = next_word(text, &word)) {
        if (!word.is_operator) {
            read_word(&reading, word.text);
        } else if (reading.pushes) {
            /* `push && touch done` still fails when push fails; anything else may say 0 for it. */
            masked = masked || strcmp(word.text, "&&") != 0;
        } else {
            reading = (Reading){0};
        }
    }
    if (!reading.pushes)
        return ARCHIVE_COMMAND_OTHER;
    if (masked)
        return ARCHIVE_COMMAND_MASKED;
    if (!reading.has_path)
        return ARCHIVE_COMMAND_NO_PATH;
    return reading.is_absolute ? ARCHIVE_COMMAND_OURS : ARCHIVE_COMMAND_RELATIVE;
}

bool
archive_library_is_ours(const char *library)
{
    return program_is(library, "pgcairn_archive") || program_is(library, "pgcairn_archive.so");
}

bool
archive_program_is_ours(const char *path)
{
    return program_is(path, "pgcairn-wal");
}
