# pgcairn.  `make demo` shows it, `make check` tests it, `make help` lists the rest.
#
# Knobs:
#   PG=15        major version that the tests run (default: the newest installed)
#   FLAVOUR=...  debug (default) | release | asan | tsan; objects live in build/$(FLAVOUR)
#   PREFIX=...   where `make install` puts things
#   CC=...       gcc or clang

FLAVOUR  ?= release
PREFIX   ?= /usr/local
DESTDIR  ?=
CC       ?= gcc
BUILD    := build/$(FLAVOUR)

# Everything that needs a package waits for this stamp; the script installs only what is missing.
DEPS     := build/.deps-installed

FLAVOUR_FLAGS_debug   := -O1 -g
FLAVOUR_FLAGS_release := -O2 -g
FLAVOUR_FLAGS_asan    := -O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
FLAVOUR_FLAGS_tsan    := -O1 -g -fsanitize=thread
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wvla -Wmissing-prototypes -Wstrict-prototypes -Werror
VERSION  := 0.1.0

CFLAGS  += -std=gnu17 $(FLAVOUR_FLAGS_$(FLAVOUR)) $(WARNINGS) -fstack-protector-strong -pthread \
           -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DPGCAIRN_VERSION='"$(VERSION)"' -I. \
           $(shell pkg-config --cflags libpq 2>/dev/null)
LDFLAGS += $(FLAVOUR_FLAGS_$(FLAVOUR)) -pthread -Wl,-z,relro,-z,now

# Sources per room.  The rooms and who may call whom: ARCHITECTURE.md.
COMMON     := $(wildcard common/*.c)
STORAGE    := $(wildcard storage/*.c)
CODEC      := $(wildcard codec/*.c)
POSTGRES   := $(wildcard postgres/*.c)
REPOSITORY := $(wildcard repository/*.c)
AGENT      := $(wildcard agent/*.c)
WALARCHIVE := $(wildcard walarchive/*.c)
RESTORE    := $(wildcard restore/*.c)

# What needs libpq stands in files named so; pgcairn-wal is built without them.
POSTGRES_LIBPQ := $(addprefix postgres/,connection.c basebackup.c server_facts.c server_config.c)
POSTGRES_PLAIN := $(filter-out $(POSTGRES_LIBPQ),$(POSTGRES))

PGCAIRN_SOURCES     := cli/pgcairn.c $(filter-out cli/pgcairn.c cli/pgcairn_wal.c,$(wildcard cli/*.c)) \
                       $(COMMON) $(STORAGE) $(CODEC) $(POSTGRES) $(REPOSITORY) $(AGENT) $(WALARCHIVE) $(RESTORE)
PGCAIRN_WAL_SOURCES := cli/pgcairn_wal.c cli/options.c cli/wal_command.c \
                       $(COMMON) $(STORAGE) $(CODEC) $(POSTGRES_PLAIN) $(REPOSITORY) $(WALARCHIVE)

LIBS_WAL := -llz4 -lzstd -lcrypto -linih -ljansson
LIBS     := -lpq $(LIBS_WAL)

objects = $(patsubst %.c,$(BUILD)/%.o,$(1))

all: $(BUILD)/pgcairn $(BUILD)/pgcairn-wal

$(BUILD)/pgcairn: $(call objects,$(PGCAIRN_SOURCES))
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/pgcairn-wal: $(call objects,$(PGCAIRN_WAL_SOURCES))
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS_WAL)

$(BUILD)/%.o: %.c | $(DEPS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

-include $(shell test -d build && find build -name '*.d')

$(DEPS): tools/install-dependencies
	tools/install-dependencies
	@mkdir -p build && touch $@

# Unit tests: one program a module, tests/unit/test_<module>.c, linked with every room.
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))
LIBRARY    := $(call objects,$(COMMON) $(STORAGE) $(CODEC) $(POSTGRES) $(REPOSITORY) $(AGENT) $(WALARCHIVE) $(RESTORE) $(wildcard tests/unit/support/*.c))

$(BUILD)/tests/test_%: $(BUILD)/tests/unit/test_%.o $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS) -lcmocka

unit-tests: $(UNIT_TESTS)

check-unit: unit-tests
	tests/run-unit $(BUILD)/tests

help:
	@echo 'make demo          install what is missing, build, show the main job end to end'
	@echo 'make check         install what is missing, build, run every test on the native PostgreSQL'
	@echo 'make check-matrix  the same on every supported PostgreSQL, in chroots made by tests/matrix'
	@echo 'make bench         measure against the peers; see bench/README.md'
	@echo 'make lint format fuzz asan tsan install clean'

.PHONY: all help unit-tests check-unit
.SECONDARY:
.DEFAULT_GOAL := all
