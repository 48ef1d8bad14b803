// Starts threads that no signal can reach and that have a name; on the thread that calls it.
#pragma once

#include <functional>
#include <string>
#include <thread>

#include "core/status.h"

namespace polarx {

// All signals are blocked in the new thread for its whole life; the caller's mask stays as it is.
// `name` (at most 15 bytes) is what /proc shows. The body must throw nothing.
Result<std::thread> StartThread(const std::string& name, std::function<void()> body);

}  // namespace polarx
