#include "storage/s3_config.h"

#include "storage/storage.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HOST_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_"

enum { BUCKET_MIN = 3, BUCKET_MAX = 255, PREFIX_MAX = 400 };

bool
s3_endpoint_parse(const char *text, S3Endpoint *endpoint_out)
{
    S3Endpoint endpoint = {.tls = true};
    if (strncmp(text, "https://", 8) == 0) {
        text += 8;
    } else if (strncmp(text, "http://", 7) == 0) {
        endpoint.tls = false;
        text += 7;
    }
    size_t size = text[0] == '[' ? strcspn(text, "]") : strspn(text, HOST_CHARS);
    if (text[0] == '[') {
        if (text[size] != ']' || strspn(text + 1, "0123456789abcdefABCDEF:.") != size - 1)
            return false;
        size++;
    }
    if (size == 0 || size >= sizeof endpoint.host)
        return false;
    memcpy(endpoint.host, text, size);
    text += size;
    endpoint.port = endpoint.tls ? 443 : 80;
    if (*text == ':') {
        const size_t digits = strspn(text + 1, "0123456789");
        endpoint.port = atoi(text + 1);
        if (digits < 1 || digits > 5 || endpoint.port < 1 || endpoint.port > 65535)
            return false;
        text += 1 + digits;
    }
    if (strcmp(text, "") != 0 && strcmp(text, "/") != 0)
        return false;
    *endpoint_out = endpoint;
    return true;
}

bool
s3_host_is_loopback(const char *host)
{
    struct in_addr address;
    const size_t size = strlen(host);
    if (inet_pton(AF_INET, host, &address) == 1)
        return ntohl(address.s_addr) >> 24 == 127;
    if (strcmp(host, "[::1]") == 0)
        return true;
    /* RFC 6761; libcurl resolves these without asking anybody. */
    return strcasecmp(host, "localhost") == 0 ||
           (size > 10 && strcasecmp(host + size - 10, ".localhost") == 0);
}

static bool
refuse(const RepositoryConfig *config, const char *key, const char *value, const char *what,
       CairnError *err)
{
    return cairn_error(err, CAIRN_USAGE, "repository '%s': %s = '%s' is not %s", config->name, key,
                       value, what);
}

static bool
check_endpoint(const RepositoryConfig *config, CairnError *err)
{
    const S3Config *s3 = &config->s3;
    S3Endpoint endpoint;
    if (s3->endpoint == NULL || s3->bucket == NULL) {
        cairn_error(err, CAIRN_USAGE, "repository '%s' has type = s3 but no %s", config->name,
                    s3->endpoint == NULL ? "endpoint" : "bucket");
        return cairn_error_hint(err,
                                "set endpoint = https://s3.REGION.amazonaws.com (or your store's) "
                                "and bucket = NAME in section [repository %s]",
                                config->name);
    }
    if (!s3_endpoint_parse(s3->endpoint, &endpoint))
        return refuse(config, "endpoint", s3->endpoint,
                      "https://HOST[:PORT]; bucket and prefix have keys of their own", err);
    if (endpoint.tls)
        return true;
    if (s3->plain_http == NULL || strcmp(s3->plain_http, "allowed") != 0 ||
        !s3_host_is_loopback(endpoint.host)) {
        refuse(config, "endpoint", s3->endpoint,
               "safe: without TLS, anybody on the way reads along", err);
        return cairn_error_hint(err, "use https, with ca-file for a private authority; for a test "
                                     "server on this machine's loopback set plain-http = allowed");
    }
    return true;
}

static bool
check_names(const RepositoryConfig *config, CairnError *err)
{
    const S3Config *s3 = &config->s3;
    const size_t size = strlen(s3->bucket);
    if (size < BUCKET_MIN || size > BUCKET_MAX || strspn(s3->bucket, HOST_CHARS) != size)
        return refuse(config, "bucket", s3->bucket, "a bucket's name", err);
    if (s3->prefix != NULL && s3->prefix[0] != '\0' &&
        (strlen(s3->prefix) > PREFIX_MAX || !storage_name_valid(s3->prefix)))
        return refuse(config, "prefix", s3->prefix,
                      "a path of letters, digits, '.', '_' and '-' without a '/' at its ends", err);
    return true;
}

static bool
check_lock(const RepositoryConfig *config, CairnError *err)
{
    const S3Config *s3 = &config->s3;
    const bool locks = s3->lock_mode != NULL;
    if (locks == (s3->lock_days > 0) && (locks || s3->lock_refresh_days == 0))
        return true;
    cairn_error(err, CAIRN_USAGE,
                "repository '%s': lock-mode and lock-days need each other, and lock-refresh-days "
                "both",
                config->name);
    return cairn_error_hint(err, "set lock-mode = governance (or compliance) and lock-days = DAYS");
}

int
s3_lock_refresh_days(const S3Config *config)
{
    if (config->lock_refresh_days > 0)
        return config->lock_refresh_days;
    return config->lock_days >= 8 ? config->lock_days / 4 : 1;
}

bool
s3_config_check(const RepositoryConfig *config, CairnError *err)
{
    return check_endpoint(config, err) && check_names(config, err) && check_lock(config, err);
}
