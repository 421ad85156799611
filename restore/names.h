/*
 * Names that a backup keeps of the relations of its cluster (postgres/name_snapshot.h,
 * docs/format.md, "Names"): which file a table had when the backup began, and the reverse.
 *
 * Memory: open packs' tables and one row; nothing is kept but what was asked for.
 * Errors: CORRUPT for lists that are none. A backup without names has none, that is no error.
 * Threads: one thread.
 */
#ifndef PGCAIRN_RESTORE_NAMES_H
#define PGCAIRN_RESTORE_NAMES_H

#include "postgres/name_reader.h"
#include "repository/fate.h"

enum { NAME_SIZE = 256, NAMED_LIMIT = 4096 };

/* What a person asks for. Text as in SQL: unquoted letters are lower-cased. */
typedef struct {
    char database[NAME_SIZE]; /* "": any */
    char schema[NAME_SIZE];   /* "": any but pg_toast and the catalogue's own */
    char name[NAME_SIZE];
} NameWish;

/* "table", "schema.table", "database.schema.table", each part plain or in double quotes. */
bool name_wish_parse(const char *text, NameWish *wish_out, CairnError *err) MUST_CHECK;

/* One relation file. Of a partitioned table: of each partition, under the table's name. */
typedef struct {
    uint32_t database;
    uint32_t oid; /* of the file's own relation */
    uint32_t relfilenode;
    uint32_t tablespace;
    char text[3 * NAME_SIZE]; /* "database.schema.name" */
} NamedFile;

typedef struct {
    NamedFile *files; /* malloc'ed */
    size_t count;
    size_t capacity;
    bool cut; /* there were more than NAMED_LIMIT */
} NamedFiles;
void named_files_free(NamedFiles *files);
/* Appends a copy, with this text. */
bool named_files_add(NamedFiles *files, const NamedFile *file, const char *text,
                     CairnError *err) MUST_CHECK;

/* A filter over lists of relations, from wherever they come: a NameCallbacks.relation. */
enum { NAME_ROOTS_LIMIT = 16 };
typedef struct {
    const NameWish *wish;
    uint32_t database; /* of the list that comes; set by name_filter_begin */
    char database_name[NAME_SIZE];
    uint32_t roots[NAME_ROOTS_LIMIT]; /* partitioned tables of that name */
    char root_schemas[NAME_ROOTS_LIMIT][NAME_SIZE];
    size_t root_count;
    NamedFiles *files; /* what was found is appended; borrowed */
} NameFilter;
void name_filter_begin(NameFilter *filter, uint32_t database, const char *database_name);
bool name_filter_relation(void *filter, const RelationName *relation, CairnError *err);

typedef struct Names Names;
/* The names of a backup. *lsn: where in WAL they were true. NULL without an error: it has none. */
Names *names_open(Repository *repository, const char *cluster, const Fate *backup,
                  CairnError *err) MUST_CHECK;
void names_free(Names *names);
uint64_t names_lsn(const Names *names);
SCOPED_TYPE(Names, names_free);

/* Appends what the wish names. */
bool names_find(Names *names, const NameWish *wish, NamedFiles *files_io,
                CairnError *err) MUST_CHECK;
/* The name behind a file; "" in *text_out where the backup does not know it. */
bool names_of_file(Names *names, uint32_t database, uint32_t relfilenode,
                   char text_out[3 * NAME_SIZE], CairnError *err) MUST_CHECK;
/* oid of a database; 0: unknown. And the reverse, "" when unknown. */
bool names_database(Names *names, const char *name, uint32_t *oid_out, CairnError *err) MUST_CHECK;
bool names_of_database(Names *names, uint32_t oid, char name_out[NAME_SIZE],
                       CairnError *err) MUST_CHECK;

#endif
