/*
 * What `expire` and `backup` share: the policy from option, environment and file; carrying it out;
 * saying what was done.
 */
#ifndef PGCAIRN_CLI_RETENTION_OPTIONS_H
#define PGCAIRN_CLI_RETENTION_OPTIONS_H

#include "agent/expire.h"
#include "cli/session.h"

/* text: --retention, or NULL: what the configuration says. USAGE with the position. */
bool cli_retention_policy(const char *text, const CliSession *session, RetentionPolicy *policy_out,
                          CairnError *err) MUST_CHECK;
/* --accept, several or separated by commas, to the bits of retention_plan_make. */
bool cli_retention_accepted(const OptionList *list, unsigned *accepted_out,
                            CairnError *err) MUST_CHECK;

void cli_expire_report_text(const ExpirePlan *plan, const ExpireReport *report, ByteWriter *text);
json_t *cli_expire_report_json(const ExpirePlan *plan, const ExpireReport *report);

#endif
