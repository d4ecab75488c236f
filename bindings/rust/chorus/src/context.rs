// SPDX-License-Identifier: Apache-2.0
//! The context: options, log, plugins and their devices.

use crate::error::{c_string, check};
use crate::{handle, shared, sized, sys, text, Result};
use std::os::raw::{c_char, c_void};
use std::panic::{catch_unwind, AssertUnwindSafe};

handle!(SpecHandle, chorus_context_spec, chorus_context_spec_destroy);
handle!(ContextHandle, chorus_context, chorus_context_destroy);

type Log = Box<dyn Fn(i32, &str) + Send + Sync>;

/// Plugins, devices and the thread pool, from which everything else is made. Objects outlive it.
pub struct Context {
    handle: ContextHandle,
}
shared!(Context);

/// A device and who serves it.
#[derive(Clone, Debug)]
pub struct Device {
    /// "cpu", "reference", …
    pub name: String,
    /// Of the plugin that serves it.
    pub plugin: String,
    /// For people.
    pub description: String,
    /// -1: it could not be opened.
    pub kernels: i32,
}

/// What a context is made with.
#[derive(Default)]
pub struct ContextBuilder {
    options: Vec<(String, String)>,
    plugins: Vec<String>,
    log: Option<(i32, Log)>,
}

unsafe extern "C" fn hear(user: *mut c_void, level: sys::chorus_log_level, message: *const c_char, length: usize) {
    // SAFETY: `user` is the leaked box of build(), the message is lent for the call. A panic must not cross into C.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let bytes = std::slice::from_raw_parts(message.cast::<u8>(), length);
        (*user.cast::<Log>())(level, &String::from_utf8_lossy(bytes));
    }));
}

impl ContextBuilder {
    /// An option by name; `Context::options` of the C headers lists them.
    pub fn option(mut self, name: &str, value: impl ToString) -> Self {
        self.options.push((name.to_string(), value.to_string()));
        self
    }
    /// A plugin's file, loaded first.
    pub fn plugin(mut self, path: &str) -> Self {
        self.plugins.push(path.to_string());
        self
    }
    /// Hears messages of at least `level` (0 debug, 1 info, 2 warning, 3 error), from any thread. Kept for good: objects log after their
    /// context is gone.
    pub fn log(mut self, level: i32, log: impl Fn(i32, &str) + Send + Sync + 'static) -> Self {
        self.log = Some((level, Box::new(log)));
        self
    }
    /// Loads the plugins.
    pub fn build(self) -> Result<Context> {
        // SAFETY (here and below): arguments are alive for the call.
        let spec = SpecHandle::create(|out, error| unsafe { sys::chorus_context_spec_create(out, error) })?;
        for (name, value) in &self.options {
            let (name, value) = (c_string("option", name)?, c_string("option", value)?);
            check(|error| unsafe { sys::chorus_context_spec_set_option(spec.get(), name.as_ptr(), value.as_ptr(), error) })?;
        }
        for path in &self.plugins {
            let path = c_string("plugin", path)?;
            check(|error| unsafe { sys::chorus_context_spec_add_plugin(spec.get(), path.as_ptr(), error) })?;
        }
        if let Some((level, log)) = self.log {
            let user = Box::into_raw(Box::new(log)).cast();
            check(|error| unsafe { sys::chorus_context_spec_set_log(spec.get(), Some(hear), user, level, error) })?;
        }
        let handle = ContextHandle::create(|out, error| unsafe { sys::chorus_context_create(spec.get(), out, error) })?;
        Ok(Context { handle })
    }
}

impl Context {
    /// With default options.
    pub fn new() -> Result<Context> {
        Context::builder().build()
    }
    /// To set options first.
    pub fn builder() -> ContextBuilder {
        ContextBuilder::default()
    }
    /// Each device that some plugin offers.
    pub fn devices(&self) -> Vec<Device> {
        // SAFETY: the text lives as long as the context, and is copied.
        let count = unsafe { sys::chorus_context_get_device_count(self.get()) };
        (0..count)
            .filter_map(|i| {
                let mut info = sized!(sys::chorus_device_info);
                check(|error| unsafe { sys::chorus_context_get_device(self.get(), i, &mut info, error) }).ok()?;
                Some(Device {
                    name: text(info.name).to_string(),
                    plugin: text(info.plugin).to_string(),
                    description: text(info.description).to_string(),
                    kernels: info.kernel_count,
                })
            })
            .collect()
    }
    pub(crate) fn get(&self) -> *const sys::chorus_context {
        self.handle.get()
    }
}
