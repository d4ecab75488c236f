// SPDX-License-Identifier: Apache-2.0
//! The router, which keeps the best k experts per token, and the experts, of which only those are computed.

use crate::error::{c_string, check};
use crate::tensor::{read, written};
use crate::{handle, shared, sized, sys, text, Context, Element, Result, Tensor, TensorMut};

handle!(RouterSpecHandle, chorus_router_spec, chorus_router_spec_destroy);
handle!(RouterHandle, chorus_router, chorus_router_destroy);
handle!(ExpertsSpecHandle, chorus_experts_spec, chorus_experts_spec_destroy);
handle!(ExpertsHandle, chorus_experts, chorus_experts_destroy);

/// What logits become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// Over all experts, before the top k.
    Softmax,
    /// Over the k chosen ones.
    SoftmaxOfTopK,
    /// Of each logit.
    Sigmoid,
}

/// Chooses experts.
pub struct Router {
    handle: RouterHandle,
}
shared!(Router);

/// What a router is made with.
pub struct RouterBuilder {
    n_experts: i32,
    k: i32,
    preset: Option<String>,
    score: Option<Score>,
    bias: bool,
    renormalise: bool,
    max_tokens: i64,
}

/// Lists by expert; None is not computed.
#[derive(Default)]
pub struct Lists<'a> {
    /// i32 [experts].
    pub counts: Option<TensorMut<'a>>,
    /// i32 [experts + 1].
    pub offsets: Option<TensorMut<'a>>,
    /// i32 [tokens * k].
    pub order: Option<TensorMut<'a>>,
    /// i32 [tokens * k].
    pub inverse: Option<TensorMut<'a>>,
}

/// Names of the published models whose routing is known.
pub fn presets() -> Vec<&'static str> {
    // SAFETY: static text; NULL past the last.
    (0..).map(|i| unsafe { sys::chorus_router_preset_name(i) }).take_while(|name| !name.is_null()).map(text).collect()
}

impl RouterBuilder {
    /// As a published model does; what is set besides changes it.
    pub fn preset(mut self, name: &str) -> Self {
        self.preset = Some(name.to_string());
        self
    }
    /// Softmax by default.
    pub fn score(mut self, score: Score) -> Self {
        self.score = Some(score);
        self
    }
    /// Calls bring a bias for choosing.
    pub fn bias(mut self) -> Self {
        self.bias = true;
        self
    }
    /// Weights sum to 1.
    pub fn renormalise(mut self) -> Self {
        self.renormalise = true;
        self
    }
    /// Most tokens a call may bring; 4096 by default.
    pub fn max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = tokens as i64;
        self
    }
    /// f32 logits and weights, i32 ids.
    pub fn build(self, context: &Context, device: &str) -> Result<Router> {
        // SAFETY (here and below): arguments are alive for the call.
        let spec = RouterSpecHandle::create(|out, error| unsafe { sys::chorus_router_spec_create(self.n_experts, self.k, out, error) })?;
        if let Some(name) = &self.preset {
            let name = c_string("preset", name)?;
            check(|error| unsafe { sys::chorus_router_spec_set_preset(spec.get(), name.as_ptr(), error) })?;
        }
        if let Some(score) = self.score {
            let (score, order) = match score {
                Score::Softmax => (sys::CHORUS_ROUTE_SOFTMAX, sys::CHORUS_ROUTE_SCORE_THEN_TOPK),
                Score::SoftmaxOfTopK => (sys::CHORUS_ROUTE_SOFTMAX, sys::CHORUS_ROUTE_TOPK_THEN_SCORE),
                Score::Sigmoid => (sys::CHORUS_ROUTE_SIGMOID, sys::CHORUS_ROUTE_SCORE_THEN_TOPK),
            };
            check(|error| unsafe { sys::chorus_router_spec_set_score(spec.get(), score as i32, order as i32, error) })?;
        }
        if self.bias {
            check(|error| unsafe { sys::chorus_router_spec_set_bias(spec.get(), 1, error) })?;
        }
        if self.renormalise {
            let sum = sys::CHORUS_ROUTE_RENORMALISE_SUM as i32;
            check(|error| unsafe { sys::chorus_router_spec_set_weights(spec.get(), sum, 0.0, 1.0, error) })?;
        }
        check(|error| unsafe { sys::chorus_router_spec_set_max_tokens(spec.get(), self.max_tokens, error) })?;
        let device = c_string("device", device)?;
        let handle = RouterHandle::create(|out, error| unsafe {
            sys::chorus_router_create(context.get(), spec.get(), device.as_ptr(), out, error)
        })?;
        Ok(Router { handle })
    }
}

impl Router {
    /// `k` of `n_experts`.
    pub fn builder(n_experts: usize, k: usize) -> RouterBuilder {
        let (n_experts, k) = (i32::try_from(n_experts).unwrap_or(i32::MAX), i32::try_from(k).unwrap_or(i32::MAX));
        RouterBuilder { n_experts, k, preset: None, score: None, bias: false, renormalise: false, max_tokens: 4096 }
    }
    /// The kernel in use, "cpu/route_topk".
    pub fn kernel(&self) -> &str {
        // SAFETY: lives as long as the router.
        text(unsafe { sys::chorus_router_get_kernel(self.handle.get()) })
    }
    /// f32 logits [tokens, experts] to i32 ids and f32 weights [tokens, k]; `bias`: f32 [experts].
    pub fn route(&self, logits: &Tensor<'_>, bias: Option<Tensor<'_>>, ids: TensorMut<'_>, weights: TensorMut<'_>,
                 lists: &mut Lists<'_>) -> Result<()> {
        let mut given = sized!(sys::chorus_route_in);
        given.bias = read(&bias);
        let mut wanted = sized!(sys::chorus_route_out);
        let (mut ids, mut weights) = (Some(ids), Some(weights));
        wanted.ids = written(&mut ids);
        wanted.weights = written(&mut weights);
        wanted.counts = written(&mut lists.counts);
        wanted.offsets = written(&mut lists.offsets);
        wanted.order = written(&mut lists.order);
        wanted.inverse = written(&mut lists.inverse);
        // SAFETY: the views borrow their slices for this call; the library checks shapes against sizes.
        check(|error| unsafe { sys::chorus_router_route(self.handle.get(), logits.get(), &given, &wanted, std::ptr::null(), error) })
    }
}

/// What is between the two matrices of an expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// silu(gate) · up.
    SwiGlu,
    /// gelu(gate) · up.
    GeGlu,
    /// max(up, 0); no gate.
    Relu,
    /// max(up, 0)²; no gate.
    Relu2,
}

/// Packed expert weights.
pub struct Experts {
    handle: ExpertsHandle,
}
shared!(Experts);

/// What experts are made with.
pub struct ExpertsBuilder<'a> {
    gate_up: Tensor<'a>,
    down: Tensor<'a>,
    k: i32,
    activation: Activation,
    max_tokens: i64,
}

impl ExpertsBuilder<'_> {
    /// SwiGLU by default.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }
    /// Most tokens a call may bring; 4096 by default.
    pub fn max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = tokens as i64;
        self
    }
    /// Packs the weights; the slices are free then.
    pub fn build(self, context: &Context, device: &str) -> Result<Experts> {
        // SAFETY (here and below): the weights are borrowed until the experts are made.
        let spec = ExpertsSpecHandle::create(|out, error| unsafe {
            sys::chorus_experts_spec_create(self.gate_up.get(), self.down.get(), self.k, out, error)
        })?;
        let activation = match self.activation {
            Activation::SwiGlu => sys::CHORUS_ACTIVATION_SWIGLU,
            Activation::GeGlu => sys::CHORUS_ACTIVATION_GEGLU,
            Activation::Relu => sys::CHORUS_ACTIVATION_RELU,
            Activation::Relu2 => sys::CHORUS_ACTIVATION_RELU2,
        } as i32;
        let layout = sys::CHORUS_GATE_UP_CONCATENATED as i32;
        check(|error| unsafe { sys::chorus_experts_spec_set_activation(spec.get(), activation, layout, error) })?;
        check(|error| unsafe { sys::chorus_experts_spec_set_max_tokens(spec.get(), self.max_tokens, error) })?;
        check(|error| unsafe { sys::chorus_experts_spec_set_dtypes(spec.get(), f32::DTYPE, f32::DTYPE, i32::DTYPE, error) })?;
        let device = c_string("device", device)?;
        let handle = ExpertsHandle::create(|out, error| unsafe {
            sys::chorus_experts_create(context.get(), spec.get(), device.as_ptr(), out, error)
        })?;
        Ok(Experts { handle })
    }
}

impl Experts {
    /// `gate_up` [E, 2I, H] and `down` [E, H, I], f32, f16 or bf16; k experts per token.
    pub fn builder<'a>(gate_up: Tensor<'a>, down: Tensor<'a>, k: usize) -> ExpertsBuilder<'a> {
        let k = i32::try_from(k).unwrap_or(i32::MAX);
        ExpertsBuilder { gate_up, down, k, activation: Activation::SwiGlu, max_tokens: 4096 }
    }
    /// The kernel in use, "cpu/experts_ffn".
    pub fn kernel(&self) -> &str {
        // SAFETY: lives as long as the experts.
        text(unsafe { sys::chorus_experts_get_kernel(self.handle.get()) })
    }
    /// f32 y [tokens, H] of x [tokens, H] and what the router gave.
    pub fn run(&self, x: &Tensor<'_>, ids: &Tensor<'_>, weights: &Tensor<'_>, mut y: TensorMut<'_>) -> Result<()> {
        // SAFETY: the views borrow their slices for this call; the library checks shapes against sizes.
        check(|error| unsafe {
            sys::chorus_experts_run(
                self.handle.get(), x.get(), ids.get(), weights.get(), y.get(), std::ptr::null(), std::ptr::null(), error)
        })
    }
}
