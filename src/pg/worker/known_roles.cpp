// The roles of the catalog in hand, by the hash value with which the server reports their changes;
// on the pooler worker's main thread.
#include <cstring>

#include "pg/worker/known_roles.h"

#include "pg/prelude.h"

namespace polarx {
namespace {

constexpr long kExpectedRoles = 256;

struct KnownRole {
  uint32 hash;  // the key
  Oid role;
  bool exists;
  bool superuser;
  bool reported;   // by the server, as changed
  bool ambiguous;  // two roles have this hash value
  NameData name;
};

HTAB* known_roles = nullptr;
MemoryContext known_context = nullptr;
bool some_reported = false;
bool all_reported = false;
bool reported_while_reading = false;

extern "C" void NoteRole(Datum /*arg*/, int /*cache*/, uint32 hash) {
  reported_while_reading = true;
  if (hash == 0) {  // any of them
    some_reported = all_reported = true;
    return;
  }
  auto* entry = static_cast<KnownRole*>(hash_search(known_roles, &hash, HASH_FIND, nullptr));
  if (entry != nullptr) {
    some_reported = entry->reported = true;
  }
}

void Empty() {
  MemoryContextReset(known_context);
  HASHCTL control = {};
  control.keysize = sizeof(uint32);
  control.entrysize = sizeof(KnownRole);
  control.hcxt = known_context;
  known_roles = hash_create("polarx_pooler roles", kExpectedRoles, &control,
                            HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

void Remember(const RawMapping* mapping) {
  const uint32 hash = GetSysCacheHashValue1(AUTHOID, ObjectIdGetDatum(mapping->role));
  bool found = false;
  auto* entry = static_cast<KnownRole*>(hash_search(known_roles, &hash, HASH_ENTER, &found));
  const bool ambiguous = found && (entry->ambiguous || entry->role != mapping->role);
  const bool reported = reported_while_reading || (found && entry->reported);
  memset(reinterpret_cast<char*>(entry) + sizeof(hash), 0, sizeof(*entry) - sizeof(hash));
  entry->role = mapping->role;
  entry->exists = mapping->role_name != nullptr;
  entry->superuser = mapping->superuser;
  entry->reported = reported;
  entry->ambiguous = ambiguous;
  some_reported = some_reported || reported;
  if (entry->exists) {
    namestrcpy(&entry->name, mapping->role_name);
  }
}

bool Differs(const KnownRole* entry) {
  const char* name = GetUserNameFromId(entry->role, true);
  const bool same = !entry->ambiguous && (name != nullptr) == entry->exists &&
                    (name == nullptr || strcmp(name, NameStr(entry->name)) == 0) &&
                    (name != nullptr && superuser_arg(entry->role)) == entry->superuser;
  return !same;
}

}  // namespace

void KnownRolesWatch() {
  known_context =
      AllocSetContextCreate(TopMemoryContext, "polarx_pooler roles", ALLOCSET_DEFAULT_SIZES);
  Empty();
  CacheRegisterSyscacheCallback(AUTHOID, NoteRole, static_cast<Datum>(0));
}

void KnownRolesBeginReading() { reported_while_reading = false; }

void KnownRolesRemember(const RawCatalog* catalog, bool anew) {
  if (anew) {
    Empty();
    some_reported = all_reported = false;
  }
  for (int i = 0; i < list_length(catalog->mappings); i++) {
    const auto* mapping = static_cast<const RawMapping*>(list_nth(catalog->mappings, i));
    if (OidIsValid(mapping->role)) {
      Remember(mapping);
    }
  }
}

bool KnownRolesReported() { return some_reported; }

bool KnownRolesDiffer() {
  // Before the looks, during which more may be reported.
  const bool all = all_reported;
  some_reported = all_reported = false;
  bool differ = false;
  HASH_SEQ_STATUS scan;
  hash_seq_init(&scan, known_roles);
  while (auto* entry = static_cast<KnownRole*>(hash_seq_search(&scan))) {
    if (all || entry->reported) {
      entry->reported = false;
      differ = Differs(entry) || differ;
    }
  }
  return differ;
}

}  // namespace polarx
