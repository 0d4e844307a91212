//! Cross entropy in scalar f64, written from the definition: the oracle of every other form.

use crate::{EmptyPolicy, Reduction};

/// Logits in row-major (batch, classes, inner), and the options.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) logits: Vec<f64>,
    pub(super) batch: usize,
    pub(super) classes: usize,
    pub(super) inner: usize,
    pub(super) target: OracleTarget,
    pub(super) weight: Option<Vec<f64>>,
    pub(super) smoothing: f64,
    pub(super) reduction: Reduction,
    pub(super) num_items: Option<f64>,
    pub(super) z_loss: f64,
    pub(super) softcap: Option<f64>,
    pub(super) scale: f64,
    pub(super) on_empty: EmptyPolicy,
}

#[derive(Clone, Debug)]
pub(super) enum OracleTarget {
    Indices {
        values: Vec<i64>,
        ignore: Option<i64>,
    },
    Probabilities(Vec<f64>),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) loss: Vec<f64>,
    pub(super) gradient: Vec<f64>,
    /// With respect to probabilities; empty for indices.
    pub(super) target_gradient: Vec<f64>,
    pub(super) lse: Vec<f64>,
    pub(super) target_log_prob: Vec<f64>,
}

impl Problem {
    pub(super) fn rows(&self) -> usize {
        self.batch * self.inner
    }

    fn at(&self, row: usize, class: usize) -> usize {
        (row / self.inner * self.classes + class) * self.inner + row % self.inner
    }

    /// The answer for an upstream gradient of the loss, one number or one a row.
    pub(super) fn solve(&self, upstream: &[f64]) -> Answer {
        let (rows, classes) = (self.rows(), self.classes);
        let mut answer = Answer {
            gradient: vec![0.0; self.logits.len()],
            target_gradient: match &self.target {
                OracleTarget::Indices { .. } => vec![],
                OracleTarget::Probabilities(t) => vec![0.0; t.len()],
            },
            ..Answer::default()
        };
        let weight = |c: usize| self.weight.as_ref().map_or(1.0, |w| w[c]);
        let mut losses = vec![0.0; rows];
        let mut total_weight = 0.0;
        let counts: Vec<bool> = (0..rows)
            .map(|row| match &self.target {
                OracleTarget::Indices { values, ignore } => Some(values[row]) != *ignore,
                OracleTarget::Probabilities(_) => true,
            })
            .collect();
        for row in 0..rows {
            if counts[row] {
                total_weight += match &self.target {
                    OracleTarget::Indices { values, .. } => weight(values[row] as usize),
                    OracleTarget::Probabilities(_) => 1.0,
                };
            }
        }
        let divisor = match (self.reduction, self.num_items) {
            (_, Some(items)) => items,
            (Reduction::Mean, None) => total_weight,
            _ => 1.0,
        };
        for row in 0..rows {
            let x: Vec<f64> = (0..classes)
                .map(|c| {
                    let x = self.scale * self.logits[self.at(row, c)];
                    self.softcap.map_or(x, |s| s * (x / s).tanh())
                })
                .collect();
            let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let log_sum = x.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
            let log_p: Vec<f64> = x.iter().map(|x| (x - max) - log_sum).collect();
            answer.lse.push(max + log_sum);
            if !counts[row] {
                answer.target_log_prob.push(0.0);
                continue;
            }
            let q: Vec<f64> = (0..classes)
                .map(|c| {
                    let t = match &self.target {
                        OracleTarget::Indices { values, .. } => f64::from(values[row] == c as i64),
                        OracleTarget::Probabilities(t) => t[self.at(row, c)],
                    };
                    weight(c) * ((1.0 - self.smoothing) * t + self.smoothing / classes as f64)
                })
                .collect();
            if let OracleTarget::Indices { values, .. } = &self.target {
                answer.target_log_prob.push(log_p[values[row] as usize]);
            }
            let lse = max + log_sum;
            losses[row] = (0..classes)
                .filter(|&c| q[c] != 0.0)
                .map(|c| -q[c] * log_p[c])
                .sum::<f64>();
            if self.z_loss != 0.0 {
                losses[row] += self.z_loss * lse * lse;
            }
            let g = if divisor == 0.0 {
                0.0
            } else if self.reduction == Reduction::None {
                upstream[row]
            } else {
                upstream[0] / divisor
            };
            let sum_q: f64 = q.iter().sum();
            for c in 0..classes {
                let slope = self.scale * self.softcap.map_or(1.0, |s| 1.0 - (x[c] / s).powi(2));
                let of_lse = if self.z_loss == 0.0 {
                    0.0
                } else {
                    2.0 * self.z_loss * lse
                };
                let d = log_p[c].exp() * (sum_q + of_lse) - q[c];
                answer.gradient[self.at(row, c)] = g * d * slope;
                if !answer.target_gradient.is_empty() {
                    answer.target_gradient[self.at(row, c)] =
                        -g * (1.0 - self.smoothing) * weight(c) * log_p[c];
                }
            }
        }
        answer.loss = match self.reduction {
            Reduction::None => losses,
            _ if divisor == 0.0 => vec![match self.on_empty {
                EmptyPolicy::Nan => f64::NAN,
                EmptyPolicy::Zero => 0.0,
            }],
            _ => vec![losses.iter().sum::<f64>() / divisor],
        };
        answer
    }
}

/// Whether two numbers agree to an absolute plus a relative tolerance; NaN agrees with NaN, infinity with itself.
pub(super) fn close(got: f64, expected: f64, tolerance: f64) -> bool {
    got == expected
        || (got.is_nan() && expected.is_nan())
        || (got - expected).abs() <= tolerance * (1.0 + expected.abs())
}
