//! The pointwise losses: option x reduction x dtype, fused and composed, with respect to input and target.

use super::form::Form;
use super::inputs::{positive, values};
use super::{FLOATS, REDUCTIONS};
use crate::case::Case;
use candle_core::{DType, Device, Result, Tensor};
use candle_gradcheck::GradCheck;
use candle_losses::{
    BinaryCrossEntropyWithLogits, Focal, Huber, KlDiv, L1, Mse, PoissonNll, Reduction, SmoothL1,
    SoftMargin,
};

/// The loss of one choice of options, by both ways.
trait Loss: Sized {
    fn reduced(self, reduction: Reduction) -> Self;
    fn weighted(self, weight: Tensor) -> Self;
    fn by_fused(&self, input: &Tensor, target: &Tensor) -> Result<Tensor>;
    fn by_composed(&self, input: &Tensor, target: &Tensor) -> Result<Tensor>;
}

macro_rules! losses {
    ($($loss:ty),*) => {$(
        impl Loss for $loss {
            fn reduced(self, reduction: Reduction) -> Self {
                self.reduction(reduction)
            }
            fn weighted(self, weight: Tensor) -> Self {
                self.weight(weight)
            }
            fn by_fused(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
                self.forward(input, target)
            }
            fn by_composed(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
                self.composed(input, target)
            }
        }
    )*};
}

losses!(
    BinaryCrossEntropyWithLogits,
    Focal,
    Huber,
    KlDiv,
    L1,
    Mse,
    PoissonNll,
    SmoothL1,
    SoftMargin
);

/// Where the targets of a loss live.
#[derive(Clone, Copy)]
enum Targets {
    /// Any numbers.
    Values,
    /// Above zero: probabilities, counts.
    Positive,
    /// -1 or 1, constant.
    Signs,
}

const SHAPE: [usize; 2] = [4, 6];

/// Makes a positive weight of a shape and a salt, in the dtype that the loss is being evaluated in.
type Weights<'a> = &'a dyn Fn(&[usize], usize) -> Result<Tensor>;

impl Targets {
    fn tensor(self, dtype: DType, device: &Device) -> Result<Tensor> {
        match self {
            Self::Values => values(&SHAPE, dtype, 5, device),
            Self::Positive => positive(&SHAPE, dtype, 1, device),
            Self::Signs => values(&SHAPE, DType::F64, 5, device)?
                .sign()?
                .to_dtype(dtype),
        }
    }

    /// The inputs to differentiate.
    fn differentiable(self) -> Vec<usize> {
        match self {
            Self::Signs => vec![0],
            Self::Values | Self::Positive => vec![0, 1],
        }
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let all = &mut cases;
    add(all, "mse", "plain", Targets::Values, |_| Ok(Mse::new()));
    add(all, "l1", "plain", Targets::Values, |_| Ok(L1::new()));
    for (name, delta) in [("delta_0.5", 0.5), ("delta_1", 1.0), ("delta_10", 10.0)] {
        add(all, "huber", name, Targets::Values, move |_| {
            Ok(Huber::new().delta(delta))
        });
    }
    for (name, beta) in [("beta_0", 0.0), ("beta_0.5", 0.5), ("beta_1", 1.0)] {
        add(all, "smooth_l1", name, Targets::Values, move |_| {
            Ok(SmoothL1::new().beta(beta))
        });
    }
    add(all, "kl_div", "plain", Targets::Positive, |_| {
        Ok(KlDiv::new())
    });
    add(all, "kl_div", "log_target", Targets::Values, |_| {
        Ok(KlDiv::new().log_target(true))
    });
    add(all, "kl_div", "batch_mean", Targets::Positive, |_| {
        Ok(KlDiv::new().batch_mean(true))
    });
    add(all, "poisson_nll", "log_input", Targets::Positive, |_| {
        Ok(PoissonNll::new())
    });
    add(all, "soft_margin", "plain", Targets::Signs, |_| {
        Ok(SoftMargin::new())
    });
    let bce = "binary_cross_entropy_with_logits";
    add(all, bce, "plain", Targets::Positive, |_| {
        Ok(BinaryCrossEntropyWithLogits::new())
    });
    add(all, bce, "pos_weight", Targets::Positive, |weight| {
        Ok(BinaryCrossEntropyWithLogits::new().pos_weight(weight(&[SHAPE[1]], 2)?))
    });
    add(all, "focal", "plain", Targets::Positive, |_| {
        Ok(Focal::new())
    });
    add(
        all,
        "focal",
        "gamma_0.5_no_alpha",
        Targets::Positive,
        |_| Ok(Focal::new().gamma(0.5).no_alpha()),
    );
    cases
}

/// One case a reduction, dtype, form, and with and without a weight.
fn add<L, F>(cases: &mut Vec<Case>, op: &'static str, options: &str, kind: Targets, build: F)
where
    L: Loss + 'static,
    F: Fn(Weights<'_>) -> Result<L> + Copy + Send + Sync + 'static,
{
    for (reduction_name, reduction) in REDUCTIONS {
        // PyTorch's batchmean replaces the mean alone.
        if options == "batch_mean" && reduction != Reduction::Mean {
            continue;
        }
        for dtype in FLOATS {
            for form in Form::all(dtype) {
                for weighted in [false, true] {
                    let weight = if weighted { "/weight" } else { "" };
                    let name = format!(
                        "{op}/{}/{options}{weight}/{reduction_name}/{}",
                        form.name(),
                        dtype.as_str()
                    );
                    cases.push(form.mark(Case::new(name, op, dtype, move |device| {
                        let inputs = [
                            values(&SHAPE, dtype, 0, device)?,
                            kind.tensor(dtype, device)?,
                        ];
                        let run = |i: &[Tensor]| {
                            // A weight has the dtype of the input; in the f64 evaluation it has the same, rounded, numbers.
                            let weight = |dims: &[usize], salt: usize| {
                                positive(dims, dtype, salt, device)?.to_dtype(i[0].dtype())
                            };
                            let mut loss = build(&weight)?.reduced(reduction);
                            if weighted {
                                loss = loss.weighted(weight(&SHAPE, 3)?);
                            }
                            if form.is_fused() {
                                loss.by_fused(&i[0], &i[1])
                            } else {
                                loss.by_composed(&i[0], &i[1])
                            }
                        };
                        let check = GradCheck::new()
                            .names(["input", "target"])
                            .differentiable(kind.differentiable());
                        form.check(check, run, &inputs)
                    })));
                }
            }
        }
    }
}
