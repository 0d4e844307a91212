//! Golden cases of the pointwise losses: PyTorch's names of ops and options.

use super::fields::number;
use super::file::GoldenCase;
use super::ops::{Builder, Op, reduction};
use candle_core::{DType, Device, Result, Tensor};
use candle_losses::{
    BinaryCrossEntropyWithLogits, Focal, Huber, KlDiv, L1, Mse, PoissonNll, Reduction, SmoothL1,
    SoftMargin,
};

/// The options of a case, read once and in their types.
#[derive(Default)]
struct Params {
    delta: Option<f64>,
    beta: Option<f64>,
    alpha: Option<f64>,
    gamma: Option<f64>,
    eps: Option<f64>,
    log_input: Option<bool>,
    full: Option<bool>,
    log_target: Option<bool>,
    weight: Option<Vec<f64>>,
    pos_weight: Option<Vec<f64>>,
}

impl Params {
    /// Reads the params of `case`, of which the op knows those in `known`.
    fn read(case: &GoldenCase, known: &[&str]) -> std::result::Result<Self, String> {
        let mut params = Self::default();
        for (key, value) in case.params.iter().filter(|(_, value)| !value.is_null()) {
            let unusable = || {
                format!(
                    "option \"{key}\" of {} is {value}, which means nothing here",
                    case.op
                )
            };
            if !known.contains(&key.as_str()) {
                return Err(format!("{} has no option \"{key}\" here", case.op));
            }
            let numbers = || {
                value
                    .as_array()?
                    .iter()
                    .map(number)
                    .collect::<Option<Vec<f64>>>()
            };
            let known = match key.as_str() {
                "delta" => set(&mut params.delta, value.as_f64()),
                "beta" => set(&mut params.beta, value.as_f64()),
                "alpha" => set(&mut params.alpha, value.as_f64()),
                "gamma" => set(&mut params.gamma, value.as_f64()),
                "eps" => set(&mut params.eps, value.as_f64()),
                "log_input" => set(&mut params.log_input, value.as_bool()),
                "full" => set(&mut params.full, value.as_bool()),
                "log_target" => set(&mut params.log_target, value.as_bool()),
                "weight" => set(&mut params.weight, numbers()),
                "pos_weight" => set(&mut params.pos_weight, numbers()),
                _ => false,
            };
            if !known {
                return Err(unusable());
            }
        }
        Ok(params)
    }
}

fn set<T>(field: &mut Option<T>, value: Option<T>) -> bool {
    *field = value;
    field.is_some()
}

/// A flat weight in the shape that its length fits: that of the input, or of its last axes, which broadcast.
fn shaped(weight: &[f64], input: &[usize], device: &Device) -> Result<Tensor> {
    let fits = (0..=input.len())
        .map(|from| &input[from..])
        .find(|axes| axes.iter().product::<usize>() == weight.len());
    let axes = fits.unwrap_or(input);
    Tensor::from_slice(weight, axes, device)
}

/// Makes a weight of flat numbers.
type Shaped<'a> = dyn Fn(&[f64]) -> Result<Tensor> + 'a;

/// Boxes both forms of a loss, after setting its weight and reduction.
macro_rules! op {
    ($case:ident, $params:ident, $reduction:ident, $build:expr) => {{
        let (params, reduction) = ($params, $reduction);
        Ok(Box::new(move |device: &Device, dtype: DType| {
            let build: &dyn Fn(&Params, &Shaped<'_>) -> Result<_> = &$build;
            let shaped =
                |weight: &[f64]| shaped(weight, &$case.input_shape, device)?.to_dtype(dtype);
            let mut loss = build(&params, &shaped)?.reduction(reduction);
            let weight = params.weight.as_ref().or($case.weight.as_ref());
            if let Some(weight) = weight {
                loss = loss.weight(shaped(weight)?);
            }
            let other = loss.clone();
            Ok(Op {
                fused: Box::new(move |x, t| loss.forward(x, t)),
                composed: Box::new(move |x, t| other.composed(x, t)),
                value_and_grad: None,
            })
        }) as Builder<'_>)
    }};
}

pub(super) fn build(case: &GoldenCase) -> std::result::Result<Builder<'_>, String> {
    let known: &[&str] = match case.op.as_str() {
        "mse" | "l1" | "soft_margin" => &["weight"],
        "huber" => &["weight", "delta"],
        "smooth_l1" => &["weight", "beta"],
        "binary_cross_entropy_with_logits" => &["weight", "pos_weight"],
        "kl_div" => &["weight", "log_target"],
        "poisson_nll" => &["weight", "log_input", "full", "eps"],
        "focal" => &["weight", "alpha", "gamma"],
        other => return Err(format!("unknown op \"{other}\"")),
    };
    let params = Params::read(case, known)?;
    let batch_mean = case.reduction == "batchmean" && case.op == "kl_div";
    let reduction = if batch_mean {
        Reduction::Mean
    } else {
        reduction(&case.reduction)?
    };
    match case.op.as_str() {
        "mse" => op!(case, params, reduction, |_, _| Ok(Mse::new())),
        "l1" => op!(case, params, reduction, |_, _| Ok(L1::new())),
        "soft_margin" => op!(case, params, reduction, |_, _| Ok(SoftMargin::new())),
        "huber" => op!(case, params, reduction, |p, _| Ok(
            Huber::new().delta(p.delta.unwrap_or(1.0))
        )),
        "smooth_l1" => op!(case, params, reduction, |p, _| Ok(
            SmoothL1::new().beta(p.beta.unwrap_or(1.0))
        )),
        "binary_cross_entropy_with_logits" => op!(case, params, reduction, |p, weight| {
            let loss = BinaryCrossEntropyWithLogits::new();
            Ok(match &p.pos_weight {
                Some(numbers) => loss.pos_weight(weight(numbers)?),
                None => loss,
            })
        }),
        "kl_div" => op!(case, params, reduction, |p, _| {
            Ok(KlDiv::new()
                .log_target(p.log_target.unwrap_or(false))
                .batch_mean(batch_mean))
        }),
        "poisson_nll" => op!(case, params, reduction, |p, _| {
            let loss = PoissonNll::new()
                .log_input(p.log_input.unwrap_or(true))
                .full(p.full.unwrap_or(false));
            Ok(p.eps.into_iter().fold(loss, PoissonNll::eps))
        }),
        _ => op!(case, params, reduction, |p, _| {
            // torchvision reads a negative alpha as none.
            let loss = Focal::new().gamma(p.gamma.unwrap_or(2.0));
            Ok(match p.alpha {
                Some(alpha) if alpha < 0.0 => loss.no_alpha(),
                Some(alpha) => loss.alpha(alpha),
                None => loss,
            })
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::shaped;
    use candle_core::{Device, Result};

    #[test]
    fn a_weight_takes_the_last_axes_that_it_fits() -> Result<()> {
        for (count, expected) in [(24, vec![4, 6]), (6, vec![6]), (1, vec![])] {
            assert_eq!(
                shaped(&vec![1.0; count], &[4, 6], &Device::Cpu)?.dims(),
                expected
            );
        }
        assert!(shaped(&[1.0; 5], &[4, 6], &Device::Cpu).is_err());
        Ok(())
    }
}
