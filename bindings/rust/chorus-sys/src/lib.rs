// SPDX-License-Identifier: Apache-2.0
//! Every function, struct and constant of the C headers, as bindgen gives them; their comments are the contract. The crate `chorus` is
//! what to use: it needs no `unsafe`.
#![no_std]
#![allow(non_camel_case_types, non_upper_case_globals, non_snake_case, missing_docs, clippy::all, rustdoc::all)]
include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
