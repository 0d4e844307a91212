//! Layouts, repetition and tracking: what a backward pass owes whatever its numbers.

use crate::{elements, values};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor};
use candle_gradcheck::{Failure, GradCheck, InputLayout};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Squares its input; the backward pass reads the storage as if it were contiguous.
struct ForgetsStrides;

impl CustomOp1 for ForgetsStrides {
    fn name(&self) -> &'static str {
        "forgets-strides"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let squares = elements(storage, layout)?.iter().map(|x| x * x).collect();
        Ok((CpuStorage::F64(squares), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        let (storage, layout) = x.storage_and_layout();
        let candle_core::Storage::Cpu(CpuStorage::F64(data)) = &*storage else {
            candle_core::bail!("x: expected f64")
        };
        let x = Tensor::from_slice(
            &data[..layout.shape().elem_count()],
            layout.shape(),
            &candle_core::Device::Cpu,
        )?;
        Ok(Some((x * 2.0)?.mul(upstream)?))
    }
}

#[test]
fn a_backward_that_forgets_strides_is_caught_by_both_layouts() -> Result<()> {
    for dims in [vec![5], vec![3, 5], vec![2, 3, 4]] {
        let report = GradCheck::new().check(
            |i| i[0].apply_op1(ForgetsStrides),
            &[values(&dims, DType::F64)?],
        )?;
        for wanted in [InputLayout::Transposed, InputLayout::Offset] {
            let found =
                |f: &Failure| matches!(f, Failure::Layout { layout, .. } if *layout == wanted);
            assert!(
                report.failures.iter().any(found),
                "{dims:?} {wanted}: {report}"
            );
        }
    }
    let x = values(&[3, 5], DType::F64)?;
    GradCheck::new()
        .strided(false)
        .check(|i| i[0].apply_op1(ForgetsStrides), &[x])?
        .into_result()?;
    Ok(())
}

#[test]
fn a_function_that_refuses_strides_is_reported() -> Result<()> {
    let refuses = |i: &[Tensor]| {
        if !i[0].is_contiguous() {
            candle_core::bail!("x must be contiguous");
        }
        i[0].sqr()
    };
    let report = GradCheck::new().check(refuses, &[values(&[3, 5], DType::F64)?])?;
    assert!(
        report
            .failures
            .iter()
            .any(|f| matches!(f, Failure::LayoutRefused { .. })),
        "{report}"
    );
    Ok(())
}

/// Identity whose gradient has one bit more at every other call.
struct Drifts(Arc<AtomicUsize>);

impl CustomOp1 for Drifts {
    fn name(&self) -> &'static str {
        "drifts"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((
            CpuStorage::F64(elements(storage, layout)?),
            layout.shape().clone(),
        ))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        let call = self.0.fetch_add(1, Ordering::Relaxed);
        let factor = if call.is_multiple_of(2) {
            1.0
        } else {
            1.0 + f64::EPSILON
        };
        Ok(Some((upstream * factor)?))
    }
}

#[test]
fn a_gradient_that_changes_in_the_last_bit_is_caught() -> Result<()> {
    let calls = Arc::new(AtomicUsize::new(0));
    // A single output, so that the first and the second backward pass are the first two calls.
    let report = GradCheck::new().check(
        |i| i[0].apply_op1(Drifts(calls.clone())),
        &[values(&[1], DType::F64)?],
    )?;
    assert!(
        report
            .failures
            .iter()
            .any(|f| matches!(f, Failure::NotRepeatable { .. })),
        "{report}"
    );
    Ok(())
}

/// A product that doubles the gradient of one argument when the other one is constant.
struct ProductOfTracked;

impl CustomOp2 for ProductOfTracked {
    fn name(&self) -> &'static str {
        "product-of-tracked"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (elements(a, la)?, elements(b, lb)?);
        let product = a.iter().zip(&b).map(|(a, b)| a * b).collect();
        Ok((CpuStorage::F64(product), la.shape().clone()))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let both = a.track_op() && b.track_op();
        let factor = if both { 1.0 } else { 2.0 };
        Ok((Some((g.mul(b)? * factor)?), Some((g.mul(a)? * factor)?)))
    }
}

#[test]
fn a_gradient_that_depends_on_what_else_is_tracked_is_caught() -> Result<()> {
    let (a, b) = (values(&[3, 2], DType::F64)?, values(&[3, 2], DType::F64)?);
    let report = GradCheck::new().check(|i| i[0].apply_op2(&i[1], ProductOfTracked), &[a, b])?;
    assert!(
        report
            .failures
            .iter()
            .any(|f| matches!(f, Failure::DependsOnTracking { .. })),
        "{report}"
    );
    Ok(())
}

#[test]
fn a_gradient_in_the_wrong_shape_is_caught() -> Result<()> {
    struct Flattens;
    impl CustomOp1 for Flattens {
        fn name(&self) -> &'static str {
            "flattens"
        }
        fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
            Drifts(Arc::default()).cpu_fwd(storage, layout)
        }
        fn bwd(&self, _: &Tensor, _: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
            Ok(Some(upstream.flatten_all()?))
        }
    }
    // Candle itself refuses to add a gradient of another shape: the check hands that error on.
    let result = GradCheck::new().check(
        |i| i[0].apply_op1(Flattens),
        &[values(&[3, 2], DType::F64)?],
    );
    let error = result.expect_err("the shapes differ").to_string();
    assert!(error.contains("shape mismatch"), "{error}");
    Ok(())
}
