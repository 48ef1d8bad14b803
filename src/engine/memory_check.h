// The statements by which the memory of a datanode session is measured; constants, any thread.
#pragma once

#include <string>
#include <string_view>

#include "core/pool.h"

namespace polarx {

// Must the datanode be asked first how its memory can be measured?
bool AsksForSource(MemorySource source);
// Its one value is the answer to that question (MemorySourceOf reads it), or else bytes.
std::string MeasureStatement(MemorySource source);
MemorySource MemorySourceOf(std::string_view answer);

}  // namespace polarx
