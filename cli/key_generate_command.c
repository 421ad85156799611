#include "cli/key_commands.h"
#include "cli/session.h"
#include "repository/key_file.h"

#include <stdio.h>

static int
generate(const World *world, const CommonOptions *common, bool recipient, const char *path)
{
    CairnError err = {0};
    bool json = false;
    uint8_t public_key[KEY_SIZE];
    char line[PUBLIC_KEY_TEXT_SIZE] = "";
    if (!cli_output_json(common, &json, &err) ||
        !key_file_generate(world, path, recipient ? KEY_FILE_PRIVATE : KEY_FILE_SYMMETRIC,
                           public_key, &err))
        return cli_failed(&err);
    if (recipient)
        public_key_format(line, public_key);
    if (json) {
        json_t *result =
            json_pack("{s:s, s:s, s:s?}", "file", path, "type", recipient ? "private-key" : "key",
                      "public_key", recipient ? line : NULL);
        return cli_print_json(result, &err) ? 0 : cli_failed(&err);
    }
    printf("%s: a new %s\n", path, recipient ? "private key" : "key");
    if (recipient)
        printf("%s.pub: its public key, for `recipients` on the hosts that back up:\n%s\n", path,
               line);
    printf("next: put a copy of %s where a fire, a thief or a deleted machine does not reach it.\n"
           "Without it what is encrypted under it is lost: there is no other way in.\n",
           path);
    return 0;
}

int
key_generate_command(const World *world, int argc, char **argv)
{
    bool recipient = false;
    const Option options[] = {
        {"recipient", 0, OPTION_FLAG, &recipient, NULL,
         "a key pair: the private key in FILE, the public one in FILE.pub"},
        {0},
    };
    const CommandHelp help = {
        .name = "key generate",
        .synopsis = "pgcairn key generate [--recipient] FILE",
        .summary = "Make a key in a new file of mode 0600; nothing is overwritten",
        .examples = "  pgcairn key generate /etc/pgcairn/main.key\n"
                    "  pgcairn key generate --recipient restore.key\n",
        .options = options,
    };
    CairnError err = {0};
    CommonOptions common = {0};
    const char *path = NULL;
    int code;
    if (!cli_parse(&help, &common, argc, argv, &path, &code))
        return code;
    if (path == NULL) {
        cairn_error(&err, CAIRN_USAGE, "key generate: name the file to make");
        return cli_failed(&err);
    }
    return generate(world, &common, recipient, path);
}
