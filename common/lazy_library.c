#include "common/lazy_library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

enum { EXIT_AS_DYNAMIC_LINKER = 127 };

static _Noreturn void
give_up(void)
{
    const char *why = dlerror();

    fprintf(stderr, "ERROR: unable to load a library: %s\n", why != NULL ? why : "unknown");
    _exit(EXIT_AS_DYNAMIC_LINKER);
}

void *
lazy_library_open(const char *file)
{
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);

    if (library == NULL)
        give_up();
    return library;
}

void *
lazy_library_find(void *library, const char *function)
{
    void *found = dlsym(library, function);

    if (found == NULL)
        give_up();
    return found;
}
