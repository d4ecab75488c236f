// SPDX-License-Identifier: Apache-2.0
// A fixed frame of 460 x 330 with five ticks per axis.
#include "svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace chorus_cli {
namespace {

constexpr double kLeft = 62, kTop = 30, kWidth = 370, kHeight = 240, kRight = kLeft + kWidth, kBottom = kTop + kHeight;

}  // namespace

std::string html_text(const std::string &text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '&': out += "&amp;"; break;
      case '"': out += "&quot;"; break;
      default: out += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
    }
  }
  return out;
}

std::string color_of(size_t i) {
  constexpr const char *kColors[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666"};
  return kColors[i % std::size(kColors)];
}

Plot::Plot(std::string title, std::string x_label, std::string y_label, double x_low, double x_high, double y_low, double y_high)
    : title_(std::move(title)),
      x_label_(std::move(x_label)),
      y_label_(std::move(y_label)),
      x_low_(x_low),
      x_high_(x_high > x_low ? x_high : x_low + 1),
      y_low_(y_low),
      y_high_(y_high > y_low ? y_high : y_low + 1) {}

double Plot::at_x(double x) const { return kLeft + std::clamp((x - x_low_) / (x_high_ - x_low_), 0.0, 1.0) * kWidth; }
double Plot::at_y(double y) const { return kBottom - std::clamp((y - y_low_) / (y_high_ - y_low_), 0.0, 1.0) * kHeight; }

void Plot::line(const Points &points, const std::string &color, const std::string &name, bool dashed) {
  std::string path;
  for (const auto &[x, y] : points) {
    if (std::isfinite(x) && std::isfinite(y)) path += fmt::format("{:.1f},{:.1f} ", at_x(x), at_y(y));
  }
  body_ += fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\"{}/>\n", path, color,
                       dashed ? 1 : 2, dashed ? " stroke-dasharray=\"4 4\"" : "");
  if (name.empty()) return;
  const double y = kTop + 14 + 15 * names_++;
  legend_ += fmt::format("<text x=\"{}\" y=\"{}\" fill=\"{}\">{}</text>\n", kLeft + 10, y, color, html_text(name));
}

void Plot::bars(const Points &tops, double width, const std::string &color) {
  for (const auto &[x, y] : tops) {
    if (!std::isfinite(x) || !std::isfinite(y)) continue;
    const double left = at_x(x - width / 2), right = at_x(x + width / 2), top = at_y(y);
    body_ += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\" fill-opacity=\"0.35\"/>\n",
                         left, top, right - left, kBottom - top, color);
  }
}

void Plot::mark(double x, double y, const std::string &color) {
  if (!std::isfinite(x) || !std::isfinite(y)) return;
  body_ += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"{}\"/>\n", at_x(x), at_y(y), color);
}

std::string Plot::svg() const {
  std::string out = fmt::format("<svg viewBox=\"0 0 460 330\" width=\"460\" height=\"330\" role=\"img\" aria-label=\"{}\">\n",
                                html_text(title_));
  out += fmt::format("<text x=\"{}\" y=\"18\" class=\"title\">{}</text>\n", kLeft, html_text(title_));
  for (int i = 0; i <= 4; ++i) {
    const double x = x_low_ + (x_high_ - x_low_) * i / 4, y = y_low_ + (y_high_ - y_low_) * i / 4;
    out += fmt::format("<line x1=\"{0:.1f}\" y1=\"{1}\" x2=\"{0:.1f}\" y2=\"{2}\" class=\"grid\"/>\n", at_x(x), kTop, kBottom);
    out += fmt::format("<line x1=\"{1}\" y1=\"{0:.1f}\" x2=\"{2}\" y2=\"{0:.1f}\" class=\"grid\"/>\n", at_y(y), kLeft, kRight);
    out += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{:.3g}</text>\n", at_x(x), kBottom + 16, x);
    out += fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{:.4g}</text>\n", kLeft - 6, at_y(y) + 4, y);
  }
  out += body_ + legend_;
  out += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", kLeft + kWidth / 2, kBottom + 36, html_text(x_label_));
  out += fmt::format("<text transform=\"rotate(-90)\" x=\"{}\" y=\"14\" text-anchor=\"middle\">{}</text>\n", -(kTop + kHeight / 2),
                     html_text(y_label_));
  return out + "</svg>\n";
}

}  // namespace chorus_cli
