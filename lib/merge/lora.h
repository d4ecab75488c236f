// SPDX-License-Identifier: Apache-2.0
// Low-rank adapters in PEFT's files, added to a model's tensors as they are read: round(W + s B A) in W's type, what a merged copy on
// disk would hold (Hu et al. 2021, arXiv 2106.09685). Nothing is written.
#pragma once
#include "merge/structure.h"

namespace chorus::merge {

// Opens the adapter of input->reference and gives `input` a view of each tensor it changes. Fails NOT_FOUND, DATA_LOSS,
// INVALID_ARGUMENT (tensors that fit none of the model), UNIMPLEMENTED (kinds of adapters other than LoRA).
void add_adapter(InputModel *input);

}  // namespace chorus::merge
