// The validator of the wrapper polarx_pooler: options of servers and user mappings; in a backend,
// on its only thread, preloaded or not.
#include <string_view>

#include "core/conninfo.h"
#include "engine/libpq_options.h"

#include "pg/base/errors.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

struct OptionText {
  const char* name;
  const char* value;
};

// Returns false if an option is wrong; then *error says why.
bool CheckOptions(OptionContext context, const OptionText* options, int count,
                  ErrorText* error) noexcept {
  try {
    const std::vector<KnownOption> known = KnownLibpqOptions();
    if (known.empty()) {
      KeepOutOfMemory(error);
      return false;
    }
    for (int i = 0; i < count; ++i) {
      const Status status = ValidateOption(known, context, options[i].name, options[i].value);
      if (!status.ok()) {
        KeepError(status, error);
        return false;
      }
    }
    return true;
  } catch (...) {
    KeepOutOfMemory(error);
    return false;
  }
}

// As in postgres_fdw: what would reach beyond the role's own rights.
void CheckSuperuserOptions(List* options) {
  ListCell* cell;
  foreach(cell, options) {
    auto* option = static_cast<DefElem*>(lfirst(cell));
    if (strcmp(option->defname, "password_required") == 0) {
      bool required = true;
      if (!parse_bool(defGetString(option), &required) || !required) {
        ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                        errmsg("password_required=false is superuser-only"),
                        errhint("User mappings with the password_required option set to false may "
                                "only be created or modified by the superuser.")));
      }
    } else if (strcmp(option->defname, "sslcert") == 0 ||
               strcmp(option->defname, "sslkey") == 0) {
      ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                      errmsg("sslcert and sslkey are superuser-only"),
                      errhint("User mappings with the sslcert or sslkey options set may only be "
                              "created or modified by the superuser.")));
    }
  }
}

void WarnAboutTls(const OptionText* options, int count) {
  for (int i = 0; i < count; ++i) {
    if (strcmp(options[i].name, "sslmode") == 0 && DemandsTls(options[i].value)) {
      ereport(WARNING,
              (errmsg("sslmode \"%s\" demands TLS, which a lent connection cannot carry",
                      options[i].value),
               errdetail("Requests for connections to this datanode will be refused."),
               errhint("Set sslmode to disable and reach the datanode through a Unix socket, a VPN "
                       "or a tunnel.")));
    }
  }
}

[[noreturn]] void ThrowNoOptions(const char* name) {
  ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("invalid option \"%s\"", name),
                  errhint("There are no valid options in this context.")));
  pg_unreachable();
}

}  // namespace
}  // namespace polarx

POLARX_FUNCTION(polarx_fdw_validator) {
  List* options = untransformRelOptions(PG_GETARG_DATUM(0));
  const Oid catalog = PG_GETARG_OID(1);
  const int count = list_length(options);
  if (count == 0) {
    PG_RETURN_VOID();
  }
  auto* texts = static_cast<polarx::OptionText*>(palloc(sizeof(polarx::OptionText) * count));
  ListCell* cell;
  foreach(cell, options) {
    auto* option = static_cast<DefElem*>(lfirst(cell));
    texts[foreach_current_index(cell)] = {option->defname, defGetString(option)};
  }
  const bool mapping = catalog == UserMappingRelationId;
  if (!mapping && catalog != ForeignServerRelationId) {
    polarx::ThrowNoOptions(texts[0].name);
  }
  polarx::ErrorText error;
  if (!polarx::CheckOptions(
          mapping ? polarx::OptionContext::kUserMapping : polarx::OptionContext::kServer, texts,
          count, &error)) {
    polarx::ThrowError(&error);
  }
  if (mapping && !superuser()) {
    polarx::CheckSuperuserOptions(options);
  }
  polarx::WarnAboutTls(texts, count);
  PG_RETURN_VOID();
}
