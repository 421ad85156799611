/*
 * Ownership by scope: `SCOPED(Type) name = ...;` frees with scoped_free_Type when the block ends,
 * `return take(&name)` is the only way out. A type joins by SCOPED_TYPE(Type, free_function) in its
 * own header; libraries' handles have their adapters at the bottom of the header that wraps them.
 */
#ifndef PGCAIRN_COMMON_SCOPED_H
#define PGCAIRN_COMMON_SCOPED_H

#include <stdlib.h>
#include <unistd.h>

#define SCOPED_TYPE(Type, free_function)                                                           \
    static inline void scoped_free_##Type(Type **handle)                                           \
    {                                                                                              \
        if (*handle != NULL)                                                                       \
            free_function(*handle);                                                                \
    }                                                                                              \
    struct scoped_##Type##_needs_a_semicolon

/* Declares a pointer `Type *` that its scope frees. */
#define SCOPED(Type) __attribute__((cleanup(scoped_free_##Type))) Type *

/* Hands a scoped pointer to the caller and leaves NULL behind. */
#define take(handle)                                                                               \
    ({                                                                                             \
        __typeof__(*(handle)) taken_ = *(handle);                                                  \
        *(handle) = NULL;                                                                          \
        taken_;                                                                                    \
    })

static inline void
scoped_free_memory(void *pointer)
{
    free(*(void **)pointer);
}

/* For plain malloc'ed memory: `SCOPED_MEMORY char *text = ...`. */
#define SCOPED_MEMORY __attribute__((cleanup(scoped_free_memory)))

static inline void
scoped_close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

/* For descriptors that were only read; what was written is closed and checked by hand. */
#define SCOPED_FD __attribute__((cleanup(scoped_close_fd))) int

static inline int
take_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

#endif
