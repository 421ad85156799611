#include "agent/role_sql.h"

/* The assembler reads the file, so there is one copy of the text; the path is relative to the top
   of the tree, from where everything is compiled. Touch this file after a change of role.sql
   (Makefile: a dependency does it). */
__asm__(".pushsection .rodata\n"
        ".global role_sql\n"
        ".type role_sql, @object\n"
        "role_sql:\n"
        ".incbin \"sql/role.sql\"\n"
        ".byte 0\n"
        ".size role_sql, . - role_sql\n"
        ".popsection\n");
