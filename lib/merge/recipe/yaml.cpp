// SPDX-License-Identifier: Apache-2.0
// libyaml's events to nodes. Aliases share nodes; what they would expand to is counted, so that a small file cannot ask
// for much work ("billion laughs").
#include "merge/recipe/yaml.h"

#include <yaml.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "runtime/utf8.h"

namespace chorus::merge {
namespace {

constexpr int kMaxDepth = 32;
constexpr size_t kMaxExpanded = 200'000;

Place place_of(const yaml_mark_t &mark) { return {mark.line + 1, mark.column + 1}; }

// One event, freed with this.
class Event {
 public:
  Event() = default;
  ~Event() { yaml_event_delete(&event_); }
  Event(const Event &) = delete;
  Event &operator=(const Event &) = delete;
  yaml_event_t *get() { return &event_; }
  yaml_event_type_t type() const { return event_.type; }
  Place place() const { return place_of(event_.start_mark); }
  const yaml_event_t &operator*() const { return event_; }

 private:
  yaml_event_t event_ = {};
};

class Builder {
 public:
  Builder(const std::string &text, Diagnostics *diagnostics) : diagnostics_(diagnostics) {
    if (yaml_parser_initialize(&parser_) == 0) throw std::bad_alloc();
    yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char *>(text.data()), text.size());
  }
  ~Builder() { yaml_parser_delete(&parser_); }
  Builder(const Builder &) = delete;
  Builder &operator=(const Builder &) = delete;

  std::vector<NodePtr> documents() {
    std::vector<NodePtr> out;
    while (true) {
      Event event;
      next(&event);
      if (event.type() == YAML_STREAM_END_EVENT) return out;
      if (event.type() != YAML_DOCUMENT_START_EVENT) continue;
      anchors_.clear();
      Event first;
      next(&first);
      out.push_back(node(first, 0));
      Event end;
      next(&end);
    }
  }

 private:
  template <typename... Args>
  [[noreturn]] void stop(Place place, fmt::format_string<Args...> format, Args &&...args) {
    diagnostics_->error(place, format, std::forward<Args>(args)...);
    diagnostics_->throw_if_any();
    throw std::logic_error("an error was added and not thrown");
  }

  void next(Event *event) {
    if (yaml_parser_parse(&parser_, event->get()) != 0) return;
    if (parser_.error == YAML_MEMORY_ERROR) throw std::bad_alloc();
    const char *problem = parser_.problem != nullptr ? parser_.problem : "unreadable";
    const Place place = parser_.error == YAML_READER_ERROR ? Place{} : place_of(parser_.problem_mark);
    if (parser_.context != nullptr) {
      stop(place, "not YAML: {} ({}, which begins at line {})", problem, parser_.context, parser_.context_mark.line + 1);
    }
    stop(place, "not YAML: {}", problem);
  }

  NodePtr node(const Event &event, int depth) {
    if (depth > kMaxDepth) stop(event.place(), "nested deeper than {} levels", kMaxDepth);
    switch (event.type()) {
      case YAML_ALIAS_EVENT:
        return alias(event);
      case YAML_SCALAR_EVENT:
        return scalar(event);
      case YAML_SEQUENCE_START_EVENT:
        return list(event, depth);
      default:
        return map(event, depth);
    }
  }

  NodePtr alias(const Event &event) {
    const std::string name = reinterpret_cast<const char *>((*event).data.alias.anchor);
    const auto found = anchors_.find(name);
    if (found == anchors_.end()) stop(event.place(), "'*{}' refers to no anchor '&{}' before it", shown(name), shown(name));
    if (found->second == nullptr) stop(event.place(), "'*{}' contains itself", shown(name));
    return found->second;
  }

  void remember(const unsigned char *anchor, const NodePtr &node) {
    if (anchor != nullptr) anchors_[reinterpret_cast<const char *>(anchor)] = node;
  }

  // Nothing is constructed from a file: tags may only say what is plain anyway.
  void check_tag(Place place, const unsigned char *tag, std::string_view allowed) {
    if (tag == nullptr) return;
    const std::string_view text = reinterpret_cast<const char *>(tag);
    if (text != "!" && text != allowed) stop(place, "tag '{}' has no meaning in a recipe; leave it out", shown(text));
  }

  NodePtr scalar(const Event &event) {
    const auto &data = (*event).data.scalar;
    auto out = std::make_shared<Node>();
    out->place = event.place();
    out->text.assign(reinterpret_cast<const char *>(data.value), data.length);
    out->kind = Node::Kind::kText;
    const std::string_view tag = data.tag != nullptr ? reinterpret_cast<const char *>(data.tag) : "";
    if (tag.empty() && data.style == YAML_PLAIN_SCALAR_STYLE) {
      resolve_plain(out.get());
    } else {
      check_tag(event.place(), data.tag, "tag:yaml.org,2002:str");
    }
    remember(data.anchor, out);
    return out;
  }

  NodePtr list(const Event &event, int depth) {
    auto out = std::make_shared<Node>();
    out->kind = Node::Kind::kList;
    out->place = event.place();
    check_tag(out->place, (*event).data.sequence_start.tag, "tag:yaml.org,2002:seq");
    remember((*event).data.sequence_start.anchor, nullptr);
    while (true) {
      Event item;
      next(&item);
      if (item.type() == YAML_SEQUENCE_END_EVENT) break;
      out->items.push_back(node(item, depth + 1));
      grow(out.get(), *out->items.back());
    }
    remember((*event).data.sequence_start.anchor, out);
    return out;
  }

  NodePtr map(const Event &event, int depth) {
    auto out = std::make_shared<Node>();
    out->kind = Node::Kind::kMap;
    out->place = event.place();
    check_tag(out->place, (*event).data.mapping_start.tag, "tag:yaml.org,2002:map");
    remember((*event).data.mapping_start.anchor, nullptr);
    std::vector<NodePtr> merged;
    Index index;
    while (true) {
      Event first;
      next(&first);
      if (first.type() == YAML_MAPPING_END_EVENT) break;
      const bool is_merge = first.type() == YAML_SCALAR_EVENT && (*first).data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
      const NodePtr key = node(first, depth + 1);
      Event second;
      next(&second);
      const NodePtr value = node(second, depth + 1);
      grow(out.get(), *value);
      if (!key->is_scalar()) stop(key->place, "a key is {}; keys are words", kind_name(key->kind));
      if (is_merge && key->text == "<<") {
        collect_merged(*value, &merged, value);
      } else {
        put(out.get(), &index, {key, value}, true);
      }
    }
    // Keys of the map itself count before those it merges, and of those the first.
    for (const NodePtr &source : merged) {
      for (const Entry &entry : source->entries) put(out.get(), &index, entry, false);
    }
    remember((*event).data.mapping_start.anchor, out);
    return out;
  }

  void collect_merged(const Node &value, std::vector<NodePtr> *merged, const NodePtr &self) {
    if (value.kind == Node::Kind::kMap) {
      merged->push_back(self);
      return;
    }
    const bool maps = value.kind == Node::Kind::kList && std::ranges::all_of(value.items, [](const NodePtr &item) {
                        return item->kind == Node::Kind::kMap;
                      });
    if (!maps) stop(value.place, "'<<' merges a map or a list of maps; this is {}", kind_name(value.kind));
    merged->insert(merged->end(), value.items.begin(), value.items.end());
  }

  using Index = std::unordered_map<std::string_view, size_t>;  // of a map's entries by key

  void put(Node *map, Index *index, const Entry &entry, bool overwrite) {
    const auto [known, is_new] = index->emplace(entry.key->text, map->entries.size());
    if (is_new) {
      map->entries.push_back(entry);
    } else if (overwrite) {
      diagnostics_->warning(entry.key->place, "key '{}' stands twice, first at line {}; the last one counts",
                            shown(entry.key->text), map->entries[known->second].key->place.line);
      map->entries[known->second].value = entry.value;
    }
  }

  void grow(Node *parent, const Node &child) {
    parent->expanded += child.expanded;
    if (parent->expanded > kMaxExpanded) {
      stop(parent->place, "more than {} values once all aliases are written out", kMaxExpanded);
    }
  }

  Diagnostics *diagnostics_;
  yaml_parser_t parser_;
  std::map<std::string, NodePtr> anchors_;  // NULL while the node is being read
};

}  // namespace

const char *kind_name(Node::Kind kind) {
  constexpr const char *kNames[] = {"nothing", "a boolean", "an integer", "a number", "text", "a list", "a map"};
  return kNames[static_cast<int>(kind)];
}

std::vector<NodePtr> parse_yaml(const std::string &text, Diagnostics *diagnostics) {
  if (text.size() > kMaxRecipeBytes) {
    diagnostics->error({}, "{} bytes; a recipe has at most {}", text.size(), kMaxRecipeBytes);
    diagnostics->throw_if_any();
  }
  return Builder(text, diagnostics).documents();
}

}  // namespace chorus::merge
