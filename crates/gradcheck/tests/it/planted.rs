//! Negative controls: a custom op with one bug at a time in its backward pass. Each must be found, and found as what it is.

use crate::{elements, values};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};
use candle_gradcheck::{Failure, GradCheck, Mode, Report};

/// What is wrong with the backward pass.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    None,
    Sign,
    LostMean,
    Transposed,
    UpstreamIgnored,
    UpstreamAveraged,
    Quarter,
    OneElement(usize),
    NoGradient,
    NotANumber,
    Offset,
}

/// Row means of squares: (r, c) to (r), gradient `2 x / c` times the upstream gradient of the row.
struct MeanSquare(Bug);

impl CustomOp1 for MeanSquare {
    fn name(&self) -> &'static str {
        "mean-square"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, columns) = layout.shape().dims2()?;
        let mut sums = vec![0.0; rows];
        for (i, x) in elements(storage, layout)?.iter().enumerate() {
            sums[i / columns] += x * x / columns as f64;
        }
        Ok((CpuStorage::F64(sums), Shape::from(rows)))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        let (rows, columns) = x.dims2()?;
        let upstream = upstream.reshape((rows, 1))?;
        let upstream = match self.0 {
            Bug::UpstreamIgnored => upstream.ones_like()?,
            Bug::UpstreamAveraged => upstream
                .mean_keepdim(0)?
                .broadcast_as((rows, 1))?
                .contiguous()?,
            _ => upstream,
        };
        let right = (x * (2.0 / columns as f64))?.broadcast_mul(&upstream)?;
        let planted = match self.0 {
            Bug::Sign => right.neg()?,
            Bug::LostMean => (right * columns as f64)?,
            // The shape is right and the elements are in the wrong order, which a square fixture would half hide.
            Bug::Transposed => right.t()?.contiguous()?.reshape((rows, columns))?,
            Bug::Quarter => (right * 0.25)?,
            Bug::OneElement(k) => {
                let mut flat = right.flatten_all()?.to_vec1::<f64>()?;
                flat[k] *= 2.0;
                Tensor::from_vec(flat, (rows, columns), x.device())?
            }
            Bug::NoGradient => return Ok(None),
            Bug::NotANumber => (right / 0.0)?,
            Bug::Offset => (right + 1e-3)?,
            Bug::None | Bug::UpstreamIgnored | Bug::UpstreamAveraged => right,
        };
        Ok(Some(planted))
    }
}

fn check(bug: Bug, dims: &[usize], mode: Mode) -> Result<Report> {
    let x = values(dims, DType::F64)?;
    GradCheck::new()
        .names(["x"])
        .mode(mode)
        .check(|inputs| inputs[0].apply_op1(MeanSquare(bug)), &[x])
}

#[test]
fn the_right_gradient_passes_in_both_modes() -> Result<()> {
    for dims in [[1, 1], [1, 17], [17, 1], [3, 5], [100, 100]] {
        check(Bug::None, &dims, Mode::Projection)?.into_result()?;
        if dims != [100, 100] {
            check(Bug::None, &dims, Mode::Dense)?.into_result()?;
        }
    }
    Ok(())
}

#[test]
fn planted_bugs_are_caught_in_both_modes() -> Result<()> {
    let bugs = [
        Bug::Sign,
        Bug::LostMean,
        Bug::Transposed,
        Bug::UpstreamIgnored,
        Bug::UpstreamAveraged,
        Bug::Quarter,
        Bug::OneElement(7),
        Bug::Offset,
    ];
    for bug in bugs {
        for mode in [Mode::Dense, Mode::Projection] {
            let report = check(bug, &[3, 5], mode)?;
            let found = report
                .failures
                .iter()
                .any(|f| matches!(f, Failure::Mismatch { .. }));
            assert!(found, "{bug:?} in {mode:?} mode: {report}");
        }
    }
    Ok(())
}

#[test]
fn a_mismatch_names_tensor_index_and_numbers() -> Result<()> {
    let report = check(Bug::OneElement(7), &[3, 5], Mode::Dense)?;
    let error = report
        .into_result()
        .expect_err("one element is doubled")
        .to_string();
    for part in [
        "gradient of x",
        "[1, 2]",
        "analytic",
        "numeric",
        "error",
        "1 of 15",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    Ok(())
}

#[test]
fn one_wrong_element_in_ten_thousand_is_found_by_projection() -> Result<()> {
    for k in [0, 4_321, 9_999] {
        let report = check(Bug::OneElement(k), &[100, 100], Mode::Auto)?;
        let [Failure::Mismatch { index, .. }] = report.failures.as_slice() else {
            panic!("element {k}: {report}");
        };
        assert_eq!(index, &[k / 100, k % 100]);
        assert!(
            report.evaluations < 200,
            "{} evaluations",
            report.evaluations
        );
    }
    Ok(())
}

#[test]
fn a_missing_gradient_is_an_error_of_its_own() -> Result<()> {
    for mode in [Mode::Dense, Mode::Projection] {
        let report = check(Bug::NoGradient, &[3, 5], mode)?;
        let [
            Failure::Missing {
                tensor, numeric, ..
            },
        ] = report.failures.as_slice()
        else {
            panic!("{mode:?}: {report}");
        };
        assert_eq!(tensor, "x");
        assert!(*numeric != 0.0);
    }
    Ok(())
}

#[test]
fn a_graph_cut_in_the_middle_is_reported_and_does_not_panic() -> Result<()> {
    let x = values(&[3, 5], DType::F64)?;
    let report = GradCheck::new().check(
        |i| (&i[0] * 2.0)?.apply_op1(MeanSquare(Bug::NoGradient)),
        &[x],
    )?;
    assert!(
        matches!(
            report.failures.as_slice(),
            [Failure::BackwardPanicked { .. }]
        ),
        "{report}"
    );
    Ok(())
}

#[test]
fn a_detached_branch_is_missing_where_it_matters_only() -> Result<()> {
    let (x, unused) = (values(&[4], DType::F64)?, values(&[2], DType::F64)?);
    let cut = GradCheck::new().check(
        |i| i[0].detach().sqr()?.sum_all(),
        &[x.clone(), unused.clone()],
    )?;
    assert!(
        matches!(cut.failures.as_slice(), [Failure::Missing { .. }]),
        "{cut}"
    );
    GradCheck::new()
        .check(|i| i[0].sqr()?.sum_all(), &[x, unused])?
        .into_result()?;
    Ok(())
}

#[test]
fn a_gradient_that_is_not_finite_is_an_error_of_its_own() -> Result<()> {
    for mode in [Mode::Dense, Mode::Projection] {
        let report = check(Bug::NotANumber, &[3, 5], mode)?;
        let found = report
            .failures
            .iter()
            .any(|f| matches!(f, Failure::NotFinite { .. }));
        assert!(found, "{mode:?}: {report}");
        assert!(report.max_error().is_nan());
    }
    Ok(())
}

#[test]
fn an_ignored_upstream_gradient_fails_the_linearity_checks_too() -> Result<()> {
    let report = check(Bug::UpstreamIgnored, &[3, 5], Mode::Dense)?;
    assert!(
        report
            .failures
            .iter()
            .any(|f| matches!(f, Failure::ZeroUpstream { .. })),
        "{report}"
    );
    assert!(
        report
            .failures
            .iter()
            .any(|f| matches!(f, Failure::DoubledUpstream { .. })),
        "{report}"
    );
    Ok(())
}

#[test]
fn a_scalar_output_gets_a_non_unit_upstream_gradient() -> Result<()> {
    // With an upstream gradient of 1 this bug would not show.
    let report = check(Bug::UpstreamIgnored, &[1, 5], Mode::Dense)?;
    assert!(
        report
            .failures
            .iter()
            .any(|f| matches!(f, Failure::Mismatch { .. })),
        "{report}"
    );
    Ok(())
}
