#include "storage/driver_load.h"

#include "common/cancel.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define S3_FILE "pgcairn_s3.so"

static void
log_text(LogLevel level, const char *text)
{
    log_message(level, "%s", text);
}

static const StorageHost HOST = {
    .cancel_requested = cancel_requested,
    .cancel_check = cancel_check,
    .log_level = log_level,
    .log_text = log_text,
};

static pthread_mutex_t load_mutex = PTHREAD_MUTEX_INITIALIZER;
static const StorageDriver *loaded; /* under the mutex */

/* The program's directory, without a slash at its end. */
static bool
program_directory(char *directory, size_t size, CairnError *err)
{
    const ssize_t length = readlink("/proc/self/exe", directory, size - 1);
    if (length < 0)
        return cairn_error_errno(err, "unable to find out where this program is");
    directory[length] = '\0';
    char *slash = strrchr(directory, '/');
    if (slash == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "'%s' is no path", directory);
    *slash = '\0';
    return true;
}

static bool
find_file(char *path, size_t size, CairnError *err)
{
    static const char *const PLACES[] = {"", "/../lib/pgcairn"};
    char directory[PATH_MAX - sizeof "/../lib/pgcairn/" S3_FILE];
    if (!program_directory(directory, sizeof directory, err))
        return false;
    for (size_t i = 0; i < sizeof PLACES / sizeof PLACES[0]; i++) {
        snprintf(path, size, "%s%s/" S3_FILE, directory, PLACES[i]);
        if (access(path, R_OK) == 0)
            return true;
    }
    cairn_error(err, CAIRN_UNSUPPORTED,
                "type = s3 needs " S3_FILE ", which is neither in %s nor in %s/../lib/pgcairn",
                directory, directory);
    return cairn_error_hint(err, "install it; `make install` does");
}

static const StorageDriver *
load(CairnError *err)
{
    char path[PATH_MAX];
    if (!find_file(path, sizeof path, err))
        return NULL;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    StorageDriverFunction *function = NULL;
    if (library != NULL)
        *(void **)&function = dlsym(library, STORAGE_DRIVER_SYMBOL); /* as POSIX shows it */
    if (function == NULL) {
        const char *why = dlerror();
        cairn_error(err, CAIRN_UNSUPPORTED, "unable to load '%s': %s", path,
                    why != NULL ? why : "no driver in it");
        cairn_error_hint(err, "is libcurl installed (Debian: libcurl4)?");
        return NULL;
    }
    const StorageDriver *driver = function(&HOST);
    if (strcmp(driver->version, PGCAIRN_VERSION) != 0 || driver->sizes != STORAGE_DRIVER_SIZES) {
        cairn_error(err, CAIRN_UNSUPPORTED, "'%s' is of version %s, this program of %s", path,
                    driver->version, PGCAIRN_VERSION);
        cairn_error_hint(err, "install both from the same build");
        return NULL;
    }
    return driver;
}

const StorageDriver *
storage_driver_s3(CairnError *err)
{
    pthread_mutex_lock(&load_mutex);
    if (loaded == NULL)
        loaded = load(err);
    const StorageDriver *driver = loaded;
    pthread_mutex_unlock(&load_mutex);
    return driver;
}
