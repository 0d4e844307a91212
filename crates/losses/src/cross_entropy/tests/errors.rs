//! Every bad argument gets an error that names it, what was expected, what came, and what to do.

use candle_core::{DType, Device, Result, Tensor, Var};

use crate::{CrossEntropy, Reduction};

fn logits() -> Tensor {
    Tensor::new(&[[1f32, 2., 3.], [3., 2., 1.]], &Device::Cpu).unwrap()
}

fn targets() -> Tensor {
    Tensor::new(&[0u32, 2], &Device::Cpu).unwrap()
}

/// The message of each form that takes indices.
fn messages(options: &CrossEntropy, logits: &Tensor, targets: &Tensor) -> Vec<String> {
    let message = |result: Result<()>| result.expect_err("accepted").to_string();
    vec![
        message(options.forward(logits, targets).map(drop)),
        message(options.composed(logits, targets).map(drop)),
        message(options.forward_with_outputs(logits, targets).map(drop)),
        message(options.value_and_grad(logits, targets).map(drop)),
        message(
            options
                .value_and_grad_in_place(logits.clone(), targets)
                .map(drop),
        ),
    ]
}

#[track_caller]
fn expect(options: &CrossEntropy, logits: &Tensor, targets: &Tensor, parts: &[&str]) {
    for message in messages(options, logits, targets) {
        for part in parts {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    }
}

#[test]
fn a_target_out_of_range_names_row_value_and_classes() -> Result<()> {
    for (value, options) in [
        (3i64, CrossEntropy::new()),
        (-1, CrossEntropy::new()),
        (-100, CrossEntropy::new().ignore_index(-1)),
    ] {
        let targets = Tensor::new(&[0, value], &Device::Cpu)?;
        expect(
            &options,
            &logits(),
            &targets,
            &[
                "row 1",
                &value.to_string(),
                "3 classes",
                "0 to 2",
                "ignore_index",
            ],
        );
    }
    let far = Tensor::new(&[i64::MAX, i64::MIN], &Device::Cpu)?;
    expect(
        &CrossEntropy::new(),
        &logits(),
        &far,
        &["row 0", "9223372036854775807"],
    );
    let byte = Tensor::new(&[1u8, 255], &Device::Cpu)?;
    expect(&CrossEntropy::new(), &logits(), &byte, &["row 1", "255"]);
    Ok(())
}

#[test]
fn the_first_wrong_row_is_named_far_into_a_large_batch() -> Result<()> {
    let rows = 100_000;
    let mut values = vec![1u32; rows];
    values[70_007] = 9;
    values[90_000] = 8;
    let logits = Tensor::zeros((rows, 3), DType::F32, &Device::Cpu)?;
    let targets = Tensor::from_vec(values, rows, &Device::Cpu)?;
    let message = crate::cross_entropy(&logits, &targets)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("row 70007") && message.contains("got 9"),
        "{message}"
    );
    Ok(())
}

#[test]
fn logits_of_a_wrong_rank_dtype_or_without_classes_are_named() -> Result<()> {
    let o = CrossEntropy::new();
    let scalar = Tensor::new(1f32, &Device::Cpu)?;
    expect(
        &o,
        &scalar,
        &targets(),
        &["logits", "(batch, classes)", "shape []"],
    );
    expect(
        &o,
        &logits().to_dtype(DType::U32)?,
        &targets(),
        &["logits", "f32, f64, f16 or bf16", "u32", "to_dtype"],
    );
    let none = Tensor::zeros((2, 0), DType::F32, &Device::Cpu)?;
    expect(
        &o,
        &none,
        &targets(),
        &["logits", "at least one class", "[2, 0]"],
    );
    Ok(())
}

#[test]
fn targets_of_a_wrong_dtype_or_shape_are_named() -> Result<()> {
    let o = CrossEntropy::new();
    let float = targets().to_dtype(DType::F32)?;
    expect(
        &o,
        &logits(),
        &float,
        &[
            "targets",
            "u8, u32, i16, i32 or i64",
            "f32",
            "forward_probabilities",
        ],
    );
    let long = Tensor::new(&[0u32, 1, 2], &Device::Cpu)?;
    expect(
        &o,
        &logits(),
        &long,
        &[
            "targets",
            "shape [2] for logits of shape [2, 3]",
            "[3]",
            "class axis",
        ],
    );
    let volume = Tensor::zeros((2, 3, 4), DType::F32, &Device::Cpu)?;
    expect(&o, &volume, &targets(), &["targets", "[2, 4]", "[2]"]);
    Ok(())
}

#[test]
fn a_weight_of_a_wrong_length_or_dtype_is_named() -> Result<()> {
    let o = CrossEntropy::new().weight(Tensor::new(&[1f32, 2.], &Device::Cpu)?);
    expect(
        &o,
        &logits(),
        &targets(),
        &["weight", "[3]", "one weight a class", "[2]"],
    );
    let o = CrossEntropy::new().weight(Tensor::new(&[1u32, 2, 3], &Device::Cpu)?);
    expect(&o, &logits(), &targets(), &["weight", "float", "u32"]);
    Ok(())
}

#[test]
fn numbers_out_of_their_range_are_named() {
    let (x, t) = (logits(), targets());
    for bad in [-0.1, 1.1, f64::NAN] {
        expect(
            &CrossEntropy::new().label_smoothing(bad),
            &x,
            &t,
            &["label_smoothing", "[0, 1]", &bad.to_string()],
        );
    }
    for bad in [f64::INFINITY, f64::NAN] {
        expect(
            &CrossEntropy::new().logit_scale(bad),
            &x,
            &t,
            &["logit_scale", "finite", &bad.to_string()],
        );
    }
    for bad in [0.0, -5.0, f64::INFINITY, f64::NAN] {
        expect(
            &CrossEntropy::new().softcap(bad),
            &x,
            &t,
            &["softcap", "above 0", &bad.to_string()],
        );
    }
    for bad in [-1e-4, f64::INFINITY, f64::NAN] {
        expect(
            &CrossEntropy::new().z_loss(bad),
            &x,
            &t,
            &["z_loss", "at least 0", &bad.to_string()],
        );
    }
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        expect(
            &CrossEntropy::new().num_items(bad),
            &x,
            &t,
            &["num_items", "above 0", &bad.to_string()],
        );
    }
    let none = CrossEntropy::new()
        .num_items(4.0)
        .reduction(Reduction::None);
    expect(
        &none,
        &x,
        &t,
        &["num_items", "Reduction::None", "4", "Mean"],
    );
}

#[test]
fn probabilities_of_a_wrong_shape_or_dtype_or_with_ignore_index_are_named() -> Result<()> {
    let probabilities = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?;
    let check = |o: &CrossEntropy, t: &Tensor, parts: &[&str]| {
        for result in [
            o.forward_probabilities(&logits(), t),
            o.composed_probabilities(&logits(), t),
            o.value_and_grad_probabilities(&logits(), t)
                .map(|pair| pair.0),
        ] {
            let message = result.unwrap_err().to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    };
    let o = CrossEntropy::new();
    check(
        &o.clone().ignore_index(-100),
        &probabilities,
        &["ignore_index", "probabilities", "-100"],
    );
    check(&o, &targets(), &["probabilities", "f32", "u32", "forward"]);
    check(
        &o,
        &probabilities.to_dtype(DType::F64)?,
        &["probabilities", "dtype of the logits, f32", "f64"],
    );
    check(
        &o,
        &probabilities.narrow(0, 0, 1)?,
        &["probabilities", "[2, 3]", "[1, 3]"],
    );
    Ok(())
}

#[test]
fn only_free_logits_are_overwritten() -> Result<()> {
    let o = CrossEntropy::new();
    let var = Var::from_tensor(&logits())?;
    let message = o
        .value_and_grad_in_place(var.as_tensor().clone(), &targets())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("logits") && message.contains("detach"),
        "{message}"
    );
    let message = o
        .value_and_grad_in_place((var.as_tensor() * 2.0)?, &targets())
        .unwrap_err()
        .to_string();
    assert!(message.contains("graph"), "{message}");
    let broadcast = Tensor::zeros(3, DType::F32, &Device::Cpu)?.broadcast_as((2, 3))?;
    let message = o
        .value_and_grad_in_place(broadcast, &targets())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("logits") && message.contains("contiguous"),
        "{message}"
    );
    Ok(())
}

#[test]
fn logits_survive_an_error_in_place() -> Result<()> {
    let x = logits();
    let wrong = Tensor::new(&[0u32, 3], &Device::Cpu)?;
    assert!(
        CrossEntropy::new()
            .value_and_grad_in_place(x.clone(), &wrong)
            .is_err()
    );
    assert_eq!(x.to_vec2::<f32>()?, logits().to_vec2::<f32>()?);
    Ok(())
}
