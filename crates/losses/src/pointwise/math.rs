//! exp, ln and ln_1p of f32 as straight code, without calls or branches, so that a loop around them becomes vector
//! code. Products and sums are rounded one by one, so every instruction set gives the same bits. The polynomials are
//! those of Cephes (S. L. Moshier); errors stay within 2 units in the last place.

/// ln 2 in two parts; the first has so few bits that its product with an exponent is exact.
const LN2_HIGH: f32 = 355.0 / 512.0;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// Evaluates a polynomial, highest power first.
#[inline(always)]
fn horner<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[0];
    for c in &coefficients[1..] {
        sum = sum * x + c;
    }
    sum
}

/// 2^n for n from -126 to 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) << 23) as u32)
}

/// e^x = 2^n e^r, n the integer nearest to x / ln 2.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Beyond these the result is infinite or 0; NaN compares false and stays.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
    const SHIFT: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted.to_bits().wrapping_sub(SHIFT.to_bits()) as i32;
    let whole = shifted - SHIFT;
    let r = (x - whole * LN2_HIGH) - whole * LN2_LOW;
    let p = horner(
        r,
        [
            1.987_569_1e-4,
            1.398_2e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            0.166_666_65,
            0.5,
        ],
    );
    let e = p * (r * r) + r + 1.0;
    // In two steps, so that results below the normal range are rounded, not lost. NaN makes any n: keep it in range.
    let half = (n >> 1).clamp(-126, 127);
    let rest = n.wrapping_sub(half).clamp(-126, 127);
    e * power_of_two(half) * power_of_two(rest)
}

/// ln x = k ln 2 + ln m, m within sqrt(1/2) and sqrt(2).
#[inline(always)]
pub(super) fn ln(x: f32) -> f32 {
    // Numbers below the normal range are brought into it.
    let small = x < f32::MIN_POSITIVE;
    let scaled = if small { x * 8_388_608.0 } else { x };
    let shift = if small { -23.0 } else { 0.0 };
    let bits = scaled.to_bits() as i32;
    const SQRT_HALF: i32 = 0x3f35_04f3;
    let k = bits.wrapping_sub(SQRT_HALF) >> 23;
    let m = f32::from_bits(bits.wrapping_sub(k << 23) as u32);
    let k = k as f32 + shift;
    let r = m - 1.0;
    let z = r * r;
    let p = horner(
        r,
        [
            7.037_683_6e-2,
            -0.115_146_1,
            0.116_769_99,
            -0.124_201_41,
            0.142_493_23,
            -0.166_680_58,
            0.200_007_14,
            -0.249_999_94,
            0.333_333_3,
        ],
    );
    let y = p * r * z + LN2_LOW * k - 0.5 * z;
    let y = r + y + LN2_HIGH * k;
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    let y = if x < 0.0 { f32::NAN } else { y };
    // Infinity and NaN.
    if x < f32::INFINITY { y } else { x }
}

/// ln(1 + x): the logarithm of the rounded sum, and what rounding it lost.
#[inline(always)]
pub(super) fn ln_1p(x: f32) -> f32 {
    let sum = 1.0 + x;
    let lost = (x - (sum - 1.0)) / sum;
    let y = ln(sum);
    // At 0 and infinity the correction is 0/0 or inf - inf.
    let regular = (sum > 0.0) & (sum < f32::INFINITY);
    if regular { y + lost } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Error in units in the last place of the right result.
    fn ulps(got: f32, want: f64) -> f64 {
        let rounded = want as f32;
        if got == rounded || (got.is_nan() && rounded.is_nan()) {
            return 0.0;
        }
        let unit =
            f64::from(f32::from_bits(rounded.abs().to_bits() + 1)) - f64::from(rounded.abs());
        (f64::from(got) - want).abs() / unit
    }

    /// Every 1,009th f32, both signs: 4 million of them.
    fn sweep() -> impl Iterator<Item = f32> {
        (0..u32::MAX).step_by(1009).map(f32::from_bits)
    }

    #[track_caller]
    fn worst(f: fn(f32) -> f32, oracle: fn(f64) -> f64) -> (f64, f32) {
        (sweep().map(|x| (ulps(f(x), oracle(f64::from(x))), x))).fold((0.0, 0.0), |a, b| {
            if b.0 > a.0 || b.0.is_nan() { b } else { a }
        })
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let (error, x) = worst(exp, f64::exp);
        assert!(error <= 2.0, "{error} at {x}");
    }

    #[test]
    fn ln_is_within_two_units_in_the_last_place() {
        let (error, x) = worst(ln, f64::ln);
        assert!(error <= 2.0, "{error} at {x}");
    }

    #[test]
    fn ln_1p_is_within_two_units_in_the_last_place() {
        let (error, x) = worst(ln_1p, f64::ln_1p);
        assert!(error <= 2.0, "{error} at {x}");
    }

    #[test]
    fn special_values_are_exact() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        assert_eq!(
            [exp(0.0), exp(-inf), exp(inf), exp(1e30)],
            [1.0, 0.0, inf, inf]
        );
        assert_eq!(
            [ln(1.0), ln(0.0), ln(-0.0), ln(inf)],
            [0.0, -inf, -inf, inf]
        );
        assert_eq!([ln_1p(0.0), ln_1p(-1.0), ln_1p(inf)], [0.0, -inf, inf]);
        assert!(
            [
                exp(nan),
                ln(nan),
                ln_1p(nan),
                ln(-1.0),
                ln(-inf),
                ln_1p(-2.0)
            ]
            .iter()
            .all(|y| y.is_nan())
        );
    }
}
