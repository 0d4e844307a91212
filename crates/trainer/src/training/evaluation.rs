//! Exact accuracy: every image of a split is classified and counted.

use fashion_mnist::Split;
use lenet5::LeNet5;

use super::batches::BatchBuffer;
use crate::errors::Result;
use crate::metrics::Confusion;

/// Images a forward pass: large enough that its fixed cost does not show, small enough for the cache and for memory.
const BATCH: usize = 500;

/// Classifies all images of `split` by the largest logit, the first among equals. `None` when `stop` became true on the way.
///
/// # Errors
/// When the forward pass fails.
pub fn evaluate(
    model: &LeNet5,
    split: &Split,
    stop: impl Fn() -> bool,
) -> Result<Option<Confusion>> {
    let mut confusion = Confusion::default();
    let mut buffer = BatchBuffer::new(model.device());
    let order: Vec<u32> = (0..split.len() as u32).collect();
    for indices in order.chunks(BATCH) {
        if stop() {
            return Ok(None);
        }
        let (images, _) = buffer.fill(split, indices)?;
        let logits = model.infer(&images)?.flatten_all()?.to_vec1::<f32>()?;
        for (&index, logits) in indices.iter().zip(logits.chunks_exact(10)) {
            confusion.add(usize::from(split.labels()[index as usize]), argmax(logits));
        }
    }
    Ok(Some(confusion))
}

fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}
