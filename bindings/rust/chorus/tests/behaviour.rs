// SPDX-License-Identifier: Apache-2.0
//! The safe layer against formulas in f64.

use chorus::{
    Code, Combiner, Context, Experts, Flow, Inputs, Kind, Lists, Merger, Model, Outputs, Router, Rule, Score, Tensor, TensorMut,
};
use std::sync::{Arc, Mutex};
use std::{fs, path::PathBuf};

fn softmax(row: &[f32]) -> Vec<f64> {
    let top = row.iter().cloned().fold(f32::NEG_INFINITY, f32::max) as f64;
    let exps: Vec<f64> = row.iter().map(|z| (*z as f64 - top).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|e| e / sum).collect()
}

/// Numbers in [-2, 2) that depend on the seed.
fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 22) as f32 - 2.0
        })
        .collect()
}

#[test]
fn linear_and_log_linear() {
    let context = Context::new().unwrap();
    let (rows, n) = (5, 37);
    let (a, b) = (numbers(1, rows * n), numbers(2, rows * n));
    for (rule, w) in [(Rule::Linear, [0.7, 0.3]), (Rule::LogLinear, [1.5, -0.5])] {
        let combiner = Combiner::builder(rule).model(Model::logits(n).weight(w[0])).model(Model::logits(n).weight(w[1]))
            .build(&context, "auto").unwrap();
        let mut mixed = vec![0.0f32; rows * n];
        let (mut best, mut status) = (vec![-7i32; rows], vec![-7i32; rows]);
        let scores = [Some(Tensor::new(&a, &[rows, n]).unwrap()), Some(Tensor::new(&b, &[rows, n]).unwrap())];
        let mut outputs = Outputs {
            log_probs: Some(TensorMut::new(&mut mixed, &[rows, n]).unwrap()),
            argmax: Some(TensorMut::new(&mut best, &[rows]).unwrap()),
            status: Some(TensorMut::new(&mut status, &[rows]).unwrap()),
            ..Outputs::default()
        };
        combiner.run(&Inputs::new(&scores), &mut outputs).unwrap();
        drop(outputs);
        for r in 0..rows {
            let (p, q) = (softmax(&a[r * n..][..n]), softmax(&b[r * n..][..n]));
            let mut wanted: Vec<f64> = (0..n)
                .map(|v| if rule == Rule::Linear { w[0] * p[v] + w[1] * q[v] } else { p[v].powf(w[0]) * q[v].powf(w[1]) })
                .collect();
            let sum: f64 = wanted.iter().sum();
            wanted.iter_mut().for_each(|x| *x /= sum);
            for v in 0..n {
                assert!((mixed[r * n + v] as f64 - wanted[v].ln()).abs() < 2e-5);
                assert!(wanted[v] <= wanted[best[r] as usize]);
            }
            assert_eq!(status[r], 0);
        }
    }
}

#[test]
fn draws_do_not_depend_on_the_batch() {
    let context = Context::new().unwrap();
    let combiner = Combiner::builder(Rule::Linear).model(Model::logits(50)).build(&context, "auto").unwrap();
    let scores = numbers(3, 4 * 50);
    let draw = |rows: &[f32], ids: &[i64]| {
        let n = ids.len();
        let (mut token, mut log_prob) = (vec![0i32; n], vec![0f32; n]);
        let given = [Some(Tensor::new(rows, &[n, 50]).unwrap())];
        let inputs = Inputs { row_ids: Some(Tensor::new(ids, &[n]).unwrap()), seed: 9, ..Inputs::new(&given) };
        let mut outputs = Outputs {
            sample: Some(TensorMut::new(&mut token, &[n]).unwrap()),
            sample_log_prob: Some(TensorMut::new(&mut log_prob, &[n]).unwrap()),
            ..Outputs::default()
        };
        combiner.run(&inputs, &mut outputs).unwrap();
        drop(outputs);
        token
    };
    assert_eq!(draw(&scores, &[0, 1, 2, 3])[2..], draw(&scores[100..], &[2, 3])[..]);
}

#[test]
fn routing_and_experts() {
    let context = Context::new().unwrap();
    let (tokens, experts, k, hidden, inner) = (6, 4, 2, 5, 3);
    let logits = numbers(4, tokens * experts);
    let router = Router::builder(experts, k).score(Score::SoftmaxOfTopK).build(&context, "auto").unwrap();
    let (mut ids, mut weights, mut counts) = (vec![0i32; tokens * k], vec![0f32; tokens * k], vec![0i32; experts]);
    let mut lists = Lists { counts: Some(TensorMut::new(&mut counts, &[experts]).unwrap()), ..Lists::default() };
    router
        .route(&Tensor::new(&logits, &[tokens, experts]).unwrap(), None, TensorMut::new(&mut ids, &[tokens, k]).unwrap(),
               TensorMut::new(&mut weights, &[tokens, k]).unwrap(), &mut lists)
        .unwrap();
    drop(lists);
    assert_eq!(counts.iter().sum::<i32>() as usize, tokens * k);
    for t in 0..tokens {
        let row = &logits[t * experts..][..experts];
        let mut order: Vec<usize> = (0..experts).collect();
        order.sort_by(|a, b| row[*b].partial_cmp(&row[*a]).unwrap().then(a.cmp(b)));
        let chosen: Vec<usize> = ids[t * k..][..k].iter().map(|i| *i as usize).collect();
        assert_eq!(chosen, order[..k]);
        let wanted = softmax(&[row[chosen[0]], row[chosen[1]]]);
        assert!((0..k).all(|j| (weights[t * k + j] as f64 - wanted[j]).abs() < 1e-6));
    }
    let (gate_up, down) = (numbers(5, experts * 2 * inner * hidden), numbers(6, experts * hidden * inner));
    let (x, mut y) = (numbers(7, tokens * hidden), vec![0f32; tokens * hidden]);
    let layer = Experts::builder(Tensor::new(&gate_up, &[experts, 2 * inner, hidden]).unwrap(),
                                 Tensor::new(&down, &[experts, hidden, inner]).unwrap(), k)
        .build(&context, "auto").unwrap();
    layer
        .run(&Tensor::new(&x, &[tokens, hidden]).unwrap(), &Tensor::new(&ids, &[tokens, k]).unwrap(),
             &Tensor::new(&weights, &[tokens, k]).unwrap(), TensorMut::new(&mut y, &[tokens, hidden]).unwrap())
        .unwrap();
    for t in 0..tokens {
        let mut wanted = vec![0f64; hidden];
        for j in 0..k {
            let e = ids[t * k + j] as usize;
            let dot = |row: usize| (0..hidden).map(|h| gate_up[(e * 2 * inner + row) * hidden + h] as f64 * x[t * hidden + h] as f64).sum::<f64>();
            let h: Vec<f64> = (0..inner).map(|i| { let g = dot(i); g / (1.0 + (-g).exp()) * dot(inner + i) }).collect();
            for (o, out) in wanted.iter_mut().enumerate() {
                *out += weights[t * k + j] as f64 * (0..inner).map(|i| down[(e * hidden + o) * inner + i] as f64 * h[i]).sum::<f64>();
            }
        }
        assert!((0..hidden).all(|o| (y[t * hidden + o] as f64 - wanted[o]).abs() < 1e-4 * (1.0 + wanted[o].abs())));
    }
}

fn recipe() -> String {
    let family = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../docs/examples/family");
    let model = |name: &str| family.join(name).canonicalize().unwrap().display().to_string();
    format!("merge_method: linear\nmodels:\n  - {{model: {}, parameters: {{weight: 0.5}}}}\n  - {{model: {}, parameters: {{weight: 0.5}}}}\n",
            model("legal"), model("technical"))
}

fn scratch(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("chorus-rust-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    folder
}

#[test]
fn merging() {
    let context = Context::new().unwrap();
    let out = scratch("merged");
    let mut heard = 0;
    let merger = Merger::builder(&recipe()).output(out.to_str().unwrap()).build(&context, "auto").unwrap();
    assert!(merger.plan().unwrap().tensors > 0 && merger.plan_text().contains("linear"));
    merger.run_with(|told| { heard += 1; assert!(told.bytes_done <= told.bytes_total); Flow::Continue }).unwrap();
    assert!(heard > 0 && out.join("model.safetensors").exists());
    fs::remove_dir_all(out).unwrap();
}

#[test]
fn cancelling_and_panics_leave_nothing() {
    let context = Context::new().unwrap();
    let out = scratch("cancelled");
    let merger = Merger::builder(&recipe()).output(out.to_str().unwrap()).build(&context, "auto").unwrap();
    assert_eq!(merger.run_with(|_| Flow::Cancel).unwrap_err().code(), Code::Cancelled);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| merger.run_with(|_| panic!("mine"))));
    assert_eq!(*panic.unwrap_err().downcast_ref::<&str>().unwrap(), "mine");
    assert!(!out.join("model.safetensors").exists());
    let _ = fs::remove_dir_all(out);
}

#[test]
fn errors_say_what_is_wrong() {
    let context = Context::new().unwrap();
    let error = Router::builder(8, 2).preset("mixtrl").build(&context, "auto").err().unwrap();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("mixtral"));
    assert_eq!(Combiner::builder(Rule::Linear).model(Model::logits(3)).build(&context, "cuda:9").err().unwrap().code(), Code::NotFound);
    assert!(Combiner::builder(Rule::Linear).build(&context, "auto").is_err());
    assert!(Combiner::builder(Rule::Linear).model(Model::logits(3).kind(Kind::Probs).weight(-1.0)).build(&context, "auto").is_err());
    assert!(Tensor::new(&[1f32, 2.0], &[3]).is_err());
    assert!(Tensor::new(&[1f32, 2.0], &[usize::MAX, 2]).is_err());
    let combiner = Combiner::builder(Rule::Linear).model(Model::logits(3)).build(&context, "auto").unwrap();
    assert!(combiner.run(&Inputs::new(&[]), &mut Outputs::default()).unwrap_err().message().contains("scores"));
    let boxed: Box<dyn std::error::Error + Send + Sync> = Box::new(Context::builder().option("thraeds", 1).build().err().unwrap());
    assert!(boxed.to_string().contains("threads"));
    assert!(Context::builder().option("thr\0eads", 1).build().is_err());
}

#[test]
fn the_log_is_heard_and_may_panic() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let copy = Arc::clone(&heard);
    Context::builder().log(0, move |_, message| copy.lock().unwrap().push(message.to_string())).build().unwrap();
    assert!(!heard.lock().unwrap().is_empty());
    Context::builder().log(0, |_, _| panic!("in the log")).build().unwrap();
}

#[test]
fn threads_share_objects_that_outlive_their_context() {
    let context = Context::builder().option("threads", 2).build().unwrap();
    assert!(context.devices().iter().any(|device| device.name == "reference"));
    let combiner = Combiner::builder(Rule::Linear).model(Model::logits(100)).build(&context, "auto").unwrap();
    drop(context);
    let scores = numbers(8, 100);
    let run = || {
        let mut mixed = vec![0f32; 100];
        let given = [Some(Tensor::new(&scores, &[1, 100]).unwrap())];
        let mut outputs = Outputs { log_probs: Some(TensorMut::new(&mut mixed, &[1, 100]).unwrap()), ..Outputs::default() };
        combiner.run(&Inputs::new(&given), &mut outputs).unwrap();
        drop(outputs);
        mixed
    };
    let wanted = run();
    std::thread::scope(|scope| (0..8).for_each(|_| { scope.spawn(|| (0..100).for_each(|_| assert_eq!(run(), wanted))); }));
}
