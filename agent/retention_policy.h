/*
 * What shall be kept, in one line: `pitr 14d; daily 30; weekly 12; monthly 24; yearly 7; min 2`
 * (docs/retention.md says what each rule means).
 *
 *     policy   = "none" | rule { ";" rule }           letters of either case
 *     rule     = "pitr" duration                      every moment of that time back
 *              | "full" (count | duration)            pgBackRest: repo1-retention-full[-type=time]
 *              | "last" count
 *              | ("hourly" | "daily" | "weekly" | "monthly" | "yearly") count
 *              | "min" count                          never fewer than so many good ones
 *              | "recovery window of" n ("days" | "weeks" | "months")     Barman, means pitr
 *              | "redundancy" count                                       Barman, means last
 *     duration = n ("h" | "d" | "w" | "m" | "y")      hours .. calendar months and years
 *
 * Ownership: plain values. Errors: USAGE with the position, what stands there, and what was
 * expected. Threads: pure.
 */
#ifndef PGCAIRN_AGENT_RETENTION_POLICY_H
#define PGCAIRN_AGENT_RETENTION_POLICY_H

#include "common/error.h"

#include <stddef.h>
#include <stdint.h>

typedef enum {
    RETAIN_PITR,
    RETAIN_FULL,      /* newest count fulls and everything since the oldest of them */
    RETAIN_FULL_TIME, /* everything since the newest full that is at least so old */
    RETAIN_LAST,      /* newest count of any type */
    RETAIN_HOURLY, /* the newest one of each of the newest count hours that have any; and so on */
    RETAIN_DAILY,
    RETAIN_WEEKLY,
    RETAIN_MONTHLY,
    RETAIN_YEARLY,
    RETAIN_MIN,
} RetentionRuleKind;

typedef enum {
    RETENTION_HOURS,
    RETENTION_DAYS,
    RETENTION_WEEKS,
    RETENTION_MONTHS,
    RETENTION_YEARS,
} RetentionUnit;

typedef struct {
    RetentionRuleKind kind;
    uint32_t count; /* 1 .. RETENTION_COUNT_LIMIT; of units where the kind takes a duration */
    RetentionUnit unit;
} RetentionRule;

enum {
    RETENTION_RULES_LIMIT = 10, /* each kind once */
    RETENTION_COUNT_LIMIT = 10000,
    RETENTION_RULE_TEXT_SIZE = 32,
    RETENTION_TEXT_SIZE = RETENTION_RULES_LIMIT * RETENTION_RULE_TEXT_SIZE,
};

/* No rules: nothing is ever deleted. */
typedef struct {
    RetentionRule rules[RETENTION_RULES_LIMIT];
    size_t count;
} RetentionPolicy;

/* text NULL or "none": no rules. */
bool retention_policy_parse(const char *text, RetentionPolicy *policy_out,
                            CairnError *err) MUST_CHECK;
/* In the words of the grammar, so that it can be read again; "none" without rules. */
void retention_policy_format(const RetentionPolicy *policy, char text[RETENTION_TEXT_SIZE]);
void retention_rule_format(const RetentionRule *rule, char text[RETENTION_RULE_TEXT_SIZE]);

/* The moment one duration before now_us: months and years by the calendar. */
int64_t retention_window_start(const RetentionRule *rule, int64_t now_us);
/* Does the rule promise every moment from its oldest backup on, and so the WAL between? */
bool retention_rule_is_continuous(const RetentionRule *rule);

#endif
