/*
 * Recovery settings as PostgreSQL reads them from postgresql.auto.conf (facts 7.3, 7.4).
 *
 * settings_filter copies configuration text and drops every line that sets one of the names given
 * (also inside our own marked block of an earlier attempt): a leftover recovery_target is FATAL.
 * Values are quoted with settings_append.
 */
#ifndef PGCAIRN_POSTGRES_RECOVERY_SETTINGS_H
#define PGCAIRN_POSTGRES_RECOVERY_SETTINGS_H

#include "common/bytes.h"
#include "common/error.h"

#include <stddef.h>

/* Every setting that recovery obeys: restore_command, recovery_target*, primary_conninfo, ... ;
   NULL-terminated. */
extern const char *const recovery_setting_names[];

/* Appends `name = 'value'\n`, quotes doubled, backslashes doubled; refuses newlines (USAGE). */
bool settings_append(ByteWriter *text, const char *name, const char *value,
                     CairnError *err) MUST_CHECK;

/* Copies text without lines that set any of names (case-insensitive, '=' optional); the result
   always ends with a newline (unless empty), so that settings can be appended. */
void settings_filter(const char *text, size_t size, const char *const *names, ByteWriter *filtered);

/* The same, without lines that set name to just this value. */
void settings_filter_value(const char *text, size_t size, const char *name, const char *value,
                           ByteWriter *filtered);

/* Value of the last line that sets name, unquoted, malloc'ed (returned owned); NULL when none does.
   Include directives are not followed. */
char *settings_find(const char *text, size_t size, const char *name);

#endif
