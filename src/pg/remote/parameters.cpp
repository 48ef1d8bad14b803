// The session's parameters are kept here: a list for each (sub)transaction level that has changed
// it, dropped or handed up when the level ends. In a backend, on its only thread.
#include <initializer_list>

#include "pg/remote/parameters.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

// What holds at one nest level; the levels below it hold what a rollback returns to.
struct Layer {
  int level;  // 0: committed
  uint64 version;
  MemoryContext context;  // of the layer and its list
  SessionParameter* first;
  Layer* below;
};

Layer* top = nullptr;
uint64 changes = 0;  // so far, never a number twice

void DropTop() {
  Layer* dropped = top;
  top = dropped->below;
  MemoryContextDelete(dropped->context);
}

void DropBelowTop() {
  Layer* dropped = top->below;
  top->below = dropped->below;
  MemoryContextDelete(dropped->context);
}

SessionParameter** Last(Layer* layer) {
  SessionParameter** link = &layer->first;
  while (*link != nullptr) {
    link = &(*link)->next;
  }
  return link;
}

SessionParameter** Find(Layer* layer, Oid role, const char* name) {
  SessionParameter** link = &layer->first;
  while (*link != nullptr && ((*link)->role != role || pg_strcasecmp((*link)->name, name) != 0)) {
    link = &(*link)->next;
  }
  return link;
}

char* CopyText(MemoryContext context, const char* text) {
  return text != nullptr ? MemoryContextStrdup(context, text) : nullptr;
}

SessionParameter* Copy(MemoryContext context, const SessionParameter* from) {
  auto* copy = static_cast<SessionParameter*>(MemoryContextAlloc(context, sizeof(*from)));
  *copy = *from;
  copy->name = CopyText(context, from->name);
  copy->value = CopyText(context, from->value);
  copy->local_value = CopyText(context, from->local_value);
  copy->next = nullptr;
  return copy;
}

void Free(SessionParameter* parameter) {
  for (char* text : {parameter->name, parameter->value, parameter->local_value}) {
    if (text != nullptr) {
      pfree(text);
    }
  }
  pfree(parameter);
}

// Local values end; what has nothing else goes.
void EndLocal(Layer* layer) {
  for (SessionParameter** link = &layer->first; *link != nullptr;) {
    SessionParameter* parameter = *link;
    if (parameter->local_value != nullptr) {
      pfree(parameter->local_value);
      parameter->local_value = nullptr;
    }
    if (parameter->value == nullptr) {
      *link = parameter->next;
      Free(parameter);
    } else {
      link = &parameter->next;
    }
  }
}

void CommitTop() {
  if (top == nullptr || top->level == 0) {
    return;
  }
  while (top->below != nullptr) {
    DropBelowTop();
  }
  top->level = 0;
  EndLocal(top);
  if (top->first == nullptr) {
    DropTop();
  }
}

void RollBackTo(int level) {
  while (top != nullptr && top->level > level) {
    DropTop();
  }
}

// The layer of the current level, made as a copy of the one below if there is none yet.
Layer* Writable() {
  const int level = GetCurrentTransactionNestLevel();
  if (top != nullptr && top->level == level) {
    return top;
  }
  // Reaches its place only when it is whole: an error here frees it.
  MemoryContext context = AllocSetContextCreate(
      CurrentMemoryContext, "polarx_pooler session parameters", ALLOCSET_SMALL_SIZES);
  auto* layer = static_cast<Layer*>(MemoryContextAllocZero(context, sizeof(Layer)));
  layer->level = level;
  layer->context = context;
  SessionParameter** link = &layer->first;
  for (const SessionParameter* from = SessionParameters(); from != nullptr; from = from->next) {
    *link = Copy(context, from);
    link = &(*link)->next;
  }
  MemoryContextSetParent(context, TopMemoryContext);
  layer->version = SessionParametersVersion();
  layer->below = top;
  top = layer;
  return layer;
}

}  // namespace

void SessionParametersAfterEnd(bool committed) noexcept {
  if (committed) {
    CommitTop();
  } else {
    RollBackTo(0);
  }
}

void SessionParametersAfterLevel(int level, bool committed) noexcept {
  if (!committed) {
    RollBackTo(level - 1);
  } else if (top != nullptr && top->level == level) {
    top->level = level - 1;
    if (top->below != nullptr && top->below->level == level - 1) {
      DropBelowTop();
    }
  }
}

const SessionParameter* SessionParameters() { return top != nullptr ? top->first : nullptr; }

uint64 SessionParametersVersion() { return top != nullptr ? top->version : 0; }

bool SessionParametersAny(bool with_local) {
  const Oid role = GetUserId();
  for (const SessionParameter* p = SessionParameters(); p != nullptr; p = p->next) {
    if (p->role == role && (p->value != nullptr || with_local)) {
      return true;
    }
  }
  return false;
}

void SessionParametersSet(const char* name, const char* value, bool is_local) {
  const Oid role = GetUserId();
  Layer* layer = Writable();
  SessionParameter** place = Find(layer, role, name);
  SessionParameter* old = *place;
  SessionParameter fresh = {};
  fresh.role = role;
  fresh.name = const_cast<char*>(name);
  if (is_local) {
    fresh.value = old != nullptr ? old->value : nullptr;
    fresh.change = old != nullptr ? old->change : 0;
    fresh.local_value = const_cast<char*>(value);
  } else {
    fresh.value = const_cast<char*>(value);
    fresh.change = changes + 1;
  }
  SessionParameter* added = Copy(layer->context, &fresh);
  if (old != nullptr) {
    *place = old->next;
    Free(old);
  }
  *Last(layer) = added;
  layer->version = ++changes;
}

void SessionParametersForget(Oid role) {
  if (top == nullptr) {
    return;
  }
  Layer* layer = Writable();
  for (SessionParameter** link = &layer->first; *link != nullptr;) {
    SessionParameter* parameter = *link;
    if (!OidIsValid(role) || parameter->role == role) {
      *link = parameter->next;
      Free(parameter);
    } else {
      link = &parameter->next;
    }
  }
  layer->version = ++changes;
}

}  // namespace polarx
