/*
 * Configuration that the server kept outside its data directory and the backup captured: laid in as
 * postgresql.conf, pg_hba.conf and pg_ident.conf where the directory lacks them, so that plain
 * `pg_ctl -D DIR start` works.
 *
 * Lines that lead away (data_directory, hba_file, ident_file, external_pid_file, include*) become
 * comments; what was included follows at the end.
 */
#ifndef PGCAIRN_RESTORE_CONFIG_FILES_H
#define PGCAIRN_RESTORE_CONFIG_FILES_H

#include "common/bytes.h"
#include "restore/stored_file.h"

enum { CONFIG_MAIN, CONFIG_HBA, CONFIG_IDENT, CONFIG_FILE_COUNT };
enum { CONFIG_FILE_LIMIT = 4 << 20 };

typedef struct {
    const char *name; /* "postgresql.conf" */
    ByteWriter text;  /* what is to be laid in; empty where the backup has the file itself */
    bool in_backup;   /* the data directory brings its own */
    bool made_up;     /* nothing was captured either: a minimal one of ours */
} ConfigFile;

typedef struct {
    ConfigFile files[CONFIG_FILE_COUNT];
} ConfigFiles;

bool config_files_collect(MapReader *map, FrameReader *frames, ConfigFiles *files_out,
                          CairnError *err) MUST_CHECK;
void config_files_free(ConfigFiles *files);

/* Text with the lines that lead away made comments. */
void config_neutralise(const char *text, size_t size, ByteWriter *neutral);

#endif
