//! The pointwise losses against plain f64 formulas, finite differences and their composed forms.

mod edges;
mod errors;
mod gradients;
mod layouts;
mod values;

use crate::*;
use candle_core::{DType, Device, Result, Tensor, Var};

/// The options that every loss has.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    pub(super) weight: Option<Tensor>,
    pub(super) reduction: Reduction,
    pub(super) on_empty: EmptyPolicy,
}

impl Setup {
    pub(super) fn new(reduction: Reduction) -> Self {
        Self {
            reduction,
            ..Self::default()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
    Fused,
    Composed,
}

type Run = Box<dyn Fn(&Setup, &Tensor, &Tensor, Form) -> Result<Tensor> + Sync>;

/// One loss with its formula, written down as plainly as can be.
pub(crate) struct Case {
    pub(super) name: &'static str,
    pub(super) run: Run,
    pub(super) oracle: fn(f64, f64) -> f64,
    /// Turns numbers around 0 into targets that the loss is made for.
    pub(super) to_target: fn(f64) -> f64,
    /// Turns numbers around 0 into inputs that the loss is made for.
    pub(super) to_input: fn(f64) -> f64,
}

macro_rules! case {
    ($name:literal, $builder:expr, $oracle:expr, $to_input:expr, $to_target:expr) => {
        Case {
            name: $name,
            run: Box::new(|setup, input, target, form| {
                let mut loss = $builder.reduction(setup.reduction).on_empty(setup.on_empty);
                if let Some(weight) = &setup.weight {
                    loss = loss.weight(weight.clone());
                }
                match form {
                    Form::Fused => loss.forward(input, target),
                    Form::Composed => loss.composed(input, target),
                }
            }),
            oracle: $oracle,
            to_input: $to_input,
            to_target: $to_target,
        }
    };
}

fn same(v: f64) -> f64 {
    v
}

fn probability(v: f64) -> f64 {
    1.0 / (1.0 + (-v).exp())
}

fn sign(v: f64) -> f64 {
    if v < 0.0 { -1.0 } else { 1.0 }
}

fn bce(x: f64, z: f64) -> f64 {
    -z * probability(x).ln() - (1.0 - z) * probability(-x).ln()
}

fn focal_oracle(x: f64, t: f64, alpha: f64, gamma: f64) -> f64 {
    let q = probability(x);
    let right = q * t + (1.0 - q) * (1.0 - t);
    (alpha * t + (1.0 - alpha) * (1.0 - t)) * (1.0 - right).powf(gamma) * bce(x, t)
}

pub(crate) fn catalogue() -> Vec<Case> {
    let log = |v: f64| probability(v).ln();
    let count = |v: f64| (2.0 * v.abs()).ceil();
    vec![
        case!("mse", Mse::new(), |x, t| (x - t).powi(2), same, same),
        case!("l1", L1::new(), |x, t| (x - t).abs(), same, same),
        case!(
            "smooth_l1",
            SmoothL1::new().beta(0.7),
            |x, t| {
                let d = (x - t).abs();
                if d < 0.7 { d * d / 1.4 } else { d - 0.35 }
            },
            same,
            same
        ),
        case!(
            "smooth_l1 beta 0",
            SmoothL1::new().beta(0.0),
            |x, t| (x - t).abs(),
            same,
            same
        ),
        case!(
            "huber",
            Huber::new().delta(0.7),
            |x, t| {
                let d = (x - t).abs();
                if d <= 0.7 {
                    d * d / 2.0
                } else {
                    0.7 * (d - 0.35)
                }
            },
            same,
            same
        ),
        case!(
            "binary_cross_entropy_with_logits",
            BinaryCrossEntropyWithLogits::new(),
            bce,
            same,
            probability
        ),
        case!(
            "soft_margin",
            SoftMargin::new(),
            |x, t| (1.0 + (-t * x).exp()).ln(),
            same,
            sign
        ),
        case!(
            "kl_div",
            KlDiv::new(),
            |x, t| t * (t.ln() - x),
            log,
            probability
        ),
        case!(
            "kl_div of logs",
            KlDiv::new().log_target(true),
            |x, t| t.exp() * (t - x),
            log,
            log
        ),
        case!(
            "poisson_nll",
            PoissonNll::new(),
            |x, t| x.exp() - t * x,
            same,
            count
        ),
        case!(
            "poisson_nll full",
            PoissonNll::new().full(true),
            |x, t| {
                let stirling = t * t.ln() - t + (2.0 * std::f64::consts::PI * t).ln() / 2.0;
                x.exp() - t * x + if t > 1.0 { stirling } else { 0.0 }
            },
            same,
            count
        ),
        case!(
            "poisson_nll of rates",
            PoissonNll::new().log_input(false).eps(1e-3),
            |x, t| x - t * (x + 1e-3).ln(),
            f64::abs,
            count
        ),
        case!(
            "focal",
            Focal::new(),
            |x, t| focal_oracle(x, t, 0.25, 2.0),
            same,
            probability
        ),
        case!(
            "focal gamma 1.5",
            Focal::new().alpha(0.6).gamma(1.5),
            |x, t| focal_oracle(x, t, 0.6, 1.5),
            same,
            probability
        ),
        case!(
            "focal gamma 1 without alpha",
            Focal::new().no_alpha().gamma(1.0),
            |x, t| 2.0 * focal_oracle(x, t, 0.5, 1.0),
            same,
            probability
        ),
    ]
}

pub(crate) const REDUCTIONS: [Reduction; 3] = [Reduction::Mean, Reduction::Sum, Reduction::None];

/// A fixed stream of numbers in (-3, 3), no two losses' kinks among them.
pub(crate) fn numbers(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            6.0 * ((state >> 11) as f64 / (1u64 << 53) as f64) - 3.0
        })
        .collect()
}

pub(crate) fn tensor(values: &[f64], shape: &[usize], dtype: DType) -> Tensor {
    (Tensor::from_slice(values, shape, &Device::Cpu).unwrap())
        .to_dtype(dtype)
        .unwrap()
}

pub(crate) fn var(values: &[f64], shape: &[usize], dtype: DType) -> Var {
    Var::from_tensor(&tensor(values, shape, dtype)).unwrap()
}

/// All elements as f64, in row-major order.
pub(crate) fn flat(t: &Tensor) -> Vec<f64> {
    (t.to_dtype(DType::F64).unwrap().flatten_all().unwrap())
        .to_vec1()
        .unwrap()
}

pub(crate) fn bits(t: &Tensor) -> Vec<u64> {
    flat(t).into_iter().map(f64::to_bits).collect()
}

#[track_caller]
pub(crate) fn assert_close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(
        got.len(),
        want.len(),
        "{what}: {} elements instead of {}",
        got.len(),
        want.len()
    );
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let close = got == want || (got - want).abs() <= tolerance * (1.0 + want.abs());
        assert!(
            close || (got.is_nan() && want.is_nan()),
            "{what}: element {i} is {got}, not {want}"
        );
    }
}

/// Loss and the gradients of input and target, of the loss times `upstream`.
pub(crate) fn loss_and_gradients(
    case: &Case,
    setup: &Setup,
    input: &Var,
    target: &Var,
    upstream: &Tensor,
    form: Form,
) -> (Tensor, Tensor, Tensor) {
    let loss = (case.run)(setup, input, target, form).unwrap();
    let total = loss.mul(upstream).unwrap().sum_all().unwrap();
    let gradients = total.backward().unwrap();
    let of = |v: &Var| gradients.get(v).unwrap().clone();
    (loss, of(input), of(target))
}

/// An upstream gradient unlike 1 and unlike from element to element.
pub(crate) fn upstream(reduction: Reduction, shape: &[usize], dtype: DType) -> Tensor {
    match reduction {
        Reduction::None => tensor(&numbers(shape.iter().product(), 99), shape, dtype),
        _ => tensor(&[-1.75], &[], dtype),
    }
}
