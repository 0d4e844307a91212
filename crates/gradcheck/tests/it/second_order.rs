//! Second derivatives, in a process of their own: Candle reads `CANDLE_GRAD_DO_NOT_DETACH` once a thread.

use crate::values;
use candle_core::{DType, Result, Tensor};
use candle_gradcheck::{Failure, GradCheck, second_order_is_available};
use std::process::Command;

const VARIABLE: &str = "CANDLE_GRAD_DO_NOT_DETACH";

/// Runs the test of this name again in a child whose environment has the variable set.
fn again_without_detaching(test: &str) {
    let program = std::env::current_exe().expect("a test has a program");
    let output = Command::new(program)
        .args(["--exact", test])
        .env(VARIABLE, "1")
        .output()
        .expect("the test program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn second_derivatives_are_checked() -> Result<()> {
    if std::env::var_os(VARIABLE).is_none() {
        again_without_detaching("second_order::second_derivatives_are_checked");
        return Ok(());
    }
    assert!(second_order_is_available()?);
    let (x, w) = (values(&[3, 4], DType::F64)?, values(&[4, 2], DType::F64)?);
    let right = |i: &[Tensor]| i[0].matmul(&i[1])?.tanh()?.log_sum_exp(1);
    let report = GradCheck::new()
        .names(["x", "w"])
        .check_second_order(right, &[x.clone(), w])?
        .into_result()?;
    assert_eq!(report.inputs.len(), 3);
    assert_eq!(report.inputs[2].name, "upstream gradient");
    // The first derivative of x^3 is right; its own derivative is that of 2 x d with d = x detached.
    let cube = |i: &[Tensor]| i[0].mul(&i[0].sqr()?);
    GradCheck::new()
        .check_second_order(cube, &[x.clone()])?
        .into_result()?;
    let half_detached = |i: &[Tensor]| {
        let frozen = (i[0].detach().sqr()? * 3.0)?;
        i[0].mul(&frozen)? - (i[0].detach().sqr()?.mul(&i[0].detach())? * 2.0)?
    };
    GradCheck::new()
        .check(|i| i[0].mul(&i[0].sqr()?), &[x.clone()])?
        .into_result()?;
    let report = GradCheck::new().check_second_order(half_detached, &[x])?;
    assert!(
        report
            .failures
            .iter()
            .any(|f| matches!(f, Failure::Missing { .. } | Failure::Mismatch { .. })),
        "{report}"
    );
    Ok(())
}

#[test]
fn a_thread_that_detaches_is_told_what_to_set() -> Result<()> {
    if std::env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    let result = GradCheck::new().check_second_order(|i| i[0].sqr(), &[values(&[3], DType::F64)?]);
    let error = result.expect_err("gradients are detached").to_string();
    assert!(error.contains(VARIABLE), "{error}");
    Ok(())
}
