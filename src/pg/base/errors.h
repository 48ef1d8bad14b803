// Errors as plain data, which outlive the C++ frames in which they arose and become an ereport. In
// a backend, on its only thread.
#pragma once

#include "core/status.h"

namespace polarx {

// A Status that an ereport may jump away from; longer texts are cut.
struct ErrorText {
  char sqlstate[6];
  char message[1024];
  char detail[1024];
  char hint[512];
};

void KeepError(const Status& status, ErrorText* error) noexcept;
void KeepPlainError(const char* sqlstate, const char* message, ErrorText* error) noexcept;
void KeepOutOfMemory(ErrorText* error) noexcept;
[[noreturn]] void ThrowError(const ErrorText* error);

}  // namespace polarx
