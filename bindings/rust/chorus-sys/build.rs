// SPDX-License-Identifier: Apache-2.0
//! Bindings: src/bindings.rs where a packaged crate has it, else made now by the program `bindgen` from the C headers, so that they are
//! never older than those. Library: CHORUS_LIB_DIR, else pkg-config.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn output(command: &mut Command) -> Option<String> {
    let done = command.output().ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_string())
}

fn generate(include: &Path, to: &Path) {
    let header = include.join("chorus").join("chorus.h");
    let mut command = Command::new(env::var("BINDGEN").unwrap_or_else(|_| "bindgen".to_string()));
    command.arg(&header).args([
        "--use-core", "--ctypes-prefix", "core::ffi", "--allowlist-function", "chorus_.*", "--allowlist-type", "chorus_.*",
        "--allowlist-var", "CHORUS_.*", "--size_t-is-usize", "--no-prepend-enum-name", "-o",
    ]);
    command.arg(to).arg("--").arg(format!("-I{}", include.display()));
    // libclang alone comes without stddef.h: the compiler's own folder has one.
    if let Some(folder) = output(Command::new(env::var("CC").unwrap_or_else(|_| "cc".to_string())).arg("-print-file-name=include")) {
        command.arg("-isystem").arg(folder);
    }
    let done = command.status().unwrap_or_else(|e| panic!("bindgen cannot run ({e}): install it, or set BINDGEN to its path"));
    assert!(done.success(), "bindgen failed on {}", header.display());
}

fn main() {
    let folder = PathBuf::from(env::var("CARGO_MANIFEST_DIR").unwrap());
    let bindings = PathBuf::from(env::var("OUT_DIR").unwrap()).join("bindings.rs");
    let include = env::var("CHORUS_INCLUDE_DIR").map(PathBuf::from).unwrap_or_else(|_| folder.join("../../../include"));
    println!("cargo:rerun-if-env-changed=CHORUS_INCLUDE_DIR");
    println!("cargo:rerun-if-env-changed=CHORUS_LIB_DIR");
    println!("cargo:rerun-if-changed=build.rs");
    let packaged = folder.join("src/bindings.rs");
    if packaged.exists() {
        fs::copy(&packaged, &bindings).expect("copying src/bindings.rs");
        println!("cargo:rerun-if-changed=src/bindings.rs");
    } else {
        generate(&include, &bindings);
        println!("cargo:rerun-if-changed={}", include.join("chorus").display());
    }
    if env::var("DOCS_RS").is_ok() {
        return;
    }
    let library = env::var("CHORUS_LIB_DIR").ok().or_else(|| output(Command::new("pkg-config").args(["--variable=libdir", "chorus"])));
    match library {
        Some(library) => println!("cargo:rustc-link-search=native={library}"),
        None => panic!("libchorus is not found: set CHORUS_LIB_DIR to its folder, or install it with its chorus.pc"),
    }
    println!("cargo:rustc-link-lib=dylib=chorus");
}
