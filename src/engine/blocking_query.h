// What a datanode is asked in order to find who is in whose way there; pure functions, any thread.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace polarx {

// One statement with one value: of those processes of the datanode that wait for a lock, who is in
// their way; and of these, which are none of `lent` but have a client at the same address as
// whoever asks. Everybody may ask, without a right.
std::string BlockingStatement(const std::vector<int>& waiting, const std::vector<int>& lent);

struct BlockingAnswer {
  std::vector<std::pair<int, int>> blocked;  // a process, and one that is in its way
  std::vector<int> neighbours;               // with a client at the same address
};
// What does not read like an answer is left out: a datanode may say what it likes.
BlockingAnswer ParseBlockingAnswer(std::string_view text);

}  // namespace polarx
