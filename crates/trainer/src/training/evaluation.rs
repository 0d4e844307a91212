//! Exact accuracy: every image of a split is classified and counted.

use fashion_mnist::Split;
use lenet5::LeNet5;
use rayon::prelude::*;

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
    stop: impl Fn() -> bool + Sync,
) -> Result<Option<Confusion>> {
    let order: Vec<u32> = (0..split.len() as u32).collect();
    let batch = |buffer: &mut BatchBuffer, indices: &[u32]| -> Result<Option<Confusion>> {
        if stop() {
            return Ok(None);
        }
        let (images, _) = buffer.fill(split, indices)?;
        let logits = model.infer(&images)?.flatten_all()?.to_vec1::<f32>()?;
        let mut confusion = Confusion::default();
        for (&index, logits) in indices.iter().zip(logits.chunks_exact(10)) {
            confusion.add(usize::from(split.labels()[index as usize]), argmax(logits));
        }
        Ok(Some(confusion))
    };
    let merge = |a: Option<Confusion>, b: Option<Confusion>| a.zip(b).map(|(a, b)| a.merged(b));
    let buffer = || BatchBuffer::new(model.device());
    if !model.device().is_cpu() {
        // All on this thread: Candle gives each a stream of its own on a GPU, and nothing orders them after the one that wrote
        // the weights.
        let mut buffer = buffer();
        return (order.chunks(BATCH)).try_fold(
            Some(Confusion::default()),
            |sum, indices| match sum {
                Some(_) => Ok(merge(sum, batch(&mut buffer, indices)?)),
                None => Ok(None),
            },
        );
    }
    // Batches side by side, each by one thread; counts are the same in any order.
    order
        .par_chunks(BATCH)
        .map_init(buffer, batch)
        .try_reduce_with(|a, b| Ok(merge(a, b)))
        .unwrap_or_else(|| Ok(Some(Confusion::default())))
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
