/* What secret.c and secret_command.c share; nobody else includes this. */
#ifndef PGCAIRN_COMMON_SECRET_INTERN_H
#define PGCAIRN_COMMON_SECRET_INTERN_H

#include "common/secret.h"

/* Takes the last newline off; what is left must be one line that is not empty (USAGE). `from` is
   for messages. */
bool secret_trim_line(Secret *secret, const char *from, CairnError *err) MUST_CHECK;

#endif
