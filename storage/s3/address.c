#include "storage/s3/address.h"

#include "storage/s3_config.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static bool
ends_with(const char *text, const char *end)
{
    const size_t size = strlen(text), end_size = strlen(end);
    return size >= end_size && strcasecmp(text + size - end_size, end) == 0;
}

/* auto: the stores that have stopped, or may stop, to know anything else get virtual style. A dot
 * in the bucket would not match their certificate. */
static bool
is_virtual(const S3Config *config, const S3Endpoint *endpoint)
{
    if (config->uri_style != NULL && strcmp(config->uri_style, "auto") != 0)
        return strcmp(config->uri_style, "virtual") == 0;
    return ends_with(endpoint->host, ".amazonaws.com") && strchr(config->bucket, '.') == NULL;
}

bool
s3_address(const S3Config *config, S3Address *address_out, CairnError *err)
{
    S3Endpoint endpoint;
    S3Address address = {0};
    char port[16] = "";
    if (!s3_endpoint_parse(config->endpoint, &endpoint))
        return cairn_error(err, CAIRN_USAGE, "'%s' is no endpoint", config->endpoint);
    if (endpoint.port != (endpoint.tls ? 443 : 80))
        snprintf(port, sizeof port, ":%d", endpoint.port);
    address.in_path = !is_virtual(config, &endpoint);
    snprintf(address.bucket, sizeof address.bucket, "%s", config->bucket);
    const int size = address.in_path
                         ? snprintf(address.host, sizeof address.host, "%s%s", endpoint.host, port)
                         : snprintf(address.host, sizeof address.host, "%s.%s%s", address.bucket,
                                    endpoint.host, port);
    if (size < 0 || (size_t)size >= sizeof address.host)
        return cairn_error(err, CAIRN_USAGE, "endpoint '%.100s...' is too long", config->endpoint);
    snprintf(address.base, sizeof address.base, "%s://%s", endpoint.tls ? "https" : "http",
             address.host);
    if (config->prefix != NULL && config->prefix[0] != '\0')
        snprintf(address.prefix, sizeof address.prefix, "%s/", config->prefix);
    *address_out = address;
    return true;
}

bool
s3_key(const S3Address *address, const char *name, char *key, CairnError *err)
{
    const int size = snprintf(key, S3_KEY_LIMIT + 1, "%s%s", address->prefix, name);
    if (size > S3_KEY_LIMIT)
        return cairn_error(err, CAIRN_USAGE, "'%s%.100s' is longer than a key may be",
                           address->prefix, name);
    return true;
}

void
s3_path(const S3Address *address, const char *key, char *path)
{
    if (address->in_path)
        snprintf(path, S3_PATH_SIZE, key != NULL ? "/%s/%s" : "/%s", address->bucket, key);
    else
        snprintf(path, S3_PATH_SIZE, "/%s", key != NULL ? key : "");
}
