#include "repository/host.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* First line of a small system file; "" when it cannot be read. These are the kernel's answers
   about this very process, not stored data, so they do not go through the World. */
static void
read_line(const char *path, char *line, size_t size)
{
    line[0] = '\0';
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return;
    if (fgets(line, (int)size, file) == NULL)
        line[0] = '\0';
    fclose(file);
    line[strcspn(line, "\n")] = '\0';
}

/* Start time of a process, 0 when there is none. Field 22 follows the name, which may hold
 * anything. */
static uint64_t
process_start(int pid)
{
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    read_line(path, line, sizeof line);
    const char *at = strrchr(line, ')');
    if (at == NULL)
        return 0;
    unsigned long long start = 0;
    if (sscanf(at + 1,
               " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               &start) != 1)
        return 0;
    return start;
}

void
host_boot_id(char boot_id_out[HOST_BOOT_ID_SIZE])
{
    read_line("/proc/sys/kernel/random/boot_id", boot_id_out, HOST_BOOT_ID_SIZE);
}

void
host_self(Host *host_out)
{
    memset(host_out, 0, sizeof *host_out);
    if (gethostname(host_out->host, sizeof host_out->host - 1) != 0)
        host_out->host[0] = '\0';
    read_line("/etc/machine-id", host_out->machine_id, sizeof host_out->machine_id);
    host_boot_id(host_out->boot_id);
    host_out->pid = (int)getpid();
    host_out->process_start = process_start(host_out->pid);
}

bool
host_is_dead(const Host *host)
{
    Host self;
    host_self(&self);
    if (self.boot_id[0] == '\0' || host->boot_id[0] == '\0')
        return false;
    if (strcmp(host->boot_id, self.boot_id) == 0) {
        /* Containers share a boot id but not process numbers: the host name must agree as well. */
        return strcmp(host->host, self.host) == 0 &&
               process_start(host->pid) != host->process_start;
    }
    return host->machine_id[0] != '\0' && strcmp(host->machine_id, self.machine_id) == 0 &&
           strcmp(host->host, self.host) == 0;
}

json_t *
host_json(void)
{
    Host self;
    host_self(&self);
    return json_pack("{s:s, s:i, s:s}", "host", self.host, "pid", self.pid, "program",
                     "pgcairn " PGCAIRN_VERSION);
}

bool
host_put(json_t *object)
{
    Host self;
    host_self(&self);
    SCOPED_JSON json_t *fields = json_pack(
        "{s:s, s:s, s:s, s:i, s:o}", "host", self.host, "machine_id", self.machine_id, "boot_id",
        self.boot_id, "pid", self.pid, "process_start", json_u64_text(self.process_start));
    return fields != NULL && json_object_update(object, fields) == 0;
}

static void
read_text(JsonReader *fields, const char *field, char *text, size_t size)
{
    const char *value = json_read_text(fields, field);
    if (strlen(value) >= size)
        json_reader_fail(fields, field);
    else
        memcpy(text, value, strlen(value) + 1);
}

void
host_read(JsonReader *fields, Host *host_out)
{
    Host host = {0};
    read_text(fields, "host", host.host, sizeof host.host);
    read_text(fields, "machine_id", host.machine_id, sizeof host.machine_id);
    read_text(fields, "boot_id", host.boot_id, sizeof host.boot_id);
    host.pid = (int)json_read_integer(fields, "pid", 1, INT32_MAX);
    host.process_start = json_read_u64_text(fields, "process_start");
    *host_out = host;
}
