//! The whole LeNet-5 with its loss: one case for every parameter and one for the images.

use super::inputs::{targets, values};
use crate::case::Case;
use candle_core::{DType, Tensor};
use candle_gradcheck::GradCheck;
use lenet5::{Forward, LeNet5, PARAMETERS};

/// Images a batch: two, so that the mean of the loss counts.
const IMAGES: usize = 2;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (form, forward) in [("fused", Forward::Fused), ("composed", Forward::Composed)] {
        for dtype in [DType::F64, DType::F32] {
            let names = PARAMETERS.iter().map(|spec| spec.name).chain(["images"]);
            for (input, parameter) in names.enumerate() {
                let name = format!("lenet5/{form}/{parameter}/{}", dtype.as_str());
                cases.push(Case::new(name, "lenet5", dtype, move |device| {
                    let model = LeNet5::new(1, dtype, device)?.with_forward(forward);
                    let mut inputs: Vec<Tensor> = model
                        .parameters()
                        .iter()
                        .map(|(_, var)| var.as_detached_tensor())
                        .collect();
                    inputs.push(values(&[IMAGES, 1, 32, 32], dtype, 7, device)?);
                    let labels = targets(&[IMAGES], 10, None, device)?;
                    let loss = |i: &[Tensor]| {
                        let (parameters, images) = i.split_at(PARAMETERS.len());
                        let logits = model.forward_with(&images[0], parameters)?;
                        candle_losses::cross_entropy(&logits, &labels)
                    };
                    let all = PARAMETERS.iter().map(|spec| spec.name).chain(["images"]);
                    Ok(GradCheck::new()
                        .names(all)
                        .differentiable([input])
                        .check(loss, &inputs)?
                        .into())
                }));
            }
        }
    }
    cases
}
