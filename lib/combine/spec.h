// SPDX-License-Identifier: Apache-2.0
// A combiner's spec made whole, and as the descriptor of combine.rows.
#pragma once
#include <vector>

#include "combine/combiner.h"

namespace chorus::combine {

// `spec` with its defaults filled in; fails where models, weights and vocabulary do not fit together.
Spec completed(Spec spec);

// The plugin's view of a spec; owns what it points to.
class Descriptor {
 public:
  explicit Descriptor(const Spec &spec);
  Descriptor(const Descriptor &) = delete;
  Descriptor &operator=(const Descriptor &) = delete;
  const chorus_combine_desc *get() const { return &desc_; }

 private:
  struct MapTensors {
    chorus_tensor offsets, ids, values;
    int64_t rows, entries;
  };
  void add_map(const ModelMap &map, MapTensors &tensors, chorus_combine_model &model);

  std::vector<chorus_combine_model> models_;
  std::vector<MapTensors> maps_;
  std::vector<const chorus_combine_model *> pointers_;
  chorus_combine_desc desc_;
};

}  // namespace chorus::combine
