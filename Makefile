# Sluice: fine-tune, sample and grade text-to-video models as Unix pipelines.
#
# make                        the programs, in bin/; without nvcc, the CPU backend only
# make deps                   install what building and running need (apt); each of the next three begins with what it needs
# make demo                   clips in, a fine-tuned model's video out, on this machine's CPU
# make demo-adapters          six forms of adapter trained side by side, a table and their curves
# make test                   all the tests; make test T=frame runs those whose name starts so
# make test-deps              also what tests of several hosts and of packages need: SSH, Slurm, debhelper, .. (without it they are skipped)
# make soak                   what takes long: hundreds of kills, millions of fuzzed inputs
# make bench                  speed on this machine, as ratios against other programs
# make man                    a manual page for each program, out of its --help
# make install                programs, manual, completion, pipelines, presets into $(DESTDIR)$(PREFIX)
# make deb                    Debian packages, in build/deb: sluice, and with nvcc sluice-cuda
# make format                 clang-format everything
#
# DEV=1                       warnings are errors
# SAN=address,undefined       sanitized, in a build folder of its own: make SAN=address,undefined test
# CC=clang CXX=clang++        another compiler
# NVCC=                       without the CUDA backend, though there is an nvcc
# CUDA_ARCHS=90a              GPU code for these cards alone: a list of compute capabilities without the dot,
#                             80-virtual for PTX, native for the card at hand [80 86 89 90a 100 120 80-virtual]

FILTERS := curate prompts decode vae-encode vae-decode t5-encode pack draw train-step sample encode-mp4 grade collect compare plot report \
           show tensor-gen tensor-eq toy-world toy-check model-init model-convert
PIPELINES := plan probe precompute train generate grade-all reproduce drift

# Every package in one place, by Debian 12's and Ubuntu 24.04's names.
BUILD_PACKAGES := gcc g++ make pkg-config 'libmsgpack-c-dev|libmsgpack-dev' libjansson-dev libcsv-dev libopenblas-dev libsentencepiece-dev \
                  libavcodec-dev libavformat-dev libavutil-dev libswscale-dev zlib1g-dev
RUN_PACKAGES   := parallel gnuplot-nox
TEST_PACKAGES  := perl procps time ffmpeg sentencepiece python3-msgpack shellcheck groff-base man-db 'chromium?'
DEB_PACKAGES   := build-essential debhelper
MORE_PACKAGES  := lintian debootstrap openssh-server openssh-client slurmctld slurmd slurm-client munge

PREFIX  ?= /usr/local
comma   := ,
BUILD   := build/$(or $(subst $(comma),-,$(SAN)),release)
BIN     := $(if $(SAN),$(BUILD)/bin,bin)

CFLAGS  ?= -O3 -g
LIBS    := $(if $(shell pkg-config --exists msgpack-c 2>/dev/null && echo y),msgpack-c,msgpack) jansson sentencepiece \
           libavformat libavcodec libavutil libswscale zlib
OPENBLAS := $(if $(shell pkg-config --exists openblas 2>/dev/null && echo y),openblas,blas)
FLAGS   := -I. -D_GNU_SOURCE -MMD -MP -fopenmp -ffp-contract=off -fno-math-errno -Wall -Wextra $(if $(DEV),-Werror) \
           $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
PKG_C   := $(shell pkg-config --cflags $(LIBS) $(OPENBLAS) 2>/dev/null)
PKG_L   := $(shell pkg-config --libs $(LIBS) $(OPENBLAS) 2>/dev/null) -lcsv
LINK    := -Wl,--as-needed -rdynamic $(PKG_L) -ldl -lm

# formats/libav_memory.c stands in front of libc, in the programs that use libav* and in no others.
LIBRARY := $(filter-out formats/libav_memory.c,$(wildcard formats/*.c formats/*.cc kernels/*.c kernels/cpu/*.c filters/*/*.c filters/learning/*/*.c))
OBJECTS := $(addsuffix .o,$(addprefix $(BUILD)/,$(LIBRARY)))
TESTS_C := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/*.c))
TESTS_SH := $(wildcard tests/*.sh)

# The CUDA backend is an object that programs open at run time. Without nvcc it is left out.
#
# Machine code for a capability runs on cards of the same major number and this or a later minor one; all others compile the PTX when they
# first run it. No kernel needs more than compute_80 but those for Hopper, which exist for 90a alone, so that PTX serves every card
# that comes. 90 is 90a here: without the a, a card of 9.0 would be given kernels without a body.
NVCC    ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA_ARCHS ?= 80 86 89 90a 100 120 80-virtual
CUDA_NATIVE = $(or $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | sort -u),$\
                   $(error CUDA_ARCHS=native: nvidia-smi tells of no card))
CUDA_LIST := $(patsubst 90,90a,$(subst native,$(if $(findstring native,$(CUDA_ARCHS)),$(CUDA_NATIVE)),$(subst $(comma), ,$(CUDA_ARCHS))))
CUDA_CODE := $(foreach a,$(filter-out %-virtual,$(CUDA_LIST)),-gencode arch=compute_$a$(comma)code=sm_$a) \
             $(foreach a,$(patsubst %-virtual,%,$(filter %-virtual,$(CUDA_LIST))),-gencode arch=compute_$a$(comma)code=compute_$a)
NVFLAGS := -O3 -std=c++17 -lineinfo -I. -MMD -MP -D_GNU_SOURCE $(CUDA_CODE) -Xptxas -v -Xfatbin -compress-all \
           -Xcompiler -fPIC,-Wall,-Wextra,-fvisibility=hidden
CUDA_OBJECTS := $(addsuffix .o,$(addprefix $(BUILD)/,$(wildcard kernels/cuda/*.cu)))
CUDA_SO := $(if $(and $(NVCC),$(if $(SAN),,y)),$(BIN)/sluice-cuda.so)

all: $(addprefix $(BIN)/,$(FILTERS)) $(CUDA_SO)

cuda: $(CUDA_SO)

$(BIN)/sluice-cuda.so: $(CUDA_OBJECTS)
	@mkdir -p $(@D) $(BUILD)/tests
	$(NVCC) -shared -o $@ $^ -lcublasLt -lcufft -ldl
	@ln -sf $(abspath $@) $(BUILD)/tests/

# What must be rounded as on the CPU.
$(BUILD)/kernels/cuda/random.cu.o: NVFLAGS += -fmad=false

# Made anew when the list of cards is another one.
CUDA_STAMP := $(BUILD)/kernels/cuda/codes
$(CUDA_STAMP): always
	@mkdir -p $(@D)
	@echo '$(CUDA_CODE)' | cmp -s - $@ || echo '$(CUDA_CODE)' >$@

# What ptxas says of registers and memory is kept for tests/ptxas.sh; all else is shown.
$(BUILD)/%.cu.o: %.cu $(CUDA_STAMP)
	@mkdir -p $(@D)
	@echo "$(NVCC) $(NVFLAGS) -c -o $@ $<"
	@$(NVCC) $(NVFLAGS) -c -o $@ $< 2>$(@:.o=.ptxas) || { cat $(@:.o=.ptxas) >&2; exit 1; }
	@grep -vE '^ptxas info|^ +[0-9]+ bytes stack frame|^$$' $(@:.o=.ptxas) >&2 || true

# Linked as C++, which the tokenizer is: a sanitizer has a part of its own for that.
$(BIN)/%: $(BUILD)/filters/%.c.o $(BUILD)/libsluice.a
	@mkdir -p $(@D)
	$(CXX) $(CFLAGS) $(FLAGS) -o $@ $^ $(LDFLAGS) $(LINK)

$(BUILD)/tests/%: $(BUILD)/tests/%.c.o $(BUILD)/libsluice.a
	$(CXX) $(CFLAGS) $(FLAGS) -o $@ $^ $(LDFLAGS) $(LINK)

LIBAV_PROGRAMS := $(addprefix $(BIN)/,decode encode-mp4 grade report)
$(LIBAV_PROGRAMS): $(BIN)/%: $(BUILD)/filters/%.c.o $(BUILD)/formats/libav_memory.c.o $(BUILD)/libsluice.a
	@mkdir -p $(@D)
	$(CXX) $(CFLAGS) $(FLAGS) -o $@ $^ $(LDFLAGS) $(LINK)

# A family of its own for tests: its table of families takes the place of the library's, and nothing else changes.
FAMILY := $(addsuffix .o,$(addprefix $(BUILD)/,$(wildcard tests/family/*.c)))
FAMILY_BIN := $(addprefix $(BUILD)/tests/family/,sample train-step show t5-encode vae-encode vae-decode)
$(FAMILY_BIN): $(BUILD)/tests/family/%: $(BUILD)/filters/%.c.o $(FAMILY) $(BUILD)/libsluice.a
	$(CXX) $(CFLAGS) $(FLAGS) -o $@ $^ $(LDFLAGS) $(LINK)
$(BUILD)/tests/loom: $(BUILD)/tests/loom.c.o $(FAMILY) $(BUILD)/libsluice.a
	$(CXX) $(CFLAGS) $(FLAGS) -o $@ $^ $(LDFLAGS) $(LINK)

$(BUILD)/libsluice.a: $(OBJECTS)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/%.c.o: %.c
	@mkdir -p $(@D)
	$(CC) -std=c11 $(CFLAGS) $(FLAGS) $(PKG_C) -c -o $@ $<

$(BUILD)/%.cc.o: %.cc
	@mkdir -p $(@D)
	$(CXX) -std=c++17 $(CFLAGS) $(FLAGS) $(PKG_C) -c -o $@ $<

# These build on all cores, unless make was told -j.
ALL_CORES = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

# Installs only what is missing, so that it costs nothing on the second day. A system without dpkg is told what it needs.
deps:
	@sh .ci/deps $(BUILD_PACKAGES) $(RUN_PACKAGES)

test-deps:
	@sh .ci/deps $(BUILD_PACKAGES) $(RUN_PACKAGES) $(TEST_PACKAGES) $(DEB_PACKAGES) $(MORE_PACKAGES)

demo: deps
	@$(MAKE) --no-print-directory $(ALL_CORES) all
	@PATH="$(CURDIR)/$(BIN):$$PATH" examples/demo.sh

demo-adapters: deps
	@$(MAKE) --no-print-directory $(ALL_CORES) all
	@PATH="$(CURDIR)/$(BIN):$$PATH" examples/demo-adapters.sh

test:
	@sh .ci/deps $(BUILD_PACKAGES) $(RUN_PACKAGES) $(TEST_PACKAGES)
	@$(MAKE) --no-print-directory $(ALL_CORES) check

check: all $(TESTS_C) $(FAMILY_BIN)
	@BIN="$(CURDIR)/$(BIN)" BUILD="$(CURDIR)/$(BUILD)" SAN="$(SAN)" SLUICE_DATA="$(CURDIR)/examples" OMP_WAIT_POLICY=passive prove -j2 --failures --comments \
	    $(filter $(BUILD)/tests/$(T)%,$(TESTS_C)) $(filter-out tests/lib.sh tests/soak%,$(filter tests/$(T)%,$(TESTS_SH)))

soak: all $(TESTS_C)
	@BIN="$(CURDIR)/$(BIN)" BUILD="$(CURDIR)/$(BUILD)" SAN="$(SAN)" SOAK=1 prove -v $(filter tests/soak%,$(TESTS_SH))

$(BUILD)/tests/gpu-%: $(BUILD)/tests/gpu/%.c.o $(BUILD)/libsluice.a
	$(CXX) $(CFLAGS) $(FLAGS) -o $@ $^ $(LDFLAGS) $(LINK)

GPU_PROGRAMS := $(patsubst tests/gpu/%.c,$(BUILD)/tests/gpu-%,$(wildcard tests/gpu/*.c))
bench-gpu: all $(GPU_PROGRAMS)
	@BIN="$(CURDIR)/$(BIN)" BUILD="$(CURDIR)/$(BUILD)" tests/bench-gpu $(S)

bench: all $(BUILD)/tests/kernels-products
	@BIN="$(CURDIR)/$(BIN)" BUILD="$(CURDIR)/$(BUILD)" tests/bench

MAN := $(patsubst %,$(BUILD)/man/%.1,$(FILTERS) $(PIPELINES))
man: $(MAN)

define MAN_PAGE
@mkdir -p $(@D)
{ $< --version && $< --help; } >$@.help
awk -f filters/lib/manual.awk $@.help >$@
endef
$(FILTERS:%=$(BUILD)/man/%.1): $(BUILD)/man/%.1: $(BIN)/% filters/lib/manual.awk
	$(MAN_PAGE)
$(PIPELINES:%=$(BUILD)/man/%.1): export PATH := $(abspath $(BIN)):$(PATH)
$(PIPELINES:%=$(BUILD)/man/%.1): $(BUILD)/man/%.1: pipelines/% pipelines/stages.sh filters/lib/manual.awk $(BIN)/train-step
	$(MAN_PAGE)

TO := $(DESTDIR)$(PREFIX)
install: all man
	install -d "$(TO)/bin" "$(TO)/share/sluice/pipelines" "$(TO)/share/man/man1" "$(TO)/share/bash-completion/completions"
	install -m 755 $(addprefix $(BIN)/,$(FILTERS)) $(addprefix pipelines/,$(PIPELINES)) "$(TO)/bin"
	$(if $(CUDA_SO),install -d "$(TO)/lib/sluice" && install -m 755 $(CUDA_SO) "$(TO)/lib/sluice")
	cp -r examples/. "$(TO)/share/sluice"
	install -m 644 pipelines/*.sh pipelines/*.conf "$(TO)/share/sluice/pipelines"
	install -m 644 $(MAN) "$(TO)/share/man/man1"
	{ cat filters/lib/completion.bash; echo 'complete -o default -F _sluice $(FILTERS) $(PIPELINES)'; } \
	    >"$(TO)/share/bash-completion/completions/sluice"
	cd "$(TO)/share/bash-completion/completions" && for p in $(FILTERS) $(PIPELINES); do ln -sf sluice "$$p"; done

# SLUICE_MADE='BUILD=DIR BIN=DIR' makes packages of programs that are there; else they are made for it, with Debian's flags.
DEB := build/deb
deb:
	@sh .ci/deps $(BUILD_PACKAGES) $(DEB_PACKAGES)
	sh .debian/prepare $(DEB)/sluice "$(BUILD_PACKAGES)" "$(RUN_PACKAGES)"
	cd $(DEB)/sluice && SLUICE_TOP=$(CURDIR) DEB_BUILD_PROFILES=$(if $(CUDA_SO),pkg.sluice.cuda) NVCC=$(NVCC) \
	    dpkg-buildpackage --build=binary --no-sign --jobs=auto

format:
	clang-format -i $$(git ls-files '*.c' '*.h' '*.cc' '*.cu')

clean:
	rm -rf build bin

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

always:

.PHONY: all always cuda man deps test-deps demo demo-adapters test check soak bench bench-gpu install deb format clean
.PRECIOUS: $(BUILD)/%.c.o $(BUILD)/%.cc.o $(BUILD)/%.cu.o
.DELETE_ON_ERROR:
