/*
 * Option tables: one row an option, shared help, one parser for both programs.
 *
 * A command declares its rows; parsing fills the row's target. Long options with "--name value" or
 * "--name=value", short aliases, "--no-name" for flags. Unknown options are USAGE errors that name
 * the nearest known one. Positional arguments are returned in order.
 */
#ifndef PGCAIRN_CLI_OPTIONS_H
#define PGCAIRN_CLI_OPTIONS_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { OPTION_FLAG, OPTION_TEXT, OPTION_INTEGER, OPTION_SIZE, OPTION_LIST } OptionKind;

enum { OPTION_LIST_LIMIT = 256 };
typedef struct {
    const char *values[OPTION_LIST_LIMIT];
    size_t count;
} OptionList;

typedef struct {
    const char *name; /* without dashes */
    char short_name;  /* 0: none */
    OptionKind kind;
    void *target;           /* bool, const char *, int64_t, uint64_t, OptionList */
    const char *value_name; /* for help: "DIR" */
    const char *help;       /* NULL: an alias that help does not list */
} Option;

typedef struct {
    const char *name;      /* "backup" */
    const char *synopsis;  /* "pgcairn backup [options]" */
    const char *summary;   /* one line */
    const char *examples;  /* lines, each with a leading "  " */
    const Option *options; /* name NULL ends */
} CommandHelp;

/* Options that every command takes. */
typedef struct {
    const char *config;
    const char *cluster;
    const char *repository;
    const char *log_level;
    const char *output; /* text | json */
    bool help;
} CommonOptions;

/*
 * argv[0] is the command's name. positional_out holds positional_limit pointers. After success the
 * caller asks common->help first.
 */
bool options_parse(const CommandHelp *command, CommonOptions *common, int argc, char **argv,
                   const char **positional_out, size_t positional_limit,
                   size_t *positional_count_out, CairnError *err) MUST_CHECK;
void options_print_help(const CommandHelp *command);

/* Options that every command takes may stand before it, as in pgBackRest: argv[1] becomes the
 * command. */
void options_command_first(int argc, char **argv);

#endif
