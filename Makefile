# Builds polarx_pooler with PGXS: make, make install, make installcheck (against a running server).
#   make PG_CONFIG=/path/to/pg_config    another server
#   make CXX=clang++                     another compiler
#   make WERROR=                         warnings stay warnings
#   make COPT=-UNDEBUG                   with assertions, which end the whole server when they fail
# src/core and src/engine are compiled by rules of their own, without the server's include path.

MODULE_big = polarx_pooler
EXTENSION = polarx_pooler
DATA = $(sort $(wildcard sql/polarx_pooler--*.sql))
HEADERS_polarx_pooler = include/polarx_pooler.h
OBJS = $(patsubst %.cpp,%.o,$(sort $(wildcard src/*/*.cpp src/pg/*/*.cpp)))
REGRESS = $(sort $(basename $(notdir $(wildcard regress/sql/*.sql))))
REGRESS_OPTS = --inputdir=regress --outputdir=regress
EXTRA_CLEAN = $(OBJS:.o=.d) $(addprefix regress/,results regression.out regression.diffs)

# The link step is the C compiler's, so the C++ runtime is named here; the map keeps every symbol
# local that PostgreSQL or another extension does not call.
SHLIB_LINK = $(libpq) -lstdc++ -lm -pthread -Wl,--version-script=polarx_pooler.map

# Bitcode is for inlining SQL functions; the server's rule would compile it as C++14.
override with_llvm := no

PG_CONFIG = pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifeq ($(wildcard $(PGXS)),)
$(error no development files of a PostgreSQL server found by $(PG_CONFIG): install them \
(on Debian: g++ libpq-dev postgresql-server-dev-15) or name another: make PG_CONFIG=/path/to/pg_config)
endif
include $(PGXS)

WERROR ?= -Werror
POLARX_CXXFLAGS = -std=c++20 -O2 -g -fPIC -pthread -fvisibility=hidden -fvisibility-inlines-hidden \
	-fno-strict-aliasing -fwrapv -fstack-protector-strong -fno-omit-frame-pointer \
	-DNDEBUG -Wall -Wextra $(WERROR) -D_GNU_SOURCE -D_FORTIFY_SOURCE=2 -MMD -MP $(COPT)

POLARX_INCLUDES_core = -Isrc
POLARX_INCLUDES_engine = -Isrc -isystem $(includedir)
POLARX_INCLUDES_pg = -Iinclude -Isrc \
	-isystem $(includedir_server) -isystem $(includedir_internal) -isystem $(includedir)

src/core/%.o: src/core/%.cpp Makefile
	$(CXX) $(POLARX_CXXFLAGS) $(POLARX_INCLUDES_core) -c -o $@ $<

src/engine/%.o: src/engine/%.cpp Makefile
	$(CXX) $(POLARX_CXXFLAGS) $(POLARX_INCLUDES_engine) -c -o $@ $<

src/pg/%.o: src/pg/%.cpp Makefile
	$(CXX) $(POLARX_CXXFLAGS) $(POLARX_INCLUDES_pg) -c -o $@ $<

$(shlib): polarx_pooler.map

-include $(wildcard $(OBJS:.o=.d))
