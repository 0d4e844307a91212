//! Planes to pixels and back: the elements of N streams in turn, as the channels of pixels that are neighbours.
//!
//! With AVX-512 a vector of the result is picked together from a vector of each stream, N - 1 instructions; elsewhere two loads,
//! a pick and a blend would take longer than the elements one by one, for which the compiler shuffles vectors where N is known.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use candle_simd::{Float, Isa, LaneNumbers, MAX_LANES, Simd, Vector};

/// Rows to interleave streams to.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) count: usize,
    /// Elements of each stream in a row.
    pub(super) width: usize,
    /// Elements from the start of one to that of the next.
    pub(super) step: usize,
    /// Streams come in so many groups of so many.
    pub(super) streams: (usize, usize),
}

/// `row y[(x * groups + g) * in_group + n] = stream(y, g, n)[x]`, 0 where there is no such stream.
#[inline(always)]
pub(super) fn interleave<'a, F: Float, S: Simd>(
    s: S,
    to: &mut [F],
    rows: Rows,
    stream: impl Fn(usize, usize, usize) -> Option<&'a [F]>,
) {
    match rows.streams.0 * rows.streams.1 {
        1 => interleave_rows::<F, S, 1>(s, to, rows, stream),
        2 => interleave_rows::<F, S, 2>(s, to, rows, stream),
        3 => interleave_rows::<F, S, 3>(s, to, rows, stream),
        4 => interleave_rows::<F, S, 4>(s, to, rows, stream),
        6 => interleave_rows::<F, S, 6>(s, to, rows, stream),
        8 => interleave_rows::<F, S, 8>(s, to, rows, stream),
        _ => {
            for y in 0..rows.count {
                interleave_any(&mut to[y * rows.step..], rows, |g, n| stream(y, g, n));
            }
        }
    }
}

#[inline(always)]
fn interleave_rows<'a, F: Float, S: Simd, const N: usize>(
    s: S,
    to: &mut [F],
    rows: Rows,
    stream: impl Fn(usize, usize, usize) -> Option<&'a [F]>,
) {
    for y in 0..rows.count {
        let row = &mut to[y * rows.step..][..rows.width * N];
        let mut streams: [&[F]; N] = [&[]; N];
        let mut whole = true;
        let mut to = streams.iter_mut();
        for g in 0..rows.streams.0 {
            for (n, to) in (&mut to).take(rows.streams.1).enumerate() {
                match stream(y, g, n) {
                    Some(from) => *to = from,
                    None => whole = false,
                }
            }
        }
        if whole {
            interleave_streams(s, row, streams);
        } else {
            interleave_any(row, rows, |g, n| stream(y, g, n));
        }
    }
}

#[inline(always)]
fn interleave_streams<F: Float, S: Simd, const N: usize>(
    s: S,
    row: &mut [F],
    mut streams: [&[F]; N],
) {
    let width = row.len() / N;
    for from in &mut streams {
        *from = &from[..width];
    }
    let done = match S::ISA == Isa::Avx512 && N > 1 {
        true => interleave_vectors(s, row, &streams),
        false => 0,
    };
    for (x, pixel) in row.chunks_exact_mut(N).enumerate().skip(done) {
        for (to, from) in pixel.iter_mut().zip(&streams) {
            *to = from[x];
        }
    }
}

/// The whole vectors of each stream; returns how many elements of each these are.
#[inline(always)]
fn interleave_vectors<F: Float, S: Simd, const N: usize>(
    s: S,
    row: &mut [F],
    streams: &[&[F]; N],
) -> usize {
    let lanes = F::V::<S>::LANES;
    let numbers = &Numbers::<F::V<S>, N>::OF_ROW;
    let mut done = 0;
    for row in row.chunks_exact_mut(N * lanes) {
        let mut vectors = [F::V::<S>::splat(s, F::ZERO); N];
        for (vector, stream) in vectors.iter_mut().zip(streams) {
            *vector = F::V::<S>::load(s, &stream[done..]);
        }
        for (numbers, row) in numbers.iter().zip(row.chunks_exact_mut(lanes)) {
            picked(&vectors, numbers).store(row);
        }
        done += lanes;
    }
    done
}

#[inline(always)]
fn interleave_any<'a, F: Float>(
    row: &mut [F],
    rows: Rows,
    stream: impl Fn(usize, usize) -> Option<&'a [F]>,
) {
    let (groups, in_group) = rows.streams;
    let count = groups * in_group;
    let row = &mut row[..rows.width * count];
    for g in 0..groups {
        for n in 0..in_group {
            let elements = row[g * in_group + n..].iter_mut().step_by(count);
            match stream(g, n) {
                Some(from) => elements.zip(from).for_each(|(to, &x)| *to = x),
                None => elements.for_each(|to| *to = F::ZERO),
            }
        }
    }
}

/// Where the pixels of a row go: element `first + x` of a plane for each channel.
pub(super) struct Planes<'a, F> {
    pub(super) image: &'a mut [MaybeUninit<F>],
    pub(super) plane: usize,
    pub(super) first: usize,
}

/// The inverse of [`interleave`]: `planes[n][x] = row[x * count + n]`.
#[inline(always)]
pub(super) fn part<F: Float, S: Simd>(s: S, row: &[F], count: usize, to: Planes<'_, F>) {
    match count {
        1 => part_streams::<F, S, 1>(s, row, to),
        2 => part_streams::<F, S, 2>(s, row, to),
        3 => part_streams::<F, S, 3>(s, row, to),
        4 => part_streams::<F, S, 4>(s, row, to),
        6 => part_streams::<F, S, 6>(s, row, to),
        8 => part_streams::<F, S, 8>(s, row, to),
        _ => part_any(row, count, to),
    }
}

#[inline(always)]
fn part_streams<F: Float, S: Simd, const N: usize>(s: S, row: &[F], to: Planes<'_, F>) {
    let width = row.len() / N;
    let mut planes = to.image.chunks_exact_mut(to.plane.max(1));
    let mut planes: [&mut [MaybeUninit<F>]; N] = std::array::from_fn(|_| {
        let plane = planes.next().unwrap_or_default();
        &mut plane[to.first..to.first + width]
    });
    let done = match S::ISA == Isa::Avx512 && N > 1 {
        true => part_vectors(s, row, &mut planes),
        false => 0,
    };
    for (x, pixel) in row.chunks_exact(N).enumerate().skip(done) {
        for (plane, &value) in planes.iter_mut().zip(pixel) {
            plane[x].write(value);
        }
    }
}

/// The whole vectors of each plane; returns how many elements of each these are.
#[inline(always)]
fn part_vectors<F: Float, S: Simd, const N: usize>(
    s: S,
    row: &[F],
    planes: &mut [&mut [MaybeUninit<F>]; N],
) -> usize {
    let lanes = F::V::<S>::LANES;
    let numbers = &Numbers::<F::V<S>, N>::OF_PLANES;
    let mut done = 0;
    for row in row.chunks_exact(N * lanes) {
        let mut vectors = [F::V::<S>::splat(s, F::ZERO); N];
        for (vector, row) in vectors.iter_mut().zip(row.chunks_exact(lanes)) {
            *vector = F::V::<S>::load(s, row);
        }
        for (numbers, plane) in numbers.iter().zip(&mut *planes) {
            let to = plane[done..done + lanes].as_mut_ptr().cast();
            // SAFETY: a vector's elements of the plane start there.
            unsafe { picked(&vectors, numbers).store_ptr(to) };
        }
        done += lanes;
    }
    done
}

#[inline(always)]
fn part_any<F: Float>(row: &[F], channels: usize, to: Planes<'_, F>) {
    let planes = to.image.chunks_exact_mut(to.plane.max(1));
    for (c, plane) in planes.enumerate() {
        for (to, pixel) in plane[to.first..].iter_mut().zip(row.chunks_exact(channels)) {
            to.write(pixel[c]);
        }
    }
}

/// One vector out of lanes of N. `numbers[n]` picks from what came of the vectors before n, and vector n.
#[inline(always)]
fn picked<V: Vector, const N: usize>(vectors: &[V; N], numbers: &[LaneNumbers; N]) -> V {
    let mut picked = vectors[0];
    for n in 1..N {
        picked = picked.pick(vectors[n], &numbers[n]);
    }
    picked
}

/// What [`picked`] takes for N streams.
struct Numbers<V, const N: usize>(PhantomData<V>);

impl<V: Vector, const N: usize> Numbers<V, N> {
    /// For each vector of a row of pixels, of a vector of each stream.
    const OF_ROW: [[LaneNumbers; N]; N] = Self::numbers(false);

    /// For a vector of each plane, of the vectors of a row of pixels.
    const OF_PLANES: [[LaneNumbers; N]; N] = Self::numbers(true);

    const fn numbers(of_planes: bool) -> [[LaneNumbers; N]; N] {
        let mut numbers = [[LaneNumbers([0; MAX_LANES]); N]; N];
        let mut result = 0;
        while result < N {
            let mut lane = 0;
            while lane < V::LANES {
                let (vector, from) = if of_planes {
                    let at = lane * N + result;
                    (at / V::LANES, at % V::LANES)
                } else {
                    let at = result * V::LANES + lane;
                    (at % N, at / N)
                };
                take::<V, N>(&mut numbers[result], lane, vector, from);
                lane += 1;
            }
            result += 1;
        }
        numbers
    }
}

/// Lets `lane` come of lane `from` of that vector.
const fn take<V: Vector, const N: usize>(
    numbers: &mut [LaneNumbers; N],
    lane: usize,
    vector: usize,
    from: usize,
) {
    let mut n = 1;
    while n < N {
        // The first pick is the one that may still choose a lane of vector 0.
        numbers[n].0[lane] = if n == 1 && vector == 0 {
            from as u32
        } else if n == vector {
            (V::LANES + from) as u32
        } else {
            lane as u32
        };
        n += 1;
    }
}
