#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""python.py OUT: writes core.i, the SWIG interface of chorus._core, and _core.pyi, its types, from the C headers."""
import keyword
import re
import sys
from pathlib import Path

import headers

INTEGERS = {"int8_t": ("INT8_MIN", "INT8_MAX"), "int16_t": ("INT16_MIN", "INT16_MAX"), "int32_t": ("INT32_MIN", "INT32_MAX"),
            "int64_t": ("INT64_MIN", "INT64_MAX"), "uint8_t": ("0", "UINT8_MAX"), "uint16_t": ("0", "UINT16_MAX"),
            "uint32_t": ("0", "UINT32_MAX")}
NAMES = {"tensor": "TENSOR", "tensors": "TENSORS", "struct": "STRUCT", "struct_out": "STRUCT_OUT", "number_out": "NUMBER_OUT",
         "text_out": "TEXT_OUT", "pointer_out": "POINTER_OUT", "array_out": "ARRAY_OUT", "buffer": "BUFFER",
         "buffer_out": "BUFFER_OUT", "handle_out": "HANDLE_OUT", "handles": "HANDLES", "handles_out": "HANDLES_OUT",
         "handle": "HANDLE"}
HAND_MADE = {"chorus_tensor", "chorus_quant", "chorus_log_fn"}  # core/fields.h, core/callback.h
STUBS = {"integer": "SupportsIndex", "real": "float", "text": "Optional[Text]", "tensor": "Optional[Array]",
         "tensors": "Optional[Sequence[Optional[Array]]]", "struct": "Optional[Mapping[str, Any]]", "buffer": "Any",
         "buffer_out": "Any", "handle": "Any", "handles": "Sequence[Any]", "callback": "Any", "other": "Optional[int]"}
RESULTS = {"handle_out": "Any", "handles_out": "List[Any]", "struct_out": "Dict[str, Any]", "text_out": "Optional[str]",
           "pointer_out": "int", "array_out": "Tuple[int, ...]"}


def number(api, p):
    return api.aliases.get(p.target, p.target)


def used_structs(api):
    """Structs that functions take or give, those they contain before them."""
    out = {}
    def add(name):
        if name in out or name in HAND_MADE:
            return
        for f in api.structs[name].fields:
            if f.role in ("struct", "structs"):
                add(f.target)
        out[name] = api.structs[name]
    for f in api.functions:
        for p in f.parameters:
            if p.role in ("struct", "struct_out", "structs"):
                add(p.target)
    for name, (_, parameters, _) in api.callbacks.items():
        if is_heard(api, name):
            for p in parameters:
                if headers.role_of(api, p) == "struct":
                    add(p.target)
    return out


# ---- Struct converters ----------------------------------------------------------------------------------------------

def read_field(api, f):
    kind = number(api, f)
    if f.role == "integer":
        if kind in ("uint64_t", "size_t"):
            return f"CHORUS_FIELD_UNSIGNED({f.name})"
        return f"CHORUS_FIELD_INTEGER({f.name}, {f.type}, {', '.join(INTEGERS[kind])})"
    if f.role == "buffer":
        letter = headers.NUMBERS.get(kind)
        return f"CHORUS_FIELD_NUMBERS({f.name}, {f.type}, {repr(letter) if letter else 0})"
    if f.role in ("real", "text", "tensor", "tensors"):
        return f"CHORUS_FIELD_{f.role.upper()}({f.name})"
    if f.role in ("buffer_out", "other", "handle"):
        return f"CHORUS_FIELD_NUMBERS({f.name}, {f.type}, 0)"
    return ""


def reader(api, struct):
    lines, fields = [], [f for f in struct.fields if f.name not in ("struct_size", "reserved") and read_field(api, f)]
    lines += ["  " + read_field(api, f) for f in fields]
    for f in fields:
        length = headers.length_of(struct, f) if f.role == "buffer" else ""
        if length:
            lines.append(f"  CHORUS_FIELD_LENGTH({f.name}, {length})")
    return (f"static int chorus_in_{struct.name}(PyObject *from, {struct.name} *s, chorus_hold *hold) {{\n"
            f"  chorus_reading r;\n  PyObject *value;\n  (void)value;\n"
            f'  if (!chorus_core_begin(&r, from, hold, "{struct.name}")) return 0;\n' + "\n".join(lines) +
            f'\n  return chorus_core_end(&r, "{struct.name}", "{", ".join(f.name for f in fields)}");\n}}\n')


def built(api, struct, f):
    """C expression of a field's Python value."""
    kind, names = number(api, f), [other.name for other in struct.fields]
    if f.role == "integer":
        return f"PyLong_From{'UnsignedLongLong((unsigned long long)' if kind.startswith(('u', 's')) else 'LongLong((long long)'}s->{f.name})"
    if f.role == "real":
        return f"PyFloat_FromDouble(s->{f.name})"
    if f.role == "text":
        if f.name == "bytes" and "length" in names:
            return f"PyBytes_FromStringAndSize(s->{f.name}, (Py_ssize_t)s->length)"
        if f"{f.name}_length" in names:
            return f'PyUnicode_DecodeUTF8(s->{f.name}, (Py_ssize_t)s->{f.name}_length, "surrogateescape")'
        return f"chorus_core_string(s->{f.name})"
    length = headers.length_of(struct, f) if f.role == "buffer" and kind in headers.NUMBERS else ""
    if length:
        return f'chorus_core_copy(s->{f.name}, (int64_t)({length}), "{headers.NUMBERS[kind]}", sizeof(*s->{f.name}))'
    return f"PyLong_FromVoidPtr((void *)s->{f.name})" if "*" in f.type else "NULL"


def writer(api, struct):
    fields = [f for f in struct.fields if f.name not in ("struct_size", "reserved") and "[" not in f.type and "(*)" not in f.type]
    puts = " ||\n      ".join(f'!chorus_core_put(d, "{f.name}", {built(api, struct, f)})' for f in fields)
    return (f"static PyObject *chorus_out_{struct.name}(const {struct.name} *s) {{\n  PyObject *d = PyDict_New();\n"
            f"  if (d == NULL ||\n      {puts}) {{\n    Py_XDECREF(d);\n    return NULL;\n  }}\n  return d;\n}}\n")


# ---- Callbacks --------------------------------------------------------------------------------------------------------

def is_heard(api, name):
    """A callback that a Python function can be: `user` first, then plain values."""
    if name in HAND_MADE:
        return False
    result, parameters, _ = api.callbacks[name]
    return (parameters and parameters[0].type == "void *" and parameters[0].name == "user" and
            (result == "void" or api.aliases.get(result, result) in ("int32_t", "double")) and
            all(headers.role_of(api, p) in ("integer", "real", "text", "struct") for p in parameters[1:]))


def trampoline(api, name):
    result, parameters, _ = api.callbacks[name]
    formats, values = [], []
    for p in parameters[1:]:
        role = headers.role_of(api, p)
        formats.append({"integer": "L", "real": "d", "text": "s", "struct": "N"}[role])
        values.append({"integer": f"(long long){p.name}", "struct": f"chorus_out_{p.target}({p.name})"}.get(role, p.name))
    answer = {"void": "Py_XDECREF(result);", "double": "answer = chorus_core_answer_real(user, result);"}.get(
        api.aliases.get(result, result), "answer = chorus_core_answer(user, result);")
    declared = ", ".join(f"{p.type} {p.name}" for p in parameters)
    return (f"static {result} chorus_hear_{name}({declared}) {{\n"
            "  const PyGILState_STATE gil = PyGILState_Ensure();\n"
            f'  PyObject *result = chorus_core_hear(user, Py_BuildValue("({"".join(formats)})", {", ".join(values)}));\n'
            + (f"  {result} answer;\n" if result != "void" else "") +
            f"  {answer}\n  chorus_core_drain();\n  PyGILState_Release(gil);\n" +
            ("  return answer;\n" if result != "void" else "") + "}\n")


# ---- Functions --------------------------------------------------------------------------------------------------------

def declared_parameter(api, function, index, mutable):
    p = function.parameters[index]
    after = function.parameters[index + 1].name if index + 1 < len(function.parameters) else ""
    if p.role in ("integer", "real"):
        return f"{number(api, p)} {p.name}"
    if p.role == "error":
        return f"{p.type}{p.name}"
    if p.role == "text":
        return f"{p.type}{'TEXT_OF_LENGTH' if after == 'length' else 'TEXT'}"
    if p.role == "callback":
        return f"{p.type} {'CALLBACK' if p.target in HAND_MADE or is_heard(api, p.target) else 'ADDRESS'}"
    if p.name == "user" and index and function.parameters[index - 1].role == "callback":
        return "void *user"
    if p.role == "handle":
        if function.name.endswith("_destroy"):
            return f"{p.type}DESTROYED"
        serial = {0: "SERIAL", 1: "SERIAL_TOO"}.get(index) if p.target in mutable else None
        if index == 1 and (serial is None or p.target.endswith("_spec")):
            serial = None
        return f"{p.type}{serial or 'HANDLE'}"
    if p.role == "array_out":
        kind, size = p.type.split("[")
        return f"{kind} ARRAY_OUT[{size}"
    kind = p.type if p.target not in api.aliases else p.type.replace(p.target, number(api, p))
    return f"{kind}{'' if kind.endswith('*') else ' '}{NAMES.get(p.role, p.name)}"


def guarded(api, function, declared):
    """%exception: what surrounds the call."""
    serial, both, quick = "SERIAL" in declared, "SERIAL_TOO" in declared, headers.is_quick(function)
    heard = "CALLBACK" in declared and "chorus_log_fn" not in declared
    if function.name.endswith("_destroy"):
        serial = False
    before, after = [], []
    if serial:
        before.append("chorus_core_lock_both(chorus_serial, chorus_serial_too);" if both else "chorus_core_lock(chorus_serial);")
        after.append("chorus_core_unlock(chorus_serial);")
        if both:
            after.append("if (chorus_serial_too != chorus_serial) chorus_core_unlock(chorus_serial_too);")
    if not quick:
        before.append("PyThreadState *const chorus_state = PyEval_SaveThread();")
        after.append("PyEval_RestoreThread(chorus_state);")
        after.append("chorus_core_drain();")
    if heard:
        after.append("if (chorus_core_rethrow(&chorus_heard)) {\n    chorus_error_destroy(chorus_raised);\n    SWIG_fail;\n  }")
    if not before and not after:
        return ""
    return f"%exception {function.name} {{\n  " + "\n  ".join([*before, "$action", *after]) + "\n}\n"


def signature(api, function):
    """(parameters [(name, type)], result type) as Python sees them."""
    parameters, results = [], []
    for i, p in enumerate(function.parameters):
        if p.role == "error" or p.name == "user" and i and function.parameters[i - 1].role == "callback" and (
                is_heard(api, function.parameters[i - 1].target) or function.parameters[i - 1].target in HAND_MADE):
            continue
        if p.role == "number_out":
            results.append("float" if number(api, p) in ("double", "float") else "int")
        elif p.role in RESULTS:
            results.append(RESULTS[p.role])
        else:
            parameters.append((p.name + "_" * keyword.iskeyword(p.name), STUBS[p.role]))
    if function.result == "chorus_status" and function.has_error:
        result = results[0] if len(results) == 1 else f"Tuple[{', '.join(results)}]" if results else "None"
    else:
        result = {"void": "None", "double": "float", "const char *": "Optional[str]"}.get(
            function.result, "Any" if "*" in function.result else "int")
    return parameters, result


def declaration(api, function, mutable):
    declared = ", ".join(declared_parameter(api, function, i, mutable) for i in range(len(function.parameters))) or "void"
    parameters, _ = signature(api, function)
    doc = f"{function.name}({', '.join(name for name, _ in parameters)})\n\n{function.doc}".replace("%}", "% }")
    result = function.result
    if result != "chorus_status" or not function.has_error:
        result = api.aliases.get(result, result)
    return (f"%feature(\"docstring\") {function.name} %{{{doc}%}}\n" + guarded(api, function, declared) +
            f"{result} {function.name}({declared});\n")


# ---- Files ------------------------------------------------------------------------------------------------------------

def interface(api):
    structs, mutable = used_structs(api), headers.mutable_types(api)
    callbacks = [name for name in api.callbacks if is_heard(api, name)]
    out = ["/* Generated by bindings/generate/python.py from the headers of include/chorus. */",
           '%module(package="chorus") _core', "%{", "#include <math.h>", '#include "chorus/chorus.h"', '#include "handle.h"',
           '#include "tensor.h"', '#include "fields.h"', '#include "callback.h"']
    for struct in structs.values():
        if not struct.is_sized:
            continue
        out += [reader(api, struct), writer(api, struct)]
    out += [trampoline(api, name) for name in callbacks]
    out += ["%}", "%include <stdint.i>", '%include "typemaps.i"', '%include "extras.i"']
    for name in api.opaque:
        destroy = headers.destroyed_by(api, name)
        out.append(f"%chorus_opaque({name}, {destroy or 'NULL'})")
    out += [f"%chorus_struct({name}, {struct.macro})" for name, struct in structs.items() if struct.is_sized]
    for name in callbacks:
        result = api.callbacks[name][0]
        out.append(f"%chorus_callback({name}, {'NULL' if result in ('void', 'double') else f'chorus_hear_{name}'})")
    out += [f'%typemap(out) {f.result} {f.name} "$result = chorus_core_box((void *)$1, \\"{value.target}\\", NULL, $self_or_first);"'
            .replace("$self_or_first", "swig_obj[0]")
            for f in api.functions for value in [headers.value_of(f.result + " result")] if value.target in api.opaque]
    for c in api.constants:
        if c.value.startswith('"'):
            out.append(f"%constant char *{c.name} = {c.name};")
        elif re.match(r"-?\d|UINT64_C", c.value):
            out.append(f"%constant unsigned long long {c.name} = {c.name};" if c.value.startswith("UINT64")
                       else f"%constant long long {c.name} = {c.name};")
    out += [declaration(api, f, mutable) for f in api.functions]
    return "\n".join(out) + "\n"


def stub(api):
    out = ['"""Every function of the C headers, as it is. Generated from them; chorus is what to use."""',
           "from os import PathLike", "from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, SupportsIndex, Tuple, Union",
           "", "Array = Any", "Text = Union[str, bytes, PathLike[str]]", ""]
    for c in api.constants:
        if c.value.startswith('"') or re.match(r"-?\d|UINT64_C", c.value):
            out.append(f"{c.name}: {'str' if c.value.startswith(chr(34)) else 'int'}")
    for f in api.functions:
        parameters, result = signature(api, f)
        out.append(f"def {f.name}({', '.join(f'{n}: {t}' for n, t in parameters)}{', /' if parameters else ''}) -> {result}: ...")
    out += ["def set_raiser(function: Callable[[int, str, str, Any], BaseException], /) -> None: ...",
            "def deliver_log() -> None: ...", "def describe(array: Array, /) -> Dict[str, Any]: ...",
            "def read_numbers(address: int, count: int, format: str, /) -> memoryview: ..."]
    return "\n".join(out) + "\n"


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    api = headers.read()
    for name, text in (("core.i", interface(api)), ("_core.pyi", stub(api))):
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


if __name__ == "__main__":
    main()
