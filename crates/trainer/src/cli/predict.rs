//! `predict RUN IMAGE...`: the three most probable classes of each image.

use std::path::PathBuf;

use candle_core::{Device, Tensor};
use clap::Args;
use fashion_mnist::{CLASSES, NORMALIZED};
use lenet5::LeNet5;
use serde_json::json;

use super::options::ComputeArgs;
use super::output;
use crate::errors::Result;
use crate::preprocess::{has_bright_border, read_image};
use crate::run_dir::RunDir;

/// How many classes are shown.
const TOP: usize = 3;

/// Classify images (PNG or JPEG): the three most probable classes of each.
///
/// The model knows bright clothes on a black ground, 28 x 28 grey pixels. Images are turned grey and scaled; for dark clothes on
/// a white ground give --invert.
#[derive(Args, Debug)]
pub(super) struct PredictArgs {
    /// The run's folder
    run: PathBuf,
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Exchange black and white before classifying
    #[arg(long)]
    invert: bool,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Print one JSON object on the standard output, everything else on the standard error
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &PredictArgs) -> Result<()> {
    let run = RunDir::open(&args.run)?;
    let (device, _) = args.compute.open()?;
    let (model, weights) = run.load_model(&device)?;
    let mut predictions = Vec::new();
    for path in &args.images {
        let pixels = read_image(path, args.invert)?;
        if has_bright_border(&pixels) {
            tracing::warn!(
                "{}: the border is bright, but the model knows bright clothes on a black ground; {}",
                path.display(),
                if args.invert {
                    "try without --invert"
                } else {
                    "try --invert"
                }
            );
        }
        predictions.push((path, top_classes(&model, &pixels, &device)?));
    }
    if args.json {
        let predictions: Vec<_> = predictions
            .iter()
            .map(|(path, top)| {
                let top: Vec<_> = top
                    .iter()
                    .map(|(class, probability)| {
                        json!({"class": class, "name": CLASSES[*class], "probability": probability})
                    })
                    .collect();
                json!({"image": path, "top": top})
            })
            .collect();
        return output::json(&json!({
            "run_dir": run.path(),
            "weights": weights,
            "predictions": predictions,
        }));
    }
    let mut text = String::new();
    for (path, top) in predictions {
        let top: Vec<_> = top
            .iter()
            .map(|(class, probability)| format!("{} {probability:.4}", CLASSES[*class]))
            .collect();
        text += &format!("{}: {}\n", path.display(), top.join(", "));
    }
    output::text(&text)
}

/// The most probable classes with their probabilities, best first.
fn top_classes(model: &LeNet5, pixels: &[u8], device: &Device) -> Result<Vec<(usize, f64)>> {
    let values: Vec<f32> = pixels
        .iter()
        .map(|&pixel| NORMALIZED[usize::from(pixel)])
        .collect();
    let image = Tensor::from_vec(values, (1, 1, 32, 32), device)?;
    let logits = model.infer(&image)?.flatten_all()?.to_vec1::<f32>()?;
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits
        .iter()
        .map(|logit| f64::from(logit - largest).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    let mut classes: Vec<(usize, f64)> = weights.iter().map(|w| w / sum).enumerate().collect();
    classes.sort_by(|a, b| b.1.total_cmp(&a.1));
    classes.truncate(TOP);
    Ok(classes)
}
