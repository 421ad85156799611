/*
 * Lines for people on standard error: `LEVEL: message`. The only global besides main's
 * configuration. Never secrets: callers pass what may be seen.
 */
#ifndef PGCAIRN_COMMON_LOG_H
#define PGCAIRN_COMMON_LOG_H

#include "common/error.h"

typedef enum { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG } LogLevel;

void log_set_level(LogLevel level);
/* False when name is none of error, warn, info, debug. */
bool log_level_parse(const char *name, LogLevel *level_out) MUST_CHECK;
LogLevel log_level(void);
void log_message(LogLevel level, const char *format, ...) PRINTF_LIKE(2, 3);
#define log_warn(...) log_message(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_message(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_message(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* "ERROR: <message>" and, when there is one, "HINT: <hint>". */
void log_error(const CairnError *err);
/* The hint that log_error prints: the error's own, or what any failure of its kind asks for. NULL:
   none. */
const char *log_hint(const CairnError *err);

#endif
