// SPDX-License-Identifier: Apache-2.0
// Plots as SVG text, without scripts or anything from outside.
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace chorus_cli {

// Text made safe inside HTML and SVG.
std::string html_text(const std::string &text);

using Points = std::vector<std::pair<double, double>>;

// A plot with axes; what is drawn is clipped to them. Not finite points are left out.
class Plot {
 public:
  Plot(std::string title, std::string x_label, std::string y_label, double x_low, double x_high, double y_low, double y_high);
  void line(const Points &points, const std::string &color, const std::string &name, bool dashed = false);
  void bars(const Points &tops, double width, const std::string &color);
  void mark(double x, double y, const std::string &color);
  std::string svg() const;

 private:
  double at_x(double x) const;
  double at_y(double y) const;

  std::string title_, x_label_, y_label_, body_, legend_;
  double x_low_, x_high_, y_low_, y_high_;
  int names_ = 0;
};

// The color of the i-th line.
std::string color_of(size_t i);

}  // namespace chorus_cli
