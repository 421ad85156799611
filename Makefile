# pgcairn.  `make demo` shows it, `make check` tests it, `make help` lists the rest.
#
# Knobs:
#   PG=15        major version that the tests run (default: the newest installed)
#   FLAVOUR=...  release (default) | debug | asan | tsan | fuzz; objects live in build/$(FLAVOUR)
#   PREFIX=...   where `make install` puts things
#   PG_CONFIGS=...  pg_config of each server that the archive module is built for (default: Debian's places)
#   CC=...       gcc or clang
#   V=1          show the compiler's whole command lines
#   FUZZ_SECONDS=20  how long `make fuzz` feeds each parser
#   SEEDS=50000, SEED=...  stories that `make simulate` runs, or the one

FLAVOUR  ?= release
PREFIX   ?= /usr/local
DESTDIR  ?=
FUZZ_SECONDS ?= 20
SEEDS    ?= 50000
# Not ?=, which make's own default for CC (cc) would defeat.
ifeq ($(origin CC),default)
CC       := gcc
endif
BUILD    := build/$(FLAVOUR)

# Everything that needs a package waits for this stamp; the script installs only what is missing.
DEPS     := build/.deps-installed

FLAVOUR_FLAGS_debug   := -O1 -g
FLAVOUR_FLAGS_release := -O2 -g
FLAVOUR_FLAGS_asan    := -O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
FLAVOUR_FLAGS_tsan    := -O1 -g -fsanitize=thread
FLAVOUR_FLAGS_fuzz    := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wvla -Wmissing-prototypes -Wstrict-prototypes -Werror
VERSION  := 0.1.0

CFLAGS  += -std=gnu17 $(FLAVOUR_FLAGS_$(FLAVOUR)) $(WARNINGS) -fstack-protector-strong -pthread \
           -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DPGCAIRN_VERSION='"$(VERSION)"' -I. \
           $(shell pkg-config --cflags libpq 2>/dev/null)
LDFLAGS += $(FLAVOUR_FLAGS_$(FLAVOUR)) -pthread -Wl,-z,relro,-z,now

# Sources per room.  The rooms and who may call whom: ARCHITECTURE.md.
COMMON     := $(wildcard common/*.c)
STORAGE    := $(wildcard storage/*.c)
S3         := $(wildcard storage/s3/*.c)
CODEC      := $(wildcard codec/*.c)
POSTGRES   := $(wildcard postgres/*.c)
REPOSITORY := $(wildcard repository/*.c)
AGENT      := $(wildcard agent/*.c)
WALARCHIVE := $(wildcard walarchive/*.c)
RESTORE    := $(wildcard restore/*.c)

# What needs libpq stands in files named so; pgcairn-wal is built without them.
POSTGRES_LIBPQ := $(wildcard postgres/connection*.c) $(addprefix postgres/,basebackup.c server_facts.c server_config.c \
                                        wal_slot.c wal_stream.c name_snapshot.c)
POSTGRES_PLAIN := $(filter-out $(POSTGRES_LIBPQ),$(POSTGRES))
WALARCHIVE_LIBPQ := $(wildcard walarchive/receive*.c)
WALARCHIVE_PLAIN := $(filter-out $(WALARCHIVE_LIBPQ),$(WALARCHIVE))

PGCAIRN_SOURCES     := cli/pgcairn.c $(filter-out cli/pgcairn.c cli/pgcairn_wal.c,$(wildcard cli/*.c)) \
                       $(COMMON) $(STORAGE) $(CODEC) $(POSTGRES) $(REPOSITORY) $(AGENT) $(WALARCHIVE) $(RESTORE)
# Commands that need libpq (receive) are pgcairn's only.
PGCAIRN_WAL_SOURCES := cli/pgcairn_wal.c cli/options.c cli/session.c \
                       $(addprefix cli/wal_,command.c settings.c push_command.c push_each.c push_report.c get_command.c serve_command.c skip_command.c \
                       status_command.c repair_command.c ack_command.c) \
                       $(COMMON) $(STORAGE) $(CODEC) $(POSTGRES_PLAIN) $(REPOSITORY) $(WALARCHIVE_PLAIN)

# Without lz4, zstd and libcrypto, which are loaded when they are first used (common/lazy_library.h).
LIBS_WAL := -ljansson
LIBS     := -lpq $(LIBS_WAL)

# The S3 driver is a file of its own, loaded by who needs it (storage/driver.h). It carries what it uses of the rooms
# below, hidden; signals and log are the program's.
LIBS_S3      := -lcurl -lexpat -lcrypto -ljansson
S3_DRIVER_SOURCES := $(S3) $(wildcard storage/s3/driver/*.c) storage/storage.c storage/s3_config.c \
                     $(filter-out common/cancel.c common/log.c,$(COMMON))

# What a recipe line shows of itself: the tool and the result, or with V=1 all.
say = $(if $(V),,@echo '$(1) $@';)

objects = $(patsubst %.c,$(BUILD)/%.o,$(1))

all: $(BUILD)/pgcairn $(BUILD)/pgcairn-wal $(BUILD)/pgcairn_s3.so archive-module

$(BUILD)/pgcairn: $(call objects,$(PGCAIRN_SOURCES))
	$(call say,LD) $(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/pgcairn-wal: $(call objects,$(PGCAIRN_WAL_SOURCES))
	$(call say,LD) $(CC) $(LDFLAGS) -o $@ $^ $(LIBS_WAL)

$(BUILD)/pgcairn_s3.so: $(patsubst %.c,$(BUILD)/hidden/%.o,$(S3_DRIVER_SOURCES))
	$(call say,LD) $(CC) $(LDFLAGS) -shared -Wl,-Bsymbolic -Wl,-z,defs -o $@ $^ $(LIBS_S3)

$(BUILD)/hidden/%.o: %.c Makefile | $(DEPS)
	@mkdir -p $(@D)
	$(call say,CC) $(CC) $(CFLAGS) -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<

$(BUILD)/%.o: %.c Makefile | $(DEPS)
	@mkdir -p $(@D)
	$(call say,CC) $(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

# What -MMD cannot see: the file is taken in by .incbin.
$(BUILD)/agent/role_sql.o: sql/role.sql

-include $(shell test -d build && find build -name '*.d')

$(DEPS): tools/install-dependencies
	tools/install-dependencies
	@mkdir -p build && touch $@

# What only the tests need: an S3 server.
DEPS_S3 := build/.deps-s3-installed

$(DEPS_S3): tools/install-dependencies
	tools/install-dependencies --s3
	@mkdir -p build && touch $@

DEPS_LINT := build/.deps-lint-installed

$(DEPS_LINT): tools/install-dependencies
	tools/install-dependencies --lint
	@mkdir -p build && touch $@

# The archive module: a library of PostgreSQL's, one for each major version whose server headers are here.
# -isystem, since those headers are not written for our warnings; the last three flags are what servers are
# compiled with.  Always optimised and never under a sanitizer: the server that loads it is not.
PG_CONFIGS    ?= $(wildcard /usr/lib/postgresql/*/bin/pg_config)
MODULE_MAJORS := $(foreach config,$(PG_CONFIGS),$(if $(wildcard $(shell $(config) --includedir-server)/postgres.h),\
                     $(shell $(config) --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')))
MODULE_CFLAGS := -std=gnu17 -O2 -g $(WARNINGS) -fstack-protector-strong -fPIC -fvisibility=hidden -D_GNU_SOURCE -I. \
                 -fno-strict-aliasing -fwrapv -fexcess-precision=standard
MODULE_SOURCES := $(wildcard walarchive/module/*.c)
MODULE_FILES  := $(wildcard walarchive/module/*.[ch])
MODULES       := $(foreach major,$(MODULE_MAJORS),$(BUILD)/module/$(major)/pgcairn_archive.so)

# pg_config of a major version.
pg_config = $(firstword $(filter %/$(1)/bin/pg_config,$(PG_CONFIGS)) $(PG_CONFIGS))

# On a fresh machine the headers come with $(DEPS), after this file was read: read it again then.
archive-module: | $(DEPS)
	@$(MAKE) --no-print-directory archive-modules

archive-modules: $(MODULES)
	@:

$(MODULES): $(BUILD)/module/%/pgcairn_archive.so: $(MODULE_FILES) walarchive/serve_protocol.h Makefile
	@mkdir -p $(@D)
	$(call say,LD) $(CC) $(MODULE_CFLAGS) -isystem $$($(call pg_config,$*) --includedir-server) -shared \
	    -Wl,-z,relro,-z,now -o $@ $(MODULE_SOURCES)

# Every room's objects.  What is linked with them: test programs, helpers of the system tests, fuzzers.
LIBS_ROOMS = $(LIBS) $(LIBS_S3)
ROOMS := $(call objects,$(COMMON) $(STORAGE) $(S3) $(CODEC) $(POSTGRES) $(REPOSITORY) $(AGENT) $(WALARCHIVE) $(RESTORE))

# Unit tests: one program a module, tests/unit/test_<module>.c; tests/unit/support serves them all.
UNIT_TESTS   := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))
UNIT_SUPPORT := $(call objects,$(wildcard tests/unit/support/*.c))

$(UNIT_TESTS): $(BUILD)/tests/%: $(BUILD)/tests/unit/%.o $(UNIT_SUPPORT) $(ROOMS)
	$(call say,LD) $(CC) $(LDFLAGS) -o $@ $^ $(LIBS_ROOMS) -lcmocka

# Programs that the system tests call: tests/support/wal-dump.c becomes $(BUILD)/tests/wal-dump.
SUPPORT_PROGRAMS := $(patsubst tests/support/%.c,$(BUILD)/tests/%,$(wildcard tests/support/*.c))

$(SUPPORT_PROGRAMS): $(BUILD)/tests/%: $(BUILD)/tests/support/%.o $(ROOMS)
	$(call say,LD) $(CC) $(LDFLAGS) -o $@ $^ $(LIBS_ROOMS)

# What facts cost a push, on real segments: make build/release/bench/wal_facts; its head says how it is called.
$(BUILD)/bench/wal_facts: $(BUILD)/bench/wal_facts.o $(ROOMS)
	$(call say,LD) $(CC) $(LDFLAGS) -o $@ $^ $(LIBS_ROOMS)

# The simulator (tests/sim/README.md).  Its actors are processes of hosts that only it knows, so it answers host.h's
# questions itself.
SIMULATOR   := $(call objects,$(filter-out tests/sim/simulate.c,$(wildcard tests/sim/*.c)))
SIM_SUPPORT := $(addprefix $(BUILD)/tests/unit/support/,memory_storage.o repository_fixture.o)

$(BUILD)/tests/simulate: $(BUILD)/tests/sim/simulate.o $(SIM_SUPPORT) $(ROOMS)
	$(call say,LD) $(CC) $(LDFLAGS) -o $@ $^ $(LIBS_ROOMS)

SIM_PROGRAMS := $(addprefix $(BUILD)/tests/,simulate test_simulator test_scenes)

$(SIM_PROGRAMS): $(SIMULATOR)
$(SIM_PROGRAMS): LDFLAGS += -Wl,--wrap=host_self,--wrap=host_put,--wrap=host_is_dead

# Fuzzers, one a parser of foreign bytes: tests/fuzz/fuzz_<what>.c, only in FLAVOUR=fuzz.
FUZZERS := $(patsubst tests/fuzz/%.c,$(BUILD)/%,$(wildcard tests/fuzz/fuzz_*.c))

# The fixtures that need no cmocka: a repository in memory, maps made of any bytes.
FUZZ_SUPPORT := $(addprefix $(BUILD)/tests/unit/support/,memory_storage.o repository_fixture.o map_fixture.o ssh_liar.o)

$(FUZZERS): $(BUILD)/%: $(BUILD)/tests/fuzz/%.o $(FUZZ_SUPPORT) $(ROOMS)
	$(call say,LD) $(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LIBS_ROOMS)

# A test whose source is gone must not be run again.
unit-tests: $(UNIT_TESTS)
	@rm -f $(filter-out $(UNIT_TESTS),$(wildcard $(BUILD)/tests/test_*))

test-programs: unit-tests $(SUPPORT_PROGRAMS)

check: all test-programs | $(DEPS_S3)
	BUILD=$(BUILD) tests/run-all

check-unit: test-programs
	tests/run-unit $(BUILD)/tests

# Stories of the simulator: SEEDS of them, or the one of SEED, step by step.
simulate: $(BUILD)/tests/simulate
	$(BUILD)/tests/simulate $(if $(SEED),--seed $(SEED) --trace,--seeds $(SEEDS))

# Drops each check, sync and ordering of commit and collect in turn; each must be noticed.  One: MUTANT=name
mutants: unit-tests $(BUILD)/tests/simulate
	tests/sim/mutants $(MUTANT)

mutants: export BUILD := $(BUILD)
mutants: export CC := $(CC)
mutants: export CFLAGS := $(CFLAGS)
mutants: export LDFLAGS := $(LDFLAGS)
mutants: export LIBS := $(LIBS_ROOMS)

check-matrix:
	tests/matrix

# Sanitizer builds of the unit tests.  tsan of gcc 12 needs the old, smaller address randomisation.
asan:
	$(MAKE) FLAVOUR=asan check-unit

tsan:
	$(MAKE) FLAVOUR=tsan test-programs
	TSAN_OPTIONS=suppressions=$(CURDIR)/tests/unit/tsan.supp setarch --addr-no-randomize tests/run-unit build/tsan/tests

fuzz: | $(DEPS_LINT)
	$(MAKE) FLAVOUR=fuzz CC=clang run-fuzzers

# New inputs go to build/; seeds worth keeping are in tests/fuzz/corpus/<fuzzer>.
run-fuzzers: $(FUZZERS)
	@set -e; for fuzzer in $(notdir $(FUZZERS)); do \
	    mkdir -p $(BUILD)/corpus/$$fuzzer tests/fuzz/corpus/$$fuzzer; \
	    echo "$$fuzzer, $(FUZZ_SECONDS) s"; \
	    $(BUILD)/$$fuzzer -max_total_time=$(FUZZ_SECONDS) -verbosity=0 -artifact_prefix=$(BUILD)/$$fuzzer- \
	        $(BUILD)/corpus/$$fuzzer tests/fuzz/corpus/$$fuzzer; \
	done

# Ours: C files of the rooms, the tests and the benchmark.  -Werror is gcc's affair; clang-tidy has its own.
SOURCES := $(wildcard $(addsuffix /*.c,common storage storage/s3 storage/s3/driver codec postgres repository agent walarchive restore cli \
                                       tests/unit tests/unit/support tests/sim tests/support tests/fuzz bench))
HEADERS := $(wildcard $(addsuffix /*.h,common storage storage/s3 codec postgres repository agent walarchive restore cli \
                                       tests/unit tests/unit/support tests/sim tests/support tests/fuzz))

lint: | $(DEPS_LINT)
	tools/check-layers
	tools/check-links
	clang-format --dry-run -Werror $(SOURCES) $(HEADERS) $(MODULE_FILES)
	printf '%s\n' $(SOURCES) | xargs -P 2 -I {} clang-tidy --quiet {} -- $(filter-out -Werror,$(CFLAGS))

format: | $(DEPS_LINT)
	clang-format -i $(SOURCES) $(HEADERS) $(MODULE_FILES)

demo: all
	tools/demo

# What to measure and how: make bench BENCH='--pg 15 full restore'
bench: all $(filter %/test_expire_scale,$(UNIT_TESTS))
	tests/contain bench/run $(BENCH)

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/pgcairn $(DESTDIR)$(PREFIX)/lib/systemd/system
	install $(BUILD)/pgcairn $(BUILD)/pgcairn-wal $(DESTDIR)$(PREFIX)/bin/
	install -d $(DESTDIR)$(PREFIX)/lib/pgcairn
	install -m 644 $(BUILD)/pgcairn_s3.so $(DESTDIR)$(PREFIX)/lib/pgcairn/
	@set -e; for config in $(PG_CONFIGS); do \
	    major=$$($$config --version | sed 's/[^0-9]*\([0-9]*\).*/\1/'); \
	    module=$(BUILD)/module/$$major/pgcairn_archive.so; \
	    test -e $$module || continue; \
	    echo "install $$module in $(DESTDIR)$$($$config --pkglibdir)"; \
	    install -d $(DESTDIR)$$($$config --pkglibdir); \
	    install -m 644 $$module $(DESTDIR)$$($$config --pkglibdir)/; \
	done
	install -m 644 sql/role.sql $(DESTDIR)$(PREFIX)/share/pgcairn/
	install -m 644 packaging/pgcairn-backup@.service packaging/pgcairn-backup@.timer packaging/pgcairn-receive@.service \
	    $(DESTDIR)$(PREFIX)/lib/systemd/system/

clean:
	rm -rf build

help:
	@echo 'make demo          install what is missing, build, show the main job end to end'
	@echo 'make check         install what is missing, build, run every test on the native PostgreSQL'
	@echo 'make check-matrix  the same on every supported PostgreSQL, in chroots made by tests/matrix'
	@echo 'make bench         measure against the peers; see bench/README.md'
	@echo 'make simulate      run the simulator over more seeds; make mutants: show that it notices what is broken'
	@echo 'make lint format fuzz asan tsan install clean'

.PHONY: all help archive-module archive-modules unit-tests test-programs check check-unit simulate mutants check-matrix asan tsan fuzz run-fuzzers lint format \
        demo bench install clean
.SECONDARY:
.DEFAULT_GOAL := all
