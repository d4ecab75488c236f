// SPDX-License-Identifier: Apache-2.0
// The guard around the JSON library.
#include "runtime/json.h"

namespace chorus {

void fail_json(const std::string &file, size_t position, const nlohmann::json::exception &error) {
  const std::string text = error.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: …"
  const size_t end_of_id = text.find("] ");
  fail(CHORUS_DATA_LOSS, "{}: byte {}: not JSON: {}", file, position,
       end_of_id == std::string::npos ? text : text.substr(end_of_id + 2));
}

nlohmann::json parse_json(const std::string &text, const std::string &file) {
  const auto guard = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json &) {
    if (depth > kMaxJsonDepth) fail(CHORUS_DATA_LOSS, "{}: nested deeper than {} levels", file, kMaxJsonDepth);
    return true;
  };
  try {
    return nlohmann::json::parse(text, guard);
  } catch (const nlohmann::json::parse_error &error) {
    fail_json(file, error.byte > 0 ? error.byte - 1 : 0, error);
  } catch (const nlohmann::json::exception &error) {
    fail_json(file, 0, error);
  }
}

}  // namespace chorus
