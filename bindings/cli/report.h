// SPDX-License-Identifier: Apache-2.0
// The report of `chorus combine --report`: one HTML file with all plots in it.
#pragma once
#include "combine_run.h"

namespace chorus_cli {

// Refuses what a report cannot be made of.
void check_report(const CombineArguments &arguments);
// Reads the rows again and writes arguments.report.
void write_report(const Context &context, const CombineArguments &arguments, std::vector<CombineModel> *models);

}  // namespace chorus_cli
