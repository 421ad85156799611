#include "restore/names.h"

#include "postgres/wal_name.h"
#include "repository/json.h"
#include "restore/stored_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INDEX_LIMIT = 1 << 16, ENTRY_SIZE = 32 };

struct Names {
    FrameSource *source;
    FrameReader *frames;
    MapReader *map;
    uint64_t lsn;
    NameReader reader;
};

/* One part of a dotted name; false when there is none. */
static bool
take_part(const char **text_io, char part_out[NAME_SIZE])
{
    const char *at = *text_io;
    const bool quoted = *at == '"';
    size_t length = 0;

    at += quoted ? 1 : 0;
    for (; *at != '\0' && (quoted || *at != '.'); at++) {
        if (quoted && *at == '"' && *++at != '"')
            break;
        if (length + 1 >= NAME_SIZE)
            return false;
        part_out[length++] = !quoted && *at >= 'A' && *at <= 'Z' ? (char)(*at | 0x20) : *at;
    }
    part_out[length] = '\0';
    *text_io = at;
    return length > 0 && (*at == '.' || *at == '\0') && (!quoted || at[-1] == '"');
}

bool
name_wish_parse(const char *text, NameWish *wish_out, CairnError *err)
{
    char parts[3][NAME_SIZE] = {{0}};
    const char *at = text;
    size_t count = 0;
    bool good = true;

    for (bool more = true; good && more; count++) {
        good = count < 3 && take_part(&at, parts[count < 3 ? count : 0]);
        more = good && *at == '.';
        at += more ? 1 : 0;
    }
    if (!good || *at != '\0') {
        cairn_error(err, CAIRN_USAGE, "'%.200s' is no name of a table", text);
        return cairn_error_hint(err, "write table, schema.table or database.schema.table; names "
                                     "with capital letters in double quotes, as in SQL");
    }
    memset(wish_out, 0, sizeof *wish_out);
    memcpy(wish_out->name, parts[count - 1], NAME_SIZE);
    if (count > 1)
        memcpy(wish_out->schema, parts[count - 2], NAME_SIZE);
    if (count > 2)
        memcpy(wish_out->database, parts[0], NAME_SIZE);
    return true;
}

void
named_files_free(NamedFiles *files)
{
    free(files->files);
    *files = (NamedFiles){0};
}

bool
named_files_add(NamedFiles *files, const NamedFile *file, const char *text, CairnError *err)
{
    if (files->count == NAMED_LIMIT) {
        files->cut = true;
        return true;
    }
    if (files->count == files->capacity) {
        const size_t capacity = files->capacity == 0 ? 16 : files->capacity * 2;
        NamedFile *grown = reallocarray(files->files, capacity, sizeof *grown);
        if (grown == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        files->files = grown;
        files->capacity = capacity;
    }
    NamedFile *added = &files->files[files->count++];
    *added = *file;
    snprintf(added->text, sizeof added->text, "%s", text);
    return true;
}

static bool
add_file(NameFilter *filter, const RelationName *relation, const char *schema, CairnError *err)
{
    char text[3 * NAME_SIZE];
    snprintf(text, sizeof text, "%.255s.%.255s.%.255s", filter->database_name, schema,
             filter->wish->name);
    return named_files_add(filter->files,
                           &(NamedFile){.database = filter->database,
                                        .oid = relation->oid,
                                        .relfilenode = relation->relfilenode,
                                        .tablespace = relation->tablespace},
                           text, err);
}

static bool
is_wished(const NameWish *wish, const RelationName *relation)
{
    if (strcmp(relation->name, wish->name) != 0)
        return false;
    if (wish->schema[0] != '\0')
        return strcmp(relation->schema, wish->schema) == 0;
    return strncmp(relation->schema, "pg_", 3) != 0 &&
           strcmp(relation->schema, "information_schema") != 0;
}

void
name_filter_begin(NameFilter *filter, uint32_t database, const char *database_name)
{
    filter->database = database;
    filter->root_count = 0;
    snprintf(filter->database_name, sizeof filter->database_name, "%s", database_name);
}

static bool
add_partition(NameFilter *filter, const RelationName *relation, CairnError *err)
{
    for (size_t i = 0; i < filter->root_count && relation->root != 0; i++) {
        if (relation->root == filter->roots[i] && relation->relfilenode != 0 &&
            relation->kind == 'r')
            return add_file(filter, relation, filter->root_schemas[i], err);
    }
    return true;
}

/* Partitions come after their table. */
bool
name_filter_relation(void *context, const RelationName *relation, CairnError *err)
{
    NameFilter *filter = context;
    if (!is_wished(filter->wish, relation))
        return add_partition(filter, relation, err);
    if (relation->relfilenode != 0)
        return add_file(filter, relation, relation->schema, err);
    if (filter->root_count < NAME_ROOTS_LIMIT) {
        snprintf(filter->root_schemas[filter->root_count], NAME_SIZE, "%s", relation->schema);
        filter->roots[filter->root_count++] = relation->oid;
    }
    return true;
}

static bool
read_index(Names *names, bool *found_out, CairnError *err)
{
    SCOPED_MEMORY char *text = NULL;
    size_t size;
    if (!stored_file_read(names->map, names->frames, MAP_CLASS_OURS, "names/index", INDEX_LIMIT,
                          &text, &size, err))
        return false;
    *found_out = text != NULL;
    if (text == NULL)
        return true;
    SCOPED_JSON json_t *index = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    const char *lsn = json_string_value(json_object_get(index, "lsn"));
    return (lsn != NULL && lsn_parse(lsn, &names->lsn)) ||
           cairn_error(err, CAIRN_CORRUPT, "the backup's 'names/index' is malformed");
}

Names *
names_open(Repository *repository, const char *cluster, const Fate *backup, CairnError *err)
{
    bool found = false;
    SCOPED(Names) names = calloc(1, sizeof *names);
    if (names == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    names->map = map_reader_open(repository, cluster, &backup->map_root, err);
    if (names->map == NULL)
        return NULL;
    names->source = frame_source_new(repository, cluster, 0, err);
    if (names->source == NULL)
        return NULL;
    names->frames = frame_reader_new(names->source, err);
    if (names->frames == NULL || !read_index(names, &found, err) || !found)
        return NULL;
    return take(&names);
}

void
names_free(Names *names)
{
    if (names == NULL)
        return;
    frame_reader_free(names->frames);
    frame_source_free(names->source);
    map_reader_free(names->map);
    free(names);
}

uint64_t
names_lsn(const Names *names)
{
    return names->lsn;
}

/* Feeds one list to callbacks; *found_out false when the backup has none of that name. */
static bool
read_list(Names *names, const char *entry_name, const NameCallbacks *callbacks, bool *found_out,
          CairnError *err)
{
    MapEntry entry;
    bool whole;
    if (!stored_file_find(names->map, MAP_CLASS_OURS, entry_name, &entry, found_out, err))
        return false;
    if (!*found_out)
        return true;
    name_reader_begin(&names->reader, callbacks);
    return (stored_file_stream(names->map, names->frames, &entry, name_reader_feed, &names->reader,
                               err) &&
            name_reader_finish(&names->reader, &whole, err)) ||
           cairn_error_wrap(err, "%s", entry_name);
}

/* The databases that a wish may mean, gathered first: lists are read one at a time. */
typedef struct {
    const char *name; /* NULL or "": all */
    uint32_t oid;     /* 0: any */
    DatabaseName *found;
    char (*texts)[NAME_SIZE];
    size_t count;
    size_t capacity;
} DatabaseList;

static bool
gather_database(void *context, const DatabaseName *database, CairnError *err)
{
    DatabaseList *list = context;
    if ((list->name != NULL && list->name[0] != '\0' && strcmp(list->name, database->name) != 0) ||
        (list->oid != 0 && list->oid != database->oid))
        return true;
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity == 0 ? 64 : list->capacity * 2;
        DatabaseName *found = reallocarray(list->found, capacity, sizeof *found);
        if (found != NULL)
            list->found = found;
        char(*texts)[NAME_SIZE] = reallocarray(list->texts, capacity, sizeof *texts);
        if (texts != NULL)
            list->texts = texts;
        if (found == NULL || texts == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        list->capacity = capacity;
    }
    list->found[list->count] = *database;
    snprintf(list->texts[list->count++], NAME_SIZE, "%s", database->name);
    return true;
}

static void
database_list_free(DatabaseList *list)
{
    free(list->found);
    free(list->texts);
}

static bool
read_databases(Names *names, DatabaseList *list, CairnError *err)
{
    const NameCallbacks callbacks = {.database = gather_database, .context = list};
    bool found;
    return read_list(names, "names/databases", &callbacks, &found, err);
}

bool
names_find(Names *names, const NameWish *wish, NamedFiles *files_io, CairnError *err)
{
    __attribute__((cleanup(database_list_free))) DatabaseList list = {.name = wish->database};
    if (!read_databases(names, &list, err))
        return false;
    for (size_t i = 0; i < list.count; i++) {
        NameFilter filter = {.wish = wish, .files = files_io};
        const NameCallbacks callbacks = {.relation = name_filter_relation, .context = &filter};
        char entry[ENTRY_SIZE];
        bool found;
        name_filter_begin(&filter, list.found[i].oid, list.texts[i]);
        snprintf(entry, sizeof entry, "names/%" PRIu32, list.found[i].oid);
        if (!read_list(names, entry, &callbacks, &found, err))
            return false;
    }
    return true;
}

typedef struct {
    uint32_t relfilenode;
    char *text_out;
    const char *database_name;
} FileSearch;

static bool
match_file(void *context, const RelationName *relation, CairnError *err)
{
    const FileSearch *search = context;
    (void)err;
    if (relation->relfilenode != search->relfilenode)
        return true;
    snprintf(search->text_out, (size_t)3 * NAME_SIZE, "%.255s.%.255s.%.255s", search->database_name,
             relation->schema, relation->name);
    return false;
}

bool
names_of_file(Names *names, uint32_t database, uint32_t relfilenode, char text_out[3 * NAME_SIZE],
              CairnError *err)
{
    char name[NAME_SIZE];
    char entry[ENTRY_SIZE];
    bool found;
    FileSearch search = {.relfilenode = relfilenode, .text_out = text_out, .database_name = name};
    const NameCallbacks callbacks = {.relation = match_file, .context = &search};

    text_out[0] = '\0';
    snprintf(entry, sizeof entry, "names/%" PRIu32, database);
    return names_of_database(names, database, name, err) &&
           read_list(names, entry, &callbacks, &found, err);
}

bool
names_database(Names *names, const char *name, uint32_t *oid_out, CairnError *err)
{
    __attribute__((cleanup(database_list_free))) DatabaseList list = {.name = name};
    if (!read_databases(names, &list, err))
        return false;
    *oid_out = list.count > 0 ? list.found[0].oid : 0;
    return true;
}

bool
names_of_database(Names *names, uint32_t oid, char name_out[NAME_SIZE], CairnError *err)
{
    __attribute__((cleanup(database_list_free))) DatabaseList list = {.oid = oid};
    if (!read_databases(names, &list, err))
        return false;
    snprintf(name_out, NAME_SIZE, "%s", list.count > 0 ? list.texts[0] : "");
    return true;
}
