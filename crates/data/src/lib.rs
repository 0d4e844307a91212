//! Fashion-MNIST for Candle: find, fetch, verify, decode, resize, shuffle and batch.
//!
//! ```no_run
//! use candle_core::{DType, Device};
//! use fashion_mnist::{SearchOptions, batches, find_or_fetch, shuffle};
//!
//! let data = find_or_fetch(&SearchOptions::from_environment())?.load()?;
//! let (seed, epoch) = (0, 1);
//! let order = shuffle(seed, epoch, data.train.len());
//! for batch in batches(order.len(), 128) {
//!     let (images, labels) = data.train.batch(&order[batch], DType::F32, &Device::Cpu)?;
//!     // images: (N, 1, 32, 32) in -1..=1; labels: u32 (N)
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What the crate holds to:
//!
//! - Data is trusted by checksum alone, on every load, wherever it came from.
//! - Each way in which a file can be wrong has a variant of [`DataError`] that names path, expected and found.
//! - A header is checked before memory is set aside for what it promises.
//! - The cache receives complete, verified files by rename: a partial download never counts as data.
//! - Images are the same bytes that torchvision's `Resize(32)` gives, and batches the same f32 values.

#![deny(missing_docs)]

mod describe;
mod error;
pub mod fetch;
pub mod idx;
mod load;
mod locate;
mod part;
mod resize;
mod shuffle;
mod split;

pub use describe::FileInfo;
pub use error::{Attempt, DataError};
pub use fetch::{fetch, find_or_fetch};
pub use load::{FashionMnist, load, load_unverified};
pub use locate::{DEBIAN_DIR, DIR_VARIABLE, Location, SearchOptions, SourceKind, find};
pub use part::Part;
pub use resize::{MAX_SIDE, Resizer, resize, resize_28_to_32, resize_all_28_to_32};
pub use shuffle::{batches, shuffle};
pub use split::{CLASSES, NORMALIZED, PIXELS, SIDE, Split};
