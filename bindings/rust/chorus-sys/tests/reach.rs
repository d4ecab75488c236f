// SPDX-License-Identifier: Apache-2.0
//! Every public function of the headers is in the bindings, and its symbol in the library that is linked.

use std::{env, fs, path::PathBuf};

const BINDINGS: &str = include_str!(concat!(env!("OUT_DIR"), "/bindings.rs"));

/// Names before "(" of the declarations that begin with CHORUS_API.
fn declared() -> Vec<String> {
    let include = env::var("CHORUS_INCLUDE_DIR").map(PathBuf::from)
        .unwrap_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../include"));
    let umbrella = fs::read_to_string(include.join("chorus/chorus.h")).unwrap();
    let headers = umbrella.lines().filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"'));
    let mut names = Vec::new();
    for header in headers {
        let text = fs::read_to_string(include.join("chorus").join(header)).unwrap();
        for declaration in text.split("\nCHORUS_API ").skip(1) {
            let before = declaration.split('(').next().unwrap();
            let name: String = before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_string();
            assert!(name.starts_with("chorus_"), "{before}");
            names.push(name);
        }
    }
    names
}

#[test]
fn every_function_is_bound() {
    let names = declared();
    assert!(names.len() > 190);
    let missing: Vec<_> = names.iter().filter(|name| !BINDINGS.contains(&format!("pub fn {name}("))).collect();
    assert!(missing.is_empty(), "not bound: {missing:?}");
}

#[test]
fn the_library_answers() {
    let version = unsafe { std::ffi::CStr::from_ptr(chorus_sys::chorus_version()) };
    let compiled = format!("{}.{}.{}", chorus_sys::CHORUS_VERSION_MAJOR, chorus_sys::CHORUS_VERSION_MINOR, chorus_sys::CHORUS_VERSION_PATCH);
    assert_eq!(version.to_str().unwrap(), compiled);
}
