// SPDX-License-Identifier: Apache-2.0
// The sections of the demo, each an experiment on the family.
#pragma once
#include "report.h"
#include "study.h"

namespace host {

void each_model_alone(Study &study, Report &report);
void mix_predictions(Study &study, Report &report);
void merge_weights(Study &study, Report &report);
void route_to_experts(const Library &library, const chorus_context *context, Study &study, Report &report);
void generate_text(Study &study, Report &report);

}  // namespace host
