#include "storage/ssh.h"

#include "common/libcrypto.h"
#include "storage/ssh_intern.h"

#include <stdio.h>
#include <string.h>

enum {
    CONNECT_MS = 60 * 1000,
    STALL_MS = 60 * 1000,
    RECONNECT_MS = 120 * 1000,
    WORD_LIMIT = 64,
    NUMBER_SIZE = 8,
    /* host, remote-program and ssh-command together: they name the place (storage_place_text). */
    CONFIG_SIZE_LIMIT = 900,
    /* Names of one directory, all of them in memory while they are gone through. */
    LISTING_LIMIT = 64 << 20,
};

static const StorageOps SSH_OPS;

/* ---- asking ---- */

SshName
ssh_name(const char *name)
{
    SshName result;
    const size_t size = strlen(name);
    CAIRN_ASSERT(size <= STORAGE_NAME_LIMIT);
    put_u16(result.bytes, (uint16_t)size);
    memcpy(result.bytes + 2, name, size);
    result.size = 2 + size;
    return result;
}

bool
ssh_call(SshStorage *storage, const SshCall *call, CairnError *err)
{
    for (int attempt = 1;; attempt++) {
        uint64_t generation;
        if (!ssh_link_connect(storage->link, &generation, err))
            return false;
        if (call->payload != NULL)
            byte_writer_reset(call->payload);
        SshRequest request = {.payload = call->payload,
                              .payload_limit = call->payload_limit,
                              .listing = call->listing};
        ssh_link_send(storage->link, generation, &request, call->type, 0, call->body,
                      call->body_size);
        ssh_link_wait(storage->link, &request);
        if (request.state == SSH_ANSWERED)
            return call->payload == NULL || byte_writer_check(call->payload, err);
        if (request.state == SSH_REFUSED || attempt == SSH_ATTEMPTS) {
            *err = request.err;
            return false;
        }
    }
}

static bool
take_number(const ByteWriter *payload, uint64_t *value_out, CairnError *err)
{
    if (payload->size != NUMBER_SIZE)
        return cairn_error(err, CAIRN_UNAVAILABLE, "the repository host's answer is malformed");
    *value_out = get_u64(payload->data);
    return true;
}

bool
ssh_call_named(SshStorage *storage, SshFrameType type, const char *name, uint64_t *value_out,
               CairnError *err)
{
    const SshName body = ssh_name(name);
    SCOPED_BYTES ByteWriter payload = {0};
    const SshCall call = {.type = type,
                          .body = body.bytes,
                          .body_size = body.size,
                          .payload = value_out != NULL ? &payload : NULL,
                          .payload_limit = NUMBER_SIZE};
    return ssh_call(storage, &call, err) &&
           (value_out == NULL || take_number(&payload, value_out, err));
}

/* ---- the operations ---- */

/* Calls back for each entry; the connection is free meanwhile, since callbacks use the storage. */
static bool
pass_entries(const ByteWriter *listed, StorageListCallback *callback, void *context,
             CairnError *err)
{
    ByteReader in = byte_reader(listed->data, listed->size);
    while (byte_reader_left(&in) > 0) {
        char name[STORAGE_NAME_LIMIT + 1];
        StorageEntry entry = {.name = name};
        entry.is_directory = byte_reader_u8(&in) != 0;
        entry.size_bytes = byte_reader_u64(&in);
        entry.modified_us = (int64_t)byte_reader_u64(&in);
        ssh_get_name(&in, name, STORAGE_NAME_LIMIT);
        if (in.failed || !storage_name_valid(name) || strchr(name, '/') != NULL)
            return cairn_error(err, CAIRN_UNAVAILABLE,
                               "the repository host's listing is malformed");
        switch (callback(context, &entry, err)) {
        case STORAGE_LIST_GO_ON:
            break;
        case STORAGE_LIST_STOP:
            return true;
        case STORAGE_LIST_FAILED:
            CAIRN_ASSERT(err->kind != CAIRN_OK);
            return false;
        }
    }
    return in.failed
               ? cairn_error(err, CAIRN_UNAVAILABLE, "the repository host's listing is malformed")
               : true;
}

static bool
ssh_list(Storage *base, const char *prefix, StorageListCallback *callback, void *context,
         CairnError *err)
{
    const SshName body = ssh_name(prefix);
    SCOPED_BYTES ByteWriter listed = {0};
    const SshCall call = {.type = SSH_LIST,
                          .body = body.bytes,
                          .body_size = body.size,
                          .payload = &listed,
                          .payload_limit = LISTING_LIMIT,
                          .listing = true};
    return ssh_call((SshStorage *)base, &call, err) &&
           pass_entries(&listed, callback, context, err);
}

static bool
ssh_exists(Storage *base, const char *name, uint64_t *size_out, CairnError *err)
{
    return ssh_call_named((SshStorage *)base, SSH_EXISTS, name, size_out, err);
}

static bool
ssh_make_durable(Storage *base, const char *name, CairnError *err)
{
    return ssh_call_named((SshStorage *)base, SSH_DURABLE, name, NULL, err);
}

static bool
ssh_remove(Storage *base, const char *name, CairnError *err)
{
    return ssh_call_named((SshStorage *)base, SSH_REMOVE, name, NULL, err);
}

static bool
ssh_prune(Storage *base, const char *prefix, CairnError *err)
{
    return ssh_call_named((SshStorage *)base, SSH_PRUNE, prefix, NULL, err);
}

static bool
ssh_free_space(Storage *base, uint64_t *bytes_out, CairnError *err)
{
    SCOPED_BYTES ByteWriter payload = {0};
    const SshCall call = {
        .type = SSH_FREE_SPACE, .payload = &payload, .payload_limit = NUMBER_SIZE};
    return ssh_call((SshStorage *)base, &call, err) && take_number(&payload, bytes_out, err);
}

static bool
ssh_sweep(Storage *base, const char *prefix, int64_t older_than_us, CairnError *err)
{
    const SshName name = ssh_name(prefix);
    uint8_t body[8 + sizeof name.bytes];
    put_u64(body, (uint64_t)older_than_us);
    memcpy(body + 8, name.bytes, name.size);
    const SshCall call = {.type = SSH_SWEEP, .body = body, .body_size = 8 + name.size};
    return ssh_call((SshStorage *)base, &call, err);
}

static bool
ssh_is_create_only(Storage *base)
{
    SshWelcome welcome;
    ssh_link_welcome(((SshStorage *)base)->link, &welcome);
    return welcome.create_only;
}

static StorageMemory
ssh_memory(Storage *base)
{
    (void)base;
    return (StorageMemory){.reader_bytes = SSH_FIXED_MEMORY + SSH_AHEAD_LIMIT};
}

static void
ssh_set_patience(Storage *base, int64_t patience_ms)
{
    ssh_link_set_patience(((SshStorage *)base)->link, patience_ms);
}

static void
ssh_close(Storage *base)
{
    SshStorage *storage = (SshStorage *)base;
    ssh_link_free(storage->link);
    OPENSSL_cleanse(storage->digest_key, sizeof storage->digest_key);
    free(storage->argv);
    free(storage->words);
    free(storage->host);
    free(storage);
}

/* ---- opening ---- */

static SshStorage *
storage_new(const World *world, const char *host, CairnError *err)
{
    SshStorage *storage = calloc(1, sizeof *storage);
    char *host_copy = strdup(host);
    if (storage == NULL || host_copy == NULL) {
        free(storage);
        free(host_copy);
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    storage->base.ops = &SSH_OPS;
    storage->world = world;
    storage->host = host_copy;
    if (world->random->fill(world->random, storage->digest_key, sizeof storage->digest_key) != 0) {
        cairn_error_errno(err, "unable to draw random bytes");
        ssh_close(&storage->base);
        return NULL;
    }
    return storage;
}

static bool
connect_first(SshStorage *storage, const SshLinkOptions *options, CairnError *err)
{
    uint64_t generation;
    storage->link = ssh_link_new(options, err);
    return storage->link != NULL && ssh_link_connect(storage->link, &generation, err);
}

Storage *
ssh_storage_over(const World *world, const SshStorageOptions *options, CairnError *err)
{
    SshStorage *storage = storage_new(world, options->host, err);
    if (storage == NULL)
        return NULL;
    SCOPED(Storage) result = &storage->base;
    const SshLinkOptions link = {.world = world,
                                 .host = storage->host,
                                 .start = options->start,
                                 .context = options->context,
                                 .create = options->create,
                                 .connect_ms = options->connect_ms,
                                 .stall_ms = options->stall_ms,
                                 .reconnect_ms = options->reconnect_ms};
    return connect_first(storage, &link, err) ? take(&result) : NULL;
}

static bool
start_ssh(void *context, SshChild *child_out, CairnError *err)
{
    const SshStorage *storage = context;
    return ssh_child_start(storage->argv, child_out, err);
}

/* The words of command, the host, and the command over there as one word: ssh would join several.
 */
static bool
make_argv(SshStorage *storage, const SshConfig *config, CairnError *err)
{
    const char *command = config->command != NULL ? config->command : SSH_DEFAULT_COMMAND;
    const char *program = config->program != NULL ? config->program : SSH_DEFAULT_PROGRAM;
    char *words = NULL;
    const int size = asprintf(&words, "%s%c%s serve --stdio", command, '\0', program);
    storage->words = size >= 0 ? words : NULL;
    storage->argv = calloc(WORD_LIMIT + 3, sizeof *storage->argv);
    if (storage->words == NULL || storage->argv == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    char *remote = storage->words + strlen(command) + 1;
    size_t count = 0;
    char *rest = NULL;
    for (char *word = strtok_r(storage->words, " \t", &rest); word != NULL;
         word = strtok_r(NULL, " \t", &rest)) {
        if (count == WORD_LIMIT)
            return cairn_error(err, CAIRN_USAGE, "ssh-command has more than %d words", WORD_LIMIT);
        storage->argv[count++] = word;
    }
    if (count == 0)
        return cairn_error(err, CAIRN_USAGE, "ssh-command is empty");
    storage->argv[count++] = storage->host;
    storage->argv[count++] = remote;
    return true;
}

bool
ssh_config_check(const RepositoryConfig *config, CairnError *err)
{
    static const char PLAIN[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                "._/+=,:@%- ";
    const char *host = config->ssh.host;
    const char *program = config->ssh.program;
    if (host == NULL) {
        cairn_error(err, CAIRN_USAGE, "repository '%s' needs the name of its host", config->name);
        return cairn_error_hint(err,
                                "set host = pgcairn@backup.example.com in section [repository "
                                "%s]",
                                config->name);
    }
    if (host[0] == '-' || host[0] == '\0' || strpbrk(host, " \t\r\n") != NULL)
        return cairn_error(err, CAIRN_USAGE, "repository '%s': '%.100s' is no name of a host",
                           config->name, host);
    if (strlen(host) + (program != NULL ? strlen(program) : 0) +
            (config->ssh.command != NULL ? strlen(config->ssh.command) : 0) +
            (config->path != NULL ? strlen(config->path) : 0) >
        CONFIG_SIZE_LIMIT) {
        cairn_error(err, CAIRN_USAGE,
                    "repository '%s': host, path, remote-program and ssh-command are longer than "
                    "%d bytes",
                    config->name, CONFIG_SIZE_LIMIT);
        return cairn_error_hint(err, "put options of ssh into ~/.ssh/config");
    }
    if (program != NULL &&
        (program[0] == '-' || program[0] == '\0' || program[strspn(program, PLAIN)] != '\0')) {
        cairn_error(
            err, CAIRN_USAGE,
            "repository '%s': remote-program has characters that a shell takes for something "
            "else",
            config->name);
        return cairn_error_hint(err, "remote-program = /usr/bin/pgcairn, and options such as "
                                     "--config FILE");
    }
    return true;
}

Storage *
ssh_storage_open(const World *world, const RepositoryConfig *config, bool create, CairnError *err)
{
    if (!ssh_config_check(config, err))
        return NULL;
    SshStorage *storage = storage_new(world, config->ssh.host, err);
    if (storage == NULL)
        return NULL;
    SCOPED(Storage) result = &storage->base;
    if (!make_argv(storage, &config->ssh, err))
        return NULL;
    const SshLinkOptions link = {.world = world,
                                 .host = storage->host,
                                 .start = start_ssh,
                                 .context = storage,
                                 .create = create,
                                 .connect_ms = CONNECT_MS,
                                 .stall_ms = STALL_MS,
                                 .reconnect_ms = RECONNECT_MS};
    return connect_first(storage, &link, err) ? take(&result) : NULL;
}

/* Through one connection, whose requests need not wait for each other's answers. */
static int
ssh_requests_at_once(Storage *base)
{
    (void)base;
    return 8;
}

/* Not is_local: other hosts use it as well. */
static const StorageOps SSH_OPS = {
    .close = ssh_close,
    .create = ssh_create,
    .open = ssh_open,
    .list = ssh_list,
    .exists = ssh_exists,
    .make_durable = ssh_make_durable,
    .remove = ssh_remove,
    .free_space = ssh_free_space,
    .sweep = ssh_sweep,
    .prune = ssh_prune,
    .is_create_only = ssh_is_create_only,
    .memory = ssh_memory,
    .set_patience = ssh_set_patience,
    .requests_at_once = ssh_requests_at_once,
};
