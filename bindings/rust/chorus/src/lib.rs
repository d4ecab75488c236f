// SPDX-License-Identifier: Apache-2.0
//! Chorus makes many models act as one: combine their predictions, merge their weights, route between their experts.
//!
//! ```
//! # fn main() -> chorus::Result<()> {
//! use chorus::{Combiner, Context, Inputs, Model, Outputs, Rule, Tensor, TensorMut};
//!
//! let context = Context::new()?;
//! let combiner = Combiner::builder(Rule::Linear).model(Model::logits(3).weight(0.7)).model(Model::logits(3).weight(0.3))
//!     .build(&context, "auto")?;
//! let (one, other) = ([2.0f32, 1.0, 0.0], [0.0f32, 1.0, 2.0]);
//! let mut mixed = [0.0f32; 3];
//! combiner.run(
//!     &Inputs::new(&[Some(Tensor::new(&one, &[1, 3])?), Some(Tensor::new(&other, &[1, 3])?)]),
//!     &mut Outputs { log_probs: Some(TensorMut::new(&mut mixed, &[1, 3])?), ..Outputs::default() },
//! )?;
//! assert!((mixed.iter().map(|p| p.exp()).sum::<f32>() - 1.0).abs() < 1e-6);
//! # Ok(())
//! # }
//! ```
//!
//! Objects are immutable, `Send` and `Sync`; builders are not shared. What is borrowed is borrowed for the call, as the lifetimes say.
#![warn(missing_docs)]

mod combine;
mod context;
mod error;
mod merge;
mod route;
mod tensor;

pub use chorus_sys as sys;
pub use combine::{Combiner, CombinerBuilder, Inputs, Kind, Model, Outputs, Rule};
pub use context::{Context, ContextBuilder, Device};
pub use error::{Code, Error, Result};
pub use merge::{merge, Flow, Merger, MergerBuilder, Plan, Progress};
pub use route::{presets, Activation, Experts, ExpertsBuilder, Lists, Router, RouterBuilder, Score};
pub use tensor::{Bf16, Element, Tensor, TensorMut, F16};

use std::ffi::CStr;
use std::os::raw::c_char;

/// Version of the loaded library, "0.1.0".
pub fn version() -> &'static str {
    // SAFETY: static text of ASCII.
    text(unsafe { sys::chorus_version() })
}

/// Text lent by the library; "" for NULL.
fn text<'a>(pointer: *const c_char) -> &'a str {
    if pointer.is_null() {
        return "";
    }
    // SAFETY: the callers' contracts: UTF-8, ends with 0, lives as long as the object it came from.
    unsafe { CStr::from_ptr(pointer) }.to_str().unwrap_or("")
}

/// sizeof as `struct_size` needs it: the structs end with their last known field, without padding, or the padding is harmless.
macro_rules! sized {
    ($kind:ty) => {{
        // SAFETY: all fields are numbers or pointers, for which 0 is the documented default.
        let mut value: $kind = unsafe { std::mem::zeroed() };
        value.struct_size = std::mem::size_of::<$kind>() as _;
        value
    }};
}
pub(crate) use sized;

/// A C object that its type's `_destroy` takes back.
macro_rules! handle {
    ($name:ident, $kind:ident, $destroy:ident) => {
        pub(crate) struct $name(std::ptr::NonNull<crate::sys::$kind>);
        impl $name {
            /// Runs `create(out, error)` and owns what it gives.
            pub(crate) fn create(
                create: impl FnOnce(*mut *mut crate::sys::$kind, *mut *mut crate::sys::chorus_error) -> crate::sys::chorus_status,
            ) -> crate::Result<Self> {
                let mut out = std::ptr::null_mut();
                crate::error::check(|error| create(&mut out, error))?;
                Ok(Self(std::ptr::NonNull::new(out).expect("a successful _create gives an object")))
            }
            pub(crate) fn get(&self) -> *mut crate::sys::$kind {
                self.0.as_ptr()
            }
        }
        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: owned, and not used again.
                unsafe { crate::sys::$destroy(self.get()) }
            }
        }
    };
}
pub(crate) use handle;

/// Says that an object without non-const functions may be shared: base.h, "Threads".
macro_rules! shared {
    ($name:ident) => {
        // SAFETY: `const` functions alone are called, which any number of threads may do at once.
        unsafe impl Send for $name {}
        unsafe impl Sync for $name {}
    };
}
pub(crate) use shared;
