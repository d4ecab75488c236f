// SPDX-License-Identifier: Apache-2.0
//! The merger: one checkpoint of several, by a recipe in mergekit's language.

use crate::error::{c_string, check};
use crate::{handle, shared, sized, sys, text, Context, Result};
use std::any::Any;
use std::os::raw::c_void;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

handle!(SpecHandle, chorus_merger_spec, chorus_merger_spec_destroy);
handle!(MergerHandle, chorus_merger, chorus_merger_destroy);

/// A planned merge: every mistake of the recipe has been found, nothing is written yet.
pub struct Merger {
    handle: MergerHandle,
}
shared!(Merger);

/// What a merger is made with.
pub struct MergerBuilder {
    recipe: String,
    output: Option<String>,
    memory: Option<u64>,
    seed: u64,
    replace: bool,
}

/// What a merge will do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Tensors of the output.
    pub tensors: u64,
    /// Of these, computed.
    pub merged: u64,
    /// Over all passes.
    pub bytes_to_read: u64,
    /// All shards.
    pub bytes_to_write: u64,
    /// Bytes of buffers.
    pub peak_memory: u64,
    /// An estimate.
    pub seconds: f64,
}

/// How far a merge is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// "reduce", "apply", "finish".
    pub phase: &'a str,
    /// The tensor being worked on.
    pub tensor: &'a str,
    /// Read and written so far.
    pub bytes_done: u64,
    /// To be read and written.
    pub bytes_total: u64,
}

/// What a progress function wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Stop; nothing remains.
    Cancel,
}

struct Hearer<'a> {
    function: &'a mut dyn FnMut(Progress<'_>) -> Flow,
    panic: Option<Box<dyn Any + Send>>,
}

unsafe extern "C" fn hear(user: *mut c_void, told: *const sys::chorus_merge_progress) -> i32 {
    // SAFETY: `user` is run()'s Hearer, on the same thread. A panic must not cross into C: it waits in the Hearer.
    let (hearer, told) = (&mut *user.cast::<Hearer<'_>>(), &*told);
    let progress = Progress { phase: text(told.phase), tensor: text(told.tensor), bytes_done: told.bytes_done, bytes_total: told.bytes_total };
    match catch_unwind(AssertUnwindSafe(|| (hearer.function)(progress))) {
        Ok(flow) => i32::from(flow == Flow::Cancel),
        Err(panic) => {
            hearer.panic = Some(panic);
            1
        }
    }
}

impl MergerBuilder {
    /// Folder the model goes to. Without one it only plans.
    pub fn output(mut self, folder: &str) -> Self {
        self.output = Some(folder.to_string());
        self
    }
    /// Most bytes of buffers.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }
    /// Of the random choices of dare and della.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
    /// Allows a folder that is not empty.
    pub fn replace(mut self, replace: bool) -> Self {
        self.replace = replace;
        self
    }
    /// Reads headers alone.
    pub fn build(self, context: &Context, device: &str) -> Result<Merger> {
        // SAFETY (here and below): arguments are alive for the call, and copied.
        let spec = SpecHandle::create(|out, error| unsafe { sys::chorus_merger_spec_create(out, error) })?;
        let (recipe, length) = (self.recipe.as_ptr().cast(), self.recipe.len() as u64);
        check(|error| unsafe { sys::chorus_merger_spec_set_recipe(spec.get(), recipe, length, std::ptr::null(), error) })?;
        if let Some(output) = &self.output {
            let output = c_string("output", output)?;
            check(|error| unsafe { sys::chorus_merger_spec_set_output(spec.get(), output.as_ptr(), error) })?;
        }
        if let Some(bytes) = self.memory {
            check(|error| unsafe { sys::chorus_merger_spec_set_memory(spec.get(), bytes, error) })?;
        }
        check(|error| unsafe { sys::chorus_merger_spec_set_seed(spec.get(), self.seed, error) })?;
        check(|error| unsafe { sys::chorus_merger_spec_set_replace(spec.get(), i32::from(self.replace), error) })?;
        let device = c_string("device", device)?;
        let handle = MergerHandle::create(|out, error| unsafe {
            sys::chorus_merger_create(context.get(), spec.get(), device.as_ptr(), out, error)
        })?;
        Ok(Merger { handle })
    }
}

impl Merger {
    /// From the text of a recipe, YAML.
    pub fn builder(recipe: &str) -> MergerBuilder {
        MergerBuilder { recipe: recipe.to_string(), output: None, memory: None, seed: 0, replace: false }
    }
    /// In numbers.
    pub fn plan(&self) -> Result<Plan> {
        let mut told = sized!(sys::chorus_merge_plan);
        // SAFETY: `told` says its size.
        check(|error| unsafe { sys::chorus_merger_get_plan(self.handle.get(), &mut told, error) })?;
        Ok(Plan {
            tensors: told.tensor_count,
            merged: told.merged_count,
            bytes_to_read: told.bytes_to_read,
            bytes_to_write: told.bytes_to_write,
            peak_memory: told.peak_memory,
            seconds: told.seconds,
        })
    }
    /// For a person.
    pub fn plan_text(&self) -> &str {
        // SAFETY: lives as long as the merger.
        text(unsafe { sys::chorus_merger_get_plan_text(self.handle.get()) })
    }
    /// Writes the model.
    pub fn run(&self) -> Result<()> {
        // SAFETY: no callback.
        check(|error| unsafe { sys::chorus_merger_run(self.handle.get(), None, std::ptr::null_mut(), error) })
    }
    /// The same; `progress` hears of it about every 64 MiB on this thread. Its panic stops the run, leaves nothing, and goes on here.
    pub fn run_with(&self, mut progress: impl FnMut(Progress<'_>) -> Flow) -> Result<()> {
        let mut hearer = Hearer { function: &mut progress, panic: None };
        let user: *mut c_void = (&mut hearer as *mut Hearer<'_>).cast();
        // SAFETY: `hearer` outlives the call, on whose thread alone it is used.
        let done = check(|error| unsafe { sys::chorus_merger_run(self.handle.get(), Some(hear), user, error) });
        match hearer.panic {
            Some(panic) => resume_unwind(panic),
            None => done,
        }
    }
}

/// Merges by `recipe` into the folder `output`.
pub fn merge(context: &Context, recipe: &str, output: &str) -> Result<Plan> {
    let merger = Merger::builder(recipe).output(output).build(context, "auto")?;
    merger.run()?;
    merger.plan()
}
