#include "agent/retention_policy.h"

#include "common/calendar.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define RULE_NAMES "pitr, full, last, hourly, daily, weekly, monthly, yearly or min"

enum { WORD_SIZE = 24 };

typedef struct {
    const char *text;
    const char *at;
    CairnError *err;
} PolicyReader;

typedef struct {
    const char *name;
    RetentionRuleKind kind;
    bool takes_count;
    bool takes_duration;
} RuleName;

static const RuleName RULES[] = {
    {"pitr", RETAIN_PITR, false, true},       {"full", RETAIN_FULL, true, true},
    {"last", RETAIN_LAST, true, false},       {"hourly", RETAIN_HOURLY, true, false},
    {"daily", RETAIN_DAILY, true, false},     {"weekly", RETAIN_WEEKLY, true, false},
    {"monthly", RETAIN_MONTHLY, true, false}, {"yearly", RETAIN_YEARLY, true, false},
    {"min", RETAIN_MIN, true, false},         {"redundancy", RETAIN_LAST, true, false},
};

static const char UNITS[] = "hdwmy"; /* as RetentionUnit */

static void
skip_blanks(PolicyReader *reader)
{
    reader->at += strspn(reader->at, " \t");
}

/* Always false. `at` is where the trouble stands. */
static bool
expected(const PolicyReader *reader, const char *at, const char *what)
{
    const int shown = (int)strcspn(at, " \t;");
    const int position = (int)(at - reader->text) + 1;
    if (shown == 0)
        cairn_error(reader->err, CAIRN_USAGE,
                    "retention '%.200s': expected %s at position %d, where it ends", reader->text,
                    what, position);
    else
        cairn_error(reader->err, CAIRN_USAGE,
                    "retention '%.200s': expected %s at position %d, not '%.*s'", reader->text,
                    what, position, shown < 40 ? shown : 40, at);
    return cairn_error_hint(reader->err,
                            "a policy looks like: pitr 14d; daily 30; weekly 12; monthly 24; "
                            "yearly 7; min 2");
}

/* Letters, as small ones; "" when none stand here or too many for any word of ours. */
static void
read_word(PolicyReader *reader, char word[WORD_SIZE])
{
    skip_blanks(reader);
    size_t size = 0;
    while (isalpha((unsigned char)reader->at[size]))
        size++;
    word[0] = '\0';
    if (size >= WORD_SIZE)
        return;
    for (size_t i = 0; i < size; i++)
        word[i] = (char)tolower((unsigned char)reader->at[i]);
    word[size] = '\0';
    reader->at += size;
}

static bool
read_count(PolicyReader *reader, const char *what, uint32_t *count_out)
{
    skip_blanks(reader);
    const char *start = reader->at;
    uint32_t count = 0;
    while (isdigit((unsigned char)*reader->at) && count <= RETENTION_COUNT_LIMIT)
        count = 10 * count + (uint32_t)(*reader->at++ - '0');
    if (reader->at == start)
        return expected(reader, start, what);
    if (count == 0 || count > RETENTION_COUNT_LIMIT)
        return expected(reader, start, "a number from 1 to 10000");
    *count_out = count;
    return true;
}

static bool
read_amount(PolicyReader *reader, const RuleName *name, RetentionRule *rule)
{
    const char *what = !name->takes_duration ? "a number"
                       : !name->takes_count  ? "a duration such as 14d"
                                             : "a number or a duration such as 14d";
    if (!read_count(reader, what, &rule->count))
        return false;
    const char *after = reader->at;
    const char unit = (char)tolower((unsigned char)*after);
    const char *known = unit != '\0' ? strchr(UNITS, unit) : NULL;
    if (isalpha((unsigned char)unit)) {
        if (!name->takes_duration)
            return expected(reader, after, "a plain number of backups");
        if (known == NULL || isalnum((unsigned char)after[1]))
            return expected(reader, after, "one of the units h, d, w, m, y");
        rule->unit = (RetentionUnit)(known - UNITS);
        reader->at++;
        if (rule->kind == RETAIN_FULL)
            rule->kind = RETAIN_FULL_TIME;
        return true;
    }
    if (!name->takes_count)
        return expected(reader, after, "one of the units h, d, w, m, y");
    return true;
}

/* What follows "recovery": "window of 4 weeks". */
static bool
read_recovery_window(PolicyReader *reader, RetentionRule *rule)
{
    static const struct {
        const char *name;
        RetentionUnit unit;
    } NAMES[] = {{"day", RETENTION_DAYS},     {"days", RETENTION_DAYS},
                 {"week", RETENTION_WEEKS},   {"weeks", RETENTION_WEEKS},
                 {"month", RETENTION_MONTHS}, {"months", RETENTION_MONTHS}};
    static const char *const WORDS[] = {"window", "of"};
    char word[WORD_SIZE];
    for (size_t i = 0; i < 2; i++) {
        skip_blanks(reader);
        const char *start = reader->at;
        read_word(reader, word);
        if (strcmp(word, WORDS[i]) != 0)
            return expected(reader, start, "'recovery window of 4 weeks'");
    }
    rule->kind = RETAIN_PITR;
    if (!read_count(reader, "a number", &rule->count))
        return false;
    skip_blanks(reader);
    const char *start = reader->at;
    read_word(reader, word);
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        if (strcmp(word, NAMES[i].name) == 0) {
            rule->unit = NAMES[i].unit;
            return true;
        }
    }
    return expected(reader, start, "days, weeks or months");
}

static bool
read_rule(PolicyReader *reader, RetentionRule *rule)
{
    char word[WORD_SIZE];
    skip_blanks(reader);
    const char *start = reader->at;
    read_word(reader, word);
    *rule = (RetentionRule){0};
    if (strcmp(word, "recovery") == 0)
        return read_recovery_window(reader, rule);
    for (size_t i = 0; i < sizeof RULES / sizeof RULES[0]; i++) {
        if (strcmp(word, RULES[i].name) != 0)
            continue;
        rule->kind = RULES[i].kind;
        return read_amount(reader, &RULES[i], rule);
    }
    return expected(reader, start, RULE_NAMES);
}

static bool
add_rule(const PolicyReader *reader, const char *at, const RetentionRule *rule,
         RetentionPolicy *policy)
{
    char text[RETENTION_RULE_TEXT_SIZE];
    for (size_t i = 0; i < policy->count; i++) {
        if (policy->rules[i].kind != rule->kind)
            continue;
        retention_rule_format(&policy->rules[i], text);
        cairn_error(reader->err, CAIRN_USAGE,
                    "retention '%.200s': position %d says again what '%s' has said", reader->text,
                    (int)(at - reader->text) + 1, text);
        return cairn_error_hint(reader->err, "say each rule once");
    }
    CAIRN_ASSERT(policy->count < RETENTION_RULES_LIMIT);
    policy->rules[policy->count++] = *rule;
    return true;
}

static bool
check_whole(const PolicyReader *reader, const RetentionPolicy *policy)
{
    if (policy->count != 1 || policy->rules[0].kind != RETAIN_MIN)
        return true;
    cairn_error(reader->err, CAIRN_USAGE,
                "retention '%.200s': 'min' is a floor below other rules, and there are none",
                reader->text);
    return cairn_error_hint(reader->err, "'last %u' keeps the newest %u",
                            (unsigned)policy->rules[0].count, (unsigned)policy->rules[0].count);
}

bool
retention_policy_parse(const char *text, RetentionPolicy *policy_out, CairnError *err)
{
    RetentionPolicy policy = {0};
    if (text == NULL || strcasecmp(text, "none") == 0) {
        *policy_out = policy;
        return true;
    }
    PolicyReader reader = {.text = text, .at = text, .err = err};
    for (;;) {
        RetentionRule rule;
        skip_blanks(&reader);
        const char *start = reader.at;
        if (!read_rule(&reader, &rule) || !add_rule(&reader, start, &rule, &policy))
            return false;
        skip_blanks(&reader);
        if (*reader.at == ';') {
            reader.at++;
            skip_blanks(&reader);
        } else if (*reader.at != '\0') {
            return expected(&reader, reader.at, "';' or the end");
        }
        if (*reader.at == '\0')
            break;
    }
    if (!check_whole(&reader, &policy))
        return false;
    *policy_out = policy;
    return true;
}

void
retention_rule_format(const RetentionRule *rule, char text[RETENTION_RULE_TEXT_SIZE])
{
    static const char *const NAMES[] = {
        [RETAIN_PITR] = "pitr",     [RETAIN_FULL] = "full",       [RETAIN_FULL_TIME] = "full",
        [RETAIN_LAST] = "last",     [RETAIN_HOURLY] = "hourly",   [RETAIN_DAILY] = "daily",
        [RETAIN_WEEKLY] = "weekly", [RETAIN_MONTHLY] = "monthly", [RETAIN_YEARLY] = "yearly",
        [RETAIN_MIN] = "min"};
    const bool is_duration = rule->kind == RETAIN_PITR || rule->kind == RETAIN_FULL_TIME;
    const char unit[] = {is_duration ? UNITS[rule->unit] : '\0', '\0'};
    snprintf(text, RETENTION_RULE_TEXT_SIZE, "%s %u%s", NAMES[rule->kind], (unsigned)rule->count,
             unit);
}

void
retention_policy_format(const RetentionPolicy *policy, char text[RETENTION_TEXT_SIZE])
{
    if (policy->count == 0) {
        snprintf(text, RETENTION_TEXT_SIZE, "none");
        return;
    }
    size_t size = 0;
    for (size_t i = 0; i < policy->count; i++) {
        char rule[RETENTION_RULE_TEXT_SIZE];
        retention_rule_format(&policy->rules[i], rule);
        size += (size_t)snprintf(text + size, RETENTION_TEXT_SIZE - size, "%s%s", i > 0 ? "; " : "",
                                 rule);
    }
}

int64_t
retention_window_start(const RetentionRule *rule, int64_t now_us)
{
    switch (rule->unit) {
    case RETENTION_HOURS:
        return now_us - rule->count * INT64_C(3600) * CALENDAR_SECOND_US;
    case RETENTION_DAYS:
        return now_us - rule->count * CALENDAR_DAY_US;
    case RETENTION_WEEKS:
        return now_us - rule->count * 7 * CALENDAR_DAY_US;
    case RETENTION_MONTHS:
        return calendar_months_before(now_us, rule->count);
    case RETENTION_YEARS:
        break;
    }
    return calendar_months_before(now_us, 12 * (int64_t)rule->count);
}

bool
retention_rule_is_continuous(const RetentionRule *rule)
{
    return rule->kind == RETAIN_PITR || rule->kind == RETAIN_FULL ||
           rule->kind == RETAIN_FULL_TIME || rule->kind == RETAIN_LAST;
}
