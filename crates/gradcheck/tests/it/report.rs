//! The report reads well and its error carries every finding.

use crate::values;
use candle_core::{DType, Result, Tensor};
use candle_gradcheck::GradCheck;

#[test]
fn a_report_is_a_table_with_a_line_an_input() -> Result<()> {
    let inputs = [values(&[3, 5], DType::F64)?, values(&[300], DType::F64)?];
    let report = GradCheck::new().names(["logits"]).check(
        |i| i[0].exp()?.sum_all()?.broadcast_mul(&i[1].sqr()?),
        &inputs,
    )?;
    let text = report.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(
        lines[1].starts_with("logits") && lines[1].contains("dense"),
        "{text}"
    );
    assert!(
        lines[2].starts_with("input 1") && lines[2].contains("projection"),
        "{text}"
    );
    assert!(lines[3].starts_with("passed after"), "{text}");
    assert!(report.max_error() < 1e-6);
    Ok(())
}

#[test]
fn the_error_becomes_a_candle_error() -> Result<()> {
    let wrong = |i: &[Tensor]| i[0].sqr()? + i[0].detach();
    let report = GradCheck::new().check(wrong, &[values(&[2], DType::F64)?])?;
    assert!(report.to_string().contains("FAILED"), "{report}");
    let through_candle = || -> Result<()> {
        report.into_result()?;
        Ok(())
    };
    let error = through_candle()
        .expect_err("the gradient is wrong")
        .to_string();
    assert!(
        error.contains("gradient check failed: gradient of input 0 at"),
        "{error}"
    );
    Ok(())
}
