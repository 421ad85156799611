/*
 * The one exported function of pgcairn_s3.so, and what the program does for it: in the file, these
 * stand for common/cancel.c and common/log.c, whose state is the program's.
 */
#include "storage/driver.h"

#include "common/cancel.h"
#include "storage/s3/s3.h"

#include <stdio.h>

__attribute__((visibility("default"))) StorageDriverFunction pgcairn_storage_driver;

static const StorageHost *program;

static const StorageDriver DRIVER = {
    .version = PGCAIRN_VERSION,
    .sizes = STORAGE_DRIVER_SIZES,
    .open = s3_storage_open,
};

const StorageDriver *
pgcairn_storage_driver(const StorageHost *host)
{
    program = host;
    return &DRIVER;
}

bool
cancel_requested(void)
{
    return program->cancel_requested();
}

bool
cancel_check(CairnError *err)
{
    return program->cancel_check(err);
}

LogLevel
log_level(void)
{
    return program->log_level();
}

void
log_message(LogLevel level, const char *format, ...)
{
    char text[CAIRN_ERROR_MESSAGE_SIZE + CAIRN_ERROR_HINT_SIZE];
    if (level > program->log_level())
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    program->log_text(level, text);
}
