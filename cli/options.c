#include "cli/options.h"

#include "common/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COMMON_COUNT = 8, HELP_COLUMN = 30, NEAR_ENOUGH = 3, NAME_LIMIT = 64 };

/* One argument taken apart: "--name=value", "--no-name", "-x". */
typedef struct {
    const char *text; /* as typed, for messages */
    char name[NAME_LIMIT];
    const char *value; /* NULL: none attached */
    bool negated;
} Argument;

/* The rows of CommonOptions, the last one empty. */
static void
fill_common(Option options[COMMON_COUNT], CommonOptions *common)
{
    const Option rows[COMMON_COUNT] = {
        {"config", 'c', OPTION_TEXT, &common->config, "FILE",
         "configuration file (default " CONFIG_DEFAULT_PATH ")"},
        {"cluster", 0, OPTION_TEXT, &common->cluster, "NAME",
         "cluster (not needed where one is configured)"},
        {"stanza", 0, OPTION_TEXT, &common->cluster, "NAME", NULL},
        {"repository", 0, OPTION_TEXT, &common->repository, "NAME",
         "one of those that are configured (default: all that the cluster names)"},
        {"log-level", 0, OPTION_TEXT, &common->log_level, "LEVEL", "error, warn, info or debug"},
        {"output", 'o', OPTION_TEXT, &common->output, "FORMAT", "text or json"},
        {"help", 'h', OPTION_FLAG, &common->help, NULL, "this text"},
        {.name = NULL},
    };
    memcpy(options, rows, sizeof rows);
}

static const Option *
find_named(const Option *options, const char *name)
{
    for (const Option *option = options; option->name != NULL; option++) {
        if (strcmp(option->name, name) == 0)
            return option;
    }
    return NULL;
}

static const Option *
find_short(const Option *options, char short_name)
{
    for (const Option *option = options; option->name != NULL; option++) {
        if (option->short_name == short_name)
            return option;
    }
    return NULL;
}

/* Edits that turn one name into the other: insert, delete, replace. */
static size_t
edit_distance(const char *from, const char *to)
{
    size_t row[NAME_LIMIT + 1];
    const size_t to_size = strlen(to);

    if (to_size > NAME_LIMIT)
        return SIZE_MAX;
    for (size_t k = 0; k <= to_size; k++)
        row[k] = k;
    for (size_t i = 0; from[i] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t k = 0; k < to_size; k++) {
            const size_t replaced = diagonal + (from[i] != to[k]);
            const size_t shifted = (row[k] < row[k + 1] ? row[k] : row[k + 1]) + 1;
            diagonal = row[k + 1];
            row[k + 1] = replaced < shifted ? replaced : shifted;
        }
    }
    return row[to_size];
}

static void
find_nearest(const Option *options, const char *name, const char **nearest, size_t *distance)
{
    for (const Option *option = options; option->name != NULL; option++) {
        const size_t found = edit_distance(name, option->name);
        if (found < *distance) {
            *distance = found;
            *nearest = option->name;
        }
    }
}

static bool
refuse_unknown(const CommandHelp *command, const Option *common, const Argument *argument,
               CairnError *err)
{
    const char *nearest = NULL;
    size_t distance = NEAR_ENOUGH + 1;

    if (argument->name[0] != '\0') {
        find_nearest(common, argument->name, &nearest, &distance);
        if (command->options != NULL)
            find_nearest(command->options, argument->name, &nearest, &distance);
    }
    cairn_error(err, CAIRN_USAGE, "%s: unknown option '%s'", command->name, argument->text);
    if (nearest != NULL)
        return cairn_error_hint(err, "did you mean --%s?", nearest);
    return cairn_error_hint(err, "`%s --help` lists the options", command->name);
}

static bool
store_integer(const Option *option, const char *value, CairnError *err)
{
    char *end;

    errno = 0;
    const long long number = strtoll(value, &end, 10);
    if (errno != 0 || end == value || *end != '\0') {
        return cairn_error(err, CAIRN_USAGE, "--%s takes a whole number, not '%s'", option->name,
                           value);
    }
    *(int64_t *)option->target = number;
    return true;
}

static bool
store_value(const Option *option, const char *value, CairnError *err)
{
    switch (option->kind) {
    case OPTION_TEXT:
        *(const char **)option->target = value;
        return true;
    case OPTION_INTEGER:
        return store_integer(option, value, err);
    case OPTION_SIZE:
        if (!parse_size(value, option->target)) {
            return cairn_error(err, CAIRN_USAGE, "--%s takes a size such as 64MiB, not '%s'",
                               option->name, value);
        }
        return true;
    case OPTION_LIST: {
        OptionList *list = option->target;
        if (list->count == OPTION_LIST_LIMIT) {
            return cairn_error(err, CAIRN_USAGE, "--%s is given more than %d times", option->name,
                               OPTION_LIST_LIMIT);
        }
        list->values[list->count++] = value;
        return true;
    }
    case OPTION_FLAG:
        break;
    }
    CAIRN_ASSERT(option->kind != OPTION_FLAG);
    return false;
}

/* *next is the index of the argument after this one, and moves on when that is the value. */
static bool
apply(const Option *option, const Argument *argument, int argc, char **argv, int *next,
      CairnError *err)
{
    const char *value = argument->value;

    if (option->kind == OPTION_FLAG) {
        if (value != NULL)
            return cairn_error(err, CAIRN_USAGE, "--%s takes no value", option->name);
        *(bool *)option->target = !argument->negated;
        return true;
    }
    if (value == NULL) {
        if (*next >= argc)
            return cairn_error(err, CAIRN_USAGE, "--%s needs a value", option->name);
        value = argv[(*next)++];
    }
    return store_value(option, value, err);
}

/* "--name", "--name=value"; false when the name is too long to be any of ours. */
static bool
split_long(const char *text, Argument *argument)
{
    const char *name = text + 2;
    const char *equals = strchr(name, '=');
    const size_t size = equals != NULL ? (size_t)(equals - name) : strlen(name);

    *argument = (Argument){.text = text, .value = equals != NULL ? equals + 1 : NULL};
    if (size >= sizeof argument->name)
        return false;
    memcpy(argument->name, name, size);
    return true;
}

static const Option *
find_long(const CommandHelp *command, const Option *common, Argument *argument)
{
    /* The command's own rows come first: it may give a common name another meaning. */
    const Option *const tables[] = {command->options, common};

    for (size_t i = 0; i < 2; i++) {
        const Option *option = tables[i] != NULL ? find_named(tables[i], argument->name) : NULL;
        if (option != NULL)
            return option;
    }
    for (size_t i = 0; i < 2 && strncmp(argument->name, "no-", 3) == 0; i++) {
        const Option *option = tables[i] != NULL ? find_named(tables[i], argument->name + 3) : NULL;
        if (option != NULL && option->kind == OPTION_FLAG) {
            argument->negated = true;
            return option;
        }
    }
    return NULL;
}

/* "-x", "-x value", "-xvalue"; flags do not join into one argument. */
static const Option *
find_short_argument(const CommandHelp *command, const Option *common, const char *text,
                    Argument *argument)
{
    const Option *option = command->options != NULL ? find_short(command->options, text[1]) : NULL;

    if (option == NULL)
        option = find_short(common, text[1]);
    *argument = (Argument){.text = text, .value = text[2] != '\0' ? text + 2 : NULL};
    return option;
}

bool
options_parse(const CommandHelp *command, CommonOptions *common, int argc, char **argv,
              const char **positional_out, size_t positional_limit, size_t *positional_count_out,
              CairnError *err)
{
    Option common_options[COMMON_COUNT];
    bool only_positional = false;
    size_t count = 0;

    fill_common(common_options, common);
    for (int next = 1; next < argc;) {
        const char *text = argv[next++];
        const Option *option = NULL;
        Argument argument;

        if (!only_positional && strcmp(text, "--") == 0) {
            only_positional = true;
            continue;
        }
        if (only_positional || text[0] != '-' || text[1] == '\0') {
            if (count == positional_limit) {
                cairn_error(err, CAIRN_USAGE, "%s: unexpected argument '%s'", command->name, text);
                return cairn_error_hint(err, "usage: %s", command->synopsis);
            }
            positional_out[count++] = text;
            continue;
        }
        if (text[1] != '-')
            option = find_short_argument(command, common_options, text, &argument);
        else if (split_long(text, &argument))
            option = find_long(command, common_options, &argument);
        if (option == NULL)
            return refuse_unknown(command, common_options, &argument, err);
        if (!apply(option, &argument, argc, argv, &next, err))
            return cairn_error_wrap(err, "%s", command->name);
    }
    *positional_count_out = count;
    return true;
}

static void
print_option(const Option *option)
{
    char left[2 * NAME_LIMIT];
    int size = 0;

    if (option->help == NULL)
        return;
    if (option->short_name != 0)
        size = snprintf(left, sizeof left, "-%c, ", option->short_name);
    snprintf(left + size, sizeof left - (size_t)size, "--%s%s%s", option->name,
             option->value_name != NULL ? " " : "",
             option->value_name != NULL ? option->value_name : "");
    printf("  %-*s %s\n", HELP_COLUMN, left, option->help);
}

void
options_print_help(const CommandHelp *command)
{
    CommonOptions common;
    Option common_options[COMMON_COUNT];

    printf("%s\n\nUsage: %s\n", command->summary, command->synopsis);
    if (command->options != NULL && command->options->name != NULL) {
        printf("\nOptions:\n");
        for (const Option *option = command->options; option->name != NULL; option++)
            print_option(option);
    }
    printf("\nCommon options:\n");
    fill_common(common_options, &common);
    for (const Option *option = common_options; option->name != NULL; option++)
        print_option(option);
    if (command->examples != NULL)
        printf("\nExamples:\n%s%s", command->examples,
               command->examples[strlen(command->examples) - 1] == '\n' ? "" : "\n");
}

static bool
takes_value(const char *argument)
{
    static const char *const names[] = {"--config",     "--cluster",   "--stanza",
                                        "--repository", "--log-level", "--output"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(argument, names[i]) == 0)
            return true;
    }
    return false;
}

void
options_command_first(int argc, char **argv)
{
    int at = 1;
    while (at < argc && strncmp(argv[at], "--", 2) == 0)
        at += takes_value(argv[at]) ? 2 : 1;
    if (at >= argc)
        return;
    char *command = argv[at];
    memmove(argv + 2, argv + 1, (size_t)(at - 1) * sizeof *argv);
    argv[1] = command;
}
