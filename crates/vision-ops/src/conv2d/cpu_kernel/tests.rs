//! Claims about gradients by pairs of rows, against the direct sums.

use candle_core::{DType, Device, Result, Tensor};
use candle_simd::{Float, Isa};

use super::super::tests::padded;
use super::super::{Conv2dGeometry, Conv2dOptions, OP};
use super::{direct, row_pairs};
use crate::element::Element;
use crate::kernels::lanes::lanes;
use crate::test_support::numbers;

fn geometry(x: [usize; 4], weight: [usize; 4], options: Conv2dOptions) -> Result<Conv2dGeometry> {
    let zeros = |shape: [usize; 4]| Tensor::zeros(&shape, DType::F32, &Device::Cpu);
    Conv2dGeometry::new(OP, &zeros(x)?, &zeros(weight)?, None, options)
}

/// Pseudo-random numbers that f32 holds.
fn exact<F: Element>(seed: u64, count: usize) -> Vec<F> {
    let number = |x: f64| <F as Float>::from_f64(f64::from(x as f32));
    numbers(seed, count).into_iter().map(number).collect()
}

#[test]
fn pairs_of_rows_are_taken_where_they_fit_and_nowhere_else() -> Result<()> {
    let fits = |x, weight, options| -> Result<(bool, bool)> {
        let geometry = geometry(x, weight, options)?;
        let input = row_pairs::pays_for_input(&geometry, 16);
        Ok((input, row_pairs::pays_for_weight(&geometry)))
    };
    let (x, weight) = ([2, 8, 6, 16], [9, 8, 3, 3]);
    assert_eq!(fits(x, weight, padded(1, 1))?, (true, true));
    // Each of these by itself is a reason against.
    let stride = Conv2dOptions {
        stride: (1, 2),
        ..padded(1, 1)
    };
    let dilation = Conv2dOptions {
        dilation: (2, 1),
        ..padded(1, 1)
    };
    let groups = Conv2dOptions {
        groups: 2,
        ..padded(1, 1)
    };
    assert_eq!(fits(x, weight, stride)?, (false, false));
    assert_eq!(fits(x, weight, dilation)?, (false, false));
    assert_eq!(fits(x, [10, 4, 3, 3], groups)?, (false, false));
    assert_eq!(fits(x, [9, 8, 2, 3], padded(1, 1))?, (false, false));
    assert_eq!(
        fits([2, 7, 6, 16], [9, 7, 3, 3], padded(1, 1))?,
        (false, false)
    );
    assert_eq!(fits(x, [7, 8, 3, 3], padded(1, 1))?, (false, false));
    assert_eq!(fits([2, 8, 3, 16], weight, padded(1, 1))?, (false, false));
    // These are reasons against the gradient of `x` alone.
    assert_eq!(fits(x, weight, padded(3, 1))?, (false, true));
    assert_eq!(fits(x, weight, padded(1, 3))?, (false, true));
    assert_eq!(fits([2, 8, 6, 15], weight, padded(1, 1))?, (false, true));
    assert_eq!(fits([2, 8, 6, 17], weight, padded(1, 1))?, (false, true));
    Ok(())
}

/// The largest error of each gradient, relative to the largest gradient: by pairs of rows in f32 and by direct sums in f32.
fn errors(x: [usize; 4], weight: [usize; 4], options: Conv2dOptions) -> Result<[[f64; 2]; 2]> {
    fn both<F: Element>(geometry: &Conv2dGeometry, by_pairs: bool) -> [Vec<f64>; 2] {
        let isa = Isa::active();
        let x = exact::<F>(1, geometry.batch * geometry.input_len());
        let weight = exact::<F>(2, geometry.weight_len());
        let upstream = exact::<F>(3, geometry.batch * geometry.output_len());
        let (of_input, of_weight) = if by_pairs {
            (
                row_pairs::backward_input(isa, geometry, &weight, &upstream),
                row_pairs::backward_weight(isa, geometry, &x, &upstream).0,
            )
        } else {
            (
                direct::backward_input(isa, geometry, &weight, &upstream),
                direct::backward_weight(isa, geometry, &x, &upstream).0,
            )
        };
        let wide = |x: Vec<F>| x.into_iter().map(<F as Float>::to_f64).collect();
        [wide(of_input), wide(of_weight)]
    }
    let geometry = geometry(x, weight, options)?;
    let exact = both::<f64>(&geometry, false);
    let error = |got: &Vec<f64>, exact: &Vec<f64>| {
        let largest = exact.iter().fold(0.0, |most, x| f64::max(most, x.abs()));
        let errors = got.iter().zip(exact).map(|(a, b)| (a - b).abs());
        errors.fold(0.0, f64::max) / largest
    };
    let (pairs, direct) = (both::<f32>(&geometry, true), both::<f32>(&geometry, false));
    Ok(std::array::from_fn(|k| {
        [error(&pairs[k], &exact[k]), error(&direct[k], &exact[k])]
    }))
}

#[test]
fn pairs_of_rows_round_no_worse_than_twice_the_direct_sums() -> Result<()> {
    for (x, weight, options) in [
        ([2, 64, 32, 32], [64, 64, 3, 3], padded(1, 1)),
        ([2, 16, 32, 32], [32, 16, 5, 5], padded(2, 2)),
        ([2, 8, 17, 48], [8, 8, 7, 3], padded(3, 1)),
    ] {
        for [pairs, direct] in errors(x, weight, options)? {
            assert!(pairs < 2.0 * direct, "{x:?} {weight:?}: {pairs} {direct}");
            assert!(pairs < 2e-6, "{x:?} {weight:?}: {pairs}");
        }
    }
    Ok(())
}

#[test]
fn a_number_that_is_not_finite_spoils_only_the_gradients_that_it_reaches() -> Result<()> {
    let geometry = geometry([1, 8, 9, 32], [8, 8, 5, 5], padded(2, 2))?;
    let isa = Isa::active();
    assert!(row_pairs::pays_for_input(&geometry, lanes::<f32>(isa)));
    let weight = exact::<f32>(1, geometry.weight_len());
    for bad in [f32::NAN, f32::INFINITY, f32::MAX] {
        for at in 0..9 {
            let mut upstream = exact::<f32>(2, geometry.output_len());
            upstream[(3 * 9 + at) * 32 + 13] = bad;
            let pairs = row_pairs::backward_input(isa, &geometry, &weight, &upstream);
            let direct = direct::backward_input(isa, &geometry, &weight, &upstream);
            for (pairs, direct) in pairs.iter().zip(&direct) {
                if direct.abs() < 1e30 {
                    assert!((pairs - direct).abs() < 1e-4, "{bad}: {pairs} {direct}");
                }
            }
        }
    }
    Ok(())
}
