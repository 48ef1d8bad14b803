// The version of the library; in every process.
#pragma once

namespace polarx {

// That of the extension's newest SQL script, which polarx_pooler.control names too.
inline constexpr const char* kVersionText = "1.1";

}  // namespace polarx
