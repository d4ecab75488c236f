// SPDX-License-Identifier: Apache-2.0
//! Failures: a code, the library's message, and the causes below it.

use crate::{sys, text};
use std::fmt;

/// Result of this crate's calls.
pub type Result<T> = std::result::Result<T, Error>;

macro_rules! codes {
    ($($name:ident = $constant:ident,)*) => {
        /// What kind of failure; `Unknown` carries a number this version has no name for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = concat!("`", stringify!($constant), "` of the C headers.")] $name,)*
            /// Another number.
            Unknown(i32),
        }
        impl Code {
            fn of(status: i32) -> Code {
                $(if status == sys::$constant as i32 { return Code::$name; })*
                Code::Unknown(status)
            }
        }
    };
}

codes! {
    Cancelled = CHORUS_CANCELLED,
    InvalidArgument = CHORUS_INVALID_ARGUMENT,
    DeadlineExceeded = CHORUS_DEADLINE_EXCEEDED,
    NotFound = CHORUS_NOT_FOUND,
    AlreadyExists = CHORUS_ALREADY_EXISTS,
    PermissionDenied = CHORUS_PERMISSION_DENIED,
    ResourceExhausted = CHORUS_RESOURCE_EXHAUSTED,
    FailedPrecondition = CHORUS_FAILED_PRECONDITION,
    Aborted = CHORUS_ABORTED,
    OutOfRange = CHORUS_OUT_OF_RANGE,
    Unimplemented = CHORUS_UNIMPLEMENTED,
    Internal = CHORUS_INTERNAL,
    Unavailable = CHORUS_UNAVAILABLE,
    DataLoss = CHORUS_DATA_LOSS,
}

/// A failed call.
#[derive(Clone, Debug)]
pub struct Error {
    code: Code,
    message: String,
    causes: Vec<Error>,
}

impl Error {
    /// What kind of failure.
    pub fn code(&self) -> Code {
        self.code
    }
    /// Which argument, file or tensor, what was found, what is allowed, what to do.
    pub fn message(&self) -> &str {
        &self.message
    }
    /// For example one per mistake of a recipe.
    pub fn causes(&self) -> &[Error] {
        &self.causes
    }
    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error { code: Code::InvalidArgument, message: message.into(), causes: Vec::new() }
    }
    fn of(error: *const sys::chorus_error) -> Error {
        // SAFETY: `error` is alive; its text is copied.
        unsafe {
            let count = sys::chorus_error_get_cause_count(error);
            Error {
                code: Code::of(sys::chorus_error_get_code(error)),
                message: text(sys::chorus_error_get_message(error)).to_string(),
                causes: (0..count).map(|i| Error::of(sys::chorus_error_get_cause(error, i))).collect(),
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.causes.iter().try_for_each(|cause| write!(f, "\n  {}", cause.to_string().replace('\n', "\n  ")))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.causes.first().map(|cause| cause as _)
    }
}

/// Runs a C call with its last argument open.
pub(crate) fn check(call: impl FnOnce(*mut *mut sys::chorus_error) -> sys::chorus_status) -> Result<()> {
    let mut error = std::ptr::null_mut();
    let status = call(&mut error);
    if status == sys::CHORUS_OK as i32 {
        return Ok(());
    }
    let mut found = Error::of(error);
    if error.is_null() {
        found.code = Code::of(status);
    }
    // SAFETY: owned; NULL is fine.
    unsafe { sys::chorus_error_destroy(error) };
    Err(found)
}

/// `value` for C.
pub(crate) fn c_string(name: &str, value: &str) -> Result<std::ffi::CString> {
    std::ffi::CString::new(value).map_err(|_| Error::invalid(format!("{name}: has a character 0 inside")))
}
