// How many leases each backend holds, in shared memory, so that a new pooler worker knows what
// sessions still hold from an earlier one. Every process, its main thread.
#include "pg/shared/lease_count.h"

#include "pg/shared/lease_cells.h"

#include "pg/prelude.h"

namespace polarx {
namespace {

// Written by its backend alone; a cell counts while `count` is not 0, and its other fields stay as
// they are for as long.
struct Cell {
  pg_atomic_uint32 count;
  Oid database;
  Oid node;
  uint64 generation;
};

// In front of the cells.
struct Shared {
  pg_atomic_uint64 drops;  // so far, of leases that the pooler worker does not know of
};

Shared* shared = nullptr;
Cell* cells = nullptr;  // kCountedNodes for each backend

shmem_request_hook_type previous_request_hook = nullptr;
shmem_startup_hook_type previous_startup_hook = nullptr;

Size MemorySize() {
  return add_size(MAXALIGN(sizeof(Shared)),
                  mul_size(sizeof(Cell), mul_size(kCountedNodes, static_cast<Size>(MaxBackends))));
}

Size WholeSize() { return add_size(MAXALIGN(MemorySize()), LeaseCellsSize()); }

extern "C" void RequestLeaseMemory() {
  if (previous_request_hook != nullptr) {
    previous_request_hook();
  }
  RequestAddinShmemSpace(WholeSize());
}

extern "C" void SetUpLeaseMemory() {
  if (previous_startup_hook != nullptr) {
    previous_startup_hook();
  }
  bool found = false;
  LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
  void* memory = ShmemInitStruct("polarx_pooler leases", WholeSize(), &found);
  shared = static_cast<Shared*>(memory);
  cells = reinterpret_cast<Cell*>(static_cast<char*>(memory) + MAXALIGN(sizeof(Shared)));
  LeaseCellsSetUp(static_cast<char*>(memory) + MAXALIGN(MemorySize()), found);
  if (!found) {
    memset(memory, 0, MemorySize());
    pg_atomic_init_u64(&shared->drops, 0);
    for (int i = 0; i < MaxBackends * kCountedNodes; i++) {
      pg_atomic_init_u32(&cells[i].count, 0);
    }
  }
  LWLockRelease(AddinShmemInitLock);
}

// This backend's cell for them; `wanted` false: null if there is none, else an unused one.
Cell* FindCell(Oid node, uint64 generation, bool wanted) noexcept {
  if (cells == nullptr || MyPlace() == kNoPlace) {
    return nullptr;
  }
  Cell* mine = &cells[MyPlace() * kCountedNodes];
  Cell* unused = nullptr;
  for (Cell* cell = mine; cell < mine + kCountedNodes; cell++) {
    if (pg_atomic_read_u32(&cell->count) == 0) {
      unused = unused == nullptr ? cell : unused;
    } else if (cell->node == node && cell->generation == generation) {
      return cell;
    }
  }
  return wanted ? unused : nullptr;
}

}  // namespace

void LeaseCountReserve() {
  previous_request_hook = shmem_request_hook;
  shmem_request_hook = RequestLeaseMemory;
  previous_startup_hook = shmem_startup_hook;
  shmem_startup_hook = SetUpLeaseMemory;
}

bool LeaseCountAdd(Oid node, uint64 generation) noexcept {
  Cell* cell = FindCell(node, generation, true);
  if (cell == nullptr) {
    return false;
  }
  if (pg_atomic_read_u32(&cell->count) == 0) {
    cell->database = MyDatabaseId;
    cell->node = node;
    cell->generation = generation;
    pg_write_barrier();
  }
  pg_atomic_write_u32(&cell->count, pg_atomic_read_u32(&cell->count) + 1);
  return true;
}

void LeaseCountDrop(Oid node, uint64 generation, bool unknown) noexcept {
  if (Cell* cell = FindCell(node, generation, false); cell != nullptr) {
    pg_atomic_write_u32(&cell->count, pg_atomic_read_u32(&cell->count) - 1);
    if (unknown) {
      pg_atomic_fetch_add_u64(&shared->drops, 1);
    }
  }
}

void LeaseCountDropAll() noexcept {
  if (cells == nullptr || MyPlace() == kNoPlace) {
    return;
  }
  Cell* mine = &cells[MyPlace() * kCountedNodes];
  for (Cell* cell = mine; cell < mine + kCountedNodes; cell++) {
    pg_atomic_write_u32(&cell->count, 0);
  }
  pg_atomic_fetch_add_u64(&shared->drops, 1);
}

uint64 LeaseCountDrops() { return shared != nullptr ? pg_atomic_read_u64(&shared->drops) : 0; }

LeaseCount* LeaseCountOthers(uint64 generation, int* length) {
  int room = 16;
  auto* found = static_cast<LeaseCount*>(palloc(sizeof(LeaseCount) * room));
  *length = 0;
  for (int i = 0; cells != nullptr && i < MaxBackends * kCountedNodes; i++) {
    const uint32 count = pg_atomic_read_u32(&cells[i].count);
    if (count == 0) {
      continue;
    }
    pg_read_barrier();
    if (cells[i].database != MyDatabaseId || cells[i].generation == generation) {
      continue;
    }
    if (*length == room) {
      room *= 2;
      found = static_cast<LeaseCount*>(repalloc(found, sizeof(LeaseCount) * room));
    }
    found[*length].node = cells[i].node;
    found[*length].count = static_cast<int>(count);
    ++*length;
  }
  return found;
}

}  // namespace polarx
