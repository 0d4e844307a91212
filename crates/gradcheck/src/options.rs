//! The options of a check and their defaults.

use crate::error::SetupError;
use candle_core::DType;

/// How the numeric gradient is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Mode {
    /// Dense for tensors up to [`GradCheck::dense_limit`] elements, projection above.
    #[default]
    Auto,
    /// Every element on its own: two evaluations of the function an element.
    Dense,
    /// A few random directions a tensor: two evaluations a direction, and a bisection down to the element where a
    /// direction disagrees.
    Projection,
}

/// How far the analytic gradient may be from the numeric one.
///
/// An element passes when `|analytic - numeric| <= rtol * |numeric| + atol * max|gradient of the tensor| + noise`.
/// `atol` is relative to the largest gradient element, so that a loss divided by a million rows is checked as sharply
/// as one that is not; `noise` is the rounding error of the difference quotient itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Relative to the element.
    pub rtol: f64,
    /// Relative to the largest element of the tensor's gradient.
    pub atol: f64,
}

impl Tolerance {
    /// The default for a dtype.
    ///
    /// | dtype | rtol | atol | unit roundoff |
    /// |---|---|---|---|
    /// | f64 | 1e-6 | 1e-8 | 1.1e-16 (the truncation error of the differences decides) |
    /// | f32 | 1e-4 | 1e-5 | 6.0e-8 |
    /// | f16 | 1e-2 | 1e-2 | 4.9e-4 |
    /// | bf16 | 5e-2 | 5e-2 | 3.9e-3 |
    #[must_use]
    pub fn default_for(dtype: DType) -> Self {
        let (rtol, atol) = match dtype {
            DType::F32 => (1e-4, 1e-5),
            DType::F16 => (1e-2, 1e-2),
            DType::BF16 => (5e-2, 5e-2),
            _ => (1e-6, 1e-8),
        };
        Self { rtol, atol }
    }
}

/// A gradient check: options first, then [`check`](GradCheck::check).
///
/// The defaults suit a smooth function whose inputs are of magnitude one or above.
#[derive(Debug, Clone)]
pub struct GradCheck {
    pub(crate) tolerances: Vec<(DType, Tolerance)>,
    pub(crate) step: f64,
    pub(crate) seed: u64,
    pub(crate) mode: Mode,
    pub(crate) dense_limit: usize,
    pub(crate) directions: usize,
    pub(crate) differentiable: Option<Vec<usize>>,
    pub(crate) names: Vec<String>,
    pub(crate) strided: bool,
    pub(crate) max_kinks: f64,
}

impl Default for GradCheck {
    fn default() -> Self {
        Self {
            tolerances: Vec::new(),
            step: f64::EPSILON.cbrt(),
            seed: 0,
            mode: Mode::Auto,
            dense_limit: 256,
            directions: 4,
            differentiable: None,
            names: Vec::new(),
            strided: true,
            max_kinks: 0.25,
        }
    }
}

impl GradCheck {
    /// All options at their defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tolerances for inputs of `dtype`, in place of [`Tolerance::default_for`].
    #[must_use]
    pub fn tolerance(mut self, dtype: DType, rtol: f64, atol: f64) -> Self {
        self.tolerances.retain(|(d, _)| *d != dtype);
        self.tolerances.push((dtype, Tolerance { rtol, atol }));
        self
    }

    /// The step of the central differences, times `max(1, |x|)` for element x.
    ///
    /// Default `cbrt(f64::EPSILON)`, about 6.1e-6: there the truncation error, of order step squared, and the rounding
    /// error, of order epsilon over step, are of one size.
    #[must_use]
    pub fn step(mut self, step: f64) -> Self {
        self.step = step;
        self
    }

    /// The seed of the upstream gradient and of the random directions. Default 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Dense, projection, or by size (the default).
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The largest tensor, in elements, that [`Mode::Auto`] checks element by element. Default 256.
    #[must_use]
    pub fn dense_limit(mut self, elements: usize) -> Self {
        self.dense_limit = elements;
        self
    }

    /// Random directions a tensor in projection mode. Default 4.
    #[must_use]
    pub fn directions(mut self, directions: usize) -> Self {
        self.directions = directions;
        self
    }

    /// The inputs to differentiate, by index. Default: every input of a floating-point dtype.
    #[must_use]
    pub fn differentiable(mut self, inputs: impl Into<Vec<usize>>) -> Self {
        self.differentiable = Some(inputs.into());
        self
    }

    /// Names of the inputs for the report, in order; an input without one is called `input 0`, `input 1`, ...
    #[must_use]
    pub fn names<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.names = names.into_iter().map(Into::into).collect();
        self
    }

    /// Whether the check is repeated on non-contiguous views of the same values. Default true.
    #[must_use]
    pub fn strided(mut self, strided: bool) -> Self {
        self.strided = strided;
        self
    }

    /// The share of checked elements that may lie on kinks before the check fails. Default 0.25; up to four kinks a
    /// tensor are always allowed.
    #[must_use]
    pub fn max_kinks(mut self, share: f64) -> Self {
        self.max_kinks = share;
        self
    }

    pub(crate) fn tolerance_for(&self, dtype: DType) -> Tolerance {
        let set = self.tolerances.iter().find(|(d, _)| *d == dtype);
        set.map_or_else(
            || Tolerance::default_for(dtype),
            |(_, tolerance)| *tolerance,
        )
    }

    pub(crate) fn name_of(&self, input: usize) -> String {
        self.names
            .get(input)
            .cloned()
            .unwrap_or_else(|| format!("input {input}"))
    }

    /// Refuses options that would make a check meaningless.
    pub(crate) fn validate(&self) -> Result<(), SetupError> {
        let refuse = |option, value, expected| {
            Err(SetupError::Option {
                option,
                value,
                expected,
            })
        };
        if !(self.step > 0.0 && self.step <= 0.1) {
            return refuse("step", self.step, "a number above 0 and up to 0.1");
        }
        if self.directions == 0 {
            return refuse("directions", 0.0, "at least 1");
        }
        if !(0.0..=1.0).contains(&self.max_kinks) {
            return refuse("max_kinks", self.max_kinks, "a share in [0, 1]");
        }
        for (_, tolerance) in &self.tolerances {
            for (option, value) in [("rtol", tolerance.rtol), ("atol", tolerance.atol)] {
                if !(value >= 0.0 && value.is_finite()) {
                    return refuse(option, value, "a finite number, 0 or above");
                }
            }
        }
        Ok(())
    }
}
