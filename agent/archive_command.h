/*
 * Is an archive_command ours, and does it tell PostgreSQL the truth?
 *
 * What: reads the setting's text as a shell would split it into words; runs nothing. It knows our
 * programs by their file names, whatever the path in front. Threads: pure.
 */
#ifndef PGCAIRN_AGENT_ARCHIVE_COMMAND_H
#define PGCAIRN_AGENT_ARCHIVE_COMMAND_H

#include <stdbool.h>

typedef enum {
    ARCHIVE_COMMAND_NONE,     /* empty: segments pile up in pg_wal */
    ARCHIVE_COMMAND_OURS,     /* `.../pgcairn-wal push %p` or `.../pgcairn wal push %p`, or their
                                 aliases */
    ARCHIVE_COMMAND_RELATIVE, /* ours, found through the server's PATH */
    ARCHIVE_COMMAND_NO_PATH,  /* ours, but without %p */
    ARCHIVE_COMMAND_MASKED,   /* ours, but `||`, `;`, `|` or `&` may hide its exit status */
    ARCHIVE_COMMAND_OTHER,
} ArchiveCommandKind;

ArchiveCommandKind archive_command_recognise(const char *command);

/* Is an archive_library our module, and a pgcairn_archive.command our program? By file name too. */
bool archive_library_is_ours(const char *library);
bool archive_program_is_ours(const char *path);

#endif
