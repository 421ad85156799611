/*
 * Configuration files that live outside the data directory (Debian keeps them in /etc):
 * config_file, hba_file, ident_file and every file that they include, read through SQL where the
 * role may.
 */
#ifndef PGCAIRN_POSTGRES_SERVER_CONFIG_H
#define PGCAIRN_POSTGRES_SERVER_CONFIG_H

#include "postgres/server_facts.h"

enum { SERVER_CONFIG_FILE_LIMIT = 1 << 20, SERVER_CONFIG_FILES_LIMIT = 256 };

typedef struct {
    const char *setting; /* config_file | hba_file | ident_file | include */
    const char *path;    /* on the server */
    const char *content;
    size_t size;
} ServerConfigFile;

/* Calls back for each file outside facts->data_directory. What may not be read is told through
   `unreadable` (a warning for the backup's record), not an error. */
typedef bool ServerConfigCallback(void *context, const ServerConfigFile *file, CairnError *err);
typedef void ServerConfigUnreadable(void *context, const char *setting, const char *path,
                                    const char *why);
bool server_config_read(Connection *connection, const ServerFacts *facts,
                        ServerConfigCallback *callback, ServerConfigUnreadable *unreadable,
                        void *context, CairnError *err) MUST_CHECK;

#endif
