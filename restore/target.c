#include "restore/target.h"

#include "common/timestamp.h"
#include "postgres/wal_name.h"
#include "restore/zone.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const TYPE_NAMES[] = {
    [TARGET_DEFAULT] = "default", [TARGET_IMMEDIATE] = "immediate",
    [TARGET_TIME] = "time",       [TARGET_LSN] = "lsn",
    [TARGET_XID] = "xid",         [TARGET_NAME] = "name",
    [TARGET_STANDBY] = "standby", [TARGET_NONE] = "none",
};
enum { TYPE_COUNT = sizeof TYPE_NAMES / sizeof TYPE_NAMES[0] };

static const char *const ACTION_NAMES[] = {
    [ACTION_UNSAID] = NULL,
    [ACTION_PAUSE] = "pause",
    [ACTION_PROMOTE] = "promote",
    [ACTION_SHUTDOWN] = "shutdown",
};
enum { ACTION_COUNT = sizeof ACTION_NAMES / sizeof ACTION_NAMES[0] };

const char *
target_type_name(TargetType type)
{
    return TYPE_NAMES[type];
}

const char *
target_action_name(TargetAction action)
{
    return ACTION_NAMES[action];
}

static bool
type_takes_value(TargetType type)
{
    return type == TARGET_TIME || type == TARGET_LSN || type == TARGET_XID || type == TARGET_NAME;
}

/* The one type that the options ask for, and its value. */
static bool
choose_type(const TargetOptions *options, TargetType *type_out, const char **value_out,
            CairnError *err)
{
    const struct {
        TargetType type;
        const char *value;
    } short_forms[] = {
        {TARGET_TIME, options->time},
        {TARGET_LSN, options->lsn},
        {TARGET_XID, options->xid},
        {TARGET_NAME, options->name},
        {TARGET_IMMEDIATE, options->immediate ? "" : NULL},
    };
    size_t said = 0;

    *type_out = TARGET_DEFAULT;
    *value_out = NULL;
    for (size_t i = 0; i < sizeof short_forms / sizeof short_forms[0]; i++) {
        if (short_forms[i].value == NULL)
            continue;
        *type_out = short_forms[i].type;
        *value_out = short_forms[i].value;
        said++;
    }
    if (said > 1 || (said == 1 && (options->type != NULL || options->value != NULL))) {
        cairn_error(err, CAIRN_USAGE, "more than one recovery target was given");
        return cairn_error_hint(err, "give one of --time, --lsn, --xid, --name, --immediate, or "
                                     "--type with --target");
    }
    if (said == 1 || (options->type == NULL && options->value == NULL))
        return true;
    if (options->type == NULL) {
        cairn_error(err, CAIRN_USAGE, "--target was given without --type");
        return cairn_error_hint(err, "say what it is: --time, --lsn, --xid or --name instead");
    }

    for (int i = 0; i < TYPE_COUNT; i++) {
        if (strcmp(options->type, TYPE_NAMES[i]) != 0)
            continue;
        *type_out = (TargetType)i;
        *value_out = options->value;
        if (type_takes_value(*type_out) == (options->value != NULL))
            return true;
        return cairn_error(err, CAIRN_USAGE, "--type=%s %s --target", options->type,
                           options->value != NULL ? "takes no" : "needs a");
    }
    cairn_error(err, CAIRN_USAGE, "unknown recovery type '%.60s'", options->type);
    return cairn_error_hint(err, "one of default, immediate, time, lsn, xid, name, standby, none");
}

static bool
parse_number(const char *text, uint64_t limit, uint64_t *number_out)
{
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    const int base = strncmp(text, "0x", 2) == 0 ? 16 : 10;
    const unsigned long long number = strtoull(text, &end, base);
    if (errno != 0 || *end != '\0' || number > limit)
        return false;
    *number_out = number;
    return true;
}

/* Whatever PostgreSQL would take, but nothing that a settings file could be broken with. */
static bool
parse_name(const char *value, Target *target, CairnError *err)
{
    const size_t length = strlen(value);
    if (length == 0 || length > TARGET_NAME_LIMIT) {
        return cairn_error(err, CAIRN_USAGE, "a restore point's name has 1 to %d bytes",
                           TARGET_NAME_LIMIT);
    }
    if (strpbrk(value, "\r\n") != NULL)
        return cairn_error(err, CAIRN_USAGE, "a restore point's name has no line breaks");
    memcpy(target->name, value, length + 1);
    return true;
}

static bool
parse_value(const TargetOptions *options, const char *value, Target *target, CairnError *err)
{
    switch (target->type) {
    case TARGET_TIME:
        return zone_read_time(value, options->timezone, &target->time_us, err);
    case TARGET_LSN:
        if (!lsn_parse(value, &target->lsn) || target->lsn == 0) {
            cairn_error(err, CAIRN_USAGE, "unable to read LSN '%.60s'", value);
            return cairn_error_hint(err, "write it like 0/3000028");
        }
        return true;
    case TARGET_XID:
        /* 64 bits as of pg_current_xact_id(); the server compares the lower half. */
        if (!parse_number(value, UINT64_MAX, &target->xid) || (uint32_t)target->xid < 3)
            return cairn_error(err, CAIRN_USAGE, "unable to read transaction id '%.60s'", value);
        return true;
    case TARGET_NAME:
        return parse_name(value, target, err);
    default:
        return true;
    }
}

static bool
parse_timeline(const char *text, Target *target, CairnError *err)
{
    uint64_t number;
    if (text == NULL)
        return true;
    if (strcmp(text, "latest") == 0) {
        target->timeline_choice = TIMELINE_LATEST;
    } else if (strcmp(text, "current") == 0) {
        target->timeline_choice = TIMELINE_CURRENT;
    } else if (parse_number(text, UINT32_MAX, &number) && number > 0) {
        target->timeline_choice = TIMELINE_NUMBER;
        target->timeline = (uint32_t)number;
    } else {
        cairn_error(err, CAIRN_USAGE, "unable to read --target-timeline '%.60s'", text);
        return cairn_error_hint(err, "latest, current, or a number such as 2 or 0x2");
    }
    return true;
}

static bool
parse_action(const char *text, Target *target, CairnError *err)
{
    if (text == NULL)
        return true;
    for (int i = ACTION_PAUSE; i < ACTION_COUNT; i++) {
        if (strcmp(text, ACTION_NAMES[i]) != 0)
            continue;
        target->action = (TargetAction)i;
        if (type_takes_value(target->type) || target->type == TARGET_IMMEDIATE)
            return true;
        cairn_error(err, CAIRN_USAGE, "--target-action has no meaning with --type=%s",
                    target_type_name(target->type));
        return cairn_error_hint(err, "PostgreSQL acts only where recovery stops at a target");
    }
    return cairn_error(err, CAIRN_USAGE,
                       "unknown --target-action '%.60s' (pause, promote, shutdown)", text);
}

bool
target_parse(const TargetOptions *options, Target *target_out, CairnError *err)
{
    Target target = {.exclusive = options->exclusive};
    const char *value;

    if (!choose_type(options, &target.type, &value, err) ||
        !parse_value(options, value, &target, err) ||
        !parse_timeline(options->timeline, &target, err) ||
        !parse_action(options->action, &target, err)) {
        return false;
    }
    if (target.exclusive && target.type != TARGET_TIME && target.type != TARGET_LSN &&
        target.type != TARGET_XID) {
        return cairn_error(err, CAIRN_USAGE,
                           "--target-exclusive has no meaning with --type=%s (time, lsn, xid)",
                           target_type_name(target.type));
    }
    *target_out = target;
    return true;
}

void
target_describe(char text[TARGET_TEXT_SIZE], const Target *target)
{
    char value[TIMESTAMP_TEXT_SIZE + LSN_TEXT_SIZE + TARGET_NAME_LIMIT] = "";

    switch (target->type) {
    case TARGET_TIME:
        timestamp_format(value, target->time_us);
        break;
    case TARGET_LSN:
        lsn_format(value, target->lsn);
        break;
    case TARGET_XID:
        snprintf(value, sizeof value, "%" PRIu64, target->xid);
        break;
    case TARGET_NAME:
        snprintf(value, sizeof value, "'%s'", target->name);
        break;
    default:
        break;
    }
    snprintf(text, TARGET_TEXT_SIZE, "%s%s%s%s", target_type_name(target->type),
             *value != '\0' ? " " : "", value, target->exclusive ? ", exclusive" : "");
}
