// How many leases each backend holds, in shared memory, so that a new pooler worker knows what
// sessions still hold from an earlier one. In every process, on its main thread.
#pragma once

#include "pg/prelude.h"

namespace polarx {

// Nodes that one backend is counted for; leases on more of them are not seen by a new worker.
inline constexpr int kCountedNodes = 64;

// Reserves the memory, that of the lease cells too; _PG_init calls it while preloading.
void LeaseCountReserve();

// This backend holds, or asks for, one more lease on the node from the worker of that generation.
// Returns false if there is no room to count it.
bool LeaseCountAdd(Oid node, uint64 generation) noexcept;
// One that LeaseCountAdd has counted is gone; `unknown`: the pooler worker may not know of it.
void LeaseCountDrop(Oid node, uint64 generation, bool unknown) noexcept;
// This backend exits: it holds and asks for nothing any more.
void LeaseCountDropAll() noexcept;

// Returns a number that changes whenever an unknown one is dropped, or a backend exits.
uint64 LeaseCountDrops();

struct LeaseCount {
  Oid node;
  int count;
};
// Returns what living backends of this database hold from workers of other generations; nodes may
// repeat. Palloc'd; the pooler worker asks.
LeaseCount* LeaseCountOthers(uint64 generation, int* length);

}  // namespace polarx
