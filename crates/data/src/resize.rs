//! Bilinear resizing of grey u8 images, bit for bit as Pillow and torchvision do it.
//!
//! Two passes, horizontal first, each in fixed point with u8 between them. For output position `x` of a pass from `n` to
//! `m` pixels: `scale = n / m`, the triangle's half width is `s = max(scale, 1)` (so that shrinking averages), its centre
//! `c = (x + 0.5) scale`, its taps run from `int(c - s + 0.5)` (at least 0) up to `int(c + s + 0.5)` (at most `n`), its
//! weights `1 - |(i + 0.5 - c) / s|` are normalised in f64 and rounded to 22 fractional bits, and the pixel is
//! `clip((sum + 2^21) >> 22)`. Source: Pillow's `Resample.c`; Pillow 11.3 gives the same bytes for every size tested.
//! Pillow 13 goes vertically first for some shapes, never for square images; that moves single pixels by one.

use crate::error::DataError;
use std::num::NonZeroUsize;

/// Pillow's `PRECISION_BITS`: 32 bits less 8 for the pixel and 2 for overshoot.
const FRACTION_BITS: u32 = 22;
const HALF: i32 = 1 << (FRACTION_BITS - 1);

/// Largest width and height taken, far beyond any image for this model; it keeps every product of sizes in range.
pub const MAX_SIDE: usize = 1 << 14;

/// The taps of one output position: `weights` over the inputs from `first`.
#[derive(Clone, Debug)]
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

fn taps(input: usize, output: usize) -> Vec<Taps> {
    let scale = input as f64 / output as f64;
    let support = scale.max(1.0);
    (0..output)
        .map(|x| {
            let centre = (x as f64 + 0.5) * scale;
            // `as usize` clamps below at 0 and otherwise truncates as C's cast does.
            let first = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(input);
            let weights: Vec<f64> = (first..end)
                .map(|i| {
                    let distance = (i as f64 - centre + 0.5) * (1.0 / support);
                    (1.0 - distance.abs()).max(0.0)
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            let unit = f64::from(1u32 << FRACTION_BITS);
            let weights = weights
                .iter()
                .map(|weight| (0.5 + weight / sum * unit) as i32)
                .collect();
            Taps { first, weights }
        })
        .collect()
}

fn clip(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// A resizer from one size to another, with its taps computed once.
///
/// # Examples
/// ```
/// use fashion_mnist::Resizer;
///
/// let resizer = Resizer::new((28, 28), (32, 32))?;
/// let grey = vec![77u8; 28 * 28];
/// assert_eq!(resizer.resize(&grey)?, vec![77u8; 32 * 32]);
/// # Ok::<(), fashion_mnist::DataError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Resizer {
    input: (usize, usize),
    output: (usize, usize),
    columns: Vec<Taps>,
    rows: Vec<Taps>,
}

impl Resizer {
    /// A resizer from `input` to `output`, both `(width, height)` in pixels.
    ///
    /// # Errors
    /// [`DataError::UnsupportedImageSize`] for a size of 0 or above [`MAX_SIDE`].
    pub fn new(input: (usize, usize), output: (usize, usize)) -> Result<Self, DataError> {
        for (argument, found) in [
            ("input width", input.0),
            ("input height", input.1),
            ("output width", output.0),
            ("output height", output.1),
        ] {
            if found == 0 || found > MAX_SIDE {
                return Err(DataError::UnsupportedImageSize {
                    argument,
                    cap: MAX_SIDE,
                    found,
                });
            }
        }
        Ok(Resizer {
            input,
            output,
            columns: taps(input.0, output.0),
            rows: taps(input.1, output.1),
        })
    }

    /// Resizes one row-major grey image.
    ///
    /// # Errors
    /// [`DataError::WrongLength`] if `image` is not width x height of the input size long.
    pub fn resize(&self, image: &[u8]) -> Result<Vec<u8>, DataError> {
        let (width, height) = self.input;
        check_len("image", width * height, image.len())?;
        let (out_width, _) = self.output;

        let mut narrow = Vec::with_capacity(out_width * height);
        for row in image.chunks_exact(width) {
            narrow.extend(self.columns.iter().map(|taps| {
                let pixels = &row[taps.first..];
                let sum: i32 = pixels
                    .iter()
                    .zip(&taps.weights)
                    .map(|(pixel, weight)| i32::from(*pixel) * weight)
                    .sum();
                clip(HALF + sum)
            }));
        }
        let mut sums = vec![0; out_width];
        Ok(self
            .rows
            .iter()
            .flat_map(|taps| {
                sums.fill(HALF);
                let rows = narrow[taps.first * out_width..].chunks_exact(out_width);
                for (row, weight) in rows.zip(&taps.weights) {
                    for (sum, pixel) in sums.iter_mut().zip(row) {
                        *sum += i32::from(*pixel) * weight;
                    }
                }
                sums.iter().map(|sum| clip(*sum)).collect::<Vec<_>>()
            })
            .collect())
    }
}

/// Resizes one row-major grey image between two sizes `(width, height)`.
///
/// # Errors
/// Those of [`Resizer::new`] and [`Resizer::resize`].
pub fn resize(
    image: &[u8],
    input: (usize, usize),
    output: (usize, usize),
) -> Result<Vec<u8>, DataError> {
    Resizer::new(input, output)?.resize(image)
}

fn check_len(argument: &'static str, expected: usize, found: usize) -> Result<(), DataError> {
    if found == expected {
        Ok(())
    } else {
        Err(DataError::WrongLength {
            argument,
            expected,
            found,
        })
    }
}

const FROM: usize = 28;
const TO: usize = 32;

/// Growing from 28 to 32 repeats itself every 7 inputs and 8 outputs: output `8 g + k` mixes the inputs `7 g + k - 1` and
/// `7 g + k`. With one pixel of padding in front and behind, both are contiguous runs of 8.
const PERIOD: (usize, usize) = (7, 8);

/// The mixing weights of each output position.
///
/// They are whole sixteenths, since `scale` is 7 / 8 and no position has more than two taps. The 22 fractional bits of
/// the general form therefore reduce to 4 without loss, and 16-bit arithmetic, of which every processor does eight at a
/// time, gives the same bytes.
struct Upscale {
    weights: [[u16; 2]; TO],
}

impl Upscale {
    const SIXTEENTH: u32 = FRACTION_BITS - 4;

    fn new() -> Self {
        let mut weights = [[0; 2]; TO];
        for (x, taps) in taps(FROM, TO).into_iter().enumerate() {
            for (i, weight) in taps.weights.into_iter().enumerate() {
                debug_assert_eq!(weight & ((1 << Self::SIXTEENTH) - 1), 0);
                // One more than the input's position, because of the padding in front.
                let padded = taps.first + i + 1;
                weights[x][padded - left(x)] += (weight >> Self::SIXTEENTH) as u16;
            }
        }
        Upscale { weights }
    }

    fn resize(&self, image: &[u8; FROM * FROM], output: &mut [u8; TO * TO]) {
        // Rows with the padding on all sides; what it holds has weight 0.
        let mut narrow = [[0u8; TO]; FROM + 2];
        for (row, narrow) in image.as_chunks::<FROM>().0.iter().zip(&mut narrow[1..]) {
            let mut padded = [0u8; FROM + 2];
            padded[1..=FROM].copy_from_slice(row);
            let groups = narrow.as_chunks_mut::<{ PERIOD.1 }>().0.iter_mut();
            let weights = self.weights.as_chunks::<{ PERIOD.1 }>().0;
            for (group, (narrow, weights)) in groups.zip(weights).enumerate() {
                let inputs = &padded[group * PERIOD.0..][..=PERIOD.1];
                for k in 0..PERIOD.1 {
                    narrow[k] = mix(inputs[k], inputs[k + 1], weights[k]);
                }
            }
        }
        let rows = output.as_chunks_mut::<TO>().0.iter_mut();
        for (y, (output, weights)) in rows.zip(self.weights).enumerate() {
            let (above, below) = (&narrow[left(y)], &narrow[left(y) + 1]);
            for ((pixel, above), below) in output.iter_mut().zip(above).zip(below) {
                *pixel = mix(*above, *below, weights);
            }
        }
    }
}

/// Position in the padded input of the first of the two pixels that output `x` mixes.
fn left(x: usize) -> usize {
    x / PERIOD.1 * PERIOD.0 + x % PERIOD.1
}

fn mix(first: u8, second: u8, weights: [u16; 2]) -> u8 {
    ((u16::from(first) * weights[0] + u16::from(second) * weights[1] + 8) >> 4) as u8
}

/// Resizes one 28 x 28 image to 32 x 32, as every image of the data set is.
pub fn resize_28_to_32(image: &[u8; FROM * FROM]) -> [u8; TO * TO] {
    let mut output = [0; TO * TO];
    Upscale::new().resize(image, &mut output);
    output
}

/// Resizes images of 28 x 28 that lie one after the other, on all cores. The result does not depend on their number.
///
/// # Errors
/// [`DataError::WrongLength`] if `images` is not a multiple of 784 long.
pub fn resize_all_28_to_32(images: &[u8]) -> Result<Vec<u8>, DataError> {
    let (images, rest) = images.as_chunks::<{ FROM * FROM }>();
    if !rest.is_empty() {
        let found = images.len() * FROM * FROM + rest.len();
        check_len("images", images.len() * FROM * FROM, found)?;
    }
    let upscale = Upscale::new();
    let mut output = vec![0; images.len() * TO * TO];
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let share = images.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let outputs = output.as_chunks_mut::<{ TO * TO }>().0.chunks_mut(share);
        for (images, outputs) in images.chunks(share).zip(outputs) {
            let upscale = &upscale;
            scope.spawn(move || {
                for (image, output) in images.iter().zip(outputs) {
                    upscale.resize(image, output);
                }
            });
        }
    });
    Ok(output)
}
