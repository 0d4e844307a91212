//! exp, ln and tanh on vectors, written once for every instruction set.
//!
//! Range reduction is Cody and Waite's (the high part of ln 2 has so few bits that its multiples are exact, with and
//! without FMA); the f32 polynomials of exp and tanh are those of Cephes (Moshier), the others are Taylor series and
//! the rational tanh of Cephes. `Vector` states the errors and the tests measure them.

use crate::vector::Vector;

#[inline(always)]
pub(crate) fn horner<V: Vector>(x: V, coefficients: &[V::Elem]) -> V {
    let s = x.token();
    let mut p = V::splat(s, coefficients[0]);
    for &c in &coefficients[1..] {
        p = p.mul_add(x, V::splat(s, c));
    }
    p
}

/// Constants of `exp` for a type.
struct Exp<T: 'static> {
    /// Below it the result rounds to 0.
    low: T,
    /// Above it the result is infinite.
    high: T,
    log2_e: T,
    ln_2_high: T,
    ln_2_low: T,
    /// Of (e^r - 1 - r) / r^2, highest power first.
    tail: &'static [T],
    one: T,
}

#[inline(always)]
fn exp<V: Vector>(x: V, k: &Exp<V::Elem>) -> V {
    let s = x.token();
    // The operand order keeps NaN: min and max return their second operand for it.
    let x = V::splat(s, k.high).min(V::splat(s, k.low).max(x));
    let n = (x * V::splat(s, k.log2_e)).round();
    let r = n.neg_mul_add(V::splat(s, k.ln_2_high), x);
    let r = n.neg_mul_add(V::splat(s, k.ln_2_low), r);
    let tail = horner(r, k.tail);
    let p = tail.mul_add(r * r, r) + V::splat(s, k.one);
    p.scale2(n)
}

#[inline(always)]
pub(crate) fn exp_f32<V: Vector<Elem = f32>>(x: V) -> V {
    exp(
        x,
        &Exp {
            low: -104.0,
            high: 89.0,
            log2_e: std::f32::consts::LOG2_E,
            ln_2_high: 0.693_359_4,
            ln_2_low: -2.121_944_4e-4,
            tail: &[
                1.987_569_1e-4,
                1.398_2e-3,
                8.333_452e-3,
                4.166_579_6e-2,
                1.666_666_6e-1,
                5e-1,
            ],
            one: 1.0,
        },
    )
}

#[inline(always)]
pub(crate) fn exp_f64<V: Vector<Elem = f64>>(x: V) -> V {
    exp(
        x,
        &Exp {
            low: -746.0,
            high: 710.0,
            log2_e: std::f64::consts::LOG2_E,
            ln_2_high: 6.931_471_803_691_238e-1,
            ln_2_low: 1.908_214_929_270_587_7e-10,
            tail: &[
                1.0 / 6_227_020_800.0,
                1.0 / 479_001_600.0,
                1.0 / 39_916_800.0,
                1.0 / 3_628_800.0,
                1.0 / 362_880.0,
                1.0 / 40_320.0,
                1.0 / 5_040.0,
                1.0 / 720.0,
                1.0 / 120.0,
                1.0 / 24.0,
                1.0 / 6.0,
                0.5,
            ],
            one: 1.0,
        },
    )
}

/// 2^f on [-1/2, 1/2], highest power first, exactly 1 at 0: minimax polynomials of the relative error, 9.2e-8, fitted for this crate.
// The coefficient of f is near ln 2 and not it: a minimax polynomial spreads its error.
#[allow(clippy::approx_constant)]
const EXP2_CENTRED: [f32; 6] = [
    1.326_472_7e-3,
    9.671_513e-3,
    5.550_733_6e-2,
    2.402_224_2e-1,
    6.931_47e-1,
    1.0,
];

/// The same on [0, 1], 8.3e-8.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::approx_constant)]
pub(crate) const EXP2_FLOORED: [f32; 6] = [
    1.867_13e-3,
    9.017_031e-3,
    5.579_991_3e-2,
    2.401_644_4e-1,
    6.931_513e-1,
    1.0,
];

/// One power less, for half types: 2.9e-6.
#[allow(clippy::approx_constant)]
const EXP2_CENTRED_FOR_HALF: [f32; 5] =
    [9.582_853e-3, 5.590_642_6e-2, 2.402_41e-1, 6.931_242e-1, 1.0];

/// The same on [0, 1], 2.9e-6.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::approx_constant)]
pub(crate) const EXP2_FLOORED_FOR_HALF: [f32; 5] = [
    1.342_668_6e-2,
    5.224_247_3e-2,
    2.412_802_1e-1,
    6.930_448_4e-1,
    1.0,
];

#[inline(always)]
pub(crate) fn exp_nonpositive_f32<V: Vector<Elem = f32>>(x: V) -> V {
    exp2_centred(x, &EXP2_CENTRED)
}

#[inline(always)]
pub(crate) fn exp_nonpositive_for_half_f32<V: Vector<Elem = f32>>(x: V) -> V {
    exp2_centred(x, &EXP2_CENTRED_FOR_HALF)
}

/// 2^(x log2 e) with the exponent split off by rounding: the product's rounding error, relative to |x|, is left in.
#[inline(always)]
fn exp2_centred<V: Vector<Elem = f32>>(x: V, polynomial: &[f32]) -> V {
    let s = x.token();
    // The operand order keeps NaN. 2^-150 rounds to 0.
    let y = V::splat(s, -150.0).max(x * V::splat(s, std::f32::consts::LOG2_E));
    let n = y.round();
    horner(y - n, polynomial).scale2(n)
}

/// Constants of `ln` for a type.
struct Ln<T: 'static> {
    zero: T,
    half: T,
    one: T,
    two: T,
    smallest_normal: T,
    /// A power of two that lifts denormals into the normal range, and its exponent.
    lift: T,
    lift_exponent: T,
    ln_2_high: T,
    ln_2_low: T,
    infinity: T,
    nan: T,
    /// 2/(2k + 1) for k from the last term down to 1.
    series: &'static [T],
}

/// ln(1 + f) = f - f^2/2 + s (f^2/2 + R) with s = f/(2 + f) and R the series of 2 atanh(s)/s - 2 in s^2: the leading
/// terms are exact, so the error stays near one ulp.
#[inline(always)]
fn ln<V: Vector>(x: V, k: &Ln<V::Elem>) -> V {
    let s = x.token();
    let splat = |c| V::splat(s, c);
    let denormal = x.lt(splat(k.smallest_normal));
    let (m, e) = (x * splat(k.lift)).select(denormal, x).split2();
    let e = (e - splat(k.lift_exponent)).select(denormal, e);
    let f = m - splat(k.one);
    let half_square = f * f * splat(k.half);
    let t = f / (f + splat(k.two));
    let z = t * t;
    let r = z * horner(z, k.series);
    let low = e.mul_add(splat(k.ln_2_low), t * (half_square + r));
    let y = e.mul_add(splat(k.ln_2_high), f - (half_square - low));
    // Infinity and NaN come back as they are; 0 and negative numbers are given their limits.
    let y = y.select(x.lt(splat(k.infinity)), x);
    let y = (-splat(k.infinity)).select(x.eq(splat(k.zero)), y);
    splat(k.nan).select(x.lt(splat(k.zero)), y)
}

#[inline(always)]
pub(crate) fn ln_f32<V: Vector<Elem = f32>>(x: V) -> V {
    ln(
        x,
        &Ln {
            zero: 0.0,
            half: 0.5,
            one: 1.0,
            two: 2.0,
            smallest_normal: f32::MIN_POSITIVE,
            lift: 33_554_432.0,
            lift_exponent: 25.0,
            ln_2_high: 0.693_359_4,
            ln_2_low: -2.121_944_4e-4,
            infinity: f32::INFINITY,
            nan: f32::NAN,
            series: &[2.0 / 13.0, 2.0 / 11.0, 2.0 / 9.0, 2.0 / 7.0, 0.4, 2.0 / 3.0],
        },
    )
}

#[inline(always)]
pub(crate) fn ln_f64<V: Vector<Elem = f64>>(x: V) -> V {
    ln(
        x,
        &Ln {
            zero: 0.0,
            half: 0.5,
            one: 1.0,
            two: 2.0,
            smallest_normal: f64::MIN_POSITIVE,
            lift: 18_014_398_509_481_984.0,
            lift_exponent: 54.0,
            ln_2_high: 6.931_471_803_691_238e-1,
            ln_2_low: 1.908_214_929_270_587_7e-10,
            infinity: f64::INFINITY,
            nan: f64::NAN,
            series: &[
                2.0 / 27.0,
                2.0 / 25.0,
                2.0 / 23.0,
                2.0 / 21.0,
                2.0 / 19.0,
                2.0 / 17.0,
                2.0 / 15.0,
                2.0 / 13.0,
                2.0 / 11.0,
                2.0 / 9.0,
                2.0 / 7.0,
                0.4,
                2.0 / 3.0,
            ],
        },
    )
}

/// 1 - 2/(e^2|x| + 1), the magnitude of tanh for |x| of 0.625 and above, where nothing cancels.
#[inline(always)]
fn tanh_large<V: Vector>(x: V, one: V) -> V {
    let a = x.abs();
    let e = (a + a).exp();
    one - (one + one) / (e + one)
}

#[inline(always)]
pub(crate) fn tanh_f32<V: Vector<Elem = f32>>(x: V) -> V {
    let s = x.token();
    let z = x * x;
    let p = horner(
        z,
        &[
            -5.704_988_7e-3,
            2.063_909e-2,
            -5.373_971_6e-2,
            1.333_144_2e-1,
            -3.333_328e-1,
        ],
    );
    let small = (p * z).mul_add(x, x);
    let y = small.select(
        x.abs().lt(V::splat(s, 0.625)),
        tanh_large(x, V::splat(s, 1.0)),
    );
    // Also gives -0 its sign, which the fused multiply-add loses.
    y.copysign(x)
}

#[inline(always)]
pub(crate) fn tanh_f64<V: Vector<Elem = f64>>(x: V) -> V {
    let s = x.token();
    let z = x * x;
    let p = horner(
        z,
        &[
            -9.643_991_794_250_522e-1,
            -9.928_772_310_019_186e1,
            -1.614_687_684_417_084_5e3,
        ],
    );
    let q = horner(
        z,
        &[
            1.0,
            1.128_116_784_916_329_3e2,
            2.235_488_390_601_004_5e3,
            4.844_063_053_251_255e3,
        ],
    );
    let small = (z * p / q).mul_add(x, x);
    let y = small.select(
        x.abs().lt(V::splat(s, 0.625)),
        tanh_large(x, V::splat(s, 1.0)),
    );
    // Also gives -0 its sign, which the fused multiply-add loses.
    y.copysign(x)
}
