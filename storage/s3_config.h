/*
 * The S3 part of a [repository] section, checked without loading the driver.
 *
 * Pure. Errors: USAGE, which name the key and what it may be. Threads: any.
 */
#ifndef PGCAIRN_STORAGE_S3_CONFIG_H
#define PGCAIRN_STORAGE_S3_CONFIG_H

#include "common/config.h"
#include "common/error.h"

#include <stdbool.h>

typedef struct {
    bool tls;
    char host[256]; /* an IPv6 address in brackets */
    int port;
} S3Endpoint;

/* "https://host[:port]", "http://...", or a host alone, which means https. A path, a user or
   anything odd is refused. */
bool s3_endpoint_parse(const char *text, S3Endpoint *endpoint_out);

/* Is that the name or number of a loopback address? */
bool s3_host_is_loopback(const char *host);

/* As configured, else a quarter of lock-days, and one day at least. */
int s3_lock_refresh_days(const S3Config *config);

bool s3_config_check(const RepositoryConfig *config, CairnError *err) MUST_CHECK;

#endif
