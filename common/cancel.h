/*
 * SIGINT, SIGTERM and SIGHUP end what runs: the handler sets a flag, long loops ask for it.
 * SIGPIPE is ignored. Crash-only design: being killed is as safe, only less tidy.
 */
#ifndef PGCAIRN_COMMON_CANCEL_H
#define PGCAIRN_COMMON_CANCEL_H

#include "common/error.h"

void cancel_install(void);
bool cancel_requested(void);
/* False with CANCELLED once a signal has come. */
bool cancel_check(CairnError *err) MUST_CHECK;

#endif
