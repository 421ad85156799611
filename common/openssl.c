#include "common/openssl.h"

#include "common/libcrypto.h"

bool
openssl_error(CairnError *err, const char *what)
{
    char text[256] = "no reason given";
    const unsigned long code = ERR_get_error();
    if (code != 0)
        ERR_error_string_n(code, text, sizeof text);
    ERR_clear_error();
    return cairn_error(err, CAIRN_INTERNAL, "unable to %s: %s", what, text);
}
