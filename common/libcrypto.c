#include "common/libcrypto.h"

#include "common/lazy_library.h"

#include <pthread.h>
#include <stdbool.h>

#define LIBRARY "libcrypto.so." LAZY_LIBRARY_VERSION(OPENSSL_SHLIB_VERSION)

static Libcrypto functions;
static bool skips_config; /* written before there is a thread */
static pthread_once_t load_once = PTHREAD_ONCE_INIT;

void
libcrypto_skip_config(void)
{
    skips_config = true;
}

static void
load(void)
{
    void *library = lazy_library_open(LIBRARY);

    /* As POSIX shows how a function is taken from dlsym. */
#define FIND(name) *(void **)&functions.name = lazy_library_find(library, #name);
    LIBCRYPTO_FUNCTIONS(FIND)
#undef FIND
    /* We use the default provider only: its configuration file would cost more time than the
     * digests. */
    if (skips_config)
        (functions.OPENSSL_init_crypto)(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL);
}

const Libcrypto *
libcrypto(void)
{
    pthread_once(&load_once, load);
    return &functions;
}
