//! exp, ln and tanh within their stated errors, in units in the last place of an f64 reference.

use super::{map, unary};
use crate::{Float, Isa};

unary!(Exp, x => x.exp());
unary!(ExpNonpositive, x => x.exp_nonpositive());
unary!(ExpNonpositiveForHalf, x => x.exp_nonpositive_for_half());
unary!(Ln, x => x.ln());
unary!(Tanh, x => x.tanh());

/// The distance of `got` from `exact` in units in the last place of `f32` at `exact`.
fn ulps32(got: f32, exact: f64) -> f64 {
    let nearest = exact as f32;
    if got.is_nan() || exact.is_nan() {
        return if got.is_nan() && exact.is_nan() {
            0.0
        } else {
            f64::INFINITY
        };
    }
    if got == nearest {
        return 0.0;
    }
    if got.is_infinite() || nearest.is_infinite() {
        return f64::INFINITY;
    }
    let a = nearest.abs();
    let ulp = f64::from(f32::from_bits(a.to_bits() + 1)) - f64::from(a);
    (f64::from(got) - exact).abs() / ulp
}

/// The distance of two `f64` in units in the last place; the reference is itself good to one.
fn ulps64(got: f64, reference: f64) -> f64 {
    if got.is_nan() || reference.is_nan() {
        return if got.is_nan() && reference.is_nan() {
            0.0
        } else {
            f64::INFINITY
        };
    }
    if got == reference {
        return 0.0;
    }
    if got.is_infinite() || reference.is_infinite() {
        return f64::INFINITY;
    }
    let a = reference.abs();
    let ulp = f64::from_bits(a.to_bits() + 1) - a;
    (got - reference).abs() / ulp
}

/// Evenly over a range, with both ends.
fn grid<T: Float>(low: f64, high: f64, n: usize) -> Vec<T> {
    (0..=n)
        .map(|i| T::from_f64(low + (high - low) * i as f64 / n as f64))
        .collect()
}

/// Every binade of the positive numbers, denormals included, with several mantissas.
fn binades<T: Float>(low: i32, high: i32) -> Vec<T> {
    (low..=high)
        .flat_map(|e| {
            [1.0, 1.1, 1.249, 1.42, 1.4999, 1.5, 1.51, 1.75, 1.999_999]
                .map(|m| T::from_f64(m * 2f64.powi(e)))
        })
        .collect()
}

fn worst32(
    isa: Isa,
    data: &[f32],
    op: impl super::UnaryOp,
    reference: impl Fn(f64) -> f64,
) -> (f64, f32) {
    map(isa, data, op)
        .iter()
        .zip(data)
        .map(|(&y, &x)| (ulps32(y, reference(f64::from(x))), x))
        .fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
}

fn worst64(
    isa: Isa,
    data: &[f64],
    op: impl super::UnaryOp,
    reference: impl Fn(f64) -> f64,
) -> (f64, f64) {
    map(isa, data, op)
        .iter()
        .zip(data)
        .map(|(&y, &x)| (ulps64(y, reference(x)), x))
        .fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
}

#[test]
fn exp_f32_is_within_two_ulp() {
    let mut data = grid::<f32>(-110.0, 95.0, 400_000);
    data.extend(grid::<f32>(-1.0, 1.0, 50_000));
    data.extend(binades::<f32>(-149, 7));
    data.extend(binades::<f32>(-149, 7).iter().map(|x| -x));
    for isa in Isa::available() {
        let (ulps, x) = worst32(isa, &data, Exp, f64::exp);
        assert!(ulps <= 2.0, "{}: {ulps} ulp at {x:e}", isa.name());
    }
}

#[test]
fn exp_nonpositive_for_half_is_within_its_relative_error() {
    let data = grid::<f32>(-80.0, 10.0, 400_000);
    for isa in Isa::available() {
        for (y, &x) in map(isa, &data, ExpNonpositiveForHalf)
            .into_iter()
            .zip(&data)
        {
            let exact = f64::from(x).exp();
            let allowed = 2f64.powi(-18) + f64::from(x.abs()) * 2f64.powi(-23);
            let error = (f64::from(y) / exact - 1.0).abs();
            assert!(error <= allowed, "{}: {y:e} for exp({x:e})", isa.name());
        }
        let edges = map(
            isa,
            &[0.0, -0.0, f32::NEG_INFINITY, -1e30, f32::NAN],
            ExpNonpositiveForHalf,
        );
        assert_eq!(edges[..4], [1.0, 1.0, 0.0, 0.0], "{}", isa.name());
        assert!(edges[4].is_nan());
    }
}

#[test]
fn exp_nonpositive_is_within_its_relative_error() {
    let mut data = grid::<f32>(-103.0, 80.0, 400_000);
    data.extend(
        binades::<f32>(-149, 6)
            .iter()
            .map(|x| -x)
            .filter(|&x| x > -103.0),
    );
    for isa in Isa::available() {
        for (y, &x) in map(isa, &data, ExpNonpositive).into_iter().zip(&data) {
            let exact = f64::from(x).exp();
            let allowed = (2.0 + f64::from(x.abs())) * 2f64.powi(-23) * exact + 1.5e-45;
            let error = (f64::from(y) - exact).abs();
            assert!(
                error <= allowed,
                "{}: {y:e} for exp({x:e}) = {exact:e}",
                isa.name()
            );
        }
        let edges = map(
            isa,
            &[0.0, -0.0, f32::NEG_INFINITY, -1e30, f32::NAN],
            ExpNonpositive,
        );
        assert_eq!(edges[..4], [1.0, 1.0, 0.0, 0.0], "{}", isa.name());
        assert!(edges[4].is_nan());
        let edges = map(
            isa,
            &[0.0, f64::NEG_INFINITY, -1e300, f64::NAN],
            ExpNonpositive,
        );
        assert_eq!(edges[..3], [1.0, 0.0, 0.0], "{}", isa.name());
        assert!(edges[3].is_nan());
    }
}

#[test]
fn exp_f64_is_within_two_ulp() {
    let mut data = grid::<f64>(-760.0, 720.0, 400_000);
    data.extend(grid::<f64>(-1.0, 1.0, 50_000));
    data.extend(binades::<f64>(-1074, 9));
    data.extend(binades::<f64>(-1074, 9).iter().map(|x| -x));
    for isa in Isa::available() {
        let (ulps, x) = worst64(isa, &data, Exp, f64::exp);
        assert!(ulps <= 2.0, "{}: {ulps} ulp at {x:e}", isa.name());
    }
}

#[test]
fn ln_f32_is_within_two_ulp() {
    let mut data = grid::<f32>(0.5, 2.0, 300_000);
    data.extend(grid::<f32>(1e-3, 1e6, 100_000));
    data.extend(binades::<f32>(-149, 127));
    for isa in Isa::available() {
        let (ulps, x) = worst32(isa, &data, Ln, f64::ln);
        assert!(ulps <= 2.0, "{}: {ulps} ulp at {x:e}", isa.name());
    }
}

#[test]
fn ln_f64_is_within_two_ulp() {
    let mut data = grid::<f64>(0.5, 2.0, 300_000);
    data.extend(grid::<f64>(1e-3, 1e6, 100_000));
    data.extend(binades::<f64>(-1074, 1023));
    for isa in Isa::available() {
        let (ulps, x) = worst64(isa, &data, Ln, f64::ln);
        assert!(ulps <= 2.0, "{}: {ulps} ulp at {x:e}", isa.name());
    }
}

#[test]
fn tanh_is_within_four_ulp() {
    let mut data = grid::<f32>(-12.0, 12.0, 300_000);
    data.extend(binades::<f32>(-149, 127));
    let mut wide = grid::<f64>(-25.0, 25.0, 300_000);
    wide.extend(binades::<f64>(-1022, 1023));
    for isa in Isa::available() {
        let (ulps, x) = worst32(isa, &data, Tanh, f64::tanh);
        assert!(ulps <= 4.0, "{}: {ulps} ulp at {x:e}", isa.name());
        let (ulps, x) = worst64(isa, &wide, Tanh, f64::tanh);
        assert!(ulps <= 4.0, "{}: {ulps} ulp at {x:e}", isa.name());
    }
}

fn edges<T: Float>() {
    let (inf, nan) = (T::INFINITY, T::NAN);
    let f = T::from_f64;
    for isa in Isa::available() {
        let exp = map(
            isa,
            &[
                T::ZERO,
                -T::ZERO,
                inf,
                -inf,
                f(1e4),
                f(-1e4),
                f(3e38),
                f(-3e38),
                nan,
            ],
            Exp,
        );
        assert_eq!(
            exp[..8],
            [T::ONE, T::ONE, inf, T::ZERO, inf, T::ZERO, inf, T::ZERO],
            "{}",
            isa.name()
        );
        assert!(exp[8].is_nan());
        let ln = map(
            isa,
            &[T::ONE, T::ZERO, -T::ZERO, inf, f(-1.0), -inf, nan],
            Ln,
        );
        assert_eq!(ln[..4], [T::ZERO, -inf, -inf, inf], "{}", isa.name());
        assert!(ln[4..].iter().all(|x| x.is_nan()), "{}: {ln:?}", isa.name());
        let tanh = map(isa, &[T::ZERO, inf, -inf, f(100.0), f(-100.0), nan], Tanh);
        assert_eq!(
            tanh[..5],
            [T::ZERO, T::ONE, -T::ONE, T::ONE, -T::ONE],
            "{}",
            isa.name()
        );
        assert!(tanh[5].is_nan());
        let odd = map(isa, &[-T::ZERO], Tanh);
        assert_eq!(format!("{:?}", odd[0]), "-0.0");
    }
}

#[test]
fn edges_of_the_number_line_are_exact() {
    edges::<f32>();
    edges::<f64>();
}
