// SPDX-License-Identifier: Apache-2.0
//! The combiner: mixes the next-token distributions of several models.

use crate::error::{c_string, check};
use crate::tensor::{read, written};
use crate::{handle, shared, sized, sys, text, Bf16, Context, Element, Error, Result, Tensor, TensorMut, F16};

handle!(SpecHandle, chorus_combiner_spec, chorus_combiner_spec_destroy);
handle!(CombinerHandle, chorus_combiner, chorus_combiner_destroy);

/// How models are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// p = Σ wᵢ pᵢ / Σ wᵢ, weights ≥ 0: OR.
    Linear,
    /// log p = Σ wᵢ log pᵢ − log Z, any real weights: AND, negative evidence.
    LogLinear,
}

/// What rows of scores hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any real numbers.
    Logits,
    /// Natural logarithms.
    LogProbs,
    /// Numbers ≥ 0.
    Probs,
}

/// One model's scores.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    n_logits: i64,
    n_valid: i64,
    kind: Kind,
    dtype: u32,
    weight: f64,
    temperature: f64,
}

impl Model {
    /// Rows of `n` f32 logits, weight 1, temperature 1.
    pub fn logits(n: usize) -> Model {
        let n = n as i64;
        Model { n_logits: n, n_valid: n, kind: Kind::Logits, dtype: f32::DTYPE, weight: 1.0, temperature: 1.0 }
    }
    /// Exactly 0: never read.
    pub fn weight(mut self, weight: f64) -> Model {
        self.weight = weight;
        self
    }
    /// 0 is argmax.
    pub fn temperature(mut self, temperature: f64) -> Model {
        self.temperature = temperature;
        self
    }
    /// Tokens that exist, where rows are padded.
    pub fn valid(mut self, n: usize) -> Model {
        self.n_valid = n as i64;
        self
    }
    /// Other than logits.
    pub fn kind(mut self, kind: Kind) -> Model {
        self.kind = kind;
        self
    }
    /// bfloat16 scores.
    pub fn bf16(mut self) -> Model {
        self.dtype = Bf16::DTYPE;
        self
    }
    /// binary16 scores.
    pub fn f16(mut self) -> Model {
        self.dtype = F16::DTYPE;
        self
    }
}

/// Combines rows of scores.
pub struct Combiner {
    handle: CombinerHandle,
    models: usize,
}
shared!(Combiner);

/// What a combiner is made with.
pub struct CombinerBuilder {
    rule: Rule,
    models: Vec<Model>,
    max_rows: i64,
    n_tokens: Option<i64>,
}

/// What a call brings.
pub struct Inputs<'a> {
    /// One [rows, n_logits] per model; None where the weight is 0.
    pub scores: &'a [Option<Tensor<'a>>],
    /// f32 [models]; None: the builder's.
    pub weights: Option<Tensor<'a>>,
    /// f32 [models]; None: the builder's.
    pub temperatures: Option<Tensor<'a>>,
    /// i64 [rows], keys of the draws; None: 0, 1, …
    pub row_ids: Option<Tensor<'a>>,
    /// i32 or i64 [rows, n], tokens to score.
    pub tokens: Option<Tensor<'a>>,
    /// Of the draws, with row id and step.
    pub seed: u64,
    /// Of the draws.
    pub step: u64,
}

impl<'a> Inputs<'a> {
    /// Scores alone.
    pub fn new(scores: &'a [Option<Tensor<'a>>]) -> Self {
        Inputs { scores, weights: None, temperatures: None, row_ids: None, tokens: None, seed: 0, step: 0 }
    }
}

/// Where results go; None is not computed.
#[derive(Default)]
pub struct Outputs<'a> {
    /// f32 [rows, tokens].
    pub log_probs: Option<TensorMut<'a>>,
    /// i32 [rows].
    pub argmax: Option<TensorMut<'a>>,
    /// f32 [rows].
    pub argmax_log_prob: Option<TensorMut<'a>>,
    /// i32 [rows].
    pub sample: Option<TensorMut<'a>>,
    /// f32 [rows].
    pub sample_log_prob: Option<TensorMut<'a>>,
    /// f32 [rows, n].
    pub token_log_probs: Option<TensorMut<'a>>,
    /// i32 [rows].
    pub status: Option<TensorMut<'a>>,
}

impl CombinerBuilder {
    /// Adds a model; scores come in this order.
    pub fn model(mut self, model: Model) -> Self {
        self.models.push(model);
        self
    }
    /// Most rows a call may bring; 1024 by default.
    pub fn max_rows(mut self, rows: usize) -> Self {
        self.max_rows = rows as i64;
        self
    }
    /// Size of the output vocabulary; by default the largest of the models.
    pub fn vocabulary_size(mut self, n: usize) -> Self {
        self.n_tokens = Some(n as i64);
        self
    }
    /// On `device`: "auto", "cpu", "reference", …
    pub fn build(self, context: &Context, device: &str) -> Result<Combiner> {
        // SAFETY (here and below): arguments are alive for the call.
        let spec = SpecHandle::create(|out, error| unsafe { sys::chorus_combiner_spec_create(out, error) })?;
        let rule = match self.rule {
            Rule::Linear => sys::CHORUS_COMBINE_LINEAR,
            Rule::LogLinear => sys::CHORUS_COMBINE_LOG_LINEAR,
        };
        check(|error| unsafe { sys::chorus_combiner_spec_set_rule(spec.get(), rule as i32, error) })?;
        check(|error| unsafe { sys::chorus_combiner_spec_set_max_rows(spec.get(), self.max_rows, error) })?;
        if let Some(n) = self.n_tokens {
            check(|error| unsafe { sys::chorus_combiner_spec_set_vocabulary_size(spec.get(), n, error) })?;
        }
        for m in &self.models {
            let kind = match m.kind {
                Kind::Logits => sys::CHORUS_SCORES_LOGITS,
                Kind::LogProbs => sys::CHORUS_SCORES_LOG_PROBS,
                Kind::Probs => sys::CHORUS_SCORES_PROBS,
            };
            check(|error| unsafe {
                sys::chorus_combiner_spec_add_model(
                    spec.get(), kind as i32, m.dtype, m.n_logits, m.n_valid, m.weight, m.temperature, std::ptr::null_mut(), error)
            })?;
        }
        let device = c_string("device", device)?;
        let handle = CombinerHandle::create(|out, error| unsafe {
            sys::chorus_combiner_create(context.get(), spec.get(), device.as_ptr(), out, error)
        })?;
        Ok(Combiner { handle, models: self.models.len() })
    }
}

impl Combiner {
    /// No models yet, up to 1024 rows per call.
    pub fn builder(rule: Rule) -> CombinerBuilder {
        CombinerBuilder { rule, models: Vec::new(), max_rows: 1024, n_tokens: None }
    }
    /// The kernel in use, "cpu/combine_rows".
    pub fn kernel(&self) -> &str {
        // SAFETY: lives as long as the combiner.
        text(unsafe { sys::chorus_combiner_get_kernel(self.handle.get()) })
    }
    /// Combines; `chorus_combiner_run` of the C headers is the contract.
    pub fn run(&self, inputs: &Inputs<'_>, outputs: &mut Outputs<'_>) -> Result<()> {
        if inputs.scores.len() != self.models {
            return Err(Error::invalid(format!("scores: {} tensors; the combiner has {} models", inputs.scores.len(), self.models)));
        }
        let scores: Vec<_> = inputs.scores.iter().map(read).collect();
        let mut given = sized!(sys::chorus_combine_in);
        given.rows = inputs.scores.iter().flatten().next().map_or(0, Tensor::rows);
        given.scores = scores.as_ptr();
        given.weights = read(&inputs.weights);
        given.temperatures = read(&inputs.temperatures);
        given.row_ids = read(&inputs.row_ids);
        given.tokens = read(&inputs.tokens);
        given.seed = inputs.seed;
        given.step = inputs.step;
        let mut wanted = sized!(sys::chorus_combine_out);
        wanted.log_probs = written(&mut outputs.log_probs);
        wanted.argmax = written(&mut outputs.argmax);
        wanted.argmax_log_prob = written(&mut outputs.argmax_log_prob);
        wanted.sample = written(&mut outputs.sample);
        wanted.sample_log_prob = written(&mut outputs.sample_log_prob);
        wanted.token_log_probs = written(&mut outputs.token_log_probs);
        wanted.status = written(&mut outputs.status);
        // SAFETY: the views borrow their slices for this call; the library checks shapes against sizes.
        check(|error| unsafe { sys::chorus_combiner_run(self.handle.get(), &given, &wanted, std::ptr::null(), error) })
    }
}
