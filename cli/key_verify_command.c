#include "agent/keys.h"
#include "cli/key_commands.h"
#include "cli/session.h"
#include "repository/key_verify.h"
#include "repository/verify.h"

#include <inttypes.h>
#include <stdio.h>

typedef struct {
    CommonOptions common;
    KeyChoice choice;
    bool full;
} VerifyArguments;

typedef struct {
    KeyProof proof;
    char slot[KEY_SLOT_NAME_LIMIT + 1];
    bool full;
    uint64_t objects; /* read in full */
    uint64_t findings;
} VerifyResult;

/* Every byte of the newest backup and of the WAL that it needs. */
static bool
read_all(Repository *repository, const char *cluster, VerifyResult *result, CairnError *err)
{
    const VerifyOptions options = {.cluster = cluster, .selector = "latest", .scope = VERIFY_FULL};
    SCOPED(VerifyReport) report = verify_run(repository, &options, err);
    if (report == NULL)
        return false;
    result->full = true;
    result->objects = report->object_count;
    result->findings = report->finding_count;
    return true;
}

static bool
prove(const World *world, const VerifyArguments *arguments, const CliSession *session,
      VerifyResult *result, CairnError *err)
{
    RepositoryConfig config;
    if (!keys_override(session->repository, &arguments->choice, &config, err))
        return false;
    SCOPED(Repository) repository = repository_open(world, &config, err);
    if (repository == NULL)
        return false;
    if (!repository_is_encrypted(repository))
        return cairn_error(err, CAIRN_USAGE, "repository '%s' is not encrypted: it has no keys",
                           config.name);
    snprintf(result->slot, sizeof result->slot, "%s", repository_key_slot(repository));
    return key_verify(repository, session->cluster->name, &result->proof, err) &&
           (!arguments->full || !result->proof.has_backup ||
            read_all(repository, session->cluster->name, result, err));
}

static json_t *
result_json(const VerifyResult *result)
{
    const KeyProof *proof = &result->proof;
    json_t *full = result->full ? json_pack("{s:I, s:I}", "objects", (json_int_t)result->objects,
                                            "findings", (json_int_t)result->findings)
                                : json_null();
    return json_pack(
        "{s:s, s:s?, s:s?, s:I, s:s?, s:o, s:s?}", "slot", result->slot, "backup",
        proof->has_backup ? proof->backup : NULL, "file", proof->has_backup ? proof->file : NULL,
        "page_bytes", (json_int_t)proof->page_bytes, "wal", proof->has_wal ? proof->segment : NULL,
        "full", full, "unreadable_record", proof->unread.count > 0 ? proof->unread.object : NULL);
}

static void
print_result(const VerifyResult *result)
{
    const KeyProof *proof = &result->proof;
    printf("the key opens slot %s\n", result->slot);
    if (proof->has_backup)
        printf("backup %s: %" PRIu64 " bytes of %s decrypted and authenticated\n", proof->backup,
               proof->page_bytes, proof->file);
    if (proof->has_wal)
        printf("WAL %s: decrypted and authenticated\n", proof->segment);
    if (result->full)
        printf("everything of that backup: %" PRIu64 " objects read, %" PRIu64 " findings%s\n",
               result->objects, result->findings,
               result->findings > 0 ? "; see: pgcairn verify --set latest" : "");
}

int
key_verify_command(const World *world, int argc, char **argv)
{
    VerifyArguments arguments = {0};
    const Option options[] = {
        {"key-file", 0, OPTION_TEXT, &arguments.choice.key_file, "FILE",
         "prove this key or private key, in place of the configured one"},
        {"passphrase-file", 0, OPTION_TEXT, &arguments.choice.passphrase_file, "FILE",
         "prove this passphrase"},
        {"passphrase-command", 0, OPTION_TEXT, &arguments.choice.passphrase_command, "COMMAND",
         "prove the passphrase that a command prints"},
        {"full", 0, OPTION_FLAG, &arguments.full, NULL,
         "read all of the newest backup and its WAL, not a frame of each"},
        {0},
    };
    const CommandHelp help = {
        .name = "key verify",
        .synopsis = "pgcairn key verify [options]",
        .summary = "Prove that a key, say one from the safe, opens the newest backup and WAL",
        .examples = "  pgcairn key verify\n"
                    "  pgcairn key verify --key-file /mnt/usb/escrow.key\n"
                    "  pgcairn key verify --passphrase-file /root/escrow.txt --full\n",
        .options = options,
    };
    CairnError err = {0};
    int code;
    bool json = false;
    if (!cli_parse(&help, &arguments.common, argc, argv, NULL, &code))
        return code;
    SCOPED_SESSION session = {0};
    VerifyResult result = {0};
    if (!cli_output_json(&arguments.common, &json, &err) ||
        !cli_session_open(world, &arguments.common, true, &session, &err) ||
        !cli_only_repository(&session, &err) || !prove(world, &arguments, &session, &result, &err))
        return cli_failed(&err);
    incarnation_warn(&result.proof.unread);
    if (!json)
        print_result(&result);
    else if (!cli_print_json(result_json(&result), &err))
        return cli_failed(&err);
    return result.findings > 0 || result.proof.unread.count > 0
               ? cairn_error_exit_code(CAIRN_CORRUPT)
               : 0;
}
