// SPDX-License-Identifier: Apache-2.0
// chatml, llama3, mistral, exaone, alpaca: the published formats, each turn one output expression. Every tag trims the text around it, so
// that the line breaks here are none of the output's.
#include "merge/recipe/chat_templates.h"

#include <algorithm>
#include <iterator>

namespace chorus::merge {
namespace {

struct Named {
  std::string_view name;
  const char *text;
};

constexpr Named kTemplates[] = {
    {"alpaca", R"({%- set system = messages|selectattr('role', 'equalto', 'system')|list|last -%}
{{- (system.content|trim if system else '') ~ '\n\n' -}}
{%- set titles = {'user': 'Instruction', 'assistant': 'Response', 'user_context': 'Input'} -%}
{%- for turn in messages -%}
{%- if turn['role'] in titles -%}
{{- '### ' ~ titles[turn['role']] ~ ':\n' ~ turn['content']|trim ~ ('' if loop.last else '\n\n') -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and messages[-1]['role'] != 'assistant' -%}
{{- ('' if messages[-1]['role'] == 'system' else '\n\n') ~ '### Response:\n' -}}
{%- endif -%}
)"},
    {"chatml", R"({%- for turn in messages -%}
{{- '<|im_start|>' ~ turn['role'] ~ '\n' ~ turn['content'] ~ '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
)"},
    {"exaone", R"({%- for turn in messages -%}
{%- if loop.first and turn['role'] != 'system' -%}{{- '[|system|][|endofturn|]\n' -}}{%- endif -%}
{{- '[|' ~ turn['role'] ~ '|]' ~ turn['content'] ~ ('\n' if turn['role'] == 'user' else '[|endofturn|]\n') -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '[|assistant|]' -}}{%- endif -%}
)"},
    {"llama3", R"({%- for turn in messages -%}
{{- (bos_token if loop.first else '') ~ '<|start_header_id|>' ~ turn['role'] ~ '<|end_header_id|>\n\n' -}}
{{- turn['content']|trim ~ '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}{%- endif -%}
)"},
    {"mistral", R"({%- set has_system = messages[0]['role'] == 'system' -%}
{%- set turns = messages[1:] if has_system else messages -%}
{{- bos_token -}}
{%- for turn in turns -%}
{%- if (turn['role'] == 'user') != (loop.index0 is even) -%}
{{- raise_exception('Roles must alternate: user, assistant, user, assistant …, after one optional system message.') -}}
{%- elif turn['role'] == 'user' -%}
{{- ' [INST] ' ~ (messages[0]['content'] ~ '\n\n' if has_system and loop.first else '') ~ turn['content'] ~ ' [/INST]' -}}
{%- elif turn['role'] == 'assistant' -%}
{{- ' ' ~ turn['content'] ~ eos_token -}}
{%- else -%}
{{- raise_exception('The roles are user and assistant, after one optional system message.') -}}
{%- endif -%}
{%- endfor -%}
)"},
};

}  // namespace

const char *chat_template_named(std::string_view name) {
  const auto found = std::ranges::find(kTemplates, name, &Named::name);
  return found == std::end(kTemplates) ? nullptr : found->text;
}

std::vector<std::string> chat_template_names() {
  std::vector<std::string> out;
  for (const Named &one : kTemplates) out.emplace_back(one.name);
  return out;
}

}  // namespace chorus::merge
